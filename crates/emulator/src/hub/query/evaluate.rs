//! What an expression is worth for one row.
//!
//! An attribute that is not there is undefined, and so is what is made of it; `WHERE` takes a row only if its condition is
//! true ("IoT Hub query language"). What comparing two values of different types gives is not documented: here they are
//! not equal, and neither is less.

use std::{borrow::Cow, cmp::Ordering};

use serde_json::{Number, Value};

use super::syntax::{Comparison, Expression, Function, Operator, Path};

/// What a query looks at.
pub(in crate::hub) trait Row {
    /// The attribute at this path, if there is one.
    fn get(&self, path: &[String]) -> Option<Cow<'_, Value>>;

    /// All of it: `SELECT *`.
    fn whole(&self) -> Value;
}

impl Path {
    pub(super) fn of<'a>(&self, row: &'a dyn Row) -> Option<Cow<'a, Value>> {
        row.get(&self.0)
    }
}

impl Expression {
    /// None: undefined.
    pub(super) fn is_true(&self, row: &dyn Row) -> Option<bool> {
        match self {
            Self::Not(inner) => inner.is_true(row).map(|is| !is),
            Self::All(parts) => all(parts.iter().map(|part| part.is_true(row))),
            Self::Any(parts) => {
                all(parts.iter().map(|part| part.is_true(row).map(|is| !is))).map(|none| !none)
            }
            Self::Compare(comparison, left, right) => {
                let (left, right) = (left.value(row)?, right.value(row)?);
                comparison.holds(&left, &right)
            }
            Self::In(left, items) => {
                let left = left.value(row)?;
                let is = |item: &Self| item.value(row).is_some_and(|item| are_equal(&left, &item));
                Some(items.iter().any(is))
            }
            Self::Call(function, arguments) => function.call(arguments, row),
            Self::Constant(_) | Self::Undefined | Self::Attribute(_) | Self::Calculate(..) => {
                self.value(row)?.as_bool()
            }
        }
    }

    fn value<'a>(&'a self, row: &'a dyn Row) -> Option<Cow<'a, Value>> {
        match self {
            Self::Constant(value) => Some(Cow::Borrowed(value)),
            Self::Undefined => None,
            Self::Attribute(path) => path.of(row),
            Self::Calculate(operator, left, right) => {
                let (left, right) = (left.value(row)?.as_f64()?, right.value(row)?.as_f64()?);
                number(operator.apply(left, right)).map(Cow::Owned)
            }
            Self::Not(_)
            | Self::All(_)
            | Self::Any(_)
            | Self::Compare(..)
            | Self::In(..)
            | Self::Call(..) => self.is_true(row).map(|is| Cow::Owned(is.into())),
        }
    }
}

/// False if one is false, else undefined if one is undefined.
fn all(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(true);
    for part in parts {
        match part {
            Some(false) => return Some(false),
            Some(true) => {}
            None => result = None,
        }
    }
    result
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> Option<bool> {
        match self {
            Self::Equal => Some(are_equal(left, right)),
            Self::NotEqual => Some(!are_equal(left, right)),
            Self::Less => order(left, right).map(Ordering::is_lt),
            Self::LessOrEqual => order(left, right).map(Ordering::is_le),
            Self::Greater => order(left, right).map(Ordering::is_gt),
            Self::GreaterOrEqual => order(left, right).map(Ordering::is_ge),
        }
    }
}

impl Operator {
    fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Plus => left + right,
            Self::Minus => left - right,
            Self::Times => left * right,
            Self::By => left / right,
            Self::Modulo => left % right,
        }
    }
}

impl Function {
    fn call(self, arguments: &[Expression], row: &dyn Row) -> Option<bool> {
        let argument = |index: usize| arguments.get(index)?.value(row);
        let first = argument(0);
        if self == Self::IsDefined {
            return Some(first.is_some());
        }
        let first = first?;
        let texts = |test: fn(&str, &str) -> bool| {
            let second = argument(1)?;
            Some(test(first.as_str()?, second.as_str()?))
        };
        match self {
            Self::IsDefined => Some(true),
            Self::IsNull => Some(first.is_null()),
            Self::IsBool => Some(first.is_boolean()),
            Self::IsNumber => Some(first.is_number()),
            Self::IsString => Some(first.is_string()),
            Self::IsObject => Some(first.is_object()),
            Self::StartsWith => texts(|text, part| text.starts_with(part)),
            Self::EndsWith => texts(|text, part| text.ends_with(part)),
            Self::Contains => texts(|text, part| text.contains(part)),
        }
    }
}

/// 1 and 1.0 are equal.
fn are_equal(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

/// A whole number without a fraction if it is one; none if it is not finite. The numbers of a twin have 53 bits, so they are
/// exact as floating point.
pub(super) fn number(value: f64) -> Option<Value> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within 2^53, and without a fraction"
    )]
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Some((value as i64).into());
    }
    Number::from_f64(value).map(Value::Number)
}

/// 2^53
const EXACT: f64 = 9_007_199_254_740_992.0;
