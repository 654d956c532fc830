"""The text of values: a table of examples, and what must hold for every value."""

from __future__ import annotations

import datetime
import json
import math
import re
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notebook_rpc.errors import QueryError
from notebook_rpc.model import ResultColumn, unique_names
from notebook_rpc.sansio.values import JsonRows, TextRows, text

if TYPE_CHECKING:
    from collections.abc import Sequence

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30))


class Colour(str):
    __slots__ = ()


class Measured(float):
    __slots__ = ()


class Unknown:
    def __str__(self) -> str:
        return "who knows"


def named(value: object) -> str:
    """A test's name, the same in each process."""
    return re.sub(r" at 0x\w+", "", repr(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-(2**200), str(-(2**200))),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (-0.0, "-0.0"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (Decimal("0.10"), "0.10"),
        (Decimal("1E+5"), "100000"),
        (Decimal("0E-8"), "0.00000000"),
        (Decimal("12345678901234567890123456789.0123456789"),) * 2,
        (Decimal("NaN"), "NaN"),
        (Decimal("-sNaN1"), "NaN"),
        (Decimal("-Infinity"), "-Infinity"),
        ("", ""),
        ("\U0001f986\0\n", "\U0001f986\0\n"),
        (Colour("red"), "red"),
        (Measured("nan"), "NaN"),
        (b"", "\\x"),
        (b"ab\x00\xff", "\\x616200ff"),
        (bytearray(b"a"), "\\x61"),
        (memoryview(b"a"), "\\x61"),
        (datetime.date(2026, 2, 28), "2026-02-28"),
        (datetime.time(1, 2, 3, 4), "01:02:03.000004"),
        (datetime.time(1, 2, tzinfo=UTC), "01:02:00+00:00"),
        (datetime.datetime(2026, 2, 28, 1, 2, 3), "2026-02-28T01:02:03"),
        (datetime.datetime(1, 1, 1, 0, 0, 0, 5, EAST), "0001-01-01T00:00:00.000005+05:30"),
        (datetime.timedelta(0), "P0D"),
        (datetime.timedelta(days=1, hours=2, seconds=3.5), "P1DT7203.5S"),
        (datetime.timedelta(days=-1), "-P1D"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([], "[]"),
        ({}, "{}"),
        ((1, [True, None], {"a": '\u00e9"'}), '[1,[true,null],{"a":"\u00e9\\""}]'),
        ([Decimal("1.50"), 2**70, 0.5], "[1.50,1180591620717411303424,0.5]"),
        ([math.nan, -math.inf, Decimal("Infinity")], '["NaN","-Infinity","Infinity"]'),
        ([b"\xff", datetime.date(2026, 2, 28)], '["\\\\xff","2026-02-28"]'),
        ({1: 2, None: 3, (1, 2): 4}, '{"1":2,"null":3,"[1,2]":4}'),
        (Unknown(), "who knows"),
    ],
    ids=named,
)
def test_the_table(value: object, expected: str | Decimal | None) -> None:
    assert text(value) == (None if expected is None else str(expected))


@given(st.integers())
def test_no_integer_loses_a_digit(value: int) -> None:
    assert int(text(value) or "") == value


@given(st.floats())
def test_every_float_reads_back(value: float) -> None:
    found = float(text(value) or "")
    assert found == value or (math.isnan(found) and math.isnan(value))


@given(st.decimals(allow_nan=False))
def test_no_decimal_loses_a_digit(value: Decimal) -> None:
    found = Decimal(text(value) or "")
    assert found == value
    if value.is_finite() and value.as_tuple().exponent <= 0:  # type: ignore[operator]
        assert found.as_tuple() == value.as_tuple()


@given(st.binary())
def test_every_byte_reads_back(value: bytes) -> None:
    written = text(value) or ""
    assert written.startswith("\\x")
    assert bytes.fromhex(written[2:]) == value


@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_every_time_reads_back(value: datetime.datetime) -> None:
    assert datetime.datetime.fromisoformat(text(value) or "") == value.replace(
        tzinfo=value.tzinfo and datetime.timezone(value.utcoffset() or datetime.timedelta())
    )


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False, places=3)
)
NESTED = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.lists(NESTED) | st.dictionaries(st.text(), NESTED))
def test_what_is_nested_is_json_with_exact_numbers(value: object) -> None:
    written = text(value) or ""
    assert json.loads(written, parse_float=Decimal) == value


class Given:
    """A result that has these rows."""

    count, streaming = -1, True

    def __init__(self, names: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        self.columns = [ResultColumn(name, "") for name in names]
        self.closed = False
        self._rows = list(rows)

    def fetch(self, limit: int, /) -> list[tuple[object, ...]]:
        rows, self._rows = self._rows[:limit], self._rows[limit:]
        return rows

    def close(self) -> None:
        self.closed = True


def rows_of(names: Sequence[str], *rows: tuple[object, ...]) -> list[str]:
    return TextRows(Given(names, rows)).fetch(len(rows) + 1)


def test_a_row_is_an_object_from_column_to_text() -> None:
    assert rows_of(["a", "b"], (1, "x"), (None, "y")) == ['{"a":"1","b":"x"}', '{"a":null,"b":"y"}']


def test_a_column_may_mix_types() -> None:
    assert rows_of(["a"], (1,), ("x",), (None,), (True,), (b"a",)) == [
        '{"a":"1"}',
        '{"a":"x"}',
        '{"a":null}',
        '{"a":"true"}',
        '{"a":"\\\\x61"}',
    ]


def test_rows_without_columns_are_rows() -> None:
    assert rows_of([], (), (), ()) == ["{}", "{}", "{}"]


def test_line_breaks_do_not_make_rows() -> None:
    assert rows_of(["a"], ("\n",), ("\r\n\u2028",)) == ['{"a":"\\n"}', '{"a":"\\r\\n\u2028"}']


CELLS = st.none() | st.integers() | st.text() | st.binary() | st.booleans()


@given(
    st.lists(st.text(), min_size=1, max_size=5).flatmap(
        lambda names: st.tuples(
            st.just(unique_names(names)),
            st.lists(st.tuples(*[CELLS] * len(names)), max_size=5),
        )
    )
)
@example((['"', "\\", "\n", "", "\x7f"], [(1, 2, 3, 4, 5)]))
@example((["f1", "f0", "self", "__init__", "class"], [(1, 2, 3, 4, 5)]))
def test_rows_are_json_whatever_the_names_and_values(
    table: tuple[list[str], list[tuple[object, ...]]],
) -> None:
    names, rows = table
    written = [json.loads(row, object_pairs_hook=list) for row in rows_of(names, *rows)]
    assert written == [
        [(name, text(value)) for name, value in zip(names, row, strict=True)] for row in rows
    ]


def test_ten_thousand_columns() -> None:
    names = [str(number) for number in range(10_000)]
    (row,) = rows_of(names, tuple(range(10_000)))
    assert json.loads(row) == {name: name for name in names}


def test_pages_are_those_of_the_result() -> None:
    rows = TextRows(Given(["a"], [(1,), (2,), (3,)]))
    assert [len(rows.fetch(2)) for _ in range(3)] == [2, 1, 0]


def test_the_rest_is_the_result_s_own() -> None:
    result = Given(["a"], [])
    rows = TextRows(result)
    assert (rows.columns, rows.count, rows.streaming) == (result.columns, -1, True)
    rows.close()
    assert result.closed


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a", "\ud800"),
        ("a", ["\udfff"]),
        ("\ud800", 1),
        ('"\ud800', 1),
        ("a", 10**5000),
        ("a", nested(5000)),
    ],
    ids=["half a pair", "nested", "name", "odd name", "long int", "deep"],
)
def test_what_cannot_be_written_fails_and_does_not_pass_for_the_end(
    name: str, value: object
) -> None:
    rows = TextRows(Given([name], [(value,), ("good",)]))
    for _ in range(2):
        with pytest.raises(QueryError):
            rows.fetch(1)


def json_of(*rows: tuple[object, ...], names: Sequence[str] = ("a",)) -> list[str]:
    return JsonRows(Given(names, rows)).fetch(len(rows) + 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (-(2**200), str(-(2**200))),
        (1.5, "1.5"),
        (math.nan, "null"),
        (-math.inf, "null"),
        (Measured("nan"), "null"),
        (Measured("0.5"), "0.5"),
        (Decimal("0.10"), "0.10"),
        (Decimal("1E+5"), "100000"),
        (Decimal("0E-8"), "0.00000000"),
        (Decimal("12345678901234567890123456789.0123456789"),) * 2,
        (Decimal("sNaN"), "null"),
        (Decimal("Infinity"), "null"),
        ('\u00e9"\0', '"\u00e9\\"\\u0000"'),
        (Colour("red"), '"red"'),
        (b"\xaa", '"qg=="'),
        (bytearray(b"ab"), '"YWI="'),
        (memoryview(b"abcd")[::2], '"YWM="'),
        (datetime.date(2026, 2, 28), '"2026-02-28"'),
        (datetime.datetime(2026, 2, 28, 1, 2, 3, 4, EAST), '"2026-02-28T01:02:03.000004+05:30"'),
        (datetime.time(1, 2, tzinfo=UTC), '"01:02:00+00:00"'),
        (datetime.timedelta(days=1, hours=2, seconds=3.5), '"P1DT7203.5S"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (
            [math.nan, Decimal("1.50"), b"\xaa", (2**70,)],
            '[null,1.50,"qg==",[1180591620717411303424]]',
        ),
        ({1: None, None: True, "b": {}}, '{"1":null,"null":true,"b":{}}'),
        (Unknown(), '"who knows"'),
    ],
    ids=named,
)
def test_the_json_table(value: object, expected: str | Decimal) -> None:
    assert json_of((value,)) == [f'{{"a":{expected}}}']


def test_a_column_of_json_may_mix_types() -> None:
    assert json_of((1,), ("x",), (None,), (Decimal("1.0"),), (b"a",)) == [
        '{"a":1}',
        '{"a":"x"}',
        '{"a":null}',
        '{"a":1.0}',
        '{"a":"YQ=="}',
    ]


@given(NESTED)
def test_typed_rows_give_every_number_back(value: object) -> None:
    (row,) = json_of((value,))
    assert json.loads(row, parse_float=Decimal)["a"] == value


@given(st.lists(st.floats()))
def test_typed_rows_give_every_finite_float_back(values: list[float]) -> None:
    found = [json.loads(row)["a"] for row in json_of(*[(value,) for value in values])]
    assert found == [value if math.isfinite(value) else None for value in values]


ANYTHING = st.recursive(
    LEAVES
    | st.floats()
    | st.decimals()
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner),
)


@given(ANYTHING)
def test_typed_rows_are_json_whatever_the_value(value: object) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)  # NaN and Infinity, which Python would read

    (row,) = json_of((value,))
    json.loads(row, parse_constant=refuse)
    assert "\n" not in row


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a", "\ud800"),
        ("a", ["\udfff"]),
        ("a", {"\udfff": 1}),
        ("\ud800", 1),
        ('"\ud800', 1),
        ("a", 10**5000),
        ("a", nested(5000)),
    ],
    ids=["half a pair", "nested", "key", "name", "odd name", "long int", "deep"],
)
def test_what_cannot_be_json_fails_and_does_not_pass_for_the_end(name: str, value: object) -> None:
    rows = JsonRows(Given([name], [(value,), ("good",)]))
    for _ in range(2):
        with pytest.raises(QueryError):
            rows.fetch(1)
