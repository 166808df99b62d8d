//! What happens when a device registers again ("IoT Hub Device reprovisioning concepts").

use super::*;
use crate::provisioning::service::{Allocation, Departure, Policy, Reprovision};

#[test]
fn a_device_stays_where_it_is_chosen_to_be() {
    let mut rig = Rig::new();
    let (first, _) = rig.provision("reg-1", Ok(()));
    rig.advance(Duration::from_secs(5));
    let (second, assignment) = rig.provision("reg-1", Ok(()));
    let (first, second) = (&first["registrationState"], &second["registrationState"]);
    assert_eq!(assignment.unwrap().departure, None);
    assert_eq!(first["assignedHub"], second["assignedHub"]);
    assert_eq!(second["substatus"], "reprovisionedToInitialAssignment");
    assert_eq!(first["createdDateTimeUtc"], second["createdDateTimeUtc"]);
    assert_ne!(
        first["lastUpdatedDateTimeUtc"],
        second["lastUpdatedDateTimeUtc"]
    );
    assert_ne!(first["etag"], second["etag"]);
}

#[test]
fn a_device_moves_with_its_twin_without_it_or_not_at_all() {
    for (reprovision, hub, substatus, takes_twin) in [
        (
            Reprovision::Migrate,
            "b.example",
            "deviceDataMigrated",
            Some(true),
        ),
        (
            Reprovision::Reset,
            "b.example",
            "deviceDataReset",
            Some(false),
        ),
        (
            Reprovision::Never,
            "a.example",
            "reprovisionedToInitialAssignment",
            None,
        ),
    ] {
        let mut rig = Rig::new();
        let to = |rig: &mut Rig, hub: &str| {
            let hub = hub.parse().unwrap();
            rig.enroll("reg-1", |individual| {
                individual.terms.reprovision = reprovision;
                individual.terms.allocation = Allocation {
                    policy: Policy::Static,
                    hubs: vec![hub],
                };
            });
        };
        to(&mut rig, "a.example");
        let (body, _) = rig.provision("reg-1", Ok(()));
        assert_eq!(body["registrationState"]["assignedHub"], "a.example");
        to(&mut rig, "b.example");
        let (body, assignment) = rig.provision("reg-1", Ok(()));
        let state = &body["registrationState"];
        assert_eq!(state["assignedHub"], hub);
        assert_eq!(state["substatus"], substatus);
        let departure = takes_twin.map(|takes_twin| Departure {
            hub: "a.example".parse().unwrap(),
            device: "reg-1".parse().unwrap(),
            takes_twin,
        });
        assert_eq!(assignment.unwrap().departure, departure);
    }
}

#[test]
fn a_device_that_is_renamed_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let (body, _) = rig.provision("reg-1", Ok(()));
    rig.enroll("reg-1", |individual| {
        individual.device_id = "pump-7".parse().ok()
    });
    let (_, assignment) = rig.provision("reg-1", Ok(()));
    let assignment = assignment.unwrap();
    let departure = assignment.departure.unwrap();
    assert_eq!(assignment.device.as_str(), "pump-7");
    assert_eq!(departure.device.as_str(), "reg-1");
    assert_eq!(
        body["registrationState"]["assignedHub"],
        departure.hub.as_str()
    );
}

#[test]
fn a_move_that_fails_is_tried_again_from_the_same_place() {
    let mut rig = Rig::new();
    let to = |rig: &mut Rig, hub: &str| {
        let hub = hub.parse().unwrap();
        rig.enroll("reg-1", |individual| {
            individual.terms.allocation.hubs = vec![hub]
        });
    };
    to(&mut rig, "a.example");
    rig.provision("reg-1", Ok(()));
    to(&mut rig, "b.example");
    let refused = hub::Error {
        code: iothub::ErrorCode::ServerError,
        message: String::new(),
    };
    let (body, _) = rig.provision("reg-1", Err(refused));
    assert_eq!(body["status"], "failed");
    let (body, assignment) = rig.provision("reg-1", Ok(()));
    assert_eq!(body["registrationState"]["substatus"], "deviceDataMigrated");
    assert_eq!(
        assignment.unwrap().departure.unwrap().hub.as_str(),
        "a.example"
    );
}
