"""A session: the state machine, and the lane its calls are made on.

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
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from notebook_rpc.driver import SupportsText
from notebook_rpc.sansio import session as machine
from notebook_rpc.sansio.budget import SHARE, Budget
from notebook_rpc.sansio.session import Call, State
from notebook_rpc.sansio.sqltext import no_longer_than
from notebook_rpc.sansio.values import TextRows
from notebook_rpc.services.lanes import Lane
from notebook_rpc.services.paging import Pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Column, Parameters, Result, ResultColumn, Table, Touched
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
    running statement, None where it has none. ``transaction`` is "autocommit", "in
    transaction" or "failed transaction".
    """

    state: str
    running: str | None
    seconds: float
    waiting: int
    rows: int
    fraction: float | None
    transaction: str


class Meter(Protocol):
    """Hears of calls that have ended, with the seconds they took, and of pages handed out."""

    def call(self, name: str, seconds: float, /) -> None: ...
    def page(self, rows: int, size: int, /) -> None: ...


class Unread:
    """For whoever needs no figures."""

    def call(self, name: str, seconds: float, /) -> None:
        """It is not kept."""

    def page(self, rows: int, size: int, /) -> None:
        """It is not kept."""


class Session:
    """One client's database session. Every method may raise ``NotebookError``."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        workers: Workers,
        max_page_bytes: int,
        max_seconds: float = math.inf,
        meter: Meter | None = None,
        budget: Budget | None = None,
        changed: Callable[[Touched], None] = lambda _: None,
        max_sql: float = math.inf,
    ) -> None:
        """*max_seconds* is how long a call may ask the database before it is interrupted. Pages
        keep within *budget*, which sessions may share. *changed* is as of ``Lane``. *max_sql*
        is how many characters a statement may have."""
        self._budget = budget or Budget(SHARE * max_page_bytes)
        self._meter = meter or Unread()
        self._limit = self._seconds = max_seconds
        self._max_page_bytes = max_page_bytes
        self._max_sql = max_sql
        self._machine = machine.Session()
        self._lane = Lane(connect, workers, self._lose, self._meter.call, changed)
        self._pages: Pages | None = None

    async def open(self) -> None:
        """Connect now, and not with the first call.

        Raises:
            DatabaseError: that cannot be done.
        """
        async with self._lane.turn():
            await self._lane.open()

    # The catalog can be large: *render* makes of it, still on the worker, what the caller needs.

    async def tables(self, render: Callable[[Sequence[Table]], T]) -> T:
        return await self._ask(Call.TABLES, lambda connection: render(connection.tables()))

    async def views(self, render: Callable[[Sequence[Table]], T]) -> T:
        return await self._ask(Call.VIEWS, lambda connection: render(connection.views()))

    async def columns(
        self, catalog: str, schema: str, table: str, render: Callable[[Sequence[Column]], T]
    ) -> T:
        """Columns of tables and views; "" matches any name."""
        return await self._ask(
            Call.COLUMNS,
            lambda connection: render(connection.columns(catalog, schema, table)),
        )

    async def execute(
        self, sql: str, parameters: Parameters | None = None, seconds: float = math.inf
    ) -> None:
        """Run *sql* and open the result of its last statement.

        *seconds* may shorten the session's time limit for this call and for each ``page`` of
        its result.
        """
        async with self._calling(Call.EXECUTE):
            logger.debug("execute: %r", no_longer_than(self._max_sql, sql))
            self._seconds = min(self._limit, seconds)
            await self._read(Call.EXECUTE, partial(self._execute, sql, parameters))

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
            before = result.rows_read
            page = result.ready(limit)
            if page is None:
                with self._budget.making(self._max_page_bytes) as room:
                    page = await self._read(Call.PAGE, lambda _: result.page(limit, room))
            self._meter.page(result.rows_read - before, sum(map(len, page)))
            return page

    async def finish(self) -> None:
        """Close the result. Even if that fails, the session can execute again."""
        async with self._calling(Call.FINISH), self._lane.call("finish", self._limit):
            close = self._result().close
            await self._lane.work(lambda _: close())

    async def quit(self) -> None:
        """End the session: nothing is legal after. The connection stays until ``close``."""
        async with self._calling(Call.QUIT):
            pass

    def cancel(self) -> bool:
        """Interrupt the call that runs now, if one does. Its caller gets ``Cancelled``."""
        return self._lane.cancel()

    def stop(self) -> None:
        """Interrupt the running call; those behind it, and all to come, are refused."""
        self._machine.terminate()
        self.cancel()

    def progress(self) -> Progress:
        running = self._lane.running
        return Progress(
            state=self._machine.state.value,
            running=running.call if running else None,
            seconds=trio.current_time() - running.since if running else 0.0,
            waiting=self._lane.waiting,
            rows=self._result().rows_read if self._machine.state is State.ACTIVE else 0,
            fraction=self._lane.fraction,
            transaction=self._lane.transaction.value,
        )

    async def close(self) -> None:
        """Close the connection once the running call has ended; those that wait behind it are
        refused. Cannot be cancelled."""
        self._machine.terminate()
        await self._lane.close()

    @asynccontextmanager
    async def _calling(self, call: Call) -> AsyncIterator[None]:
        """Wait for this call's turn, then let the machine judge it."""
        async with self._lane.turn():
            with self._machine.calling(call):
                yield

    async def _ask(self, call: Call, work: Callable[[Connection], T]) -> T:
        async with self._calling(call), self._lane.call(call.value, self._limit):
            return await self._lane.work(work)

    async def _read(self, call: Call, work: Callable[[Connection], T]) -> T:
        """Run a statement, or read on in its result."""
        async with self._lane.undone_if_interrupted(), self._lane.call(call.value, self._seconds):
            value = await self._lane.work(work)
            if self._result().streaming:
                # The work was done before an interrupt could stop it; but the interrupt has
                # spoiled what is left of the result, so the call counts as cancelled.
                await trio.lowlevel.checkpoint_if_cancelled()
            return value

    def _execute(self, sql: str, parameters: Parameters | None, connection: Connection) -> None:
        """On a worker: everything up to the first rows in one hand-over."""
        result: Result[str]
        if isinstance(connection, SupportsText):
            result = connection.execute_text(sql, parameters)
        else:
            result = TextRows(connection.execute(sql, parameters))
        try:
            pages = Pages(result, self._max_page_bytes)
            pages.read_ahead()
        except BaseException:
            result.close()
            raise
        self._pages = pages

    def _lose(self) -> None:
        if self._pages is not None:
            self._pages.lose()

    def _result(self) -> Pages:
        if self._pages is None:
            raise AssertionError("the state machine lets no call get here without a result")
        return self._pages
