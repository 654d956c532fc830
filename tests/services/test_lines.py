"""Rows that Python joins to text: no more at a time than memory need notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from notebook_rpc.errors import QueryError
from notebook_rpc.model import ResultColumn
from notebook_rpc.services.lines import PIECES, Text, Written

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Rows:
    """A result of these rows, which remembers what it was asked for."""

    columns: Sequence[ResultColumn] = (ResultColumn("a", ""),)
    count = -1
    streaming = True

    def __init__(self, rows: Iterable[str]) -> None:
        self._rows = list(rows)
        self.limits: list[int] = []

    def fetch(self, limit: int, /) -> list[str]:
        self.limits.append(limit)
        rows, self._rows = self._rows[:limit], self._rows[limit:]
        return rows

    def close(self) -> None:
        self.streaming = False


def test_what_stands_around_each_row() -> None:
    lines = Written(Rows(["1", "2", "3"]), "<", ">")
    assert [lines.fetch(9), lines.fetch(9), lines.fetch(9)] == [
        (b"<1>", 1),
        (b"<2><3>", 2),
        (b"", 0),
    ]


def test_the_first_comes_at_once_and_small_ones_soon_by_the_thousand() -> None:
    rows = Rows(["x"] * 10_000)
    text = Text(Written(rows, "", "\n"))
    assert b"".join(text.read()) == b"x\n" * 10_000
    assert rows.limits[:4] == [1, 2, 4, 8]
    assert max(rows.limits) == 2048
    assert (text.ended, text.row_count) == (True, 10_000)


def test_large_ones_come_one_by_one() -> None:
    rows = Rows(["x" * 400_000] * 50)
    text = Text(Written(rows, "", "\n"))
    sizes = []
    while not text.ended:
        sizes.append(sum(map(len, text.read())))
    assert max(rows.limits) == 2
    assert max(sizes) < 2 * PIECES
    assert sum(sizes) == 50 * 400_001


def test_no_more_than_are_wanted() -> None:
    rows = Rows(["x"] * 100)
    lines = Written(rows, "", "")
    assert [lines.fetch(2)[1] for _ in range(3)] == [1, 2, 2]


def test_half_a_surrogate_pair_cannot_be_sent() -> None:
    with pytest.raises(QueryError, match="UTF-8"):
        Written(Rows(["\ud800"]), "", "").fetch(1)


def test_to_close_it_closes_what_is_below() -> None:
    rows = Rows(["x"])
    Text(Written(rows, "", "")).close()
    assert not rows.streaming
