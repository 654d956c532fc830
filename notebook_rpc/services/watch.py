"""Live queries: whoever subscribes to one gets its result, and then what becomes of it.

A query is looked at again when a statement of this server has written to a table that it reads, or
may have, and not when others have, unless a subscriber asks for a look every so often. All who
subscribe to the same share its looks.

What it refuses: to let anything be written. Looks are taken on connections that cannot.
"""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec
import trio

from notebook_rpc.errors import Busy
from notebook_rpc.sansio.tracing import REQUEST
from notebook_rpc.services._watch_held import Held
from notebook_rpc.services._watch_look import Asked, look
from notebook_rpc.services._watch_query import LiveQuery, Member

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractContextManager

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Touched
    from notebook_rpc.services._watch_look import Seen, Snapshot

__all__ = ["Limits", "Subscription", "Watch"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

RESULTS: Final = 32  # of the largest size there may be
LINGERING: Final = 4  # of these may wait for subscribers to come back
MOST_LINGERING: Final = 1000  # queries


class Queries(Protocol):
    """Where looks are taken; ``services.queries.Queries``."""

    async def run(self, name: str, work: Callable[[Connection], T], sql: str) -> T: ...


@dataclass(frozen=True, slots=True)
class Limits:
    subscriptions: int
    result_bytes: int
    """Of one result, as JSON."""


class Watch:
    """``run`` must be running while there are subscriptions."""

    def __init__(
        self,
        queries: Callable[[str], Queries],
        engine: Callable[[str], str],
        limits: Limits,
        hear: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """*queries* are those of a database by its name, on connections that cannot write; it
        raises ``UnknownConnection``. *engine* is as of ``Versions``. *hear* is entered, with the
        name of a database, for as long as somebody wants to know what others write there."""
        self._queries = queries
        self._engine = engine
        self._limits = limits
        self._hear = hear
        self._live: dict[Asked, LiveQuery] = {}
        self._size = 0  # of all results
        self._held = Held(RESULTS * limits.result_bytes)
        self._nursery: trio.Nursery | None = None
        self.subscriptions = 0

    def __len__(self) -> int:
        """How many different queries are watched."""
        return len(self._live)

    def wrote(self, connection: str, touched: Touched) -> None:
        """Statements on *connection* have written to these tables, and that may be seen now."""
        if not self._live:
            return
        engine = self._engine(connection)
        for asked, query in self._live.items():
            if asked.connection == connection:
                query.wrote(touched)
            elif self._engine(asked.connection) == engine:
                # It may be the same database, or be attached there, by other names.
                query.wrote(None)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at what is subscribed to. Runs until it is cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    @asynccontextmanager
    async def subscription(
        self,
        connection: str,
        sql: str,
        parameters: Sequence[object] = (),
        key: Sequence[str] = (),
        *,
        last_id: str | None = None,
        every: float = math.inf,
    ) -> AsyncIterator[Subscription]:
        """*key* has the columns that say which row is which. *last_id* is of the last event that a
        client has seen who comes back: it is told what it has missed, or the whole result. *every*
        so many seconds at least there is a look. Who reads so slowly that too much is held for it
        is cut off: the block is cancelled, and left.

        Raises:
            NotebookError: the query fails now. Who comes back is told so later, as its
                subscription goes on.
            Busy: there are as many subscriptions as may be.
        """
        self._queries(connection)  # raises, if there is no such database
        texts = (msgspec.json.encode(each).decode() for each in parameters)
        asked = Asked(connection, sql, tuple(texts), tuple(key))
        if self.subscriptions >= self._limits.subscriptions:
            raise Busy(f"there are {self.subscriptions} subscriptions already, and no more may be")
        query = self._live.get(asked) or self._begin(asked)
        member = Member()
        self.subscriptions += 1
        query.join(member, every)
        try:
            await query.looked()
            if last_id is not None:
                member.version = query.version_of(last_id)
            elif query.failure is not None:
                raise query.failure.again()
            with member.scope:
                yield Subscription(query, member)
        finally:
            self.subscriptions -= 1
            query.leave(member)
            if not query.members and self._live.pop(asked, None) is query:
                self._live[asked] = query  # the last to be left comes last
                self._trim()

    def _begin(self, asked: Asked) -> LiveQuery:
        assert self._nursery is not None  # noqa: S101  # ``run`` is running
        query = LiveQuery(partial(self._look, asked), self._held, self._grown)
        self._live[asked] = query
        self._nursery.start_soon(self._keep, asked, query)
        return query

    async def _keep(self, asked: Asked, query: LiveQuery) -> None:
        REQUEST.set("live")  # for the log: it outlives the request that began it
        try:
            with self._hear(asked.connection):
                await query.live()
        finally:
            del self._live[asked]

    async def _look(self, asked: Asked, last: Snapshot | None, learn: bool) -> Seen:
        largest = self._limits.result_bytes
        work = partial(look, asked, last, largest, learn=learn)
        seen = await self._queries(asked.connection).run("watch", work, asked.sql)
        grown = seen.snapshot.cost - (0 if last is None else last.cost)
        if grown > 0 and self._size + grown > RESULTS * largest:
            raise Busy("the results of all live queries together are as large as they may be")
        return seen

    def _grown(self, by: int) -> None:
        self._size += by

    def _trim(self) -> None:
        """Let go of what only those may want who might come back, if it is much: of what has been
        waiting longest first."""
        waiting = [query for query in self._live.values() if not query.members]
        held = sum(query.cost for query in waiting)
        for number, query in enumerate(waiting):
            many = len(waiting) - number > MOST_LINGERING
            if many or held > LINGERING * self._limits.result_bytes:
                held -= query.cost
                query.drop()


class Subscription:
    """What one client is told, piece by piece, as server-sent events."""

    def __init__(self, query: LiveQuery, member: Member) -> None:
        self._query = query
        self._member = member

    async def events(self) -> Sequence[bytes]:
        """The next events that it has to be told, in pieces; waits for one. Who asks late is told
        no more than where things stand."""
        while not (events := self._query.events(self._member)):
            await self._query.news()
        return events
