//! What sessions with the same policy share.

use std::time::Duration;

use bytes::Bytes;
use iothub::{MethodResponse, limits};

use crate::Backoff;

/// Times, windows and policy of a session. Nothing in it belongs to one device, so thousands of sessions share one.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DeviceClientType` in the username: how the hub's logs name this client. Default: none.
    pub client_type: Option<String>,
    /// Longest time without a packet to the hub; then a ping. Default 240 s, as Azure's C SDK. Above 1140 s the hub
    /// would not notice a dead connection in time, so it is cut there.
    pub keep_alive: Duration,
    /// Time for the hub to answer CONNECT. Default 20 s; too short, and a throttled hub is asked over and over.
    pub connack_timeout: Duration,
    /// Time for the hub to answer a ping before the connection counts as dead. Default 10 s.
    pub ping_timeout: Duration,
    /// How long something may be awaited from a hub that says nothing at all before it is pinged. Default 5 s.
    pub probe_after: Duration,
    /// How long a packet may stay unanswered by a hub that otherwise lives before the connection is given up. Default
    /// 120 s, as Azure's C SDK (`TELEMETRY_MSG_TIMEOUT_MIN`): a hub that throttles delays its PUBACKs first.
    pub ack_timeout: Duration,
    /// Time for the hub to answer what is in flight before an orderly end of the connection goes on. Default 3 s.
    pub drain_timeout: Duration,
    /// Time for the hub to answer UNSUBSCRIBE before DISCONNECT follows. Default 1 s.
    pub farewell_timeout: Duration,
    /// Time for the hub to answer a twin request. A read is then asked again; a patch waits, see [`crate::Session::patch_reported`].
    /// Default 5 s.
    pub twin_timeout: Duration,
    /// Time without a cloud-to-device message after which no further one is expected. Default 300 ms.
    pub settle_quiet: Duration,
    /// Longest time that is waited for [`Config::settle_quiet`]. Default 3 s.
    pub settle_limit: Duration,
    /// How long a connection must last before its loss counts as the first. Default 60 s: two owners of one identity
    /// throw each other out, and each connection of theirs succeeds.
    pub stable_after: Duration,
    /// Telemetry messages that may be unacknowledged. Default 16, as the hub takes.
    pub telemetry_window: usize,
    /// Twin requests that may be unanswered. Default 8.
    pub twin_window: usize,
    /// Method answers that may be unacknowledged. Default 16.
    pub answer_window: usize,
    /// Bytes of the largest packet that is taken from the hub. Default 512 KiB: a twin of twice 32 KiB, counted as
    /// the hub counts and written with JSON escapes, stays below.
    pub max_packet: u32,
    /// Wait after a connection could not be made. Default 1 s up to 5 min.
    pub connect_backoff: Backoff,
    /// Wait after a connection was lost. Default 1 s up to 5 min.
    pub loss_backoff: Backoff,
    /// Wait after the hub refused the credentials or the identity. Default 30 s up to 5 min: the next attempt is
    /// likely to be refused as well, and every one counts against the hub's connect throttle.
    pub refusal_backoff: Backoff,
    /// What a direct method is told that arrives though nobody can answer it. Default status 503 and
    /// `{"code":"device_asleep"}`.
    pub asleep_answer: MethodResponse,
}

impl Default for Config {
    fn default() -> Self {
        let backoff = |base| Backoff {
            base: Duration::from_secs(base),
            cap: Duration::from_secs(300),
        };
        Self {
            client_type: None,
            keep_alive: Duration::from_secs(240),
            connack_timeout: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(10),
            probe_after: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(3),
            farewell_timeout: Duration::from_secs(1),
            twin_timeout: Duration::from_secs(5),
            settle_quiet: Duration::from_millis(300),
            settle_limit: Duration::from_secs(3),
            stable_after: Duration::from_secs(60),
            telemetry_window: limits::TELEMETRY_WINDOW,
            twin_window: 8,
            answer_window: 16,
            max_packet: 512 * 1024,
            connect_backoff: backoff(1),
            loss_backoff: backoff(1),
            refusal_backoff: backoff(30),
            asleep_answer: MethodResponse {
                status: 503,
                payload: Bytes::from_static(br#"{"code":"device_asleep"}"#),
            },
        }
    }
}

impl Config {
    /// The keep-alive in whole seconds as CONNECT carries it: never 0, which would turn it off.
    pub(crate) fn keep_alive_s(&self) -> u16 {
        u16::try_from(self.keep_alive.as_secs())
            .unwrap_or(u16::MAX)
            .clamp(1, limits::KEEP_ALIVE_S)
    }

    /// The keep-alive that CONNECT carries.
    pub(crate) fn keep_alive_duration(&self) -> Duration {
        Duration::from_secs(self.keep_alive_s().into())
    }
}
