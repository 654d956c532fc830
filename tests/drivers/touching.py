"""What the promise of ``SupportsTouched`` comes down to, held against a database.

Statements run on one connection. If the rows of a query are others than before, as somebody else
sees them, then the statements must have been told of, with a table that the query was said to read.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from notebook_rpc.errors import NotebookError
from notebook_rpc.model import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from notebook_rpc.driver import Connection, SupportsReset, SupportsTouched
    from notebook_rpc.model import Touched

    class Touching(Connection, SupportsTouched, SupportsReset, Protocol): ...


def named(touched: Touched) -> set[str] | None:
    """To be compared with a set as it is written."""
    return None if touched is None else set(touched)


def written(connection: Touching, sql: str) -> set[str] | None:
    """What is told of one call that others may see."""
    before = connection.changes
    connection.execute(sql).close()
    touched = named(connection.take_written())
    if connection.changes == before:
        assert touched == set(), "told without a change"
    return touched


def read(connection: Touching, sql: str) -> set[str] | None:
    """What a query is said to read."""
    return named(connection.reads(sql))


class Onlooker:
    """Sees the rows of queries on a connection of its own, and knows what they read."""

    def __init__(self, connection: Touching, queries: Iterable[str]) -> None:
        self._connection = connection
        self._reads = {query: connection.reads(query) for query in queries}
        self._rows = {query: self._look(query) for query in self._reads}

    def told(self, touched: Touched, *, changed: bool) -> None:
        """Look again, after a call by which *touched* was written; not *changed* if nothing was."""
        for query, rows in self._rows.items():
            reads = self._reads[query]
            now = self._look(query)
            if now != rows:
                assert changed, f"{query} has other rows, and nobody was told"
                heard = touched is None or reads is None or touched & reads
                assert heard, f"{query} has other rows; it reads {reads}, and {touched} was written"
                self._rows[query] = now
        if touched is None:
            self._reads = {query: self._connection.reads(query) for query in self._reads}

    def _look(self, query: str) -> Sequence[str] | str:
        try:
            result = self._connection.execute(query)
            rows = result.fetch(10_000)
            result.close()
        except NotebookError as exc:
            return str(exc)
        return sorted(map(repr, rows))


def hold(writer: Touching, onlooker: Onlooker, calls: Iterable[str], *, through: bool) -> None:
    """Run *calls*, some of which may fail. *through*: one can look while a transaction is open."""
    changed = False
    touched: Touched = frozenset()
    for call in calls:
        before = writer.changes
        with suppress(NotebookError):
            writer.execute(call).close()
        if writer.changes != before:
            now = writer.take_written()
            changed, touched = True, None if touched is None or now is None else touched | now
        if through or writer.transaction is Transaction.NONE:
            onlooker.told(touched, changed=changed)
            changed, touched = False, frozenset()
    writer.rollback()
    onlooker.told(frozenset(), changed=False)
