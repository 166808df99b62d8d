"""azure-iot-device as a device: device.py mqtt | device.py ws."""

import asyncio
import base64
import json
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse
from azure.iot.device import aio
from azure.iot.device import exceptions

import hub
from cases import Suite, equal, eventually, fails

WEBSOCKETS = {"mqtt": False, "ws": True}[sys.argv[1]]
OPTIONS = {"server_verification_cert": hub.CA, "websockets": WEBSOCKETS}
suite = Suite("azure-iot-device", "MQTT over WebSocket" if WEBSOCKETS else "MQTT")


def new_device():
    return hub.new_device(f"python-{sys.argv[1]}")


@contextmanager
def connected(device, **options):
    client = IoTHubDeviceClient.create_from_connection_string(device.connection_string, **OPTIONS, **options)
    with running(client):
        yield client


@contextmanager
def running(client):
    try:
        client.connect()
        yield client
    finally:
        client.shutdown()


def messages_of(client):
    received = queue.Queue()
    client.on_message_received = received.put
    return received


def patches_of(client):
    received = queue.Queue()
    client.on_twin_desired_properties_patch_received = received.put
    return received


def answer_methods(client, answer=lambda request: (200, {"name": request.name, "given": request.payload})):
    """Answers every method with the status and the payload that `answer` gives; not at all if it gives none."""

    def on_request(request):
        answered = answer(request)
        if answered:
            client.send_method_response(MethodResponse.create_from_method_request(request, *answered))

    client.on_method_request_received = on_request


def states_of(client):
    """Every connection state that it passes through."""
    states = queue.Queue()
    client.on_connection_state_change = lambda: states.put(client.connected)
    return states


def wait_for(states, *expected):
    """Waits for one after the other; what the SDK says twice, or late of the connection before, is passed over."""
    for state in expected:
        while states.get(timeout=20) is not state:
            pass


def refused(status, act):
    """The hub's answer was an error; this SDK hides it in the cause of another one."""
    cause = fails(exceptions.ClientError, act).__cause__
    assert type(cause).__name__ == "ServiceError" and str(status) in str(cause), repr(cause)


# Telemetry


@suite.case("telemetry", "a string arrives")
def _():
    device = new_device()
    with connected(device) as client:
        client.send_message('{"t":1}')
    [record] = device.telemetry(1)
    equal(record["body"], '{"t":1}')
    equal(record["properties"], {})


@suite.case("telemetry", "properties of every kind arrive")
def _():
    device = new_device()
    message = Message("x", message_id="id 1/:+", content_encoding="utf-8", content_type="application/json")
    message.correlation_id = "c&1=%41"
    message.user_id = "u"
    message.expiry_time_utc = "2099-12-31T00:00:00Z"
    message.set_as_security_message()
    custom = {"zeta": "a b", "alpha-1": "x=y&z/%41+?#:", "größe": "ä€😀", "empty": ""}
    message.custom_properties.update(custom)
    with connected(device) as client:
        client.send_message(message)
    [record] = device.telemetry(1)
    equal(record["properties"], custom)
    system = record["systemProperties"]
    expected = {
        "message-id": "id 1/:+",
        "correlation-id": "c&1=%41",
        "user-id": "u",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "2099-12-31T00:00:00Z",
        "ifid": "urn:azureiot:Security:SecurityAgent:1",
    }
    equal({name: system.get(name) for name in expected}, expected)


@suite.case("telemetry", "the hub stamps who sent it and how")
def _():
    device = new_device()
    with connected(device) as client:
        client.send_message("x")
    system = device.telemetry(1)[0]["systemProperties"]
    equal(system["iothub-connection-device-id"], device.id)
    equal(json.loads(system["iothub-connection-auth-method"])["scope"], "device")
    assert system["iothub-connection-auth-generation-id"] and system["iothub-enqueuedtime"]


@suite.case("telemetry", "any bytes arrive, and none")
def _():
    device = new_device()
    with connected(device) as client:
        client.send_message(Message(bytes(range(256))))
        client.send_message(Message(b""))
    first, second = device.telemetry(2)
    equal(first["bodyBase64"], base64.b64encode(bytes(range(256))).decode())
    equal(second["body"], "")


@suite.case("telemetry", "many at once arrive, each once")
def _():
    device = new_device()
    texts = [f"many {number}" for number in range(200)]
    with connected(device) as client, ThreadPoolExecutor(20) as pool:
        list(pool.map(client.send_message, texts))
    equal(sorted(record["body"] for record in device.telemetry(len(texts))), sorted(texts))


@suite.case("telemetry", "the largest message that the SDK lets through is taken")
def _():
    device = new_device()
    with connected(device) as client:
        client.send_message(Message(b"x" * (255 * 1024)))
        fails(ValueError, lambda: client.send_message(Message(b"x" * (256 * 1024 + 1))))
    equal(len(device.telemetry(1)[0]["body"]), 255 * 1024)


@suite.case("telemetry", "a model that is announced is stamped and shown in the twin")
def _():
    device = new_device()
    model = "dtmi:com:example:Thermostat;1"
    with connected(device, product_info=model) as client:
        client.send_message("x")
        equal(device.twin()["modelId"], model)
    equal(device.telemetry(1)[0]["systemProperties"]["dt-dataschema"], model)


# Cloud-to-device messages


@suite.case("cloud-to-device", "a message comes with its properties and is completed")
def _():
    device = new_device()
    with connected(device) as client:
        received = messages_of(client)
        device.send(
            '{"on":true}',
            messageid="id 1/:+",
            correlationid="c",
            userid="u",
            contenttype="application/json",
            contentencoding="utf-8",
            expiry="2099-12-31T00:00:00Z",
            ack="full",
            **{"app-level": "a b", "app-odd": "x=y&z/%41+?#:"},
        )
        message = received.get(timeout=15)
        equal(message.data, b'{"on":true}')
        equal((message.message_id, message.correlation_id, message.user_id), ("id 1/:+", "c", "u"))
        equal((message.content_type, message.content_encoding), ("application/json", "utf-8"))
        assert message.expiry_time_utc.startswith("2099-12-31T00:00:00"), message.expiry_time_utc
        equal(message.ack, "full")
        equal(message.custom_properties, {"level": "a b", "odd": "x=y&z/%41+?#:"})
        equal(device.feedback("id 1/:+"), "Success")


@suite.case("cloud-to-device", "several come in order, and the queue is empty then")
def _():
    device = new_device()
    with connected(device) as client:
        received = messages_of(client)
        for number in range(30):
            device.send(str(number))
        equal([received.get(timeout=15).data for _ in range(30)], [b"%d" % number for number in range(30)])
        eventually("an empty queue", lambda: device.twin()["cloudToDeviceMessageCount"] == 0)


@suite.case("cloud-to-device", "what was sent while the device was away comes when it connects")
def _():
    device = new_device()
    with connected(device) as client:
        received = messages_of(client)
        client.disconnect()
        device.send("one")
        device.send("two")
        client.connect()
        equal([received.get(timeout=15).data for _ in range(2)], [b"one", b"two"])


# Twins


@suite.case("twin", "the device reads what the service wrote")
def _():
    device = new_device()
    device.desire({"interval": 5, "deep": {"list": [1, {"a": "b"}], "text": "ä€"}})
    with connected(device) as client:
        twin = client.get_twin()
    equal(twin["desired"], {"interval": 5, "deep": {"list": [1, {"a": "b"}], "text": "ä€"}, "$version": 2})
    equal(twin["reported"], {"$version": 1})


@suite.case("twin", "the service reads what the device reported")
def _():
    device = new_device()
    with connected(device) as client:
        client.patch_twin_reported_properties({"fw": "1", "gone": 1, "deep": {"a": 1, "b": [1, 2.5, True]}})
        client.patch_twin_reported_properties({"fw": "2", "gone": None, "deep": {"a": None}})
        expected = {"fw": "2", "deep": {"b": [1, 2.5, True]}, "$version": 3}
        equal(client.get_twin()["reported"], expected)
    reported = device.twin()["properties"]["reported"]
    reported.pop("$metadata")
    equal(reported, expected)


@suite.case("twin", "a desired patch comes as it was sent")
def _():
    device = new_device()
    device.desire({"old": 1})
    with connected(device) as client:
        patches = patches_of(client)
        device.desire({"interval": 5, "old": None, "deep": {"a": {"b": True}}})
        equal(patches.get(timeout=15), {"interval": 5, "old": None, "deep": {"a": {"b": True}}, "$version": 3})


@suite.case("twin", "after a replacement what is gone comes as null")
def _():
    device = new_device()
    device.desire({"a": 1, "b": 2})
    with connected(device) as client:
        patches = patches_of(client)
        device.replace_desired({"a": 1, "c": 100})
        equal(patches.get(timeout=15), {"a": 1, "b": None, "c": 100, "$version": 3})


@suite.case("twin", "what was desired while the device was away comes when it connects")
def _():
    device = new_device()
    with connected(device) as client:
        patches = patches_of(client)
        client.get_twin()
        client.disconnect()
        device.desire({"interval": 7})
        client.connect()
        equal(patches.get(timeout=15)["interval"], 7)


@suite.case("twin", "a patch that breaks a rule is an error")
def _():
    device = new_device()
    with connected(device) as client:
        for patch in ({"bad.key": 1}, {"long": "x" * 4097}, {"big": 2**52}, {"all": ["x" * 4000] * 10}):
            refused(400, lambda: client.patch_twin_reported_properties(patch))
        client.patch_twin_reported_properties({"good": "x" * 4096})
        equal(client.get_twin()["reported"], {"good": "x" * 4096, "$version": 2})


@suite.case("twin", "many requests at once are answered, each with its own")
def _():
    device = new_device()
    with connected(device) as client, ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda number: client.patch_twin_reported_properties({f"p{number}": number}), range(30)))
        twins = list(pool.map(lambda _: client.get_twin(), range(10)))
        equal({twin["reported"]["$version"] for twin in twins}, {31})


@suite.case("twin", "a request that the hub refuses, 429 and 500, is an error")
def _():
    device = new_device()
    with connected(device) as client:
        for status in (429, 500):
            device.fault("fail-twin-requests", status=status)
            refused(status, client.get_twin)
        client.get_twin()


# Direct methods


@suite.case("direct methods", "request and response carry their payloads")
def _():
    device = new_device()
    with connected(device) as client:
        answer_methods(client)
        for payload in ({"delay": 5}, [1, 2], "text", 7, True, {"deep": {"ä": "€"}}):
            answer = device.invoke("reboot", payload=payload)
            equal(answer, {"status": 200, "payload": {"name": "reboot", "given": payload}})


@suite.case("direct methods", "a request without a payload comes as none")
def _():
    device = new_device()
    with connected(device) as client:
        answer_methods(client)
        equal(device.invoke("reboot")["payload"], {"name": "reboot", "given": None})


@suite.case("direct methods", "status and payload of the response are the device's own")
def _():
    device = new_device()
    answers = {"none": (404, None), "text": (500, "no"), "large": (200, {"x": "x" * 100_000})}
    with connected(device) as client:
        answer_methods(client, lambda request: answers[request.name])
        for name, (status, payload) in answers.items():
            equal(device.invoke(name), {"status": status, "payload": payload})


@suite.case("direct methods", "several wait at once")
def _():
    device = new_device()
    with connected(device) as client:
        answer_methods(client)
        callers = [device.invoke_later("m", payload=number) for number in range(20)]
        equal([caller.result()["payload"]["given"] for caller in callers], list(range(20)))


@suite.case("direct methods", "no answer in time is 504 to the caller")
def _():
    device = new_device()
    with connected(device) as client:
        answer_methods(client, lambda request: None)
        equal(fails(hub.Refused, lambda: device.invoke("slow", response_timeout=5)).status, 504)


@suite.case("direct methods", "a device that is away is 404 to the caller, until it comes in time")
def _():
    device = new_device()
    refused = fails(hub.Refused, lambda: device.invoke("m"))
    equal((refused.status, "404103" in refused.text), (404, True))
    caller = device.invoke_later("m", connect_timeout=20, payload=1)
    with connected(device) as client:
        answer_methods(client)
        equal(caller.result()["payload"]["given"], 1)


# Lost connections


@suite.case("reconnect", "everything goes on after a drop, without a word of the application")
def _():
    device = new_device()
    with connected(device, connection_retry_interval=1) as client:
        received, patches, states = messages_of(client), patches_of(client), states_of(client)
        answer_methods(client)
        client.get_twin()
        for number in range(3):
            device.drop()
            wait_for(states, False)
            device.send(f"message {number}")
            wait_for(states, True)
            equal(received.get(timeout=15).data, f"message {number}".encode())
            equal(device.invoke("m", connect_timeout=10, payload=number)["payload"]["given"], number)
            device.desire({"number": number})
            eventually("the patch", lambda: patches.get(timeout=15).get("number") == number)
            client.send_message(f"telemetry {number}")
            assert client.get_twin()["desired"]["number"] == number
    equal([record["body"] for record in device.telemetry(3)], [f"telemetry {number}" for number in range(3)])


@suite.case("reconnect", "what is sent while the connection is down arrives")
def _():
    device = new_device()
    with connected(device, connection_retry_interval=1) as client:
        states = states_of(client)
        device.drop()
        wait_for(states, False)
        client.send_message("late")
    equal(device.telemetry(1)[0]["body"], "late")


@suite.case("reconnect", "a hub that is away for a moment is tried again")
def _():
    device = new_device()
    with connected(device, connection_retry_interval=1) as client:
        states = states_of(client)
        device.fault("refuse-connect", times=2, code=3)
        device.drop()
        wait_for(states, False, True)
        client.send_message("back")
    equal(device.telemetry(1)[0]["body"], "back")


@suite.case("reconnect", "a message whose PUBACK was lost is sent again")
def _():
    device = new_device()
    with connected(device, connection_retry_interval=1) as client:
        device.fault("swallow-puback")
        sender = hub.Later(lambda: client.send_message("again"))
        equal(device.telemetry(1)[0]["body"], "again")
        device.drop()
        sender.result()
    equal(device.telemetry(1)[0]["body"], "again")


@suite.case("reconnect", "the newer of two connections of a device stays")
def _():
    device = new_device()
    with connected(device, connection_retry=False) as older:
        states = states_of(older)
        with connected(device) as newer:
            wait_for(states, False)
            newer.send_message("newer")
            equal(device.telemetry(1)[0]["body"], "newer")


# Credentials


@suite.case("token renewal", "the SDK renews its token, and everything goes on")
def _():
    device = new_device()
    # It renews 120 s before the end, and takes no shorter time to live than what leaves it a moment.
    with connected(device, sastoken_ttl=124) as client:
        received, states = messages_of(client), states_of(client)
        answer_methods(client)
        wait_for(states, False, True)
        device.send("after")
        equal(received.get(timeout=15).data, b"after")
        equal(device.invoke("m", connect_timeout=10, payload=1)["payload"]["given"], 1)
        client.send_message("still here")
    equal(device.telemetry(1)[0]["body"], "still here")


@suite.case("token renewal", "the application gives tokens of its own making")
def _():
    device = new_device()
    client = IoTHubDeviceClient.create_from_sastoken(device.token(124), **OPTIONS)
    asked = threading.Event()
    client.on_new_sastoken_required = asked.set
    with running(client):
        assert asked.wait(15)
        client.update_sastoken(device.token(600))
        client.send_message("by the second token")
    equal(device.telemetry(1)[0]["body"], "by the second token")


@suite.case("credentials", "a wrong key, an unknown device and a disabled one are refused")
def _():
    device = new_device()
    wrong = device.connection_string.replace(device.key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")
    nobody = device.connection_string.replace(device.id, "nobody")
    hub.ask("PUT", f"/devices/{device.id}", {"deviceId": device.id, "status": "disabled"}, {"If-Match": "*"})
    # An update without an authentication made new keys.
    device.key = hub.ask("GET", f"/devices/{device.id}")["authentication"]["symmetricKey"]["primaryKey"]
    for text in (wrong, nobody, device.connection_string):
        client = IoTHubDeviceClient.create_from_connection_string(text, **OPTIONS)
        try:
            fails(exceptions.CredentialError, client.connect)
        finally:
            client.shutdown()


@suite.case("credentials", "the secondary key opens as well")
def _():
    device = new_device()
    keys = hub.ask("GET", f"/devices/{device.id}")["authentication"]["symmetricKey"]
    device.key = keys["secondaryKey"]
    with connected(device) as client:
        client.send_message("x")
    device.telemetry(1)


@suite.case("credentials", "a device that is deleted is cut off")
def _():
    device = new_device()
    with connected(device, connection_retry=False) as client:
        states = states_of(client)
        hub.ask("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"})
        wait_for(states, False)


# The other shape of the same package


@suite.case("asyncio client", "telemetry, messages, twin and methods")
def _():
    device = new_device()

    async def run():
        client = aio.IoTHubDeviceClient.create_from_connection_string(device.connection_string, **OPTIONS)
        received, patches = asyncio.Queue(), asyncio.Queue()

        async def on_method(request):
            answer = MethodResponse.create_from_method_request(request, 200, {"given": request.payload})
            await client.send_method_response(answer)

        client.on_message_received = received.put
        client.on_twin_desired_properties_patch_received = patches.put
        client.on_method_request_received = on_method
        await client.connect()
        try:
            await asyncio.gather(*(client.send_message(f"{number}") for number in range(20)))
            await client.patch_twin_reported_properties({"a": 1})
            equal((await client.get_twin())["reported"], {"a": 1, "$version": 2})
            in_thread = asyncio.to_thread
            await in_thread(device.send, "down")
            equal((await asyncio.wait_for(received.get(), 15)).data, b"down")
            await in_thread(device.desire, {"b": 2})
            equal(await asyncio.wait_for(patches.get(), 15), {"b": 2, "$version": 2})
            answer = await in_thread(lambda: device.invoke("m", connect_timeout=10, payload=3))
            equal(answer, {"status": 200, "payload": {"given": 3}})
        finally:
            await client.shutdown()

    asyncio.run(run())
    device.telemetry(20)


suite.run()
