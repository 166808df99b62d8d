//! The life of a device's session with a hub that says anything.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use iothub::{Identity, MethodResponse, Telemetry, twin::ReportedPatch};
use session::{
    Config, ConnectionEpoch, Credentials, Event, LossReason, MethodRequestId, Receipt, Session,
    Subscriptions, WorkId,
};

use crate::{packets, steps::Steps};

/// A scripted life: the driver keeps to its contract, the network breaks, and the hub's bytes are the input's.
///
/// The session writes whole packets that a client may send, and only where a socket is; each work that it took ends at
/// most once; its timers come to rest; and it does the same when every byte comes alone.
pub fn session_life(bytes: &[u8]) {
    let start = Instant::now();
    let whole = live(bytes, usize::MAX, start);
    let cut = live(bytes, 1, start);
    assert_eq!(whole, cut, "how input is cut must not matter");
}

fn live(script: &[u8], piece: usize, start: Instant) -> Vec<Said> {
    let mut steps = Steps::new(script);
    let mut life = Life::new(start, piece);
    while let Some(step) = steps.byte() {
        life.take_step(step % 16, &mut steps);
    }
    life.wait(Duration::from_secs(3600));
    life.account
}

struct Life {
    session: Session,
    now: Instant,
    /// Input comes in pieces of this many bytes.
    piece: usize,
    has_socket: bool,
    /// A socket was asked for: the first, or one beside it.
    is_asked: bool,
    has_second: bool,
    receipts: Vec<Receipt>,
    methods: Vec<MethodRequestId>,
    unfinished: BTreeSet<WorkId>,
    next_work: u64,
    account: Vec<Said>,
}

/// What a session said in one step.
#[derive(PartialEq, Eq, Debug, Default)]
struct Said {
    written: Vec<u8>,
    events: Vec<String>,
}

impl Life {
    fn new(start: Instant, piece: usize) -> Self {
        let identity = Identity::device(
            HUB.parse().expect("a host name"),
            "dev1".parse().expect("an id"),
        );
        let session = Session::new(
            identity,
            Arc::new(Config::default()),
            ConnectionEpoch(1),
            fastrand::Rng::with_seed(1),
        );
        Self {
            session,
            now: start,
            piece,
            has_socket: false,
            is_asked: false,
            has_second: false,
            receipts: Vec::new(),
            methods: Vec::new(),
            unfinished: BTreeSet::new(),
            next_work: 0,
            account: Vec::new(),
        }
    }

    fn take_step(&mut self, step: u8, steps: &mut Steps<'_>) {
        self.account.push(Said::default());
        match step {
            0 | 1 => self.hear(steps.bytes()),
            2 => self.session.open(self.now),
            3 => self.connect(),
            4 => {
                let seconds = 1 << (steps.byte().unwrap_or_default() % 12);
                self.wait(Duration::from_secs(seconds));
            }
            5 => self.publish(steps.bytes()),
            6 => {
                let id = self.work();
                let taken = self.session.twin_get(id, self.now).is_ok();
                self.note(id, taken);
            }
            7 => self.patch(steps.byte().unwrap_or_default()),
            8 => {
                let wanted = steps.byte().unwrap_or_default();
                let wanted = Subscriptions {
                    cloud_messages: wanted & 1 != 0,
                    desired: wanted & 2 != 0,
                    methods: wanted & 4 != 0,
                };
                self.session.set_wanted(wanted, self.now);
            }
            9 => self.acknowledge(steps.byte().unwrap_or_default()),
            10 => self.answer(steps.byte().unwrap_or_default()),
            11 if self.has_socket => self.disconnected(LossReason::Socket),
            11 => {}
            12 if self.is_asked => {
                self.is_asked = false;
                self.session.handle_connect_failed(self.now);
            }
            12 => {}
            13 => self.session.close(self.now),
            14 => self.session.reconnect(self.now),
            _ => self.cancel(steps.byte().unwrap_or_default()),
        }
        self.drain();
    }

    /// Bytes of the hub come in, if there is a socket.
    fn hear(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            if self.has_socket {
                self.session.handle_input(piece, self.now);
                self.drain();
            }
        }
    }

    fn connect(&mut self) {
        if !std::mem::take(&mut self.is_asked) {
            return;
        }
        if self.has_socket {
            self.has_second = true;
        } else {
            self.has_socket = true;
        }
        let credentials = Credentials {
            password: Some("SharedAccessSignature sr=x".to_owned()),
            renew_at: Some(self.now + Duration::from_secs(900)),
        };
        self.session.handle_connected(credentials, self.now);
    }

    /// The socket in use is gone; one beside it takes its place.
    fn disconnected(&mut self, reason: LossReason) {
        self.has_socket = std::mem::take(&mut self.has_second);
        self.session.handle_disconnected(reason, self.now);
    }

    fn publish(&mut self, payload: &[u8]) {
        let message = Telemetry {
            payload: Bytes::copy_from_slice(payload),
            ..Telemetry::default()
        };
        let id = self.work();
        let taken = self.session.publish(id, &message, self.now).is_ok();
        self.note(id, taken);
    }

    fn patch(&mut self, number: u8) {
        let patch = format!("{{\"n\":{number}}}");
        let patch = ReportedPatch::parse(patch.as_bytes()).expect("a patch");
        let id = self.work();
        let taken = self.session.patch_reported(id, &patch, self.now).is_ok();
        self.note(id, taken);
    }

    fn acknowledge(&mut self, place: u8) {
        if let Some(receipt) = self.receipts.get(usize::from(place)) {
            // A receipt may be of a connection that has ended, or be given back twice.
            let _ = self.session.acknowledge(*receipt, self.now);
        }
    }

    fn answer(&mut self, place: u8) {
        let Some(request) = self.methods.get(usize::from(place)).cloned() else {
            return;
        };
        let response = MethodResponse {
            status: 200,
            payload: Bytes::from_static(b"{}"),
        };
        let id = self.work();
        let taken = self
            .session
            .answer(id, &request, &response, self.now)
            .is_ok();
        self.note(id, taken);
    }

    fn cancel(&mut self, place: u8) {
        let id = self.unfinished.iter().nth(usize::from(place)).copied();
        if let Some(id) = id {
            self.unfinished.remove(&id);
            self.session.cancel(id, self.now);
        }
    }

    fn work(&mut self) -> WorkId {
        self.next_work += 1;
        WorkId(self.next_work)
    }

    fn note(&mut self, id: WorkId, taken: bool) {
        if taken {
            self.unfinished.insert(id);
        }
    }

    /// Lets time pass, with every timeout at its time.
    fn wait(&mut self, duration: Duration) {
        self.account.push(Said::default());
        let end = self.now + duration;
        for _ in 0..TIMEOUTS_IN_AN_HOUR {
            match self.session.poll_timeout() {
                Some((at, _)) if at <= end => self.now = self.now.max(at),
                Some(_) | None => {
                    self.now = end;
                    return;
                }
            }
            self.session.handle_timeout(self.now);
            self.drain();
        }
        panic!(
            "timers do not come to rest: {:?}",
            self.session.poll_timeout()
        );
    }

    /// Does what a driver does after every call.
    fn drain(&mut self) {
        loop {
            let mut is_idle = true;
            while let Some(bytes) = self.session.poll_transmit() {
                is_idle = false;
                assert!(self.has_socket, "bytes for no socket");
                packets::check(&bytes, FROM_A_CLIENT);
                self.said().written.extend(bytes);
            }
            while let Some(event) = self.session.poll_event() {
                is_idle = false;
                self.on_event(event);
            }
            if is_idle {
                return;
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        self.said().events.push(format!("{event:?}"));
        match event {
            Event::Connect | Event::Renew => self.is_asked = true,
            Event::Switch => self.disconnected(LossReason::Renewed),
            Event::Close => {
                (self.is_asked, self.has_second) = (false, false);
                self.disconnected(LossReason::Closed);
            }
            Event::Delivered(id)
            | Event::Gone(id)
            | Event::TwinRead { id, .. }
            | Event::ReportedPatched { id, .. } => {
                assert!(self.unfinished.remove(&id), "{id:?} has ended already");
            }
            Event::Received { receipt, .. } => self.receipts.push(receipt),
            Event::Unreadable { receipt, .. } => self.receipts.extend(receipt),
            Event::MethodRequested { id, .. } => self.methods.push(id),
            Event::Closed
            | Event::Connected { .. }
            | Event::ConnectFailed { .. }
            | Event::Refused { .. }
            | Event::Disconnected { .. }
            | Event::Settled { .. }
            | Event::MethodsOffered { .. }
            | Event::Acknowledged(_)
            | Event::DesiredChanged(_)
            | Event::DesiredStale => {}
        }
    }

    fn said(&mut self) -> &mut Said {
        if self.account.is_empty() {
            self.account.push(Said::default());
        }
        let last = self.account.len() - 1;
        &mut self.account[last]
    }
}

const HUB: &str = "test-hub.azure-devices.net";
/// CONNECT, PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT.
const FROM_A_CLIENT: &[u8] = &[1, 3, 4, 8, 10, 12, 14];
/// A session that waits for a hub has a few timers a minute; this is a hundred times that.
const TIMEOUTS_IN_AN_HOUR: usize = 20_000;
