//! The states of a session, and its timers.
//!
//! ```text
//!                    ┌──────────── back-off ◀───────────────┐
//!                    ▼                                      │
//! Closed ─open─▶ Connecting ─socket─▶ Handshake ─CONNACK─▶ Online
//!    ▲               ▲                    │                 │
//!    │               │                    └──▶ Disconnecting ◀┘
//!    └───────────────┴─────── socket closed ──────┘
//! ```

use std::time::Instant;

use crate::{backoff::Wait, online::Online, session::Credentials, wire::Reader};

/// Where a session stands.
pub(crate) enum State {
    /// Nobody wants a connection.
    Closed,
    /// The next attempt is due later.
    Waiting(Wait),
    /// The driver opens a socket.
    Connecting,
    /// CONNECT is on its way.
    Handshake(Handshake),
    /// The hub has accepted the connection.
    Online(Online),
    /// The driver closes the socket.
    Disconnecting(Next),
}

impl State {
    /// The connection that the hub has accepted, if there is one.
    pub(crate) const fn online(&self) -> Option<&Online> {
        match self {
            Self::Online(online) => Some(online),
            Self::Closed
            | Self::Waiting(_)
            | Self::Connecting
            | Self::Handshake(_)
            | Self::Disconnecting(_) => None,
        }
    }

    /// The same, to work on.
    pub(crate) const fn online_mut(&mut self) -> Option<&mut Online> {
        match self {
            Self::Online(online) => Some(online),
            Self::Closed
            | Self::Waiting(_)
            | Self::Connecting
            | Self::Handshake(_)
            | Self::Disconnecting(_) => None,
        }
    }
}

/// A connection that the hub has not accepted yet.
pub(crate) struct Handshake {
    pub(crate) reader: Reader,
    pub(crate) renew_at: Option<Instant>,
    pub(crate) deadline: Instant,
}

/// What follows a connection's end, as long as the session is wanted at all.
pub(crate) enum Next {
    /// Another socket, at once.
    Connect,
    /// Another socket, later.
    Wait(Wait),
    /// A socket is being opened already.
    AwaitSocket,
    /// A socket is open already.
    UseSocket(Credentials),
}

/// Everything that time can bring about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// The next attempt to connect.
    BackOff,
    /// No answer to CONNECT.
    Connack,
    /// The credentials get old.
    Renew,
    /// Nothing was sent for the keep-alive.
    KeepAlive,
    /// No answer to a ping.
    Ping,
    /// Something is awaited, and the hub is silent.
    Probe,
    /// Something is awaited for too long.
    Ack,
    /// A twin read has no response.
    Twin,
    /// No further cloud-to-device message is expected.
    Settle,
    /// An orderly end goes on without an answer.
    Leave,
}

impl Timer {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BackOff => "back-off",
            Self::Connack => "connack",
            Self::Renew => "renew",
            Self::KeepAlive => "keep-alive",
            Self::Ping => "ping",
            Self::Probe => "probe",
            Self::Ack => "ack",
            Self::Twin => "twin",
            Self::Settle => "settle",
            Self::Leave => "leave",
        }
    }
}
