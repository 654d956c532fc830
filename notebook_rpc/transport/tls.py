"""TLS on a connection: the handshake, and the stream behind it.

Python's ``ssl`` does all of it; what is added is a limit of time, a plain answer for those who
speak plain HTTP to the wrong port, and an abort that nobody takes for the end.
"""

from __future__ import annotations

import errno
import logging
import ssl
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pathlib import Path

    from notebook_rpc.transport.sockets import SocketStream

logger = logging.getLogger(__name__)

PLAIN = b"This port speaks HTTPS: try https:// instead of http://.\n"
WRONG_SCHEME = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(PLAIN), PLAIN)
)


class CannotUse(Exception):
    """A certificate or its key cannot be used; the message says which and why."""


def context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server that shows *certificate*, with the chain behind it, both in PEM.

    Raises:
        CannotUse: one of the files cannot be read, or they do not fit together.
    """

    def no_passphrase() -> str:
        raise CannotUse(f"{key} is encrypted, and there is nobody to ask for its passphrase")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in (certificate, key):
        try:
            if path.exists() and not path.is_file():  # a pipe would keep us waiting
                raise OSError(errno.EINVAL, "not a file")
            path.open("rb").close()
        except OSError as exc:
            raise CannotUse(f"cannot read {path}: {exc.strerror}") from exc
    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except (ssl.SSLError, ValueError) as exc:
        reason = getattr(exc, "reason", None) or "not PEM"
        raise CannotUse(f"{certificate} and {key} cannot be used: {reason}") from exc
    return context


class TlsStream(trio.abc.Stream):
    """What a connection reads and writes after the handshake."""

    def __init__(self, transport: SocketStream, context: ssl.SSLContext) -> None:
        self._transport = transport
        # https_compatible: nobody waits for the other's goodbye (RFC 2818, 2.2.1).
        self._secured = trio.SSLStream(transport, context, server_side=True, https_compatible=True)

    async def do_handshake(self) -> None:
        await self._secured.do_handshake()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._secured.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._secured.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._secured.receive_some(max_bytes)

    def hung_up(self) -> bool:
        return self._transport.hung_up()

    def abort(self) -> None:
        """Without a goodbye, so that nobody takes what was sent for whole."""
        self._transport.abort()

    async def aclose(self) -> None:
        await self._secured.aclose()


async def secured(
    transport: SocketStream, context: ssl.SSLContext, seconds: float
) -> TlsStream | None:
    """The stream behind the handshake; None if it failed or took longer than *seconds*, and
    *transport* is closed."""
    stream = TlsStream(transport, context)
    with trio.move_on_after(seconds):
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as exc:
            reason = getattr(exc.__cause__, "reason", None)
            logger.debug("a TLS handshake failed: %s", reason or exc.__cause__)
            if reason == "HTTP_REQUEST":
                await _answer_plainly(transport)
        else:
            return stream
    await trio.aclose_forcefully(transport)
    return None


async def _answer_plainly(transport: SocketStream) -> None:
    """Say that it is the wrong port, and read on a moment: a close with bytes unread is
    a reset, which can overtake the answer."""
    with trio.move_on_after(1):
        try:
            await transport.send_all(WRONG_SCHEME)
            await transport.send_eof()
            while await transport.receive_some():
                continue
        except trio.BrokenResourceError:
            logger.debug("it left by itself")
