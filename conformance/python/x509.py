"""azure-iot-device as a device and as a module that have certificates: x509.py mqtt | x509.py ws."""

import sys
from contextlib import contextmanager

from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient
from azure.iot.device import exceptions

import hub
from cases import Suite, equal, fails
from certificates import Certificate, authority, self_signed

WEBSOCKETS = {"mqtt": False, "ws": True}[sys.argv[1]]
NAME = f"python-x509-{sys.argv[1]}"
suite = Suite("azure-iot-device", "MQTT over WebSocket" if WEBSOCKETS else "MQTT")


@contextmanager
def client_of(device, certificate):
    options = {
        "x509": certificate.x509,
        "hostname": hub.NAME,
        "device_id": device.id,
        "server_verification_cert": hub.CA,
        "websockets": WEBSOCKETS,
    }
    if device.module_id:
        client = IoTHubModuleClient.create_from_x509_certificate(module_id=device.module_id, **options)
    else:
        client = IoTHubDeviceClient.create_from_x509_certificate(**options)
    try:
        yield client
    finally:
        client.shutdown()


def sends(device, certificate):
    with client_of(device, certificate) as client:
        client.send_message("x")
    equal(device.telemetry(1)[0]["body"], "x")


def is_refused(device, certificate):
    with client_of(device, certificate) as client:
        fails(exceptions.CredentialError, client.connect)


@suite.case("X.509", "a certificate by its thumbprint, the first and the second")
def _():
    first, second = Certificate(f"{NAME}-first"), Certificate(f"{NAME}-second")
    device = hub.new_device(NAME, self_signed(first.thumbprint, second.thumbprint))
    sends(device, first)
    sends(device, second)


@suite.case("X.509", "a certificate that the hub does not know is refused")
def _():
    device = hub.new_device(NAME, self_signed(Certificate(f"{NAME}-known").thumbprint))
    is_refused(device, Certificate(f"{NAME}-unknown"))


@suite.case("X.509", "a certificate of an authority that the hub trusts")
def _():
    device = hub.new_device(NAME, {"type": "certificateAuthority"})
    sends(device, Certificate(device.id, authority(NAME)))


@suite.case("X.509", "a certificate of another device, and of another authority, are refused")
def _():
    device = hub.new_device(NAME, {"type": "certificateAuthority"})
    is_refused(device, Certificate(f"{device.id}-other", authority(NAME)))
    is_refused(device, Certificate(device.id, Certificate(f"{NAME}-strange-ca").name))


@suite.case("X.509", "a module by its thumbprint")
def _():
    certificate = Certificate(f"{NAME}-module")
    sends(hub.new_module(NAME, self_signed(certificate.thumbprint)), certificate)


suite.run()
