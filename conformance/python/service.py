"""azure-iot-hub: everything that it does over HTTPS."""

import datetime

from azure.iot.device import IoTHubDeviceClient, MethodResponse
from azure.iot.hub import DigitalTwinClient, IoTHubConfigurationManager, IoTHubHttpRuntimeManager
from azure.iot.hub import IoTHubJobManager, IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Configuration, ExportImportDevice, JobRequest
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties
from msrest.exceptions import HttpOperationError

import hub
from cases import Suite, equal, eventually, fails

suite = Suite("azure-iot-hub", "HTTPS")
registry = IoTHubRegistryManager.from_connection_string(hub.SERVICE)
jobs = IoTHubJobManager.from_connection_string(hub.SERVICE)
runtime = IoTHubHttpRuntimeManager.from_connection_string(hub.SERVICE)


def new_id():
    return hub.new_id("python-service")


def made(device_id=None):
    return registry.create_device_with_sas(device_id or new_id(), "", "", "enabled")


def refused(status, act):
    raised = fails(HttpOperationError, act)
    equal(raised.response.status_code, status)
    return raised.response.text


def ask(text, **options):
    return registry.query_iot_hub(QuerySpecification(query=text), **options)


@suite.case("registry", "a device is created, read, updated and deleted")
def _():
    device = made()
    read = registry.get_device(device.device_id)
    equal(read.generation_id, device.generation_id)
    equal(read.connection_state, "Disconnected")
    keys = read.authentication.symmetric_key
    updated = registry.update_device_with_sas(
        device.device_id, read.etag, keys.primary_key, keys.secondary_key, "disabled", status_reason="lost"
    )
    equal((updated.status, updated.status_reason), ("disabled", "lost"))
    equal(registry.get_device(device.device_id).authentication.symmetric_key.primary_key, keys.primary_key)
    registry.delete_device(device.device_id)
    refused(404, lambda: registry.get_device(device.device_id))


@suite.case("registry", "an ETag of yesterday, a device that is there already, and one that is not")
def _():
    device = made()
    keys = device.authentication.symmetric_key

    def update(etag):
        registry.update_device_with_sas(device.device_id, etag, keys.primary_key, keys.secondary_key, "enabled")

    refused(412, lambda: update("AAAAAAAAAAE="))
    refused(409, lambda: made(device.device_id))
    refused(404, lambda: registry.delete_device(new_id()))


@suite.case("registry", "devices by certificate")
def _():
    device_id = new_id()
    device = registry.create_device_with_x509(device_id, "A" * 40, "B" * 64, "enabled")
    equal(device.authentication.type, "selfSigned")
    equal(device.authentication.x509_thumbprint.primary_thumbprint, "A" * 40)
    registry.update_device_with_x509(device_id, device.etag, "C" * 40, "D" * 40, "enabled")
    equal(registry.get_device(device_id).authentication.x509_thumbprint.secondary_thumbprint, "D" * 40)
    device = registry.create_device_with_certificate_authority(new_id(), "enabled")
    equal(device.authentication.type, "certificateAuthority")


@suite.case("registry", "devices are listed, at most as many as asked for")
def _():
    for _ in range(3):
        made()
    equal(len(registry.get_devices(2)), 2)


@suite.case("statistics", "of the registry and of the connections")
def _():
    before = registry.get_device_registry_statistics().total_device_count
    made()
    assert registry.get_device_registry_statistics().total_device_count > before - 100
    assert registry.get_service_statistics().connected_device_count >= 0


@suite.case("bulk", "devices are created and deleted in one request")
def _():
    ids = [new_id() for _ in range(3)]
    create = [ExportImportDevice(id=one, import_mode="create", status="enabled") for one in ids]
    equal(registry.bulk_create_or_update_devices(create).is_successful, True)
    equal(registry.get_device(ids[2]).device_id, ids[2])
    again = registry.bulk_create_or_update_devices(create[:1])
    equal((again.is_successful, [error.device_id for error in again.errors]), (False, ids[:1]))
    delete = [ExportImportDevice(id=one, import_mode="delete") for one in ids]
    equal(registry.bulk_create_or_update_devices(delete).is_successful, True)
    refused(404, lambda: registry.get_device(ids[0]))


@suite.case("modules", "are created, read, listed, updated and deleted")
def _():
    device_id = made().device_id
    module = registry.create_module_with_sas(device_id, "one", "someone", "", "")
    registry.create_module_with_x509(device_id, "two", "", "A" * 40, "B" * 40)
    registry.create_module_with_certificate_authority(device_id, "three", "")
    equal(sorted(one.module_id for one in registry.get_modules(device_id)), ["one", "three", "two"])
    keys = module.authentication.symmetric_key
    updated = registry.update_module_with_sas(
        device_id, "one", "other", module.etag, keys.primary_key, keys.secondary_key
    )
    equal(updated.managed_by, "other")
    registry.delete_module(device_id, "two")
    refused(404, lambda: registry.get_module(device_id, "two"))


@suite.case("twins", "tags and desired properties, by their ETag")
def _():
    device_id = made().device_id
    twin = registry.get_twin(device_id)
    patch = Twin(tags={"site": "a"}, properties=TwinProperties(desired={"interval": 5}))
    patched = registry.update_twin(device_id, patch, twin.etag)
    equal((patched.tags, patched.properties.desired["interval"]), ({"site": "a"}, 5))
    refused(412, lambda: registry.update_twin(device_id, patch, twin.etag))
    replaced = registry.replace_twin(device_id, Twin(tags={}, properties=TwinProperties(desired={"b": 1})))
    equal((replaced.tags, "interval" in replaced.properties.desired), ({}, False))


@suite.case("twins", "of a module")
def _():
    device_id = made().device_id
    registry.create_module_with_sas(device_id, "part", "", "", "")
    registry.update_module_twin(device_id, "part", Twin(tags={"a": 1}))
    equal(registry.get_module_twin(device_id, "part").tags, {"a": 1})
    registry.replace_module_twin(device_id, "part", Twin(tags={"b": 2}))
    equal(registry.get_module_twin(device_id, "part").tags, {"b": 2})


@suite.case("direct methods", "are invoked, and say what the device said")
def _():
    device = hub.new_device("python-service-method")
    method = CloudToDeviceMethod(method_name="m", payload={"a": 1}, response_timeout_in_seconds=10)
    assert "404103" in refused(404, lambda: registry.invoke_device_method(device.id, method))
    with answering(device):
        result = registry.invoke_device_method(device.id, method)
        equal((result.status, result.payload), (207, {"given": {"a": 1}}))


@suite.case("queries", "devices by tags and properties, page by page")
def _():
    site, ids = new_id(), [new_id() for _ in range(5)]
    for number, device_id in enumerate(ids):
        made(device_id)
        registry.update_twin(device_id, Twin(tags={"site": site, "number": number}))
    found, token, pages = [], None, 0
    while True:
        page = ask(f"SELECT * FROM devices WHERE tags.site = '{site}'", continuation_token=token, max_item_count=2)
        equal(page.type, "Twin")
        found += [twin.device_id for twin in page.items]
        token, pages = page.continuation_token, pages + 1
        if not token:
            break
    equal((sorted(found), pages), (sorted(ids), 3))
    where = f"tags.site = '{site}' AND NOT tags.number IN [0, 1] AND STARTSWITH(deviceId, 'python')"
    equal(sorted(row.device_id for row in ask(f"SELECT deviceId FROM devices WHERE {where}").items), sorted(ids[2:]))
    # The SDK makes a twin of every row, so that of this one it shows what it does not know.
    [row] = ask(f"SELECT SUM(tags.number) AS total, COUNT() AS n FROM devices WHERE tags.site = '{site}'").items
    equal(row.additional_properties, {"total": 10, "n": 5})


@suite.case("queries", "what is not understood is refused by name")
def _():
    assert "FROM" in refused(400, lambda: ask("SELECT * FROM nowhere"))
    assert "UPPER" in refused(400, lambda: ask("SELECT * FROM devices WHERE UPPER(deviceId) = 'A'"))


@suite.case("jobs", "a twin update and a direct method, for all that a query finds")
def _():
    site, device = new_id(), hub.new_device("python-service-job")
    registry.update_twin(device.id, Twin(tags={"site": site}))

    def run(**request):
        job_id = new_id()
        now = datetime.datetime.now(datetime.timezone.utc).isoformat()
        job = JobRequest(
            job_id=job_id,
            start_time=now,
            max_execution_time_in_seconds=60,
            query_condition=f"tags.site = '{site}'",
            **request,
        )
        jobs.create_scheduled_job(job_id, job)
        done = eventually("the job", lambda: ended(job_id), 30)
        equal(done.device_job_statistics.succeeded_count, 1)

    run(type="scheduleUpdateTwin", update_twin=Twin(etag="*", properties=TwinProperties(desired={"updated": True})))
    equal(registry.get_twin(device.id).properties.desired["updated"], True)
    with answering(device):
        method = CloudToDeviceMethod(method_name="m", payload=1, response_timeout_in_seconds=10)
        run(type="scheduleDeviceMethod", cloud_to_device_method=method)


def ended(job_id):
    job = jobs.get_scheduled_job(job_id)
    return job if job.status == "completed" else None


@suite.case("jobs", "one that waits is cancelled")
def _():
    device_id, job_id = made().device_id, new_id()
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    job = JobRequest(
        job_id=job_id,
        type="scheduleUpdateTwin",
        update_twin=Twin(etag="*", tags={"a": 1}),
        start_time=later.isoformat(),
        max_execution_time_in_seconds=60,
        query_condition=f"deviceId = '{device_id}'",
    )
    jobs.create_scheduled_job(job_id, job)
    equal(jobs.get_scheduled_job(job_id).status, "scheduled")
    jobs.cancel_scheduled_job(job_id)
    equal(jobs.get_scheduled_job(job_id).status, "cancelled")


@suite.case("feedback and purge", "feedback is received over HTTPS, and settled")
def _():
    device = hub.new_device("python-service-feedback")
    device.send("x", messageid="m", ack="full")
    raw = hub.ask("DELETE", f"/devices/{device.id}/commands")
    equal(raw["totalMessagesPurged"], 1)
    equal(device.feedback("m"), "Purged")
    for settle in (runtime.abandon_feedback_notification, runtime.complete_feedback_notification):
        settle(eventually("a batch of feedback", feedback_lock, 30))
    # The SDK throws away what it receives, the lock token with it.
    runtime.receive_feedback_notification()


def feedback_lock():
    headers, _ = hub.request("GET", "/messages/serviceBound/feedback?api-version=2021-04-12")
    return headers.get("etag", "").strip('"')


@suite.case("refused by name", "configurations, digital twins and import jobs")
def _():
    configurations = IoTHubConfigurationManager.from_connection_string(hub.SERVICE)
    digital_twins = DigitalTwinClient.from_connection_string(hub.SERVICE)
    configuration = Configuration(id="c", schema_version="1.0", target_condition="*", priority=1)
    for act in (
        lambda: configurations.get_configurations(),
        lambda: configurations.create_configuration(configuration),
        lambda: digital_twins.get_digital_twin(made().device_id),
        lambda: jobs.get_import_export_jobs(),
    ):
        assert "not emulated" in refused(501, act).lower()


class answering:
    """While it lasts, the device answers methods with 207."""

    def __init__(self, device):
        self._client = IoTHubDeviceClient.create_from_connection_string(
            device.connection_string, server_verification_cert=hub.CA
        )

    def __enter__(self):
        self._client.connect()
        self._client.on_method_request_received = lambda request: self._client.send_method_response(
            MethodResponse.create_from_method_request(request, 207, {"given": request.payload})
        )

    def __exit__(self, *_):
        self._client.shutdown()


suite.run()
