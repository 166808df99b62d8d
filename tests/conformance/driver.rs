//! The smallest driver that a session can have: one plain TCP socket, one thread.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use iothub::{Identity, Telemetry};
use session::{
    Backoff, Config, ConnectionEpoch, Credentials, Event, LossReason, Receipt, Session,
    Subscriptions, WorkId,
};

use crate::BOUND;

pub(crate) struct Driver {
    session: Session,
    broker: SocketAddr,
    socket: Option<TcpStream>,
    events: VecDeque<Event>,
    next_work: u64,
}

impl Driver {
    /// A session of the device `dev1` that wants cloud-to-device messages; it is not open yet.
    pub(crate) fn new(broker: SocketAddr) -> Self {
        let hub = "test-hub.example".parse().unwrap();
        let identity = Identity::device(hub, "dev1".parse().unwrap());
        let soon = Backoff {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(100),
        };
        let config = Config {
            connect_backoff: soon,
            loss_backoff: soon,
            ..Config::default()
        };
        let mut session = Session::new(
            identity,
            Arc::new(config),
            ConnectionEpoch(1),
            fastrand::Rng::with_seed(1),
        );
        let wanted = Subscriptions {
            cloud_messages: true,
            desired: false,
            methods: false,
        };
        session.set_wanted(wanted, Instant::now());
        Self {
            session,
            broker,
            socket: None,
            events: VecDeque::new(),
            next_work: 1,
        }
    }

    /// Opens the session and waits until the broker has accepted it and its subscriptions.
    pub(crate) fn open(&mut self) {
        self.session.open(Instant::now());
        self.until_settled();
    }

    pub(crate) fn until_settled(&mut self) {
        self.until("settled", |event| {
            matches!(event, Event::Settled { .. }).then_some(())
        });
    }

    pub(crate) fn publish(&mut self, payload: &'static str) -> WorkId {
        let message = Telemetry {
            payload: payload.into(),
            properties: vec![("alpha".to_owned(), "a b&c".to_owned())],
            ..Telemetry::default()
        };
        let id = WorkId(self.next_work);
        self.next_work += 1;
        self.session.publish(id, &message, Instant::now()).unwrap();
        self.drain();
        id
    }

    /// Waits for the broker's PUBACK.
    pub(crate) fn until_delivered(&mut self, id: WorkId) {
        self.until("delivered", |event| {
            matches!(event, Event::Delivered(done) if *done == id).then_some(())
        });
    }

    /// Waits for a cloud-to-device message.
    pub(crate) fn until_received(&mut self) -> (Receipt, String) {
        self.until("received", |event| {
            let Event::Received { receipt, message } = event else {
                return None;
            };
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            Some((*receipt, text))
        })
    }

    pub(crate) fn acknowledge(&mut self, receipt: Receipt) {
        self.session.acknowledge(receipt, Instant::now()).unwrap();
        self.drain();
        self.until("acknowledged", |event| {
            matches!(event, Event::Acknowledged(done) if *done == receipt).then_some(())
        });
    }

    /// Cuts the connection; the session makes another by itself.
    pub(crate) fn cut(&mut self) {
        self.lose(LossReason::Socket);
    }

    /// Drives the session until `find` finds something in an event; earlier events are dropped.
    fn until<T>(&mut self, what: &str, mut find: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + BOUND;
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(found) = find(&event) {
                    return found;
                }
            }
            assert!(Instant::now() < deadline, "not {what} within {BOUND:?}");
            self.turn();
        }
    }

    /// Reads for a moment, does what is due.
    fn turn(&mut self) {
        match self.socket.as_mut().map(read) {
            Some(Ok(Some(bytes))) if bytes.is_empty() => self.lose(LossReason::ClosedByHub),
            Some(Ok(Some(bytes))) => self.session.handle_input(&bytes, Instant::now()),
            Some(Ok(None)) => {}
            Some(Err(_)) => self.lose(LossReason::Socket),
            None => std::thread::sleep(TURN),
        }
        self.session.handle_timeout(Instant::now());
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            while let Some(bytes) = self.session.poll_transmit() {
                // A socket that is gone shows at the next read.
                let _ = self.socket.as_mut().map(|socket| socket.write_all(&bytes));
            }
            match self.session.poll_event() {
                None => return,
                Some(Event::Connect) => self.connect(),
                Some(Event::Close) => self.lose(LossReason::Closed),
                Some(event) => self.events.push_back(event),
            }
        }
    }

    fn connect(&mut self) {
        let now = Instant::now();
        match TcpStream::connect(self.broker) {
            Err(_) => self.session.handle_connect_failed(now),
            Ok(socket) => {
                socket.set_read_timeout(Some(TURN)).unwrap();
                self.socket = Some(socket);
                let credentials = Credentials {
                    password: Some("a password that the broker does not check".to_owned()),
                    renew_at: None,
                };
                self.session.handle_connected(credentials, now);
            }
        }
    }

    fn lose(&mut self, reason: LossReason) {
        self.socket = None;
        self.session.handle_disconnected(reason, Instant::now());
        self.drain();
    }
}

/// What came within a moment; nothing at all at the end of the connection.
fn read(socket: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 4096];
    match socket.read(&mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

const TURN: Duration = Duration::from_millis(2);
