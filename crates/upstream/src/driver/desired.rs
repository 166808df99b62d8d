//! What is known of the desired properties on one connection.
//!
//! Changes are subscribed to first and the twin is read after that. A change may arrive before the answer to the read
//! and be newer than it, so changes are kept until the answer is there.

use std::sync::Arc;

use iothub::twin::{DesiredPatch, Section};

/// The newest whole document, or what is needed to make it.
#[derive(Default)]
pub(super) struct DesiredProperties {
    state: State,
    generation: Generation,
}

enum State {
    Unknown { early: Vec<DesiredPatch> },
    Known(Arc<Section>),
}

/// Ends when changes may have been missed. The answer to a read that was asked for in an earlier one may be older than
/// what was missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Generation(u64);

impl Default for State {
    fn default() -> Self {
        Self::Unknown { early: Vec::new() }
    }
}

/// What becomes of the inbox's cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Cell {
    /// It stays as it is.
    Unchanged,
    /// It gets this document.
    Set(Arc<Section>),
    /// What it has is stale.
    Cleared,
}

impl DesiredProperties {
    /// The hub has announced a change.
    pub(super) fn on_change(&mut self, change: DesiredPatch) -> Cell {
        match &mut self.state {
            State::Known(section) => {
                let before = section.version;
                if !Arc::make_mut(section).apply(&change) {
                    // Kept, so that an answer which is older than this change shows the gap again.
                    self.state = State::Unknown {
                        early: vec![change],
                    };
                    return Cell::Cleared;
                }
                if section.version == before {
                    Cell::Unchanged
                } else {
                    Cell::Set(Arc::clone(section))
                }
            }
            State::Unknown { early } => {
                if early.len() == MOST_EARLY {
                    early.clear();
                }
                early.push(change);
                Cell::Unchanged
            }
        }
    }

    /// The twin was read, after changes were subscribed to.
    pub(super) fn on_read(&mut self, read: &Section, asked_in: Generation) -> Cell {
        if asked_in != self.generation {
            return Cell::Unchanged;
        }
        let section = match &mut self.state {
            State::Known(known) if known.version >= read.version => return Cell::Unchanged,
            State::Known(_) => read.clone(),
            State::Unknown { early } => {
                let mut section = read.clone();
                if !early.iter().all(|change| section.apply(change)) {
                    early.drain(..early.len().saturating_sub(1));
                    return Cell::Unchanged;
                }
                section
            }
        };
        let section = Arc::new(section);
        self.state = State::Known(Arc::clone(&section));
        Cell::Set(section)
    }

    /// Changes may have been missed, or will be.
    pub(super) fn on_stale(&mut self) -> Cell {
        self.generation.0 += 1;
        match std::mem::take(&mut self.state) {
            State::Known(_) => Cell::Cleared,
            State::Unknown { .. } => Cell::Unchanged,
        }
    }

    /// Whether the document is known.
    pub(super) const fn is_known(&self) -> bool {
        matches!(self.state, State::Known(_))
    }

    /// What a read that is asked for now belongs to.
    pub(super) const fn generation(&self) -> Generation {
        self.generation
    }
}

/// Changes that are kept until the answer to a read.
const MOST_EARLY: usize = 64;

#[cfg(test)]
mod tests {
    use iothub::twin::TwinVersion;
    use serde_json::{Map, json};

    use super::*;

    fn change(version: u64) -> DesiredPatch {
        let mut patch = Map::new();
        patch.insert("x".to_owned(), json!(version));
        DesiredPatch {
            patch,
            version: TwinVersion(version),
        }
    }

    fn section(version: u64) -> Section {
        Section {
            properties: change(version).patch,
            version: TwinVersion(version),
        }
    }

    /// Reads the twin with the answer that the hub would give at this version.
    fn read(desired: &mut DesiredProperties, version: u64) -> Cell {
        desired.on_read(&section(version), desired.generation())
    }

    fn set(version: u64) -> Cell {
        Cell::Set(Arc::new(section(version)))
    }

    #[test]
    fn changes_follow_the_read() {
        let mut desired = DesiredProperties::default();
        assert_eq!(read(&mut desired, 4), set(4));
        assert_eq!(desired.on_change(change(5)), set(5));
        assert_eq!(desired.on_change(change(5)), Cell::Unchanged);
        assert_eq!(read(&mut desired, 5), Cell::Unchanged);
    }

    #[test]
    fn a_change_that_overtakes_the_answer_is_not_lost() {
        let mut desired = DesiredProperties::default();
        assert_eq!(desired.on_change(change(5)), Cell::Unchanged);
        assert_eq!(read(&mut desired, 4), set(5));
    }

    #[test]
    fn a_gap_makes_it_stale_until_an_answer_closes_it() {
        let mut desired = DesiredProperties::default();
        assert_eq!(read(&mut desired, 4), set(4));
        assert_eq!(desired.on_change(change(6)), Cell::Cleared);
        assert!(!desired.is_known());
        assert_eq!(
            read(&mut desired, 4),
            Cell::Unchanged,
            "older than the change"
        );
        assert_eq!(read(&mut desired, 6), set(6));
    }

    #[test]
    fn too_many_early_changes_cost_another_read_and_nothing_else() {
        let mut desired = DesiredProperties::default();
        (5..=80)
            .for_each(|version| assert_eq!(desired.on_change(change(version)), Cell::Unchanged));
        assert_eq!(read(&mut desired, 4), Cell::Unchanged);
        assert_eq!(read(&mut desired, 80), set(80));
    }

    #[test]
    fn an_answer_that_was_asked_for_before_something_was_missed_is_not_believed() {
        let mut desired = DesiredProperties::default();
        let before = desired.generation();
        assert_eq!(desired.on_stale(), Cell::Unchanged);
        assert_eq!(desired.on_read(&section(4), before), Cell::Unchanged);
        assert_eq!(read(&mut desired, 5), set(5));
        assert_eq!(desired.on_stale(), Cell::Cleared);
        assert_eq!(desired.on_stale(), Cell::Unchanged, "cleared once");
    }
}
