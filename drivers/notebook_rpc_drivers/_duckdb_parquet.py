"""DuckDB's rows as a Parquet file.

A database of our own writes it, in memory and for this one statement, from the Arrow stream of the
client's query: so the file has the types that Arrow has here (docs/arrow.md), and it makes no
difference that the client may reach no files, or only read. Neither may be loosened for it.

What it refuses: to choose where the file is; and to let the database of our own meet an error of
the stream or an interrupt, after which DuckDB 2.0 hangs at times, and no interrupt ends that. The
client's query is interrupted, and what our database sees is that there are no more rows: it ends
with the rows that it has, which takes as long as to write one group of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import duckdb
import nanoarrow
from duckdb import Statement

from notebook_rpc_drivers._arrow_stream import Lent
from notebook_rpc_drivers._duckdb_arrow import Arrow, class_of, stop
from notebook_rpc_drivers._duckdb_result import Reading
from notebook_rpc_drivers._duckdb_sql import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

    from notebook_rpc.model import ResultColumn
    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers._duckdb_sql import Bound

_ROWS: Final = "rows"  # what the stream is called in our database


class ParquetResult(Reading):
    """A file that is written; ``rows`` are those in it."""

    def __init__(
        self, connection: Connection, columns: list[ResultColumn], rows: int = 0, count: int = -1
    ) -> None:
        super().__init__(connection, columns, count, streaming=False)
        self.rows = rows


class Parquet:
    """A ``Form``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._arrow = Arrow()

    def again(self, _: Connection, __: Statement, /) -> None:
        """Next to a file, to bind a query twice is nothing."""

    def select(self, names: list[str], types: list[Any], /) -> str | None:
        return self._arrow.select(names, types)

    def running(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        query: Statement | str,
        bound: Bound,
        /,
    ) -> ParquetResult:
        text = query.query if isinstance(query, Statement) else query
        submitted = connection.cursor._submit(text, bound, "stream", self._arrow.rows)  # noqa: SLF001
        return self._written(connection, columns, submitted)

    def kept(
        self, connection: Connection, columns: list[ResultColumn], rows: DuckDBPyRelation, /
    ) -> ParquetResult:
        connection.ready_to_stream()
        submitted = rows._submit("stream", self._arrow.rows)  # noqa: SLF001
        return self._written(connection, columns, submitted)

    def counted(self, connection: Connection, count: int, /) -> ParquetResult:
        return ParquetResult(connection, [], count=count)

    def _written(
        self, connection: Connection, columns: list[ResultColumn], submitted: Any
    ) -> ParquetResult:
        stream = nanoarrow.c_array_stream(submitted.arrow_capsule())
        lent = Lent(stream)
        try:
            rows = _write(lent, [column.column for column in columns], self._path)
        finally:
            stop(connection, stream)
            connection.abandon()
        if lent.failure is not None:
            said = str(lent.failure)
            raise class_of(said)(said) from lent.failure
        return ParquetResult(connection, columns, rows)


def _write(stream: Lent, names: list[str], path: str) -> int:
    """How many rows there were."""
    # One thread: the stream has its own, and more would only hold more rows in memory.
    with duckdb.connect(":memory:", config={"threads": 1}) as own:
        own.register(_ROWS, stream)
        selected = f"FROM {_ROWS} AS r({', '.join(map(quoted, names))})"
        # It must not be a file beside it that takes its name in the end: it may have none.
        copied = own.execute(
            f"COPY ({selected}) TO {literal(path)} (FORMAT parquet, USE_TMP_FILE false)"
        )
        ((rows,),) = copied.fetchall()
    return int(rows)
