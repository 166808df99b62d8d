//! A query's text, cut into words, constants and signs ("IoT Hub query language").

use std::fmt;

use serde_json::Number;

use super::QueryError;

/// A piece of a query, and where it begins.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// In characters, from 1.
    pub(super) at: usize,
}

/// What a token is.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Kind {
    /// A keyword, an attribute, a function.
    Word(String),
    /// `[[name]]`: an attribute whatever it is called.
    Name(String),
    /// A number.
    Number(Number),
    /// A text in single or double quotes.
    Text(String),
    /// A sign.
    Sign(&'static str),
    /// Nothing is left.
    End,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Name(name) => write!(f, "[[{name}]]"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(_) => f.write_str("a text"),
            Self::Sign(sign) => f.write_str(sign),
            Self::End => f.write_str("the end"),
        }
    }
}

/// Cuts a query into tokens, the last of which is the end.
pub(super) fn cut(text: &str) -> Result<Vec<Token>, QueryError> {
    let mut lexer = Lexer { rest: text, at: 1 };
    let mut tokens = Vec::new();
    loop {
        lexer.take_while(char::is_whitespace);
        let at = lexer.at;
        let kind = lexer.next()?;
        let is_last = kind == Kind::End;
        tokens.push(Token { kind, at });
        if is_last {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Kind, QueryError> {
        let Some(first) = self.rest.chars().next() else {
            return Ok(Kind::End);
        };
        if self.rest.starts_with("[[") {
            return self.name();
        }
        if let Some(sign) = SIGNS.iter().find(|sign| self.rest.starts_with(**sign)) {
            self.skip(sign.len());
            return Ok(Kind::Sign(sign));
        }
        match first {
            '\'' | '"' => self.text(first),
            '0'..='9' => self.number(),
            c if is_of_word(c) => Ok(Kind::Word(self.take_while(is_of_word).to_owned())),
            c => Err(self.error(format!("the character {c:?} has no meaning"))),
        }
    }

    fn name(&mut self) -> Result<Kind, QueryError> {
        let end = self
            .rest
            .find("]]")
            .ok_or_else(|| self.error("[[ has no ]]".to_owned()))?;
        let name = self.rest[2..end].to_owned();
        self.skip(end + 2);
        Ok(Kind::Name(name))
    }

    /// The escapes are those of the language's page: `\'`, `\"`, `\\` and `\uXXXX`.
    fn text(&mut self, quote: char) -> Result<Kind, QueryError> {
        let start = self.at;
        self.skip(1);
        let mut text = String::new();
        loop {
            let plain = self.take_while(|c| c != quote && c != '\\');
            text.push_str(plain);
            match self.rest.chars().next() {
                None => {
                    let message = "the text has no end".to_owned();
                    return Err(QueryError { at: start, message });
                }
                Some('\\') => text.push(self.escape()?),
                Some(_) => {
                    self.skip(1);
                    return Ok(Kind::Text(text));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, QueryError> {
        let escaped = match self.rest.chars().nth(1) {
            Some(c @ ('\'' | '"' | '\\')) => Some((c, 2)),
            Some('u') => self
                .rest
                .get(2..6)
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .and_then(char::from_u32)
                .map(|c| (c, 6)),
            Some(_) | None => None,
        };
        let (c, length) = escaped.ok_or_else(|| {
            self.error(r#"after \ comes ', ", \ or u with four digits"#.to_owned())
        })?;
        self.skip(length);
        Ok(c)
    }

    fn number(&mut self) -> Result<Kind, QueryError> {
        let bytes = self.rest.as_bytes();
        let digits_from = |from: usize| {
            let digits = bytes[from..].iter().take_while(|b| b.is_ascii_digit());
            from + digits.count()
        };
        let hexadecimal = self.rest.get(..2).filter(|p| p.eq_ignore_ascii_case("0x"));
        let (number, end) = if hexadecimal.is_some() {
            let digits = bytes[2..].iter().take_while(|b| b.is_ascii_hexdigit());
            let end = 2 + digits.count();
            let number = i64::from_str_radix(&self.rest[2..end], 16).ok();
            (number.map(Number::from), end)
        } else {
            let mut end = digits_from(0);
            if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
                end = digits_from(end + 1);
            }
            if matches!(bytes.get(end), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                let exponent = digits_from((end + 1 + sign).min(bytes.len()));
                if exponent > end + 1 + sign {
                    end = exponent;
                }
            }
            let text = &self.rest[..end];
            let integer = text.parse::<i64>().ok().map(Number::from);
            let float = || text.parse::<f64>().ok().and_then(Number::from_f64);
            (integer.or_else(float), end)
        };
        let number = number.ok_or_else(|| self.error("the number is too large".to_owned()))?;
        self.skip(end);
        if self.rest.starts_with(is_of_word) {
            return Err(self.error("a name does not begin with a digit".to_owned()));
        }
        Ok(Kind::Number(number))
    }

    fn take_while(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is(c)).unwrap_or(self.rest.len());
        let taken = &self.rest[..end];
        self.skip(end);
        taken
    }

    /// Goes on by so many bytes, which end at a character.
    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at(bytes);
        self.at += skipped.chars().count();
        self.rest = rest;
    }

    fn error(&self, message: String) -> QueryError {
        QueryError {
            at: self.at,
            message,
        }
    }
}

/// `$` begins the hub's own members of a twin.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$')
}

/// Longer ones first.
const SIGNS: [&str; 18] = [
    "!=", "<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", ",", ".",
];
