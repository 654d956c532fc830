"""One HTTP/1.1 connection: requests off a Trio stream, answers onto it.

A request gets exactly one answer, in order. A client that breaks the protocol or a limit
gets one 4xx (or 501) with an empty body, and the connection is closed. A client that goes
away while its handler runs, or half-closes, cancels the handler.

Refuses to know: sockets (``sockets.py``), routes and rights (the ``App``), what happens on a
WebSocket (``websocket.py``), tunnels and other upgrades, keep-alive for HTTP/1.0.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import trio

from notebook_rpc.transport.answering import Answering, Phase
from notebook_rpc.transport.inbox import Inbox
from notebook_rpc.transport.requests import BLANK_LINE, ChunkedBody, Head, Refused, parse_head
from notebook_rpc.transport.responses import HeadWriter, check_kind
from notebook_rpc.transport.websocket import End, Socket, opening
from notebook_rpc.web import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_rpc.web import Conversation, Handler, Request

logger = logging.getLogger(__name__)

SMALL_REFUSED_BODY = 64 * 1024  # bytes; reading it is cheaper than a new connection


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost. Seconds and bytes.

    A deadline may come early by up to 1/64 of its length.
    """

    header_bytes: int = 64 * 1024  # a request's line and headers; over it 431
    header_seconds: float = 30  # a whole head, from its first byte; over it 408
    idle_seconds: float = 300  # between requests; over it a silent close
    body_bytes: int = 64 * 1024 * 1024  # a request's body; over it 413
    body_seconds: float = 20  # a whole body, and ...
    body_rate: float = 500  # ... a second more for every so many bytes received; over it 408
    send_seconds: float = 60  # to take at most PIECE bytes of an answer; over it cut off
    linger_seconds: float = 5  # to read a refusal, or a farewell, and stop sending
    linger_bytes: int = 64 * 1024 * 1024  # sent meanwhile, and thrown away
    message_bytes: int = 64 * 1024 * 1024  # a message on a WebSocket; over it closed with 1009
    backlog_bytes: int = 4 * 1024 * 1024  # posted on a WebSocket and not yet taken; over it 1008
    ping_seconds: float = 30  # between two pings; after two in vain cut off
    connections: int = 4096  # at once, on all listeners together; over it 503


class App(Protocol):
    """What answers the requests."""

    def admit(self, request: Request, /) -> Handler | Response:
        """Decide on a request by its head; its body is not here yet.

        A response refuses it: nothing more is read of a large body, nor asked for with 100
        Continue. A handler gets the same request, body filled in.
        """
        ...


@runtime_checkable
class SupportsAbort(Protocol):
    """Capability of a stream: close it so that the peer sees an error, never an end."""

    def abort(self) -> None: ...


AFTER = {End.DONE: Phase.IDLE, End.DISCARD: Phase.DISCARDING, End.CUT: Phase.SENDING}
"""What remains to be done when a WebSocket has ended: nothing, lingering, or cutting it off."""


class Connection(Answering):
    """Serves one client. Made and run by one task; ``drain`` may come from any."""

    __slots__ = ("_app", "_remote", "_socket")

    def __init__(
        self,
        stream: trio.abc.Stream,
        app: App,
        limits: Limits,
        heads: HeadWriter,
        remote: str = "",
    ) -> None:
        """*remote* is the address of the client, for those who ask."""
        super().__init__(stream, limits, heads)
        self._remote = remote
        self._app = app
        self._socket: Socket | None = None

    def drain(self) -> None:
        """End soon: at once if idle, else after the answer to the present request or message."""
        self._draining = True
        if self._phase is Phase.IDLE:
            self._scope.cancel()
        elif self._socket is not None:
            self._socket.drain()
        elif self._endless is not None:
            self._endless.cancel()

    async def serve(self) -> None:
        """Serve until either side has had enough; the stream is closed afterwards."""
        try:
            async with trio.open_nursery() as nursery:
                self._inbox = Inbox(self._stream, nursery, self._scope)
                try:
                    with suppress(trio.BrokenResourceError):
                        await self._serve()
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            await self._close()

    async def _serve(self) -> None:
        refused: Refused | None = None
        with self._scope:
            try:
                while await self._exchange():
                    self._phase = Phase.IDLE
            except Refused as exc:
                # Another one: the stack of this one holds on to what was read of a body.
                refused = Refused(exc.status, exc.headers)
        if self._scope.cancelled_caught and self._phase in (Phase.HEAD, Phase.BODY):
            refused = Refused(408)
        if refused is not None:
            self._phase = Phase.DISCARDING
            with trio.move_on_after(self._limits.send_seconds):
                await self._stream.send_all(self._refusal(refused))
        if self._phase is Phase.DISCARDING or (
            self._inbox.buffer and self._phase is not Phase.SENDING
        ):
            await self._linger()

    async def _exchange(self) -> bool:
        """Serve one request. False: the connection is to be closed."""
        raw = await self._next_head()
        if raw is None:
            return False
        head = parse_head(raw)
        request = head.request()
        request.remote = self._remote
        handler = self._admit(request)
        if isinstance(handler, Response):
            return await self._refuse(head, handler)
        if head.length != 0:
            request.body = await self._read_body(head)
        self._phase = Phase.ANSWERING
        response = await self._inbox.attend(self._handle(handler, request))
        try:
            if response.conversation is not None:
                return await self._converse(request, response, response.conversation)
            if response.resources is None:
                return await self._respond(head, response)
            async with response.resources:
                return await self._respond(head, response)
        finally:
            if response.done is not None:
                response.done()

    # Receiving

    async def _next_head(self) -> bytes | None:
        """The bytes of the next head; None if there is none to come."""
        inbox, buffer = self._inbox, self._inbox.buffer
        if buffer:  # pipelined: one client must not keep all others waiting
            self._phase = Phase.HEAD
            self._allow(self._limits.header_seconds)
            await trio.lowlevel.checkpoint()
        searched = 0
        while True:
            while buffer.startswith(b"\r\n"):  # RFC 9112, 2.2: left over from a careless body
                del buffer[:2]
            if buffer:
                if buffer[0] <= 0x20 and buffer != b"\r":  # a TLS hello, for one
                    raise Refused(400)
                if match := BLANK_LINE.search(buffer, searched):
                    if match.end() > self._limits.header_bytes:
                        raise Refused(431)
                    return inbox.take(match.end())
                if len(buffer) > self._limits.header_bytes:
                    raise Refused(431)
                searched = max(0, len(buffer) - 2)
                if self._phase is Phase.IDLE:
                    self._phase = Phase.HEAD
                    self._allow(self._limits.header_seconds)
            elif self._draining:
                return None
            else:
                self._phase = Phase.IDLE
                self._allow(self._limits.idle_seconds)
            if not await self._receive():
                if buffer:
                    raise Refused(400)
                return None

    async def _read_body(self, head: Head) -> bytes:
        if head.length is not None and head.length > self._limits.body_bytes:
            raise Refused(413)
        # RFC 9110, 10.1.1: whoever has begun to send does not wait for it.
        if head.expects_continue and not self._inbox.buffer:
            self._phase = Phase.SENDING
            await self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._phase = Phase.BODY
        if head.length is None:
            return await self._read_chunked()
        return await self._read_counted(head.length)

    async def _read_counted(self, length: int) -> bytes:
        inbox, began = self._inbox, None
        while (received := len(inbox.buffer)) < length:
            began = trio.current_time() if began is None else began
            self._allow_body(began, received)
            if not await self._receive():
                raise Refused(400)
        return inbox.take(length)

    async def _read_chunked(self) -> bytes:
        inbox, began = self._inbox, trio.current_time()
        body = ChunkedBody(self._limits.body_bytes)
        while True:
            self._allow_body(began, len(body.data))
            if not inbox.buffer and not await self._receive():
                raise Refused(400)
            # Small pieces: h11 needs 10 us for a chunk, and a piece may hold 1300 of them.
            rest = body.feed(inbox.take(8 * 1024))
            if rest is not None:
                inbox.buffer[:0] = rest
                return bytes(body.data)
            await trio.lowlevel.checkpoint()

    def _allow_body(self, began: float, received: int) -> None:
        # Apache's RequestReadTimeout: a client that drips may not hold on for ever.
        granted = self._limits.body_seconds + received / self._limits.body_rate
        self._allow(began + granted - trio.current_time())

    async def _receive(self) -> bool:
        """Wait for more in the inbox; False at the end."""
        await self._inbox.receive()
        if self._scope.cancel_called:  # at the same moment: let it be seen in this phase
            await trio.lowlevel.checkpoint()
        return not self._inbox.ended

    # Answering

    def _admit(self, request: Request) -> Handler | Response:
        try:
            admitted = self._app.admit(request)
            if isinstance(admitted, Response):
                check_kind(admitted, request.method)
                self._heads.opening(admitted.status, admitted.headers)
        except Exception:  # the top of a request: whatever it is, this request alone fails
            logger.exception("admitting %s %r failed", request.method, request.path)
            return Response(500)
        return admitted

    async def _handle(self, handler: Handler, request: Request) -> Response:
        response: Response | None = None
        try:
            response = await handler(request)
            check_kind(response, request.method)
            self._heads.opening(response.status, response.headers)
        except Exception:  # as above
            logger.exception("the handler of %s %r failed", request.method, request.path)
            if response is None:
                return Response(500)
            return Response(500, done=response.done, resources=response.resources)
        return response

    async def _refuse(self, head: Head, response: Response) -> bool:
        """Answer instead of a handler, and get rid of the body."""
        small = head.length is not None and head.length <= SMALL_REFUSED_BODY
        # With Expect nobody can tell whether the body will come.
        close = not small or (head.expects_continue and head.length != 0)
        more = await self._respond(head, response, close=close)
        if head.length == 0:
            return more
        self._phase = Phase.DISCARDING
        if head.length is None or not more:
            return False
        with suppress(Refused):  # its answer has been sent
            await self._read_counted(head.length)
            return True
        return False

    async def _converse(
        self, request: Request, response: Response, conversation: Conversation
    ) -> bool:
        """Make a WebSocket of the connection, for the rest of its life."""
        lines, compressed = opening(request)
        self._phase = Phase.SENDING
        await self._send(self._heads.write(response.status, response.headers, lines))
        self._phase = Phase.CONVERSING
        self._scope.deadline = math.inf
        self._socket = Socket(self._stream, self._inbox, self._limits, compressed=compressed)
        if self._draining:
            self._socket.drain()
        end = await self._socket.run(conversation)
        self._phase = AFTER[end]
        return False

    # Ending

    def _refusal(self, refused: Refused) -> bytes:
        framing = b"connection: close\r\ncontent-length: 0\r\n"
        return self._heads.write(refused.status, refused.headers, framing)

    async def _linger(self) -> None:
        """Stop sending, then read on for a while. A socket closed with bytes unread is
        reset, and the reset can overtake the answer (RFC 9112, 9.6)."""
        inbox, discarded = self._inbox, 0
        with trio.move_on_after(self._limits.linger_seconds):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            while not inbox.ended:
                discarded += len(inbox.buffer)
                inbox.buffer.clear()
                if discarded > self._limits.linger_bytes:
                    return
                await inbox.receive()

    async def _close(self) -> None:
        if self._phase is Phase.SENDING and isinstance(self._stream, SupportsAbort):
            self._stream.abort()  # in the middle of an answer: nobody may take it for whole
        with trio.move_on_after(self._limits.linger_seconds), suppress(trio.BrokenResourceError):
            await self._stream.aclose()


async def serve_connection(
    stream: trio.abc.Stream,
    app: App,
    limits: Limits | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> None:
    """Serve one client on *stream*, and close it."""
    await Connection(stream, app, limits or Limits(), HeadWriter(wall_clock)).serve()
