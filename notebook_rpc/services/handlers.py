"""Threads for code that is not ours and cannot be stopped: the handlers of users' scripts.

Databases have threads of their own (``workers.py``), where a call that nobody waits for any more
is interrupted. A handler cannot be: Python has no safe way to stop a thread, and to raise an
exception in it wherever it happens to be would leave locks taken and files half-written. So a
handler whose time is over, or whose client has left, is left behind, but never lost: it goes on
to count until it ends, there are no more threads than a limit, and whoever closes hears which
still run. What it asks of the event loop from then on is refused with ``Stopped``, which is how
most of them end.
"""

from __future__ import annotations

import contextvars
import inspect
import logging
import math
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import trio

from notebook_rpc.errors import Busy, HandlerTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

T = TypeVar("T")

logger = logging.getLogger(__name__)

_END: Final = object()


class Stopped(BaseException):
    """Nobody waits for this handler any more. Not an ``Exception``, so that a handler that goes
    on after every error of its own does not go on after this."""


class Ask(Protocol):
    """Has something done on the event loop, in the task that waits for the thread, and keeps the
    thread waiting for it; raises what it raises, or ``Stopped``."""

    def __call__(self, work: Callable[[], Awaitable[T]], /) -> T: ...


class Handlers:
    """At most *limit* handlers at a time, each of which has *seconds*, its wait for a thread
    included; *max_waiting* may wait for one. A conversation is a handler that has any time."""

    def __init__(self, limit: int, seconds: float, max_waiting: float = math.inf) -> None:
        self._slots = trio.Semaphore(limit, max_value=limit)
        self._limit = limit
        self._seconds = seconds
        self._max_waiting = max_waiting
        self._running: set[_Call[Any]] = set()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def left_behind(self) -> int:
        """Of those that run, the ones that nobody waits for."""
        return sum(call.left for call in self._running)

    async def run(self, work: Callable[[Ask], T], name: str, *, seconds: float | None = None) -> T:
        """Call *work* on a thread, in the caller's context variables, and return what it returns.

        Raises:
            Busy: there was no thread for it in time.
            HandlerTimeout: it took too long, and is left behind.
        """
        until = trio.current_time() + self._seconds
        await self._slot(until)
        call = _Call(work, name, self._ended)
        self._running.add(call)
        call.start()
        with trio.move_on_at(until if seconds is None else call.since + seconds):
            try:
                return await call.serve()
            finally:
                call.leave()
        if not call.done:
            call.overdue = True
            took = trio.current_time() - call.since
            logger.warning("%s still runs after %.1f seconds; it keeps its thread", name, took)
        raise HandlerTimeout(f"{name} took longer than it may")

    @staticmethod
    def steps(pieces: Iterable[Any], encode: Callable[[Any], bytes]) -> Steps:
        """*pieces*, each of which is a ``run`` of its own."""
        return Steps(pieces, encode)

    async def _slot(self, until: float) -> None:
        if self._slots.statistics().tasks_waiting >= self._max_waiting:
            raise Busy(f"{self._max_waiting} requests wait for a handler already")
        with trio.move_on_at(until):
            await self._slots.acquire()
            return
        raise Busy(f"all {self._limit} handlers that may run at a time do")

    def _ended(self, call: _Call[Any]) -> None:
        self._running.discard(call)
        self._slots.release()

    def close(self) -> None:
        """Say which handlers still run. Their threads end with the process, at the latest."""
        for call in self._running:
            seconds = trio.current_time() - call.since
            logger.warning("%s still runs, since %.1f seconds; left behind", call.name, seconds)


class Steps:
    """An iterator of a script's, which one thread after the other is in. One of them may be left
    behind in it: that one closes it then, as nobody else can."""

    def __init__(self, pieces: Iterable[Any], encode: Callable[[Any], bytes]) -> None:
        self._pieces = pieces
        self._encode = encode
        self._iterator: Iterator[Any] | None = None
        self._lock = threading.Lock()
        self._busy = self._left = False

    def next(self) -> bytes | None:
        """On a thread: the next piece; None at the end."""
        with self._lock:
            if self._left:  # before this thread got going
                return None
            self._busy = True
        try:
            if self._iterator is None:
                self._iterator = iter(self._pieces)
            piece = next(self._iterator, _END)
            return None if piece is _END else self._encode(piece)
        finally:
            with self._lock:  # together: either who leaves finds it busy, or closes it itself
                self._busy, left = False, self._left
            if left:
                self.close()

    def leave(self) -> bool:
        """Nobody wants more. Whether it is left to the caller to have it closed, on a thread."""
        with self._lock:
            self._left = True
            return not self._busy and inspect.isgenerator(self._iterator)

    def close(self) -> None:
        """On a thread."""
        if inspect.isgenerator(self._iterator):
            self._iterator.close()


class _Question(Generic[T]):
    """Something that a thread wants to have done on the event loop, and waits for."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._answer: queue.SimpleQueue[tuple[BaseException | None, Any]] = queue.SimpleQueue()

    async def resolve(self) -> None:
        try:
            value = await self._work()
        except Exception as exc:  # noqa: BLE001  # the thread's, which is waiting for it
            self._answer.put((exc, None))
        except BaseException:
            self.refuse()
            raise
        else:
            self._answer.put((None, value))

    def refuse(self) -> None:
        self._answer.put((Stopped("nobody waits for this handler any more"), None))

    def wait(self) -> T:
        error, value = self._answer.get()
        if error is not None:
            raise error
        found: T = value
        return found


class _Call(Generic[T]):
    """One call: made, awaited and left on the event loop, run on a thread."""

    def __init__(
        self, work: Callable[[Ask], T], name: str, ended: Callable[[_Call[Any]], None]
    ) -> None:
        self.name = name
        self.since = trio.current_time()
        self.done = False
        self.left = False
        self.overdue = False
        self._work = work
        self._when_ended = ended
        self._context = contextvars.copy_context()
        self._token = trio.lowlevel.current_trio_token()
        self._questions: deque[_Question[Any]] = deque()
        self._news = trio.Event()
        self._value: T
        self._error: BaseException | None = None

    def start(self) -> None:
        try:
            trio.lowlevel.start_thread_soon(self._run, lambda _: None, name=self.name)
        except RuntimeError as exc:  # the system has no thread for us
            self.done = True
            self._when_ended(self)
            raise Busy(f"no thread for {self.name}: {exc}") from exc

    async def serve(self) -> T:
        """Do what the thread asks for until it has ended."""
        while True:
            while self._questions:
                await self._questions.popleft().resolve()
            if self.done:
                return self._outcome()
            self._news = trio.Event()
            await self._news.wait()

    def leave(self) -> None:
        """Nobody answers the thread from now on."""
        self.left = True
        while self._questions:
            self._questions.popleft().refuse()

    def _outcome(self) -> T:
        if self._error is None:
            return self._value
        error, self._error = self._error, None
        if isinstance(error, Exception):
            raise error
        # SystemExit, say, which is not to be ours.
        raise RuntimeError(f"{self.name} raised {type(error).__name__}") from error

    # On the thread

    def _run(self) -> None:
        value, error = None, None
        try:
            value = self._context.run(self._work, self._ask)
        except BaseException as exc:  # noqa: BLE001  # carried to the caller, not swallowed
            error = exc
        try:
            self._token.run_sync_soon(self._finish, value, error)
        except trio.RunFinishedError:
            logger.debug("%s has outlived its server", self.name)

    def _ask(self, work: Callable[[], Awaitable[Any]]) -> Any:
        question = _Question(work)
        try:
            self._token.run_sync_soon(self._hear, question)
        except trio.RunFinishedError:
            question.refuse()
        return question.wait()

    # On the event loop

    def _hear(self, question: _Question[Any]) -> None:
        if self.left:
            question.refuse()
        else:
            self._questions.append(question)
            self._news.set()

    def _finish(self, value: Any, error: BaseException | None) -> None:
        self.done = True
        self._value, self._error = value, error
        self._when_ended(self)
        self._news.set()
        if self.left:
            self._context.run(self._tell, error)

    def _tell(self, error: BaseException | None) -> None:
        """The log, of a request that has had its answer."""
        seconds = trio.current_time() - self.since
        level = logging.INFO if self.overdue else logging.DEBUG  # the log has heard of it, or not
        logger.log(level, "%s, left behind, has ended after %.1f seconds", self.name, seconds)
        if isinstance(error, Exception):
            logger.warning("it failed", exc_info=error)
