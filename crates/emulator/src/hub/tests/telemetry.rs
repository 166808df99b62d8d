use super::*;

fn records(rig: &Rig) -> Vec<TelemetryRecord> {
    let page = rig.hub.telemetry(1, 1000);
    page.records.iter().map(|r| (**r).clone()).collect()
}

#[test]
fn a_message_is_stamped_and_acknowledged_in_order() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    let bag = "%24.mid=id%201%2F%3A%2B&%24.ct=application%2Fjson&alpha%2F1=x%3Dy&zeta=a%20b";
    let both = [
        publish(&format!("{EVENTS}{bag}"), b"1", Some(5)),
        publish(EVENTS, b"2", Some(6)),
        publish(EVENTS, b"3", None),
    ]
    .concat();
    assert_eq!(rig.send(id, &both), [Got::Puback(5), Got::Puback(6)]);
    let records = records(&rig);
    let sequences: Vec<_> = records.iter().map(|r| r.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    let first = &records[0];
    assert_eq!(first.message.system.message_id.as_deref(), Some("id 1/:+"));
    assert_eq!(
        first.message.properties,
        [
            ("alpha/1".into(), "x=y".into()),
            ("zeta".into(), "a b".into())
        ]
    );
    assert_eq!(first.device_id, dev1());
    assert_eq!(first.scope, AuthScope::Device);
    assert_eq!(first.enqueued_at, rig.now.utc);
    assert_eq!(
        first.generation_id,
        rig.hub.device(&dev1()).unwrap().generation_id
    );
}

#[test]
fn what_a_hub_does_not_take_closes_the_connection() {
    let too_large = vec![0; 262_145];
    let qos_2 = {
        let mut packet = publish(EVENTS, b"", Some(1));
        packet[0] |= 0b110;
        packet[0] &= !0b010;
        packet
    };
    for (packet, reason) in [
        (qos_2, CloseReason::Qos2),
        (
            publish("a/b", b"", None),
            CloseReason::UnknownTopic(iothub::topic::ParseTopicError::Unknown),
        ),
        (
            publish("devices/dev2/messages/events/", b"", None),
            CloseReason::ForeignTopic,
        ),
        (
            publish("devices/dev1/modules/m/messages/events/", b"", None),
            CloseReason::ForeignTopic,
        ),
        (
            publish(EVENTS, &too_large, Some(1)),
            CloseReason::MessageTooLarge,
        ),
        (
            publish("$iothub/twin/GET/?$rid=", b"", None),
            CloseReason::UnknownTopic(iothub::topic::ParseTopicError::RequestId),
        ),
    ] {
        let mut rig = Rig::new();
        let (id, _) = rig.connect();
        assert_eq!(rig.send(id, &packet), [Got::Closed(reason)]);
        assert!(records(&rig).is_empty());
    }
}

#[test]
fn a_raw_colon_in_the_bag_closes_the_connection() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    let got = rig.send(id, &publish(&format!("{EVENTS}time=12:00"), b"", Some(1)));
    assert!(
        matches!(got[..], [Got::Closed(CloseReason::UnknownTopic(_))]),
        "{got:?}"
    );
}

#[test]
fn the_size_counts_values_and_names_but_not_names_of_system_properties() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    let topic = format!("{EVENTS}%24.mid=abc&name=value");
    let fits = vec![b'x'; 262_144 - 3 - 4 - 5];
    assert_eq!(
        rig.send(id, &publish(&topic, &fits, Some(1))),
        [Got::Puback(1)]
    );
    let too_large = vec![b'x'; 262_144 - 3 - 4 - 5 + 1];
    let got = rig.send(id, &publish(&topic, &too_large, Some(2)));
    assert_eq!(got, [Got::Closed(CloseReason::MessageTooLarge)]);
}

#[test]
fn retain_becomes_a_property() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    let mut packet = publish(EVENTS, b"", Some(1));
    packet[0] |= 1;
    assert_eq!(rig.send(id, &packet), [Got::Puback(1)]);
    assert_eq!(
        records(&rig)[0].message.properties,
        [("mqtt-retain".into(), "true".into())]
    );
}

#[test]
fn the_will_is_sent_after_any_end_but_disconnect() {
    let mut rig = Rig::new();
    let hello = Hello {
        will: Some((
            format!("{EVENTS}a=1"),
            "gone".into(),
            Qos::AtLeastOnce,
            false,
        )),
        ..Hello::dev1()
    };
    let (id, _) = rig.say(&hello);
    rig.send(id, &DISCONNECT);
    assert!(records(&rig).is_empty());

    let (id, _) = rig.say(&hello);
    rig.hub.handle_closed(id, rig.now);
    let will = &records(&rig)[0].message;
    assert_eq!(will.payload, "gone");
    assert_eq!(
        will.properties,
        [
            ("a".into(), "1".into()),
            ("iothub-MessageType".into(), "Will".into())
        ]
    );
}

#[test]
fn a_will_for_another_topic_is_not_taken() {
    let mut rig = Rig::new();
    let (_, got) = rig.say(&Hello {
        will: Some((
            "devices/dev2/messages/events/".into(),
            "x".into(),
            Qos::AtMostOnce,
            false,
        )),
        ..Hello::dev1()
    });
    assert_eq!(got, [Got::Closed(CloseReason::BadWill)]);
}

#[test]
fn readers_follow_by_number_and_hear_of_what_they_missed() {
    let mut rig = Rig::with(|config| config.telemetry_records = 3);
    let (id, _) = rig.connect();
    for number in 1..=5u8 {
        rig.send(id, &publish(EVENTS, &[b'0' + number], None));
    }
    let page = rig.hub.telemetry(1, 2);
    assert_eq!((page.missed, page.next), (2, 5));
    assert_eq!(page.records[0].message.payload, "3");
    let page = rig.hub.telemetry(page.next, 2);
    assert_eq!((page.records.len(), page.missed, page.next), (1, 0, 6));
    assert_eq!(rig.hub.telemetry(99, 2).next, 6);
    assert_eq!(rig.hub.telemetry_next(), 6);
}

#[test]
fn the_ring_takes_what_it_is_bounded_to_and_one_more_costs_the_oldest() {
    let mut rig = Rig::with(|config| config.telemetry_records = 3);
    let (id, _) = rig.connect();
    for (sent, kept, missed) in [(1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 3, 1)] {
        rig.send(id, &publish(EVENTS, b"x", None));
        let page = rig.hub.telemetry(1, 9);
        assert_eq!((page.records.len(), page.missed), (kept, missed), "{sent}");
    }
}

#[test]
fn the_ring_is_bounded_in_bytes_too() {
    let mut rig = Rig::with(|config| config.telemetry_bytes = 250);
    let (id, _) = rig.connect();
    for _ in 0..4 {
        rig.send(id, &publish(EVENTS, &[b'x'; 100], None));
    }
    assert_eq!(rig.hub.telemetry(0, 9).records.len(), 2);
}
