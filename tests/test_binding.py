"""Where a server listens, and what it refuses to."""

from __future__ import annotations

import datetime
import socket
import ssl
import stat
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from cryptography import x509

import notebook_rpc
from notebook_rpc.binding import (
    CannotBind,
    Refused,
    bind,
    check_safety,
    check_tls,
    removed_at_the_end,
    renewing,
)
from notebook_rpc.settings import ConfigError, Settings

LOOPBACK = ["127.0.0.1", "::1", "localhost", "LOCALHOST", "127.3.2.1"]
OTHERS = ["0.0.0.0", "::", "", "192.0.2.1", "db.example"]


@pytest.fixture
def issued(tmp_path: Path) -> Settings:
    """Settings with a certificate."""
    leaf = trustme.CA().issue_cert("db.example")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(certificate)
    leaf.private_key_pem.write_to_path(key)
    return Settings(port=0, tls_cert=str(certificate), tls_key=str(key))


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_no_protection(host: str) -> None:
    check_safety(Settings(host=host), has_tokens=False)


@pytest.mark.parametrize("host", OTHERS)
def test_any_other_address_needs_tokens_and_tls(host: str, issued: Settings) -> None:
    bare, covered = replace(Settings(), host=host), replace(issued, host=host)
    with pytest.raises(Refused, match=r"without --bearer-token-file and --tls-cert; .*--insecure"):
        check_safety(bare, has_tokens=False)
    with pytest.raises(Refused, match="without --tls-cert; "):
        check_safety(bare, has_tokens=True)
    with pytest.raises(Refused, match="without --bearer-token-file; "):
        check_safety(covered, has_tokens=False)
    check_safety(covered, has_tokens=True)
    check_safety(replace(bare, tls_generate=True), has_tokens=True)


def test_what_is_insecure_is_done_when_meant_and_said_aloud(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_safety(Settings(host="0.0.0.0", insecure=True), has_tokens=True)
    assert "listening on 0.0.0.0 without --tls-cert" in caplog.text


@pytest.mark.parametrize("settings", [{"uds": "/run/x"}, {"stdio": True}])
def test_who_does_not_listen_on_an_address_needs_no_protection(settings: dict[str, object]) -> None:
    check_safety(replace(Settings(host="0.0.0.0"), **settings), has_tokens=False)  # type: ignore[arg-type]


async def test_the_url_says_where(issued: Settings) -> None:
    plain, tls = await bind(Settings(port=0)), await bind(issued)
    assert plain.tls is None
    for binding, scheme in ((plain, "http"), (tls, "https")):
        port = binding.sockets[0].getsockname()[1]
        assert binding.urls == [f"{scheme}://127.0.0.1:{port}/"]
        binding.sockets[0].close()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tls_key": ""}, "need each other"),
        ({"tls_cert": ""}, "need each other"),
        ({"tls_generate": True}, "either --tls-cert or --tls-generate"),
        ({"tls_key": "/nonexistent/key.pem"}, "cannot read /nonexistent/key.pem"),
        ({"uds": "/nonexistent/socket"}, "--uds needs no TLS"),
    ],
)
async def test_what_does_not_fit_together_is_refused(
    issued: Settings, changed: dict[str, object], message: str
) -> None:
    settings = replace(issued, **changed)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        await bind(settings)
    if not settings.uds:
        with pytest.raises(ConfigError, match=message):
            check_tls(settings)
    check_tls(issued)


def names_shown_by(server: ssl.SSLContext) -> list[str]:
    """Whom the certificate is for that a client gets to see."""
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there),
        server.wrap_bio(there, back, server_side=True),
    ]
    for end in ends * 2:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    der = ends[0].getpeercert(binary_form=True)
    assert der is not None
    extensions = x509.load_der_x509_certificate(der).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", []),
        ("127.1.2.3", ["127.1.2.3"]),
        # Nobody gets here by the address that stands for all.
        ("0.0.0.0", [socket.gethostname()]),
    ],
)
async def test_a_certificate_is_made_for_the_address_and_for_loopback(
    host: str, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    binding = await bind(Settings(host=host, port=0, tls_generate=True))
    assert isinstance(binding.tls, ssl.SSLContext)
    assert set(names_shown_by(binding.tls)) == {*names, "localhost", "127.0.0.1", "::1"}
    assert "SHA-256 fingerprint is " in caplog.text
    for sock in binding.sockets:
        sock.close()


def test_without_the_extra_a_certificate_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "notebook_rpc.certificates", None)
    monkeypatch.delattr(notebook_rpc, "certificates", raising=False)
    with pytest.raises(ConfigError, match=r"needs: pip install 'notebook_rpc\[tls\]'"):
        check_tls(Settings(tls_generate=True))


async def test_sockets_that_are_inherited_are_used_as_they_are(
    issued: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        url = f"://127.0.0.1:{tcp.getsockname()[1]}/"
        plain = await bind(Settings(host="192.0.2.1"), [tcp, unix])
        assert plain.sockets == [tcp, unix]
        assert plain.urls == [f"http{url}", f"http+unix://{str(path).replace('/', '%2F')}/"]
        secured = await bind(issued, [tcp])
        assert secured.urls == [f"https{url}"]
        assert secured.tls is not None


async def test_sockets_that_are_inherited_need_protection_like_any_other(issued: Settings) -> None:
    with socket.create_server(("0.0.0.0", 0)) as tcp:
        with pytest.raises(Refused, match="without --bearer-token-file; "):
            await bind(issued, [tcp])
        assert (await bind(issued, [tcp], has_tokens=True)).sockets == [tcp]


# Unix sockets


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def at(path: Path) -> socket.socket:
    binding = await bind(Settings(uds=str(path)))
    return binding.sockets[0]


def shown(server: ssl.SSLContext) -> bytes | None:
    """The certificate that a new connection is shown."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server)
    for side in (theirs, ours, theirs):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return theirs.getpeercert(binary_form=True)


async def test_a_certificate_of_ours_is_replaced_long_before_it_ends(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    binding = await bind(Settings(port=0, tls_generate=True))
    binding.sockets[0].close()
    context = binding.tls
    assert context is not None
    assert binding.beside is not trio.sleep_forever
    began, day = datetime.datetime.now(datetime.UTC), 24 * 3600

    def now() -> datetime.datetime:
        return began + datetime.timedelta(seconds=autojump_clock.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(renewing, context, "db.example", now)
        first = shown(context)
        await trio.sleep(19 * day)
        assert shown(context) == first
        monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
        await trio.sleep(2 * day)
        assert "cannot make a new certificate: " in caplog.text
        assert shown(context) == first
        monkeypatch.undo()
        await trio.sleep(0.1 * day)
        second = shown(context)
        assert second is not None
        assert second != first
        made = x509.load_der_x509_certificate(second)
        assert made.not_valid_after_utc > now() + datetime.timedelta(days=29)
        await trio.sleep(19 * day)
        assert shown(context) == second
        nursery.cancel_scope.cancel()


async def test_only_a_certificate_of_ours_is_replaced(issued: Settings) -> None:
    for settings in (issued, Settings(port=0)):
        binding = await bind(settings)
        assert binding.beside is trio.sleep_forever
        binding.sockets[0].close()


async def test_a_unix_socket_is_its_users_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a b.sock"
    binding = await bind(Settings(uds=str(path)))
    assert binding.urls == [f"http+unix://{str(tmp_path).replace('/', '%2F')}%2Fa%20b.sock/"]
    with removed_at_the_end(str(path)), binding.sockets[0]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert names_in(tmp_path) == ["a b.sock"]
    assert names_in(tmp_path) == []


async def test_what_a_dead_server_has_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (await at(path)).close()
    assert path.exists()
    with await at(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


async def test_what_a_live_server_listens_on_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with await at(path):
        before = path.stat().st_ino
        with pytest.raises(CannotBind, match=r"socket: somebody does already"):
            await at(path)
        assert path.stat().st_ino == before
        assert names_in(tmp_path) == ["socket"]


async def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(CannotBind, match="exists and is no socket"):
        await at(path)
    assert path.read_text() == "data"


@pytest.mark.parametrize("path", ["/nonexistent/socket", "/tmp/" + "x" * 200])  # noqa: S108
async def test_a_path_that_cannot_be_is_an_error_that_has_it(path: str) -> None:
    with pytest.raises(CannotBind, match=f"cannot listen on {path}: "):
        await at(Path(path))


async def test_the_socket_of_the_next_server_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first = await at(path)
    with removed_at_the_end(str(path)):
        first.close()
        second = await at(path)
    assert path.exists()
    second.close()
    path.unlink()
    second = await at(path)
    with removed_at_the_end(str(path)), second:
        path.unlink()  # by somebody else
