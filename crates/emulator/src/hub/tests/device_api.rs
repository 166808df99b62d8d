use iothub::{AckRequest, CloudMessage, ErrorCode, SystemProperties, Telemetry};

use super::*;

fn message(text: &str) -> CloudMessage {
    CloudMessage {
        ack: AckRequest::Full,
        system: SystemProperties {
            message_id: Some(text.to_owned()),
            ..SystemProperties::default()
        },
        payload: Bytes::copy_from_slice(text.as_bytes()),
        ..CloudMessage::default()
    }
}

fn send(rig: &mut Rig, text: &str) {
    rig.hub
        .send_message(&dev1(), message(text), rig.now)
        .unwrap();
}

fn caller(rig: &mut Rig) -> Caller {
    authorize(rig, "dev1", &key().sign(&resource(), None, expiry())).unwrap()
}

fn authorize(rig: &mut Rig, id: &str, token: &str) -> Result<Caller, Error> {
    let hosts = ["localhost".to_owned()];
    let proof = Proof::new(Some(token), &Peer::ANONYMOUS);
    rig.hub.authorize_caller(whom(id), proof, &hosts, rig.now)
}

fn resource() -> String {
    sas::resource(&whom("dev1"))
}

fn receive(rig: &mut Rig) -> Option<LockedMessage> {
    let caller = caller(rig);
    let minute = Duration::from_secs(60);
    rig.hub.receive_message(&caller, minute, rig.now).unwrap()
}

fn payload(received: Option<LockedMessage>) -> Option<Bytes> {
    received.map(|locked| locked.message.payload)
}

fn settle(rig: &mut Rig, lock: &str, settlement: Settlement) -> Result<(), Error> {
    let caller = caller(rig);
    rig.hub.settle_message(&caller, lock, settlement, rig.now)
}

fn feedback(rig: &Rig) -> Vec<(String, FeedbackStatus)> {
    let records = rig.hub.feedback(1).into_iter();
    records
        .map(|r| (r.original_message_id.unwrap(), r.status))
        .collect()
}

#[track_caller]
fn assert_code<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) {
    assert_eq!(result.unwrap_err().code, code);
}

#[test]
fn a_received_message_is_locked_and_the_next_one_comes() {
    let mut rig = Rig::new();
    assert!(receive(&mut rig).is_none());
    send(&mut rig, "a");
    send(&mut rig, "b");
    let first = receive(&mut rig).unwrap();
    assert_eq!((first.sequence, first.delivery_count), (1, 0));
    assert_eq!(first.enqueued_at, rig.now.utc);
    assert_eq!(first.lock.len(), 36);
    assert_eq!(payload(receive(&mut rig)), Some("b".into()));
    assert!(receive(&mut rig).is_none());
    settle(&mut rig, &first.lock, Settlement::Complete).unwrap();
    assert_eq!(feedback(&rig), [("a".into(), FeedbackStatus::Success)]);
    assert_eq!(rig.hub.device(&dev1()).unwrap().cloud_messages, 1);
    assert_code(
        settle(&mut rig, &first.lock, Settlement::Complete),
        ErrorCode::DeviceMessageLockLost,
    );
}

#[test]
fn a_rejected_message_is_a_dead_letter() {
    let mut rig = Rig::new();
    send(&mut rig, "a");
    let lock = receive(&mut rig).unwrap().lock;
    settle(&mut rig, &lock, Settlement::Reject).unwrap();
    assert_eq!(feedback(&rig), [("a".into(), FeedbackStatus::Rejected)]);
    assert!(receive(&mut rig).is_none());
}

#[test]
fn the_tenth_abandon_makes_a_dead_letter() {
    let mut rig = Rig::new();
    send(&mut rig, "a");
    send(&mut rig, "b");
    for count in 0..10 {
        let first = receive(&mut rig).unwrap();
        assert_eq!((first.sequence, first.delivery_count), (1, count));
        assert_eq!(feedback(&rig), []);
        settle(&mut rig, &first.lock, Settlement::Abandon).unwrap();
    }
    assert_eq!(
        feedback(&rig),
        [("a".into(), FeedbackStatus::DeliveryCountExceeded)]
    );
    assert_eq!(payload(receive(&mut rig)), Some("b".into()));
}

#[test]
fn a_lock_ends_and_that_does_not_count() {
    let mut rig = Rig::new();
    send(&mut rig, "a");
    let lock = receive(&mut rig).unwrap().lock;
    rig.wait(Duration::from_millis(59_999));
    assert!(receive(&mut rig).is_none());
    rig.wait(Duration::from_millis(1));
    assert_code(
        settle(&mut rig, &lock, Settlement::Complete),
        ErrorCode::DeviceMessageLockLost,
    );
    let again = receive(&mut rig).unwrap();
    assert_eq!(again.delivery_count, 0);
    assert_ne!(again.lock, lock);
}

#[test]
fn a_lock_lasts_1_to_300_seconds() {
    let mut rig = Rig::new();
    let caller = caller(&mut rig);
    for (seconds, is_allowed) in [(0, false), (1, true), (300, true), (301, false)] {
        let lock = Duration::from_secs(seconds);
        let received = rig.hub.receive_message(&caller, lock, rig.now);
        assert_eq!(received.is_ok(), is_allowed, "{seconds}");
    }
}

#[test]
fn a_locked_message_does_not_expire_until_the_lock_ends() {
    let mut rig = Rig::new();
    send(&mut rig, "a");
    rig.wait(Duration::from_secs(3590));
    let lock = receive(&mut rig).unwrap().lock;
    rig.wait(Duration::from_secs(59));
    assert_eq!(feedback(&rig), []);
    settle(&mut rig, &lock, Settlement::Abandon).unwrap();
    assert_eq!(feedback(&rig), [("a".into(), FeedbackStatus::Expired)]);

    send(&mut rig, "b");
    rig.wait(Duration::from_secs(3590));
    receive(&mut rig).unwrap();
    rig.wait(Duration::from_secs(60));
    assert_eq!(feedback(&rig)[1], ("b".into(), FeedbackStatus::Expired));
    assert_eq!(rig.hub.poll_timeout(), None);
}

#[test]
fn https_and_mqtt_share_the_queue() {
    let mut rig = Rig::new();
    send(&mut rig, "a");
    send(&mut rig, "b");
    let locked = receive(&mut rig).unwrap();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    rig.hub.handle_closed(id, rig.now);
    let (id, got) = rig.connect();
    let b = got[1].message();
    assert_eq!((got.len(), b.payload.as_str(), b.dup), (2, "b", true));
    assert!(receive(&mut rig).is_none(), "a is locked, b is in flight");

    settle(&mut rig, &locked.lock, Settlement::Abandon).unwrap();
    let got = rig.got(id);
    let a = got[0].message();
    assert_eq!((got.len(), a.payload.as_str(), a.dup), (1, "a", false));
    assert!(receive(&mut rig).is_none(), "both are in flight");

    rig.hub.handle_closed(id, rig.now);
    let locked = receive(&mut rig).unwrap();
    assert_eq!((locked.sequence, locked.delivery_count), (1, 1));
    let (id, got) = rig.connect();
    assert_eq!(got[1].message().payload, "b");
    rig.wait(Duration::from_secs(60));
    let again = rig.got(id);
    assert_eq!(again[0].message().payload, "a", "its lock has ended");
    assert!(again[0].message().dup, "it was sent before");
}

#[test]
fn purge_takes_what_is_locked_too() {
    let mut rig = Rig::new();
    send(&mut rig, "a");
    let lock = receive(&mut rig).unwrap().lock;
    assert_eq!(rig.hub.purge_messages(&dev1(), rig.now), Ok(1));
    assert_code(
        settle(&mut rig, &lock, Settlement::Complete),
        ErrorCode::DeviceMessageLockLost,
    );
}

#[test]
fn telemetry_over_https_is_stamped_and_makes_nobody_connected() {
    let mut rig = Rig::new();
    let policy = rig.hub.policies()[2].primary.clone();
    let all = policy.sign(&format!("{HUB}/devices"), Some("device"), expiry());
    let caller = authorize(&mut rig, "dev1", &all).unwrap();
    let messages = vec![Telemetry::default(), Telemetry::default()];
    rig.hub.take_telemetry(&caller, messages, rig.now).unwrap();
    let records = rig.hub.telemetry(1, 9).records;
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].scope, AuthScope::Hub);
    let info = rig.hub.device(&dev1()).unwrap();
    assert_eq!(
        (info.is_connected, info.last_activity_at),
        (false, Some(rig.now.utc))
    );
}

#[test]
fn a_batch_is_taken_as_a_whole_or_not_at_all() {
    let mut rig = Rig::new();
    let caller = caller(&mut rig);
    let of_size = |size: usize| Telemetry {
        payload: vec![0; size].into(),
        ..Telemetry::default()
    };
    let batch = vec![of_size(1), of_size(256 * 1024 + 1)];
    assert_code(
        rig.hub.take_telemetry(&caller, batch, rig.now),
        ErrorCode::MessageTooLarge,
    );
    assert_eq!(rig.hub.telemetry_next(), 1);
    let largest = vec![of_size(256 * 1024)];
    rig.hub.take_telemetry(&caller, largest, rig.now).unwrap();
}

#[test]
fn one_and_the_same_refusal() {
    let mut rig = Rig::new();
    let sign = |resource: &str, policy| key().sign(resource, policy, expiry());
    let past = Timestamp::from_unix_seconds(1_735_689_600 - 300);
    let other = Key::from_bytes(vec![1; 32]).unwrap();
    let mut refusals = vec![
        authorize(&mut rig, "dev1", &other.sign(&resource(), None, expiry())),
        authorize(&mut rig, "dev1", &sign(&format!("{HUB}/devices/dev"), None)),
        authorize(&mut rig, "dev1", &sign("other.example/devices/dev1", None)),
        authorize(&mut rig, "dev1", &key().sign(&resource(), None, past)),
        authorize(&mut rig, "dev1", &sign(&resource(), Some("nobody"))),
        authorize(&mut rig, "dev1", "Bearer x"),
        authorize(&mut rig, "dev1", ""),
        authorize(
            &mut rig,
            "dev2",
            &sign(&format!("{HUB}/devices/dev2"), None),
        ),
        authorize(&mut rig, "dev1/mod1", &sign(&resource(), None)),
    ];
    assert!(authorize(&mut rig, "dev1", &sign("localhost/devices/dev1", None)).is_ok());
    let spec = DeviceSpec {
        status: DeviceStatus::Disabled,
        authentication: Some(rig.hub.device(&dev1()).unwrap().authentication),
        ..DeviceSpec::default()
    };
    rig.hub
        .update_device(&dev1(), spec, &IfMatch::Any, rig.now)
        .unwrap();
    refusals.push(authorize(&mut rig, "dev1", &sign(&resource(), None)));
    for (index, refusal) in refusals.into_iter().enumerate() {
        let error = refusal.unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::IotHubUnauthorizedAccess, "Unauthorized"),
            "{index}"
        );
    }
}

#[test]
fn a_module_sends_and_has_no_messages() {
    let mut rig = Rig::new();
    let module = "mod1".parse().unwrap();
    rig.hub
        .create_module(&dev1(), &module, ModuleSpec::default(), rig.now)
        .unwrap();
    let token = key().sign(&resource(), None, expiry());
    let caller = authorize(&mut rig, "dev1/mod1", &token).unwrap();
    let messages = vec![Telemetry::default()];
    rig.hub.take_telemetry(&caller, messages, rig.now).unwrap();
    assert_eq!(rig.hub.telemetry(1, 1).records[0].module_id, Some(module));
    let minute = Duration::from_secs(60);
    assert_code(
        rig.hub.receive_message(&caller, minute, rig.now),
        ErrorCode::InvalidOperation,
    );
}
