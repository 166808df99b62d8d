//! A session against a stock mosquitto, which knows nothing of IoT Hub and all of MQTT 3.1.1.

use std::process::Command;

use crate::{broker::Broker, driver::Driver, run, text_of};

const EVENTS: &str = "devices/dev1/messages/events/#";
const DEVICEBOUND: &str = "devices/dev1/messages/devicebound/%24.mid=m-1&%24.to=%2Fdevices%2Fdev1%2Fmessages%2FdeviceBound";

#[test]
#[ignore = "needs mosquitto: ./test conformance"]
fn telemetry_arrives_and_its_puback_is_understood() {
    let broker = Broker::start();
    let subscriber = Subscriber::subscribe(&broker);
    let mut device = Driver::new(broker.address);
    device.open();
    for payload in ["one", "two", "three"] {
        let id = device.publish(payload);
        device.until_delivered(id);
    }
    let expected = ["one", "two", "three"]
        .map(|payload| format!("1 devices/dev1/messages/events/alpha=a%20b%26c {payload}"));
    assert_eq!(subscriber.receive(3), expected);
}

#[test]
#[ignore = "needs mosquitto: ./test conformance"]
fn a_message_is_delivered_again_until_it_is_acknowledged() {
    let broker = Broker::start();
    let mut device = Driver::new(broker.address);
    device.open();
    for payload in ["first", "second"] {
        let sent =
            run(broker
                .client("mosquitto_pub")
                .args(["-q", "1", "-t", DEVICEBOUND, "-m", payload]));
        assert!(sent.status.success(), "{}", text_of(&sent.stderr));
    }
    let (first, text) = device.until_received();
    assert_eq!(text, "first");
    assert_eq!(device.until_received().1, "second");
    device.acknowledge(first);

    device.cut();
    let (second, text) = device.until_received();
    assert_eq!(
        text, "second",
        "the first was acknowledged, the second was not"
    );
    device.acknowledge(second);
    device.cut();
    device.until_settled();
    let sent =
        run(broker
            .client("mosquitto_pub")
            .args(["-q", "1", "-t", DEVICEBOUND, "-m", "third"]));
    assert!(sent.status.success(), "{}", text_of(&sent.stderr));
    assert_eq!(device.until_received().1, "third");
}

#[test]
#[ignore = "needs mosquitto: ./test conformance"]
fn what_was_in_flight_is_sent_again_to_a_broker_that_restarted() {
    let mut broker = Broker::start();
    let mut device = Driver::new(broker.address);
    device.open();
    broker.freeze();
    let in_flight = [device.publish("one"), device.publish("two")];
    broker.kill();
    broker.start_again();
    let subscriber = Subscriber::subscribe(&broker);
    for id in in_flight {
        device.until_delivered(id);
    }
    let received = subscriber.receive(2);
    assert!(received[0].ends_with(" one"), "{received:?}");
    assert!(received[1].ends_with(" two"), "{received:?}");
}

/// mosquitto_sub with a session that the broker keeps: what is published from here on waits for it.
struct Subscriber<'a>(&'a Broker);

impl<'a> Subscriber<'a> {
    fn subscribe(broker: &'a Broker) -> Self {
        let subscriber = Self(broker);
        // It ends when the subscription is acknowledged.
        let subscribed = run(subscriber.client().arg("-E"));
        assert!(
            subscribed.status.success(),
            "{}",
            text_of(&subscribed.stderr)
        );
        subscriber
    }

    /// QoS, topic and payload of as many messages.
    fn receive(&self, count: usize) -> Vec<String> {
        let count = count.to_string();
        let received = run(self
            .client()
            .args(["-C", &count, "-W", "20", "-F", "%q %t %p"]));
        let text = text_of(&received.stdout);
        assert!(received.status.success(), "{text}");
        text.lines().map(str::to_owned).collect()
    }

    fn client(&self) -> Command {
        let mut client = self.0.client("mosquitto_sub");
        client.args(["-c", "-i", "judge", "-q", "1", "-t", EVENTS]);
        client
    }
}
