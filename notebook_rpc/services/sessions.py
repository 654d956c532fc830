"""A session: the state machine, one database connection, and the threads its calls run on.

Calls come one at a time, in order of arrival; ``cancel`` and ``progress`` go around the
queue. A caller that is cancelled, because its client has gone or the server stops, has its
statement interrupted and its transaction undone.
"""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from notebook_rpc.driver import SupportsInterrupt, SupportsProgress, SupportsText
from notebook_rpc.errors import Cancelled, NotebookError, QueryTimeout
from notebook_rpc.sansio import session as machine
from notebook_rpc.sansio.session import Call, State
from notebook_rpc.sansio.values import TextRows
from notebook_rpc.services.paging import Pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Column, Parameters, Result, ResultColumn, Table
    from notebook_rpc.services.paging import Page
    from notebook_rpc.services.workers import Workers

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a session is doing at this moment.

    ``running`` is the name of the call that runs, if any, ``seconds`` for how long it has.
    ``waiting`` counts the calls behind it. ``rows`` is how many rows of the open result
    have been handed out. ``fraction``, from 0 to 1, is the database's own estimate of the
    running statement, None where it has none.
    """

    state: str
    running: str | None
    seconds: float
    waiting: int
    rows: int
    fraction: float | None


@dataclass(slots=True)
class _Running:
    call: Call
    scope: trio.CancelScope
    since: float
    cancelled: bool = False  # by request; else the scope's own deadline did it


class Session:
    """One client's database session. Every method may raise ``NotebookError``."""

    def __init__(
        self,
        connection: Connection,
        workers: Workers,
        max_page_bytes: int,
        max_seconds: float = math.inf,
    ) -> None:
        """*max_seconds* is how long a call may ask the database before it is interrupted."""
        self._limit = self._seconds = max_seconds
        self._connection = connection
        self._workers = workers
        self._max_page_bytes = max_page_bytes
        self._machine = machine.Session()
        self._turn = trio.Lock()  # fair: first come, first served
        self._running: _Running | None = None
        self._pages: Pages | None = None

    # The catalog can be large: *render* makes of it, still on the worker, what the caller needs.

    async def tables(self, render: Callable[[Sequence[Table]], T]) -> T:
        async with self._calling(Call.TABLES):
            return await self._on_worker(Call.TABLES, lambda: render(self._connection.tables()))

    async def views(self, render: Callable[[Sequence[Table]], T]) -> T:
        async with self._calling(Call.VIEWS):
            return await self._on_worker(Call.VIEWS, lambda: render(self._connection.views()))

    async def columns(
        self, catalog: str, schema: str, table: str, render: Callable[[Sequence[Column]], T]
    ) -> T:
        """Columns of tables and views; "" matches any name."""
        find = partial(self._connection.columns, catalog, schema, table)
        async with self._calling(Call.COLUMNS):
            return await self._on_worker(Call.COLUMNS, lambda: render(find()))

    async def execute(
        self, sql: str, parameters: Parameters | None = None, seconds: float = math.inf
    ) -> None:
        """Run *sql* and open the result of its last statement.

        *seconds* may shorten the session's time limit for this call and for each ``page`` of
        its result.
        """
        async with self._calling(Call.EXECUTE), self._undone_if_interrupted():
            self._seconds = min(self._limit, seconds)
            await self._on_worker(Call.EXECUTE, partial(self._open, sql, parameters))

    async def metadata(self) -> Sequence[ResultColumn]:
        """The open result's columns; none for a statement without rows."""
        async with self._calling(Call.METADATA):
            return self._result().columns

    async def count(self) -> int:
        """How many rows the statement touched; -1 for one that has rows itself."""
        async with self._calling(Call.COUNT):
            return self._result().count

    async def page(self, limit: int) -> Page:
        """The next rows, at most *limit* of them, which must be positive."""
        async with self._calling(Call.PAGE):
            result = self._result()
            page = result.ready(limit)
            if page is None:
                async with self._undone_if_interrupted():
                    page = await self._on_worker(Call.PAGE, partial(result.page, limit))
            return page

    async def finish(self) -> None:
        """Close the result. Even if that fails, the session can execute again."""
        async with self._calling(Call.FINISH):
            await self._on_worker(Call.FINISH, self._result().close)

    async def quit(self) -> None:
        """End the session: nothing is legal after. The connection stays until ``close``."""
        async with self._calling(Call.QUIT):
            pass

    def cancel(self) -> bool:
        """Interrupt the call that runs now, if one does. Its caller gets ``Cancelled``."""
        if self._running is None:
            return False
        self._running.cancelled = True
        self._running.scope.cancel()
        return True

    def stop(self) -> None:
        """Interrupt the running call; those behind it, and all to come, are refused."""
        self._machine.terminate()
        self.cancel()

    def progress(self) -> Progress:
        running, fraction = self._running, None
        if running is not None and isinstance(self._connection, SupportsProgress):
            fraction = self._connection.progress()
        return Progress(
            state=self._machine.state.value,
            running=running.call.value if running else None,
            seconds=trio.current_time() - running.since if running else 0.0,
            waiting=self._turn.statistics().tasks_waiting,
            rows=self._result().rows_read if self._machine.state is State.ACTIVE else 0,
            fraction=fraction,
        )

    async def close(self) -> None:
        """Close the connection once the running call has ended; those that wait behind it are
        refused. Cannot be cancelled."""
        self._machine.terminate()
        with trio.CancelScope(shield=True):
            async with self._turn:
                await self._workers.run(self._connection.close)

    @asynccontextmanager
    async def _calling(self, call: Call) -> AsyncIterator[None]:
        """Wait for this call's turn, then let the machine judge it."""
        try:
            self._turn.acquire_nowait()  # no checkpoint: a call that needs no thread never waits
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            with self._machine.calling(call):
                yield
        finally:
            self._turn.release()

    async def _on_worker(self, call: Call, work: Callable[[], T]) -> T:
        connection = self._connection
        interrupt = connection.interrupt if isinstance(connection, SupportsInterrupt) else None
        now = trio.current_time()
        seconds = self._seconds if call in (Call.EXECUTE, Call.PAGE) else self._limit
        with trio.CancelScope(deadline=now + seconds) as scope:
            self._running = running = _Running(call, scope, now)
            try:
                value = await self._workers.run(work, interrupt)
            finally:
                self._running = None
            if call in (Call.EXECUTE, Call.PAGE) and self._result().streaming:
                # The work was done before an interrupt could stop it; but the interrupt has
                # spoiled what is left of the result, so the call counts as cancelled.
                await trio.lowlevel.checkpoint_if_cancelled()
            return value
        if not running.cancelled:
            raise QueryTimeout(f"{call.value} took longer than {seconds:g} seconds")
        raise Cancelled(f"{call.value} was cancelled")

    def _open(self, sql: str, parameters: Parameters | None) -> None:
        """On a worker: everything up to the first rows in one hand-over."""
        result: Result[str]
        if isinstance(self._connection, SupportsText):
            result = self._connection.execute_text(sql, parameters)
        else:
            result = TextRows(self._connection.execute(sql, parameters))
        try:
            pages = Pages(result, self._max_page_bytes)
            pages.read_ahead()
        except BaseException:
            result.close()
            raise
        self._pages = pages

    @asynccontextmanager
    async def _undone_if_interrupted(self) -> AsyncIterator[None]:
        """Give up the result and the transaction of a statement that was interrupted.

        Half a transaction must not stay open for the next statement to commit, and nobody
        may be left who would roll it back.
        """
        try:
            yield
        except (trio.Cancelled, Cancelled, QueryTimeout) as exc:
            undone = False
            with trio.CancelScope(shield=True):
                undone = await self._workers.run(self._undo)
            if undone and isinstance(exc, NotebookError):
                raise type(exc)(f"{exc}; its transaction was rolled back") from exc
            raise

    def _undo(self) -> bool:
        """On a worker: whether there was a transaction to undo. Whatever fails is logged: the
        client must hear of its interrupt."""
        try:
            if self._pages is not None:
                self._pages.lose()
        except NotebookError:
            logger.warning("cannot close a result after an interrupt", exc_info=True)
        try:
            return self._connection.rollback()
        except NotebookError:
            logger.warning("cannot roll back after an interrupt", exc_info=True)
            return False

    def _result(self) -> Pages:
        if self._pages is None:
            raise AssertionError("the state machine lets no call get here without a result")
        return self._pages
