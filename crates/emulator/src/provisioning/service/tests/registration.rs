//! What a register leads to, and its bounds.

use iothub::ErrorCode;

use super::*;
use crate::provisioning::service::{Code, Limits};

#[test]
fn a_body_may_leave_out_what_the_connection_says() {
    for body in [
        "",
        " ",
        "{}",
        r#"{"payload":{"x":1}}"#,
        r#"{"registrationId":"REG-1","tpm":null}"#,
    ] {
        let mut rig = Rig::new();
        assert_eq!(
            rig.register("reg-1", body.as_bytes()).unwrap().status,
            202,
            "{body}"
        );
    }
    for body in [
        "[",
        "[]",
        r#"{"registrationId":"reg-2"}"#,
        r#"{"tpm":{"endorsementKey":"x"}}"#,
        r#"{"csr":"x"}"#,
    ] {
        let mut rig = Rig::new();
        let refused = rig.register("reg-1", body.as_bytes()).unwrap_err();
        assert_eq!(refused.code, Code::BadFormat, "{body}");
        assert!(rig.assignment().is_none());
    }
}

#[test]
fn a_body_has_96_kb_at_most() {
    for (size, is_taken) in [(98_303, true), (98_304, true), (98_305, false)] {
        let frame = r#"{"payload":""}"#;
        let body = frame.replace(r#""""#, &format!("\"{}\"", "x".repeat(size - frame.len())));
        assert_eq!(body.len(), size);
        let answer = Rig::new().register("reg-1", body.as_bytes());
        assert_eq!(
            answer.as_ref().err().map(|error| error.code.status()),
            (!is_taken).then_some(413)
        );
    }
}

#[test]
fn a_second_register_joins_the_first_while_it_lasts() {
    let mut rig = Rig::new();
    let first = rig.register("reg-1", b"").unwrap();
    let second = rig.register("reg-1", b"").unwrap();
    assert_eq!(first.operation, second.operation);
    assert!(rig.assignment().is_some());
    assert!(rig.assignment().is_none());
}

#[test]
fn an_enrollment_says_which_device_and_which_twin() {
    let mut rig = Rig::new();
    rig.enroll("reg-1", |individual| {
        individual.device_id = "pump-7".parse().ok();
        individual.terms.twin.tags = json!({ "site": "x" }).as_object().unwrap().clone();
        individual.terms.allocation.hubs = vec!["b.example".parse().unwrap()];
    });
    let (body, assignment) = rig.provision("reg-1", Ok(()));
    let assignment = assignment.unwrap();
    assert_eq!(assignment.device.as_str(), "pump-7");
    assert_eq!(assignment.hub.as_str(), "b.example");
    assert_eq!(assignment.twin.tags["site"], "x");
    assert_eq!(assignment.departure, None);
    assert_eq!(body["registrationState"]["deviceId"], "pump-7");
    assert_eq!(body["registrationState"]["assignedHub"], "b.example");
}

/// azure-iot-sdk-java PR 1640: the outcome of a disabled enrollment is reported after `assigning`.
#[test]
fn a_disabled_enrollment_assigns_nothing() {
    let mut rig = Rig::new();
    rig.enroll("reg-1", |individual| individual.terms.is_enabled = false);
    let (body, assignment) = rig.provision("reg-1", Ok(()));
    assert!(assignment.is_none());
    assert_eq!(body["status"], "disabled");
    assert_eq!(body["registrationState"]["status"], "disabled");
    assert_eq!(
        body["registrationState"]["errorMessage"],
        "The enrollment is disabled."
    );
    assert!(body["registrationState"].get("assignedHub").is_none());
}

#[test]
fn a_hub_that_refuses_fails_the_registration_until_the_next_one() {
    let mut rig = Rig::new();
    let full = hub::Error {
        code: ErrorCode::TooManyDevices,
        message: "The hub is full.".to_owned(),
    };
    let (body, _) = rig.provision("reg-1", Err(full));
    assert_eq!(body["status"], "failed");
    let state = &body["registrationState"];
    assert_eq!(state["errorCode"], 413_002);
    assert_eq!(state["errorMessage"], "TooManyDevices: The hub is full.");
    let (body, _) = rig.provision("reg-1", Ok(()));
    assert_eq!(body["registrationState"]["substatus"], "initialAssignment");
}

#[test]
fn without_a_hub_a_registration_fails() {
    let mut rig = Rig::with(|config| config.hubs.clear());
    let (body, assignment) = rig.provision("reg-1", Ok(()));
    assert!(assignment.is_none());
    assert_eq!(body["registrationState"]["errorCode"], 500_000);
}

#[test]
fn an_answer_of_a_hub_to_an_older_register_changes_nothing() {
    let mut rig = Rig::new();
    rig.register("reg-1", b"").unwrap();
    let older = rig.assignment().unwrap();
    rig.service
        .delete_registration(&reg("reg-1"), None)
        .unwrap();
    rig.service.handle_assigned(&older, Ok(()), rig.now);
    let newer = rig.register("reg-1", b"").unwrap();
    rig.service.handle_assigned(&older, Ok(()), rig.now);
    let status = rig.status("reg-1", newer.operation.as_str()).unwrap();
    assert_eq!(status.body["status"], "assigning");
}

#[test]
fn only_the_newest_operation_is_known() {
    let mut rig = Rig::new();
    let reply = rig.register("reg-1", b"").unwrap();
    assert_eq!(
        rig.status("reg-1", "5.0.0").unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(
        rig.status("reg-2", reply.operation.as_str())
            .unwrap_err()
            .code,
        Code::Unauthorized
    );
}

#[test]
fn a_registration_is_looked_up_by_its_device() {
    let mut rig = Rig::new();
    let look_up = |rig: &mut Rig| {
        let token = token("reg-1");
        rig.service
            .look_up(&reg("reg-1"), by_token(&token), b"{}", rig.now)
    };
    assert_eq!(look_up(&mut rig).unwrap_err().code, Code::NotFound);
    rig.provision("reg-1", Ok(()));
    assert_eq!(look_up(&mut rig).unwrap()["status"], "assigned");
}

#[test]
fn registrations_per_minute_are_bounded() {
    let mut rig = limited(|limits| limits.registrations_per_minute = 2);
    assert!(rig.register("reg-1", b"").is_ok());
    assert!(rig.register("reg-1", b"").is_ok());
    let refused = rig.register("reg-1", b"").unwrap_err();
    assert_eq!(
        (refused.code.number(), refused.retry_after_s),
        (429_000, Some(61))
    );
    rig.advance(Duration::from_secs(60));
    assert!(rig.register("reg-1", b"").is_ok());
}

#[test]
fn a_device_asks_five_times_in_ten_seconds() {
    let mut rig = Rig::new();
    let operation = rig.register("reg-1", b"").unwrap().operation;
    for _ in 0..5 {
        rig.status("reg-1", operation.as_str()).unwrap();
    }
    let refused = rig.status("reg-1", operation.as_str()).unwrap_err();
    assert_eq!(
        (refused.code, refused.retry_after_s),
        (Code::Throttled, Some(11))
    );
    rig.advance(Duration::from_secs(10));
    rig.status("reg-1", operation.as_str()).unwrap();
}

#[test]
fn other_calls_per_minute_are_bounded() {
    let mut rig = limited(|limits| limits.operations_per_minute = 1);
    let operation = rig.register("reg-1", b"").unwrap().operation;
    rig.status("reg-1", operation.as_str()).unwrap();
    assert_eq!(
        rig.service.count_operation(rig.now).unwrap_err().code,
        Code::Throttled
    );
}

#[test]
fn registrations_are_bounded_in_all() {
    let mut rig = limited(|limits| limits.registrations = 2);
    rig.enroll("reg-2", |_| {});
    let derived = |rig: &mut Rig, id: &str| {
        let token = group_key().derive(id).sign(
            &format!("{SCOPE}/registrations/{id}"),
            None,
            Timestamp::from_unix_seconds(EXPIRY),
        );
        rig.service
            .register(&reg(id), by_token(&token), b"", rig.now)
    };
    assert!(rig.register("reg-1", b"").is_ok());
    assert!(derived(&mut rig, "reg-8").is_ok());
    assert_eq!(
        derived(&mut rig, "reg-9").unwrap_err().code,
        Code::Throttled
    );
    assert!(derived(&mut rig, "reg-8").is_ok());
    let third = Individual::new(Terms::new(symmetric(key())));
    let refused = rig
        .service
        .enroll(&reg("reg-3"), third, rig.now)
        .unwrap_err();
    assert_eq!(refused.code, Code::Throttled);
}

fn limited(change: impl FnOnce(&mut Limits)) -> Rig {
    Rig::with(|config| change(&mut config.limits))
}
