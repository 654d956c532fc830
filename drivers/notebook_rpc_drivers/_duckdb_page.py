"""A part of a query's rows, and how many there are in all, both of one state of the database.

The query runs twice, for the rows and for their number, so it must be one whose rows do not
change and that changes nothing; and a transaction around both sees to it that nobody else does.
The client does not notice this transaction: it has ended with the result.

What it refuses: to count what comes with the rows for nothing: a part that is not full is the
last one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from notebook_rpc.errors import QueryError
from notebook_rpc_drivers._duckdb_result import Json
from notebook_rpc_drivers._duckdb_sql import without_semicolon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.model import Parameters, ResultColumn
    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers._duckdb_result import Result


def part_of(sql: str, offset: int, limit: int | None) -> str:
    """SQL for a part of what the query *sql* gives."""
    some = "" if limit is None else f" LIMIT {limit}"
    return f"FROM ({without_semicolon(sql)}\n){some} OFFSET {offset}"


class Page:
    """As ``model.CountedResult``."""

    def __init__(
        self,
        connection: Connection,
        sql: str,
        parameters: Parameters | None,
        offset: int,
        limit: int | None,
    ) -> None:
        """*sql* is ``LASTING``, and one statement."""
        self._connection = connection
        self._sql = sql
        self._parameters = parameters
        self._offset, self._limit = offset, limit
        self._read = 0
        self._rows: Result | None = None
        self.columns: Sequence[ResultColumn] = ()
        self.count = -1

    @property
    def streaming(self) -> bool:
        return self._rows is not None and self._rows.streaming

    def begin(self) -> None:
        """Must be followed by ``close``, whether it fails or not."""
        part = part_of(self._sql, self._offset, self._limit)
        self._rows = self._connection.run_in_snapshot(part, self._parameters, Json(arrays=True))
        self.columns = self._rows.columns

    def fetch(self, limit: int, /) -> list[str]:
        if self._rows is None:
            raise QueryError("the result is closed")
        rows: list[str] = self._rows.fetch(limit)
        self._read += len(rows)
        return rows

    def total(self) -> int:
        full = self._limit is not None and self._read == self._limit
        if not full and (self._read or not self._offset):
            return self._offset + self._read
        query = without_semicolon(self._sql)
        count = f"SELECT system.main.count_star() FROM ({query}\n)"  # noqa: S608  # it is the client's
        ((total,),) = self._connection.ask_in_snapshot(count, self._parameters)
        return int(total)

    def close(self) -> None:
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()
        self._connection.end_snapshot()
