"""What a statement has returned, over a module's cursor."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from notebook_rpc.errors import Cancelled, NotebookError, QueryError
from notebook_rpc_drivers._dbapi_types import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.model import ResultColumn
    from notebook_rpc_drivers._dbapi_connection import Connection

AT_ONCE: Final = 1000  # rows, where we read for ourselves


class Result:
    """A cursor with rows to come, or none."""

    def __init__(
        self,
        connection: Connection,
        cursor: Any,
        columns: list[ResultColumn],
        count: int,
        clocks: Sequence[int] = (),
    ) -> None:
        """*clocks* are the numbers of columns with times of day that come as durations."""
        self.columns = columns
        self.count = count
        self._connection = connection
        self._cursor = cursor
        self._clocks = clocks
        self._held: deque[Sequence[object]] | None = None
        self._ended = not columns
        self._closed = False
        self._failure: NotebookError | None = None

    @property
    def streaming(self) -> bool:
        return not self._ended and self._held is None and not self._connection.facts.reads_all

    def hold(self) -> None:
        """Read all rows now: they are the end of a statement that locks until it has ended."""
        rows: deque[Sequence[object]] = deque()
        while page := self._cursor.fetchmany(AT_ONCE):
            rows.extend(page)
        self._held = rows

    def fetch(self, limit: int, /) -> Sequence[Sequence[object]]:
        if self._failure is not None:
            raise self._failure  # the module might say "no more rows"
        if self._closed:
            raise QueryError("the result is closed")
        if self._held is not None:
            return [self._held.popleft() for _ in range(min(limit, len(self._held)))]
        if self._ended:
            return []
        try:
            with self._connection.calling(stoppable=True):
                rows: Sequence[Sequence[object]] = self._cursor.fetchmany(limit)
                if len(rows) < limit:
                    self._ended = True
                    self._connection.done()
        except NotebookError as failure:
            self._failure = failure
            raise
        return [self._on_the_clock(row) for row in rows] if self._clocks else rows

    def _on_the_clock(self, row: Sequence[object]) -> Sequence[object]:
        values = list(row)
        for number in self._clocks:
            values[number] = clock(values[number])
        return values

    def spoil(self) -> NotebookError:
        """It was interrupted, perhaps after the call that was meant: what is left is lost."""
        self._connection.abandon(self._cursor, ended=False)
        self._ended = True
        self._failure = Cancelled("interrupted: the rest of the result is lost")
        return self._failure

    def exhaust(self) -> None:
        """To the last row, with which the statement has run; then close."""
        if self._cursor is not None:
            while self._held is None and self._cursor.fetchmany(AT_ONCE):
                pass
            self._connection.abandon(self._cursor, ended=True)
            self._connection.done()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._held = None
        if self._cursor is not None and self._connection.usable:
            with self._connection.calling():
                self._connection.abandon(self._cursor, ended=self._ended)
                if not self._ended:
                    self._connection.done()
        self._ended = True
