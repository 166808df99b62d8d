//! Direct methods live and die with the connection that they came on.

use bytes::Bytes;
use iothub::MethodResponse;
use tombolo_session::{Event, LossReason, MethodRequestId, NotTaken, Subscriptions, WorkId};

use crate::{
    packets::{self, Sent},
    rig::{EVERYTHING, NOTHING, Rig, credentials, seconds},
};

fn call(rig: &mut Rig, rid: &str) {
    let topic = format!("$iothub/methods/POST/reboot/?$rid={rid}");
    rig.hub(&packets::publish(None, &topic, br#"{"delay":5}"#));
}

fn requested(rig: &mut Rig, rid: &str) -> MethodRequestId {
    call(rig, rid);
    match rig.event() {
        Event::MethodRequested { id, request } => {
            assert_eq!(request.name.as_str(), "reboot");
            assert_eq!(&request.payload[..], br#"{"delay":5}"#);
            id
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_is_delivered_when_the_hub_acknowledges_it() {
    let mut rig = Rig::online(EVERYTHING);
    let request = requested(&mut rig, "1f");
    let answer = rig.answer(&request);
    let sent = rig.published();
    assert_eq!(sent[0].topic, "$iothub/methods/res/200/?$rid=1f");
    rig.hub(&packets::puback(sent[0].id.unwrap()));
    assert!(matches!(rig.event(), Event::Delivered(id) if id == answer));
}

#[test]
fn an_answer_in_flight_dies_with_its_connection() {
    let mut rig = Rig::online(EVERYTHING);
    let request = requested(&mut rig, "1");
    let answer = rig.answer(&request);
    rig.sent();
    let events = rig.reconnect(true);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Gone(id) if *id == answer))
    );
    let others = rig.acknowledge_all();
    assert!(
        others.is_empty(),
        "never sent on another connection: {others:?}"
    );
}

#[test]
fn an_answer_to_a_request_of_an_old_connection_is_gone() {
    let mut rig = Rig::online(EVERYTHING);
    let request = requested(&mut rig, "1");
    rig.reconnect(true);
    rig.acknowledge_all();
    rig.events();
    let answer = rig.answer(&request);
    assert!(matches!(rig.event(), Event::Gone(id) if id == answer));
    assert_eq!(rig.sent(), []);

    rig.session
        .handle_disconnected(LossReason::ClosedByHub, rig.now);
    rig.events();
    let answer = rig.answer(&request);
    assert!(matches!(rig.event(), Event::Gone(id) if id == answer));
}

#[test]
fn a_method_that_nobody_can_answer_is_answered_at_once() {
    let mut rig = Rig::online(NOTHING);
    call(&mut rig, "a");
    let sent = rig.published();
    assert_eq!(sent[0].topic, "$iothub/methods/res/503/?$rid=a");
    assert_eq!(sent[0].payload, br#"{"code":"device_asleep"}"#);
    assert_eq!(sent[0].id, None, "nobody waits for an acknowledgement");
    assert!(rig.events().is_empty());
}

#[test]
fn a_method_that_crosses_with_the_end_of_presence_is_answered_at_once() {
    let mut rig = Rig::online(EVERYTHING);
    let asleep = Subscriptions {
        methods: false,
        ..EVERYTHING
    };
    rig.session.set_wanted(asleep, rig.now);
    assert!(matches!(rig.sent()[..], [Sent::Unsubscribe { .. }]));
    call(&mut rig, "b");
    assert_eq!(rig.published()[0].topic, "$iothub/methods/res/503/?$rid=b");
}

#[test]
fn a_method_that_arrives_before_any_subscribe_is_offered_if_it_is_wanted() {
    let mut rig = Rig::new();
    rig.session.set_wanted(EVERYTHING, rig.now);
    rig.session.open(rig.now);
    rig.session.handle_connected(credentials(), rig.now);
    rig.hub(&packets::connack(0, true));
    rig.events();
    requested(&mut rig, "1");
}

#[test]
fn answers_have_a_window_of_their_own_and_a_limit() {
    let mut rig = Rig::online(EVERYTHING);
    let request = requested(&mut rig, "1");
    for _ in 0..16 {
        rig.publish("fills the other window");
    }
    for _ in 0..16 {
        rig.answer(&request);
    }
    let response = |size| MethodResponse {
        status: 200,
        payload: Bytes::from(vec![b' '; size]),
    };
    let answer = rig
        .session
        .answer(WorkId(99), &request, &response(0), rig.now);
    assert_eq!(answer, Err(NotTaken::NoRoom));
    let mut rig = Rig::online(EVERYTHING);
    let request = requested(&mut rig, "1");
    let answer = rig
        .session
        .answer(WorkId(99), &request, &response(131_073), rig.now);
    assert!(matches!(answer, Err(NotTaken::TooLarge { .. })));
}

#[test]
fn a_cancelled_answer_makes_no_event() {
    let mut rig = Rig::online(EVERYTHING);
    let request = requested(&mut rig, "1");
    let answer = rig.answer(&request);
    let packet = rig.published()[0].id.unwrap();
    rig.session.cancel(answer, rig.now);
    rig.hub(&packets::puback(packet));
    rig.wait(seconds(1));
    assert!(
        !rig.events()
            .iter()
            .any(|event| matches!(event, Event::Delivered(_)))
    );
}
