"""Rows as lines of text: what the database writes in bulk, and for those that do not, what Python
writes row by row.

Everything here blocks or may take long, and is called on a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notebook_rpc.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.model import Lines, Result, ResultColumn
    from notebook_rpc.services.answers import Pieces

PIECES: Final = 1 << 20  # bytes that are read at a time, more or less
_MOST: Final = 2048  # rows of one read


class Written:
    """``model.Lines`` over a result whose rows are text."""

    def __init__(self, rows: Result[str], before: str, after: str) -> None:
        self._rows = rows
        self._before, self._after = before, after
        self._step = 1  # rows of the next read: doubled each time, as no size is known at first

    @property
    def columns(self) -> Sequence[ResultColumn]:
        return self._rows.columns

    @property
    def count(self) -> int:
        return self._rows.count

    @property
    def streaming(self) -> bool:
        return self._rows.streaming

    def fetch(self, limit: int, /) -> tuple[bytes, int]:
        rows = self._rows.fetch(min(limit, self._step))
        if not rows:
            return b"", 0
        between = self._after + self._before
        text = f"{self._before}{between.join(rows)}{self._after}"
        self._step = max(1, min(2 * self._step, _MOST, PIECES * len(rows) // (len(text) or 1)))
        try:
            return text.encode(), len(rows)
        except UnicodeEncodeError as exc:
            raise QueryError(f"a value is not text that UTF-8 can carry: {exc.reason}") from exc

    def close(self) -> None:
        self._rows.close()


class Text:
    """``answers.Rows`` of lines, behind a head."""

    complete = False
    total_count = None

    def __init__(self, lines: Lines, head: bytes = b"") -> None:
        self.columns = lines.columns
        self.count = lines.count
        self.ended = not lines.columns
        self.row_count = 0
        self._lines = lines
        self._head = head

    def read(self) -> Pieces:
        pieces, self._head = [self._head], b""
        room = PIECES
        while room > 0:
            text, rows = self._lines.fetch(_ALL)
            if not rows:
                self.ended = True
                break
            pieces.append(text)
            self.row_count += rows
            room -= len(text)
        text = b"".join(pieces)  # to send a piece takes longer than to copy it
        return [text] if text else ()

    def close(self) -> None:
        self._lines.close()


_ALL: Final = 1 << 62  # rows; as many as are at hand
