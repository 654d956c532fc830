"""A part of a statement's rows: so many of them are left out, and so many given; and how many there
are in all.

A statement runs once, whatever it is, and to its end: what is left out is read and dropped, as it
may be what the statement is for. Where the database offers better, and it makes no difference, it
is asked for the part alone.

Everything here blocks or may take long, and is called on a worker.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.model import Lines, Result
    from notebook_rpc.services.answers import Pieces, Rows

_CHUNK: Final = 2048  # rows that are dropped at a time


@dataclass(frozen=True)
class Window:
    """Which rows: *limit* of them, or all, behind the first *offset*."""

    offset: int = 0
    limit: int | None = None


class Counted(Protocol):
    """What can say how many rows the whole has; to be asked when the part has been read."""

    def total(self) -> int: ...
    def close(self) -> None: ...


class _Cut:
    """A window's way through a result."""

    def __init__(self, whole: Result[Any] | Lines, window: Window) -> None:
        self.columns = whole.columns
        self.count = whole.count
        self._result = whole
        self._in_front = window.offset
        self._left = sys.maxsize if window.limit is None else window.limit
        self._passed = 0
        self._ended = False

    @property
    def streaming(self) -> bool:
        return self._result.streaming

    def total(self) -> int:
        while not self._ended:
            self._dropped(_CHUNK)
        return self._passed

    def close(self) -> None:
        self._result.close()

    def _wanted(self, limit: int) -> int:
        """How many rows are to be read next; 0 at the end of the part."""
        while self._in_front and not self._ended:
            self._in_front -= self._dropped(min(_CHUNK, self._in_front))
        return 0 if self._ended else min(limit, self._left)

    def _given(self, rows: int) -> None:
        self._passed += rows
        self._left -= rows

    def _dropped(self, limit: int) -> int:
        rows = self._drop(limit)
        self._passed += rows
        self._ended = not rows
        return rows

    def _drop(self, limit: int) -> int:
        """Read rows for nobody, and say how many."""
        raise NotImplementedError


class Slice(_Cut):
    """A part of a result's rows, as a result."""

    def __init__(self, whole: Result[Any], window: Window) -> None:
        super().__init__(whole, window)
        self._whole = whole

    def fetch(self, limit: int, /) -> Sequence[Any]:
        wanted = self._wanted(limit)
        rows: Sequence[Any] = self._whole.fetch(wanted) if wanted else ()
        self._given(len(rows))
        return rows

    def _drop(self, limit: int) -> int:
        return len(self._whole.fetch(limit))


class SliceOfLines(_Cut):
    """The same of ``Lines``."""

    def __init__(self, whole: Lines, window: Window) -> None:
        super().__init__(whole, window)
        self._whole = whole

    def fetch(self, limit: int, /) -> tuple[bytes, int]:
        wanted = self._wanted(limit)
        text, rows = self._whole.fetch(wanted) if wanted else (b"", 0)
        self._given(rows)
        return text, rows

    def _drop(self, limit: int) -> int:
        return self._whole.fetch(limit)[1]


class Part:
    """Rows in a format, and then, in a read of its own, how many the whole has: what fails there,
    or takes too long, must not cost the rows."""

    def __init__(self, rows: Rows, whole: Counted) -> None:
        self.columns = rows.columns
        self.count = rows.count
        self.ended = rows.ended
        self.total_count: int | None = None
        self._rows = rows
        self._whole = whole

    @property
    def row_count(self) -> int:
        return self._rows.row_count

    @property
    def complete(self) -> bool:
        return self._rows.ended

    def read(self) -> Pieces:
        if not self._rows.ended:
            return self._rows.read()
        self.total_count = self._whole.total()
        self._whole.close()
        self.ended = True
        return ()

    def close(self) -> None:
        self._rows.close()
        self._whole.close()
