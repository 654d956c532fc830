"""What a client has sent and nobody has taken yet, and a look-out for its leaving.

A handler may only be watched at a price (a second task), and most handlers never block. So
its first step is run by hand: if it finishes in that step, no time has passed in which a
client could have left. Only a handler that blocks gets a task that reads the stream.

Why running the first step by hand is sound under Trio: a task is one coroutine driven with
``send`` and ``throw``, and a trap is an object that travels up to the run loop. Whatever
the handler does before its first trap (entering cancel scopes, opening nurseries, hooking
a wake-up) is done in the task that will go on with it, in the same order. The trap is then
yielded to the run loop unchanged, before anything else in this task can trap; nothing
between the two reschedules this task, as only the run loop and other tasks do that. The
watcher's nursery is older than the handler, so that no scope is left out of order. (A
nursery opened between the two would lie inside the scopes that the handler has entered,
which the handler would then leave first.) KeyboardInterrupt between the two would lose the
trap: a server takes SIGINT with ``trio.open_signal_receiver``.
"""

from __future__ import annotations

import functools
import math
import types
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import trio

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterator

T = TypeVar("T")

WATCHED_BYTES = 64 * 1024  # of pipelined requests kept; beyond it nothing more is read
# Seconds between two looks at a stream that is not read: soon at first, then ever later, as there
# may be thousands that nobody reads for long, and each look costs 40 us.
FIRST_LOOK = 0.05
LAST_LOOK = 1.0


@runtime_checkable
class SupportsHangUp(Protocol):
    """Capability of a stream: say whether the peer has left, bytes to be read or not."""

    def hung_up(self) -> bool: ...


class Inbox:
    """The bytes received from one stream. All reading of the stream is done here.

    ``ended`` says that no more will come: end of file, or the stream broke.
    """

    __slots__ = (
        *("_attending", "_nursery", "_pausing", "_scope", "_stopped", "_stream"),
        *("buffer", "ended"),
    )

    def __init__(
        self, stream: trio.abc.ReceiveStream, nursery: trio.Nursery, scope: trio.CancelScope
    ) -> None:
        """*scope*, inside *nursery*, is what a client that leaves cancels; the watcher runs
        in *nursery*."""
        self._stream = stream
        self._nursery = nursery
        self._scope = scope
        self._stopped: trio.Event | None = None  # set by a watcher when it stops
        self._attending = False
        self._pausing: trio.CancelScope | None = None  # the watcher, between two looks
        self.buffer = bytearray()
        self.ended = False

    def take(self, count: int) -> bytes:
        """Remove the first *count* bytes."""
        with memoryview(self.buffer) as view:
            taken = bytes(view[:count])
        del self.buffer[:count]
        return taken

    async def receive(self) -> None:
        """Wait until the buffer has grown or the stream has ended.

        A watcher that is still reading goes on reading, for us: stopping it would cost two
        task switches, and cancelling a read is not safe on every kind of stream.
        """
        if self._stopped is not None:
            await self._stopped.wait()
        elif not self.ended:
            await self._read()

    async def attend(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* without a deadline; cancel it if the stream ends before it does."""
        try:
            trap = work.send(None)
        except StopIteration as finished:
            value: T = finished.value
            return value
        self._attending = True
        self._scope.deadline = math.inf
        if self.ended:
            self._scope.cancel()
        elif self._stopped is None:
            self._stopped = trio.Event()
            self._nursery.start_soon(self._watch, self._stopped)
        try:
            return await _go_on(work, trap)
        finally:
            self._attending = False
            if self._pausing is not None:
                self._pausing.cancel()  # who reads next waits for the watcher

    async def _watch(self, stopped: trio.Event) -> None:
        try:
            if await self._left():
                self._scope.cancel()
        finally:
            self._stopped = None
            stopped.set()

    async def _left(self) -> bool:
        """Wait until the client has left, or nobody needs to know any more."""
        while len(self.buffer) < WATCHED_BYTES:
            await self._read()
            if not self._attending:
                return False
            if self.ended:
                return True
        # Its end of file lies behind bytes that we will not read now: all one can do is to ask.
        if isinstance(self._stream, SupportsHangUp):
            for pause in looks():
                if not self._attending:
                    break
                if self._stream.hung_up():
                    return True
                with trio.move_on_after(pause) as self._pausing:
                    await trio.sleep_forever()
        return False

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        self.ended = not data
        self.buffer += data


def looks() -> Iterator[float]:
    """How long to wait before each next look."""
    pause = FIRST_LOOK
    while True:
        yield pause
        pause = min(2 * pause, LAST_LOOK)


@types.coroutine
def _go_on(work: Coroutine[Any, Any, T], trap: Any) -> Generator[Any, Any, T]:
    """Await *work*, whose first step has already been run and has produced *trap*."""
    while True:
        try:
            sent = yield trap
        except BaseException as exc:  # noqa: BLE001 - passed on, whatever it is
            step = functools.partial(work.throw, exc)
        else:
            step = functools.partial(work.send, sent)
        try:
            trap = step()
        except StopIteration as finished:
            value: T = finished.value
            return value
