//! The numbers of all trials.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Figure, Measure, Subject};

/// What one trial brought.
#[derive(Debug, Default)]
pub(crate) struct Gained(Vec<(Figure, f64)>);

impl Gained {
    pub(crate) fn note(&mut self, figure: Figure, value: f64) {
        self.0.push((figure, value));
    }
}

impl fmt::Display for Gained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (figure, value) in &self.0 {
            if !figure.comparisons().is_empty() {
                write!(
                    f,
                    "{separator}{} {:.1} {}",
                    figure.title(),
                    value,
                    figure.unit()
                )?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// What all trials brought: a value for each round.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<(Figure, Subject), Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, subject: Subject, gained: &Gained) {
        for &(figure, value) in &gained.0 {
            self.0.entry((figure, subject)).or_default().push(value);
        }
    }

    /// The values of all rounds, in their order; none if it was not measured.
    pub(crate) fn get(&self, figure: Figure, subject: Subject) -> &[f64] {
        self.0.get(&(figure, subject)).map_or(&[], Vec::as_slice)
    }

    /// Whose values of a figure there are, in the order of the tables.
    pub(crate) fn subjects(&self, figure: Figure) -> impl Iterator<Item = Subject> {
        let keys = self.0.keys();
        keys.filter_map(move |&(of, subject)| (of == figure).then_some(subject))
    }

    /// Somebody's figure, looked at in this way, for each round.
    pub(crate) fn compare(&self, figure: Figure, whose: Subject, by: Measure) -> Vec<f64> {
        let own = self.get(figure, whose).iter();
        match by {
            Measure::Alone => own.copied().collect(),
            Measure::RatioTo(other) => own
                .zip(self.get(figure, other))
                .map(|(own, other)| own / other)
                .collect(),
            Measure::LessThan(other) => own
                .zip(self.get(figure, other))
                .map(|(own, other)| own - other)
                .collect(),
        }
    }
}

/// Least, middle and largest of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self {
            min,
            median: f64::midpoint(low, high),
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::PeerKind;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of(&[7.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn peers_are_compared_round_by_round() {
        let mut samples = Samples::default();
        for (gateway, bare) in [(90.0, 100.0), (40.0, 50.0)] {
            for (peer, value) in [(PeerKind::Gateway, gateway), (PeerKind::BareProxy, bare)] {
                let peer = Subject::Peer(peer);
                let mut gained = Gained::default();
                gained.note(Figure::Rate, value);
                samples.add(peer, &gained);
            }
        }
        let gateway = Subject::Peer(PeerKind::Gateway);
        let by = Measure::RatioTo(Subject::Peer(PeerKind::BareProxy));
        assert_eq!(samples.compare(Figure::Rate, gateway, by), [0.9, 0.8]);
        let by = Measure::RatioTo(Subject::Peer(PeerKind::Node));
        assert!(samples.compare(Figure::Rate, gateway, by).is_empty());
    }
}
