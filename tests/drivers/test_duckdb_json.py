"""DuckDB's rows as typed JSON: exact, valid, and by the table that all drivers share."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_rpc.driver import SupportsJson
from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.values import JsonRows
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.model import Parameters
    from notebook_rpc_drivers._duckdb_connection import Connection


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    database = DRIVER.open({"threads": "2"})
    connection = database.connect()
    connection.execute("SET TimeZone = 'UTC'")
    yield connection
    connection.close()
    database.close()


def rows_of(connection: Connection, sql: str, parameters: Parameters | None = None) -> list[str]:
    result = connection.execute_json(sql, parameters)
    rows: list[str] = []
    while more := result.fetch(1000):
        rows += more
    return rows


def test_it_is_offered(connection: Connection) -> None:
    assert isinstance(connection, SupportsJson)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", "true"),
        ("(-9223372036854775808)::BIGINT", "-9223372036854775808"),
        ("18446744073709551615::UBIGINT", "18446744073709551615"),
        (f"({2**127 - 1})::HUGEINT", str(2**127 - 1)),
        (f"({2**128 - 1})::UHUGEINT", str(2**128 - 1)),
        (f"({10**50})::BIGNUM", str(10**50)),
        ("1.50::DECIMAL(4, 2)", "1.50"),
        ("12::DECIMAL(5, 0)", "12"),
        ("(-0.5)::DECIMAL(1, 1)", "-0.5"),
        ("0.05::DECIMAL(38, 38)", "0.05" + "0" * 36),
        ("12345678901234567890.10::DECIMAL(38, 2)", "12345678901234567890.10"),
        ("0.1::FLOAT", "0.1"),
        ("1e16::DOUBLE", "10000000000000000.0"),
        ("5e-324::DOUBLE", "5e-324"),
        ("'nan'::DOUBLE", "null"),
        ("'-inf'::FLOAT", "null"),
        ("'\"\\' || chr(0) || chr(10) || '\U0001f986'", '"\\"\\\\\\u0000\\n\U0001f986"'),
        (r"'\xAA'::BLOB", '"qg=="'),
        ("''::BLOB", '""'),
        ("'0101'::BIT", '"0101"'),
        ("'12345678-1234-5678-1234-567812345678'::UUID", '"12345678-1234-5678-1234-567812345678"'),
        ("DATE '2026-02-28'", '"2026-02-28"'),
        ("'infinity'::DATE", '"infinity"'),
        ("TIME '01:02:03.4'", '"01:02:03.4"'),
        ("'01:02:03.123456789'::TIME_NS", '"01:02:03.123456789"'),
        ("'01:02:03+05'::TIMETZ", '"01:02:03+05:00"'),
        ("'01:02:03-05:30'::TIMETZ", '"01:02:03-05:30"'),
        ("TIMESTAMP '2026-02-28 01:02:03.5'", '"2026-02-28T01:02:03.5"'),
        ("'2026-02-28'::TIMESTAMP_S", '"2026-02-28T00:00:00"'),
        ("'2026-02-28'::TIMESTAMP_MS", '"2026-02-28T00:00:00"'),
        ("'2026-02-28 00:00:00.123456789'::TIMESTAMP_NS", '"2026-02-28T00:00:00.123456789"'),
        ("'-infinity'::TIMESTAMP", '"-infinity"'),
        ("'0044-03-15 (BC) 01:02:03'::TIMESTAMP", '"0044-03-15 (BC)T01:02:03"'),
        ("'2026-02-28 01:00+02'::TIMESTAMPTZ", '"2026-02-27T23:00:00+00:00"'),
        ("INTERVAL '1 year -2 months 3 days -3.5 seconds'", '"P10M3DT-3.5S"'),
        ("INTERVAL '-1 day -4 hours -0.5 seconds'", '"-P1DT4H0.5S"'),
        ("INTERVAL '-14 months'", '"-P1Y2M"'),
        ("INTERVAL '1 day -04:05:06.7'", '"P1DT-4H-5M-6.7S"'),
        ("INTERVAL '10:20:30'", '"PT10H20M30S"'),
        ("INTERVAL '2500 hours'", '"PT2500H"'),
        ("INTERVAL '14 months'", '"P1Y2M"'),
        ("INTERVAL '0 seconds'", '"PT0S"'),
        ("'a\"'::ENUM('a\"')", '"a\\""'),
        ("'POINT(1 2)'::GEOMETRY", '"POINT (1 2)"'),
        ("NULL", "null"),
        ("[1, NULL]", "[1,null]"),
        ("[]", "[]"),
        ("[[1.50], NULL, []]", "[[1.50],null,[]]"),
        ("['nan'::DOUBLE, 1.5]", "[null,1.5]"),
        ("[1, 2]::DECIMAL(4, 2)[2]", "[1.00,2.00]"),
        ("{'a b\"c''': 1.10, 'b': NULL}", '{"a b\\"c\'":1.10,"b":null}'),
        ("[NULL::STRUCT(a INTEGER)]", "[null]"),
        ("{'a': {'b': [{'c': '\\xAA'::BLOB}]}}", '{"a":{"b":[{"c":"qg=="}]}}'),
        ("ROW(1.10, TIMESTAMP '2026-02-28', 'x')", '[1.10,"2026-02-28T00:00:00","x"]'),
        ("MAP {'k\"': [1.10]}", '{"k\\"":[1.10]}'),
        ("MAP {1.50: 1}", '{"1.50":1}'),
        ("MAP {TIMESTAMP '2026-02-28': NULL}", '{"2026-02-28T00:00:00":null}'),
        ("MAP {[1, 2]: 'x'}", '{"[1,2]":"x"}'),
        ("MAP {}", "{}"),
        ("1.10::UNION(num DECIMAL(4, 2), str VARCHAR)", '{"num":1.10}'),
        ("'x'::UNION(num DECIMAL(4, 2), str VARCHAR)", '{"str":"x"}'),
        (
            '\'{"a": 1.10, "b": 123456789012345678901234567890}\'::JSON',
            '{"a": 1.10, "b": 123456789012345678901234567890}',
        ),
        ("{'a': 1.50::DECIMAL(4, 2), 'n': 'NaN, ]'}::VARIANT", '{"a":1.50,"n":"NaN, ]"}'),
        # What DuckDB takes for JSON, and nobody else does.
        ("'[NaN, -Infinity, 1, ]'::JSON", "[null, null, 1 ]"),
        ('\'{"a": "\\"NaN, ]", }\'::JSON', '{"a": "\\"NaN, ]" }'),
        ("['[1,\n2]'::JSON]", "[[1, 2]]"),
        ("'nan'::DOUBLE::VARIANT", "null"),
    ],
)
def test_the_table(connection: Connection, value: str, expected: str) -> None:
    found = rows_of(connection, f"SELECT {value} AS c UNION ALL SELECT NULL")
    assert found == [f'{{"c":{expected}}}', '{"c":null}']
    msgspec.json.decode(found[0])
    arrays = connection.execute_json(f"SELECT {value} AS c UNION ALL SELECT NULL", arrays=True)
    assert arrays.fetch(9) == [f"[{expected}]", "[null]"]


@pytest.mark.parametrize(
    "value",
    [
        "NULL, true, 1, -1.5::DOUBLE, 1.50, 'x\"', '\\x00\\xFF'::BLOB",
        "DATE '2026-02-28', TIME '01:02:03.000004', TIMESTAMP '2026-02-28 01:02:03'",
        "'12345678-1234-5678-1234-567812345678'::UUID, 'nan'::DOUBLE, [1, NULL], {'a': 1.10}",
    ],
)
def test_it_is_what_other_drivers_write(connection: Connection, value: str) -> None:
    """``execute`` gives Python's values, and ``sansio/values.py`` writes them."""
    ours = rows_of(connection, f"SELECT {value}")
    theirs = JsonRows(connection.execute(f"SELECT {value}")).fetch(2)
    assert ours == theirs
    arrays = connection.execute_json(f"SELECT {value}", arrays=True).fetch(2)
    assert arrays == JsonRows(connection.execute(f"SELECT {value}"), arrays=True).fetch(2)


def test_names_are_keys(connection: Connection) -> None:
    sql = 'SELECT 1 AS "a""b", 2 AS "c\'d", 3 AS a, 4 AS a, 5 AS "x\\y", 6 AS "\u00e9\n"'
    (row,) = rows_of(connection, sql)
    assert row == '{"a\\"b":1,"c\'d":2,"a":3,"a_1":4,"x\\\\y":5,"\u00e9\\n":6}'


def test_two_thousand_columns(connection: Connection) -> None:
    columns = ", ".join(f"range + {n} AS c{n}" for n in range(2000))
    row, _ = rows_of(connection, f"SELECT {columns} FROM range(2)")
    assert json.loads(row) == {f"c{n}": n for n in range(2000)}


def test_parameters_are_bound(connection: Connection) -> None:
    assert rows_of(connection, "SELECT ?::DECIMAL(9,2) AS x;", [41]) == ['{"x":41.00}']
    assert rows_of(connection, "SELECT $a AS a", {"a": "x"}) == ['{"a":"x"}']


def test_a_statement_without_rows_counts(connection: Connection) -> None:
    result = connection.execute_json("CREATE OR REPLACE TABLE t (i INTEGER)")
    assert (list(result.columns), result.count, result.fetch(1)) == ([], 0, [])
    assert rows_of(connection, "INSERT INTO t VALUES (1) RETURNING i / 2 AS h") == ['{"h":0.5}']
    assert rows_of(connection, "SELECT count(*) AS n FROM t") == ['{"n":1}']


def test_no_rows(connection: Connection) -> None:
    assert rows_of(connection, "SELECT 1 AS a WHERE false") == []


def test_errors_late_in_a_stream_stay(connection: Connection) -> None:
    sql = "SELECT (CASE WHEN range = 900000 THEN 'x' ELSE '1' END)::INTEGER FROM range(1000000)"
    result = connection.execute_json(sql)
    assert result.fetch(1)
    for _ in range(2):
        with pytest.raises(QueryError, match="Conversion Error") as caught:
            result.fetch(1_000_000)
        assert "LINE" not in str(caught.value)
    result.close()


def test_a_macro_of_the_user_s_cannot_hide_what_writes_the_rows(connection: Connection) -> None:
    names = ("to_json", "concat", "replace", "list_transform", "struct_extract", "regexp_replace")
    for name in names:
        connection.execute(f"CREATE OR REPLACE TEMP MACRO {name}(a, b := 1, c := 1) AS 'hidden'")
    try:
        sql = "SELECT 'x' AS s, [{'a': TIMESTAMPTZ '2026-02-28'}] AS l, INTERVAL 1 DAY AS i"
        assert rows_of(connection, sql) == [
            '{"s":"x","l":[{"a":"2026-02-28T00:00:00+00:00"}],"i":"P1D"}'
        ]
    finally:
        for name in names:
            connection.execute(f"DROP MACRO {name}")


VALUES = st.one_of(
    st.tuples(st.just("HUGEINT"), st.integers(-(2**127), 2**127 - 1)),
    st.tuples(st.just("DECIMAL(38, 10)"), st.decimals(-(10**27), 10**27, places=10)),
    st.tuples(st.just("VARCHAR"), st.text()),
    st.tuples(st.just("VARCHAR[]"), st.lists(st.text())),
)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_every_value_reads_back(case: tuple[str, object]) -> None:
    kind, value = case
    database = DRIVER.open({})
    connection = database.connect()
    parameter = str(value) if isinstance(value, int | Decimal) else value
    (row,) = rows_of(connection, f"SELECT ?::{kind} AS v", [parameter])
    assert json.loads(row, parse_float=Decimal)["v"] == value
    connection.close()
    database.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "[" * 60 + "1" + "]" * 60 + " AS x",
        "SELECT " + "{'a': " * 60 + "1" + "}" * 60 + " AS x",
        "SELECT " + "[{'a': " * 9 + "'nan'::DOUBLE" + "}]" * 9 + " AS x",
    ],
)
def test_what_is_nested_deep_is_written_all_the_same(connection: Connection, sql: str) -> None:
    """Put together by us, it would take the engine years to compile."""
    value = json.loads(connection.execute_json(sql).fetch(1)[0])["x"]
    while isinstance(value, list | dict):
        value = value["a"] if isinstance(value, dict) else value[0]
    assert value in (1, None)


def test_json_that_nobody_has_checked_is_a_string(connection: Connection) -> None:
    """As a column of an Arrow stream may say that it is JSON."""
    stream = io.BytesIO()
    text = pa.array(['oops"', '1},{"x":2', '{"a": 1}', None])
    field = pa.field("x", pa.string(), metadata={"ARROW:extension:name": "arrow.json"})
    schema = pa.schema([field])
    with pa.ipc.new_stream(stream, schema) as writer:
        writer.write_batch(pa.record_batch([text], schema=schema))
    connection.upload("", "uploaded", stream.getvalue())
    rows = connection.execute_json("FROM uploaded").fetch(9)
    values = [json.loads(row)["x"] for row in rows]
    assert values[:2] == ['oops"', '1},{"x":2']
    assert values[2:] in ([{"a": 1}, None], ['{"a": 1}', None])
