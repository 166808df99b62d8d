//! The tokens of one device.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use iothub::Timestamp;
use tokio::sync::oneshot;

use super::{Answer, DeviceToken, Fingerprint, Word};
use crate::nudge::Nudge;

/// The tokens that a device's session may use.
pub(super) struct Shelf {
    /// What the session was last opened with.
    own: Option<Arc<DeviceToken>>,
    /// Of the others that the hub has taken, the one that ends last.
    other: Option<Arc<DeviceToken>>,
    /// Tokens that the hub has not seen, in the order in which they came.
    candidates: VecDeque<Candidate>,
    /// Whether there is a connection, opened with `own`.
    is_up: bool,
    /// Sessions that follow the shelf: one, or for a moment two.
    pub(super) attendances: usize,
    /// When a token was last placed.
    used_at: Instant,
    /// Told when there is a token to try.
    pub(super) fresh: Arc<Nudge>,
}

/// A token that waits for its CONNECT, as long as somebody wants to know.
pub(super) struct Candidate {
    pub(super) token: Arc<DeviceToken>,
    pub(super) word: oneshot::Sender<Word>,
}

impl Shelf {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            own: None,
            other: None,
            candidates: VecDeque::new(),
            is_up: false,
            attendances: 0,
            used_at: now,
            fresh: Arc::default(),
        }
    }

    /// Puts down a token that the hub has taken, if it lasts longer than what is there.
    pub(super) fn place(&mut self, token: Arc<DeviceToken>, now: Instant) {
        self.used_at = now;
        let ends_last = self.accepted_tokens().map(|token| token.expires_at).max();
        if ends_last.is_none_or(|end| end < token.expires_at) {
            self.other = Some(token);
            self.fresh.give();
        }
    }

    /// Lets a token wait for its CONNECT.
    pub(super) fn queue(&mut self, candidate: Candidate) {
        self.candidates.push_back(candidate);
        self.fresh.give();
    }

    /// What to open the session with, and whether the hub has taken it before.
    pub(super) fn choose_to_open(&mut self, now: Timestamp) -> Option<(Arc<DeviceToken>, bool)> {
        for place in [&mut self.own, &mut self.other] {
            *place = place.take().filter(|token| token.expires_at > now);
        }
        let accepted = self.accepted_tokens().max_by_key(|token| token.expires_at);
        if let Some(token) = accepted {
            return Some((Arc::clone(token), true));
        }
        self.candidates
            .retain(|candidate| !candidate.word.is_closed());
        let first = self.candidates.front()?;
        Some((Arc::clone(&first.token), false))
    }

    /// What the session moves to: a token that ends later than its own.
    pub(super) fn choose_to_renew(&self, now: Timestamp) -> Option<Arc<DeviceToken>> {
        let end = self.own.as_ref().map_or(now, |own| own.expires_at.max(now));
        let later = self.other.as_ref().filter(|other| other.expires_at > end);
        later.cloned()
    }

    /// The session is up with this token.
    pub(super) fn accepted(&mut self, token: Arc<DeviceToken>, now: Instant) {
        self.used_at = now;
        self.is_up = true;
        let other = self.other.take();
        self.other = other.filter(|other| other.expires_at > token.expires_at);
        for candidate in self.candidates.drain(..) {
            let is_this = candidate.token.fingerprint == token.fingerprint;
            candidate.tell(if is_this {
                Word::Judged(Answer::Accepted)
            } else {
                Word::Overtaken
            });
        }
        self.own = Some(token);
    }

    /// The hub has refused this token.
    pub(super) fn refused(&mut self, refused: Fingerprint) {
        for place in [&mut self.own, &mut self.other] {
            *place = place.take().filter(|token| token.fingerprint != refused);
        }
        let (these, others): (VecDeque<_>, _) = self
            .candidates
            .drain(..)
            .partition(|candidate| candidate.token.fingerprint == refused);
        for candidate in these {
            candidate.tell(Word::Judged(Answer::Refused));
        }
        self.candidates = others;
        if self.has_accepted() || !self.candidates.is_empty() {
            self.fresh.give();
        }
    }

    /// The hub cannot be asked.
    pub(super) fn answer_undecided(&mut self) {
        for candidate in self.candidates.drain(..) {
            candidate.tell(Word::Judged(Answer::Undecided));
        }
    }

    /// The connection has ended; answers what it was opened with.
    pub(super) fn lost(&mut self) -> Option<Fingerprint> {
        self.is_up = false;
        self.own.as_ref().map(|own| own.fingerprint)
    }

    pub(super) const fn is_up(&self) -> bool {
        self.is_up
    }

    pub(super) fn is_up_with(&self, fingerprint: Fingerprint) -> bool {
        let own = self.own.as_ref().filter(|_| self.is_up);
        own.is_some_and(|own| own.fingerprint == fingerprint)
    }

    /// Whether there is a token that the hub has taken.
    pub(super) fn has_accepted(&self) -> bool {
        self.accepted_tokens().next().is_some()
    }

    /// Of the tokens that the hub has taken, the one that ends last, if it has not ended.
    pub(super) fn ends_last(&self, now: Timestamp) -> Option<Arc<DeviceToken>> {
        let living = self
            .accepted_tokens()
            .filter(|token| token.expires_at > now);
        living.max_by_key(|token| token.expires_at).cloned()
    }

    /// Whether somebody uses what is here, or is about to.
    pub(super) fn is_needed(&self, now: Instant) -> bool {
        self.attendances > 0 || now.saturating_duration_since(self.used_at) < KEPT
    }

    fn accepted_tokens(&self) -> impl Iterator<Item = &Arc<DeviceToken>> {
        self.own.iter().chain(&self.other)
    }
}

impl Candidate {
    fn tell(self, word: Word) {
        // Nobody may want to know any more.
        let _ = self.word.send(word);
    }
}

/// How long a token stays without a session: as long as the request that brought it may wait for one.
const KEPT: Duration = Duration::from_secs(60);
