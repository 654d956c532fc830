"""Results that were asked to be kept: on disk, found again by what was asked and of which state.

One computation of a result at a time: who wants what is just being computed waits for it, and
computes it himself if that fails, is cancelled, or hangs on a client who does not read.

What it refuses: to decide what may be kept (``model.Stability`` says that), to fail a query
because it cannot be kept, and to hold more in memory than a piece of each result.
"""

from __future__ import annotations

import hashlib
import logging
import math
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from notebook_rpc.errors import DatabaseError
from notebook_rpc.services._entries import PIECE, Entries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from notebook_rpc.model import Parameters
    from notebook_rpc.services._entries import Found, Part
    from notebook_rpc.services.workers import Workers

T = TypeVar("T")

logger = logging.getLogger(__name__)

SHARE: Final = 4  # no result takes more than this part of the cache
AT_ONCE: Final = 4  # pieces that are read and written at a time
STALLED: Final = 5.0  # seconds without a piece, after the first: nobody waits for that
_REMEMBERED: Final = 1024  # results that turned out too large to be kept


@dataclass(frozen=True, slots=True)
class Key:
    """What was asked. *version* is of before the query began."""

    connection: str
    sql: str
    parameters: Parameters | None
    format: str
    version: str

    @property
    def name(self) -> str:
        """The same for the same question only: as repr() writes them, 1, 1.0, True and "1" are
        four things, and no text ends early."""
        asked = (self.connection, self.sql, self.parameters, self.format, self.version)
        return hashlib.sha256(repr(asked).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """``found`` is the result, if there is one. Else ``writer`` takes it while it is computed;
    None if it is not to be kept."""

    found: Reader | None
    writer: Writer | None


class Reader:
    """A result that was kept, and the ``note`` that its writer has left about it."""

    def __init__(self, cache: Cache, found: Found) -> None:
        self.note = found.note
        self._file = found.file
        self._left = found.length
        self._cache = cache

    @property
    def ended(self) -> bool:
        """Nothing is left to be read."""
        return not self._left

    async def read(self) -> bytes:
        """The next piece, of 1 MiB at most; b"" at the end.

        Raises:
            DatabaseError: the disk fails. It did not when the file was opened.
        """
        if not self._left:
            return b""
        try:
            piece = await self._cache.run(partial(self._file.read, min(self._left, PIECE)))
        except OSError as exc:
            raise DatabaseError(f"a result that was kept cannot be read: {exc}") from exc
        if not piece:
            raise DatabaseError("a result that was kept is no longer whole")
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._file.close()


class Writer:
    """Takes a result piece by piece. Nothing of it is found before ``commit`` has been called;
    where it cannot be kept after all, both do nothing."""

    def __init__(self, cache: Cache, name: str, end: Callable[[], None]) -> None:
        """*end* lets others compute."""
        self.written = math.inf  # when the last piece came
        self._cache = cache
        self._name = name
        self._end = end
        self._began = trio.current_time()
        self._size = 0
        self._held: list[bytes | memoryview] = []
        self._held_size = 0
        self._part: Part | None = None
        self._over = False

    async def write(self, piece: bytes | memoryview) -> None:
        """*piece* must not change any more."""
        if self._over:
            return
        self.written = trio.current_time()
        self._size += len(piece)
        if self._size > self._cache.max_result:
            self._cache.remember_as_too_large(self._name)
            await self.give_up()
            return
        self._held.append(piece)
        self._held_size += len(piece)
        if self._held_size >= PIECE:
            await self._try(self._flush)

    async def commit(self, note: bytes = b"", lasts: float = math.inf) -> None:
        """The result is whole. It is found for *lasts* seconds from when it was begun."""
        if not self._over:
            await self._try(partial(self._complete, note, self._began + lasts))
            self._over = True
            self._end()

    async def give_up(self) -> None:
        """Forget what was written, and let others compute. Cannot be cancelled."""
        self._over = True
        self._held.clear()
        part, self._part = self._part, None
        if part is not None:
            with trio.CancelScope(shield=True):
                await self._cache.workers.run_beyond(partial(_discard, part))
        self._end()

    async def _try(self, work: Callable[[], None]) -> None:
        try:
            await self._cache.run(work)
        except OSError as exc:
            self._cache.note_failure(exc)
            await self.give_up()
        else:
            self._cache.note_success()
            self._held.clear()
            self._held_size = 0

    # On a worker.

    def _flush(self) -> None:
        if self._part is None:
            self._part = self._cache.entries.part(self._name)
        self._part.write(self._held)

    def _complete(self, note: bytes, expires: float) -> None:
        self._flush()
        assert self._part is not None  # noqa: S101  # _flush has made it
        self._cache.entries.store(self._part.complete(note, expires), self._name)
        self._part = None


class Cache:
    """In a folder that other servers may use as well."""

    def __init__(self, folder: Path, max_bytes: int, workers: Workers) -> None:
        """
        Raises:
            OSError: *folder* cannot be used. This blocks for a moment.
        """
        self.entries = Entries(folder, max_bytes)
        self.workers = workers
        self.max_result = max_bytes // SHARE
        self._pieces = trio.Semaphore(AT_ONCE)
        self._places: dict[str, _Place] = {}  # of what is being computed
        self._too_large: dict[str, None] = {}  # in the order in which they turned out to be
        self._failing = False

    async def run(self, work: Callable[[], T]) -> T:
        """Read or write a piece, on a worker beyond their limit: no answer that has begun may fail
        because too many calls wait."""
        async with self._pieces:
            return await self.workers.run_beyond(work)

    @asynccontextmanager
    async def found(self, key: Key) -> AsyncIterator[Reader | None]:
        """What is kept for *key*; waits for nobody who computes it."""
        found = await self._find(key.name)
        try:
            yield found
        finally:
            if found is not None:
                found.close()

    @asynccontextmanager
    async def entry(self, key: Key) -> AsyncIterator[Entry]:
        """What is kept for *key*, or a place for it."""
        name = key.name
        async with AsyncExitStack() as stack:
            found = await self._find(name)
            writer = None
            if found is None and name not in self._too_large:
                turn = stack.enter_context(self._turn(name))
                if await turn.came():
                    found = await self._find(name)  # by now
                    if found is not None or name in self._too_large:
                        turn.end()
                    else:
                        writer = turn.writer(self, name)
                        stack.push_async_callback(writer.give_up)
            if found is not None:
                stack.callback(found.close)
            yield Entry(found, writer)

    async def close(self) -> None:
        """Remove what was kept: nobody will ask for it again. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            try:
                await self.workers.run_beyond(self.entries.clear)
            except OSError as exc:
                logger.warning("the cache cannot be emptied: %s", exc)

    def remember_as_too_large(self, name: str) -> None:
        logger.debug("a result is too large to be kept")
        self._too_large[name] = None
        if len(self._too_large) > _REMEMBERED:
            del self._too_large[next(iter(self._too_large))]

    def note_failure(self, exc: OSError) -> None:
        """Aloud once, until it works again."""
        logger.log(
            logging.DEBUG if self._failing else logging.WARNING, "a result is not kept: %s", exc
        )
        self._failing = True

    def note_success(self) -> None:
        self._failing = False

    async def _find(self, name: str) -> Reader | None:
        try:
            found = await self.workers.run(partial(self.entries.find, name, trio.current_time()))
        except OSError as exc:
            self.note_failure(exc)
            return None
        return None if found is None else Reader(self, found)

    @contextmanager
    def _turn(self, name: str) -> Iterator[_Turn]:
        place = self._places.setdefault(name, _Place())
        place.users += 1
        turn = _Turn(place)
        try:
            yield turn
        finally:
            turn.end()
            place.users -= 1
            if not place.users:
                del self._places[name]


class _Place:
    """Where one computes, and others wait."""

    def __init__(self) -> None:
        self.users = 0
        self.writer: Writer | None = None
        self.free = trio.Semaphore(1, max_value=1)  # no Lock: another task may end a turn


class _Turn:
    """One user's turn at a place."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._has_come = False

    async def came(self) -> bool:
        """Wait for it. False: who has it now does not go on; do not wait, and do not write."""
        while not self._has_come:
            with trio.move_on_after(STALLED):
                await self._place.free.acquire()
                self._has_come = True
                break
            writer = self._place.writer
            if writer is not None and trio.current_time() - writer.written >= STALLED:
                break
        return self._has_come

    def writer(self, cache: Cache, name: str) -> Writer:
        self._place.writer = Writer(cache, name, self.end)
        return self._place.writer

    def end(self) -> None:
        """Let the next one come. May be called again."""
        if self._has_come:
            self._has_come = False
            self._place.writer = None
            self._place.free.release()


def _discard(part: Part) -> None:
    try:
        part.discard()
    except OSError:
        logger.debug("a part of a result is left behind", exc_info=True)
