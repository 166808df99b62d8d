//! Whether a device's own token is good.
//!
//! The front cannot tell: a shared access signature is made with a key that `upstream` holds, or that only the hub knows.
//! So it asks. `upstream` [appoints](JudgeSeat::appoint) the judge when it starts; an engine that spans nodes takes the
//! seat itself and carries the question to the node that owns the device.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use iothub::{Identity, Timestamp};
use parking_lot::RwLock;
use secrecy::SecretString;

use crate::StoreError;

/// Judges tokens of devices.
#[async_trait]
pub trait Judge: Send + Sync {
    /// Judges a shared access signature that somebody has sent for an identity. The text is a secret.
    ///
    /// # Errors
    ///
    /// The store failed: nothing is known of the token.
    async fn judge(&self, identity: &Identity, token: &SecretString)
    -> Result<Verdict, StoreError>;

    /// Until when what is stored for a device can be delivered without the device, which is
    /// [passed through](crate::DeviceRecord::is_passed_through): when this returns, the newest token that the hub has taken is
    /// kept where it survives a restart. `None` if there is none, or this gateway keeps none.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn keep(&self, identity: &Identity) -> Result<Option<Timestamp>, StoreError>;

    /// Until when the token lasts that is [kept](Judge::keep) already.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn kept_until(&self, identity: &Identity) -> Result<Option<Timestamp>, StoreError>;
}

/// What a judge says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The key of the device, which the gateway holds, made the signature.
    Checked {
        /// When the token ends.
        expires_at: Timestamp,
    },
    /// The hub has taken the token: the device is passed through.
    Accepted {
        /// When the token ends.
        expires_at: Timestamp,
    },
    /// It is no token, not for this identity, over, or key or hub refuse it. Which of these is not said.
    Refused,
    /// It could not be found out: the hub cannot be reached, or others are asked about first.
    Undecided,
    /// The gateway serves no such device, and passes none through to this hub.
    UnknownDevice,
}

/// Where the front finds the judge. Cheap to clone; all clones are one seat.
#[derive(Clone, Default)]
pub struct JudgeSeat(Arc<RwLock<Option<Arc<dyn Judge>>>>);

impl JudgeSeat {
    /// Seats a judge in the place of the one before.
    pub fn appoint(&self, judge: Arc<dyn Judge>) {
        *self.0.write() = Some(judge);
    }

    /// Empties the seat: `upstream` stops.
    pub fn vacate(&self) {
        *self.0.write() = None;
    }

    /// Asks the judge.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if nobody is seated, or the judge's own failure.
    pub async fn judge(
        &self,
        identity: &Identity,
        token: &SecretString,
    ) -> Result<Verdict, StoreError> {
        self.seated()?.judge(identity, token).await
    }

    /// Asks the judge to [keep](Judge::keep) what opens the session of a device.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if nobody is seated, or the judge's own failure.
    pub async fn keep(&self, identity: &Identity) -> Result<Option<Timestamp>, StoreError> {
        self.seated()?.keep(identity).await
    }

    /// Asks the judge [until when](Judge::kept_until) it could open the session of a device.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if nobody is seated, or the judge's own failure.
    pub async fn kept_until(&self, identity: &Identity) -> Result<Option<Timestamp>, StoreError> {
        self.seated()?.kept_until(identity).await
    }

    fn seated(&self) -> Result<Arc<dyn Judge>, StoreError> {
        self.0.read().clone().ok_or(StoreError::Unavailable)
    }
}

impl fmt::Debug for JudgeSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JudgeSeat")
            .field(&self.0.read().is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(Verdict);

    #[async_trait]
    impl Judge for Always {
        async fn judge(&self, _: &Identity, _: &SecretString) -> Result<Verdict, StoreError> {
            Ok(self.0)
        }

        async fn keep(&self, _: &Identity) -> Result<Option<Timestamp>, StoreError> {
            Ok(None)
        }

        async fn kept_until(&self, _: &Identity) -> Result<Option<Timestamp>, StoreError> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn an_empty_seat_says_so_and_a_new_judge_takes_it() {
        let identity = Identity::device("hub.example".parse().unwrap(), "dev1".parse().unwrap());
        let token = SecretString::from("SharedAccessSignature sr=x");
        let seat = JudgeSeat::default();
        let ask = async || seat.judge(&identity, &token).await;
        assert_eq!(ask().await, Err(StoreError::Unavailable));
        seat.appoint(Arc::new(Always(Verdict::Refused)));
        assert_eq!(ask().await, Ok(Verdict::Refused));
        seat.appoint(Arc::new(Always(Verdict::Undecided)));
        assert_eq!(ask().await, Ok(Verdict::Undecided));
        seat.vacate();
        assert_eq!(ask().await, Err(StoreError::Unavailable));
    }
}
