//! The tokens of a query, one after the other, and what is read of them without looking further than to the next one.

use super::{
    QueryError,
    lexer::{self, Kind, Token},
    syntax::Path,
};

/// Where reading has come to.
pub(super) struct Cursor {
    /// The last one is the end, and stays the next one.
    tokens: Vec<Token>,
    next: usize,
}

impl Cursor {
    pub(super) fn new(text: &str) -> Result<Self, QueryError> {
        Ok(Self {
            tokens: lexer::cut(text)?,
            next: 0,
        })
    }

    pub(super) fn path(&mut self) -> Result<Path, QueryError> {
        let mut parts = vec![self.name()?];
        while self.takes(".") {
            // Behind a dot nothing is a keyword.
            match self.peek().clone() {
                Kind::Word(name) | Kind::Name(name) => parts.push(name),
                Kind::Number(_) | Kind::Text(_) | Kind::Sign(_) | Kind::End => {
                    return Err(self.unexpected("a name"));
                }
            }
            self.next += 1;
        }
        if matches!(self.peek(), Kind::Sign("[")) {
            return Err(self.error("the items of an array cannot be named".to_owned()));
        }
        Ok(Path(parts))
    }

    pub(super) fn name(&mut self) -> Result<String, QueryError> {
        match self.peek().clone() {
            Kind::Word(word) if is_reserved(&word) => Err(self.unexpected("a name")),
            Kind::Word(name) | Kind::Name(name) => {
                self.next += 1;
                Ok(name)
            }
            Kind::Number(_) | Kind::Text(_) | Kind::Sign(_) | Kind::End => {
                Err(self.unexpected("a name"))
            }
        }
    }

    pub(super) fn end(&self) -> Result<(), QueryError> {
        if *self.peek() == Kind::End {
            return Ok(());
        }
        Err(self.unexpected("the end"))
    }

    pub(super) fn keyword(&mut self, keyword: &str) -> Result<(), QueryError> {
        match self.takes_keyword(keyword) {
            true => Ok(()),
            false => Err(self.unexpected(keyword)),
        }
    }

    pub(super) fn sign(&mut self, sign: &'static str) -> Result<(), QueryError> {
        match self.takes(sign) {
            true => Ok(()),
            false => Err(self.unexpected(sign)),
        }
    }

    /// Goes on, over tokens that were looked at.
    pub(super) const fn skip(&mut self, tokens: usize) {
        self.next += tokens;
    }

    pub(super) fn takes_keyword(&mut self, keyword: &str) -> bool {
        let is_next = self.is_keyword(keyword);
        self.next += usize::from(is_next);
        is_next
    }

    pub(super) fn takes(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.peek(), Kind::Sign(s) if *s == sign);
        self.next += usize::from(is_next);
        is_next
    }

    pub(super) fn takes_one<T: Copy>(&mut self, signs: &[(&str, T)]) -> Option<T> {
        let found = signs.iter().find(|(sign, _)| self.takes(sign));
        found.map(|(_, meaning)| *meaning)
    }

    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Kind::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub(super) fn is_sign_after(&self, sign: &str) -> bool {
        let after = self.tokens.get(self.next + 1).map(|token| &token.kind);
        matches!(self.peek(), Kind::Word(_)) && matches!(after, Some(Kind::Sign(s)) if *s == sign)
    }

    pub(super) fn peek(&self) -> &Kind {
        &self.token().kind
    }

    pub(super) fn token(&self) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[self.next.min(last)]
    }

    pub(super) fn unexpected(&self, expected: &str) -> QueryError {
        let found = self.peek();
        if let Kind::Word(word) = found
            && is_foreign(word)
        {
            return self.error(format!("{} is not supported", word.to_ascii_uppercase()));
        }
        self.error(format!("expected {expected}, found {found}"))
    }

    pub(super) fn error(&self, message: String) -> QueryError {
        QueryError {
            at: self.token().at,
            message,
        }
    }
}

fn is_reserved(word: &str) -> bool {
    let reserved = [
        "SELECT", "FROM", "WHERE", "GROUP", "AND", "OR", "NOT", "IN", "NIN", "AS",
    ];
    let is = |other: &&str| other.eq_ignore_ascii_case(word);
    reserved.iter().any(is) || is_foreign(word)
}

/// Words of other query languages.
fn is_foreign(word: &str) -> bool {
    let foreign = [
        "BETWEEN", "CASE", "DISTINCT", "EXISTS", "HAVING", "JOIN", "LIKE", "LIMIT", "OFFSET",
        "ORDER", "UNION",
    ];
    foreign.iter().any(|other| other.eq_ignore_ascii_case(word))
}
