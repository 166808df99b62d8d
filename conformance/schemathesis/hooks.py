"""What schemathesis cannot know of this API: two media types, a limit, and what a stranger may be told."""

import json
import os

import schemathesis
from schemathesis.specs.openapi import checks

# Failed credentials are counted, and whoever has too many of them is refused as well (`ignored_auth`).
checks.AUTH_REJECTION_STATUSES = (*checks.AUTH_REJECTION_STATUSES, 429)


@schemathesis.serializer("application/vnd.microsoft.iothub.json")
def hub_batch(context, value):
    return as_json(value)


@schemathesis.serializer("application/vnd.tombolo.batch+ndjson")
def lines(context, value):
    """A list is a line for each item; anything else is one line."""
    if isinstance(value, list):
        return b"\n".join(as_json(item) for item in value)
    return as_json(value)


def as_json(value):
    return value if isinstance(value, bytes) else json.dumps(value).encode()


if os.environ.get("TOMBOLO_STRANGER"):

    @schemathesis.check
    def strangers_are_refused(context, response, case):
        """Whoever shows no credential hears that, unless the request is none of this API: the head of a request, its path and
        its method are judged before anybody is asked who he is."""
        if case.path == "/openapi.json":
            return
        allowed = (400, 401, 404, 405, 431)
        assert response.status_code in allowed, f"a stranger was answered {response.status_code}"
        if case.method == case.operation.method.upper() and response.status_code == 405:
            raise AssertionError("the call is there, and is said not to be")
