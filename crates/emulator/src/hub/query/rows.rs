//! Rows that come out: columns of one row each, or groups of many.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    evaluate::{Row, number},
    syntax::{Aggregate, Column, Path, Source},
};

/// The columns of one row; what is not there is left out.
pub(super) fn project(columns: &[Column], row: &dyn Row) -> Value {
    let member = |column: &Column| match &column.source {
        Source::Attribute(path) => Some((column.name.clone(), path.of(row)?.into_owned())),
        Source::Count | Source::Aggregate(..) => None,
    };
    Value::Object(columns.iter().filter_map(member).collect())
}

/// Rows with the same attributes, counted and summed.
pub(super) struct Groups<'a> {
    columns: &'a [Column],
    group_by: &'a [Path],
    /// By the text of what they have in common, so that their order is the same each time.
    groups: BTreeMap<String, Group>,
}

#[derive(Default)]
struct Group {
    rows: u64,
    /// What they have in common, by column.
    common: Map<String, Value>,
    /// One for each column.
    sums: Vec<Sum>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    values: u32,
    sum: f64,
    least: f64,
    most: f64,
}

impl<'a> Groups<'a> {
    pub(super) fn new(columns: &'a [Column], group_by: &'a [Path]) -> Self {
        let mut groups = BTreeMap::new();
        if group_by.is_empty() {
            // Without GROUP BY there is one group, also of no rows.
            groups.insert(String::new(), Group::default());
        }
        Self {
            columns,
            group_by,
            groups,
        }
    }

    pub(super) fn add(&mut self, row: &dyn Row) {
        let part = |path: &Path| match path.of(row) {
            Some(value) => format!("{value}\n"),
            None => "\n".to_owned(),
        };
        let key: String = self.group_by.iter().map(part).collect();
        let group = self.groups.entry(key).or_default();
        if group.rows == 0 {
            group.sums = vec![Sum::default(); self.columns.len()];
            if let Value::Object(common) = project(self.columns, row) {
                group.common = common;
            }
        }
        group.rows += 1;
        for (column, sum) in self.columns.iter().zip(&mut group.sums) {
            if let Source::Aggregate(_, path) = &column.source
                && let Some(value) = path.of(row).and_then(|value| value.as_f64())
            {
                sum.add(value);
            }
        }
    }

    pub(super) fn into_rows(self) -> Vec<Value> {
        let columns = self.columns;
        let row = |mut group: Group| {
            let sums = std::mem::take(&mut group.sums);
            let sums = sums
                .iter()
                .copied()
                .chain(std::iter::repeat(Sum::default()));
            let member = |(column, sum): (&Column, Sum)| {
                let value = match &column.source {
                    Source::Attribute(_) => group.common.get(&column.name).cloned(),
                    Source::Count => Some(group.rows.into()),
                    Source::Aggregate(aggregate, _) => sum.result(*aggregate),
                };
                Some((column.name.clone(), value?))
            };
            Value::Object(columns.iter().zip(sums).filter_map(member).collect())
        };
        self.groups.into_values().map(row).collect()
    }
}

impl Sum {
    fn add(&mut self, value: f64) {
        let is_first = self.values == 0;
        self.least = if is_first {
            value
        } else {
            self.least.min(value)
        };
        self.most = if is_first {
            value
        } else {
            self.most.max(value)
        };
        self.sum += value;
        self.values = self.values.saturating_add(1);
    }

    /// None if there was no number.
    fn result(self, aggregate: Aggregate) -> Option<Value> {
        if self.values == 0 {
            return None;
        }
        number(match aggregate {
            Aggregate::Average => self.sum / f64::from(self.values),
            Aggregate::Sum => self.sum,
            Aggregate::Minimum => self.least,
            Aggregate::Maximum => self.most,
        })
    }
}
