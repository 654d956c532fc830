"""A certificate for one run of the server, signed by itself.

It protects against listeners, and against impostors only those who compare its fingerprint.
"""

from __future__ import annotations

import datetime
import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable

VALID: Final = datetime.timedelta(days=30)
FRESH: Final = VALID * 2 / 3  # until it is time for the next one
EARLY: Final = datetime.timedelta(hours=1)  # for clients whose clocks are slow
ALWAYS: Final = ("localhost", "127.0.0.1", "::1")


class Made(NamedTuple):
    """Certificate and key in PEM; ``fingerprint`` is the certificate's SHA-256, as browsers and
    ``openssl x509 -fingerprint`` show it."""

    certificate: bytes
    key: bytes
    fingerprint: str


def make(hosts: Iterable[str], now: datetime.datetime) -> Made:
    """A certificate of an ECDSA key on P-256 for *hosts*, which are names or addresses, and for
    what loopback is called."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "notebook_rpc")])
    names = [_name(host) for host in dict.fromkeys((*hosts, *ALWAYS))]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8
    return Made(
        certificate.public_bytes(pem),
        key.private_bytes(pem, private, serialization.NoEncryption()),
        certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
