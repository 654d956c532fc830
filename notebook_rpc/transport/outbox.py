"""What goes out on one WebSocket, and in which order: the one place that decides it.

A frame that has begun comes first, then control frames, then what belongs to the message that is
open, then messages, asked for or not, in the order in which they were given.

What the stream takes at once is written by whoever sends it. What it does not is written by the
one task that calls ``write_out``, and by no other: nobody can be cancelled in the middle of a frame
that somebody else would have to go on with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, cast, runtime_checkable

import trio

from notebook_rpc.transport.responses import pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.transport.frames import Piece
    from notebook_rpc.transport.http11 import Limits

ALLOWANCE: Final = 256  # bytes that each posted message counts for, besides its own
MAX_CONTROLS: Final = 32  # that wait; of more pings than that the last ones are answered
PAUSE: Final = 64 * 1024  # bytes, counting 4 KiB for each message, sent without a checkpoint


@runtime_checkable
class SupportsGather(Protocol):
    """Capability of a stream: send of many pieces what goes without waiting, and say how much."""

    def gather_now(self, pieces: Sequence[Piece], /) -> int: ...


class Entry:
    """Pieces of frames that go out together; none at all stand for the turn of a message that
    will be sent in fragments."""

    __slots__ = ("done", "pieces", "posted", "written")

    def __init__(self, pieces: list[Piece], posted: int = 0) -> None:
        self.pieces = pieces
        self.posted = posted  # bytes, if nobody waits for it
        self.written = False
        self.done: trio.Event | None = None

    def finish(self, *, written: bool) -> None:
        self.written = written
        if self.done is not None:
            self.done.set()


class Outbox:
    """See above. ``finished`` is true once the farewell has been written."""

    def __init__(self, stream: trio.abc.SendStream, limits: Limits) -> None:
        self._stream = stream
        self._gather = stream.gather_now if isinstance(stream, SupportsGather) else None
        self._limits = limits
        self._rest: Entry | None = None  # has begun, and must be gone on with
        self._controls: list[bytes] = []
        self._fragments: list[Entry] = []
        self._line: list[Entry] = []  # an empty deque would take 760 bytes of an idle socket
        self._farewell: Entry | None = None
        self._open = False  # a message is being sent in fragments
        self._busy = False  # ``write_out`` has the stream
        self._over = False  # nothing is taken any more
        self._broken = False
        self._posted = 0  # bytes of what was posted, in the line
        self._unpaused = 0
        self._wake = trio.Event()
        self.finished = False

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits to be written, nor is a message open."""
        return not (
            self._open or self._line or self._rest or self._controls or self._busy or self._over
        )

    async def send(self, message: list[Piece]) -> None:
        """Returns when the stream has taken *message*; one that is cancelled goes out whole or
        not at all.

        Raises:
            trio.ClosedResourceError: it is too late for that.
        """
        await self._check()
        entry = Entry(message)
        if not (self.at_rest and self._begin(entry)):
            self._line.append(entry)
        await self._written(entry)

    def post(self, message: list[Piece]) -> bool:
        """Take *message* without waiting. False: too much has gathered, and it was not taken."""
        if self._over:
            return True
        entry = Entry(message, sum(map(len, message)) + ALLOWANCE)
        if self.at_rest and self._begin(entry):
            return True
        # One may be as large as it likes: who has to wait for it alone is not slow yet.
        if self._posted and self._posted + entry.posted > self._limits.backlog_bytes:
            return False
        self._posted += entry.posted
        self._line.append(entry)
        self._wake.set()
        return True

    async def open(self) -> None:
        """Wait for the turn of a message that will be sent in fragments. Raises as ``send``."""
        await self._check()
        if self.at_rest:
            self._open = True
            return
        turn = Entry([])
        self._line.append(turn)
        await self._written(turn)

    async def fragment(self, pieces: list[Piece]) -> None:
        """Send a frame of the message that is open. Raises as ``send``."""
        await self._check()
        entry = Entry(pieces)
        if self._fragments or not self._begin(entry):
            self._fragments.append(entry)
        await self._written(entry)

    def end_message(self) -> None:
        self._open = False
        self._wake.set()

    def control(self, frame: bytes) -> None:
        """Send *frame* as soon as no other is in the middle. The oldest of many is dropped:
        RFC 6455, 5.5.3 asks for an answer to the last ping alone."""
        if not self._over and not self._begin(Entry([frame])):
            if len(self._controls) == MAX_CONTROLS:
                del self._controls[0]
            self._controls.append(frame)
            self._wake.set()

    def close(self, farewell: bytes, *, flush: bool = False) -> None:
        """Take nothing any more, and write *farewell* last: with *flush* behind what waits in
        the line, else as soon as no frame is in the middle."""
        self._over = True
        self._farewell = Entry([farewell])
        if not flush:
            self._clear()
        self._wake.set()

    def last_words(self, farewell: bytes) -> None:
        """Write *farewell* if that can be done at once: the task that writes has been cancelled."""
        self._begin(Entry([farewell]))

    def abandon(self) -> None:
        """Nothing will be written any more. Nobody shall wait for it."""
        self._over = True
        self._clear()
        if self._rest is not None:
            self._rest.finish(written=False)

    def _clear(self) -> None:
        waiting = [*self._fragments, *self._line]
        self._fragments.clear()
        self._line.clear()
        for entry in waiting:
            entry.finish(written=False)

    def wake(self) -> None:
        """End a ``wait``."""
        self._wake.set()

    async def wait(self) -> None:
        """Until there may be something to write."""
        await self._wake.wait()

    async def write_out(self) -> None:
        """Write all that may go out now.

        Raises:
            trio.BrokenResourceError: the peer has left.
            trio.TooSlowError: it takes nothing.
        """
        if self._wake.is_set():
            self._wake = trio.Event()
        while (entry := self._next()) is not None:
            self._rest, self._busy = entry, True
            try:
                await self._write(entry.pieces)
            finally:
                self._busy = False
            self._rest = None
            entry.finish(written=True)
            self.finished = entry is self._farewell
        if self._broken:
            raise trio.BrokenResourceError("the connection broke")

    def _next(self) -> Entry | None:
        if self._rest is not None:
            return self._rest
        if self._controls:
            controls = b"".join(self._controls)
            self._controls.clear()
            return Entry([controls])
        if self._fragments:
            return self._fragments.pop(0)
        while self._line and not self._open:
            entry = self._line.pop(0)
            if entry.pieces:
                self._posted -= entry.posted
                return entry
            self._open = not self._over
            entry.finish(written=self._open)
        return None if self.finished else self._farewell

    def _begin(self, entry: Entry) -> bool:
        """Write of *entry* what goes at once; False if that is nothing, and it must wait."""
        if self._gather is None or self._busy or self._rest or self._controls or self._broken:
            return False
        try:
            sent = self._gather(entry.pieces)
        except trio.BrokenResourceError:
            self._broken = True  # ``write_out`` tells
            self._wake.set()
            return False
        if sent == 0:
            return False
        self._unpaused += sent + 4096
        drop(entry.pieces, sent)
        if entry.pieces:
            self._rest = entry
            self._wake.set()
        else:
            entry.written = True
        return True

    async def _written(self, entry: Entry) -> None:
        if entry.written:
            if self._unpaused > PAUSE:
                self._unpaused = 0
                await trio.lowlevel.cancel_shielded_checkpoint()
            return
        self._wake.set()
        entry.done = trio.Event()
        try:
            await entry.done.wait()
        except trio.Cancelled:
            if entry in self._line:
                self._line.remove(entry)
            raise
        if not entry.written:
            await self._check()

    async def _check(self) -> None:
        if self._over:
            # As a rule the conversation has been cancelled by then, and learns it here.
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("the WebSocket is closed")
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _write(self, parts: list[Piece]) -> None:
        with trio.CancelScope() as scope:
            if self._gather is not None:
                while parts:
                    drop(parts, self._gather(parts))
                    if parts:
                        scope.deadline = trio.current_time() + self._limits.send_seconds
                        await self._stream.wait_send_all_might_not_block()
            else:
                for piece in pieces(b"", cast("Sequence[bytes]", parts)):
                    scope.deadline = trio.current_time() + self._limits.send_seconds
                    await self._stream.send_all(piece)
        if scope.cancelled_caught:
            raise trio.TooSlowError


def drop(parts: list[Piece], sent: int) -> None:
    """Remove the first *sent* bytes of *parts*."""
    whole = 0
    while whole < len(parts) and sent >= len(parts[whole]):
        sent -= len(parts[whole])
        whole += 1
    del parts[:whole]
    if sent:
        parts[0] = memoryview(parts[0])[sent:]
