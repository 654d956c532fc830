"""Statements of clients that have no session: each on a connection lent for it, and its rows as
pieces of a known format, read as fast as they are taken.

What it refuses: transactions that outlast a statement, as nobody knows on which connection the
next one will run. ``alone`` is for those who need them, or temporary tables.
"""

from __future__ import annotations

import logging
import math
import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from notebook_rpc.driver import SupportsStability, SupportsUpload
from notebook_rpc.errors import Conflict, NotebookError, NotSupported, QueryError
from notebook_rpc.model import Stability, Transaction
from notebook_rpc.sansio.sqltext import no_longer_than
from notebook_rpc.services.answers import FORMATS, Found, Fresh, Kept, Pieces, part
from notebook_rpc.services.cache import Entry, Key
from notebook_rpc.services.here import NotHere
from notebook_rpc.services.parts import Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Parameters
    from notebook_rpc.services.answers import Answer, Rows, Work
    from notebook_rpc.services.cache import Cache
    from notebook_rpc.services.lanes import Lane

T = TypeVar("T")

logger = logging.getLogger(__name__)

UNREAD: Final = 1.0  # seconds in which nothing is taken of a result; then its reader is slow
CLOSING: Final = 5.0  # seconds until a result is interrupted that does not close
TRIES: Final = 6  # of a statement that meets a conflict: the first, and five more
FIRST_PAUSE: Final = 0.005  # seconds before the second; doubled each time, and a little by chance
_SMALL: Final = {"arrow", "json", "rows"}  # what drivers give of a few rows without much ado
_VALUES: Final = 8192  # of a result that nobody reads: a driver may hold the interpreter for each


def _stability(sql: str, connection: Connection) -> Stability:
    if not isinstance(connection, SupportsStability):
        return Stability.VOLATILE
    return connection.stability(sql)


def _execute(sql: str, parameters: Parameters | None, connection: Connection) -> int:
    """To the last row: what a statement does, or fails at, may come with any of them."""
    result = connection.execute(sql, parameters)
    try:
        while result.columns and result.fetch(max(1, _VALUES // len(result.columns))):
            continue
    finally:
        result.close()
    return result.count


def _upload(schema: str, table: str, stream: bytes, connection: Connection) -> int:
    if not isinstance(connection, SupportsUpload):
        raise NotSupported("this database takes no Arrow")
    return connection.upload(schema, table, stream)


@dataclass(frozen=True)
class Keeping:
    """How answers of one database are kept: where, if anywhere, under what name, of which version
    of it. *shared_seconds* is how long those are good that others may change."""

    cache: Callable[[], Cache | None]
    connection: str
    version: Callable[[], str]
    shared_seconds: float

    def lasts(self, stability: Stability) -> float:
        """Seconds; 0 if it is not to be kept."""
        match stability:
            case Stability.LASTING:
                return math.inf
            case Stability.SHARED:
                return self.shared_seconds
        return 0


class Queries:
    """Statements on one database. Every method may raise ``NotebookError``; to cancel its
    caller interrupts the statement."""

    def __init__(
        self,
        lend: Callable[[Queries], AbstractAsyncContextManager[Lane]],
        make: Callable[[], Lane],
        max_seconds: float = math.inf,
        keeping: Keeping | None = None,
        *,
        set_aside: Callable[[Lane], bool] = lambda _: True,
        max_sql: float = math.inf,
        alone: bool = False,
    ) -> None:
        """*lend* gives a lane for a statement of these, *make* one for good. *max_seconds* is how
        long a statement may keep the database busy at a time. *set_aside* is called when a lane
        does nothing but wait for a slow reader, and again until it returns True. *max_sql* is
        how many characters a statement may have. *alone*: the lane is always the same."""
        self._lend = lend
        self._make = make
        self._seconds = max_seconds
        self._keeping = keeping
        self._set_aside = set_aside
        self._max_sql = max_sql
        self._alone = alone

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Queries]:
        """The same on a connection of its own, where statements come one at a time. What they
        give may depend on what came before, so nothing of it is kept for others."""
        lane = self._make()

        @asynccontextmanager
        async def lend(_: Queries) -> AsyncIterator[Lane]:
            async with lane.turn():
                yield lane

        try:
            yield Queries(lend, self._make, self._seconds, max_sql=self._max_sql, alone=True)
        finally:
            await lane.close()

    def arrow(
        self, sql: str, parameters: Parameters | None = None, *, persist: bool = False
    ) -> AbstractAsyncContextManager[Answer]:
        """Run *sql*; its rows are the pieces of an Arrow IPC stream. Several statements run in
        order, and the last one's rows are given. With *persist* the answer is kept, and may be
        one that was, as long as it is the same."""
        return self._query("arrow", sql, parameters, persist=persist)

    def json(
        self, sql: str, parameters: Parameters | None = None, *, persist: bool = False
    ) -> AbstractAsyncContextManager[Answer]:
        """As ``arrow``, but the pieces are of a JSON array of objects."""
        return self._query("json", sql, parameters, persist=persist)

    def rows(
        self, sql: str, parameters: Parameters | None = None
    ) -> AbstractAsyncContextManager[Answer]:
        """As ``json``, but each row is an array of its values, and nothing is kept."""
        return self._query("rows", sql, parameters, persist=False)

    def export(
        self,
        format_: str,
        sql: str,
        parameters: Parameters | None = None,
        *,
        offset: int | None = None,
        limit: int | None = None,
    ) -> AbstractAsyncContextManager[Answer]:
        """Run *sql*; its rows are pieces of *format_*, a key of ``answers.FORMATS``. With an
        *offset* or a *limit* they are that part of the rows, and of "rows" the answer then knows
        the total."""
        if offset is None and limit is None:
            return self._query(format_, sql, parameters, persist=False)
        logger.debug("query: %r", no_longer_than(self._max_sql, sql))
        window = Window(offset or 0, limit)
        return self._answer(partial(part, format_, sql, parameters, window))

    def _query(
        self, format_: str, sql: str, parameters: Parameters | None, *, persist: bool
    ) -> AbstractAsyncContextManager[Answer]:
        logger.debug("query: %r", no_longer_than(self._max_sql, sql))
        work = partial(FORMATS[format_], sql, parameters)
        cache = self._keeping.cache() if persist and self._keeping is not None else None
        query = sql if format_ in _SMALL and not parameters else None
        if cache is None or self._keeping is None:
            return self._answer(work, query)
        # Before anything is asked: an answer may be newer than its version, but never older.
        version = self._keeping.version()
        key = Key(self._keeping.connection, sql, parameters, format_, version)
        return self._kept(work, key, self._keeping, cache)

    async def execute(self, sql: str, parameters: Parameters | None = None) -> int:
        """Run *sql* to its end, and return how many rows its last statement has touched."""
        return await self._run("execute", partial(_execute, sql, parameters), sql)

    async def upload(self, schema: str, table: str, stream: bytes) -> int:
        """Make a table of an Arrow IPC stream; as ``driver.SupportsUpload`` says."""
        return await self._run("upload", partial(_upload, schema, table, stream), table)

    async def run(self, name: str, work: Callable[[Connection], T], sql: str) -> T:
        """Whatever *work* does on a connection, in one call; *sql* is for the log."""
        return await self._run(name, work, sql)

    async def _run(self, name: str, work: Callable[[Connection], T], what: str) -> T:
        logger.debug("%s: %r", name, no_longer_than(self._max_sql, what))
        async with self._lend(self) as lane:

            async def once() -> T:
                async with lane.undone_if_interrupted(), lane.call(name, self._seconds):
                    return await lane.work(work)

            done = await _again_after_conflicts(once)
            self._refuse_to_leave_open(lane)
            return done

    @asynccontextmanager
    async def _kept(
        self, work: Work, key: Key, keeping: Keeping, cache: Cache
    ) -> AsyncIterator[Answer]:
        async with AsyncExitStack() as stack:
            # First, as to find out how long an answer lasts can take longer than all the rest.
            found = await stack.enter_async_context(cache.found(key))
            if found is not None:
                yield Found(found)
                return
            lasts = keeping.lasts(await self._stability(key.sql))
            entry = Entry(None, None)
            if lasts:
                entry = await stack.enter_async_context(cache.entry(key))
            if entry.found is not None:
                yield Found(entry.found)
                return
            answer = await stack.enter_async_context(self._answer(work))
            if entry.writer is not None and answer.columns:
                answer = Kept(answer, entry.writer, lasts)
            yield answer

    async def _stability(self, sql: str) -> Stability:
        async with self._lend(self) as lane, lane.call("stability", self._seconds):
            return await lane.work(partial(_stability, sql))

    @asynccontextmanager
    async def _answer(self, open_: Work, query: str | None = None) -> AsyncIterator[Answer]:
        async with self._lend(self) as lane:
            reading = _Reading(lane, open_, self._seconds, partial(self._set_aside, lane))
            try:
                first = await _again_after_conflicts(partial(reading.begin, query))
                self._refuse_to_leave_open(lane)
                if not reading.rows.ended:
                    async with reading.rest() as more:
                        yield Fresh(reading.rows, first, more)
                    return
            finally:
                await reading.close()
        yield Fresh(reading.rows, first)  # and the lane is somebody else's already

    def _refuse_to_leave_open(self, lane: Lane) -> None:
        if not self._alone and lane.transaction is not Transaction.NONE:
            raise QueryError(
                "a transaction must end with the request that began it; it was rolled back"
            )


class _Reading:
    """A statement's way from its beginning to its last row."""

    rows: Rows

    def __init__(
        self, lane: Lane, open_: Work, seconds: float, set_aside: Callable[[], bool]
    ) -> None:
        self._lane = lane
        self._open = open_
        self._seconds = seconds
        self._set_aside = set_aside
        self._opened: Rows | None = None

    async def begin(self, query: str | None) -> Pieces:
        """Run it, and read its first pieces in the same hop; *query* is its text, if it does
        nothing but to give a small answer where the database has one."""
        pieces = await self._begun(query)
        assert self._opened is not None  # noqa: S101  # _begin has succeeded
        self.rows = self._opened
        return pieces

    async def _begun(self, query: str | None) -> Pieces:
        holds = True
        if query is not None:
            try:
                return await self._lane.work_here("query", self._begin, query)
            except NotHere as exc:
                holds = exc.holds
        return await self._work(self._begin, holds=holds)

    @asynccontextmanager
    async def rest(
        self,
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Pieces | NotebookError]]:
        """What comes after the first pieces: the next are read while the last are sent."""
        pieces, more = trio.open_memory_channel[Pieces | NotebookError](0)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_on, pieces)
            try:
                yield more
            except Exception as exc:  # noqa: BLE001  # raised below: the nursery would wrap it
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def close(self) -> None:
        """Let go of the result. Cannot be cancelled."""
        opened, self._opened = self._opened, None
        if opened is None or opened.ended or not self._lane.connected:
            return
        with trio.move_on_after(CLOSING, shield=True):
            try:
                await self._lane.work(lambda _: opened.close())
            except NotebookError:
                logger.warning("closing a result failed", exc_info=True)

    async def _read_on(self, pieces: trio.MemorySendChannel[Pieces | NotebookError]) -> None:
        with pieces:
            while not self.rows.ended:
                try:
                    read = await self._work(lambda _: self.rows.read())
                except NotebookError as exc:
                    if self.rows.complete:  # nothing is missing but a number
                        logger.info("rows were not counted: %s", exc)
                        return
                    await self._hand_over(exc, pieces)
                    return
                await self._hand_over(read, pieces)

    async def _hand_over(
        self,
        read: Pieces | NotebookError,
        pieces: trio.MemorySendChannel[Pieces | NotebookError],
    ) -> None:
        aside = False
        while not aside:
            with trio.move_on_after(UNREAD):
                await pieces.send(read)
                return
            aside = self._set_aside()
        await pieces.send(read)

    async def _work(self, work: Callable[[Connection], Pieces], *, holds: bool = True) -> Pieces:
        lane = self._lane
        async with lane.undone_if_interrupted(), lane.call("query", self._seconds):
            return await lane.work(work, holds=holds)

    def _begin(self, connection: Connection) -> Pieces:
        """On a worker, or here."""
        self._opened = rows = self._open(connection)
        return () if rows.ended else rows.read()


async def _again_after_conflicts(once: Callable[[], Awaitable[T]]) -> T:
    """What *once* returns; after a conflict that has undone all of it, it gets another try."""
    pause = FIRST_PAUSE
    for _ in range(TRIES - 1):
        try:
            return await once()
        except Conflict as exc:
            if not exc.alone:
                raise
            logger.debug("a conflict, and another try: %s", exc)
        await trio.sleep(pause * (1 + random.random()))  # noqa: S311  # so that two do not meet again
        pause *= 2
    return await once()
