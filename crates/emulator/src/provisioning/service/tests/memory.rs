use iothub::ErrorCode;

use super::*;
use crate::provisioning::service::{
    Allocation, Certificate, Certificates, InitialTwin, Policy, Reprovision,
};

/// A service that has just begun, and knows what `old` remembers.
fn reborn(old: &Rig) -> Rig {
    let mut new = Rig::new();
    new.now = old.now;
    new.service.recall(&old.service.remembered()).unwrap();
    new
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    let Value::Object(object) = value else {
        panic!("no object: {value}")
    };
    object
}

/// Everything that can be said in an enrollment, and every end of a registration.
fn all_there_is() -> Rig {
    let mut rig = Rig::new();
    let certificate = Certificate::from_text(include_str!("memory/device.pem")).unwrap();
    rig.enroll("Reg-2", |individual| {
        individual.device_id = Some("pump-2".parse().unwrap());
        individual.information = Some(object(json!({"floor": 3})));
        individual.terms = Terms {
            attestation: Attestation::X509(Certificates {
                primary: certificate,
                secondary: None,
            }),
            is_enabled: true,
            allocation: Allocation {
                policy: Policy::Static,
                hubs: vec!["b.example".parse().unwrap()],
            },
            reprovision: Reprovision::Never,
            twin: InitialTwin {
                tags: object(json!({"site": "x"})),
                desired: object(json!({"period": {"s": 1.5}})),
            },
        };
    });
    let group = Group {
        terms: Terms::new(Attestation::CaReferences {
            primary: "root".to_owned(),
            secondary: None,
        }),
    };
    rig.service
        .enroll_group(&"group-2".parse().unwrap(), group, rig.now)
        .unwrap();
    rig.enroll("reg-3", |_| {});
    rig.enroll("reg-4", |individual| individual.terms.is_enabled = false);
    rig.provision("reg-1", Ok(()));
    let refusal = hub::Error {
        code: ErrorCode::ServerError,
        message: "The hub is full.".to_owned(),
    };
    rig.provision("reg-3", Err(refusal));
    rig.provision("reg-4", Ok(()));
    rig
}

#[test]
fn enrollments_and_registrations_survive() {
    let old = all_there_is();
    let mut new = reborn(&old);
    for id in ["reg-1", "reg-3", "reg-4"] {
        assert_eq!(
            new.service.registration(&reg(id)).unwrap(),
            old.service.registration(&reg(id)).unwrap()
        );
    }
    for id in ["reg-1", "reg-2", "reg-3", "reg-4"] {
        let (new, old) = (&new.service, &old.service);
        assert_eq!(
            new.read::<Individual>(&reg(id)).unwrap(),
            old.read::<Individual>(&reg(id)).unwrap()
        );
        assert_eq!(
            new.mechanism::<Individual>(&reg(id)).unwrap(),
            old.mechanism::<Individual>(&reg(id)).unwrap()
        );
    }
    // The device's key opens, and it is known where it was.
    let (body, assignment) = new.provision("reg-1", Ok(()));
    let substatus = &body["registrationState"]["substatus"];
    assert_eq!(substatus, "reprovisionedToInitialAssignment");
    assert_eq!(assignment.unwrap().departure, None);
}

#[test]
fn an_id_keeps_its_spelling() {
    let new = reborn(&all_there_is());
    let read = new.service.read::<Individual>(&reg("reg-2")).unwrap();
    assert_eq!(read["registrationId"], "Reg-2");
}

#[test]
fn who_was_on_the_way_registers_again() {
    let mut old = Rig::new();
    let reply = old.register("reg-1", b"").unwrap();
    assert_eq!(reply.body["status"], "assigning");
    let mut new = reborn(&old);
    let reply = new.status("reg-1", reply.operation.as_str()).unwrap();
    assert_eq!(reply.body["status"], "failed");
    assert_eq!(reply.body["registrationState"]["errorCode"], 500_000);
    let (body, _) = new.provision("reg-1", Ok(()));
    assert_eq!(body["status"], "assigned");
}

#[test]
fn a_hub_that_is_not_linked_any_more_is_no_reason_to_forget() {
    let old = all_there_is();
    let mut new = Rig::with(|config| config.hubs = vec!["a.example".parse().unwrap()]);
    new.service.recall(&old.service.remembered()).unwrap();
    let read = new.service.read::<Individual>(&reg("reg-2")).unwrap();
    assert_eq!(read["iotHubs"], json!(["b.example"]));
}

#[test]
fn what_is_remembered_moves_the_revision() {
    let mut rig = Rig::new();
    let mut last = rig.service.revision();
    let mut moved =
        |rig: &Rig| std::mem::replace(&mut last, rig.service.revision()) != rig.service.revision();
    rig.enroll("reg-2", |_| {});
    assert!(moved(&rig), "an enrollment");
    let reply = rig.register("reg-1", b"").unwrap();
    assert!(moved(&rig), "a register");
    let assignment = rig.assignment().unwrap();
    rig.service.handle_assigned(&assignment, Ok(()), rig.now);
    assert!(moved(&rig), "its end");
    rig.status("reg-1", reply.operation.as_str()).unwrap();
    rig.service.read::<Individual>(&reg("reg-1")).unwrap();
    assert!(!moved(&rig), "a question");
    rig.service
        .delete_registration(&reg("reg-1"), None)
        .unwrap();
    assert!(moved(&rig), "a registration that goes");
    rig.service
        .remove::<Individual>(&reg("reg-2"), None)
        .unwrap();
    assert!(moved(&rig), "an enrollment that goes");
}

#[test]
fn what_was_not_written_here_changes_nothing() {
    let mut rig = all_there_is();
    let before = rig.service.remembered();
    for wrong in [
        &b"{}"[..],
        b"{\"individuals\":{},\"groups\":{},\"registrations\":{},\"more\":1}",
        b"{\"individuals\":{\"a/b\":{}},\"groups\":{},\"registrations\":{}}",
    ] {
        assert!(rig.service.recall(wrong).is_err());
        assert_eq!(rig.service.remembered(), before);
    }
}

/// Written by version 1 and kept, so that no later program forgets how to read it.
#[test]
fn the_form_of_version_1_is_read() {
    assert_eq!(Service::VERSION, 1);
    let golden = include_bytes!("memory/version_1.json");
    let mut rig = Rig::new();
    rig.service.recall(golden).unwrap();
    let document = rig.service.read::<Individual>(&reg("reg-2")).unwrap();
    assert_eq!(document["deviceId"], "pump-2");
    assert_eq!(document["allocationPolicy"], "static");
    let state = rig.service.registration(&reg("reg-1")).unwrap();
    assert_eq!(state["status"], "assigned");
    let read: Value = serde_json::from_slice(golden).unwrap();
    let written: Value = serde_json::from_slice(&rig.service.remembered()).unwrap();
    assert_eq!(written, read, "nothing is lost on the way through");
}
