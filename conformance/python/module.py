"""azure-iot-device as a module: module.py mqtt | module.py ws."""

import queue
import sys
from contextlib import contextmanager

from azure.iot.device import IoTHubModuleClient, Message, MethodResponse
from azure.iot.device import exceptions

import hub
from cases import Suite, equal, fails

WEBSOCKETS = {"mqtt": False, "ws": True}[sys.argv[1]]
suite = Suite("azure-iot-device", "MQTT over WebSocket" if WEBSOCKETS else "MQTT")


def new_module():
    return hub.new_module(f"python-module-{sys.argv[1]}")


@contextmanager
def connected(module, **options):
    client = IoTHubModuleClient.create_from_connection_string(
        module.connection_string, server_verification_cert=hub.CA, websockets=WEBSOCKETS, **options
    )
    try:
        client.connect()
        yield client
    finally:
        client.shutdown()


@suite.case("modules", "telemetry, and telemetry by an output")
def _():
    module = new_module()
    with connected(module) as client:
        client.send_message("plain")
        client.send_message_to_output(Message("by output"), "out")
    plain, by_output = module.telemetry(2)
    equal((plain["body"], by_output["body"]), ("plain", "by output"))
    equal(plain["systemProperties"]["iothub-connection-module-id"], module.module_id)
    equal(by_output["systemProperties"]["on"], "out")


@suite.case("modules", "a twin of its own, both ways")
def _():
    module = new_module()
    module.desire({"a": 1})
    with connected(module) as client:
        patches = queue.Queue()
        client.on_twin_desired_properties_patch_received = patches.put
        equal(client.get_twin()["desired"], {"a": 1, "$version": 2})
        module.desire({"b": 2})
        equal(patches.get(timeout=15), {"b": 2, "$version": 3})
        client.patch_twin_reported_properties({"c": 3})
    equal(module.twin()["properties"]["reported"]["c"], 3)
    equal("c" in hub.Device(module.id).twin()["properties"]["reported"], False)


@suite.case("modules", "direct methods, after a drop as well")
def _():
    module = new_module()
    with connected(module, connection_retry_interval=1) as client:

        def answer(request):
            response = MethodResponse.create_from_method_request(request, 200, {"given": request.payload})
            client.send_method_response(response)

        client.on_method_request_received = answer
        equal(module.invoke("m", payload=1), {"status": 200, "payload": {"given": 1}})
        module.drop()
        equal(module.invoke("m", connect_timeout=10, payload=2), {"status": 200, "payload": {"given": 2}})


@suite.case("modules", "a wrong key is refused")
def _():
    module = new_module()
    module.key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
    client = IoTHubModuleClient.create_from_connection_string(
        module.connection_string, server_verification_cert=hub.CA, websockets=WEBSOCKETS
    )
    try:
        fails(exceptions.CredentialError, client.connect)
    finally:
        client.shutdown()


suite.run()
