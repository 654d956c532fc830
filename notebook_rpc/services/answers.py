"""Answers: what a statement has given, as pieces of a known format.

The first half runs on workers and makes the pieces, the second hands them out on the event loop:
those of the database, and those that were kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec
import trio

from notebook_rpc.driver import SupportsArrow, SupportsJson
from notebook_rpc.errors import NotebookError
from notebook_rpc.model import END_OF_STREAM, ResultColumn
from notebook_rpc.sansio import values
from notebook_rpc.services.arrow import ArrowRows
from notebook_rpc.services.paging import Pages

if TYPE_CHECKING:
    from notebook_rpc.driver import Connection
    from notebook_rpc.model import ArrowResult, Parameters, Result
    from notebook_rpc.services.cache import Reader, Writer

Pieces: TypeAlias = Sequence[bytes | memoryview]

PIECES: Final = 1 << 20  # bytes that are read at a time, more or less


class Rows(Protocol):
    """A result in one format. Its methods block."""

    columns: Sequence[ResultColumn]
    count: int
    ended: bool
    """Nothing is left to be read."""

    def read(self) -> Pieces:
        """The next pieces, about ``PIECES`` together; the first ones begin the format, the last
        ones end it."""
        ...

    def close(self) -> None: ...


Work: TypeAlias = "Callable[[Connection], Rows]"
Open: TypeAlias = "Callable[[str, Parameters | None, Connection], Rows]"


class ArrowStream:
    """An Arrow IPC stream."""

    def __init__(self, result: ArrowResult) -> None:
        self.columns = result.columns
        self.count = result.count
        self.ended = not result.columns
        self._result = result
        self._begun = False

    def read(self) -> Pieces:
        pieces: list[bytes | memoryview] = []
        room = PIECES
        if not self._begun:
            self._begun = True
            pieces.append(self._result.schema)
        while room > 0:
            batch = self._result.fetch()
            pieces.append(batch or END_OF_STREAM)
            if not batch:
                self.ended = True
                break
            room -= len(batch)
        return pieces

    def close(self) -> None:
        self._result.close()


class JsonArray:
    """A JSON array of objects, one for each row."""

    def __init__(self, result: Result[str]) -> None:
        self.columns = result.columns
        self.count = result.count
        self.ended = not result.columns
        self._pages = Pages(result, PIECES)
        self._opening = b"["

    def read(self) -> Pieces:
        rows = self._pages.page(sys.maxsize)[1:-1]  # without its brackets
        pieces: list[bytes | memoryview] = []
        if rows:
            pieces = [self._opening, *rows]
            self._opening = b","
        if self._pages.ended:
            pieces += [b"]"] if self._opening == b"," else [b"[]"]
            self.ended = True
        return pieces

    def close(self) -> None:
        self._pages.close()


def arrow(sql: str, parameters: Parameters | None, connection: Connection) -> Rows:
    if isinstance(connection, SupportsArrow):
        return ArrowStream(connection.execute_arrow(sql, parameters))
    return ArrowStream(ArrowRows(connection.execute(sql, parameters)))


def json(sql: str, parameters: Parameters | None, connection: Connection) -> Rows:
    if isinstance(connection, SupportsJson):
        return JsonArray(connection.execute_json(sql, parameters))
    return JsonArray(values.JsonRows(connection.execute(sql, parameters)))


FORMATS: Final[Mapping[str, Open]] = {"arrow": arrow, "json": json}


class Answer(Protocol):
    """What a statement gave: ``columns`` (none: it has no rows), ``count`` as of a result.

    ``ended`` says that nothing comes after what ``read`` has given so far.
    """

    columns: Sequence[ResultColumn]
    count: int
    ended: bool

    async def read(self) -> Pieces:
        """The next pieces, about 1 MiB together; none at the end.

        Raises:
            NotebookError: the rest cannot be had; what has been read is not all.
        """
        ...


class Fresh:
    """An answer of the database."""

    def __init__(
        self,
        rows: Rows,
        first: Pieces,
        more: trio.MemoryReceiveChannel[Pieces | NotebookError],
    ) -> None:
        self.columns = rows.columns
        self.count = rows.count
        self.ended = rows.ended and not first
        self._first = first
        self._only = rows.ended
        self._more = more

    async def read(self) -> Pieces:
        pieces, self._first = self._first, ()
        if pieces:
            self.ended = self._only
            return pieces
        if self.ended:
            return ()
        try:
            received = await self._more.receive()
        except trio.EndOfChannel:
            self.ended = True
            return ()
        if isinstance(received, NotebookError):
            raise received
        return received


class Kept:
    """A fresh answer that is kept as it is read."""

    def __init__(self, answer: Answer, writer: Writer, lasts: float) -> None:
        self.columns = answer.columns
        self.count = answer.count
        self.ended = answer.ended
        self._answer = answer
        self._writer = writer
        self._lasts = lasts

    async def read(self) -> Pieces:
        pieces = await self._answer.read()
        for piece in pieces:
            await self._writer.write(piece)
        self.ended = self._answer.ended
        if self.ended:
            await self._writer.commit(msgspec.json.encode(self.columns), self._lasts)
        return pieces


class Found:
    """An answer that was kept."""

    count = -1

    def __init__(self, reader: Reader) -> None:
        self.columns: Sequence[ResultColumn] = msgspec.json.decode(
            reader.note, type=list[ResultColumn]
        )
        self.ended = False
        self._reader = reader

    async def read(self) -> Pieces:
        piece = await self._reader.read()
        self.ended = self._reader.ended
        return [piece] if piece else ()
