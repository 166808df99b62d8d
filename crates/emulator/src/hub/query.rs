//! Queries over twins and jobs ("IoT Hub query language", "Queries for IoT Hub device and module twins", "Queries for IoT
//! Hub jobs").
//!
//! `lexer`, `cursor` and `parser` read a query into what `syntax` has, `evaluate` finds out which rows it is about, `rows` shapes what
//! comes out, `page` is where it goes on. A real hub looks into an index that is a second or two behind; here a query sees
//! what is. What is not supported is refused with its name and place.

mod cursor;
mod evaluate;
mod lexer;
mod page;
mod parser;
mod relative;
mod rows;
mod syntax;

use std::{
    borrow::Cow,
    ops::{
        Bound::{Excluded, Included, Unbounded},
        ControlFlow,
    },
};

use iothub::{DeviceId, ErrorCode};
use serde_json::Value;

pub(super) use self::{evaluate::Row, page::Position};
use self::{
    rows::Groups,
    syntax::{Collection, Expression, Projection, Query},
};
use super::{Error, Hub};

/// Why a text is no query, or none that is supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("The query cannot be used: at character {at}: {message}.")]
pub struct QueryError {
    /// Where, in characters from 1.
    pub at: usize,
    /// What.
    pub message: String,
}

/// One page of what a query found.
#[derive(Clone, PartialEq, Debug)]
pub struct QueryPage {
    /// What came out.
    pub items: Vec<Value>,
    /// What they are.
    pub item_type: ItemType,
    /// What to ask for the next page with; none after the last.
    pub continuation: Option<String>,
}

/// `x-ms-item-type`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ItemType {
    /// Whole twins.
    Twin,
    /// Named columns.
    Raw,
    /// What a job did to a device.
    DeviceJob,
}

/// A condition on devices: what stands behind `WHERE`.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Condition(Option<Expression>);

impl ItemType {
    /// The word in the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Twin => "Twin",
            Self::Raw => "Raw",
            Self::DeviceJob => "DeviceJob",
        }
    }
}

impl Condition {
    /// `*` is all devices: what the SDKs' samples send for a job on every device.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if text.trim() == "*" {
            return Ok(Self(None));
        }
        let condition = parser::condition(text).map_err(refused)?;
        Ok(Self(Some(condition)))
    }

    pub(super) fn is_met(&self, row: &dyn Row) -> bool {
        let condition = self.0.as_ref();
        condition.is_none_or(|condition| condition.is_true(row) == Some(true))
    }
}

impl Hub {
    /// Runs a query: at most `most` rows, from where `continuation` says.
    ///
    /// # Errors
    ///
    /// The query cannot be used, `most` is not 1 to 1,000, or the continuation is that of another query.
    pub fn query(
        &self,
        text: &str,
        most: usize,
        continuation: Option<&str>,
    ) -> Result<QueryPage, Error> {
        check_page(most)?;
        let query = parser::query(text).map_err(refused)?;
        let mut position = match continuation {
            Some(token) => Position::decode(token, text)?,
            None => Position::default(),
        };
        let left = query
            .top
            .map_or(u64::MAX, |top| top.saturating_sub(position.given));
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(most);
        let condition = Condition(query.condition.clone());
        let (items, is_last) = match &query.projection {
            Projection::Columns(columns) if query.is_grouped() => {
                let mut groups = Groups::new(columns, &query.group_by);
                let _ = self.each_row(query.from, "", &mut |_, row| {
                    if condition.is_met(row) {
                        groups.add(row);
                    }
                    ControlFlow::Continue(())
                });
                let rows = groups.into_rows().into_iter();
                let given = usize::try_from(position.given).unwrap_or(usize::MAX);
                let mut rows = rows.skip(given);
                let items: Vec<_> = rows.by_ref().take(room).collect();
                (items, rows.next().is_none())
            }
            Projection::Everything | Projection::Columns(_) => {
                let mut items = Vec::new();
                let after = position.after.clone();
                let ended = self.each_row(query.from, &after, &mut |key, row| {
                    if !condition.is_met(row) {
                        return ControlFlow::Continue(());
                    }
                    if items.len() == room {
                        return ControlFlow::Break(());
                    }
                    items.push(match &query.projection {
                        Projection::Everything => row.whole(),
                        Projection::Columns(columns) => rows::project(columns, row),
                    });
                    position.after = key;
                    ControlFlow::Continue(())
                });
                (items, ended.is_continue())
            }
        };
        // Whoever asks may have written the token, with any number in it.
        position.given = position.given.saturating_add(items.len() as u64);
        let is_at_top = query.top.is_some_and(|top| position.given >= top);
        Ok(QueryPage {
            items,
            item_type: query.item_type(),
            continuation: (!is_last && !is_at_top).then(|| position.encode(text)),
        })
    }

    /// Shows the rows of a collection behind the key `after`, in the order of their keys.
    fn each_row(
        &self,
        from: Collection,
        after: &str,
        see: &mut dyn FnMut(String, &dyn Row) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (first, rest) = after.split_once('/').unwrap_or((after, ""));
        let start = first.parse::<DeviceId>().ok();
        match from {
            Collection::Devices => {
                for (id, device) in self
                    .registry
                    .range(start.as_ref().map_or(Unbounded, Excluded))
                {
                    see(id.to_string(), &self.document(id, device, None))?;
                }
            }
            Collection::Modules => {
                for (id, device) in self
                    .registry
                    .range(start.as_ref().map_or(Unbounded, Included))
                {
                    for (module_id, module) in &device.modules {
                        if start.as_ref() == Some(id) && module_id.as_str() <= rest {
                            continue;
                        }
                        let document = self.document(id, device, Some((module_id, module)));
                        see(format!("{id}/{module_id}"), &document)?;
                    }
                }
            }
            Collection::Jobs => {
                for (key, row) in self.jobs.rows(after) {
                    see(key, &row)?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl Query {
    fn is_grouped(&self) -> bool {
        let aggregates = match &self.projection {
            Projection::Everything => false,
            Projection::Columns(columns) => columns
                .iter()
                .any(|column| !matches!(column.source, syntax::Source::Attribute(_))),
        };
        aggregates || !self.group_by.is_empty()
    }

    /// Seen on a live hub: twins for `SELECT *`, `Raw` for projections.
    fn item_type(&self) -> ItemType {
        match (&self.projection, self.from) {
            (Projection::Columns(_), _) => ItemType::Raw,
            (Projection::Everything, Collection::Jobs) => ItemType::DeviceJob,
            (Projection::Everything, Collection::Devices | Collection::Modules) => ItemType::Twin,
        }
    }
}

impl Row for Value {
    fn get(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let (first, rest) = path.split_first()?;
        let members = self.as_object()?;
        let (_, value) = members
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(first))?;
        let found = rest
            .iter()
            .try_fold(value, |value, name| value.as_object()?.get(name));
        found.map(Cow::Borrowed)
    }

    fn whole(&self) -> Value {
        self.clone()
    }
}

fn refused(error: QueryError) -> Error {
    Error::new(ErrorCode::ArgumentInvalid, error.to_string())
}

/// # Errors
///
/// A page has 1 to 1,000 items.
pub(super) fn check_page(most: usize) -> Result<(), Error> {
    if (1..=PAGE).contains(&most) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::ArgumentInvalid,
        format!("x-ms-max-item-count is 1 to {PAGE}."),
    ))
}

/// Rows of a page at most, and if the caller does not say ("IoT Hub query language").
pub const PAGE: usize = 1000;
