//! The hub with what the HTTPS side wants of it: methods that are waited for, and telemetry that is followed.

use std::{collections::HashMap, sync::Arc, time::Instant};

use iothub::{Identity, MethodResponse};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    hub::{CallId, CloseReason, ConnectionId, Error, Hub, MethodCall, Now, Output},
    state::Memory,
    wiring::{Core, Order, Wiring},
    x509::Peer,
};

pub(crate) struct Shell {
    pub(crate) wiring: Arc<Wiring<Served>>,
    /// Number of the next telemetry record.
    telemetry: watch::Sender<u64>,
    /// Whether the hub is at its other address.
    place: watch::Sender<bool>,
    pub(crate) stop: CancellationToken,
}

/// The hub, and who waits for what it says beside packets.
pub(crate) struct Served {
    hub: Hub,
    callers: HashMap<CallId, oneshot::Sender<MethodResult>>,
    telemetry: watch::Sender<u64>,
    /// What `telemetry` said last.
    announced: u64,
    place: watch::Sender<bool>,
}

type MethodResult = Result<MethodResponse, Error>;

impl Shell {
    pub(crate) fn new(hub: Hub, unwritten_bytes: usize, stop: CancellationToken) -> Self {
        let announced = hub.telemetry_next();
        let telemetry = watch::Sender::new(announced);
        let place = watch::Sender::new(hub.is_moved());
        let served = Served {
            hub,
            callers: HashMap::new(),
            telemetry: telemetry.clone(),
            announced,
            place: place.clone(),
        };
        Self {
            wiring: Arc::new(Wiring::new(served, unwritten_bytes)),
            telemetry,
            place,
            stop,
        }
    }

    /// Works on the hub and sends its outputs on their way.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Hub, Now) -> R) -> R {
        self.wiring.with(|served, now| act(&mut served.hub, now))
    }

    /// Invokes a method and waits for its end, which the hub bounds.
    pub(crate) async fn invoke_method(
        &self,
        identity: &Identity,
        call: MethodCall,
    ) -> MethodResult {
        let (sender, receiver) = oneshot::channel();
        self.wiring.with(|served, now| {
            let id = served.hub.invoke_method(identity, call, now)?;
            served.callers.insert(id, sender);
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

    /// Follows whether the hub is at its other address.
    pub(crate) fn watch_place(&self) -> watch::Receiver<bool> {
        self.place.subscribe()
    }

    /// Follows the number of the next telemetry record.
    pub(crate) fn watch_telemetry(&self) -> watch::Receiver<u64> {
        self.telemetry.subscribe()
    }
}

impl Memory for Shell {
    const FORMAT: &'static str = "tombolo-emulator-hub";
    const VERSION: u32 = Hub::VERSION;

    fn revision(&self) -> u64 {
        self.with(|hub, _| hub.revision())
    }

    fn remembered(&self) -> Vec<u8> {
        self.with(|hub, _| hub.remembered())
    }
}

impl Core for Served {
    type Connection = ConnectionId;
    type Reason = CloseReason;

    fn time(&self, machine: Now) -> Now {
        self.hub.time(machine)
    }

    fn accept(&mut self, peer: Peer, now: Now) -> ConnectionId {
        self.hub.accept(peer, now)
    }

    fn handle_input(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        self.hub.handle_input(id, bytes, now);
    }

    fn wants_input(&self, id: ConnectionId) -> bool {
        self.hub.wants_input(id)
    }

    fn handle_closed(&mut self, id: ConnectionId, now: Now) {
        self.hub.handle_closed(id, now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.hub.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.hub.poll_timeout()
    }

    fn poll_order(&mut self) -> Option<Order<ConnectionId, CloseReason>> {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Transmit { connection, bytes } => {
                    return Some(Order::Transmit { connection, bytes });
                }
                Output::Close { connection, reason } => {
                    return Some(Order::Close { connection, reason });
                }
                Output::MethodDone { call, result } => {
                    // Whoever asked may have gone away meanwhile.
                    if let Some(caller) = self.callers.remove(&call) {
                        let _ = caller.send(result);
                    }
                }
            }
        }
        let is_moved = self.hub.is_moved();
        self.place
            .send_if_modified(|place| std::mem::replace(place, is_moved) != is_moved);
        let next = self.hub.telemetry_next();
        if next != self.announced {
            self.announced = next;
            self.telemetry.send_replace(next);
        }
        None
    }
}
