//! When it may be said that no direct method is waiting in the hub.
//!
//! A caller may want to wait until the device connects (`connectTimeoutInSeconds`). The hub sends such a request as soon
//! as the device has subscribed, but nothing says how soon before or after SUBACK. The answer to a ping that follows
//! SUBACK comes after it.

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offering {
    /// Methods are not subscribed.
    Unsubscribed,
    /// SUBSCRIBE is not acknowledged.
    Subscribing,
    /// So many pings must be answered until the one that followed SUBACK is.
    RoundTrip { pongs: u8 },
    /// Done.
    Offered,
}

impl Offering {
    /// True if that was the answer that was missing.
    pub(super) fn on_pong(&mut self) -> bool {
        let Self::RoundTrip { pongs } = self else {
            return false;
        };
        *pongs = pongs.saturating_sub(1);
        let is_over = *pongs == 0;
        if is_over {
            *self = Self::Offered;
        }
        is_over
    }
}
