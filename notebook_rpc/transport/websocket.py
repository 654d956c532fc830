"""One open WebSocket (RFC 6455): a conversation, and what keeps it honest.

Three tasks: the conversation, which is a surface's; a reader, which answers pings, puts messages
together and cancels the conversation when the client leaves; and the connection's own, which writes
what did not go at once (``outbox.py``), sends pings, and says farewell. Whoever ends the socket
first decides what is said: there is one close frame, and one reason in it.

Refuses to know: what messages mean, who may connect, and HTTP beyond the answer that opens it.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc.transport import deflate, frames
from notebook_rpc.transport.frames import Closing, Incoming, Ping, Violation
from notebook_rpc.transport.inbox import SupportsHangUp, looks
from notebook_rpc.transport.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractContextManager

    from notebook_rpc.transport.frames import Piece
    from notebook_rpc.transport.http11 import Limits
    from notebook_rpc.transport.inbox import Inbox
    from notebook_rpc.web import Conversation, Request, SendPieces

logger = logging.getLogger(__name__)

FEED: Final = 8 * 1024  # bytes read on at once; compressed they may become a thousand times as many
PAUSE: Final = 64  # frames between two checkpoints
UNREAD_BYTES: Final = 64 * 1024  # of messages that nobody has received; then TCP holds the client
UNREAD_MESSAGES: Final = 64
SILENT: Final = 2  # pings unanswered; then the peer is taken for dead
FAREWELL_SECONDS: Final = 0.05  # for the conversation to answer what came before a farewell
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


def opening(request: Request) -> tuple[bytes, bool]:
    """The header lines that turn *request*'s connection into a WebSocket, and whether what comes
    in may be compressed."""
    key = request.header(b"sec-websocket-key") or ""
    accept = base64.b64encode(
        hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    )
    lines = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: %b\r\n" % accept
    agreed = deflate.agreement(request.header(b"sec-websocket-extensions"))
    if agreed is None:
        return lines, False
    return lines + b"sec-websocket-extensions: %b\r\n" % agreed.encode(), True


class End(enum.Enum):
    """How a socket ended, for whoever has to close the connection."""

    DONE = enum.auto()  # all has been said, or the peer has left
    DISCARD = enum.auto()  # the same, but the peer may go on sending what nobody understands
    CUT = enum.auto()  # something has not been said, and cannot be


class _Working:
    """``Socket.working``, as a class: there is one around every message, and a contextmanager takes
    several times as long."""

    __slots__ = ("_socket",)

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def __enter__(self) -> None:
        self._socket.begin_work()

    def __exit__(self, *_: object) -> None:
        self._socket.end_work()


class Socket:
    """Is a ``web.WebSocket``. ``run`` once; ``drain`` from any task."""

    def __init__(
        self, stream: trio.abc.Stream, inbox: Inbox, limits: Limits, *, compressed: bool
    ) -> None:
        self._stream = stream
        self._inbox = inbox
        self._limits = limits
        self._incoming = Incoming(limits.message_bytes, deflate=compressed)
        self._outbox = Outbox(stream, limits)
        self._messages: list[str | bytes] = []
        self._unread = 0  # their size, more or less
        self._arrival: trio.Event | None = None  # the conversation waits for a message
        self._noticed: trio.Event | None = None  # the reader waits for it to have received them
        self._parted = trio.Event()  # nothing more is to come from the peer
        self._talking = trio.CancelScope()  # the conversation
        self._until = trio.CancelScope()  # all writing, and the wait for the peer's farewell
        self._ending: End | None = None
        self._garbled = False
        self._at_work = 0
        self._draining = False
        self._silent = 0  # pings that were answered by nothing at all

    # What a surface calls

    async def receive(self) -> str | bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._draining or not self._messages:
            self._arrival = trio.Event()
            self._notice()
            self._rested()
            try:
                await self._arrival.wait()
            finally:
                self._arrival = None
        message = self._messages.pop(0)
        self._unread -= len(message)
        return message

    async def send(self, message: str | bytes | Sequence[Piece]) -> None:
        await self._outbox.send(frames.message(message))

    @asynccontextmanager
    async def sending(self, *, text: bool = False) -> AsyncIterator[SendPieces]:
        opcode = frames.TEXT if text else frames.BINARY

        async def send(pieces: Sequence[Piece]) -> None:
            nonlocal opcode
            this, opcode = opcode, frames.CONTINUATION
            await self._outbox.fragment(frames.frame(this, pieces, finished=False))

        await self._outbox.open()
        try:
            yield send
            await self._outbox.fragment(frames.frame(opcode, ()))
        except BaseException:
            self._leave(End.CUT)  # unless there is a farewell, which tells as much
            raise
        self._outbox.end_message()

    def working(self) -> AbstractContextManager[None]:
        return _Working(self)

    def begin_work(self) -> None:
        self._at_work += 1

    def end_work(self) -> None:
        self._at_work -= 1
        self._rested()

    def post(self, message: str | bytes) -> None:
        if not self._outbox.post(frames.message(message)):
            logger.warning("a WebSocket was closed, as its client reads too slowly")
            self._end(1008, "too slow")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._end(code, reason, flush=True)
        await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError("the WebSocket is closed")  # to who does not converse

    # What the connection calls

    async def run(self, conversation: Conversation) -> End:
        """Converse until either side has had enough. The stream is left open."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._converse, conversation)
                nursery.start_soon(self._read)
                with self._until:
                    await self._attend()
                nursery.cancel_scope.cancel()
        finally:
            if self._ending is None:  # cancelled: this is all that can still be said
                self._outbox.last_words(frames.close(1001))
            self._outbox.abandon()
        return self._ending or End.DONE

    def drain(self) -> None:
        """Give out no more messages, and close with 1001 as soon as none is at work."""
        self._draining = True
        self._outbox.wake()

    # Writing

    async def _attend(self) -> None:
        """Write what waits to be written, up to the farewell, and wait for the peer's."""
        tick = trio.current_time() + self._limits.ping_seconds
        try:
            while True:
                await self._outbox.write_out()
                if self._outbox.finished:
                    break
                if trio.current_time() >= tick:
                    self._ping()
                    tick = trio.current_time() + self._limits.ping_seconds
                elif self._is_to_end():
                    self._end(1001, "the server stops")
                else:
                    with trio.move_on_at(tick):
                        await self._outbox.wait()
        except trio.BrokenResourceError:
            self._leave(End.DONE)
        except trio.TooSlowError:
            logger.info("a WebSocket was cut off: its client takes nothing, or is silent")
            self._leave(End.CUT)
        else:
            self._ending = End.DISCARD if self._garbled else End.DONE
            await self._parted.wait()

    def _ping(self) -> None:
        if self._silent == SILENT:
            raise trio.TooSlowError
        self._silent += 1
        self._outbox.control(frames.control(frames.PING))

    def _is_to_end(self) -> bool:
        """Whether the server stops, and no message is at work here."""
        waiting = self._arrival is not None and not self._at_work
        return self._draining and waiting and self._outbox.at_rest

    def _rested(self) -> None:
        if self._draining:
            self._outbox.wake()

    # Reading

    async def _read(self) -> None:
        inbox = self._inbox
        try:
            while True:
                if inbox.buffer:
                    self._silent = 0
                    if await self._take_in(inbox.take(min(FEED, len(inbox.buffer)))):
                        return
                    if inbox.buffer:
                        await trio.lowlevel.checkpoint()
                    await self._wait_for_room()
                elif inbox.ended:
                    if self._messages:
                        await self._hear_out()
                    self._leave(End.DONE)
                    return
                else:
                    await inbox.receive()
        except Violation as exc:
            logger.debug("a client broke the protocol of WebSockets: %s", exc.__cause__)
            self._garbled = True
            await self._hear_out()
            self._end(exc.code, str(exc))
        finally:
            self._parted.set()

    async def _take_in(self, data: bytes) -> bool:
        """Whether the peer has said farewell."""
        for number, event in enumerate(self._incoming.feed(data), 1):
            if number % PAUSE == 0:
                await trio.lowlevel.checkpoint()
            if isinstance(event, str | bytes):
                self._deliver(event)
            elif isinstance(event, Ping):
                self._outbox.control(frames.control(frames.PONG, event.payload))
            elif isinstance(event, Closing):
                await self._hear_out()
                self._end(event.code)
                return True
        return False

    def _deliver(self, message: str | bytes) -> None:
        if self._ending is None:
            self._messages.append(message)
            self._unread += len(message)
            if self._arrival is not None:
                self._arrival.set()

    async def _wait_for_room(self) -> None:
        """While much has not been received, read no more. What the client says by leaving stands
        behind it: all one can do is to ask."""
        for pause in looks():
            much = self._unread >= UNREAD_BYTES or len(self._messages) >= UNREAD_MESSAGES
            if not much or self._ending is not None:
                return
            self._silent = 0  # it may well have answered
            if not await self._is_noticed(pause) and (
                isinstance(self._stream, SupportsHangUp) and self._stream.hung_up()
            ):
                self._leave(End.DONE)

    async def _hear_out(self) -> None:
        """For a moment, let the conversation receive what came before a farewell, and answer it,
        as clients say something and leave. What takes longer is what they do not wait for."""
        deadline = trio.current_time() + FAREWELL_SECONDS
        while self._ending is None and (self._messages or self._arrival is None):
            if not await self._is_noticed(deadline - trio.current_time()):
                return

    async def _is_noticed(self, seconds: float) -> bool:
        """Wait until the conversation has received everything and waits for more."""
        self._noticed = trio.Event()
        with trio.move_on_after(seconds):
            await self._noticed.wait()
        return self._noticed.is_set()

    def _notice(self) -> None:
        if self._noticed is not None:
            self._noticed.set()

    # Conversing and ending

    async def _converse(self, conversation: Conversation) -> None:
        try:
            with self._talking:
                await conversation(self)
        except Exception:  # a task's top: whatever it is, this socket alone ends
            logger.exception("a conversation failed")
            self._end(1011, "the server failed")
        else:
            self._end(1000, flush=True)

    def _end(self, code: int | None, reason: str = "", *, flush: bool = False) -> None:
        """Say farewell, with *flush* behind what waits to be sent; but only once."""
        farewell = frames.close(code, reason)
        if self._ending is None:
            self._ending = End.CUT  # until it has been written
            self._outbox.close(farewell, flush=flush)
            self._until.deadline = trio.current_time() + self._limits.linger_seconds
            self._stop()

    def _leave(self, ending: End) -> None:
        """End without a farewell: there is nobody to hear it, or it would come too late."""
        if self._ending is None:
            self._ending = ending
            self._outbox.abandon()
            self._until.cancel()
            self._stop()

    def _stop(self) -> None:
        self._talking.cancel()
        self._notice()
