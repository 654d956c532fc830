"""DuckDB's rows as lines of text, many at a time and without a string of Python's for any of them.

The engine writes each row as a value of one VARCHAR column, and Arrow keeps the values of such
a column one behind the other: its buffer is the text to send.

What it refuses: to send what ``_duckdb_json.tidied`` has to see. Such rows come one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nanoarrow
from duckdb import Statement

from notebook_rpc.model import Line
from notebook_rpc_drivers import _duckdb_csv, _duckdb_json
from notebook_rpc_drivers._arrow_stream import batches
from notebook_rpc_drivers._duckdb_arrow import next_of, rows_at_once, stop
from notebook_rpc_drivers._duckdb_result import Reading
from notebook_rpc_drivers._duckdb_sql import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb import DuckDBPyRelation

    from notebook_rpc.model import ResultColumn
    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers._duckdb_sql import Bound

_OFFSETS, _TEXT = 1, 2  # of the buffers of a column of text; the first says what is NULL


class LinesResult(Reading):
    """Text to come from a stream that the engine fills, or row by row, where *tidy*."""

    def __init__(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        stream: Any = None,
        count: int = -1,
        *,
        tidy: tuple[str, str] | None = None,
    ) -> None:
        """*tidy* is what stands before and after each row that is to be tidied first."""
        super().__init__(connection, columns, count, streaming=stream is not None)
        self._stream = stream
        self._tidy = tidy
        self._batch: Any = None
        self._text = memoryview(b"")
        self._offsets: Sequence[int] = (0,)  # of the rows at hand, and of their end
        self._at = 0  # the next of these rows
        if stream is not None:
            self._batches = batches(stream, stream.get_schema())

    def fetch(self, limit: int, /) -> tuple[bytes, int]:
        if self._is_over():
            return b"", 0
        if self._at == len(self._offsets) - 1:
            with self._reading():
                batch = next_of(self._batches)
                if batch is not None:
                    self._take(batch)
            if batch is None:
                self._end()
                return b"", 0
        start = self._at
        self._at = min(start + limit, len(self._offsets) - 1)
        text = self._text[self._offsets[start] : self._offsets[self._at]]
        if self._tidy is None:
            return bytes(text), self._at - start  # the batch will be gone, and its memory with it
        return self._tidied(start), self._at - start

    def _take(self, batch: Any) -> None:
        self._batch = batch  # whose memory it is: nanoarrow's views do not hold it
        column = batch.view().child(0)
        first, rows = column.offset, column.length
        self._offsets = memoryview(column.buffer(_OFFSETS))[first : first + rows + 1]
        self._text = memoryview(column.buffer(_TEXT)).cast("B")
        self._at = 0

    def _tidied(self, start: int) -> bytes:
        assert self._tidy is not None  # noqa: S101  # else nobody asks
        before, after = self._tidy
        rows = (
            bytes(self._text[self._offsets[row] : self._offsets[row + 1]]).decode()
            for row in range(start, self._at)
        )
        return "".join(f"{before}{_duckdb_json.tidied(row)}{after}" for row in rows).encode()

    def close(self) -> None:
        self._text, self._offsets, self._at = memoryview(b""), (0,), 0
        self._batch = None
        super().close()

    def _let_go(self) -> None:
        stop(self._connection, self._stream)


class Lines:
    """A ``Form``."""

    def __init__(self, line: Line, before: str, after: str) -> None:
        self._line = line
        self._around = before, after
        self._tidy: tuple[str, str] | None = None
        self._rows: int

    def again(self, _: Connection, __: Statement, /) -> None:
        """What is written in bulk is not worth knowing by heart."""

    def select(self, names: list[str], types: list[Any], /) -> str:
        self._rows = rows_at_once(types)
        if self._line is Line.CSV:
            row = _duckdb_csv.record_of(types)
        elif self._line is Line.ARRAY:
            row = _duckdb_json.array_of(types)
        else:
            row = _duckdb_json.json_of(names, types)
        if self._line is not Line.CSV and any(_duckdb_json.is_suspect(str(kind)) for kind in types):
            self._tidy = self._around
            return row
        before, after = map(literal, self._around)
        return f"system.main.concat({before}, {row}, {after})"

    def running(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        query: Statement | str,
        bound: Bound,
        /,
    ) -> LinesResult:
        text = query.query if isinstance(query, Statement) else query
        submitted = connection.cursor._submit(text, bound, "stream", self._rows)  # noqa: SLF001
        return self._opened(connection, columns, submitted)

    def kept(
        self, connection: Connection, columns: list[ResultColumn], rows: DuckDBPyRelation, /
    ) -> LinesResult:
        connection.ready_to_stream()
        submitted = rows._submit("stream", self._rows)  # noqa: SLF001
        return self._opened(connection, columns, submitted)

    def counted(self, connection: Connection, count: int, /) -> LinesResult:
        return LinesResult(connection, [], None, count)

    def _opened(
        self, connection: Connection, columns: list[ResultColumn], submitted: Any
    ) -> LinesResult:
        stream = nanoarrow.c_array_stream(submitted.arrow_capsule())
        try:
            return LinesResult(connection, columns, stream, tidy=self._tidy)
        except BaseException:
            stop(connection, stream)
            raise
