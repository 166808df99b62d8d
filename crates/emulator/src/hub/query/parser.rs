//! Reads a query, by recursive descent. What the language has and this does not is refused by its name and place.

use serde_json::Value;

use super::{
    QueryError,
    cursor::Cursor,
    lexer::Kind,
    syntax::{
        Aggregate, Collection, Column, Comparison, Expression, Function, Operator, Path,
        Projection, Query, Source,
    },
};

/// Reads `SELECT ...`.
pub(super) fn query(text: &str) -> Result<Query, QueryError> {
    let mut parser = Parser::new(text)?;
    parser.input.keyword("SELECT")?;
    let top = parser.top()?;
    let projection = parser.projection()?;
    parser.input.keyword("FROM")?;
    let from = parser.collection()?;
    let condition = match parser.input.takes_keyword("WHERE") {
        true => Some(parser.expression()?),
        false => None,
    };
    let group_by = parser.group_by()?;
    parser.input.end()?;
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
    parser.input.end()?;
    condition.shorten(Collection::Devices);
    Ok(condition)
}

struct Parser {
    input: Cursor,
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
            input: Cursor::new(text)?,
            depth: 0,
            nodes: 0,
        })
    }

    fn top(&mut self) -> Result<Option<u64>, QueryError> {
        if !self.input.takes_keyword("TOP") {
            return Ok(None);
        }
        let Kind::Number(number) = self.input.peek() else {
            return Err(self.input.unexpected("a number"));
        };
        let top = number.as_u64().filter(|top| *top > 0);
        let top = top.ok_or_else(|| self.input.error("TOP is a whole number from 1".to_owned()))?;
        self.input.skip(1);
        Ok(Some(top))
    }

    fn projection(&mut self) -> Result<Projection, QueryError> {
        if self.input.takes("*") {
            return Ok(Projection::Everything);
        }
        let mut columns = Vec::new();
        loop {
            let at = self.input.token().at;
            let column = self.column(columns.len() + 1)?;
            if columns.iter().any(|c: &Column| c.name == column.name) {
                let message = format!("there are two columns {}", column.name);
                return Err(QueryError { at, message });
            }
            columns.push(column);
            if !self.input.takes(",") {
                return Ok(Projection::Columns(columns));
            }
            self.node()?;
        }
    }

    fn column(&mut self, number: usize) -> Result<Column, QueryError> {
        let function = self
            .input
            .is_sign_after("(")
            .then(|| self.input.peek().to_string());
        let (source, own_name) = match function {
            Some(name) => (self.aggregate(&name)?, format!("${number}")),
            None => {
                let path = self.input.path()?;
                let last = path.0.last().cloned().unwrap_or_default();
                (Source::Attribute(path), last)
            }
        };
        let name = match self.input.takes_keyword("AS") {
            true => self.input.name()?,
            false => own_name,
        };
        Ok(Column { name, source })
    }

    fn aggregate(&mut self, name: &str) -> Result<Source, QueryError> {
        let is_count = name.eq_ignore_ascii_case("COUNT");
        let aggregate = Aggregate::named(name);
        if !is_count && aggregate.is_none() {
            return Err(self.input.error(format!(
                "{name} cannot be selected; COUNT, AVG, SUM, MIN, MAX and attributes can"
            )));
        }
        self.input.skip(2);
        let source = match aggregate {
            Some(aggregate) => Source::Aggregate(aggregate, self.input.path()?),
            None => Source::Count,
        };
        self.input.sign(")")?;
        Ok(source)
    }

    fn collection(&mut self) -> Result<Collection, QueryError> {
        let at = self.input.token().at;
        let Path(parts) = self.input.path()?;
        let all = [Collection::Devices, Collection::Modules, Collection::Jobs];
        let is_named = |collection: &Collection| {
            let names = collection.parts();
            names.len() == parts.len()
                && names
                    .iter()
                    .zip(&parts)
                    .all(|(n, p)| n.eq_ignore_ascii_case(p))
        };
        all.into_iter().find(is_named).ok_or_else(|| QueryError {
            at,
            message: "after FROM comes devices, devices.modules or devices.jobs".to_owned(),
        })
    }

    fn group_by(&mut self) -> Result<Vec<Path>, QueryError> {
        let mut paths = Vec::new();
        if self.input.takes_keyword("GROUP") {
            self.input.keyword("BY")?;
            paths.push(self.input.path()?);
            while self.input.takes(",") {
                paths.push(self.input.path()?);
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
        if !self.input.is_keyword(keyword) {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.input.takes_keyword(keyword) {
            operands.push(operand(self)?);
        }
        Ok(joined(operands))
    }

    fn negation(&mut self) -> Result<Expression, QueryError> {
        if self.input.takes_keyword("NOT") {
            return self.deeper(|parser| Ok(Expression::Not(Box::new(parser.negation()?))));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expression, QueryError> {
        let left = self.sum()?;
        if self.input.takes_keyword("IN") {
            return Ok(Expression::In(Box::new(left), self.list()?));
        }
        if self.input.takes_keyword("NIN") {
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
        match self.input.takes_one(&comparisons) {
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
        while let Some(operator) = self.input.takes_one(operators) {
            let right = operand(self)?;
            left = Expression::Calculate(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Expression, QueryError> {
        if !self.input.takes("-") {
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
        let constant = match self.input.peek() {
            Kind::Number(number) => Some(Value::Number(number.clone())),
            Kind::Text(text) => Some(Value::String(text.clone())),
            Kind::Word(word) if word.eq_ignore_ascii_case("true") => Some(true.into()),
            Kind::Word(word) if word.eq_ignore_ascii_case("false") => Some(false.into()),
            Kind::Word(word) if word.eq_ignore_ascii_case("null") => Some(Value::Null),
            Kind::Word(_) | Kind::Name(_) | Kind::Sign(_) | Kind::End => None,
        };
        if let Some(constant) = constant {
            self.input.skip(1);
            return Ok(Expression::Constant(constant));
        }
        if self.input.takes_keyword("undefined") {
            return Ok(Expression::Undefined);
        }
        if self.input.takes("(") {
            return self.deeper(|parser| {
                let inner = parser.expression()?;
                parser.input.sign(")")?;
                Ok(inner)
            });
        }
        if self.input.is_sign_after("(") {
            return self.deeper(Self::call);
        }
        Ok(Expression::Attribute(self.input.path()?))
    }

    fn call(&mut self) -> Result<Expression, QueryError> {
        let Kind::Word(name) = self.input.peek().clone() else {
            return Err(self.input.unexpected("a function"));
        };
        let function = Function::named(&name).ok_or_else(|| {
            self.input
                .error(format!("the function {name} is not supported here"))
        })?;
        self.input.skip(2);
        let mut arguments = vec![self.expression()?];
        while self.input.takes(",") {
            arguments.push(self.expression()?);
        }
        self.input.sign(")")?;
        if arguments.len() != function.arguments() {
            return Err(self.input.error(format!(
                "{name} takes {} argument(s), not {}",
                function.arguments(),
                arguments.len()
            )));
        }
        Ok(Expression::Call(function, arguments))
    }

    /// `['a', 'b']`
    fn list(&mut self) -> Result<Vec<Expression>, QueryError> {
        self.input.sign("[")?;
        let mut items = Vec::new();
        if self.input.takes("]") {
            return Ok(items);
        }
        loop {
            items.push(self.deeper(Self::sum)?);
            if !self.input.takes(",") {
                self.input.sign("]")?;
                return Ok(items);
            }
        }
    }

    /// Goes one level down, for what recursion builds.
    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Expression, QueryError>,
    ) -> Result<Expression, QueryError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self
                .input
                .error(format!("a query has at most {DEPTH} levels")));
        }
        let expression = read(self);
        self.depth -= 1;
        expression
    }

    /// Counts a part, for what loops build.
    fn node(&mut self) -> Result<(), QueryError> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(self
                .input
                .error(format!("a query has at most {NODES} parts")));
        }
        Ok(())
    }
}

/// Bytes of a query; the hub's own bound is not documented.
const LENGTH: usize = 8 * 1024;
/// Parentheses and the like within each other.
const DEPTH: usize = 32;
/// Constants, attributes, calls and columns: as deep may a chain of operators be.
const NODES: usize = 500;
