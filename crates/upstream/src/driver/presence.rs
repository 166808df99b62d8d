//! For how long the session, its method subscription and its look at the desired properties are wanted.
//!
//! A session that the gateway holds makes the hub believe that a sleeping device is online, so a caller of a direct
//! method would wait in vain. Therefore the method subscription stands only while the device can answer, unless its
//! policy says otherwise.

use std::time::{Duration, Instant};

use store::{MethodPolicy, Need};

/// For how long something holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Span {
    /// Until further notice.
    Open,
    /// Until then.
    Until(Instant),
    /// Not at all.
    Never,
}

impl Span {
    /// A need, and some time more.
    pub(super) fn of(need: Need, grace: Duration) -> Self {
        match need {
            Need::Now => Self::Open,
            Need::Until(end) => Self::Until(end + grace),
            Need::Never => Self::Never,
        }
    }

    /// Whether it holds at this moment.
    pub(super) fn is_on(self, now: Instant) -> bool {
        match self {
            Self::Open => true,
            Self::Until(end) => now < end,
            Self::Never => false,
        }
    }

    /// When it will end, if it holds and has an end.
    pub(super) fn ends_at(self, now: Instant) -> Option<Instant> {
        match self {
            Self::Until(end) if now < end => Some(end),
            Self::Until(_) | Self::Open | Self::Never => None,
        }
    }

    /// The longer of two.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Open, _) | (_, Self::Open) => Self::Open,
            (Self::Until(a), Self::Until(b)) => Self::Until(a.max(b)),
            (Self::Never, span) | (span, Self::Never) => span,
        }
    }
}

/// For how long the method subscription stands. `presence` says how long the device can answer.
pub(super) fn methods(policy: MethodPolicy, presence: Span, has_open_calls: bool) -> Span {
    match policy {
        // The gateway itself answers, or lets the caller wait; the hub must ask it in either case.
        MethodPolicy::Hold | MethodPolicy::Answer(_) => Span::Open,
        // The hub drops the answer to a method whose subscription is gone.
        MethodPolicy::FailFast if has_open_calls => Span::Open,
        MethodPolicy::FailFast => presence,
    }
}

/// The status with which the gateway answers a method itself that arrives at this moment, if it does.
pub(super) fn answers_itself(policy: MethodPolicy, presence: Span, now: Instant) -> Option<i32> {
    match policy {
        MethodPolicy::Answer(status) if !presence.is_on(now) => Some(status),
        MethodPolicy::Answer(_) | MethodPolicy::Hold | MethodPolicy::FailFast => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[test]
    fn presence_ends_a_grace_time_after_the_last_request() {
        let end = Instant::now();
        let presence = Span::of(Need::Until(end), GRACE);
        let methods = methods(MethodPolicy::FailFast, presence, false);
        assert!(methods.is_on(end + GRACE - Duration::from_millis(1)));
        assert!(!methods.is_on(end + GRACE));
        assert_eq!(methods.ends_at(end), Some(end + GRACE));
        assert_eq!(methods.ends_at(end + GRACE), None);
    }

    #[test]
    fn an_unanswered_method_keeps_the_subscription() {
        let now = Instant::now();
        assert!(methods(MethodPolicy::FailFast, Span::Never, true).is_on(now));
        assert!(!methods(MethodPolicy::FailFast, Span::Never, false).is_on(now));
    }

    #[test]
    fn a_policy_may_keep_it_always() {
        let now = Instant::now();
        for policy in [MethodPolicy::Hold, MethodPolicy::Answer(503)] {
            assert!(methods(policy, Span::Never, false).is_on(now));
        }
        let answer = MethodPolicy::Answer(503);
        assert_eq!(answers_itself(answer, Span::Never, now), Some(503));
        assert_eq!(answers_itself(answer, Span::Open, now), None);
        assert_eq!(answers_itself(MethodPolicy::Hold, Span::Never, now), None);
    }

    #[test]
    fn the_longer_span_wins() {
        let now = Instant::now();
        let (a, b) = (Span::Until(now), Span::Until(now + GRACE));
        assert_eq!(a.or(b), b);
        assert_eq!(b.or(Span::Never), b);
        assert_eq!(a.or(Span::Open), Span::Open);
    }
}
