//! Random lives of a session with a driver and a hub that behave, a network that does not, and what must hold after
//! every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use tombolo_session::{
    Credentials, Event, LossReason, MethodRequestId, Receipt, Subscriptions, WorkId,
};

use crate::{
    packets::{self, Sent},
    rig::{Rig, credentials, millis, seconds},
};

#[derive(Clone, Debug)]
enum Step {
    Publish,
    TwinGet,
    Patch,
    /// The hub calls a method.
    Call,
    /// The driver answers the oldest open one.
    Answer,
    /// The hub delivers a cloud-to-device message.
    Deliver,
    /// The driver acknowledges the receipt at this place.
    Acknowledge(usize),
    Cancel(usize),
    Want(Subscriptions),
    /// The hub handles so many of the packets that it has.
    Serve(usize),
    Wait(u64),
    /// The socket breaks.
    Break,
    /// The hub forgets the session.
    Forget,
    /// The driver's next sockets cannot be opened.
    Unreachable(u8),
    Reconnect,
    Close,
    CloseWithin(u64),
    Open,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Publish),
        1 => Just(Step::TwinGet),
        2 => Just(Step::Patch),
        1 => Just(Step::Call),
        1 => Just(Step::Answer),
        2 => Just(Step::Deliver),
        2 => (0..8_usize).prop_map(Step::Acknowledge),
        1 => (0..20_usize).prop_map(Step::Cancel),
        1 => any::<(bool, bool, bool)>().prop_map(|(cloud_messages, desired, methods)| {
            Step::Want(Subscriptions { cloud_messages, desired, methods })
        }),
        6 => (1..8_usize).prop_map(Step::Serve),
        4 => (1..20_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Break),
        1 => Just(Step::Forget),
        1 => (1..4_u8).prop_map(Step::Unreachable),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Close),
        1 => (0..3000_u64).prop_map(Step::CloseWithin),
        2 => Just(Step::Open),
    ]
}

/// The world around a session.
#[derive(Default)]
struct World {
    /// What the hub has not handled, on the socket in use.
    at_hub: VecDeque<Sent>,
    has_socket: bool,
    has_second_socket: bool,
    unreachable: u8,
    /// Packets since CONNACK.
    packets: usize,
    /// The last word on this connection about methods was SUBSCRIBE.
    offers_methods: bool,
    /// The hub knows the session; it said so on this connection.
    remembers: bool,
    said_present: bool,
    /// Delivered and not acknowledged, as the hub counts; receipts of the connection in use, as the driver does.
    unacknowledged: VecDeque<u16>,
    next_packet: u16,
    receipts: Vec<Receipt>,
    methods: VecDeque<MethodRequestId>,
    next_rid: u16,
    /// Work that was taken and is unfinished.
    open: BTreeSet<WorkId>,
    next_work: u64,
    /// QoS 1 publishes that the hub has not acknowledged on this connection.
    in_flight: BTreeSet<u16>,
    /// Patches that the hub has got, in order, the last of equal ones.
    patched: BTreeMap<u64, usize>,
    arrivals: usize,
    has_closed: bool,
}

impl World {
    fn take_step(&mut self, rig: &mut Rig, step: Step) {
        match step {
            Step::Publish if rig.session.room().telemetry > 0 => {
                let id = rig.publish("x");
                self.open.insert(id);
            }
            Step::TwinGet if rig.session.room().twin > 0 => {
                let id = rig.twin_get();
                self.open.insert(id);
            }
            Step::Patch if rig.session.room().twin > 0 => {
                self.next_work += 1;
                let id = rig.patch(&format!(r#"{{"n":{}}}"#, self.next_work));
                self.open.insert(id);
            }
            Step::Publish | Step::TwinGet | Step::Patch => {}
            Step::Call if self.is_accepted(rig) => {
                self.next_rid += 1;
                let topic = format!("$iothub/methods/POST/m/?$rid={:x}", self.next_rid);
                rig.hub(&packets::publish(None, &topic, b""));
            }
            Step::Deliver if self.is_accepted(rig) && self.unacknowledged.len() < 10 => {
                self.next_packet = self.next_packet % 100 + 1;
                self.unacknowledged.push_back(self.next_packet);
                let topic = "devices/dev1/messages/devicebound/%24.mid=m";
                rig.hub(&packets::publish(Some(self.next_packet), topic, b""));
            }
            Step::Call | Step::Deliver => {}
            Step::Answer => {
                if let Some(request) = self
                    .methods
                    .pop_front()
                    .filter(|_| rig.session.room().answers > 0)
                {
                    let id = rig.answer(&request);
                    self.open.insert(id);
                }
            }
            Step::Acknowledge(place) => {
                if let Some(receipt) = self.receipts.get(place) {
                    rig.acknowledge(*receipt);
                }
            }
            Step::Cancel(place) => {
                if let Some(id) = self.open.iter().nth(place).copied() {
                    rig.session.cancel(id, rig.now);
                    self.open.remove(&id);
                }
            }
            Step::Want(wanted) => rig.session.set_wanted(wanted, rig.now),
            Step::Serve(count) => {
                for _ in 0..count {
                    self.settle(rig);
                    self.serve(rig);
                }
            }
            Step::Wait(time) => {
                let end = rig.now + millis(time);
                while let Some((at, _)) = rig.session.poll_timeout().filter(|(at, _)| *at <= end) {
                    rig.wait(at.saturating_duration_since(rig.now));
                    rig.session.handle_timeout(rig.now);
                    self.settle(rig);
                }
                rig.wait(end - rig.now);
            }
            Step::Break if self.has_socket => {
                self.drop_socket();
                rig.session.handle_disconnected(LossReason::Socket, rig.now);
            }
            Step::Break => {}
            Step::Forget => self.remembers = false,
            Step::Unreachable(times) => self.unreachable = times,
            Step::Reconnect => rig.session.reconnect(rig.now),
            Step::Close => rig.session.close(rig.now),
            Step::CloseWithin(limit) => rig.session.close_within(millis(limit), rig.now),
            Step::Open => rig.session.open(rig.now),
        }
        self.settle(rig);
    }

    fn is_accepted(&self, rig: &Rig) -> bool {
        self.has_socket && rig.session.epoch().is_some()
    }

    /// The driver: drains the session until it has nothing to say.
    fn settle(&mut self, rig: &mut Rig) {
        loop {
            let sent = rig.sent();
            let events = rig.events();
            if sent.is_empty() && events.is_empty() {
                assert!(self.offers_methods || !rig.session.offers_methods());
                return;
            }
            for packet in sent {
                self.on_sent(packet);
            }
            for event in events {
                self.on_event(rig, event);
            }
        }
    }

    fn on_sent(&mut self, packet: Sent) {
        assert!(self.has_socket, "{packet:?} without a socket");
        assert!(
            !self.at_hub.contains(&Sent::Disconnect),
            "{packet:?} after DISCONNECT"
        );
        match &packet {
            Sent::Connect => assert!(self.at_hub.is_empty() && self.packets == 0),
            Sent::Subscribe { filters, .. } if self.packets == 1 => {
                assert!(filters[0].0.contains("methods"), "{filters:?}");
            }
            Sent::Unsubscribe { filters, .. } if self.packets == 1 => {
                assert!(filters[0].contains("methods"), "{filters:?}");
            }
            Sent::Subscribe { .. } | Sent::Unsubscribe { .. } | Sent::Pingreq => {}
            Sent::Disconnect => assert!(!self.offers_methods, "a farewell without UNSUBSCRIBE"),
            Sent::Puback(id) => {
                assert_eq!(
                    self.unacknowledged.pop_front(),
                    Some(*id),
                    "in the order of arrival"
                );
            }
            Sent::Publish(publish) => {
                if let Some(id) = publish.id {
                    assert!(self.in_flight.insert(id), "packet id {id} is in use");
                    assert!(self.said_present || !publish.dup, "a duplicate of nothing");
                }
                if publish.topic.contains("reported") {
                    let text = String::from_utf8(publish.payload.clone()).unwrap();
                    let number = text.trim_matches(|c: char| !c.is_ascii_digit());
                    self.arrivals += 1;
                    self.patched.insert(number.parse().unwrap(), self.arrivals);
                }
            }
        }
        assert!(
            self.packets != 1
                || matches!(
                    packet,
                    Sent::Subscribe { .. } | Sent::Unsubscribe { .. } | Sent::Connect
                ),
            "{packet:?} before methods are settled"
        );
        match &packet {
            Sent::Subscribe { filters, .. } => {
                self.offers_methods |= filters.iter().any(|(filter, _)| filter.contains("methods"));
            }
            Sent::Unsubscribe { filters, .. } => {
                self.offers_methods &= !filters.iter().any(|filter| filter.contains("methods"));
            }
            Sent::Connect
            | Sent::Pingreq
            | Sent::Disconnect
            | Sent::Puback(_)
            | Sent::Publish(_) => {}
        }
        self.packets += 1;
        self.at_hub.push_back(packet);
    }

    fn on_event(&mut self, rig: &mut Rig, event: Event) {
        match event {
            Event::Connect => {
                assert!(!self.has_socket);
                if self.unreachable > 0 {
                    self.unreachable -= 1;
                    rig.session.handle_connect_failed(rig.now);
                } else {
                    self.has_socket = true;
                    rig.session.handle_connected(self.credentials(rig), rig.now);
                }
            }
            Event::Renew => {
                if self.unreachable > 0 {
                    self.unreachable -= 1;
                    rig.session.handle_connect_failed(rig.now);
                } else {
                    self.has_second_socket = true;
                    rig.session.handle_connected(self.credentials(rig), rig.now);
                }
            }
            Event::Switch => {
                assert!(self.has_second_socket);
                self.drop_socket();
                self.has_socket = true;
                self.has_second_socket = false;
                rig.session.handle_disconnected(LossReason::Closed, rig.now);
            }
            Event::Close => {
                self.drop_socket();
                self.has_second_socket = false;
                rig.session.handle_disconnected(LossReason::Closed, rig.now);
            }
            Event::Closed => {
                assert!(!self.has_socket && self.open.is_empty(), "{:?}", self.open);
                self.has_closed = true;
            }
            Event::Connected { .. } => self.has_closed = false,
            Event::Disconnected { .. } => {
                self.receipts.clear();
            }
            Event::Delivered(id) | Event::Gone(id) => self.finish(id),
            Event::TwinRead { id, .. } | Event::ReportedPatched { id, .. } => self.finish(id),
            Event::Received { receipt, .. } => self.receipts.push(receipt),
            Event::Acknowledged(receipt) => {
                assert_eq!(self.receipts.remove(0), receipt);
            }
            Event::MethodRequested { id, .. } => self.methods.push_back(id),
            Event::ConnectFailed { .. }
            | Event::Settled { .. }
            | Event::MethodsOffered { .. }
            | Event::DesiredStale
            | Event::DesiredChanged(_) => {}
            Event::Refused { .. } | Event::Unreadable { .. } => panic!("{event:?}"),
        }
    }

    fn credentials(&self, rig: &Rig) -> Credentials {
        Credentials {
            renew_at: Some(rig.now + seconds(90)),
            ..credentials()
        }
    }

    fn finish(&mut self, id: WorkId) {
        assert!(
            self.open.remove(&id),
            "{id:?} is finished or cancelled already"
        );
    }

    fn drop_socket(&mut self) {
        self.has_socket = false;
        self.at_hub.clear();
        self.in_flight.clear();
        self.unacknowledged.clear();
        self.packets = 0;
        self.offers_methods = false;
    }

    /// The hub handles one packet.
    fn serve(&mut self, rig: &mut Rig) {
        let Some(packet) = self.at_hub.pop_front() else {
            return;
        };
        let answer = match packet {
            Sent::Connect => {
                self.said_present = self.remembers;
                self.remembers = true;
                packets::connack(0, self.said_present)
            }
            Sent::Subscribe { id, filters } => packets::suback(id, &vec![0; filters.len()]),
            Sent::Unsubscribe { id, .. } => packets::unsuback(id),
            Sent::Pingreq => packets::pingresp(),
            Sent::Puback(_) | Sent::Disconnect => return,
            Sent::Publish(publish) => match publish.topic.split_once("$rid=") {
                Some((topic, rid)) if topic.starts_with("$iothub/twin") => {
                    let topic = format!("$iothub/twin/res/204/?$rid={rid}");
                    packets::publish(None, &topic, b"")
                }
                Some(_) | None => {
                    let Some(id) = publish.id else {
                        return;
                    };
                    self.in_flight.remove(&id);
                    packets::puback(id)
                }
            },
        };
        rig.hub(&answer);
        self.settle(rig);
    }

    /// The network mends, the hub serves, and the session closes in order.
    fn finish_all(&mut self, rig: &mut Rig) {
        self.unreachable = 0;
        self.take_step(rig, Step::Open);
        for _ in 0..600 {
            while !self.at_hub.is_empty() {
                self.serve(rig);
            }
            if self.open.is_empty() && rig.session.epoch().is_some() {
                break;
            }
            self.take_step(rig, Step::Wait(1000));
        }
        assert!(self.open.is_empty(), "unfinished: {:?}", self.open);
        self.take_step(rig, Step::Close);
        for _ in 0..10 {
            self.take_step(rig, Step::Serve(20));
            self.take_step(rig, Step::Wait(1000));
        }
        assert!(self.has_closed && !self.has_socket);
        assert!(
            self.patched.values().is_sorted(),
            "the last word of each patch came before that of a later one: {:?}",
            self.patched
        );
        assert_eq!(rig.session.poll_timeout(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_every_work_ends_once_and_the_hub_sees_good_manners(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut rig = Rig::new();
        let mut world = World::default();
        world.take_step(&mut rig, Step::Open);
        for step in steps {
            world.take_step(&mut rig, step);
        }
        world.finish_all(&mut rig);
    }
}
