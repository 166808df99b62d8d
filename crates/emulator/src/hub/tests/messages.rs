use iothub::{AckRequest, CloudMessage, ErrorCode, SystemProperties};

use super::*;

fn message(text: &str) -> CloudMessage {
    CloudMessage {
        payload: Bytes::copy_from_slice(text.as_bytes()),
        ..CloudMessage::default()
    }
}

fn with_feedback(text: &str) -> CloudMessage {
    CloudMessage {
        ack: AckRequest::Full,
        system: SystemProperties {
            message_id: Some(text.to_owned()),
            ..SystemProperties::default()
        },
        ..message(text)
    }
}

fn send(rig: &mut Rig, message: CloudMessage) -> SentMessage {
    rig.hub.send_message(&dev1(), message, rig.now).unwrap()
}

fn feedback(rig: &Rig) -> Vec<(Option<String>, FeedbackStatus)> {
    let records = rig.hub.feedback(1).into_iter();
    records.map(|r| (r.original_message_id, r.status)).collect()
}

#[test]
fn a_message_goes_down_with_its_bag_and_puback_completes_it() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    let mut hello = with_feedback("m/1");
    hello.properties.push(("a b".into(), "x=y".into()));
    send(&mut rig, hello);
    let got = rig.got(id);
    assert_eq!(
        got,
        [Got::Publish(Message {
            topic: "devices/dev1/messages/devicebound/%24.to=%2Fdevices%2Fdev1%2Fmessages%2FdeviceBound\
                    &%24.mid=m%2F1&iothub-ack=full&a%20b=x%3Dy"
                .into(),
            payload: "m/1".into(),
            qos: 1,
            packet_id: Some(1),
            dup: false,
        })]
    );
    assert_eq!(rig.hub.device(&dev1()).unwrap().cloud_messages, 1);
    assert_eq!(rig.send(id, &puback(1)), []);
    assert_eq!(rig.hub.device(&dev1()).unwrap().cloud_messages, 0);
    assert_eq!(
        feedback(&rig),
        [(Some("m/1".into()), FeedbackStatus::Success)]
    );
}

#[test]
fn queued_messages_come_right_after_connack_before_any_subscribe() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    rig.send(id, &DISCONNECT);
    send(&mut rig, message("a"));
    send(&mut rig, message("b"));
    let (_, got) = rig.connect();
    assert_eq!(got[0], Got::accepted(true));
    let payloads: Vec<_> = got[1..]
        .iter()
        .map(|g| g.message().payload.clone())
        .collect();
    assert_eq!(payloads, ["a", "b"]);
}

#[test]
fn what_was_not_acknowledged_comes_again_with_dup_and_the_same_id() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    send(&mut rig, message("a"));
    send(&mut rig, message("b"));
    assert_eq!(rig.got(id).len(), 2);
    rig.wait(Duration::from_secs(120));
    assert_eq!(rig.got(id), [], "never again on the same connection");
    rig.send(id, &puback(1));
    rig.hub.handle_closed(id, rig.now);
    send(&mut rig, message("c"));
    let (_, got) = rig.connect();
    let seen: Vec<_> = got[1..]
        .iter()
        .map(|g| {
            (
                g.message().payload.as_str(),
                g.message().packet_id.unwrap(),
                g.message().dup,
            )
        })
        .collect();
    assert_eq!(seen, [("b", 2, true), ("c", 3, false)]);
}

#[test]
fn sixteen_are_in_flight_at_most() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    for number in 0..20 {
        send(&mut rig, message(&number.to_string()));
    }
    assert_eq!(rig.got(id).len(), 16);
    let next = rig.send(id, &puback(1));
    assert_eq!(next[0].message().payload, "16");
}

#[test]
fn acknowledging_out_of_order_closes_and_unknown_ids_do_not() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    send(&mut rig, message("a"));
    send(&mut rig, message("b"));
    rig.got(id);
    assert_eq!(rig.send(id, &puback(77)), []);
    assert_eq!(rig.send(id, &[0x40, 2, 0, 0]), []);
    assert_eq!(
        rig.send(id, &puback(2)),
        [Got::Closed(CloseReason::PubackOutOfOrder)]
    );
}

#[test]
fn qos_0_completes_on_send() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 0)]);
    send(&mut rig, with_feedback("a"));
    let got = rig.got(id);
    assert_eq!(
        (got[0].message().qos, got[0].message().packet_id),
        (0, None)
    );
    assert_eq!(
        feedback(&rig),
        [(Some("a".into()), FeedbackStatus::Success)]
    );
}

#[test]
fn messages_wait_without_a_subscription_and_after_unsubscribe() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    send(&mut rig, message("a"));
    assert_eq!(rig.got(id), []);
    let got = rig.send(id, &subscribe(1, &[(MESSAGES, 1)]));
    assert!(
        matches!(got[..], [Got::Suback(..), Got::Publish(_)]),
        "{got:?}"
    );
    rig.send(id, &puback(1));
    assert_eq!(rig.send(id, &unsubscribe(2, MESSAGES)), [Got::Unsuback(2)]);
    send(&mut rig, message("b"));
    assert_eq!(rig.got(id), []);
}

#[test]
fn the_queue_holds_50() {
    let mut rig = Rig::new();
    for _ in 0..50 {
        send(&mut rig, message(""));
    }
    let error = rig
        .hub
        .send_message(&dev1(), message(""), rig.now)
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::DeviceMaximumQueueDepthExceeded);
    rig.wait(Duration::from_secs(3600));
    assert_eq!(
        send(&mut rig, message("")).sequence,
        51,
        "the others have expired"
    );
}

#[test]
fn a_message_expires_by_default_after_an_hour_or_when_it_says() {
    let mut rig = Rig::new();
    send(&mut rig, with_feedback("default"));
    let mut short = with_feedback("short");
    short.system.expiry = Some(
        rig.now
            .utc
            .saturating_add(Duration::from_secs(60))
            .to_string(),
    );
    send(&mut rig, short);
    rig.wait(Duration::from_secs(60));
    assert_eq!(
        feedback(&rig),
        [(Some("short".into()), FeedbackStatus::Expired)]
    );
    rig.wait(Duration::from_secs(3540));
    assert_eq!(feedback(&rig).len(), 2);
    assert_eq!(rig.hub.device(&dev1()).unwrap().cloud_messages, 0);
}

#[test]
fn a_message_of_two_days_expires_in_time() {
    let mut rig = Rig::new();
    let mut long = with_feedback("long");
    let end = rig.now.utc.saturating_add(Duration::from_secs(48 * 3600));
    long.system.expiry = Some(end.to_string());
    send(&mut rig, long);
    rig.wait(Duration::from_secs(48 * 3600 - 1));
    assert_eq!(feedback(&rig), []);
    rig.wait(Duration::from_secs(1));
    assert_eq!(
        feedback(&rig),
        [(Some("long".into()), FeedbackStatus::Expired)]
    );
    assert_eq!(rig.hub.poll_timeout(), None);
}

#[test]
fn a_message_in_flight_does_not_expire_until_it_comes_back() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    send(&mut rig, with_feedback("a"));
    for _ in 0..20 {
        rig.wait(Duration::from_secs(200));
        rig.send(id, &PINGREQ);
    }
    assert_eq!(feedback(&rig), []);
    rig.hub.handle_closed(id, rig.now);
    assert_eq!(
        feedback(&rig),
        [(Some("a".into()), FeedbackStatus::Expired)]
    );
}

#[test]
fn a_past_or_unreadable_expiry_and_a_large_message_are_refused() {
    let mut rig = Rig::new();
    let expiring = |expiry: &str| {
        let mut message = message("");
        message.system.expiry = Some(expiry.to_owned());
        message
    };
    for (message, code) in [
        (expiring("tomorrow"), ErrorCode::ArgumentInvalid),
        (expiring("2020-01-01T00:00:00Z"), ErrorCode::ArgumentInvalid),
        (message(&"x".repeat(64 * 1024)), ErrorCode::MessageTooLarge),
    ] {
        let error = rig.hub.send_message(&dev1(), message, rig.now).unwrap_err();
        assert_eq!(error.code, code);
    }
}

#[test]
fn lost_deliveries_count_only_if_the_configuration_says_so() {
    for (is_counted, dies) in [(true, true), (false, false)] {
        let mut rig = Rig::with(|config| config.count_lost_deliveries = is_counted);
        rig.subscribed(&[(MESSAGES, 1)]);
        send(&mut rig, with_feedback("a"));
        for _ in 0..10 {
            rig.connect();
        }
        let is_dead = feedback(&rig) == [(Some("a".into()), FeedbackStatus::DeliveryCountExceeded)];
        assert_eq!(is_dead, dies);
    }
}

#[test]
fn purge_empties_the_queue() {
    let mut rig = Rig::new();
    let id = rig.subscribed(&[(MESSAGES, 1)]);
    send(&mut rig, with_feedback("a"));
    rig.got(id);
    assert_eq!(rig.hub.purge_messages(&dev1(), rig.now), Ok(1));
    assert_eq!(feedback(&rig), [(Some("a".into()), FeedbackStatus::Purged)]);
    assert_eq!(rig.send(id, &puback(1)), []);
}

#[test]
fn feedback_goes_to_who_asked_for_it() {
    let mut rig = Rig::new();
    for ack in [AckRequest::None, AckRequest::Positive, AckRequest::Negative] {
        let mut message = with_feedback(ack.as_str());
        message.ack = ack;
        send(&mut rig, message);
    }
    rig.wait(Duration::from_secs(3600));
    assert_eq!(
        feedback(&rig),
        [(Some("negative".into()), FeedbackStatus::Expired)]
    );
}
