//! Where a record belongs: partitions, connections, pages.

use std::{fmt, str::FromStr};

use iothub::{Identity, topic::RequestId};

/// The unit of ownership: a hash of hub, device and module, one of [`Partition::COUNT`].
///
/// The hash is part of the format: changing it moves devices between partitions that are already on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Partition(u16);

impl Partition {
    /// How many there are.
    pub const COUNT: u16 = 1024;

    /// The partition that an identity belongs to.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        // The uppermost bits; maps of identities use others.
        let [first, second, ..] = identity.digest().to_be_bytes();
        Self(u16::from_be_bytes([first, second]) % Self::COUNT)
    }

    /// The partition with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number, from 0.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// One connection of a device's session. Grows with every connection, also across restarts of the gateway.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionEpoch(pub u64);

/// A direct method request as devices name it: the hub's `$rid` counts per connection, so the connection is part of
/// the name. Its text form is `{epoch in hex}.{rid}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MethodRequestId {
    /// The connection that the request came on.
    pub connection: ConnectionEpoch,
    /// The hub's own id.
    pub rid: RequestId,
}

/// The text is no request id of this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a method's request id has the form that the gateway gave it")]
pub struct ParseMethodRequestIdError;

impl fmt::Display for MethodRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.connection.0, self.rid.as_str())
    }
}

impl FromStr for MethodRequestId {
    type Err = ParseMethodRequestIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (connection, rid) = text.split_once('.').ok_or(ParseMethodRequestIdError)?;
        let connection =
            u64::from_str_radix(connection, 16).map_err(|_| ParseMethodRequestIdError)?;
        let rid = RequestId::new(rid).map_err(|_| ParseMethodRequestIdError)?;
        let id = Self {
            connection: ConnectionEpoch(connection),
            rid,
        };
        // One id has one spelling: "+1.2", "01.2" and "A.2" are none.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(ParseMethodRequestIdError)
        }
    }
}

/// A part of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page starts; absent on the last one.
    pub next: Option<String>,
}
