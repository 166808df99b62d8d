"""Certificates for devices, made by openssl."""

import os
import subprocess
from pathlib import Path

from azure.iot.device import X509

import hub

_FOLDER = Path(os.environ["CONFORMANCE_CERTIFICATES"])
_SCRIPT = Path(__file__).parent.parent / "certificate"
_authorities = {}


class Certificate:
    """A certificate of its own, or one that is signed by another."""

    def __init__(self, name, issuer=None):
        self.name = name
        command = [_SCRIPT, _FOLDER, name] + ([issuer] if issuer else [])
        self.thumbprint = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        self.file = _FOLDER / f"{name}.pem"
        self.pem = self.file.read_text(encoding="ascii")

    @property
    def x509(self):
        """As the SDK takes it."""
        return X509(cert_file=str(self.file), key_file=str(_FOLDER / f"{self.name}.key"))


def authority(suite):
    """The name of an authority that the hub trusts."""
    if suite not in _authorities:
        made = Certificate(f"{suite}-ca")
        hub.request("POST", "/emulator/certificates", made.pem)
        _authorities[suite] = made.name
    return _authorities[suite]


def self_signed(primary, secondary=None):
    """The authentication of a device that proves itself by its thumbprint."""
    thumbprints = {"primaryThumbprint": primary, "secondaryThumbprint": secondary or primary}
    return {"type": "selfSigned", "x509Thumbprint": thumbprints}
