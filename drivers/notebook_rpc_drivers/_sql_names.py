"""Pieces of SQL that a database gives back, and the names in it.

What it refuses: SQL of clients, which may be broken. This has been read by the database before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from notebook_rpc.sansio.sqltext import Dialect, Kind, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OPENINGS: Final = {"[": "]"}  # quotes that do not close with themselves


class Piece(NamedTuple):
    kind: Kind
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """In capitals, unless it is quoted."""
        return self.text.upper() if self.kind is Kind.WORD else self.text

    @property
    def may_be_a_name(self) -> bool:
        return self.kind is Kind.WORD or (self.kind is Kind.QUOTED and self.text[0] in '"`[')

    @property
    def name(self) -> str:
        """Without quotes."""
        if self.kind is not Kind.QUOTED:
            return self.text
        closing = _OPENINGS.get(self.text[0], self.text[0])
        return self.text[1:-1].replace(2 * closing, closing)


def pieces(sql: str, dialect: Dialect) -> Iterator[Piece]:
    """Tokens, without what is between them. A name with its quote in it is one."""
    last: Piece | None = None
    for kind, start, end in tokens(sql, dialect):
        if last is not None:
            if kind is last.kind is Kind.QUOTED and sql[start] == sql[start - 1]:
                last = Piece(kind, sql[last.start : end], last.start, end)
                continue
            yield last
        between = kind in (Kind.BLANK, Kind.COMMENT)
        last = None if between else Piece(kind, sql[start:end], start, end)
    if last is not None:
        yield last


def columns_in(condition: str, columns: Sequence[str], dialect: Dialect) -> list[str]:
    """Which of *columns* a condition is about, in its order."""
    known = {column.lower(): column for column in columns}
    named = (piece.name.lower() for piece in pieces(condition, dialect) if piece.may_be_a_name)
    return list(dict.fromkeys(known[name] for name in named if name in known))
