"""The certificate for one run: for whom, for how long, and that clients accept it."""

from __future__ import annotations

import datetime
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from notebook_rpc.certificates import make
from notebook_rpc.transport.tls import context_of

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.datetime(2026, 2, 28, 12, tzinfo=datetime.UTC)


def test_it_is_for_its_hosts_and_loopback_and_ends_soon() -> None:
    certificate = x509.load_pem_x509_certificate(make(["db.example", "192.0.2.1"], NOW).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["db.example", "localhost"]
    addresses = names.get_values_for_type(x509.IPAddress)
    assert [str(address) for address in addresses] == ["192.0.2.1", "127.0.0.1", "::1"]
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc
    assert certificate.not_valid_after_utc - NOW <= datetime.timedelta(days=30)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_the_fingerprint_is_the_certificates() -> None:
    made = make([], NOW)
    der = ssl.PEM_cert_to_DER_cert(made.certificate.decode())
    own = x509.load_der_x509_certificate(der)
    assert made.fingerprint.replace(":", "") == own.fingerprint(hashes.SHA256()).hex().upper()
    assert make([], NOW).fingerprint != made.fingerprint


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "db.example"])
def test_a_client_that_trusts_it_accepts_it(host: str, tmp_path: Path) -> None:
    made = make(["db.example"], datetime.datetime.now(datetime.UTC))
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    certificate.write_bytes(made.certificate)
    key.write_bytes(made.key)
    client = ssl.create_default_context(cadata=made.certificate.decode())
    shake_hands(context_of(certificate, key), client, host)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(context_of(certificate, key), client, "other.example")


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """In memory, until both are content."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
