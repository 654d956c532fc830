"""Arrow for databases that give values: read back by pyarrow, exactly, or refused by name."""

from __future__ import annotations

import datetime
import math
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.errors import QueryError
from notebook_rpc.model import END_OF_STREAM, ResultColumn
from notebook_rpc.sansio.values import text
from notebook_rpc.services.arrow import ArrowRows

if TYPE_CHECKING:
    from collections.abc import Sequence

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
MANY = 3000  # rows: more than the first batch has


class Given:
    """A result that has these rows, and gives at most a few at a time."""

    count, streaming = -1, True

    def __init__(
        self,
        rows: Sequence[tuple[object, ...]],
        *types: str,
        at_once: int = 10_000,
    ) -> None:
        self.columns = [ResultColumn(f"c{n}", kind) for n, kind in enumerate(types or ("",))]
        self.closed = False
        self._rows = list(rows)
        self._at_once = at_once

    def fetch(self, limit: int, /) -> list[tuple[object, ...]]:
        limit = min(limit, self._at_once)
        rows, self._rows = self._rows[:limit], self._rows[limit:]
        return rows

    def close(self) -> None:
        self.closed = True


def stream_of(rows: ArrowRows) -> bytes:
    parts = [rows.schema]
    while batch := rows.fetch():
        parts.append(bytes(batch))
    return b"".join(parts) + END_OF_STREAM


def table_of(result: Given) -> Any:
    table = pyarrow.ipc.open_stream(stream_of(ArrowRows(result))).read_all()
    table.validate(full=True)
    return table


def column_of(*values: object, declared: str = "") -> tuple[str, list[object]]:
    column = table_of(Given([(value,) for value in values], declared)).column(0)
    return str(column.type), column.to_pylist()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, -(2**63), 2**63 - 1], "int64"),
        ([1.5, None, math.inf, -0.0], "double"),
        ([1.5, 2, None, 2**53], "double"),
        ([True, None, False], "bool"),
        (["x", None, "", "\U0001f986\0"], "string"),
        ([b"\xff", None, b""], "binary"),
        ([datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31)], "date32[day]"),
        ([datetime.time(23, 59, 59, 999999), None], "time64[us]"),
        ([datetime.datetime(1, 1, 1), None, datetime.datetime.max], "timestamp[us]"),
        ([Decimal("1.5"), None, Decimal("-0.25")], "decimal128(38, 2)"),
        ([Decimal(9), Decimal("1E+3")], "decimal128(38, 0)"),
        ([None, None], "string"),
        ([], "string"),
    ],
    ids=str,
)
def test_values_have_the_type_that_holds_them(values: list[object], kind: str) -> None:
    assert column_of(*values) == (kind, values)


@pytest.mark.parametrize(
    "values",
    [
        [1, "x"],
        [1, True],
        [2**63],
        [2**53 + 1, 0.5],
        [10**400, 0.5],
        [Decimal("NaN")],
        [Decimal("1E+38")],
        [Decimal("1E-39")],
        [Decimal(1), 0.5],
        [datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1)],
        [datetime.datetime(2026, 1, 1), datetime.datetime(2026, 1, 1, tzinfo=UTC)],
        [datetime.datetime(2026, 1, 1), "infinity"],
        [datetime.time(1, tzinfo=UTC)],
        [datetime.timedelta(days=1)],
        [uuid.UUID(int=1)],
        [[1, Decimal("1.50")], {"a": None}],
    ],
    ids=str,
)
def test_what_has_no_type_in_common_is_text(values: list[object]) -> None:
    assert column_of(None, *values) == ("string", [None, *map(text, values)])


def test_not_a_number_is_a_float_among_integers() -> None:
    kind, (one, other) = column_of(math.nan, 1)
    assert (kind, other) == ("double", 1.0)
    assert math.isnan(one)  # type: ignore[arg-type]


def test_a_long_value_is_whole() -> None:
    value = "".join(map(str, range(200_000)))
    assert column_of(value, None, value)[1] == [value, None, value]


def test_a_time_with_a_zone_is_the_instant() -> None:
    kind, values = column_of(
        datetime.datetime(2026, 2, 28, 1, tzinfo=EAST), datetime.datetime(1, 1, 1, tzinfo=UTC)
    )
    assert kind == "timestamp[us, tz=UTC]"
    assert values == [
        datetime.datetime(2026, 2, 27, 19, 30, tzinfo=UTC),
        datetime.datetime(1, 1, 1, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("declared", "values", "kind"),
    [
        ("integer", [1, None], "int32"),
        ("smallint", [None], "int16"),
        ("bigint", [None], "int64"),
        ("real", [1.5], "double"),
        ("boolean", [None], "bool"),
        ("numeric(5,2)", [Decimal("999.99"), None], "decimal128(5, 2)"),
        ("date", [None], "date32[day]"),
        ("time without time zone", [None], "time64[us]"),
        ("timestamp without time zone", [None], "timestamp[us]"),
        ("timestamp with time zone", [None], "timestamp[us, tz=UTC]"),
        ("bytea", [None], "binary"),
        ("text", [None], "string"),
        ("who knows", [1], "int64"),
    ],
)
def test_a_declared_type_counts_where_the_values_fit_it(
    declared: str, values: list[object], kind: str
) -> None:
    assert column_of(*values, declared=declared) == (kind, values)


@pytest.mark.parametrize(
    ("declared", "values", "kind"),
    [
        ("integer", [2**31], "int64"),  # of a database whose integers are larger
        ("numeric(5,2)", [Decimal("0.001")], "decimal128(38, 3)"),
        ("numeric(5,2)", [Decimal("1000.00")], "decimal128(38, 2)"),
        ("numeric(5,2)", [1], "decimal128(5, 2)"),
        ("numeric(50,2)", [Decimal("1.5")], "decimal128(38, 1)"),
        ("bigint", ["x"], "string"),
    ],
)
def test_a_declared_type_that_is_not_true_does_not(
    declared: str, values: list[object], kind: str
) -> None:
    assert column_of(*values, declared=declared) == (kind, values)


def test_decimals_are_text_while_more_may_come_with_more_digits() -> None:
    values: list[object] = [Decimal("1.5")] * MANY
    assert column_of(*values) == ("string", ["1.5"] * MANY)
    declared = column_of(*values, declared="numeric(10,1)")
    assert declared == ("decimal128(10, 1)", values)


@pytest.mark.parametrize(
    ("first", "later", "named"),
    [
        (1, "x", "int64 and then has str"),
        (1, True, "int64 and then has bool"),
        (1, 2**63, "int64 and then has a larger int"),
        (0.5, 2**53 + 1, "float64 and then has an int"),
        (0.5, "x", "float64 and then has str"),
        (True, 1, "boolean and then has int"),
        (b"x", "x", "bytes and then has str"),
        (datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), "date and then has datetime"),
        (datetime.datetime(2026, 1, 1), "infinity", "timestamp and then has str"),
        (
            datetime.datetime(2026, 1, 1),
            datetime.datetime(2026, 1, 1, tzinfo=UTC),
            "timestamp and then has a datetime with another idea of zones",
        ),
    ],
)
def test_what_does_not_fit_later_is_an_error_that_names_the_column(
    first: object, later: object, named: str
) -> None:
    rows = ArrowRows(Given([(0, first)] * MANY + [(0, later), (0, first)], "", ""))
    assert rows.schema
    assert rows.fetch()
    for _ in range(2):
        with pytest.raises(QueryError, match=f'column "c1" began as {named}'):
            stream_of(rows)


def test_text_takes_whatever_comes_later() -> None:
    values = ["x"] * MANY + [1, b"\xff", None]
    assert column_of(*values)[1][-3:] == ["1", "\\xff", None]


VALUES = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.none() | st.floats(allow_nan=False)),
    st.lists(st.none() | st.booleans()),
    st.lists(st.none() | st.binary()),
    st.lists(st.none() | st.text()),
    st.lists(st.none() | st.dates()),
    st.lists(st.none() | st.datetimes()),
    st.lists(st.none() | st.times()),
    st.lists(st.none() | st.decimals(-(10**18), 10**18, places=9)),
)


@given(VALUES)
def test_whatever_is_of_one_type_reads_back_the_same(values: list[object]) -> None:
    assert column_of(*values)[1] == values


ANYTHING = st.none() | st.integers() | st.floats() | st.decimals() | st.text() | st.booleans()


@given(st.lists(ANYTHING, max_size=8))
def test_no_value_is_rounded_or_lost(values: list[Any]) -> None:
    kind, found = column_of(*values)
    if kind == "string":
        assert found == [text(value) for value in values]
    else:
        for value, read in zip(values, found, strict=True):
            assert read == value or (math.isnan(value) and math.isnan(read))  # type: ignore[arg-type]


def test_a_result_that_comes_in_drops_has_batches_all_the_same() -> None:
    rows = ArrowRows(Given([(n, str(n)) for n in range(MANY)], "", "", at_once=7))
    table = pyarrow.ipc.open_stream(stream_of(rows)).read_all()
    assert table.column(1).to_pylist() == [str(n) for n in range(MANY)]
    assert len(table.to_batches()[0]) >= 2048


def test_wide_rows_come_in_small_batches() -> None:
    rows = ArrowRows(Given([("x" * 2**17,)] * 100))
    assert rows.schema
    sizes = []
    while batch := rows.fetch():
        sizes.append(len(batch))
    assert max(sizes[:1]) < 8 * 2**20
    assert max(sizes[1:]) < 2 * 2**20


def test_no_rows_are_a_schema_alone() -> None:
    rows = ArrowRows(Given([], "integer", "text"))
    assert rows.schema
    assert rows.fetch() == b""
    assert rows.fetch() == b""
    assert table_of(Given([], "integer", "text")).schema.names == ["c0", "c1"]


def test_a_statement_without_rows_has_no_schema() -> None:
    result = Given([])
    result.columns, result.count, result.streaming = [], 3, False
    rows = ArrowRows(result)
    assert (rows.columns, rows.count, rows.streaming) == ([], 3, False)
    assert (rows.schema, rows.fetch()) == (b"", b"")


def test_columns_are_many() -> None:
    table = table_of(Given([tuple(range(2000))] * 3, *[""] * 2000))
    assert table.num_columns == 2000
    assert table.to_pylist()[2]["c1999"] == 1999


@pytest.mark.parametrize("value", ["\ud800", ["\udfff"], 10**5000], ids=["half", "nested", "int"])
def test_what_has_no_text_fails_and_does_not_pass_for_the_end(value: object) -> None:
    rows = ArrowRows(Given([(value,), ("good",)]))
    for _ in range(2):
        with pytest.raises(QueryError):
            rows.fetch()


def test_an_error_of_the_database_stays() -> None:
    class Failing(Given):
        def fetch(self, limit: int, /) -> list[tuple[object, ...]]:
            rows = super().fetch(limit)
            if not rows:
                raise QueryError("the server went away")
            return rows

    rows = ArrowRows(Failing([(1,)] * MANY))
    assert rows.fetch()
    for _ in range(2):
        with pytest.raises(QueryError, match="went away"):
            stream_of(rows)


def test_it_closes_what_it_reads() -> None:
    result = Given([(1,)])
    ArrowRows(result).close()
    assert result.closed
