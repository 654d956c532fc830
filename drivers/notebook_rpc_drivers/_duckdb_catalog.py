"""The catalog as a session sees it, also while a result streams.

Until a streaming result has ended its connection can do nothing else, and the sibling that is asked
then cannot see temporary or uncommitted objects. So what only the session sees is captured just
before a stream begins: no statement can change it before the stream has ended.

What it refuses: to list what cannot be there, because a catalog may be large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb

from notebook_rpc.errors import QueryError
from notebook_rpc_drivers import _duckdb_describe
from notebook_rpc_drivers._duckdb_sql import COLUMNS, TABLES, VIEWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from duckdb import DuckDBPyConnection

    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers._duckdb_notes import Notes
    from notebook_rpc_drivers._duckdb_result import Row


def _matches(names: Sequence[str], row: Row) -> bool:
    return all(name in ("", own) for name, own in zip(names, row, strict=False))


class Catalog:
    """Queries of the catalog, over a session's *connection* or over a sibling's of it."""

    def __init__(self, connection: Connection, root: DuckDBPyConnection, notes: Notes) -> None:
        self._connection = connection
        self._root = root
        self._notes = notes
        self._sibling: DuckDBPyConnection | None = None
        self.begin()

    def begin(self) -> None:
        """With a cursor that nobody has used."""
        self._captured: dict[str, list[Row]] = {}
        self._place: list[Row] = []  # captured, too
        self._whole = False  # _captured is all there is to see

    def close(self) -> None:
        if self._sibling is not None:
            self._sibling.close()

    def capture(self) -> None:
        # A transaction sees what was committed when it began, so its own view is all of it.
        kept = "" if self._notes.changed else "WHERE database_name = 'temp'"
        some = self._notes.changed or self._notes.temporary
        # The engine lists every database before it leaves out all but one, columns above all:
        # 100 ms for 100 000 of them. So what cannot be there is not asked for, and nothing twice.
        schemas = self._all(_duckdb_describe.SCHEMAS, kept) if some else []
        relations = self._all(_duckdb_describe.RELATIONS, kept) if some else []
        facts = self._all(_duckdb_describe.FACTS, kept) if relations else []
        self._captured = {
            TABLES: sorted(row[:3] for row in relations if not row[3]),
            VIEWS: sorted(row[:3] for row in relations if row[3]),
            COLUMNS: [row[:5] for row in facts],
            _duckdb_describe.RELATIONS: relations,
            _duckdb_describe.FACTS: facts,
            _duckdb_describe.SCHEMAS: schemas,
        }
        self._place = self._connection.cursor.execute(_duckdb_describe.PLACE).fetchall()
        self._whole = self._notes.changed
        self._notes.stale = False

    def _all(self, query: str, kept: str) -> list[Row]:
        """All rows of a query of the catalog that are *kept*."""
        every = [""] * query.count("?")
        return self._connection.cursor.execute(f"FROM ({query}) {kept}", every).fetchall()

    def described(self, query: str, *names: str) -> list[Row]:
        matches = _duckdb_describe.matches
        if self._connection.streaming and query == _duckdb_describe.PLACE and self._place:
            return self._place  # which the sibling does not know
        if self._connection.streaming and query == _duckdb_describe.TABLE_FACTS:
            facts = self._captured.get(_duckdb_describe.FACTS, [])
            own = [row for row in facts if matches(names, row)]
            if own or self._whole:
                return own
        return self.rows(query, *names, matches=matches)

    def rows(
        self, query: str, *names: str, matches: Callable[[Sequence[str], Row], bool] = _matches
    ) -> list[Row]:
        if not self._connection.streaming:
            try:
                # An interrupt would undo the transaction that is open, to save milliseconds.
                with self._connection.calling(undisturbed=self._notes.in_transaction):
                    return self._connection.cursor.execute(query, names).fetchall()
            except QueryError as exc:
                if not isinstance(exc.__cause__, duckdb.TransactionException):
                    raise
            # The transaction has failed and can only be rolled back: to what others see.
            return self._committed(query, names)
        captured = [row for row in self._captured.get(query, []) if matches(names, row)]
        if self._whole:
            return captured
        return sorted(self._committed(query, names) + captured, key=lambda row: row[:3])

    def _committed(self, query: str, names: tuple[str, ...]) -> list[Row]:
        return self.beside(query, list(names))

    def beside(self, query: str, values: list[Any]) -> list[Row]:
        if self._sibling is None:
            self._sibling = self._root.cursor()
        with self._connection.calling(self._sibling):
            return self._sibling.execute(query, values).fetchall()
