//! What a session reports, and the names of things that go through it.

use iothub::{
    CloudMessage, HubError, MethodRequest,
    topic::{ParseTopicError, RequestId},
    twin::{DesiredPatch, ParseTwinError, Twin, TwinVersion},
};

use crate::Violation;

/// Names one connection of a session; grows with every connection that the hub accepts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionEpoch(pub u64);

/// Names a piece of work towards the hub. The driver counts; a session never sees the same number twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkId(pub u64);

/// What must be given back to acknowledge a cloud-to-device message; worthless once its connection has ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Receipt {
    pub(crate) epoch: ConnectionEpoch,
    pub(crate) number: u64,
}

/// Names a direct method's request: the hub's own id, which it counts per connection, and the connection.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MethodRequestId {
    /// The connection that the request came on.
    pub epoch: ConnectionEpoch,
    /// The hub's id.
    pub rid: RequestId,
}

/// What happened, or what the driver must do.
#[derive(Debug)]
pub enum Event {
    /// Open a socket to the hub, then call `handle_connected` or `handle_connect_failed`.
    Connect,
    /// The credentials will soon be too old: open a second socket beside the first, then call `handle_connected`
    /// with fresh credentials, or `handle_connect_failed` if there is no socket or no fresher credential. The
    /// connection in use goes on meanwhile; if it ends first, the socket stays asked for.
    Renew,
    /// Write what is left to transmit, close the older socket, call `handle_disconnected`. What is to be transmitted
    /// after that goes to the socket that `Renew` asked for.
    Switch,
    /// Write what is left to transmit, close every socket of this session, also one that is still being opened, then
    /// call `handle_disconnected`.
    Close,
    /// The session has ended, as `close` asked. `open` starts it again.
    Closed,

    /// The hub has accepted the connection.
    Connected {
        /// The connection.
        epoch: ConnectionEpoch,
        /// The hub remembers the session: subscriptions, and messages that it had sent.
        session_present: bool,
    },
    /// A socket was there, but no connection came of it. The session tries again.
    ConnectFailed {
        /// Why.
        reason: LossReason,
    },
    /// The hub has refused the connection. The session tries again, slowly where that is of little use.
    Refused {
        /// Why.
        reason: RefusalReason,
    },
    /// An accepted connection has ended, orderly or not. Its receipts and its methods' requests end with it.
    Disconnected {
        /// The connection.
        epoch: ConnectionEpoch,
        /// Why.
        reason: LossReason,
    },
    /// Every cloud-to-device message that was waiting in the hub has been received (as far as MQTT lets one know).
    Settled {
        /// The connection that this is true of.
        epoch: ConnectionEpoch,
    },
    /// The hub offers direct methods, and every one whose caller was waiting for the device has been received: the
    /// subscription is acknowledged, and one round trip has passed since. True until UNSUBSCRIBE is written.
    MethodsOffered {
        /// The connection that this is true of.
        epoch: ConnectionEpoch,
    },

    /// The hub has acknowledged a telemetry message or a method's answer.
    Delivered(WorkId),
    /// The session has given this work up: a method's answer whose connection has ended, or anything that was
    /// unfinished when the session was closed. It may have reached the hub all the same.
    Gone(WorkId),
    /// The answer to a twin read.
    TwinRead {
        /// The read.
        id: WorkId,
        /// The twin.
        result: Result<Box<Twin>, TwinError>,
    },
    /// The answer to a patch of the reported properties.
    ReportedPatched {
        /// The patch.
        id: WorkId,
        /// The version that it led to, if the hub named one.
        result: Result<Option<TwinVersion>, TwinError>,
    },

    /// A cloud-to-device message. The hub keeps it until `acknowledge`.
    Received {
        /// What acknowledges it.
        receipt: Receipt,
        /// The message.
        message: Box<CloudMessage>,
    },
    /// A message whose topic makes no sense. It is reported and not dropped, because only an acknowledgement takes it
    /// out of the hub, and whoever acknowledges must have looked at it.
    Unreadable {
        /// What acknowledges it, if the hub waits for that.
        receipt: Option<Receipt>,
        /// The topic.
        topic: Box<str>,
        /// What is wrong with it.
        error: ParseTopicError,
    },
    /// The PUBACK of a cloud-to-device message has been handed out to be transmitted.
    Acknowledged(Receipt),
    /// A direct method that expects an answer.
    MethodRequested {
        /// What the answer must name.
        id: MethodRequestId,
        /// The request.
        request: MethodRequest,
    },
    /// The desired properties have changed.
    DesiredChanged(DesiredPatch),
    /// From here on changes of the desired properties may have been missed: a gap in the versions, a change that
    /// makes no sense, the end of the subscription or of its connection.
    DesiredStale,
}

/// Why a connection has ended, or was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LossReason {
    /// The hub closed the socket. MQTT 3.1.1 gives it no way to say why: a second connection of the identity, an
    /// expired token, a throttle.
    #[error("the hub closed the connection")]
    ClosedByHub,
    /// The socket failed.
    #[error("the socket failed")]
    Socket,
    /// The hub did not answer CONNECT.
    #[error("the hub did not answer CONNECT")]
    ConnackTimeout,
    /// The hub did not answer a ping.
    #[error("the hub did not answer a ping")]
    PingTimeout,
    /// The hub left a packet unanswered for too long.
    #[error("the hub left a packet unanswered")]
    AckTimeout,
    /// The hub refused a subscription.
    #[error("the hub refused a subscription")]
    SubscriptionRefused,
    /// The hub did what the protocol forbids.
    #[error("the hub broke the protocol: {0}")]
    Protocol(#[from] Violation),
    /// Username or password do not fit into a CONNECT packet.
    #[error("username or password is too long for MQTT")]
    CredentialsTooLong,
    /// Fresh credentials take its place.
    #[error("credentials are renewed")]
    Renewed,
    /// `reconnect` asked for it.
    #[error("a new connection was asked for")]
    Reconnected,
    /// `close` asked for it.
    #[error("the session was closed")]
    Closed,
}

/// Why the hub refused a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RefusalReason {
    /// Wrong or expired credentials, an unknown or disabled device: the hub does not tell these apart.
    #[error("the hub refused the credentials")]
    Credentials,
    /// The hub cannot serve at the moment.
    #[error("the hub is not available")]
    Unavailable,
    /// The hub does not speak this protocol with this client id. Never seen from IoT Hub.
    #[error("the hub refused the protocol or the client id")]
    Protocol,
}

/// Why a session did not take work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTaken {
    /// The lane has no room, or the session is closed or closing; see [`crate::Session::room`].
    #[error("the lane has no room")]
    NoRoom,
    /// The hub would close the connection on a message of this size.
    #[error("the message is {size} bytes, the hub takes {limit}")]
    TooLarge {
        /// Bytes as the hub counts them.
        size: usize,
        /// What the hub takes.
        limit: usize,
    },
    /// The properties do not fit into a topic.
    #[error("the properties make a topic of {size} bytes, MQTT takes 65535")]
    TopicTooLong {
        /// Bytes of the topic.
        size: usize,
    },
}

/// The receipt belongs to a connection that has ended; the hub delivers the message again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the receipt's connection has ended")]
pub struct StaleReceipt;

/// Why a twin request failed.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// The hub said no.
    #[error("the hub answered {status}")]
    Refused {
        /// HTTP's meaning.
        status: u16,
        /// The body, if it can be read.
        error: Option<Box<HubError>>,
    },
    /// The hub's document cannot be read.
    #[error("the hub's answer is no twin")]
    Unreadable(#[from] ParseTwinError),
}

impl TwinError {
    /// Whether the same request may succeed later: the hub throttles, or failed itself.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::Unreadable(_) => false,
        }
    }
}
