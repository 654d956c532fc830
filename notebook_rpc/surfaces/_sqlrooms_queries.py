"""What becomes of the queries of one SQLRooms socket: each is a task, and has one outcome.

A small result is one message. A large one is sent in fragments while it is read, so that any
size takes the same memory; the protocol has no other way to share the socket, so that all else
waits for its end.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import trio

from notebook_rpc.errors import Cancelled, InvalidRequest, NotebookError
from notebook_rpc.model import BROKEN_STREAM
from notebook_rpc.sansio import sqlrooms

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from notebook_rpc.model import ResultColumn
    from notebook_rpc.web import WebSocket

Pieces: TypeAlias = Sequence[bytes | memoryview]
Outcome: TypeAlias = str | Pieces

PAUSE: Final = 256 * 1024  # bytes that are escaped between two checkpoints: half a millisecond
BESIDES: Final = 8 * 1024  # bytes that a query takes besides its text: a task, and what it holds

logger = logging.getLogger(__name__)


class Answer(Protocol):
    """A statement's rows; ``services.queries.Answer`` explains it. A piece of an Arrow stream is
    one or more of its messages, whole."""

    @property
    def columns(self) -> Sequence[ResultColumn]: ...
    @property
    def ended(self) -> bool: ...
    async def read(self) -> Pieces: ...


class Queries(Protocol):
    """Statements on one database; ``services.queries.Queries`` explains each."""

    def arrow(
        self, sql: str, /, *, persist: bool = False
    ) -> AbstractAsyncContextManager[Answer]: ...
    def json(
        self, sql: str, /, *, persist: bool = False
    ) -> AbstractAsyncContextManager[Answer]: ...
    async def execute(self, sql: str, /) -> int: ...
    async def upload(self, schema: str, table: str, stream: bytes, /) -> int: ...


class Told(Protocol):
    """Makes the message that tells a client of an error, of a query's where its id is given."""

    def __call__(self, exc: NotebookError, id_: str | None = None, /) -> str: ...


class Bound:
    """How much there may be of something; whoever brings more waits first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._less: trio.Event | None = None  # somebody waits for it

    async def room(self) -> None:
        """Wait until there is less than the limit."""
        while self._held >= self._limit:
            if self._less is None:
                self._less = trio.Event()
            await self._less.wait()

    def take(self, amount: int) -> None:
        """So much more, whether there is room or not."""
        self._held += amount

    def give_back(self, amount: int) -> None:
        self._held -= amount
        if self._less is not None:
            self._less.set()
            self._less = None


class Load:
    """What one socket may have under way, in bytes: its messages, and what each takes besides.

    There is no bound of their number, as a cancel behind it would not be read.
    """

    def __init__(self, socket: WebSocket, max_bytes: int, besides: int = BESIDES) -> None:
        self._socket = socket
        self._bytes = Bound(max_bytes)
        self._besides = besides

    async def enter(self, size: int) -> UnderWay:
        """Wait for room for a message."""
        await self._bytes.room()
        return UnderWay(self._socket.working(), self._bytes, size + self._besides)


class UnderWay:
    """A message that is under way, from now to the end of the block. (A class: there is one for
    every query, and an ``ExitStack`` takes several times as long.)"""

    __slots__ = ("_bound", "_size", "_working")

    def __init__(self, working: AbstractContextManager[None], bound: Bound, size: int) -> None:
        self._working = working
        self._bound = bound
        self._size = size
        working.__enter__()
        bound.take(size)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *raised: Any) -> None:
        self._bound.give_back(self._size)
        self._working.__exit__(*raised)


@dataclass(frozen=True, slots=True)
class _Format:
    """What stands around a result's pieces, and what becomes of them. ``broken`` is in the place
    of ``closing`` where the rest cannot be had, so that nobody takes it for whole."""

    text: bool
    opening: Callable[[str], bytes]
    parts: Callable[[Pieces], Iterator[Pieces]]
    closing: bytes
    broken: bytes

    async def whole(self, id_: str, pieces: Pieces) -> Outcome:
        """A small result."""
        message: list[bytes | memoryview] = [self.opening(id_)]
        made = 0
        for parts in self.parts(pieces):
            message += parts
            if self.text and (made := made + sum(map(len, parts))) > PAUSE:
                made = 0
                await trio.lowlevel.checkpoint()
        if not self.text:
            return message
        return str(b"".join([*message, self.closing]), "utf-8")


def _as_they_are(pieces: Pieces) -> Iterator[Pieces]:
    yield pieces


def _escaped(pieces: Pieces) -> Iterator[Pieces]:
    if sum(map(len, pieces)) <= PAUSE:  # at once, and not row by row
        pieces = [b"".join(pieces)]
    return ([part] for piece in pieces for part in sqlrooms.escaped(piece))


ARROW: Final = _Format(False, sqlrooms.arrow_opening, _as_they_are, b"", BROKEN_STREAM)
JSON: Final = _Format(True, sqlrooms.json_opening, _escaped, sqlrooms.CLOSING, b"")


class _Stream:
    """A large result, sent by a task of its own: the one that reads may be cancelled, but a
    fragment that is cut off would cost the socket its life, and all other queries theirs."""

    def __init__(self, socket: WebSocket, format_: _Format, id_: str) -> None:
        self._socket = socket
        self._format = format_
        self._id = id_
        self._read, self._to_send = trio.open_memory_channel[Pieces](0)
        self._whole = False
        self._sent = trio.Event()

    async def put(self, pieces: Pieces) -> None:
        await self._read.send(pieces)

    async def end(self, *, whole: bool) -> None:
        """Wait until it is sent; what has been put is all, or all there is."""
        self._whole = whole
        self._read.close()
        await self._sent.wait()

    async def send(self) -> None:
        """The task."""
        async with self._socket.sending(text=self._format.text) as send:
            await send([self._format.opening(self._id)])
            async for pieces in self._to_send:
                for parts in self._format.parts(pieces):
                    await send(parts)
            if end := self._format.closing if self._whole else self._format.broken:
                await send([end])
        self._sent.set()


class Query:
    """A query or an upload, until its outcome is decided. Then it cannot be cancelled any more,
    and its id is free."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.scope = trio.CancelScope()
        self.stream: _Stream | None = None


Work: TypeAlias = Callable[[Query], Awaitable[Outcome | None]]
"""Does what a query asks. None: its stream has all there is to be sent."""


class Running:
    """The queries of one socket. *turns* are how many are carried out at a time, and *max_unsent*
    is how many bytes of results may wait for a slow reader before no more are."""

    def __init__(
        self,
        socket: WebSocket,
        queries: Queries,
        nursery: trio.Nursery,
        load: Load,
        told: Told,
        *,
        turns: trio.Semaphore,
        max_unsent: int,
    ) -> None:
        self._socket = socket
        self._queries = queries
        self._nursery = nursery
        self._load = load
        self._told = told
        self._turns = turns
        self._unsent = Bound(max_unsent)
        self._running: dict[str, Query] = {}

    async def statement(self, id_: str, asked: sqlrooms.Statement, size: int) -> None:
        await self._begin(id_, size, partial(WORKS[type(asked)], self, asked))

    async def upload(self, id_: str, asked: sqlrooms.Upload, stream: bytes) -> None:
        await self._begin(id_, len(stream), partial(self._upload, asked, stream))

    def cancel(self, id_: str | None) -> bool:
        """Whether it comes in time."""
        query = None if id_ is None else self._running.get(id_)
        if query is not None:
            query.scope.cancel()
        return query is not None

    async def _begin(self, id_: str, size: int, work: Work) -> None:
        """From here on it can be cancelled; it is carried out when its turn comes."""
        if id_ in self._running:
            raise InvalidRequest("a query with this queryId is under way")
        query = self._running[id_] = Query(id_)
        under_way = await self._load.enter(size)
        self._nursery.start_soon(self._carry_out, query, under_way, work)

    async def _carry_out(self, query: Query, under_way: UnderWay, work: Work) -> None:
        with under_way:
            outcome = await self._outcome(query, work)
            del self._running[query.id]
            if query.stream is not None:
                await query.stream.end(whole=outcome is None)
            if outcome is not None:
                size = len(outcome) if isinstance(outcome, str) else sum(map(len, outcome))
                self._unsent.take(size)
                try:
                    await self._socket.send(outcome)
                finally:
                    self._unsent.give_back(size)

    async def _outcome(self, query: Query, work: Work) -> Outcome | None:
        try:
            with query.scope:
                await trio.lowlevel.checkpoint_if_cancelled()  # nothing was begun yet
                return await self._in_turn(query, work)
            exc: NotebookError = Cancelled("Query was cancelled")
        except NotebookError as error:
            exc = error
        except Exception:  # a bug of ours or of a driver: the client must get its answer
            logger.exception("a query failed")
            exc = NotebookError("internal error; the server's log has the details")
        return self._told(exc, query.id)

    async def _in_turn(self, query: Query, work: Work) -> Outcome | None:
        try:
            self._turns.acquire_nowait()  # at no cost, as a rule
        except trio.WouldBlock:
            await self._turns.acquire()  # in order of arrival
        try:
            await self._unsent.room()
            return await work(query)
        finally:
            self._turns.release()

    async def arrow(self, asked: sqlrooms.Statement, query: Query) -> Outcome | None:
        answer = self._queries.arrow(asked.sql, persist=bool(asked.persist))
        return await self._rows(query, ARROW, answer)

    async def json(self, asked: sqlrooms.Statement, query: Query) -> Outcome | None:
        answer = self._queries.json(asked.sql, persist=bool(asked.persist))
        return await self._rows(query, JSON, answer)

    async def exec(self, asked: sqlrooms.Statement, query: Query) -> Outcome:
        await self._queries.execute(asked.sql)
        return sqlrooms.ok(query.id)

    async def _upload(self, upload: sqlrooms.Upload, stream: bytes, query: Query) -> Outcome:
        await self._queries.upload(*sqlrooms.table(upload.table_name), stream)
        return sqlrooms.upload_ack(query.id)

    async def _rows(
        self, query: Query, format_: _Format, asking: AbstractAsyncContextManager[Answer]
    ) -> Outcome | None:
        async with asking as answer:
            if not answer.columns:
                return sqlrooms.ok(query.id)
            pieces = await answer.read()
            if not answer.ended:
                query.stream = _Stream(self._socket, format_, query.id)
                self._nursery.start_soon(query.stream.send)
                while pieces:
                    await query.stream.put(pieces)
                    pieces = await answer.read()
                return None
        return await format_.whole(query.id, pieces)


WORKS: Final[Mapping[type, Callable[[Running, Any, Query], Awaitable[Outcome | None]]]] = {
    sqlrooms.Arrow: Running.arrow,
    sqlrooms.Json: Running.json,
    sqlrooms.Exec: Running.exec,
}
