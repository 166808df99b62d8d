//! What stands between the sockets and the hub: one lock, one timer, and the way of outputs to whom they belong.
//!
//! The hub is behind one mutex that is never held across an await. A connection's task takes it once per read: it hands
//! the bytes in and takes its own answers out in the same breath, so a burst of telemetry costs one lock and one write.
//! Answers for others wait in their outgoing buffer, which is bounded: a device that does not read is closed.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use iothub::{Identity, MethodResponse};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::hub::{CallId, ConnectionId, Error, Hub, MethodCall, Now, Output};

pub(crate) struct Shell {
    state: Mutex<State>,
    /// Number of the next telemetry record, for who waits for it.
    telemetry: watch::Sender<u64>,
    /// The hub wants its timer earlier than it is armed.
    rearm: Notify,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

struct State {
    hub: Hub,
    outgoing: HashMap<ConnectionId, Outgoing>,
    callers: HashMap<CallId, oneshot::Sender<MethodResult>>,
    unwritten_bytes: usize,
    /// For when the timer task sleeps; none if it does not.
    armed: Option<Instant>,
}

struct Outgoing {
    packets: Packets,
    wake: Arc<Notify>,
}

/// What is to be written to one connection.
#[derive(Default)]
pub(crate) struct Packets {
    pub(crate) bytes: Vec<u8>,
    /// Nothing comes after these.
    pub(crate) is_last: bool,
}

/// What a connection's task does next.
pub(crate) struct Step {
    pub(crate) packets: Packets,
    /// Whether the hub takes more from the device.
    pub(crate) may_read: bool,
}

impl Packets {
    /// Nothing, and nothing after it.
    pub(crate) const END: Self = Self {
        bytes: Vec::new(),
        is_last: true,
    };
}

type MethodResult = Result<MethodResponse, Error>;

impl Shell {
    pub(crate) fn new(hub: Hub, unwritten_bytes: usize) -> Self {
        Self {
            telemetry: watch::Sender::new(hub.telemetry_next()),
            state: Mutex::new(State {
                hub,
                outgoing: HashMap::new(),
                callers: HashMap::new(),
                unwritten_bytes,
                armed: None,
            }),
            rearm: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Works on the hub and sends its outputs on their way.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Hub, Now) -> R) -> R {
        self.with_state(|state, now| act(&mut state.hub, now))
    }

    /// A connection was opened; `Notify` wakes its task when there is something to write.
    pub(crate) fn accept(&self) -> (ConnectionId, Arc<Notify>) {
        let wake = Arc::new(Notify::new());
        let id = self.with_state(|state, now| {
            let id = state.hub.accept(now);
            let outgoing = Outgoing {
                packets: Packets::default(),
                wake: Arc::clone(&wake),
            };
            state.outgoing.insert(id, outgoing);
            id
        });
        (id, wake)
    }

    /// Bytes of a connection; returns what to do next.
    pub(crate) fn input(&self, id: ConnectionId, bytes: &[u8]) -> Step {
        let mut state = self.state.lock();
        let now = state.hub.time(Now::read());
        state.hub.handle_input(id, bytes, now);
        state.dispatch(Some(id), now);
        let step = state.step(id);
        self.release(state);
        step
    }

    /// What a connection's task does next.
    pub(crate) fn step(&self, id: ConnectionId) -> Step {
        self.state.lock().step(id)
    }

    /// A connection is gone.
    pub(crate) fn closed(&self, id: ConnectionId) {
        self.with_state(|state, now| {
            state.outgoing.remove(&id);
            state.hub.handle_closed(id, now);
        });
    }

    /// Invokes a method and waits for its end, which the hub bounds.
    pub(crate) async fn invoke_method(
        &self,
        identity: &Identity,
        call: MethodCall,
    ) -> MethodResult {
        let (sender, receiver) = oneshot::channel();
        self.with_state(|state, now| {
            let id = state.hub.invoke_method(identity, call, now)?;
            state.callers.insert(id, sender);
            Ok(())
        })?;
        let stopping = Error {
            code: iothub::ErrorCode::ServiceUnavailable,
            message: "The emulator stops.".to_owned(),
        };
        tokio::select! {
            result = receiver => result.unwrap_or(Err(stopping)),
            () = self.stop.cancelled() => Err(stopping),
        }
    }

    /// Follows the number of the next telemetry record.
    pub(crate) fn watch_telemetry(&self) -> watch::Receiver<u64> {
        self.telemetry.subscribe()
    }

    /// Lets the hub's timers fire, until shutdown.
    pub(crate) async fn run_timers(self: Arc<Self>) {
        loop {
            let next = self.with_state(|state, now| {
                state.hub.handle_timeout(now);
                state.armed = state.hub.poll_timeout();
                state.armed
            });
            let sleep =
                tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + IDLE).into());
            tokio::select! {
                () = sleep => {}
                () = self.rearm.notified() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn with_state<R>(&self, act: impl FnOnce(&mut State, Now) -> R) -> R {
        let mut state = self.state.lock();
        let now = state.hub.time(Now::read());
        let result = act(&mut state, now);
        state.dispatch(None, now);
        self.release(state);
        result
    }

    /// Lets go of the lock and wakes who waits for what has changed.
    fn release(&self, state: MutexGuard<'_, State>) {
        let next_record = state.hub.telemetry_next();
        let wants_rearm = match (state.hub.poll_timeout(), state.armed) {
            (Some(wanted), Some(armed)) => wanted < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        drop(state);
        if wants_rearm {
            self.rearm.notify_one();
        }
        self.telemetry
            .send_if_modified(|next| std::mem::replace(next, next_record) != next_record);
    }
}

impl State {
    fn step(&mut self, id: ConnectionId) -> Step {
        let packets = self.outgoing.get_mut(&id).map_or(Packets::END, |outgoing| {
            let bytes = std::mem::take(&mut outgoing.packets.bytes);
            let is_last = outgoing.packets.is_last;
            Packets { bytes, is_last }
        });
        Step {
            packets,
            may_read: self.hub.wants_input(id),
        }
    }

    /// Sends outputs on their way. `own` is the connection whose task asks: it takes its packets itself.
    fn dispatch(&mut self, own: Option<ConnectionId>, now: Now) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Transmit { connection, bytes } => {
                    let Some(outgoing) = self.outgoing.get_mut(&connection) else {
                        continue;
                    };
                    if outgoing.packets.bytes.is_empty() {
                        outgoing.packets.bytes = bytes;
                    } else {
                        outgoing.packets.bytes.extend_from_slice(&bytes);
                    }
                    if outgoing.packets.bytes.len() > self.unwritten_bytes {
                        tracing::debug!(?connection, "closed: the device does not read");
                        outgoing.packets = Packets::END;
                        self.hub.handle_closed(connection, now);
                    }
                    if own != Some(connection) {
                        outgoing.wake.notify_one();
                    }
                }
                Output::Close { connection, reason } => {
                    tracing::debug!(?connection, %reason, "connection closed by the hub");
                    if let Some(outgoing) = self.outgoing.get_mut(&connection) {
                        outgoing.packets.is_last = true;
                        if own != Some(connection) {
                            outgoing.wake.notify_one();
                        }
                    }
                }
                Output::MethodDone { call, result } => {
                    // Whoever asked may have gone away meanwhile.
                    if let Some(caller) = self.callers.remove(&call) {
                        let _ = caller.send(result);
                    }
                }
            }
        }
    }
}

/// How long the timer sleeps when the hub wants none; it is woken before if that changes.
const IDLE: Duration = Duration::from_secs(3600);
