"""The rows of a statement of SQLite's, as a result that streams.

What it refuses: to fetch again after a failure, because SQLite would begin from the first row.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from notebook_rpc.errors import NotebookError, QueryError

if TYPE_CHECKING:
    import sqlite3

    from notebook_rpc.model import ResultColumn
    from notebook_rpc_drivers._sqlite_connection import Connection

Row = tuple[Any, ...]


def decoded(text: bytes) -> str | bytes:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


class Result:
    """A cursor with rows to come, or the rows themselves."""

    def __init__(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        cursor: sqlite3.Cursor,
        *,
        count: int = -1,
        held: list[Row] | None = None,
    ) -> None:
        self.columns = columns
        self.count = count
        self._connection = connection
        self._cursor = cursor
        self._held = deque(held) if held is not None else None
        self._ended = not columns
        self._closed = False
        self._failure: NotebookError | None = None

    @property
    def streaming(self) -> bool:
        return not self._ended and self._held is None

    def fetch(self, limit: int, /) -> list[Row]:
        if self._failure is not None:
            raise self._failure  # SQLite would begin again, or say "no more rows"
        if self._closed:
            raise QueryError("the result is closed")
        if self._held is not None:
            return [self._held.popleft() for _ in range(min(limit, len(self._held)))]
        if self._ended:
            return []
        try:
            with self._connection.calling():
                rows: list[Row] = self._cursor.fetchmany(limit)
        except NotebookError as failure:
            self._failure = failure
            raise
        self._ended = len(rows) < limit
        return rows

    def close(self) -> None:
        if not self._closed:
            self._closed = self._ended = True
            self._held = None
            self._cursor.close()
