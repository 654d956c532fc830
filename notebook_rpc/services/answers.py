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

from notebook_rpc.driver import SupportsArrow, SupportsJson, SupportsLines, SupportsPages
from notebook_rpc.errors import NotebookError, NotSupported, QueryError
from notebook_rpc.model import END_OF_STREAM, Line, ResultColumn
from notebook_rpc.sansio import csv as csv_rules
from notebook_rpc.sansio import values
from notebook_rpc.services.arrow import ArrowRows
from notebook_rpc.services.lines import PIECES, Text, Written
from notebook_rpc.services.paging import Pages
from notebook_rpc.services.parquet import Parquet
from notebook_rpc.services.parts import Part, Slice, SliceOfLines, Window

if TYPE_CHECKING:
    from notebook_rpc.driver import Connection
    from notebook_rpc.model import ArrowResult, Lines, Parameters, Result
    from notebook_rpc.services.cache import Reader, Writer

Pieces: TypeAlias = Sequence[bytes | memoryview]

# Bytes of Arrow that are read at a time: few at first, as a client waits for them, and then so many
# that the way to a thread and back is a small part of it.
FIRST_PIECES: Final = 128 * 1024
LATER_PIECES: Final = 2 << 20


class Rows(Protocol):
    """A result in one format. Its methods block."""

    columns: Sequence[ResultColumn]
    count: int
    ended: bool
    """Nothing is left to be read."""

    @property
    def row_count(self) -> int:
        """Rows that have been read; -1 where nobody counts them."""
        ...

    @property
    def complete(self) -> bool:
        """Every row has been read; what is left to be found out is how many there are in all."""
        ...

    @property
    def total_count(self) -> int | None:
        """How many rows there are, of which these are a part; None: not known, or not asked."""
        ...

    def read(self) -> Pieces:
        """The next pieces, one or two MiB together; the first ones begin the format, the last
        ones end it."""
        ...

    def close(self) -> None: ...


Work: TypeAlias = "Callable[[Connection], Rows]"
Open: TypeAlias = "Callable[[str, Parameters | None, Connection], Rows]"


class ArrowStream:
    """An Arrow IPC stream."""

    row_count = -1
    complete = False
    total_count = None

    def __init__(self, result: ArrowResult) -> None:
        self.columns = result.columns
        self.count = result.count
        self.ended = not result.columns
        self._result = result
        self._begun = False

    def read(self) -> Pieces:
        pieces: list[bytes | memoryview] = []
        room = LATER_PIECES
        if not self._begun:
            room = FIRST_PIECES
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
    """A JSON array of the rows, each of which is JSON text."""

    complete = False
    total_count = None

    def __init__(self, result: Result[str]) -> None:
        self.columns = result.columns
        self.count = result.count
        self.ended = not result.columns
        self._pages = Pages(result, PIECES)
        self._opening = b"["

    @property
    def row_count(self) -> int:
        return self._pages.rows_read

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
    return JsonArray(_objects(sql, parameters, connection))


def _objects(sql: str, parameters: Parameters | None, connection: Connection) -> Result[str]:
    if isinstance(connection, SupportsJson):
        return connection.execute_json(sql, parameters)
    return values.JsonRows(connection.execute(sql, parameters))


def rows(sql: str, parameters: Parameters | None, connection: Connection) -> Rows:
    return JsonArray(array_rows(sql, parameters, connection))


def array_rows(sql: str, parameters: Parameters | None, connection: Connection) -> Result[str]:
    """Run *sql*; each of its rows is the text of a JSON array of its values."""
    if isinstance(connection, SupportsJson):
        return connection.execute_json(sql, parameters, arrays=True)
    return values.JsonRows(connection.execute(sql, parameters), arrays=True)


def csv(sql: str, parameters: Parameters | None, connection: Connection) -> Rows:
    return _csv(_lines(Line.CSV, sql, parameters, connection))


def ndjson(sql: str, parameters: Parameters | None, connection: Connection) -> Rows:
    return Text(_lines(Line.OBJECT, sql, parameters, connection))


def _csv(lines: Lines) -> Rows:
    names = csv_rules.record([column.column for column in lines.columns])
    return Text(lines, f"{names}{csv_rules.END}".encode())


def _lines(line: Line, sql: str, parameters: Parameters | None, connection: Connection) -> Lines:
    after = csv_rules.END if line is Line.CSV else "\n"
    if isinstance(connection, SupportsLines):
        return connection.execute_lines(sql, parameters, line=line, after=after)
    if line is Line.CSV:
        return Written(values.CsvRows(connection.execute(sql, parameters)), "", after)
    return Written(_objects(sql, parameters, connection), "", after)


FORMATS: Final[Mapping[str, Open]] = {
    "arrow": arrow,
    "json": json,
    "rows": rows,
    "csv": csv,
    "ndjson": ndjson,
    "parquet": Parquet,
}


def part(
    form: str, sql: str, parameters: Parameters | None, window: Window, connection: Connection
) -> Rows:
    """Run *sql*; give the rows in the window, and where the format has room for it, which "rows"
    has, the number of all."""
    if isinstance(connection, SupportsPages):
        found = _part_of_the_database(form, sql, parameters, window, connection)
        if found is not None:
            return found
    if form == "parquet":
        raise NotSupported("this statement cannot be cut; write LIMIT and OFFSET into it")
    if form in ("csv", "ndjson"):
        line = Line.CSV if form == "csv" else Line.OBJECT
        some = SliceOfLines(_lines(line, sql, parameters, connection), window)
        return Part(_csv(some) if form == "csv" else Text(some), some)
    if form == "arrow":
        cut = Slice(connection.execute(sql, parameters), window)
        return Part(ArrowStream(ArrowRows(cut)), cut)
    texts = _objects if form == "json" else array_rows
    cut = Slice(texts(sql, parameters, connection), window)
    return Part(JsonArray(cut), cut)


def _part_of_the_database(
    form: str, sql: str, parameters: Parameters | None, window: Window, connection: SupportsPages
) -> Rows | None:
    """None: it cannot be told apart, or *sql* is wrong, which who runs it as it is will explain."""
    if form == "rows":
        page = connection.execute_page(sql, parameters, window.offset, window.limit)
        return None if page is None else Part(JsonArray(page), page)
    sql_of_part = connection.part(sql, window.offset, window.limit)
    if sql_of_part is None:
        return None
    try:
        return FORMATS[form](sql_of_part, parameters, connection)  # type: ignore[arg-type]  # it is one
    except QueryError:
        if form == "parquet":  # which has no other way
            raise
        return None


class Answer(Protocol):
    """What a statement gave: ``columns`` (none: it has no rows), ``count`` as of a result.

    ``ended`` says that nothing comes after what ``read`` has given so far.
    """

    columns: Sequence[ResultColumn]
    count: int
    ended: bool

    @property
    def row_count(self) -> int:
        """Rows that the pieces so far hold, or a few more; exact once ``ended``. -1 where nobody
        counts them: those of Arrow, and those that were kept."""
        ...

    @property
    def total_count(self) -> int | None:
        """Of a part: how many rows there are in all, once ``ended``; None where that could not be
        found out."""
        ...

    async def read(self) -> Pieces:
        """The next pieces, one or two MiB together; none at the end.

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
        more: trio.MemoryReceiveChannel[Pieces | NotebookError] | None = None,
    ) -> None:
        """*first* is all, unless *more* comes."""
        self.columns = rows.columns
        self.count = rows.count
        self.ended = rows.ended and not first
        self._first = first
        self._only = rows.ended
        self._more = more
        self._rows = rows

    @property
    def row_count(self) -> int:
        return self._rows.row_count

    @property
    def total_count(self) -> int | None:
        return self._rows.total_count

    async def read(self) -> Pieces:
        pieces, self._first = self._first, ()
        if pieces:
            self.ended = self._only
            return pieces
        if self.ended or self._more is None:
            self.ended = True
            return ()
        try:
            received = await self._more.receive()
        except trio.EndOfChannel:
            self.ended = True
            return ()
        if isinstance(received, NotebookError):
            raise received
        if not received:  # all that is left is to know the total
            self.ended = True
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

    @property
    def row_count(self) -> int:
        return self._answer.row_count

    @property
    def total_count(self) -> int | None:
        return self._answer.total_count

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
    row_count = -1
    total_count = None

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
