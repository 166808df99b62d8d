//! What the hub has said, for a time and up to a number.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::fingerprint::Fingerprint;

/// Fingerprints, each with the moment of its last confirmation.
pub(super) struct Remembered {
    time: Duration,
    most: usize,
    confirmed_at: HashMap<Fingerprint, Instant>,
    /// All confirmations, oldest first. One that was followed by another of the same fingerprint is void.
    confirmations: VecDeque<(Fingerprint, Instant)>,
}

impl Remembered {
    pub(super) fn new(time: Duration, most: usize) -> Self {
        Self {
            time,
            most,
            confirmed_at: HashMap::new(),
            confirmations: VecDeque::new(),
        }
    }

    /// Remembers it from this moment on. Beyond the number the oldest is forgotten.
    pub(super) fn confirm(&mut self, fingerprint: Fingerprint, now: Instant) {
        if self.confirmed_at.insert(fingerprint, now) != Some(now) {
            self.confirmations.push_back((fingerprint, now));
            self.tidy(now);
        }
    }

    pub(super) fn forget(&mut self, fingerprint: Fingerprint) {
        self.confirmed_at.remove(&fingerprint);
    }

    pub(super) fn has(&self, fingerprint: Fingerprint, now: Instant) -> bool {
        let at = self.confirmed_at.get(&fingerprint);
        at.is_some_and(|at| !self.is_over(*at, now))
    }

    /// Lets go of what is over.
    pub(super) fn tidy(&mut self, now: Instant) {
        while let Some(&(fingerprint, at)) = self.confirmations.front() {
            if self.confirmations.len() <= self.most && !self.is_over(at, now) {
                return;
            }
            self.confirmations.pop_front();
            if self.confirmed_at.get(&fingerprint) == Some(&at) {
                self.confirmed_at.remove(&fingerprint);
            }
        }
    }

    fn is_over(&self, at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(at) >= self.time
    }
}

#[cfg(test)]
mod tests {
    use iothub::Identity;

    use super::*;
    use crate::tokens::Secret;

    const TIME: Duration = Duration::from_secs(60);

    fn fingerprints<const N: usize>() -> [Fingerprint; N] {
        let secret = Secret::random().unwrap();
        let identity = Identity::device("hub.example".parse().unwrap(), "dev1".parse().unwrap());
        std::array::from_fn(|n| secret.fingerprint(&identity, &n.to_string().into()))
    }

    #[test]
    fn a_confirmation_lasts_its_time_and_a_new_one_begins_anew() {
        let mut remembered = Remembered::new(TIME, 10);
        let [one, other] = fingerprints();
        let start = Instant::now();
        remembered.confirm(one, start);
        remembered.confirm(other, start);
        remembered.confirm(one, start + TIME / 2);
        assert!(remembered.has(other, start + TIME - Duration::from_millis(1)));
        remembered.tidy(start + TIME);
        assert!(!remembered.has(other, start + TIME));
        assert!(remembered.has(one, start + TIME));
        remembered.forget(one);
        assert!(!remembered.has(one, start + TIME));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut remembered = Remembered::new(TIME, 2);
        let [first, second, third] = fingerprints();
        let now = Instant::now();
        for fingerprint in [first, second, third] {
            remembered.confirm(fingerprint, now);
        }
        assert!(!remembered.has(first, now));
        assert!(remembered.has(second, now) && remembered.has(third, now));
        (0..1000).for_each(|_| remembered.confirm(third, now));
        assert!(remembered.confirmations.len() <= 2);
        assert!(remembered.has(third, now));
    }
}
