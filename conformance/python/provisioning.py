"""azure-iot-device registers with the provisioning service, and goes where it is sent: provisioning.py mqtt | provisioning.py ws."""

import base64
import hashlib
import hmac
import os
import sys
from contextlib import contextmanager

from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient
from azure.iot.device import exceptions

import hub
from cases import Suite, equal, fails
from certificates import Certificate

WEBSOCKETS = {"mqtt": False, "ws": True}[sys.argv[1]]
SCOPE = os.environ["CONFORMANCE_ID_SCOPE"]
HUBS = os.environ["CONFORMANCE_HUBS"].split(",")
OPTIONS = {"server_verification_cert": hub.CA, "websockets": WEBSOCKETS}
with open(os.environ["CONFORMANCE_DPS_STRING_FILE"], encoding="ascii") as _file:
    SERVICE = dict(part.split("=", 1) for part in _file.read().strip().split(";"))
HOST = SERVICE["HostName"]
suite = Suite("azure-iot-device", "MQTT over WebSocket" if WEBSOCKETS else "MQTT")


def new_id():
    return hub.new_id(f"python-dps-{sys.argv[1]}")


def enroll(path, body):
    """Makes an enrollment, as an operator does."""
    policy = SERVICE["SharedAccessKeyName"]
    token = hub.signature(HOST, SERVICE["SharedAccessKey"], 600, policy)
    hub.request("PUT", f"/{path}?api-version=2021-10-01", body, host=HOST, authorization=token)


def individual(registration_id, attestation, **more):
    enroll(f"enrollments/{registration_id}", {"registrationId": registration_id, "attestation": attestation, **more})


def group(group_id, attestation, **more):
    enroll(f"enrollmentGroups/{group_id}", {"enrollmentGroupId": group_id, "attestation": attestation, **more})


def by_key(*keys):
    primary, secondary = (keys * 2)[:2]
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}


def new_key():
    return base64.b64encode(os.urandom(32)).decode()


def derived(key, registration_id):
    signed = hmac.new(base64.b64decode(key), registration_id.encode(), hashlib.sha256)
    return base64.b64encode(signed.digest()).decode()


def with_key(registration_id, key):
    return ProvisioningDeviceClient.create_from_symmetric_key(
        provisioning_host=HOST, registration_id=registration_id, id_scope=SCOPE, symmetric_key=key, **OPTIONS
    )


def with_certificate(registration_id, certificate):
    return ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=HOST, registration_id=registration_id, id_scope=SCOPE, x509=certificate.x509, **OPTIONS
    )


def assigned(client, device_id):
    """The hub that the registration names."""
    result = client.register()
    equal((result.status, result.registration_state.device_id), ("assigned", device_id))
    return result.registration_state.assigned_hub


def sends(hub_name, device_id, key=None, certificate=None):
    """The device is known where it was sent."""
    if certificate:
        client = IoTHubDeviceClient.create_from_x509_certificate(
            x509=certificate.x509, hostname=hub_name, device_id=device_id, **OPTIONS
        )
    else:
        client = IoTHubDeviceClient.create_from_symmetric_key(key, hub_name, device_id, **OPTIONS)
    with shut_down(client):
        client.send_message("hello")


@contextmanager
def shut_down(client):
    try:
        yield
    finally:
        client.shutdown()


@suite.case("provisioning", "an individual enrollment by key")
def _():
    registration_id, key = new_id(), new_key()
    twin = {"tags": {"site": "a"}, "properties": {"desired": {"interval": 5}}}
    individual(registration_id, by_key(key), allocationPolicy="static", iotHubs=[hub.NAME], initialTwin=twin)
    client = with_key(registration_id, key)
    client.provisioning_payload = {"modelId": "dtmi:com:example:Thermostat;1"}
    equal(assigned(client, registration_id), hub.NAME)
    device = hub.Device(registration_id, key=key)
    sends(hub.NAME, registration_id, key)
    equal(device.telemetry(1)[0]["body"], "hello")
    seen = device.twin()
    equal((seen["tags"], seen["properties"]["desired"]["interval"]), ({"site": "a"}, 5))


@suite.case("provisioning", "the secondary key opens as well")
def _():
    registration_id, secondary = new_id(), new_key()
    individual(registration_id, by_key(new_key(), secondary))
    assert assigned(with_key(registration_id, secondary), registration_id) in HUBS


@suite.case("provisioning", "a device id of the enrollment's own")
def _():
    registration_id, device_id, key = new_id(), new_id(), new_key()
    individual(registration_id, by_key(key), deviceId=device_id)
    sends(assigned(with_key(registration_id, key), device_id), device_id, key)


@suite.case("provisioning", "a group by a derived key")
def _():
    group_id, key = new_id(), new_key()
    group(group_id, by_key(key))
    for registration_id in (new_id(), new_id()):
        own = derived(key, registration_id)
        sends(assigned(with_key(registration_id, own), registration_id), registration_id, own)


@suite.case("provisioning", "an individual enrollment by certificate")
def _():
    registration_id = new_id()
    certificate = Certificate(registration_id)
    individual(registration_id, {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": certificate.pem}}}})
    sends(assigned(with_certificate(registration_id, certificate), registration_id), registration_id, certificate=certificate)


@suite.case("provisioning", "a group by an authority that signed")
def _():
    group_id, registration_id = new_id(), new_id()
    authority = Certificate(f"{group_id}-ca")
    group(group_id, {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": authority.pem}}}})
    hub.request("POST", "/emulator/certificates", authority.pem)
    certificate = Certificate(registration_id, authority.name)
    equal(assigned(with_certificate(registration_id, certificate), registration_id) in HUBS, True)


@suite.case("provisioning", "to the one and to the other hub")
def _():
    for hub_name in HUBS:
        registration_id, key = new_id(), new_key()
        individual(registration_id, by_key(key), allocationPolicy="static", iotHubs=[hub_name])
        equal(assigned(with_key(registration_id, key), registration_id), hub_name)
        sends(hub_name, registration_id, key)


@suite.case("provisioning", "who registers again goes where it was sent")
def _():
    registration_id, key = new_id(), new_key()
    individual(registration_id, by_key(key))
    first = assigned(with_key(registration_id, key), registration_id)
    equal(assigned(with_key(registration_id, key), registration_id), first)


@suite.case("provisioning", "a wrong key, an unknown registration and a disabled enrollment are refused")
def _():
    known, disabled, key = new_id(), new_id(), new_key()
    individual(known, by_key(key))
    individual(disabled, by_key(key), provisioningStatus="disabled")
    for client in (with_key(known, new_key()), with_key(new_id(), key)):
        fails((exceptions.ClientError, exceptions.ServiceError), client.register)
    try:
        result = with_key(disabled, key).register()
        assert result.status != "assigned", result.status
    except (exceptions.ClientError, exceptions.ServiceError):
        pass


suite.run()
