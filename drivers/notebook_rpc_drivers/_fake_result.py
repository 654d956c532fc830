"""The rows of a statement of the fake's, and what happens behind the last of them and on close.

What it refuses: to decide what the rows are; a ``Plan`` has them.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from notebook_rpc.errors import NotebookError, QueryError
from notebook_rpc.model import ResultColumn, unique_names

if TYPE_CHECKING:
    from notebook_rpc_drivers._fake_answers import Plan, Row
    from notebook_rpc_drivers.fake import FakeConnection


class FakeResult:
    def __init__(self, connection: FakeConnection, plan: Plan) -> None:
        names = unique_names(name for name, _ in plan.columns)
        self.columns = [
            ResultColumn(name, kind) for name, (_, kind) in zip(names, plan.columns, strict=True)
        ]
        self.count = plan.count
        self.streaming = plan.count < 0
        self._connection = connection
        self._plan = plan
        self._rows = iter(plan.rows)
        self._closed = False
        self._failure: NotebookError | None = None

    def fetch(self, limit: int, /) -> list[Row]:
        self._connection.arrive("fetch", str(limit))
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise QueryError("the result is closed")
        rows = list(islice(self._rows, limit))
        if not rows and self.streaming:
            try:
                self._plan.at_end()
            except NotebookError as failure:
                self._failure = failure
                raise
            self.streaming = False
        return rows

    def close(self) -> None:
        if not self._closed:
            self._closed, self.streaming = True, False
            self._connection.arrive("finish")
            self._plan.on_close()
