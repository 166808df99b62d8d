//! Time and network of a simulation.
//!
//! Connections behave like TCP: each direction keeps its order, nothing is lost but by the end of the connection, and
//! then everything under way is. A *freeze* is a path that has died without a word: bytes vanish until somebody gives
//! the connection up.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::{Duration, Instant},
};

use emulator::Peer;
use emulator::hub::{self, ConnectionId, DeviceSpec, Hub, Now, Output};
use iothub::{DeviceId, HubName, Identity, Timestamp, sas, topic::Filter};
use session::{Config, ConnectionEpoch, Credentials, Event, LossReason, Session};

use crate::device::Device;

/// How bad the network is.
#[derive(Clone, Copy)]
pub(crate) struct Network {
    /// Longest delay of a piece of data, each way.
    delay: Duration,
    /// Longest time between two faults; none without.
    faults_every: Option<Duration>,
    /// Chance that no socket can be had.
    connect_failures: f64,
}

impl Network {
    pub(crate) fn calm() -> Self {
        Self {
            delay: Duration::from_millis(80),
            faults_every: None,
            connect_failures: 0.0,
        }
    }

    pub(crate) fn rough() -> Self {
        Self {
            delay: Duration::from_millis(1500),
            faults_every: Some(Duration::from_secs(600)),
            connect_failures: 0.2,
        }
    }
}

pub(crate) struct World {
    pub(crate) hub: Hub,
    pub(crate) session: Session,
    pub(crate) device_id: DeviceId,
    pub(crate) rng: fastrand::Rng,
    network: Network,
    clock: Clock,
    key: sas::Key,
    identity: Identity,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    /// The socket that the session writes to.
    active: Option<LinkId>,
    /// The socket that waits for the end of the active one.
    standby: Option<LinkId>,
    /// Whether a socket is being opened.
    is_dialing: bool,
    agenda: BinaryHeap<Reverse<Appointment>>,
    next_appointment: u64,
    next_fault: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Clock {
    at: Instant,
    utc: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct LinkId(u64);

struct Link {
    at_hub: ConnectionId,
    is_frozen: bool,
    /// The last delivery in each direction: later ones come later.
    last_up: Instant,
    last_down: Instant,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Appointment {
    at: Instant,
    number: u64,
    what: What,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    SocketOpened { is_success: bool },
    UpArrives { link: LinkId, bytes: Vec<u8> },
    DownArrives { link: LinkId, bytes: Vec<u8> },
    HubHearsOfEnd { at_hub: u64, link: LinkId },
    SessionHearsOfEnd { link: LinkId },
}

impl World {
    pub(crate) fn new(seed: u64, network: Network) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let clock = Clock {
            at: Instant::now(),
            utc: Timestamp::from_unix_seconds(1_790_000_000),
        };
        let name: HubName = "hub.example".parse().unwrap();
        let device_id: DeviceId = "watch-1".parse().unwrap();
        let mut hub = Hub::new(
            hub::Config::new(name.clone(), Vec::new()),
            hub::Random::seeded(seed),
        );
        let spec = DeviceSpec::default();
        let info = hub.create_device(&device_id, spec, clock.now()).unwrap();
        let identity = Identity::device(name, device_id.clone());
        let session = Session::new(
            identity.clone(),
            Arc::new(Config::default()),
            ConnectionEpoch(1),
            rng.fork(),
        );
        let next_fault = network.faults_every.map(|every| clock.at + every);
        Self {
            hub,
            session,
            device_id,
            rng,
            network,
            clock,
            key: info.authentication.keys().unwrap().primary.clone(),
            identity,
            links: BTreeMap::new(),
            next_link: 0,
            active: None,
            standby: None,
            is_dialing: false,
            agenda: BinaryHeap::new(),
            next_appointment: 0,
            next_fault,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.at
    }

    pub(crate) fn hub_now(&self) -> Now {
        self.clock.now()
    }

    /// The socket that the session writes to.
    pub(crate) fn active(&self) -> Option<LinkId> {
        self.active
    }

    /// Whether a call without patience for the device would be taken.
    pub(crate) fn hub_offers_methods(&self) -> bool {
        let info = self.hub.session_info(&self.identity).unwrap();
        let filter = Filter::Methods.encode(&self.identity);
        info.is_connected && info.subscriptions.contains(&filter)
    }

    /// No more faults from here on; what is frozen is cut.
    pub(crate) fn calm_down(&mut self) {
        self.network = Network::calm();
        self.next_fault = None;
        let frozen: Vec<_> = self
            .links
            .iter()
            .filter(|(_, l)| l.is_frozen)
            .map(|(id, _)| *id)
            .collect();
        for link in frozen {
            self.cut(link);
        }
    }

    /// Goes to the next moment at which something happens, and lets it happen.
    pub(crate) fn step(&mut self, device: &mut Device) {
        let next = [
            self.agenda
                .peek()
                .map(|Reverse(appointment)| appointment.at),
            self.session.poll_timeout().map(|(at, _)| at),
            self.hub.poll_timeout(),
            self.next_fault,
            Some(device.next_action()),
        ];
        let next = next
            .into_iter()
            .flatten()
            .min()
            .expect("the device always plans something");
        self.clock.advance_to(next);
        if self.next_fault.is_some_and(|at| at <= self.clock.at) {
            self.fault();
        }
        while let Some(Reverse(appointment)) = self.agenda.peek()
            && appointment.at <= self.clock.at
        {
            let Some(Reverse(appointment)) = self.agenda.pop() else {
                break;
            };
            self.happen(appointment.what);
            self.drain(device);
        }
        self.session.handle_timeout(self.clock.at);
        self.hub.handle_timeout(self.clock.now());
        self.drain(device);
        device.act(self);
        self.drain(device);
    }

    fn happen(&mut self, what: What) {
        let now = self.clock.at;
        match what {
            What::SocketOpened { is_success: false } => {
                self.is_dialing = false;
                self.session.handle_connect_failed(now);
            }
            What::SocketOpened { is_success: true } => {
                self.is_dialing = false;
                let id = LinkId(self.next_link);
                self.next_link += 1;
                let at_hub = self.hub.accept(Peer::ANONYMOUS, self.clock.now());
                self.links.insert(
                    id,
                    Link {
                        at_hub,
                        is_frozen: false,
                        last_up: now,
                        last_down: now,
                    },
                );
                let place = if self.active.is_none() {
                    &mut self.active
                } else {
                    &mut self.standby
                };
                *place = Some(id);
                self.session.handle_connected(self.credentials(), now);
            }
            What::UpArrives { link, bytes } => {
                if let Some(link) = self.links.get(&link).filter(|link| !link.is_frozen) {
                    self.hub.handle_input(link.at_hub, &bytes, self.clock.now());
                }
            }
            What::DownArrives { link, bytes } => {
                let is_open = self.links.get(&link).is_some_and(|link| !link.is_frozen);
                if is_open && self.active == Some(link) {
                    self.session.handle_input(&bytes, now);
                }
            }
            What::HubHearsOfEnd { link, .. } => {
                if let Some(link) = self.links.remove(&link) {
                    self.hub.handle_closed(link.at_hub, self.clock.now());
                }
            }
            What::SessionHearsOfEnd { link } => {
                if self.active == Some(link) {
                    self.active = self.standby.take();
                    self.session
                        .handle_disconnected(LossReason::ClosedByHub, now);
                } else if self.standby == Some(link) {
                    self.standby = None;
                    self.session.handle_connect_failed(now);
                }
            }
        }
    }

    /// Carries everything that the two cores want out, until both are quiet.
    fn drain(&mut self, device: &mut Device) {
        loop {
            let mut was_quiet = true;
            while let Some(bytes) = self.session.poll_transmit() {
                was_quiet = false;
                self.send_up(&bytes);
            }
            while let Some(event) = self.session.poll_event() {
                was_quiet = false;
                self.on_event(event, device);
            }
            while let Some(output) = self.hub.poll_output() {
                was_quiet = false;
                self.on_output(output, device);
            }
            if was_quiet {
                return;
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the world takes what is about sockets, the device all the rest"
    )]
    fn on_event(&mut self, event: Event, device: &mut Device) {
        match event {
            Event::Connect | Event::Renew => {
                assert!(
                    !self.is_dialing,
                    "a second socket was asked for while one is being opened"
                );
                self.is_dialing = true;
                let is_success = self.rng.f64() >= self.network.connect_failures;
                let delay = self.delay() * 3;
                self.plan(self.clock.at + delay, What::SocketOpened { is_success });
            }
            Event::Switch => {
                self.close_active();
                self.active = self.standby.take();
                self.session
                    .handle_disconnected(LossReason::Socket, self.clock.at);
            }
            Event::Close => {
                self.close_active();
                if let Some(standby) = self.standby.take() {
                    self.end_at_hub(standby);
                }
                self.agenda
                    .retain(|Reverse(a)| !matches!(a.what, What::SocketOpened { .. }));
                self.is_dialing = false;
                self.session
                    .handle_disconnected(LossReason::Socket, self.clock.at);
            }
            other => device.on_event(other, self),
        }
    }

    fn on_output(&mut self, output: Output, device: &mut Device) {
        match output {
            Output::Transmit { connection, bytes } => {
                let Some(id) = self.link_of(connection) else {
                    return;
                };
                device.on_transmitted(id, &bytes);
                // Cut anywhere: a socket knows nothing of packets.
                let (head, tail) = bytes.split_at(self.rng.usize(..=bytes.len()));
                for piece in [head, tail] {
                    let at = self.clock.at + self.delay();
                    let link = self.links.get_mut(&id).expect("just looked up");
                    link.last_down = link.last_down.max(at);
                    let (at, bytes) = (link.last_down, piece.to_vec());
                    self.plan(at, What::DownArrives { link: id, bytes });
                }
            }
            Output::Close { connection, .. } => {
                let Some(id) = self.link_of(connection) else {
                    return;
                };
                let link = &self.links[&id];
                let at = link.last_down.max(self.clock.at);
                self.plan(at, What::SessionHearsOfEnd { link: id });
            }
            Output::MethodDone { call, result } => device.on_method_done(call, result),
        }
    }

    fn send_up(&mut self, bytes: &[u8]) {
        let id = self
            .active
            .expect("a session writes only while it has a socket");
        let at = self.clock.at + self.delay();
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.last_up = link.last_up.max(at);
        let at = link.last_up;
        self.plan(
            at,
            What::UpArrives {
                link: id,
                bytes: bytes.to_vec(),
            },
        );
    }

    fn close_active(&mut self) {
        if let Some(active) = self.active.take() {
            self.end_at_hub(active);
        }
    }

    /// The session's side closes: the hub gets what was written, then the end.
    fn end_at_hub(&mut self, id: LinkId) {
        if let Some(link) = self.links.get(&id) {
            let at = link.last_up.max(self.clock.at);
            self.plan(
                at,
                What::HubHearsOfEnd {
                    at_hub: id.0,
                    link: id,
                },
            );
        }
    }

    fn fault(&mut self) {
        let every = self
            .network
            .faults_every
            .expect("faults are planned only on a rough network");
        self.next_fault = Some(self.clock.at + every.mul_f64(self.rng.f64()));
        let Some(victim) = self.active.or(self.standby) else {
            return;
        };
        if self.rng.bool() {
            self.cut(victim);
        } else if let Some(link) = self.links.get_mut(&victim) {
            link.is_frozen = true;
            // A middlebox gives the connection up in the end, if the session does not.
            let at = self.clock.at + Duration::from_secs(self.rng.u64(30..900));
            self.plan(at, What::SessionHearsOfEnd { link: victim });
            self.plan(
                at,
                What::HubHearsOfEnd {
                    at_hub: victim.0,
                    link: victim,
                },
            );
        }
    }

    /// Everything under way is lost; each side hears of the end in its own time.
    fn cut(&mut self, victim: LinkId) {
        self.agenda
            .retain(|Reverse(appointment)| match &appointment.what {
                What::UpArrives { link, .. } | What::DownArrives { link, .. } => *link != victim,
                What::SocketOpened { .. }
                | What::HubHearsOfEnd { .. }
                | What::SessionHearsOfEnd { .. } => true,
            });
        if let Some(link) = self.links.get_mut(&victim) {
            link.is_frozen = true;
        }
        let (hub, session) = (self.delay() * 10, self.delay() * 10);
        self.plan(
            self.clock.at + hub,
            What::HubHearsOfEnd {
                at_hub: victim.0,
                link: victim,
            },
        );
        self.plan(
            self.clock.at + session,
            What::SessionHearsOfEnd { link: victim },
        );
    }

    fn credentials(&self) -> Credentials {
        let lifetime = Duration::from_secs(3600);
        let expires_at = self.clock.utc.saturating_add(lifetime);
        let password = self
            .key
            .sign(&sas::resource(&self.identity), None, expires_at);
        Credentials {
            password: Some(password),
            renew_at: Some(self.clock.at + lifetime.mul_f64(0.8)),
        }
    }

    fn link_of(&self, at_hub: ConnectionId) -> Option<LinkId> {
        self.links
            .iter()
            .find(|(_, link)| link.at_hub == at_hub)
            .map(|(id, _)| *id)
    }

    fn delay(&mut self) -> Duration {
        self.network.delay.mul_f64(self.rng.f64())
    }

    fn plan(&mut self, at: Instant, what: What) {
        let number = self.next_appointment;
        self.next_appointment += 1;
        self.agenda.push(Reverse(Appointment { at, number, what }));
    }
}

impl Clock {
    fn now(self) -> Now {
        Now {
            at: self.at,
            utc: self.utc,
        }
    }

    fn advance_to(&mut self, at: Instant) {
        if at > self.at {
            self.utc = self.utc.saturating_add(at - self.at);
            self.at = at;
        }
    }
}
