"""A table of host names for one process, as /etc/hosts is for a machine: CONFORMANCE_HOSTS=name=address,...

Python loads it at its start from PYTHONPATH. It changes the look-up of names, never the client that is judged.
"""

import os
import socket

_addresses = dict(entry.split("=") for entry in os.environ.get("CONFORMANCE_HOSTS", "").split(",") if entry)
_look_up = socket.getaddrinfo


def _getaddrinfo(host, *arguments, **options):
    return _look_up(_addresses.get(host, host), *arguments, **options)


socket.getaddrinfo = _getaddrinfo
