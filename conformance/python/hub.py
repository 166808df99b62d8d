"""The cloud side, as the emulator gives it: what came up, what shall go down, what became of it."""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import os
import ssl
import threading
import time
import urllib.parse

from cases import eventually

NAME = os.environ["CONFORMANCE_HUB"]
CA_FILE = os.environ["CONFORMANCE_CA"]
with open(CA_FILE, encoding="ascii") as _file:
    CA = _file.read()
with open(os.environ["CONFORMANCE_HUB_TOKEN_FILE"], encoding="ascii") as _file:
    _TOKEN = _file.read().strip()
with open(os.environ["CONFORMANCE_SERVICE_STRING_FILE"], encoding="ascii") as _file:
    SERVICE = _file.read().strip()

_context = ssl.create_default_context(cafile=CA_FILE)
_numbers = itertools.count(1)


class Refused(Exception):
    """An answer of 300 or more."""

    def __init__(self, method, path, status, text):
        super().__init__(f"{method} {path}: {status} {text}")
        self.status = status
        self.text = text


def request(method, path, body=None, headers=None, host=NAME, authorization=None):
    """Asks, and gives headers and body."""
    headers = {"authorization": authorization or f"Bearer {_TOKEN}", **(headers or {})}
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
        headers["content-type"] = "application/json"
    connection = http.client.HTTPSConnection(host, 443, context=_context, timeout=60)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Refused(method, path, answer.status, text.decode(errors="replace"))
        return answer.headers, text
    finally:
        connection.close()


def ask(method, path, body=None, headers=None):
    """Asks, and gives what the body says as JSON."""
    text = request(method, path, body, headers)[1]
    return json.loads(text) if text else None


class Device:
    """A device, or a module of one, that was made for one case."""

    def __init__(self, device_id, module_id=None, key=None):
        self.id = device_id
        self.module_id = module_id
        self.key = key
        self.twin_path = f"/twins/{device_id}" + (f"/modules/{module_id}" if module_id else "")
        self.mark = telemetry_mark()

    @property
    def connection_string(self):
        module = f";ModuleId={self.module_id}" if self.module_id else ""
        return f"HostName={NAME};DeviceId={self.id}{module};SharedAccessKey={self.key}"

    @property
    def resource(self):
        return f"{NAME}/devices/{self.id}" + (f"/modules/{self.module_id}" if self.module_id else "")

    def token(self, seconds, key=None):
        return signature(self.resource, key or self.key, seconds)

    def telemetry(self, count):
        """The next `count` records of it."""
        records, deadline = [], time.monotonic() + 15
        while len(records) < count:
            assert time.monotonic() < deadline, f"{len(records)} of {count} messages came to the hub in 15 s"
            headers, text = request("GET", f"/emulator/telemetry?from={self.mark}&wait=5")
            self.mark = int(headers["emulator-next"])
            all_records = [json.loads(line) for line in text.splitlines() if line]
            records += [record for record in all_records if self._sent(record)]
        return records

    def _sent(self, record):
        return record["deviceId"] == self.id and record.get("moduleId") == self.module_id

    def send(self, body, **properties):
        """Sends a cloud-to-device message; `messageid="x"` becomes the header iothub-messageid."""
        headers = {f"iothub-{name.replace('_', '-')}": value for name, value in properties.items()}
        return ask("POST", f"/emulator/devices/{self.id}/messages", body, headers)

    def feedback(self, message_id):
        """What became of a message, as its sender hears it."""

        def look():
            for record in ask("GET", "/emulator/feedback"):
                if record["originalMessageId"] == message_id and record["deviceId"] == self.id:
                    return record["statusCode"]
            return None

        return eventually(f"feedback for {message_id}", look)

    def twin(self):
        return ask("GET", self.twin_path)

    def desire(self, patch):
        return ask("PATCH", self.twin_path, {"properties": {"desired": patch}})

    def replace_desired(self, desired):
        return ask("PUT", self.twin_path, {"properties": {"desired": desired}})

    def invoke(self, name, connect_timeout=0, response_timeout=30, **payload):
        """Invokes a direct method; `payload=...` if it shall have one."""
        return ask(
            "POST",
            f"{self.twin_path}/methods",
            {
                "methodName": name,
                "connectTimeoutInSeconds": connect_timeout,
                "responseTimeoutInSeconds": response_timeout,
                **payload,
            },
        )

    def invoke_later(self, name, **options):
        """Invokes it on a thread of its own: the device of the same process has to answer."""
        return Later(lambda: self.invoke(name, **options))

    def is_connected(self):
        return self.twin()["connectionState"] == "Connected"

    def fault(self, kind, times=1, **details):
        """Lets something go wrong for this device."""
        rule = {"device": self.id, "fault": {"kind": kind, **details}}
        if times is not None:
            rule["times"] = times
        return ask("POST", "/emulator/faults", rule)

    def drop(self):
        """Cuts its connection."""
        return self.fault("drop-connection", times=None)


class Later:
    """What a thread will have done."""

    def __init__(self, act):
        self._outcome = None
        self._thread = threading.Thread(target=self._run, args=(act,), daemon=True)
        self._thread.start()

    def _run(self, act):
        try:
            self._outcome = (act(), None)
        except Exception as raised:  # It is raised again where it is asked for.
            self._outcome = (None, raised)

    def result(self):
        self._thread.join(35)
        assert self._outcome is not None, "no answer in 35 s"
        value, raised = self._outcome
        if raised is not None:
            raise raised
        return value


def new_id(suite):
    """A device id that no other suite and no other case has."""
    return f"{suite}-{next(_numbers)}"


def new_device(suite, authentication=None):
    """A device with keys of its own, or with the given authentication."""
    device_id = new_id(suite)
    return Device(device_id, key=_put(f"/devices/{device_id}", {"deviceId": device_id}, authentication))


def new_module(suite, authentication=None, module_id="part"):
    device_id = new_device(suite).id
    body = {"deviceId": device_id, "moduleId": module_id}
    return Device(device_id, module_id, _put(f"/devices/{device_id}/modules/{module_id}", body, authentication))


def telemetry_mark():
    """Where the telemetry ends that has come so far."""
    mark = 1
    while True:
        headers, _ = request("GET", f"/emulator/telemetry?from={mark}")
        if int(headers["emulator-next"]) == mark:
            return mark
        mark = int(headers["emulator-next"])


def signature(resource, key, seconds, policy=None):
    """A shared access signature as Azure's documentation makes it."""
    encoded = urllib.parse.quote(resource, safe="")
    end = int(time.time()) + seconds
    signed = hmac.new(base64.b64decode(key), f"{encoded}\n{end}".encode(), hashlib.sha256).digest()
    quoted = urllib.parse.quote(base64.b64encode(signed), safe="")
    return f"SharedAccessSignature sr={encoded}&sig={quoted}&se={end}" + (f"&skn={policy}" if policy else "")


def _put(path, body, authentication):
    if authentication:
        body["authentication"] = authentication
    made = ask("PUT", path, body)
    return made["authentication"].get("symmetricKey", {}).get("primaryKey")
