"""TLS over loopback: versions, certificates, and those who speak something else."""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from notebook_rpc.transport.addresses import open_tcp
from notebook_rpc.transport.http11 import Limits
from notebook_rpc.transport.listener import Listener
from notebook_rpc.transport.sockets import SocketStream
from notebook_rpc.transport.tls import CannotUse, TlsStream, context_of
from notebook_rpc.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from notebook_rpc.web import Handler

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
BIG = b"x" * 3_000_000


class App:
    def admit(self, _: Request) -> Handler | Response:
        return self.answer

    async def answer(self, request: Request) -> Response:
        return Response(200, (), BIG if request.path == "/big" else b"hello")


class Paths:
    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("localhost")
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


@asynccontextmanager
async def serving(paths: Paths, limits: Limits | None = None) -> AsyncIterator[int]:
    """A server during the block, and its port."""
    listener = Listener(App(), limits, tls=context_of(paths.certificate, paths.key))
    (sock,) = await open_tcp("127.0.0.1", 0)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.serve, [sock])
            yield sock.getsockname()[1]
            listener.drain()
    assert listener.connections == 0


async def connected(port: int, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    plain = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(plain, context, server_hostname="localhost", https_compatible=True)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(plain)
        raise
    return stream


async def until(stream: trio.abc.Stream, end: bytes) -> bytes:
    data = bytearray()
    while not data.endswith(end):
        part = await stream.receive_some()
        assert part, bytes(data[:200])
        data += part
    return bytes(data)


async def test_requests_are_answered_one_after_the_other(paths: Paths) -> None:
    async with serving(paths) as port:
        stream = await connected(port, paths.client())
        for _ in range(3):
            await stream.send_all(GET)
            assert (await until(stream, b"hello")).startswith(b"HTTP/1.1 200")
        await stream.send_all(GET.replace(b"/ ", b"/big "))
        assert len(await until(stream, b"x" * 1000)) > 1000
        await stream.aclose()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_two_versions_are_spoken(paths: Paths, version: ssl.TLSVersion) -> None:
    context = paths.client()
    context.minimum_version = context.maximum_version = version
    async with serving(paths) as port:
        stream = await connected(port, context)
        assert stream.version() == version.name.replace("_", ".")
        await stream.aclose()


async def test_of_the_protocols_a_client_offers_http_1_1_is_chosen(paths: Paths) -> None:
    context = paths.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with serving(paths) as port:
        stream = await connected(port, context)
        assert stream.selected_alpn_protocol() == "http/1.1"
        await stream.aclose()


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
async def test_older_versions_are_not(paths: Paths) -> None:
    context = paths.client()
    context.set_ciphers("ALL:@SECLEVEL=0")  # or this side would refuse it
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(paths) as port:
        with pytest.raises(trio.BrokenResourceError):
            await connected(port, context)


async def test_plain_http_is_told_to_use_https(paths: Paths) -> None:
    async with serving(paths) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(GET)
        with trio.fail_after(0.5):  # it is told at once, not when we give up on it
            answer = b"".join([part async for part in stream])
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"https://" in answer
        await stream.aclose()


@pytest.mark.parametrize(
    "noise", [b"\0" * 9, b"\x16\x03\x01" + b"\xff" * 500, b""], ids=["zeros", "hello", "nothing"]
)
async def test_noise_is_hung_up_on(paths: Paths, noise: bytes) -> None:
    async with serving(paths) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        try:
            await stream.send_all(noise)
            await stream.send_eof()
            while answer := await stream.receive_some():
                assert not answer.startswith(b"HTTP")
        except trio.BrokenResourceError:
            assert noise  # it was reset, having been refused before it was read
        await stream.aclose()
        again = await connected(port, paths.client())
        await again.aclose()


async def test_a_handshake_that_does_not_come_is_not_waited_for(paths: Paths) -> None:
    async with serving(paths, Limits(header_seconds=0.05)) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        assert await stream.receive_some() == b""
        await stream.aclose()


async def test_draining_does_not_wait_for_handshakes(paths: Paths) -> None:
    async with serving(paths) as port:
        silent = await trio.open_tcp_stream("127.0.0.1", port)
        await (await connected(port, paths.client())).aclose()  # so it was accepted, too
    assert await silent.receive_some() == b""
    await silent.aclose()


async def test_a_client_that_leaves_in_mid_answer_hurts_nobody(paths: Paths) -> None:
    async with serving(paths) as port:
        stream = await connected(port, paths.client())
        await stream.send_all(GET.replace(b"/ ", b"/big "))
        await stream.receive_some()
        stream.transport_stream.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
        )
        await trio.aclose_forcefully(stream)


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells")
async def test_that_the_client_has_left_is_known_below_tls(paths: Paths) -> None:
    stream, client = stream_and_client(paths)
    assert not stream.hung_up()
    client.close()
    assert stream.hung_up()
    await trio.aclose_forcefully(stream)


async def test_an_abort_is_a_reset_and_no_end(paths: Paths) -> None:
    stream, client = stream_and_client(paths)
    stream.abort()
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)


def stream_and_client(paths: Paths) -> tuple[TlsStream, socket.socket]:
    """Both ends, before their handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), timeout=5)
        accepted, _ = listening.accept()
    return TlsStream(SocketStream(accepted), context_of(paths.certificate, paths.key)), client


def test_what_cannot_be_used_is_named(paths: Paths, tmp_path: Path) -> None:
    nothing, other = tmp_path / "nothing.pem", tmp_path / "other.pem"
    with pytest.raises(CannotUse, match=r"cannot read .*nothing\.pem: No such file"):
        context_of(paths.certificate, nothing)
    with pytest.raises(CannotUse, match=r"cannot read .*nothing\.pem"):
        context_of(nothing, paths.key)
    with pytest.raises(CannotUse, match=f"cannot read {tmp_path}: not a file"):
        context_of(paths.certificate, tmp_path)
    other.write_bytes(paths.authority.issue_cert("else").private_key_pem.bytes())
    with pytest.raises(CannotUse, match="KEY_VALUES_MISMATCH"):
        context_of(paths.certificate, other)
    other.write_text("nonsense")
    with pytest.raises(CannotUse, match=r"other\.pem and .*key\.pem cannot be used: not PEM"):
        context_of(other, paths.key)


def test_a_key_that_needs_a_passphrase_is_not_waited_for(paths: Paths) -> None:
    key = load_pem_private_key(paths.key.read_bytes(), None)
    locked = BestAvailableEncryption(b"a passphrase")
    paths.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    with pytest.raises(CannotUse, match=r"key\.pem is encrypted, and there is nobody to ask"):
        context_of(paths.certificate, paths.key)
