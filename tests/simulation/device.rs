//! What stands above the session: the gateway and the device behind it, the service behind the hub, and the account of
//! what was promised and what happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use emulator::hub::{self, CallId, FeedbackStatus, MethodCall, TwinChange};
use iothub::{
    AckRequest, CloudMessage, MethodResponse, Telemetry,
    twin::{ReportedPatch, Section},
};
use serde_json::{Map, Value, json};
use session::{Event, MethodRequestId, Receipt, Subscriptions, WorkId};

use crate::world::{LinkId, World};

pub(crate) struct Device {
    rng: fastrand::Rng,
    makes_work: bool,
    next_work: u64,
    telemetry: Next<u64>,
    /// Telemetry by work: what it says.
    in_flight: BTreeMap<WorkId, u64>,
    delivered: BTreeSet<u64>,
    message: Next<u64>,
    /// When the service sent what the device has not been shown.
    unseen: BTreeMap<String, Instant>,
    connected_at: Instant,
    /// Cloud-to-device messages that the device has and has not completed, by receipt.
    held: BTreeMap<Receipt, (String, Instant)>,
    shown: BTreeSet<String>,
    completed: BTreeSet<String>,
    method: Next<u64>,
    /// Calls by what the service sent: the answer must be to that.
    calls: BTreeMap<CallId, Bytes>,
    /// Calls whose callers wait for the device, by what they sent: where the hub has sent them to in the end.
    waiting: BTreeMap<Bytes, Option<LinkId>>,
    to_answer: Vec<(Instant, MethodRequestId, Bytes)>,
    answers: BTreeMap<WorkId, MethodRequestId>,
    answered: BTreeSet<MethodRequestId>,
    is_awake: bool,
    asleep_since: Instant,
    sleep: Next<()>,
    desired_write: Next<u64>,
    desired: Option<Section>,
    highest_desired: u64,
    read: Option<WorkId>,
    reported_write: Next<u64>,
    patches: BTreeSet<WorkId>,
    highest_reported: u64,
    report: Report,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) telemetry: usize,
    pub(crate) telemetry_duplicates: usize,
    pub(crate) messages: usize,
    pub(crate) messages_shown_again: usize,
    pub(crate) methods_answered: usize,
    pub(crate) methods_waited: usize,
    pub(crate) methods_not_online: usize,
    pub(crate) methods_timed_out: usize,
    pub(crate) connections: usize,
    pub(crate) connections_lost: usize,
    pub(crate) twin_reads: usize,
}

/// Something that is done again and again, and how often it has been.
struct Next<T> {
    at: Instant,
    every: Duration,
    count: T,
}

impl Device {
    pub(crate) fn new(rng: fastrand::Rng) -> Self {
        let now = Instant::now();
        let next = |seconds| Next {
            at: now,
            every: Duration::from_secs(seconds),
            count: 0,
        };
        Self {
            rng,
            makes_work: true,
            next_work: 0,
            telemetry: next(40),
            in_flight: BTreeMap::new(),
            delivered: BTreeSet::new(),
            message: next(200),
            unseen: BTreeMap::new(),
            connected_at: now,
            held: BTreeMap::new(),
            shown: BTreeSet::new(),
            completed: BTreeSet::new(),
            method: next(120),
            calls: BTreeMap::new(),
            waiting: BTreeMap::new(),
            to_answer: Vec::new(),
            answers: BTreeMap::new(),
            answered: BTreeSet::new(),
            is_awake: false,
            asleep_since: now,
            sleep: Next {
                at: now,
                every: Duration::from_secs(300),
                count: (),
            },
            desired_write: next(180),
            desired: None,
            highest_desired: 0,
            read: None,
            reported_write: next(90),
            patches: BTreeSet::new(),
            highest_reported: 0,
            report: Report::default(),
        }
    }

    /// From here on only what has begun is brought to its end.
    pub(crate) fn stop_making_work(&mut self) {
        self.makes_work = false;
    }

    pub(crate) fn next_action(&self) -> Instant {
        let plans = [
            self.telemetry.at,
            self.message.at,
            self.method.at,
            self.sleep.at,
        ];
        let plans = plans
            .into_iter()
            .chain([self.desired_write.at, self.reported_write.at]);
        let due = self
            .held
            .values()
            .map(|(_, at)| *at)
            .chain(self.to_answer.iter().map(|(at, ..)| *at));
        plans.chain(due).min().expect("six plans")
    }

    pub(crate) fn act(&mut self, world: &mut World) {
        let now = world.now();
        if self.report.connections == 0 {
            world.session.open(now);
        }
        self.check_offered(world);
        assert!(
            !world.hub_offers_methods() || self.waiting.values().all(Option::is_some),
            "a call waits in the hub for a device that is there"
        );
        self.complete_messages(world);
        self.answer_methods(world);
        self.read_twin(world);
        if self.sleep.is_due(now, &mut self.rng) {
            self.is_awake = if self.makes_work {
                !self.is_awake
            } else {
                false
            };
            if !self.is_awake {
                self.asleep_since = now;
            }
        }
        world.session.set_wanted(
            Subscriptions {
                cloud_messages: true,
                desired: true,
                methods: self.is_awake || !self.to_answer.is_empty(),
            },
            now,
        );
        if self.telemetry.is_due(now, &mut self.rng) && self.makes_work {
            self.send_telemetry(world);
        }
        if self.message.is_due(now, &mut self.rng) && self.makes_work {
            self.send_message(world);
        }
        if self.method.is_due(now, &mut self.rng) && self.makes_work {
            self.invoke_method(world);
        }
        if self.desired_write.is_due(now, &mut self.rng) && self.makes_work {
            self.write_desired(world);
        }
        if self.reported_write.is_due(now, &mut self.rng) && self.makes_work {
            self.write_reported(world);
        }
    }

    pub(crate) fn on_event(&mut self, event: Event, world: &World) {
        match event {
            Event::Connected { .. } => {
                self.report.connections += 1;
                self.connected_at = world.now();
            }
            Event::Disconnected { reason, .. } => {
                self.held.clear();
                self.to_answer.clear();
                self.desired = None;
                self.report.connections_lost += usize::from(reason != session::LossReason::Renewed);
            }
            Event::Settled { .. } => self.check_settled(),
            Event::MethodsOffered { epoch } => {
                assert_eq!(world.session.epoch(), Some(epoch));
                self.check_offered(world);
            }
            Event::Delivered(id) => self.on_delivered(id),
            Event::Gone(id) => {
                assert!(
                    self.answers.remove(&id).is_some(),
                    "only a method's answer may be given up"
                );
            }
            Event::TwinRead { id, result } => {
                assert_eq!(self.read.take(), Some(id));
                let twin = result.expect("the simulated hub fails no twin request");
                self.report.twin_reads += 1;
                self.see_desired(twin.desired);
            }
            Event::ReportedPatched { id, result } => {
                assert!(self.patches.remove(&id), "a patch is answered once");
                let version = result
                    .unwrap()
                    .expect("the emulator always names a version")
                    .0;
                assert!(version > self.highest_reported, "reported versions grow");
                self.highest_reported = version;
            }
            Event::Received { receipt, message } => {
                let id = message
                    .system
                    .message_id
                    .expect("all messages here have one");
                self.unseen.remove(&id);
                self.report.messages_shown_again += usize::from(!self.shown.insert(id.clone()));
                let at = world.now() + Duration::from_secs(self.rng.u64(0..20));
                self.held.insert(receipt, (id, at));
            }
            Event::MethodRequested { id, request } => {
                assert!(!self.answered.contains(&id), "a request comes once");
                let has_waited = self.waiting.remove(&request.payload).is_some();
                self.report.methods_waited += usize::from(has_waited);
                let at = world.now() + Duration::from_secs(self.rng.u64(0..8));
                self.to_answer.push((at, id, request.payload));
            }
            Event::DesiredChanged(change) => {
                if let Some(section) = &mut self.desired {
                    assert!(section.apply(&change), "the session speaks of gaps itself");
                    let section = section.clone();
                    self.see_desired(section);
                }
            }
            Event::DesiredStale => self.desired = None,
            Event::Acknowledged(_) | Event::ConnectFailed { .. } => {}
            Event::Refused { .. } | Event::Unreadable { .. } | Event::Closed => panic!("{event:?}"),
            Event::Connect | Event::Renew | Event::Switch | Event::Close => {
                unreachable!("the world does these")
            }
        }
    }

    /// The hub has written something.
    pub(crate) fn on_transmitted(&mut self, link: LinkId, bytes: &[u8]) {
        for (payload, sent_on) in &mut self.waiting {
            if bytes.windows(payload.len()).any(|part| part == payload) {
                *sent_on = Some(link);
            }
        }
    }

    pub(crate) fn on_method_done(
        &mut self,
        call: CallId,
        result: Result<MethodResponse, hub::Error>,
    ) {
        let sent = self.calls.remove(&call).expect("a call ends once");
        let was_sent = self.waiting.remove(&sent) != Some(None);
        match result {
            Ok(MethodResponse {
                status: 200,
                payload,
            }) => {
                assert_eq!(payload, sent, "an answer belongs to another request");
                self.report.methods_answered += 1;
            }
            Ok(MethodResponse { status, payload }) => {
                assert_eq!(
                    (status, &payload[..]),
                    (503, &br#"{"code":"device_asleep"}"#[..])
                );
            }
            Err(error) if was_sent => {
                assert_eq!(error.code, iothub::ErrorCode::GatewayTimeout);
                self.report.methods_timed_out += 1;
            }
            Err(error) => {
                assert_eq!(error.code, iothub::ErrorCode::DeviceNotOnline);
                self.report.methods_not_online += 1;
            }
        }
    }

    /// Holds what happened against what was promised.
    pub(crate) fn account(mut self, world: &World) -> Report {
        assert!(
            self.in_flight.is_empty(),
            "telemetry was forgotten: {:?}",
            self.in_flight
        );
        assert!(
            self.patches.is_empty() && self.read.is_none(),
            "a twin request was forgotten"
        );
        assert!(self.calls.is_empty(), "a call never ended");
        assert!(self.answers.is_empty(), "a method's answer was forgotten");

        let arrived: Vec<u64> = world
            .hub
            .telemetry(1, usize::MAX)
            .records
            .iter()
            .map(|record| {
                std::str::from_utf8(&record.message.payload)
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        let firsts: Vec<u64> = {
            let mut seen = BTreeSet::new();
            arrived
                .iter()
                .copied()
                .filter(|n| seen.insert(*n))
                .collect()
        };
        assert_eq!(
            firsts,
            (0..self.telemetry.count).collect::<Vec<_>>(),
            "telemetry lost or out of order"
        );
        assert_eq!(self.delivered, firsts.iter().copied().collect());
        self.report.telemetry = firsts.len();
        self.report.telemetry_duplicates = arrived.len() - firsts.len();

        let device = world.hub.device(&world.device_id).unwrap();
        assert_eq!(device.cloud_messages, 0, "messages are left in the hub");
        for feedback in world.hub.feedback(1) {
            let id = feedback.original_message_id.unwrap();
            assert_eq!(feedback.status, FeedbackStatus::Success);
            assert!(
                self.completed.contains(&id),
                "{id} was completed at the hub, not by the device"
            );
        }
        self.report.messages = self.completed.len();

        let whom = world.hub.identity(world.device_id.clone(), None);
        let twin = world.hub.twin(&whom).unwrap();
        let desired = self
            .desired
            .take()
            .expect("the desired properties are known in the end");
        assert_eq!(twin["properties"]["desired"]["$version"], desired.version.0);
        for (key, value) in &desired.properties {
            assert_eq!(&twin["properties"]["desired"][key], value);
        }
        if self.reported_write.count > 0 {
            assert_eq!(
                twin["properties"]["reported"]["count"],
                self.reported_write.count - 1
            );
        }
        assert_eq!(
            twin["properties"]["reported"]["$version"],
            self.highest_reported.max(1)
        );
        self.report
    }

    fn send_telemetry(&mut self, world: &mut World) {
        for _ in 0..self.rng.usize(1..6) {
            let payload = self.telemetry.count.to_string().into();
            let message = Telemetry {
                payload,
                ..Telemetry::default()
            };
            let id = self.work();
            if world.session.publish(id, &message, world.now()).is_ok() {
                self.in_flight.insert(id, self.telemetry.count);
                self.telemetry.count += 1;
            }
        }
    }

    fn on_delivered(&mut self, id: WorkId) {
        if let Some(n) = self.in_flight.remove(&id) {
            assert!(self.delivered.insert(n), "delivered twice");
        } else {
            assert!(
                self.answers.remove(&id).is_some(),
                "nothing of this name is in flight"
            );
        }
    }

    fn send_message(&mut self, world: &mut World) {
        let mut message = CloudMessage {
            ack: AckRequest::Full,
            ..CloudMessage::default()
        };
        message.system.message_id = Some(format!("m{}", self.message.count));
        message.system.expiry = Some(
            world
                .hub_now()
                .utc
                .saturating_add(Duration::from_secs(24 * 3600))
                .to_string(),
        );
        let now = world.hub_now();
        if world
            .hub
            .send_message(&world.device_id, message, now)
            .is_ok()
        {
            self.unseen
                .insert(format!("m{}", self.message.count), now.at);
            self.message.count += 1;
        }
    }

    fn complete_messages(&mut self, world: &mut World) {
        let now = world.now();
        let due: Vec<Receipt> = self
            .held
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(receipt, _)| *receipt)
            .collect();
        for receipt in due {
            let (id, _) = self.held.remove(&receipt).expect("just found");
            // The device's word counts from the moment it is given: the hub may hear of it later.
            self.completed.insert(id);
            world
                .session
                .acknowledge(receipt, now)
                .expect("receipts of lost connections are dropped");
        }
    }

    fn invoke_method(&mut self, world: &mut World) {
        let payload = Bytes::from(json!({ "call": self.method.count }).to_string());
        self.method.count += 1;
        let connect_timeout = match self.rng.bool() {
            true => Duration::from_secs(self.rng.u64(1..=300)),
            false => Duration::ZERO,
        };
        let must_wait = !world.hub_offers_methods();
        let call = MethodCall {
            name: "reboot".parse().unwrap(),
            payload: payload.clone(),
            response_timeout: Duration::from_secs(30),
            connect_timeout,
        };
        let now = world.hub_now();
        let whom = world.hub.identity(world.device_id.clone(), None);
        match world.hub.invoke_method(&whom, call, now) {
            Ok(id) => {
                // Asleep for longer than anything on this network takes: nobody may claim that the device is there.
                let is_long_asleep = connect_timeout.is_zero()
                    && !self.is_awake
                    && self.to_answer.is_empty()
                    && world.session.is_settled()
                    && now.at > self.asleep_since + Duration::from_secs(60);
                assert!(
                    !is_long_asleep,
                    "the hub believes that a sleeping device is there"
                );
                if must_wait {
                    self.waiting.insert(payload.clone(), None);
                }
                self.calls.insert(id, payload);
            }
            Err(_) => self.report.methods_not_online += 1,
        }
    }

    fn answer_methods(&mut self, world: &mut World) {
        let now = world.now();
        let (due, later) = std::mem::take(&mut self.to_answer)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.to_answer = later;
        let due: Vec<(Instant, MethodRequestId, Bytes)> = due;
        for (_, request, payload) in due {
            let id = self.work();
            assert!(self.answered.insert(request.clone()));
            let response = MethodResponse {
                status: 200,
                payload,
            };
            world
                .session
                .answer(id, &request, &response, now)
                .expect("few methods at once");
            self.answers.insert(id, request);
        }
    }

    fn write_desired(&mut self, world: &mut World) {
        let mut desired = Map::new();
        desired.insert(
            format!("k{}", self.rng.u8(0..4)),
            self.desired_write.count.into(),
        );
        self.desired_write.count += 1;
        let change = TwinChange::Merge {
            tags: None,
            desired: Some(desired),
        };
        let now = world.hub_now();
        let whom = world.hub.identity(world.device_id.clone(), None);
        world.hub.update_twin(&whom, change, None, now).unwrap();
    }

    fn read_twin(&mut self, world: &mut World) {
        if self.desired.is_none() && self.read.is_none() && world.session.epoch().is_some() {
            let id = self.work();
            if world.session.twin_get(id, world.now()).is_ok() {
                self.read = Some(id);
            }
        }
    }

    fn see_desired(&mut self, section: Section) {
        assert!(
            section.version.0 >= self.highest_desired,
            "desired versions never go back"
        );
        self.highest_desired = section.version.0;
        self.desired = Some(section);
    }

    fn write_reported(&mut self, world: &mut World) {
        let mut patch = Map::new();
        patch.insert("count".to_owned(), Value::from(self.reported_write.count));
        let patch = ReportedPatch::new(patch).unwrap();
        let id = self.work();
        if world
            .session
            .patch_reported(id, &patch, world.now())
            .is_ok()
        {
            self.patches.insert(id);
            self.reported_write.count += 1;
        }
    }

    /// "Settled" means that the device has been shown what was in the hub when the connection began.
    fn check_settled(&self) {
        let hidden = self
            .unseen
            .iter()
            .find(|(_, sent_at)| **sent_at < self.connected_at);
        assert_eq!(hidden, None, "settled, and a message was never shown");
    }

    /// "Offers methods" means that every call whose caller waited for the device is with the device.
    fn check_offered(&self, world: &World) {
        let is_hidden = |sent_on: &Option<LinkId>| sent_on.is_some() && *sent_on == world.active();
        if world.session.offers_methods() {
            let hidden = self.waiting.iter().find(|(_, sent_on)| is_hidden(sent_on));
            assert_eq!(hidden, None, "methods are offered, and a call has not come");
        }
    }

    fn work(&mut self) -> WorkId {
        self.next_work += 1;
        WorkId(self.next_work)
    }
}

impl<T> Next<T> {
    fn is_due(&mut self, now: Instant, rng: &mut fastrand::Rng) -> bool {
        let is_due = self.at <= now;
        if is_due {
            self.at = now + Duration::from_millis(1) + self.every.mul_f64(rng.f64());
        }
        is_due
    }
}
