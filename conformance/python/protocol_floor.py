"""paho-mqtt, a stock MQTT client, against the rules that no SDK breaks: protocol_floor.py mqtt | protocol_floor.py ws."""

import queue
import ssl
import sys
from contextlib import contextmanager

import paho.mqtt.client as mqtt

import hub
from cases import Suite, equal, fails

WEBSOCKETS = {"mqtt": False, "ws": True}[sys.argv[1]]
suite = Suite("paho-mqtt", "MQTT over WebSocket" if WEBSOCKETS else "MQTT")


class Client:
    """What comes from the hub, in queues."""

    def __init__(self, device, password=None, clean=False, version=mqtt.MQTTv311, keepalive=60, client_id=None, path=None):
        self.events = queue.Queue()
        self.messages = queue.Queue()
        self._client = client = mqtt.Client(
            device.id if client_id is None else client_id,
            clean_session=None if version == mqtt.MQTTv5 else clean,
            protocol=version,
            transport="websockets" if WEBSOCKETS else "tcp",
        )
        client.username_pw_set(f"{hub.NAME}/{device.id}/?api-version=2021-04-12", password or device.token(600))
        client.tls_set_context(ssl.create_default_context(cafile=hub.CA_FILE))
        if WEBSOCKETS:
            client.ws_set_options(path=path or "/$iothub/websocket")
        client.on_connect = lambda _c, _u, flags, code, *_: self.events.put(
            ("connected", int(getattr(code, "value", code)), flags["session present"] if isinstance(flags, dict) else 0)
        )
        client.on_disconnect = lambda *_: self.events.put(("closed",))
        client.on_subscribe = lambda _c, _u, _mid, granted, *_: self.events.put(("granted", tuple(granted)))
        client.on_publish = lambda _c, _u, mid: self.events.put(("acknowledged", mid))
        client.on_message = lambda _c, _u, message: self.messages.put(message)
        client.connect(hub.NAME, 443 if WEBSOCKETS else 8883, keepalive)
        client.loop_start()

    def next(self):
        return self.events.get(timeout=15)

    def subscribe(self, topic, qos=1):
        self._client.subscribe(topic, qos)

    def publish(self, topic, body="x", qos=1, retain=False):
        return self._client.publish(topic, body, qos, retain).mid

    def deliver(self, topic, body="x", **options):
        """Publishes, and waits for the PUBACK, or with QoS 0 until it is written."""
        sent = self.publish(topic, body, **options)
        equal(self.next(), ("acknowledged", sent))

    def end(self):
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def client_of(device, **options):
    client = Client(device, **options)
    try:
        yield client
    finally:
        client.end()


def new_device():
    return hub.new_device(f"paho-{sys.argv[1]}")


def events(device):
    return f"devices/{device.id}/messages/events/"


@suite.case("protocol floor", "a session is kept, with its subscriptions and messages")
def _():
    device = new_device()
    with client_of(device) as client:
        equal(client.next(), ("connected", 0, 0))
        client.subscribe(f"devices/{device.id}/messages/devicebound/#")
        equal(client.next(), ("granted", (1,)))
    device.send("kept")
    with client_of(device) as client:
        equal(client.next(), ("connected", 0, 1))
        message = client.messages.get(timeout=15)
        equal((message.payload, message.qos, message.retain), (b"kept", 1, False))
        assert f"%24.to=%2Fdevices%2F{device.id}%2Fmessages%2FdeviceBound" in message.topic, message.topic


@suite.case("protocol floor", "a clean session has nothing of the one before")
def _():
    device = new_device()
    with client_of(device) as client:
        client.next()
        client.subscribe(f"devices/{device.id}/messages/devicebound/#")
        client.next()
    with client_of(device, clean=True) as client:
        equal(client.next(), ("connected", 0, 0))


@suite.case("protocol floor", "a wrong password, a wrong client id and MQTT 5 are refused")
def _():
    device = new_device()
    for options in ({"password": "no"}, {"client_id": "other"}):
        with client_of(device, **options) as client:
            equal(client.next(), ("connected", 5, 0))
    with client_of(device, version=mqtt.MQTTv5) as client:
        assert client.next() != ("connected", 0, 0)


@suite.case("protocol floor", "QoS 1 is acknowledged, QoS 0 is taken, QoS 2 closes the connection")
def _():
    device = new_device()
    with client_of(device) as client:
        client.next()
        client.deliver(events(device), "one")
        client.deliver(events(device), "zero", qos=0)
        equal([record["body"] for record in device.telemetry(2)], ["one", "zero"])
    with client_of(device) as client:
        client.next()
        client.publish(events(device), "two", qos=2)
        equal(client.next(), ("closed",))


@suite.case("protocol floor", "retain is not kept, and said")
def _():
    device = new_device()
    with client_of(device) as client:
        client.next()
        client.deliver(events(device), retain=True)
    equal(device.telemetry(1)[0]["properties"], {"mqtt-retain": "true"})


@suite.case("protocol floor", "QoS 2 of a subscription becomes 1")
def _():
    device = new_device()
    with client_of(device) as client:
        client.next()
        client.subscribe("$iothub/methods/POST/#", qos=2)
        equal(client.next(), ("granted", (1,)))


@suite.case("protocol floor", "a topic or a filter that is not the hub's closes the connection")
def _():
    device = new_device()
    for topic in ("somewhere", "devices/other/messages/events/", "$iothub/twin/PUT/"):
        with client_of(device) as client:
            client.next()
            client.publish(topic)
            equal(client.next(), ("closed",))
    for topic in ("#", "devices/+/messages/events/", "$SYS/#"):
        with client_of(device) as client:
            client.next()
            client.subscribe(topic)
            equal(client.next(), ("closed",))


@suite.case("protocol floor", "256 KiB are taken, one byte more closes the connection")
def _():
    device = new_device()
    most = 256 * 1024
    with client_of(device) as client:
        client.next()
        client.deliver(events(device), bytes(most))
        client.publish(events(device), bytes(most + 1))
        equal(client.next(), ("closed",))
    device.telemetry(1)


@suite.case("protocol floor", "the newer connection of a device closes the older")
def _():
    device = new_device()
    with client_of(device) as older:
        older.next()
        with client_of(device) as newer:
            equal(newer.next(), ("connected", 0, 1))
            equal(older.next(), ("closed",))


@suite.case("protocol floor", "a client that is silent for its keep-alive pings, and stays")
def _():
    device = new_device()
    with client_of(device, keepalive=2) as client:
        client.next()
        fails(queue.Empty, lambda: client.events.get(timeout=5))
        equal(device.is_connected(), True)


suite.run()
