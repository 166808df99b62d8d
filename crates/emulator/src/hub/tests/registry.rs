use iothub::ErrorCode;

use super::*;

#[track_caller]
fn assert_code<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) {
    assert_eq!(result.unwrap_err().code, code);
}

#[test]
fn create_is_create_only_and_mints_keys() {
    let mut rig = Rig::new();
    let dev2 = "dev2".parse().unwrap();
    let info = rig
        .hub
        .create_device(&dev2, DeviceSpec::default(), rig.now)
        .unwrap();
    let keys = info.authentication.keys().unwrap();
    assert_ne!(keys.primary.to_base64(), keys.secondary.to_base64());
    assert_eq!(info.generation_id.len(), 18);
    let again = rig.hub.create_device(&dev2, DeviceSpec::default(), rig.now);
    assert_code(again, ErrorCode::DeviceAlreadyExists);
}

#[test]
fn update_is_update_only_and_mints_keys_that_are_left_out() {
    let mut rig = Rig::new();
    let before = rig.hub.device(&dev1()).unwrap();
    let update = |rig: &mut Rig, id: &DeviceId, etag: &str| {
        rig.hub
            .update_device(id, DeviceSpec::default(), &IfMatch::parse(etag), rig.now)
    };
    let after = update(&mut rig, &dev1(), &before.etag).unwrap();
    assert_ne!(after.etag, before.etag);
    assert_ne!(
        primary(&after.authentication).to_base64(),
        primary(&before.authentication).to_base64()
    );
    assert_eq!(after.generation_id, before.generation_id);
    assert_code(
        update(&mut rig, &dev1(), &before.etag),
        ErrorCode::PreconditionFailed,
    );
    assert_code(
        update(&mut rig, &"no".parse().unwrap(), "*"),
        ErrorCode::DeviceNotFound,
    );
}

#[test]
fn delete_takes_twin_queue_session_and_connection() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    let wrong = IfMatch::parse("x");
    assert_code(
        rig.hub.delete_device(&dev1(), &wrong, rig.now),
        ErrorCode::PreconditionFailed,
    );
    rig.hub
        .delete_device(&dev1(), &IfMatch::Any, rig.now)
        .unwrap();
    assert_eq!(rig.got(id), [Got::Closed(CloseReason::IdentityDeleted)]);
    assert_code(rig.hub.twin(&whom("dev1")), ErrorCode::DeviceNotFound);
    rig.add_device("dev1");
    assert_eq!(rig.connect().1, [Got::accepted(false)]);
}

#[test]
fn connection_state_and_activity_are_seen() {
    let mut rig = Rig::new();
    let info = rig.hub.device(&dev1()).unwrap();
    assert_eq!((info.is_connected, info.last_activity_at), (false, None));
    let (id, _) = rig.connect();
    rig.wait(Duration::from_secs(5));
    rig.send(id, &publish(EVENTS, b"", None));
    let info = rig.hub.device(&dev1()).unwrap();
    assert_eq!(
        (info.is_connected, info.last_activity_at),
        (true, Some(rig.now.utc))
    );
    rig.wait(Duration::from_secs(5));
    rig.hub.handle_closed(id, rig.now);
    let info = rig.hub.device(&dev1()).unwrap();
    assert_eq!(
        (info.is_connected, info.connection_updated_at),
        (false, Some(rig.now.utc))
    );
    let numbers = rig.hub.statistics();
    assert_eq!(
        (numbers.enabled, numbers.disabled, numbers.connected),
        (1, 0, 0)
    );
}

#[test]
fn the_list_has_a_top() {
    let mut rig = Rig::new();
    for id in ["b", "a", "c"] {
        rig.add_device(id);
    }
    let ids: Vec<_> = rig
        .hub
        .devices(3)
        .into_iter()
        .map(|d| d.device_id.to_string())
        .collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[test]
fn service_tokens_have_the_rights_of_their_policy() {
    let rig = Rig::new();
    let token = |name: &str, resource: &str| {
        let policy = rig.hub.policies().iter().find(|p| p.name == name).unwrap();
        policy.secondary.sign(resource, Some(name), expiry())
    };
    let may = |token: &str, right| {
        let hosts = ["localhost".to_owned()];
        rig.hub
            .authorize_service(token, right, &hosts, rig.now)
            .is_ok()
    };
    use Right::{RegistryRead, RegistryWrite, ServiceConnect};
    for (name, rights) in [
        ("iothubowner", [true, true, true]),
        ("service", [false, false, true]),
        ("registryRead", [true, false, false]),
        ("registryReadWrite", [true, true, false]),
        ("device", [false, false, false]),
    ] {
        for (right, is_granted) in [RegistryRead, RegistryWrite, ServiceConnect]
            .into_iter()
            .zip(rights)
        {
            assert_eq!(
                may(&token(name, HUB), right),
                is_granted,
                "{name} {right:?}"
            );
        }
    }
    assert!(may(&token("service", "localhost"), ServiceConnect));
    assert!(!may(&token("service", "elsewhere.example"), ServiceConnect));
    assert!(!may("Bearer x", ServiceConnect));
    assert!(!may(
        &key().sign(HUB, Some("service"), expiry()),
        ServiceConnect
    ));
    assert!(!may(&key().sign(HUB, None, expiry()), ServiceConnect));
}

#[test]
fn the_log_says_why_a_service_is_refused() {
    let rig = Rig::new();
    let policy = |name: &str| rig.hub.policies().iter().find(|p| p.name == name).unwrap();
    let sign = |resource: &str, name, end| policy("service").primary.sign(resource, name, end);
    let past = Timestamp::from_unix_seconds(1_735_689_600 - 300);
    for (token, why) in [
        ("Bearer x".to_owned(), "no shared access signature"),
        (sign(HUB, Some("service"), past), "has expired"),
        (sign("elsewhere", Some("service"), expiry()), "another hub"),
        (sign(HUB, None, expiry()), "no shared access policy"),
        (
            sign(HUB, Some("nobody"), expiry()),
            "no shared access policy",
        ),
        (key().sign(HUB, Some("service"), expiry()), "another key"),
        (sign(HUB, Some("service"), expiry()), "grant RegistryWrite"),
    ] {
        let denied = rig
            .hub
            .judge_service(&token, Right::RegistryWrite, &[], rig.now);
        let denied = denied.unwrap_err().to_string();
        assert!(denied.contains(why), "{why}: {denied}");
    }
}
