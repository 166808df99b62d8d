//! What a mailbox remembers of what it no longer has.

use std::time::{Duration, Instant};

use iothub::CloudMessage;

use super::{
    super::{MEMORY_OF_OUTCOMES, ring::Ring, token::Token},
    Message,
};
use crate::{ArrivalId, Conclusion, Fingerprint, MethodRequestId, SettleError, Settlement};

/// The last arrivals, tokens and methods that are over: so that appending or settling again does nothing twice, and
/// so that "lost" can be told from "never was".
pub(super) struct Past {
    arrivals: Ring<(ArrivalId, Settlement), ARRIVALS>,
    tokens: Ring<(Token, Fate), TOKENS>,
    methods: Ring<MethodRequestId, METHODS>,
    /// Messages that are gone, of which it is not known that the hub was told.
    unacknowledged: Ring<Unacknowledged, ARRIVALS>,
}

struct Unacknowledged {
    arrival: ArrivalId,
    fingerprint: Fingerprint,
    settlement: Settlement,
}

#[derive(Clone, Copy)]
enum Fate {
    /// It settled its message.
    Settled(Settlement, Conclusion),
    /// It settles nothing any more.
    Lost,
}

impl Past {
    pub(super) const fn new() -> Self {
        Self {
            arrivals: Ring::new(),
            tokens: Ring::new(),
            methods: Ring::new(),
            unacknowledged: Ring::new(),
        }
    }

    pub(super) fn arrived(&mut self, id: ArrivalId, settlement: Settlement, now: Instant) {
        self.arrivals.push((id, settlement), now);
    }

    /// A message that is not tied is gone.
    pub(super) fn left(&mut self, message: &Message, settlement: Settlement, now: Instant) {
        self.arrived(message.arrival, settlement, now);
        if !message.is_tied
            && !message.is_acknowledged
            && let Some(fingerprint) = fingerprint_of(&message.message)
        {
            let unacknowledged = Unacknowledged {
                arrival: message.arrival,
                fingerprint,
                settlement,
            };
            self.unacknowledged.push(unacknowledged, now);
        }
    }

    /// What became of a message that the hub delivers again on another connection.
    pub(super) fn delivered_again(
        &mut self,
        id: ArrivalId,
        message: &CloudMessage,
        now: Instant,
    ) -> Option<Settlement> {
        if self.unacknowledged.is_empty() {
            return None;
        }
        let fingerprint = fingerprint_of(message)?;
        let known = self.unacknowledged.find_mut(|known| {
            known.fingerprint == fingerprint && known.arrival.connection != id.connection
        })?;
        known.arrival = id;
        let settlement = known.settlement;
        self.arrived(id, settlement, now);
        Some(settlement)
    }

    /// The hub has been told of a message.
    pub(super) fn acknowledged(&mut self, id: ArrivalId) {
        self.unacknowledged.remove(|known| known.arrival == id);
    }

    pub(super) fn settled(
        &mut self,
        token: Token,
        settlement: Settlement,
        conclusion: Conclusion,
        now: Instant,
    ) {
        self.tokens
            .push((token, Fate::Settled(settlement, conclusion)), now);
    }

    pub(super) fn lose_token(&mut self, token: Token, now: Instant) {
        self.tokens.push((token, Fate::Lost), now);
    }

    pub(super) fn lose_tokens(&mut self, message: &Message, now: Instant) {
        for token in message.tokens() {
            self.lose_token(token, now);
        }
    }

    /// All but the one that settled it.
    pub(super) fn lose_tokens_but(&mut self, message: &Message, settler: Token, now: Instant) {
        for token in message.tokens().filter(|token| *token != settler) {
            self.lose_token(token, now);
        }
    }

    pub(super) fn method_over(&mut self, id: MethodRequestId, now: Instant) {
        self.methods.push(id, now);
    }

    pub(super) fn settlement_of(&self, id: ArrivalId) -> Option<Settlement> {
        let (_, settlement) = self.arrivals.find(|(other, _)| *other == id)?;
        Some(*settlement)
    }

    /// What became of a settlement with this token.
    pub(super) fn settle_again(
        &self,
        token: Token,
        settlement: Settlement,
    ) -> Result<Conclusion, SettleError> {
        match self.tokens.find(|(other, _)| *other == token) {
            Some((_, Fate::Settled(same, conclusion))) if *same == settlement => Ok(*conclusion),
            Some((_, Fate::Settled(..) | Fate::Lost)) => Err(SettleError::Lost),
            None => Err(SettleError::Unknown),
        }
    }

    pub(super) fn is_method_over(&self, id: &MethodRequestId) -> bool {
        self.methods.find(|other| other == id).is_some()
    }

    pub(super) fn forget(&mut self, now: Instant) {
        self.arrivals.forget_after(MEMORY_OF_OUTCOMES, now);
        self.tokens.forget_after(MEMORY_OF_OUTCOMES, now);
        self.methods.forget_after(MEMORY_OF_OUTCOMES, now);
        self.unacknowledged.forget_after(KEPT_BY_THE_HUB, now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
            && self.tokens.is_empty()
            && self.methods.is_empty()
            && self.unacknowledged.is_empty()
    }
}

/// What a message says, if its sender has named it.
fn fingerprint_of(message: &CloudMessage) -> Option<Fingerprint> {
    message.system.message_id.as_ref()?;
    let mut properties = String::new();
    message.to_bag().encode_onto(&mut properties);
    Some(Fingerprint::of(&[properties.as_bytes(), &message.payload]))
}

/// How long the hub delivers a message again that names no expiry: its default ("Understand cloud-to-device messaging",
/// `defaultTtlAsIso8601`).
const KEPT_BY_THE_HUB: Duration = Duration::from_secs(3600);

/// As many as a device may have waiting by default, rounded up.
const ARRIVALS: usize = 64;
/// A token of the entry and one of a delivery lease for each.
const TOKENS: usize = 128;
/// Twice as many as a device may have waiting by default.
const METHODS: usize = 32;
