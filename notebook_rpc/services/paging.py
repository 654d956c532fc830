"""Cutting an open result into pages of bounded size.

Everything here blocks or may take long, and is called on a worker, except ``ready``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from notebook_rpc.errors import Cancelled, QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.model import Result

Page: TypeAlias = "tuple[bytes, ...]"
"""JSON text in pieces: an array of rows. Pieces are never joined, because joining 64 MiB
would hold the interpreter, and with it the event loop, for tens of milliseconds."""

EMPTY: Final[Page] = (b"[]",)

FIRST_ROWS: Final = 100  # read ahead by execute; also what ADONotebook.CLI asks for at a time
FIRST_BYTES: Final = 64 * 1024  # what the event loop may encode without being noticed
_CHUNK: Final = 2048  # rows of one read at most; DuckDB's vectors have as many


class Pages:
    """The rows of one result, handed out once each and in order."""

    def __init__(self, result: Result[str], max_bytes: int) -> None:
        """*max_bytes* bounds a page's JSON text; a single larger row is a page of its own."""
        self.columns = result.columns
        self.count = result.count
        self.rows_read = 0
        self._result = result
        self._max_bytes = max_bytes
        self._held: list[str] = []  # read from the result, not yet handed out
        self._ended = not result.columns
        self._lost = False
        self._average = 1  # bytes of a row, as far as is known
        self._step = 1  # rows of the next read: doubled each time, as no size is known at first

    @property
    def streaming(self) -> bool:
        """Whether rows still have to come from the database; an interrupt would spoil them."""
        return self._result.streaming and not self._ended

    @property
    def ended(self) -> bool:
        """Whether every row has been handed out, and it is known that there are no more."""
        return self._ended and not self._held

    def read_ahead(self) -> None:
        """Have the first page ready, so that asking for it needs no thread."""
        rows, size = self._held, 0
        while not self._ended and len(rows) < FIRST_ROWS and size < FIRST_BYTES:
            rows.extend(self._fetch(FIRST_ROWS - len(rows), FIRST_BYTES - size))
            size = sum(map(len, rows))
            self._average = 1 + size // max(1, len(rows))

    def ready(self, limit: int) -> Page | None:
        """The next page, if it is at hand and small; else None, and nothing has changed."""
        if self._lost:
            return None
        if len(self._held) < limit and not self._ended:
            return None
        if sum(map(len, self._held)) > FIRST_BYTES:
            return None
        return self.page(limit)

    def page(self, limit: int, at_most: int | None = None) -> Page:
        """The next rows, at most *limit* (positive); ``EMPTY`` at the end only.

        *at_most* is a number of bytes that may be below the bound of every page.
        """
        if self._lost:
            raise Cancelled("the result was lost with a call or the connection; call finish")
        pieces = [b"["]
        room = (self._max_bytes if at_most is None else at_most) - len("[]")
        while limit > 0:
            if not self._held:
                self._held = list(self._fetch(limit, room))
            first = len(pieces) == 1
            taken, text = self._take(limit, room, at_least=1 if first else 0)
            if not taken:
                break
            if not first:
                text = b"," + text
            pieces.append(text)
            room -= len(text)
            limit -= taken
            if room <= 0:
                break
        if len(pieces) == 1:
            return EMPTY
        pieces.append(b"]")
        return tuple(pieces)

    def _take(self, limit: int, room: int, at_least: int) -> tuple[int, bytes]:
        """Some of the held rows: their number, and their text with commas between them."""
        rows = self._held[:limit]
        text = _encoded(",".join(rows))
        if len(text) + len(",") > room:
            rows, text = _fitting(rows, room, at_least)
        self._held = self._held[len(rows) :]
        self.rows_read += len(rows)
        self._average = 1 + len(text) // max(1, len(rows))
        return len(rows), text

    def _fetch(self, limit: int, room: int) -> Sequence[str]:
        """Read on, not much more than *room* bytes if the rows so far are any guide."""
        wanted = min(self._step, max(1, room // self._average), limit)
        self._step = min(2 * self._step, _CHUNK)
        rows = () if self._ended else self._result.fetch(wanted)
        self._ended = self._ended or not rows
        return rows

    def close(self) -> None:
        self._held = []
        self._result.close()

    def lose(self) -> None:
        """The result is gone in mid-stream: say so to whoever asks for more."""
        self._lost = True
        self.close()


def _fitting(rows: Sequence[str], room: int, at_least: int) -> tuple[list[str], bytes]:
    """The first of *rows* that fit into *room* bytes, a comma each; never fewer than *at_least*."""
    pieces: list[bytes] = []
    for row in rows:
        piece = _encoded(row)
        room -= len(piece) + len(",")
        if room < 0 and len(pieces) >= at_least:
            break
        pieces.append(piece)
    return list(rows[: len(pieces)]), b",".join(pieces)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise QueryError(f"a value is not text that UTF-8 can carry: {exc.reason}") from exc
