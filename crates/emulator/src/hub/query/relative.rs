//! Attributes without the name of their collection: `devices.tags.site` is `tags.site` of a device.

use super::{
    QueryError,
    syntax::{Collection, Column, Expression, Path, Projection, Query, Source},
};

impl Query {
    /// Takes the collection's name off the attributes, and checks what grouping allows.
    pub(super) fn relative(mut self) -> Result<Self, QueryError> {
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
    pub(super) fn shorten(&mut self, from: Collection) {
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
