//! A session with a clock of its own and a hub that is played by hand.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use iothub::{Identity, MethodResponse, Telemetry, twin::ReportedPatch};
use tombolo_session::{
    Config, ConnectionEpoch, Credentials, Event, LossReason, MethodRequestId, Receipt, Session,
    Subscriptions, WorkId,
};

use crate::packets::{self, Publish, Sent};

pub(crate) struct Rig {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    next_work: u64,
}

pub(crate) const TOKEN: &str = "SharedAccessSignature sr=test-hub.azure-devices.net%2Fdevices%2Fdev1\
    &sig=3ijv8Q59aGwC0Upw5jXlQTNvh0fAHxUb%2FtyNfpnpTCQ%3D&se=1767225600";

pub(crate) const EVERYTHING: Subscriptions = Subscriptions {
    cloud_messages: true,
    desired: true,
    methods: true,
};

pub(crate) const NOTHING: Subscriptions = Subscriptions {
    cloud_messages: false,
    desired: false,
    methods: false,
};

pub(crate) fn identity() -> Identity {
    let hub = "test-hub.azure-devices.net".parse().unwrap();
    Identity::device(hub, "dev1".parse().unwrap())
}

pub(crate) fn credentials() -> Credentials {
    Credentials {
        password: Some(TOKEN.to_owned()),
        renew_at: None,
    }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Rig {
    /// A closed session with the default configuration.
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::of(identity(), config)
    }

    /// A session of another identity.
    pub(crate) fn of(identity: Identity, config: Config) -> Self {
        Self {
            session: Session::new(
                identity,
                Arc::new(config),
                ConnectionEpoch(1),
                fastrand::Rng::with_seed(1),
            ),
            now: start(),
            next_work: 1,
        }
    }

    /// A session whose hub has accepted it and acknowledged its subscriptions.
    pub(crate) fn online(wanted: Subscriptions) -> Self {
        let mut rig = Self::new();
        rig.session.set_wanted(wanted, rig.now);
        rig.session.open(rig.now);
        rig.bring_online(false);
        rig
    }

    /// Plays driver and hub from `Connect` until the subscriptions are acknowledged and the pings answered.
    pub(crate) fn bring_online(&mut self, session_present: bool) {
        assert!(matches!(self.events()[..], [.., Event::Connect]));
        self.session.handle_connected(credentials(), self.now);
        assert_eq!(self.sent(), [Sent::Connect]);
        self.hub(&packets::connack(0, session_present));
        self.acknowledge_all();
        self.events();
    }

    /// Bytes from the hub.
    pub(crate) fn hub(&mut self, bytes: &[u8]) {
        self.session.handle_input(bytes, self.now);
    }

    /// The hub answers SUBSCRIBE, UNSUBSCRIBE and PINGREQ as long as some come; returns all the rest.
    pub(crate) fn acknowledge_all(&mut self) -> Vec<Sent> {
        let mut others = Vec::new();
        loop {
            let sent = self.sent();
            if sent.is_empty() {
                return others;
            }
            for packet in sent {
                match packet {
                    Sent::Subscribe { id, filters } => {
                        let codes: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
                        self.hub(&packets::suback(id, &codes));
                    }
                    Sent::Unsubscribe { id, .. } => self.hub(&packets::unsuback(id)),
                    Sent::Pingreq => self.hub(&packets::pingresp()),
                    other => others.push(other),
                }
            }
        }
    }

    /// The packets that were written since the last call.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        let mut bytes = Vec::new();
        while let Some(more) = self.session.poll_transmit() {
            bytes.extend(more);
        }
        packets::parse(&bytes)
    }

    /// The publishes that were written since the last call; nothing else must have been.
    pub(crate) fn published(&mut self) -> Vec<Publish> {
        let publish = |packet| match packet {
            Sent::Publish(publish) => publish,
            other => panic!("not a publish: {other:?}"),
        };
        self.sent().into_iter().map(publish).collect()
    }

    /// The events since the last call.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// The one event since the last call.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Event {
        let mut events = self.events();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// Lets time pass, with every timeout at its time.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((at, _)) = self.session.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// The socket breaks; the back-off passes; the next connection is made.
    pub(crate) fn reconnect(&mut self, session_present: bool) -> Vec<Event> {
        self.session
            .handle_disconnected(LossReason::ClosedByHub, self.now);
        let events = self.events();
        self.wait(seconds(300));
        assert!(matches!(self.event(), Event::Connect));
        self.session.handle_connected(credentials(), self.now);
        assert_eq!(self.sent(), [Sent::Connect]);
        self.hub(&packets::connack(0, session_present));
        events
    }

    fn work(&mut self) -> WorkId {
        self.next_work += 1;
        WorkId(self.next_work)
    }

    pub(crate) fn publish(&mut self, payload: &'static str) -> WorkId {
        let id = self.work();
        let message = telemetry(payload);
        self.session.publish(id, &message, self.now).unwrap();
        id
    }

    pub(crate) fn twin_get(&mut self) -> WorkId {
        let id = self.work();
        self.session.twin_get(id, self.now).unwrap();
        id
    }

    pub(crate) fn patch(&mut self, json: &str) -> WorkId {
        let id = self.work();
        let patch = ReportedPatch::parse(json.as_bytes()).unwrap();
        self.session.patch_reported(id, &patch, self.now).unwrap();
        id
    }

    pub(crate) fn patch_jointly(&mut self, json: &str) -> WorkId {
        let id = self.work();
        let patch = ReportedPatch::parse(json.as_bytes()).unwrap();
        let taken = self.session.patch_reported_jointly(id, &patch, self.now);
        taken.unwrap();
        id
    }

    pub(crate) fn answer(&mut self, request: &MethodRequestId) -> WorkId {
        let id = self.work();
        let response = MethodResponse {
            status: 200,
            payload: Bytes::from_static(b"{}"),
        };
        self.session
            .answer(id, request, &response, self.now)
            .unwrap();
        id
    }

    pub(crate) fn acknowledge(&mut self, receipt: Receipt) {
        self.session.acknowledge(receipt, self.now).unwrap();
    }

    /// A cloud-to-device message arrives; returns its receipt.
    pub(crate) fn receive(&mut self, id: u16) -> Receipt {
        let topic =
            "devices/dev1/messages/devicebound/%24.to=%2Fdevices%2Fdev1%2Fmessages%2FdeviceBound";
        self.hub(&packets::publish(Some(id), topic, b"hello"));
        match self.event() {
            Event::Received { receipt, message } => {
                assert_eq!(&message.payload[..], b"hello");
                receipt
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn telemetry(payload: &'static str) -> Telemetry {
    Telemetry {
        payload: Bytes::from_static(payload.as_bytes()),
        ..Telemetry::default()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant has no other beginning; every later one is counted from it"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}
