//! Reads a query, by recursive descent. What the language has and this does not is refused by its name and place.

use serde_json::Value;

use super::{
    QueryError,
    lexer::{self, Kind, Token},
    syntax::{
        Aggregate, Collection, Column, Comparison, Expression, Function, Operator, Path,
        Projection, Query, Source,
    },
};

/// Reads `SELECT ...`.
pub(super) fn query(text: &str) -> Result<Query, QueryError> {
    let mut parser = Parser::new(text)?;
    parser.keyword("SELECT")?;
    let top = parser.top()?;
    let projection = parser.projection()?;
    parser.keyword("FROM")?;
    let from = parser.collection()?;
    let condition = match parser.takes_keyword("WHERE") {
        true => Some(parser.expression()?),
        false => None,
    };
    let group_by = parser.group_by()?;
    parser.end()?;
    let query = Query {
        projection,
        top,
        from,
        condition,
        group_by,
    };
    query.relative()
}

/// Reads what comes after `WHERE`, of devices.
pub(super) fn condition(text: &str) -> Result<Expression, QueryError> {
    let mut parser = Parser::new(text)?;
    let mut condition = parser.expression()?;
    parser.end()?;
    condition.shorten(Collection::Devices);
    Ok(condition)
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    nodes: usize,
}

impl Parser {
    fn new(text: &str) -> Result<Self, QueryError> {
        if text.len() > LENGTH {
            return Err(QueryError {
                at: 1,
                message: format!("a query has at most {LENGTH} bytes"),
            });
        }
        Ok(Self {
            tokens: lexer::cut(text)?,
            next: 0,
            depth: 0,
            nodes: 0,
        })
    }

    fn top(&mut self) -> Result<Option<u64>, QueryError> {
        if !self.takes_keyword("TOP") {
            return Ok(None);
        }
        let Kind::Number(number) = self.peek() else {
            return Err(self.unexpected("a number"));
        };
        let top = number.as_u64().filter(|top| *top > 0);
        let top = top.ok_or_else(|| self.error("TOP is a whole number from 1".to_owned()))?;
        self.next += 1;
        Ok(Some(top))
    }

    fn projection(&mut self) -> Result<Projection, QueryError> {
        if self.takes("*") {
            return Ok(Projection::Everything);
        }
        let mut columns = Vec::new();
        loop {
            let at = self.token().at;
            let column = self.column(columns.len() + 1)?;
            if columns.iter().any(|c: &Column| c.name == column.name) {
                let message = format!("there are two columns {}", column.name);
                return Err(QueryError { at, message });
            }
            columns.push(column);
            if !self.takes(",") {
                return Ok(Projection::Columns(columns));
            }
            self.node()?;
        }
    }

    fn column(&mut self, number: usize) -> Result<Column, QueryError> {
        let function = self.is_sign_after("(").then(|| self.peek().to_string());
        let (source, own_name) = match function {
            Some(name) => (self.aggregate(&name)?, format!("${number}")),
            None => {
                let path = self.path()?;
                let last = path.0.last().cloned().unwrap_or_default();
                (Source::Attribute(path), last)
            }
        };
        let name = match self.takes_keyword("AS") {
            true => self.name()?,
            false => own_name,
        };
        Ok(Column { name, source })
    }

    fn aggregate(&mut self, name: &str) -> Result<Source, QueryError> {
        let is_count = name.eq_ignore_ascii_case("COUNT");
        let aggregate = Aggregate::named(name);
        if !is_count && aggregate.is_none() {
            return Err(self.error(format!(
                "{name} cannot be selected; COUNT, AVG, SUM, MIN, MAX and attributes can"
            )));
        }
        self.next += 2;
        let source = match aggregate {
            Some(aggregate) => Source::Aggregate(aggregate, self.path()?),
            None => Source::Count,
        };
        self.sign(")")?;
        Ok(source)
    }

    fn collection(&mut self) -> Result<Collection, QueryError> {
        let at = self.next;
        let Path(parts) = self.path()?;
        let all = [Collection::Devices, Collection::Modules, Collection::Jobs];
        let is_named = |collection: &Collection| {
            let names = collection.parts();
            names.len() == parts.len()
                && names
                    .iter()
                    .zip(&parts)
                    .all(|(n, p)| n.eq_ignore_ascii_case(p))
        };
        all.into_iter().find(is_named).ok_or_else(|| {
            self.next = at;
            self.error("after FROM comes devices, devices.modules or devices.jobs".to_owned())
        })
    }

    fn group_by(&mut self) -> Result<Vec<Path>, QueryError> {
        let mut paths = Vec::new();
        if self.takes_keyword("GROUP") {
            self.keyword("BY")?;
            paths.push(self.path()?);
            while self.takes(",") {
                paths.push(self.path()?);
            }
        }
        Ok(paths)
    }

    /// `OR` binds least, then `AND`, then `NOT`, then comparisons.
    fn expression(&mut self) -> Result<Expression, QueryError> {
        self.chain("OR", Self::conjunction, Expression::Any)
    }

    fn conjunction(&mut self) -> Result<Expression, QueryError> {
        self.chain("AND", Self::negation, Expression::All)
    }

    fn chain(
        &mut self,
        keyword: &str,
        operand: fn(&mut Self) -> Result<Expression, QueryError>,
        joined: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression, QueryError> {
        let first = operand(self)?;
        if !self.is_keyword(keyword) {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.takes_keyword(keyword) {
            operands.push(operand(self)?);
        }
        Ok(joined(operands))
    }

    fn negation(&mut self) -> Result<Expression, QueryError> {
        if self.takes_keyword("NOT") {
            return self.deeper(|parser| Ok(Expression::Not(Box::new(parser.negation()?))));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expression, QueryError> {
        let left = self.sum()?;
        if self.takes_keyword("IN") {
            return Ok(Expression::In(Box::new(left), self.list()?));
        }
        if self.takes_keyword("NIN") {
            let is_in = Expression::In(Box::new(left), self.list()?);
            return Ok(Expression::Not(Box::new(is_in)));
        }
        let comparisons = [
            ("=", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        match self.takes_one(&comparisons) {
            Some(comparison) => {
                let right = self.sum()?;
                Ok(Expression::Compare(
                    comparison,
                    Box::new(left),
                    Box::new(right),
                ))
            }
            None => Ok(left),
        }
    }

    fn sum(&mut self) -> Result<Expression, QueryError> {
        let operators = [("+", Operator::Plus), ("-", Operator::Minus)];
        self.calculation(&operators, Self::product)
    }

    fn product(&mut self) -> Result<Expression, QueryError> {
        let operators = [
            ("*", Operator::Times),
            ("/", Operator::By),
            ("%", Operator::Modulo),
        ];
        self.calculation(&operators, Self::signed)
    }

    fn calculation(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Self) -> Result<Expression, QueryError>,
    ) -> Result<Expression, QueryError> {
        let mut left = operand(self)?;
        while let Some(operator) = self.takes_one(operators) {
            let right = operand(self)?;
            left = Expression::Calculate(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Expression, QueryError> {
        if !self.takes("-") {
            return self.primary();
        }
        self.deeper(|parser| {
            let zero = Box::new(Expression::Constant(0.into()));
            let operand = Box::new(parser.signed()?);
            Ok(Expression::Calculate(Operator::Minus, zero, operand))
        })
    }

    fn primary(&mut self) -> Result<Expression, QueryError> {
        self.node()?;
        let constant = match self.peek() {
            Kind::Number(number) => Some(Value::Number(number.clone())),
            Kind::Text(text) => Some(Value::String(text.clone())),
            Kind::Word(word) if word.eq_ignore_ascii_case("true") => Some(true.into()),
            Kind::Word(word) if word.eq_ignore_ascii_case("false") => Some(false.into()),
            Kind::Word(word) if word.eq_ignore_ascii_case("null") => Some(Value::Null),
            Kind::Word(_) | Kind::Name(_) | Kind::Sign(_) | Kind::End => None,
        };
        if let Some(constant) = constant {
            self.next += 1;
            return Ok(Expression::Constant(constant));
        }
        if self.takes_keyword("undefined") {
            return Ok(Expression::Undefined);
        }
        if self.takes("(") {
            return self.deeper(|parser| {
                let inner = parser.expression()?;
                parser.sign(")")?;
                Ok(inner)
            });
        }
        if self.is_sign_after("(") {
            return self.deeper(Self::call);
        }
        Ok(Expression::Attribute(self.path()?))
    }

    fn call(&mut self) -> Result<Expression, QueryError> {
        let Kind::Word(name) = self.peek().clone() else {
            return Err(self.unexpected("a function"));
        };
        let function = Function::named(&name)
            .ok_or_else(|| self.error(format!("the function {name} is not supported here")))?;
        self.next += 2;
        let mut arguments = vec![self.expression()?];
        while self.takes(",") {
            arguments.push(self.expression()?);
        }
        self.sign(")")?;
        if arguments.len() != function.arguments() {
            return Err(self.error(format!(
                "{name} takes {} argument(s), not {}",
                function.arguments(),
                arguments.len()
            )));
        }
        Ok(Expression::Call(function, arguments))
    }

    /// `['a', 'b']`
    fn list(&mut self) -> Result<Vec<Expression>, QueryError> {
        self.sign("[")?;
        let mut items = Vec::new();
        if self.takes("]") {
            return Ok(items);
        }
        loop {
            items.push(self.deeper(Self::sum)?);
            if !self.takes(",") {
                self.sign("]")?;
                return Ok(items);
            }
        }
    }

    fn path(&mut self) -> Result<Path, QueryError> {
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

    fn name(&mut self) -> Result<String, QueryError> {
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

    fn end(&self) -> Result<(), QueryError> {
        if *self.peek() == Kind::End {
            return Ok(());
        }
        Err(self.unexpected("the end"))
    }

    /// Goes one level down, for what recursion builds.
    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Expression, QueryError>,
    ) -> Result<Expression, QueryError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error(format!("a query has at most {DEPTH} levels")));
        }
        let expression = read(self);
        self.depth -= 1;
        expression
    }

    /// Counts a part, for what loops build.
    fn node(&mut self) -> Result<(), QueryError> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(self.error(format!("a query has at most {NODES} parts")));
        }
        Ok(())
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), QueryError> {
        match self.takes_keyword(keyword) {
            true => Ok(()),
            false => Err(self.unexpected(keyword)),
        }
    }

    fn sign(&mut self, sign: &'static str) -> Result<(), QueryError> {
        match self.takes(sign) {
            true => Ok(()),
            false => Err(self.unexpected(sign)),
        }
    }

    fn takes_keyword(&mut self, keyword: &str) -> bool {
        let is_next = self.is_keyword(keyword);
        self.next += usize::from(is_next);
        is_next
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.peek(), Kind::Sign(s) if *s == sign);
        self.next += usize::from(is_next);
        is_next
    }

    fn takes_one<T: Copy>(&mut self, signs: &[(&str, T)]) -> Option<T> {
        let found = signs.iter().find(|(sign, _)| self.takes(sign));
        found.map(|(_, meaning)| *meaning)
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Kind::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn is_sign_after(&self, sign: &str) -> bool {
        let after = self.tokens.get(self.next + 1).map(|token| &token.kind);
        matches!(self.peek(), Kind::Word(_)) && matches!(after, Some(Kind::Sign(s)) if *s == sign)
    }

    fn peek(&self) -> &Kind {
        &self.token().kind
    }

    fn token(&self) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[self.next.min(last)]
    }

    fn unexpected(&self, expected: &str) -> QueryError {
        let found = self.peek();
        if let Kind::Word(word) = found
            && is_foreign(word)
        {
            return self.error(format!("{} is not supported", word.to_ascii_uppercase()));
        }
        self.error(format!("expected {expected}, found {found}"))
    }

    fn error(&self, message: String) -> QueryError {
        QueryError {
            at: self.token().at,
            message,
        }
    }
}

impl Query {
    /// Takes the collection's name off the attributes, and checks what grouping allows.
    fn relative(mut self) -> Result<Self, QueryError> {
        let from = self.from;
        if let Some(condition) = &mut self.condition {
            condition.shorten(from);
        }
        for path in &mut self.group_by {
            path.shorten(from);
        }
        let wrong = |message: &str| {
            let message = message.to_owned();
            Err(QueryError { at: 1, message })
        };
        let Projection::Columns(columns) = &mut self.projection else {
            return match self.group_by.is_empty() {
                true => Ok(self),
                false => wrong("with GROUP BY the columns are named"),
            };
        };
        for column in &mut *columns {
            match &mut column.source {
                Source::Attribute(path) | Source::Aggregate(_, path) => path.shorten(from),
                Source::Count => {}
            }
        }
        let is_aggregate = |column: &Column| !matches!(column.source, Source::Attribute(_));
        let is_grouped = !self.group_by.is_empty() || columns.iter().any(is_aggregate);
        let is_loose = |column: &Column| match &column.source {
            Source::Attribute(path) => !self.group_by.contains(path),
            Source::Count | Source::Aggregate(..) => false,
        };
        match columns.iter().find(|column| is_loose(column)) {
            Some(column) if is_grouped => {
                wrong(&format!("the column {} is not in GROUP BY", column.name))
            }
            _ => Ok(self),
        }
    }
}

impl Expression {
    fn shorten(&mut self, from: Collection) {
        match self {
            Self::Constant(_) | Self::Undefined => {}
            Self::Attribute(path) => path.shorten(from),
            Self::Not(inner) => inner.shorten(from),
            Self::All(parts) | Self::Any(parts) | Self::Call(_, parts) => {
                for part in parts {
                    part.shorten(from);
                }
            }
            Self::Compare(_, left, right) | Self::Calculate(_, left, right) => {
                left.shorten(from);
                right.shorten(from);
            }
            Self::In(left, items) => {
                left.shorten(from);
                for item in items {
                    item.shorten(from);
                }
            }
        }
    }
}

impl Path {
    fn shorten(&mut self, from: Collection) {
        let names = from.parts();
        let is_named = self.0.len() > names.len()
            && names
                .iter()
                .zip(&self.0)
                .all(|(n, p)| n.eq_ignore_ascii_case(p));
        if is_named {
            self.0.drain(..names.len());
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

/// Bytes of a query; the hub's own bound is not documented.
const LENGTH: usize = 8 * 1024;
/// Parentheses and the like within each other.
const DEPTH: usize = 32;
/// Constants, attributes, calls and columns: as deep may a chain of operators be.
const NODES: usize = 500;
