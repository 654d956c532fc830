"""Parts of results: what is read, what is dropped, and what is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from notebook_rpc.errors import QueryError
from notebook_rpc.services.answers import part
from notebook_rpc.services.parts import Slice, SliceOfLines, Window
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.model import Parameters, ResultColumn


@pytest.fixture
def connection() -> FakeConnection:
    return FakeConnection(FakeDatabase())


@pytest.mark.parametrize(
    ("window", "numbers"),
    [
        (Window(0, 2), [1, 2]),
        (Window(2), [3, 4, 5]),
        (Window(4, 9), [5]),
        (Window(5, 9), []),
        (Window(3, 0), []),
        (Window(), [1, 2, 3, 4, 5]),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 100])
def test_a_slice_is_a_result(
    connection: FakeConnection, window: Window, numbers: list[int], step: int
) -> None:
    cut = Slice(connection.execute("rows 5"), window)
    assert [column.column for column in cut.columns] == ["n"]
    found: list[int] = []
    while rows := cut.fetch(step):
        assert len(rows) <= step
        found += [row[0] for row in rows]
    assert found == numbers
    assert not cut.fetch(step)
    assert cut.total() == 5


def test_the_rows_behind_are_read_only_to_be_counted(connection: FakeConnection) -> None:
    cut = Slice(connection.execute("error after 10 rows late"), Window(1, 2))
    assert cut.fetch(9) == [(2,), (3,)]
    assert cut.fetch(9) == ()
    with pytest.raises(QueryError, match="late"):
        cut.total()


class Numbers:
    """Lines that come three at a time at most."""

    columns: Sequence[ResultColumn] = ()
    count = -1
    streaming = True

    def __init__(self) -> None:
        self._next = 0

    def fetch(self, limit: int, /) -> tuple[bytes, int]:
        numbers = range(self._next, min(self._next + min(limit, 3), 10))
        self._next += len(numbers)
        return b"".join(b"%d" % number for number in numbers), len(numbers)

    def close(self) -> None:
        self.streaming = False


@pytest.mark.parametrize(
    ("window", "text"),
    [(Window(0, 4), b"0123"), (Window(4, 4), b"4567"), (Window(8), b"89"), (Window(99, 1), b"")],
)
def test_a_slice_of_lines(window: Window, text: bytes) -> None:
    whole = Numbers()
    cut = SliceOfLines(whole, window)
    found = b""
    while (read := cut.fetch(100))[1]:
        found += read[0]
    assert found == text
    assert cut.total() == 10
    cut.close()
    assert not whole.streaming


class Page:
    """What a database answers that counts by itself."""

    def __init__(self, columns: Sequence[ResultColumn]) -> None:
        self.columns = columns
        self.count = -1
        self.streaming = True
        self.closed = 0
        self._rows = ["[7]", "[8]"]

    def fetch(self, limit: int, /) -> list[str]:
        rows, self._rows = self._rows[:limit], self._rows[limit:]
        return rows

    def total(self) -> int:
        assert not self.closed
        return 100

    def close(self) -> None:
        self.closed += 1


class Counting(FakeConnection):
    page: Page | None = None
    asked: object = None

    def execute_page(
        self, sql: str, parameters: Parameters | None, offset: int, limit: int | None, /
    ) -> Page | None:
        self.asked = sql, parameters, offset, limit
        return self.page

    def part(self, sql: str, offset: int, limit: int | None, /) -> str | None:
        self.asked = sql, offset, limit
        return None if "6" in sql else "rows 2"


class TestWhereTheDatabaseCutsByItself:
    def test_it_is_asked_for_rows_and_then_for_their_number(self) -> None:
        connection = Counting(FakeDatabase())
        connection.page = page = Page(connection.execute("rows 1").columns)
        rows = part("rows", "rows 9", ["a"], Window(6, 2), connection)
        assert connection.asked == ("rows 9", ["a"], 6, 2)
        assert b"".join(rows.read()) == b"[[7],[8]]"
        assert (rows.complete, rows.ended, rows.total_count) == (True, False, None)
        assert rows.read() == ()
        assert (rows.ended, rows.row_count, rows.total_count) == (True, 2, 100)
        assert page.closed == 1  # and with it goes its transaction, at once

    def test_closed_before_it_is_counted(self) -> None:
        connection = Counting(FakeDatabase())
        connection.page = page = Page(connection.execute("rows 1").columns)
        rows = part("rows", "rows 9", None, Window(6, 2), connection)
        rows.read()
        rows.close()
        assert page.closed

    def test_what_it_cannot_cut_is_read_through(self) -> None:
        rows = part("rows", "rows 9", None, Window(6, 2), Counting(FakeDatabase()))
        assert b"".join(rows.read()) == b"[[7],[8]]"
        assert rows.read() == ()
        assert rows.total_count == 9

    def test_for_other_formats_it_is_asked_for_sql(self) -> None:
        connection = Counting(FakeDatabase())
        rows = part("csv", "rows 9", None, Window(1), connection)
        assert b"".join(rows.read()) == b"n\r\n1\r\n2\r\n"
        assert connection.asked == ("rows 9", 1, None)
        rows = part("csv", "rows 6", None, Window(5), connection)
        assert b"".join(rows.read()) == b"n\r\n6\r\n"
