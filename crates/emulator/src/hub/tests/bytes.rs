//! Golden bytes, written from the MQTT standard and the hub's documentation and not by an encoder; and bytes that are no
//! packets at all.

use proptest::prelude::*;

use super::*;

/// CONNECT of `dev1`, 213 bytes, token signed with the vectors' key.
const CONNECT: &str = "\
    10d20100044d51545404c000f00004646576310037746573742d6875622e617a \
    7572652d646576696365732e6e65742f646576312f3f6170692d76657273696f \
    6e3d323032312d30342d313200875368617265644163636573735369676e6174 \
    7572652073723d746573742d6875622e617a7572652d646576696365732e6e65 \
    742532466465766963657325324664657631267369673d33696a763851353961 \
    47774330557077356a586c51544e76683066414878556225324674794e66706e \
    705443512533442673653d31373637323235363030";
const SUBSCRIBE_TWIN: &str = "82170001001224696f746875622f7477696e2f7265732f2300";
const PUBLISH_EVENT: &str =
    "3228001d646576696365732f646576312f6d657373616765732f6576656e74732f00027b2274223a317d";
const TWIN_204: &str =
    "3029002724696f746875622f7477696e2f7265732f3230342f3f247269643d31262476657273696f6e3d36";

#[test]
fn says_what_the_vectors_say() {
    let mut rig = Rig::new();
    let id = rig.accept();
    assert_eq!(raw(&mut rig, id, &hex(CONNECT)), hex("20020000"));
    assert_eq!(raw(&mut rig, id, &hex(SUBSCRIBE_TWIN)), hex("9003000100"));
    assert_eq!(raw(&mut rig, id, &hex(PUBLISH_EVENT)), hex("40020002"));
    assert_eq!(
        rig.hub.telemetry(1, 9).records[0].message.payload,
        r#"{"t":1}"#
    );

    let report = publish(
        "$iothub/twin/PATCH/properties/reported/?$rid=1",
        b"{}",
        None,
    );
    for _ in 0..4 {
        raw(&mut rig, id, &report);
    }
    assert_eq!(
        raw(&mut rig, id, &report),
        hex(TWIN_204),
        "version 6 after five writes"
    );

    let again = rig.accept();
    assert_eq!(raw(&mut rig, again, &hex(CONNECT)), hex("20020100"));
    let mut wrong = hex(CONNECT);
    *wrong.last_mut().unwrap() = b'1';
    let third = rig.accept();
    assert_eq!(raw(&mut rig, third, &wrong), hex("20020005"));
}

#[test]
fn a_byte_at_a_time_is_the_same() {
    let mut rig = Rig::new();
    let id = rig.accept();
    let all = [hex(CONNECT), hex(SUBSCRIBE_TWIN), hex(PUBLISH_EVENT)].concat();
    let got: Vec<u8> = all
        .iter()
        .flat_map(|byte| raw(&mut rig, id, &[*byte]))
        .collect();
    assert_eq!(got, hex("20020000 9003000100 40020002"));
}

#[test]
fn a_packet_that_announces_too_much_closes_before_it_comes() {
    let mut rig = Rig::new();
    let (id, _) = rig.connect();
    let got = rig.send(id, &[0x30, 0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(got, [Got::Closed(Malformed::TooLarge.into())]);
}

#[test]
fn reserved_flags_and_packets_for_clients_close() {
    for (bytes, why) in [
        (&[0xc1, 0][..], Malformed::Packet),
        (&[0xd0, 0], Malformed::Type(13)),
        (&[0x62, 2, 0, 1], Malformed::Type(6)),
        (&[0x80, 5, 0, 1, 0, 0, 0], Malformed::Packet),
        (&[0x36, 2, 0, 0], Malformed::Packet),
    ] {
        let mut rig = Rig::new();
        let (id, _) = rig.connect();
        assert_eq!(rig.send(id, bytes), [Got::Closed(why.into())], "{bytes:x?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..5), connected: bool) {
        let mut rig = Rig::new();
        let id = if connected { rig.connect().0 } else { rig.accept() };
        for chunk in chunks {
            rig.hub.handle_input(id, &chunk, rig.now);
        }
        rig.wait(Duration::from_secs(3600));
    }

    #[test]
    fn no_packet_with_a_true_header_panics(kind in 1u8..16, flags in 0u8..16, body in prop::collection::vec(any::<u8>(), 0..100), connected: bool) {
        let mut rig = Rig::new();
        let id = if connected { rig.connect().0 } else { rig.accept() };
        let mut packet = vec![kind << 4 | flags, u8::try_from(body.len()).unwrap()];
        packet.extend(body);
        rig.hub.handle_input(id, &packet, rig.now);
    }

    #[test]
    fn no_topic_panics(start in prop::sample::select(TOPICS.to_vec()), rest in ".{0,40}", payload: Vec<u8>) {
        let mut rig = Rig::new();
        let id = rig.subscribed(&[(TWIN_ANSWERS, 1)]);
        let topic = format!("{start}{rest}");
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend(topic.bytes());
        body.extend([0, 3]);
        body.extend(&payload);
        let [high, low] = [body.len() >> 7, body.len() & 0x7f].map(|part| u8::try_from(part).unwrap());
        rig.hub.handle_input(id, &[&[0x32, low | 0x80, high], &body[..]].concat(), rig.now);
    }
}

const TOPICS: [&str; 6] = [
    "",
    EVENTS,
    "$iothub/twin/GET/?$rid=",
    "$iothub/methods/res/",
    "$iothub/methods/res/200/?$rid=",
    "$iothub/twin/PATCH/properties/reported/?$rid=",
];

fn raw(rig: &mut Rig, id: ConnectionId, bytes: &[u8]) -> Vec<u8> {
    rig.hub.handle_input(id, bytes, rig.now);
    let mut all = Vec::new();
    while let Some(output) = rig.hub.poll_output() {
        if let Output::Transmit { connection, bytes } = output
            && connection == id
        {
            all.extend(bytes);
        }
    }
    all
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(u8::is_ascii_hexdigit)
        .map(|digit| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
