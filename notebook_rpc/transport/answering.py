"""How an answer goes onto the stream of an HTTP/1.1 connection: whole, in pieces, or as it is made.

Refuses to know what is read from the stream, and when the connection ends: ``http11.py`` does.
"""

from __future__ import annotations

import enum
import logging
import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import trio

from notebook_rpc.transport.responses import PIECE, HeadWriter, pieces, wants_close
from notebook_rpc.web import BrokenOff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.transport.http11 import Limits
    from notebook_rpc.transport.inbox import Inbox
    from notebook_rpc.transport.requests import Head
    from notebook_rpc.web import Response, Stream

logger = logging.getLogger(__name__)


@runtime_checkable
class SupportsSendNow(Protocol):
    """Capability of a stream: send what goes without waiting, and say how much went."""

    def send_now(self, data: bytes | memoryview, /) -> int: ...


class Phase(enum.Enum):
    """What a connection is doing, which is also what a deadline that passes means."""

    IDLE, HEAD, BODY, ANSWERING, SENDING, DISCARDING, CONVERSING = range(7)


class Answering:
    """The half of a connection that sends. ``Connection`` is the other."""

    __slots__ = (
        "_draining",
        "_endless",
        "_heads",
        "_inbox",
        "_limits",
        "_phase",
        "_scope",
        "_send_now",
        "_stream",
    )
    _inbox: Inbox

    def __init__(self, stream: trio.abc.Stream, limits: Limits, heads: HeadWriter) -> None:
        self._stream = stream
        self._send_now = stream.send_now if isinstance(stream, SupportsSendNow) else None
        self._limits = limits
        self._heads = heads
        self._phase = Phase.IDLE
        self._draining = False
        self._endless: trio.CancelScope | None = None  # of a body that ends only when we stop
        # One scope for all that may be cut short: its deadline moves from phase to phase,
        # as whatever ends a phase ends the connection. A scope each would cost 7 us each.
        self._scope = trio.CancelScope()

    async def _respond(self, head: Head, response: Response, *, close: bool = False) -> bool:
        """Send *response*. False: it was the last one on this connection."""
        body, status = response.body, response.status
        asked_to_close = wants_close(response)
        close = close or asked_to_close or self._draining or not head.keep_alive
        framing = b"connection: close\r\n" if close and not asked_to_close else b""
        bodiless = head.method == "HEAD" or status in (204, 304)
        if callable(body):
            if response.length is not None and status not in (204, 304):
                framing += b"content-length: %d\r\n" % response.length
            elif not bodiless and not head.http10:
                framing += b"transfer-encoding: chunked\r\n"
            opening = self._heads.write(status, response.headers, framing)
            if not bodiless:
                whole = await self._stream_out(
                    head, opening, body, response.length, endless=response.endless
                )
                return whole and not close
            body, length = b"", 0
        else:
            length = len(body) if isinstance(body, bytes) else sum(map(len, body))
            if status not in (204, 304):
                framing += b"content-length: %d\r\n" % length
            opening = self._heads.write(status, response.headers, framing)
        self._phase = Phase.SENDING
        if bodiless:
            await self._send(opening)
        elif len(opening) + length <= PIECE:
            await self._send(
                b"".join((opening, body) if isinstance(body, bytes) else (opening, *body))
            )
        else:
            await self._send_many(pieces(opening, (body,) if isinstance(body, bytes) else body))
        self._phase = Phase.IDLE
        return not close

    async def _stream_out(
        self, head: Head, opening: bytes, body: Stream, length: int | None, *, endless: bool
    ) -> bool:
        """Send a body that is written as it goes. False: it broke off."""
        halfway = False
        left = length
        chunked = length is None and not head.http10

        async def send(piece: bytes) -> None:
            nonlocal halfway, left
            if left is not None:
                left -= len(piece)
                if left < 0:
                    raise ValueError(f"a body is longer than {length} bytes, as was said")
            for start in range(0, len(piece), PIECE):
                part = piece[start : start + PIECE]
                data = b"%x\r\n%b\r\n" % (len(part), part) if chunked else part
                await trio.lowlevel.checkpoint()
                halfway = True
                try:
                    await self._send(data)
                except trio.BrokenResourceError:
                    self._scope.cancel()  # as if the watch had seen it
                    await trio.lowlevel.checkpoint()
                    raise
                halfway = False
                if self._scope.deadline != math.inf:
                    self._scope.deadline = math.inf

        async def until_drained() -> None:
            with trio.CancelScope() as self._endless:
                if self._draining:
                    self._endless.cancel()
                await body(send)
            if self._endless.cancelled_caught and halfway:
                raise BrokenOff("the server stops, and does not wait for who does not read")

        async def write_out() -> bool:
            try:
                await (until_drained() if endless else body(send))
                if left:
                    raise BrokenOff(f"{left} bytes are missing")
            except BrokenOff as exc:
                logger.warning("the body of %s %r broke off: %s", head.method, head.path, exc)
                return False
            except Exception:  # as above
                logger.exception("the body of %s %r broke off", head.method, head.path)
                return False
            return True

        self._phase = Phase.SENDING
        # At once, without waiting for a first piece: an EventSource opens on the head.
        await self._send(opening)
        if not await self._inbox.attend(write_out()):
            return False
        if chunked:
            await self._send(b"0\r\n\r\n")
        self._phase = Phase.IDLE
        return True

    async def _send_many(self, parts: Iterator[bytes | memoryview]) -> None:
        for part in parts:
            await self._send(part)
            await trio.lowlevel.checkpoint()

    async def _send(self, data: bytes | memoryview) -> None:
        if self._send_now is not None:
            sent = self._send_now(data)
            if sent == len(data):  # most answers; there is nothing to wait for, nor to time
                return
            data = memoryview(data)[sent:]
        self._allow(self._limits.send_seconds)
        await self._stream.send_all(data)

    def _allow(self, seconds: float) -> None:
        """Give what comes next this long. Moving a deadline costs 2 us: one that is right
        to within a 64th stays."""
        scope, wanted = self._scope, trio.current_time() + seconds
        if not 0 <= wanted - scope.deadline <= seconds / 64:
            scope.deadline = wanted
