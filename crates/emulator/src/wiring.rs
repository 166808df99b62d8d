//! What stands between the sockets and a core without socket or clock: one lock, one timer, and the way of packets to whom
//! they belong.
//!
//! The core is behind one mutex that is never held across an await. A connection's task takes it once per read: it hands
//! the bytes in and takes its own answers out in the same breath, so a burst of telemetry costs one lock and one write.
//! Answers for others wait in their outgoing buffer, which is bounded: a device that does not read is closed.

use std::{
    collections::HashMap,
    fmt::{Debug, Display},
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{hub::Now, x509::Peer};

/// Something that speaks MQTT on many connections at a time, as a state machine: the hub is one.
///
/// After every call that takes `now`, all of [`Core::poll_order`] is taken, and the timer is armed for
/// [`Core::poll_timeout`]. A connection begins with [`Core::accept`] and ends once: by [`Order::Close`] or by
/// [`Core::handle_closed`].
pub(crate) trait Core: Send + 'static {
    /// Names a connection.
    type Connection: Copy + Eq + Hash + Debug + Send + Sync + 'static;
    /// Why a connection ends, for the log.
    type Reason: Display;

    /// What the core takes for now, when the machine's clocks show this: somebody may have set its clock.
    fn time(&self, machine: Now) -> Now;
    fn accept(&mut self, peer: Peer, now: Now) -> Self::Connection;
    fn handle_input(&mut self, id: Self::Connection, bytes: &[u8], now: Now);
    /// Whether more is to be read from a connection.
    fn wants_input(&self, id: Self::Connection) -> bool;
    fn handle_closed(&mut self, id: Self::Connection, now: Now);
    fn handle_timeout(&mut self, now: Now);
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_order(&mut self) -> Option<Order<Self::Connection, Self::Reason>>;
}

/// What a core wants done with a connection.
pub(crate) enum Order<Connection, Reason> {
    /// Write whole packets.
    Transmit {
        connection: Connection,
        bytes: Vec<u8>,
    },
    /// Close it after what was written before.
    Close {
        connection: Connection,
        reason: Reason,
    },
}

pub(crate) struct Wiring<C: Core> {
    state: Mutex<State<C>>,
    /// The core wants its timer earlier than it is armed.
    rearm: Notify,
}

struct State<C: Core> {
    core: C,
    outgoing: HashMap<C::Connection, Outgoing>,
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
    /// Whether the core takes more from the device.
    pub(crate) may_read: bool,
}

impl Packets {
    /// Nothing, and nothing after it.
    const END: Self = Self {
        bytes: Vec::new(),
        is_last: true,
    };
}

impl Step {
    /// Close, with nothing more to say.
    pub(crate) const END: Self = Self {
        packets: Packets::END,
        may_read: false,
    };
}

impl<C: Core> Wiring<C> {
    /// `unwritten_bytes` may wait for one connection.
    pub(crate) fn new(core: C, unwritten_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                core,
                outgoing: HashMap::new(),
                unwritten_bytes,
                armed: None,
            }),
            rearm: Notify::new(),
        }
    }

    /// Works on the core and sends its orders on their way.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut C, Now) -> R) -> R {
        self.with_state(|state, now| act(&mut state.core, now))
    }

    /// A connection was opened; `Notify` wakes its task when there is something to write.
    pub(crate) fn accept(&self, peer: Peer) -> (C::Connection, Arc<Notify>) {
        let wake = Arc::new(Notify::new());
        let id = self.with_state(|state, now| {
            let id = state.core.accept(peer, now);
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
    pub(crate) fn input(&self, id: C::Connection, bytes: &[u8]) -> Step {
        let mut state = self.state.lock();
        let now = state.core.time(Now::read());
        state.core.handle_input(id, bytes, now);
        state.dispatch(Some(id), now);
        let step = state.step(id);
        self.release(state);
        step
    }

    /// What a connection's task does next.
    pub(crate) fn step(&self, id: C::Connection) -> Step {
        self.state.lock().step(id)
    }

    /// A connection is gone.
    pub(crate) fn closed(&self, id: C::Connection) {
        self.with_state(|state, now| {
            state.outgoing.remove(&id);
            state.core.handle_closed(id, now);
        });
    }

    /// Lets the core's timers fire, until `stop`.
    pub(crate) async fn run_timers(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = self.with_state(|state, now| {
                state.core.handle_timeout(now);
                state.armed = state.core.poll_timeout();
                state.armed
            });
            let sleep =
                tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + IDLE).into());
            tokio::select! {
                () = sleep => {}
                () = self.rearm.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn with_state<R>(&self, act: impl FnOnce(&mut State<C>, Now) -> R) -> R {
        let mut state = self.state.lock();
        let now = state.core.time(Now::read());
        let result = act(&mut state, now);
        state.dispatch(None, now);
        self.release(state);
        result
    }

    /// Lets go of the lock, and wakes the timer if it must fire earlier.
    fn release(&self, state: MutexGuard<'_, State<C>>) {
        let wants_rearm = match (state.core.poll_timeout(), state.armed) {
            (Some(wanted), Some(armed)) => wanted < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        drop(state);
        if wants_rearm {
            self.rearm.notify_one();
        }
    }
}

impl<C: Core> State<C> {
    fn step(&mut self, id: C::Connection) -> Step {
        let packets = self
            .outgoing
            .get_mut(&id)
            .map_or(Packets::END, |outgoing| Packets {
                bytes: std::mem::take(&mut outgoing.packets.bytes),
                is_last: outgoing.packets.is_last,
            });
        Step {
            packets,
            may_read: self.core.wants_input(id),
        }
    }

    /// Sends orders on their way. `own` is the connection whose task asks: it takes its packets itself.
    fn dispatch(&mut self, own: Option<C::Connection>, now: Now) {
        while let Some(order) = self.core.poll_order() {
            match order {
                Order::Transmit { connection, bytes } => {
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
                        self.core.handle_closed(connection, now);
                    }
                    if own != Some(connection) {
                        outgoing.wake.notify_one();
                    }
                }
                Order::Close { connection, reason } => {
                    tracing::debug!(?connection, %reason, "connection closed from this side");
                    if let Some(outgoing) = self.outgoing.get_mut(&connection) {
                        outgoing.packets.is_last = true;
                        if own != Some(connection) {
                            outgoing.wake.notify_one();
                        }
                    }
                }
            }
        }
    }
}

/// How long the timer sleeps when the core wants none; it is woken before if that changes.
const IDLE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A core that says what it is told to.
    #[derive(Default)]
    struct Talker {
        orders: VecDeque<Order<u8, &'static str>>,
        closed: Vec<u8>,
    }

    impl Core for Talker {
        type Connection = u8;
        type Reason = &'static str;

        fn time(&self, machine: Now) -> Now {
            machine
        }

        fn accept(&mut self, _: Peer, _: Now) -> u8 {
            1
        }

        fn handle_input(&mut self, id: u8, bytes: &[u8], _: Now) {
            let bytes = bytes.to_vec();
            self.orders.push_back(Order::Transmit {
                connection: id,
                bytes,
            });
        }

        fn wants_input(&self, _: u8) -> bool {
            true
        }

        fn handle_closed(&mut self, id: u8, _: Now) {
            self.closed.push(id);
        }

        fn handle_timeout(&mut self, _: Now) {}

        fn poll_timeout(&self) -> Option<Instant> {
            None
        }

        fn poll_order(&mut self) -> Option<Order<u8, &'static str>> {
            self.orders.pop_front()
        }
    }

    #[test]
    fn what_waits_for_a_device_that_does_not_read_has_its_limit() {
        const LIMIT: usize = 1000;
        for (bytes, is_closed) in [(LIMIT - 1, false), (LIMIT, false), (LIMIT + 1, true)] {
            let wiring = Wiring::new(Talker::default(), LIMIT);
            let (id, _) = wiring.accept(Peer::ANONYMOUS);
            // In two parts, neither of which is too much alone.
            for part in [bytes / 2, bytes - bytes / 2] {
                wiring.with(|core, now| core.handle_input(id, &vec![0; part], now));
            }
            let step = wiring.step(id);
            assert_eq!(step.packets.is_last, is_closed, "{bytes}");
            let left = if is_closed { 0 } else { bytes };
            assert_eq!(step.packets.bytes.len(), left);
            let closed = wiring.with(|core, _| core.closed.clone());
            assert_eq!(closed == [id], is_closed, "{bytes}");
        }
    }
}
