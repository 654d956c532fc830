"""Calls of the engine on one connection: their errors are ours, and any thread may interrupt
them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from notebook_rpc.errors import Conflict, NotebookError
from notebook_rpc_drivers._duckdb_sql import translated

if TYPE_CHECKING:
    from types import TracebackType

    from duckdb import DuckDBPyConnection


class Calls:
    def __init__(self) -> None:
        self._guard = threading.Lock()  # held for an instant only: interrupt() must not block
        self._busy: DuckDBPyConnection | None = None
        self.interrupted = False
        """Since this was set to False: an interrupt may have come too late for its call, and wait
        for the cursor's next."""

    def interrupt(self) -> None:
        # Only who is busy: an interrupt that finds a stream between two fetches spoils it.
        with self._guard:
            if self._busy is not None:
                self.interrupted = True
                self._busy.interrupt()

    def progress(self, cursor: DuckDBPyConnection) -> float | None:
        """Percent, of what *cursor* is doing; None if that is nothing, or not known."""
        with self._guard:
            if self._busy is not cursor:
                return None
            percent: float = cursor.query_progress()
        return None if percent < 0 else percent

    def begin(self, on: DuckDBPyConnection | None) -> None:
        with self._guard:
            self._busy = on


class Call:
    """One of them, as a context manager. (A class, and no generator: there are several in each
    small query.)"""

    __slots__ = ("_after", "_alone", "_before", "_calls", "_on")

    def __init__(
        self,
        calls: Calls,
        on: DuckDBPyConnection | None,
        before: str = "",
        after: str = "",
        *,
        alone: bool = False,
    ) -> None:
        """*on* is whom an interrupt is for, None for nobody. *before* and *after* stand around what
        the engine says if it fails; *alone* is as of ``Conflict``."""
        self._calls = calls
        self._on = on
        self._before = before
        self._after = after
        self._alone = alone

    def __enter__(self) -> None:
        self._calls.begin(self._on)

    def __exit__(
        self,
        _: type[BaseException] | None,
        exc: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        self._calls.begin(None)
        # Whatever its class: std::bad_cast comes as a RuntimeError.
        if not isinstance(exc, Exception) or isinstance(exc, NotebookError):
            return
        failure = translated(exc, self._before, self._after)
        if isinstance(failure, Conflict):
            failure.alone = self._alone
        raise failure from exc
