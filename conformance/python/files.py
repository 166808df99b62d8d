"""azure-iot-device and azure-storage-blob upload files; whatever the transport of the device is, that goes over HTTPS."""

from contextlib import contextmanager

from azure.core.exceptions import HttpResponseError
from azure.iot.device import IoTHubDeviceClient
from azure.iot.device import exceptions
from azure.storage.blob import BlobClient

import hub
from cases import Suite, equal, eventually, fails
from certificates import Certificate, self_signed

suite = Suite("azure-iot-device", "HTTPS")


@contextmanager
def client_of(device):
    client = IoTHubDeviceClient.create_from_connection_string(device.connection_string, server_verification_cert=hub.CA)
    try:
        yield client
    finally:
        client.shutdown()


def new_device():
    return hub.new_device("python-files")


def blob(place, **options):
    # As Microsoft's sample for this SDK makes it: with a name that is encoded the package would take a host with
    # "localhost" in it for a storage emulator, and the container for an account.
    address = f"https://{place['hostName']}/{place['containerName']}/{place['blobName']}{place['sasToken']}"
    return BlobClient.from_blob_url(address, retry_total=0, **options)


def notification_for(device):
    def look():
        notifications = hub.ask("GET", "/emulator/file-notifications")
        return next((one for one in notifications if one["deviceId"] == device.id), None)

    return eventually("the notification", look)


@suite.case("file upload", "a file in three steps")
def _():
    device = new_device()
    with client_of(device) as client:
        place = client.get_storage_info_for_blob("logs/my file.txt")
        equal(place["blobName"], f"{device.id}/logs/my file.txt")
        blob(place).upload_blob(b"some text")
        client.notify_blob_upload_status(place["correlationId"], True, 200, "done")
    notification = notification_for(device)
    equal((notification["blobName"], notification["blobSizeInBytes"]), (f"{device.id}/logs/my file.txt", 9))


@suite.case("file upload", "a large file in blocks")
def _():
    device = new_device()
    content = b"tombolo " * 400_000
    with client_of(device) as client:
        place = client.get_storage_info_for_blob("large.bin")
        blob(place, max_single_put_size=1024 * 1024, max_block_size=1024 * 1024).upload_blob(content)
        client.notify_blob_upload_status(place["correlationId"], True, 200, "done")
    equal(notification_for(device)["blobSizeInBytes"], len(content))


@suite.case("file upload", "a correlation id that the hub did not give is refused")
def _():
    with client_of(new_device()) as client:
        refused = fails(exceptions.ClientError, lambda: client.notify_blob_upload_status("nothing", True, 200, "done"))
        assert "400" in str(refused.__cause__), repr(refused.__cause__)


@suite.case("file upload", "a blob is not written without the signature")
def _():
    with client_of(new_device()) as client:
        place = client.get_storage_info_for_blob("a.txt")
    place["sasToken"] = place["sasToken"].replace("sig=", "sig=AAAA")
    equal(fails(HttpResponseError, lambda: blob(place).upload_blob(b"x")).status_code, 403)


@suite.case("file upload", "by a device that has a certificate")
def _():
    certificate = Certificate("python-files-x509")
    device = hub.new_device("python-files", self_signed(certificate.thumbprint))
    client = IoTHubDeviceClient.create_from_x509_certificate(
        x509=certificate.x509, hostname=hub.NAME, device_id=device.id, server_verification_cert=hub.CA
    )
    try:
        place = client.get_storage_info_for_blob("a.txt")
        blob(place).upload_blob(b"abc")
        client.notify_blob_upload_status(place["correlationId"], True, 200, "done")
    finally:
        client.shutdown()
    equal(notification_for(device)["blobSizeInBytes"], 3)


suite.run()
