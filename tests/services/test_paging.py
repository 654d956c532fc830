"""Pages: every row once, in order, in bounded pieces."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.errors import Cancelled, QueryError
from notebook_rpc.model import ResultColumn
from notebook_rpc.services.paging import EMPTY, FIRST_BYTES, FIRST_ROWS, Pages

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_CAP = 1 << 40


class Rows:
    """A result that gives rows of text, sometimes fewer than it is asked for."""

    columns: Sequence[ResultColumn] = (ResultColumn("a", "VARCHAR"),)
    count = -1
    streaming = True

    def __init__(self, rows: Sequence[str], at_a_time: int = 1 << 40) -> None:
        self.left = deque(rows)
        self.at_a_time = at_a_time
        self.fetches: list[int] = []
        self.closed = False

    def fetch(self, limit: int, /) -> Sequence[str]:
        assert limit > 0
        self.fetches.append(limit)
        return [self.left.popleft() for _ in range(min(limit, self.at_a_time, len(self.left)))]

    def close(self) -> None:
        self.closed = True


def read(page: Sequence[bytes]) -> list[object]:
    decoded = json.loads(b"".join(page))
    assert isinstance(decoded, list)
    return decoded


def test_250_rows_in_pages_of_100_are_250_rows() -> None:
    pages = Pages(Rows([str(n) for n in range(250)]), NO_CAP)
    sizes = []
    rows: list[object] = []
    while page := read(pages.page(100)):
        sizes.append(len(page))
        rows += page
    assert sizes == [100, 100, 50]
    assert rows == list(range(250))
    assert pages.rows_read == 250


@given(
    rows=st.lists(st.text(max_size=40), max_size=300),
    at_a_time=st.integers(1, 400),
    limits=st.lists(st.integers(1, 130), min_size=1, max_size=5),
    cap=st.integers(2, 600),
    ahead=st.booleans(),
)
def test_every_row_comes_once_and_pages_keep_their_bounds(
    rows: list[str], at_a_time: int, limits: list[int], cap: int, ahead: bool
) -> None:
    pages = Pages(Rows([json.dumps(row) for row in rows], at_a_time), cap)
    if ahead:
        pages.read_ahead()
    collected: list[object] = []
    for turn in range(len(rows) + 1):
        limit = limits[turn % len(limits)]
        page = pages.ready(limit) or pages.page(limit)
        read_rows = read(page)
        assert len(read_rows) <= limit
        assert len(b"".join(page)) <= cap or len(read_rows) == 1
        if not read_rows:
            break
        collected += read_rows
    assert collected == rows
    assert pages.page(1) == EMPTY


def test_a_page_is_short_only_for_its_size_or_at_the_end() -> None:
    pages = Pages(Rows([str(n) for n in range(1000)], at_a_time=7), NO_CAP)
    assert len(read(pages.page(500))) == 500
    assert len(read(pages.page(501))) == 500
    assert read(pages.page(1)) == []


def test_rows_that_did_not_fit_wait_for_the_next_page() -> None:
    pages = Pages(Rows(['"%s"' % ("x" * 30)] * 10), 100)
    assert [len(read(pages.page(100))) for _ in range(5)] == [3, 3, 3, 1, 0]


def test_the_cap_counts_bytes_and_not_characters() -> None:
    pages = Pages(Rows(['"€€€€€€€€€€"'] * 4), 70)
    assert len(b"".join(pages.page(100))) <= 70


@pytest.mark.parametrize("at_a_time", [1, 2, 100])
def test_the_commas_between_what_was_read_in_turns_count_too(at_a_time: int) -> None:
    for cap in range(4, 40):
        pages = Pages(Rows(["11"] * 12, at_a_time), cap)
        while len(page := b"".join(pages.page(100))) > len(b"[]"):
            assert len(page) <= cap


def test_a_row_larger_than_the_cap_is_a_page_of_its_own() -> None:
    big = json.dumps("x" * 1000)
    pages = Pages(Rows(["1", big, "2"]), 100)
    assert [read(pages.page(10)) for _ in range(4)] == [[1], ["x" * 1000], [2], []]


def test_a_full_page_does_not_wait_for_another_row() -> None:
    rows = Rows([json.dumps("x" * 1000), "2"], at_a_time=1)
    assert len(read(Pages(rows, 100).page(10))) == 1
    assert len(rows.fetches) == 1


def test_small_rows_are_read_by_the_thousand_but_not_all_at_once() -> None:
    rows = Rows([str(n) for n in range(10_000)])
    assert len(read(Pages(rows, NO_CAP).page(10_000))) == 10_000
    assert rows.fetches[:12] == [2**n for n in range(12)]
    assert rows.fetches[12:] == [2048, 2048, 1809]


def test_huge_rows_are_not_read_by_the_thousand() -> None:
    rows = Rows([json.dumps("x" * 100_000)] * 200)
    pages = Pages(rows, 1_000_000)
    while read(pages.page(1_000_000)):
        pass
    assert rows.fetches[:4] == [1, 2, 4, 2]
    assert max(rows.fetches) <= 10


def test_huge_rows_are_read_ahead_one_at_a_time() -> None:
    rows = Rows([json.dumps("x" * FIRST_BYTES)] * 10)
    Pages(rows, NO_CAP).read_ahead()
    assert rows.fetches == [1]


def test_what_was_read_ahead_needs_no_more_reading() -> None:
    rows = Rows([str(n) for n in range(FIRST_ROWS)])
    pages = Pages(rows, NO_CAP)
    pages.read_ahead()
    before = list(rows.fetches)
    page = pages.ready(FIRST_ROWS)
    assert page is not None
    assert read(page) == list(range(FIRST_ROWS))
    assert rows.fetches == before


@pytest.mark.parametrize("size", [1000, 10_000, FIRST_BYTES])
def test_no_more_is_read_ahead_than_the_first_bytes_need(size: int) -> None:
    rows = Rows([json.dumps("x" * size)] * 200)
    Pages(rows, NO_CAP).read_ahead()
    ahead = 200 - len(rows.left)
    assert ahead <= max(16, FIRST_BYTES // size + 1)


def test_no_more_is_read_ahead_than_the_first_rows() -> None:
    rows = Rows(["1"] * 200, at_a_time=30)
    Pages(rows, NO_CAP).read_ahead()
    assert 200 - len(rows.left) == FIRST_ROWS


def test_a_statement_without_rows_is_never_asked_for_any() -> None:
    class NoRows(Rows):
        columns = ()
        count = 3

    result = NoRows([])
    pages = Pages(result, NO_CAP)
    pages.read_ahead()
    assert pages.ready(1) == EMPTY
    assert pages.page(1) == EMPTY
    assert result.fetches == []


def test_a_result_streams_until_its_last_row_has_come() -> None:
    pages = Pages(Rows(["1", "2"]), NO_CAP)
    assert pages.streaming
    pages.page(2)
    assert pages.streaming  # nobody knows yet that there is no third
    pages.page(2)
    assert not pages.streaming


def test_a_result_that_is_in_memory_does_not_stream() -> None:
    class InMemory(Rows):
        streaming = False

    assert not Pages(InMemory(["1", "2"]), NO_CAP).streaming


def test_a_short_result_is_known_to_be_at_its_end() -> None:
    pages = Pages(Rows(["1", "2"]), NO_CAP)
    pages.read_ahead()
    assert pages.ready(100) == (b"[", b"1,2", b"]")
    assert pages.ready(100) == EMPTY


def test_a_page_larger_than_what_was_read_ahead_is_not_ready() -> None:
    pages = Pages(Rows([str(n) for n in range(500)]), NO_CAP)
    pages.read_ahead()
    assert pages.ready(FIRST_ROWS + 1) is None
    assert len(read(pages.page(FIRST_ROWS + 1))) == FIRST_ROWS + 1


def test_large_rows_are_not_encoded_on_the_event_loop() -> None:
    pages = Pages(Rows([json.dumps("x" * FIRST_BYTES)] * 3), NO_CAP)
    pages.read_ahead()
    assert pages.ready(1) is None
    assert len(read(pages.page(1))) == 1


def test_a_lone_surrogate_is_an_error_of_this_call() -> None:
    pages = Pages(Rows(['"\ud800"']), NO_CAP)
    with pytest.raises(QueryError, match="UTF-8"):
        pages.page(1)


def test_a_closed_result_keeps_no_rows() -> None:
    rows = Rows(["1", "2"])
    pages = Pages(rows, NO_CAP)
    pages.read_ahead()
    pages.close()
    assert rows.closed
    assert pages.ready(1) == EMPTY


def test_a_lost_result_says_so_and_is_closed() -> None:
    rows = Rows(["1", "2"])
    pages = Pages(rows, NO_CAP)
    pages.read_ahead()
    pages.lose()
    assert rows.closed
    assert pages.ready(1) is None
    with pytest.raises(Cancelled, match="call finish"):
        pages.page(1)
