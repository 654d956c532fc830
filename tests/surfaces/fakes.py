"""What the tests of surfaces stand on: a WebSocket whose client is the test, and a database
whose answers are laid down."""

from __future__ import annotations

import json
import math
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import QueryError
from notebook_rpc.model import ResultColumn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from notebook_rpc.web import SendPieces

COLUMNS = (ResultColumn("x", "INTEGER"),)


class Socket:
    """A WebSocket whose client is the test. It reads unless ``reads`` is a new event."""

    def __init__(self) -> None:
        self._say, self._hear = trio.open_memory_channel[str | bytes](math.inf)
        self.sent: deque[str | bytes] = deque()
        self._arrived = trio.Event()
        self._turn = trio.Lock()
        self.reads = trio.Event()
        self.reads.set()
        self.fragments: list[bytes] = []
        self.at_work = 0
        self.closed: tuple[int, str] | None = None
        self.scope = trio.CancelScope()

    # What the surface has of it

    async def receive(self) -> str | bytes:
        return await self._hear.receive()

    async def send(self, message: str | bytes | Sequence[bytes | memoryview]) -> None:
        async with self._turn:
            await self.reads.wait()
            self._arrive(message if isinstance(message, str | bytes) else b"".join(message))

    @asynccontextmanager
    async def sending(self, *, text: bool = False) -> AsyncIterator[SendPieces]:
        async def send(pieces: Sequence[bytes | memoryview]) -> None:
            try:
                await self.reads.wait()
            except trio.Cancelled:
                assert self.scope.cancel_called, "a fragment was cut off"
                raise
            self.fragments.append(b"".join(pieces))

        async with self._turn:
            self.fragments = []
            yield send
            message = b"".join(self.fragments)
            self._arrive(message.decode() if text else message)

    @contextmanager
    def working(self) -> Iterator[None]:
        self.at_work += 1
        try:
            yield
        finally:
            self.at_work -= 1

    def post(self, message: str | bytes) -> None:
        self._arrive(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = code, reason
        self.scope.cancel()
        await trio.lowlevel.checkpoint()

    def _arrive(self, message: str | bytes) -> None:
        self.sent.append(message)
        self._arrived.set()
        self._arrived = trio.Event()

    # What the test has of it

    def say(self, *messages: object) -> None:
        for message in messages:
            raw = message if isinstance(message, str | bytes) else json.dumps(message)
            self._say.send_nowait(raw)

    def unread(self) -> int:
        """Messages that nobody has received."""
        return self._say.statistics().current_buffer_used

    async def hear(self) -> str | bytes:
        with trio.fail_after(5):
            while not self.sent:
                await self._arrived.wait()
        return self.sent.popleft()

    async def hears(self) -> Any:
        message = await self.hear()
        assert isinstance(message, str)
        return json.loads(message)

    async def asks(self, *messages: object) -> Any:
        self.say(*messages)
        return await self.hears()

    async def silence(self) -> None:
        await wait_all_tasks_blocked()
        assert not self.sent


@dataclass
class Rows:
    """What a statement gives: what each read returns or raises. It stands still before the read
    of number ``stands_at``, until ``go`` is set; before number 0, before it has begun."""

    reads: Sequence[Sequence[bytes | memoryview] | Exception] = ()
    columns: Sequence[ResultColumn] = COLUMNS
    stands_at: int = -1
    go: trio.Event = field(default_factory=trio.Event)
    ended: bool = False
    taken: int = 0

    async def begin(self) -> None:
        if self.stands_at == 0:
            await self.go.wait()
        if self.reads and isinstance(self.reads[0], Exception):
            raise self.reads[0]

    async def read(self) -> Sequence[bytes | memoryview]:
        if self.taken == self.stands_at:
            await self.go.wait()
        if self.taken >= len(self.reads):
            return ()
        read = self.reads[self.taken]
        self.taken += 1
        self.ended = self.taken == len(self.reads)
        if isinstance(read, Exception):
            raise read
        return read


class Database:
    """Statements whose results are laid down, and what became of them."""

    def __init__(self) -> None:
        self.rows: dict[str, Rows] = {}
        self.begun: list[object] = []
        self.over: list[str] = []
        """Statements whose connections were given back."""

    def arrow(self, sql: str, /, *, persist: bool = False) -> Any:
        return self._answer("arrow", sql, persist=persist)

    def json(self, sql: str, /, *, persist: bool = False) -> Any:
        return self._answer("json", sql, persist=persist)

    @asynccontextmanager
    async def _answer(self, kind: str, sql: str, *, persist: bool) -> AsyncIterator[Rows]:
        self.begun.append((kind, sql, persist))
        try:
            rows = replace(self.rows[sql])
            await rows.begin()
            yield rows
        finally:
            self.over.append(sql)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Database]:
        self.begun.append("alone")
        yield self
        self.begun.append("no more alone")

    async def execute(self, sql: str, /) -> int:
        async with self._answer("exec", sql, persist=False) as rows:
            await rows.read()
        return 0

    async def upload(self, schema: str, table: str, stream: bytes, /) -> int:
        self.begun.append(("upload", schema, table, stream))
        if stream == b"broken":
            raise QueryError("not a stream")
        return 0
