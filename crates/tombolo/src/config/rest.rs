//! What is left of the values once mistakes are taken out of them.

use std::collections::BTreeMap;

use serde_path_to_error::{Path, Segment};
use toml::{Table, Value};

/// What is left of the values once mistakes are taken out.
pub(super) struct Rest {
    pub(super) values: Table,
    /// Keys that were taken out.
    removed: Vec<String>,
    /// The first indexes of what is left of arrays that lost elements, by the array's key.
    survivors: BTreeMap<String, Vec<usize>>,
}

/// A step from a value into it, as things stand after removals.
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Rest {
    pub(super) fn new(values: Table) -> Self {
        Self {
            values,
            removed: Vec::new(),
            survivors: BTreeMap::new(),
        }
    }

    /// Where an error is: the steps to it in what is left, and its key as it was written.
    pub(super) fn locate(&self, path: &Path, problem: &str) -> (Vec<Step>, String) {
        let mut steps = Vec::new();
        let mut key = String::new();
        for segment in path {
            match segment {
                Segment::Map { key: part } | Segment::Enum { variant: part } => {
                    key = joined(&key, part);
                    steps.push(Step::Key(part.clone()));
                }
                Segment::Seq { index } => {
                    let first = self.survivors.get(&key).map_or(*index, |left| left[*index]);
                    key = format!("{key}[{first}]");
                    steps.push(Step::Index(*index));
                }
                Segment::Unknown => break,
            }
        }
        if let Some(part) = quoted_after(problem, "unknown field ")
            && !matches!(steps.last(), Some(Step::Key(last)) if last == part)
        {
            key = joined(&key, part);
            steps.push(Step::Key(part.to_owned()));
        }
        (steps, key)
    }

    /// Whether the problem is there only because a mistake was taken out.
    pub(super) fn is_consequence(&self, key: &str, problem: &str) -> bool {
        quoted_after(problem, "missing field ")
            .is_some_and(|missing| self.removed.contains(&joined(key, missing)))
    }

    /// Takes a value out. False if there is nothing that could be taken out.
    pub(super) fn remove(&mut self, steps: &[Step], key: String) -> bool {
        let Some((last, way)) = steps.split_last() else {
            return false;
        };
        let mut parent = Holder::Table(&mut self.values);
        for step in way {
            let Some(next) = parent.into_child(step) else {
                return false;
            };
            parent = next;
        }
        let is_removed = match (parent, last) {
            (Holder::Table(table), Step::Key(part)) => table.remove(part).is_some(),
            (Holder::Array(array), Step::Index(index)) if *index < array.len() => {
                let array_key = key
                    .rsplit_once('[')
                    .map_or(key.as_str(), |(array, _)| array);
                self.survivors
                    .entry(array_key.to_owned())
                    .or_insert_with(|| (0..array.len()).collect())
                    .remove(*index);
                array.remove(*index);
                true
            }
            (Holder::Table(_) | Holder::Array(_), Step::Key(_) | Step::Index(_)) => false,
        };
        self.removed.push(key);
        is_removed
    }
}

enum Holder<'a> {
    Table(&'a mut Table),
    Array(&'a mut Vec<Value>),
}

impl<'a> Holder<'a> {
    fn into_child(self, step: &Step) -> Option<Self> {
        let child = match (self, step) {
            (Self::Table(table), Step::Key(key)) => table.get_mut(key)?,
            (Self::Array(array), Step::Index(index)) => array.get_mut(*index)?,
            (Self::Table(_) | Self::Array(_), Step::Key(_) | Step::Index(_)) => return None,
        };
        match child {
            Value::Table(table) => Some(Holder::<'a>::Table(table)),
            Value::Array(array) => Some(Holder::<'a>::Array(array)),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => None,
        }
    }
}

/// A key within a table, as TOML writes it.
pub(super) fn joined(prefix: &str, part: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let part = if !part.is_empty() && part.bytes().all(is_bare) {
        part.to_owned()
    } else {
        Value::String(part.to_owned()).to_string()
    };
    if prefix.is_empty() {
        part
    } else {
        format!("{prefix}.{part}")
    }
}

/// The name in backticks behind the words with which serde's messages start.
fn quoted_after<'a>(problem: &'a str, words: &str) -> Option<&'a str> {
    problem
        .strip_prefix(words)?
        .strip_prefix('`')?
        .split('`')
        .next()
}
