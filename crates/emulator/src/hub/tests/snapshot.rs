use iothub::{AckRequest, CloudMessage};
use serde_json::json;

use super::*;

/// A hub that has just begun, and knows what `old` remembers.
fn reborn(old: &Rig) -> Rig {
    let random = Random::seeded(8);
    let config = Config::new(HUB.parse().unwrap(), old.hub.policies().to_vec());
    let mut hub = Hub::new(config, random);
    hub.recall(&old.hub.remembered(), old.now).unwrap();
    Rig { hub, now: old.now }
}

fn message(text: &'static str) -> CloudMessage {
    CloudMessage {
        payload: Bytes::from_static(text.as_bytes()),
        properties: vec![("name".to_owned(), "a value".to_owned())],
        ack: AckRequest::Full,
        ..CloudMessage::default()
    }
}

#[test]
fn identities_twins_sessions_and_queues_survive() {
    let mut old = Rig::new();
    old.hub
        .create_module(
            &dev1(),
            &"mod1".parse().unwrap(),
            ModuleSpec::default(),
            old.now,
        )
        .unwrap();
    let id = old.subscribed(&[
        (MESSAGES, 1),
        (TWIN_ANSWERS, 0),
        ("$iothub/methods/POST/reboot/#", 1),
    ]);
    let change = TwinChange::Merge {
        tags: Some(object(json!({"floor": 3}))),
        desired: Some(object(json!({"period": {"s": 1.5}}))),
    };
    old.hub
        .update_twin(&whom("dev1"), change, None, old.now)
        .unwrap();
    let report = publish(
        "$iothub/twin/PATCH/properties/reported/?$rid=1",
        br#"{"state":"on"}"#,
        None,
    );
    old.send(id, &report);
    old.hub
        .send_message(&dev1(), message("in flight"), old.now)
        .unwrap();
    let got = old.got(id);
    assert_eq!(got.len(), 1, "{got:?}");
    let twin = old.hub.twin(&whom("dev1")).unwrap();

    let mut new = reborn(&old);
    let session = new.hub.session_info(&whom("dev1")).unwrap();
    assert!(!session.is_connected);
    assert_eq!(
        session.subscriptions,
        old.hub.session_info(&whom("dev1")).unwrap().subscriptions
    );
    let mut now = new.hub.twin(&whom("dev1")).unwrap();
    assert_eq!(now["connectionState"], "Disconnected");
    for moved in ["connectionState", "lastActivityTime"] {
        now[moved] = twin[moved].clone();
    }
    assert_eq!(now, twin);
    assert_eq!(new.hub.modules(&dev1()).unwrap().len(), 1);

    // The key of old opens the new hub, the session is there, and what was in flight comes again with its id and DUP.
    let (id, got) = new.connect();
    assert_eq!(got[0], Got::accepted(true));
    let message = got[1].message();
    assert_eq!((message.payload.as_str(), message.dup), ("in flight", true));
    assert!(message.topic.contains("name=a%20value"), "{message:?}");
    new.send(id, &puback(message.packet_id.unwrap()));
    let feedback = new.hub.feedback(1);
    assert_eq!(feedback[0].status, FeedbackStatus::Success);
}

#[test]
fn a_message_that_expired_meanwhile_is_a_dead_letter() {
    let mut old = Rig::new();
    old.hub
        .send_message(&dev1(), message("late"), old.now)
        .unwrap();
    let mut new = reborn(&old);
    new.wait(Duration::from_secs(3600));
    assert_eq!(new.hub.feedback(1)[0].status, FeedbackStatus::Expired);
}

#[test]
fn a_session_with_clean_session_1_ends_with_its_connection() {
    let mut old = Rig::new();
    let hello = Hello {
        is_clean: true,
        ..Hello::dev1()
    };
    let (id, _) = old.say(&hello);
    old.send(id, &subscribe(1, &[(MESSAGES, 1)]));
    let mut new = reborn(&old);
    assert_eq!(new.connect().1, [Got::accepted(false)]);
}

#[test]
fn what_is_remembered_moves_the_revision() {
    let mut rig = Rig::new();
    let mut last = rig.hub.revision();
    let mut moved = |hub: &Hub| std::mem::replace(&mut last, hub.revision()) != hub.revision();
    rig.add_device("dev2");
    assert!(moved(&rig.hub));
    rig.hub
        .send_message(&dev1(), message("x"), rig.now)
        .unwrap();
    assert!(moved(&rig.hub));
    let tags = Some(object(json!({"a": 1})));
    let change = TwinChange::Merge {
        tags,
        desired: None,
    };
    rig.hub
        .update_twin(&whom("dev1"), change, None, rig.now)
        .unwrap();
    assert!(moved(&rig.hub));
    rig.hub
        .delete_device(&"dev2".parse().unwrap(), &IfMatch::Any, rig.now)
        .unwrap();
    assert!(moved(&rig.hub));
    rig.hub.authorities_mut();
    assert!(moved(&rig.hub));
    let _ = rig.hub.devices(10);
    assert!(!moved(&rig.hub));
}

/// Written by version 1 and kept, so that no later program forgets how to read it.
#[test]
fn the_form_of_version_1_is_read() {
    let mut rig = Rig::new();
    let golden = include_bytes!("snapshot/version_1.json");
    assert_eq!(Hub::VERSION, 1);
    rig.hub.recall(golden, rig.now).unwrap();
    let device = rig.hub.device(&"watch-1".parse().unwrap()).unwrap();
    assert_eq!(device.cloud_messages, 1);
    assert_eq!(device.status, DeviceStatus::Disabled);
    let twin = rig.hub.twin(&whom("watch-1")).unwrap();
    assert_eq!(twin["tags"], json!({"floor": 3}));
    assert_eq!(twin["properties"]["desired"]["$version"], 4);
    let session = rig.hub.session_info(&whom("watch-1")).unwrap();
    assert_eq!(session.connections, 5);
    assert_eq!(session.subscriptions.len(), 2);
    let read: Value = serde_json::from_slice(golden).unwrap();
    let written: Value = serde_json::from_slice(&rig.hub.remembered()).unwrap();
    assert_eq!(written, read, "nothing is lost on the way through");
}
