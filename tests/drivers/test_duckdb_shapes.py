"""A query that ran before runs without being bound first, and few rows are written by Python: what
is given must be the same each time, whatever has become of the tables meanwhile."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notebook_rpc.errors import Cancelled, QueryError
from notebook_rpc.model import END_OF_STREAM, Table
from notebook_rpc_drivers import _duckdb_arrow, _duckdb_few_arrow, _duckdb_few_rows
from notebook_rpc_drivers._duckdb_few_rows import MOST as MOST_ROWS
from notebook_rpc_drivers._duckdb_shapes import LONGEST, MOST, Shapes
from notebook_rpc_drivers.duckdb import DRIVER
from tests.drivers.test_duckdb_arrow import interrupting, stream_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc.model import ResultColumn
    from notebook_rpc_drivers._duckdb_arrow import ArrowResult
    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers.duckdb import Database


@pytest.fixture
def database() -> Iterator[Database]:
    database = DRIVER.open({})
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    yield connection
    connection.close()


def lines(connection: Connection, sql: str, *, arrays: bool = False) -> list[str]:
    result = connection.execute_json(sql, arrays=arrays)
    rows: list[str] = []
    while page := result.fetch(50):
        rows += page
    return rows


def table(connection: Connection, sql: str) -> Any:
    result = connection.execute_arrow(sql)
    messages = [result.schema]
    while batch := result.fetch():
        messages.append(bytes(batch))
    return pa.ipc.open_stream(b"".join([*messages, END_OF_STREAM])).read_all()


def exact(line: str) -> object:
    return json.loads(line, parse_float=Decimal)


class Spy:
    """Counts how often the engine is asked what a query's columns are."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self.bound = 0

    def __getattr__(self, name: str) -> Any:
        self.bound += name == "sql"
        return getattr(self._cursor, name)


def spied(connection: Connection) -> Spy:
    spy = Spy(connection._own)  # noqa: SLF001  # there is no other place to look
    connection._own = spy  # type: ignore[assignment]  # noqa: SLF001
    return spy


@pytest.mark.parametrize("read", [lines, table])
def test_a_query_is_bound_once(connection: Connection, read: Any) -> None:
    spy = spied(connection)
    first = read(connection, "SELECT 42 AS x, 'a' AS y")
    assert spy.bound == 1
    assert read(connection, "SELECT 42 AS x, 'a' AS y") == first
    assert spy.bound == 1


@pytest.mark.parametrize("read", [lines, table])
def test_another_connection_knows_it_too(connection: Connection, read: Any) -> None:
    read(connection, "SELECT 42 AS x")
    connection.reset()  # a new cursor
    spy = spied(connection)
    read(connection, "SELECT 42 AS x")
    assert spy.bound == 0


@pytest.mark.parametrize("read", [lines, table])
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE t ADD COLUMN c INTEGER DEFAULT 7",
        "ALTER TABLE t ALTER a TYPE VARCHAR",
        "ALTER TABLE t RENAME a TO b",
        "CREATE OR REPLACE TABLE t AS SELECT 'x'::ENUM('x', 'y') AS a",
        "CREATE OR REPLACE TABLE t AS SELECT 1.5::FLOAT AS a",
        "CREATE OR REPLACE TABLE t AS SELECT NULL AS a",
    ],
)
def test_what_a_table_has_become_is_seen(connection: Connection, read: Any, change: str) -> None:
    connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    read(connection, "FROM t")
    beside = connection._root.cursor()  # noqa: SLF001  # a change that we hear nothing of
    beside.execute(change)
    assert read(connection, "FROM t") == read(connection, "FROM t -- not known")
    assert read(connection, "FROM t") == read(connection, "FROM t -- not known")


def test_more_rows_than_last_time_come_all(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    assert lines(connection, "FROM t") == ['{"a":1}']
    connection._root.cursor().execute("INSERT INTO t FROM range(5000)")  # noqa: SLF001
    assert len(lines(connection, "FROM t")) == 5001
    assert len(lines(connection, "FROM t")) == 5001


@pytest.mark.parametrize("read", [lines, table])
def test_a_reader_stays_one_when_a_table_has_become_something_else(
    database: Database, connection: Connection, read: Any
) -> None:
    connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    reader = database.connect_read_only()
    read(reader, "FROM t")
    connection.execute("CREATE SEQUENCE s")
    beside = connection._root.cursor()  # noqa: SLF001
    beside.execute(
        "DROP TABLE t; CREATE VIEW t AS SELECT nextval('s') AS b, range AS c FROM range(999)"
    )
    for _ in range(2):
        with pytest.raises(QueryError, match="read-only"):
            read(reader, "FROM t")
    assert lines(connection, "SELECT nextval('s') AS n") == ['{"n":1}']
    reader.close()


@pytest.mark.parametrize("read", [lines, table])
def test_in_a_transaction_too(connection: Connection, read: Any) -> None:
    connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    connection.execute("BEGIN")
    connection.execute("INSERT INTO t VALUES (2)")
    read(connection, "FROM t")
    connection.execute("INSERT INTO t FROM range(5000)")
    assert len(read(connection, "FROM t")) == 5002
    connection.execute("ROLLBACK")
    assert len(read(connection, "FROM t")) == 1


def test_a_query_that_cannot_run_any_more_is_an_error(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    lines(connection, "FROM t")
    connection._root.cursor().execute("DROP TABLE t")  # noqa: SLF001
    with pytest.raises(Exception, match="Table with name t does not exist"):
        lines(connection, "FROM t")


def test_what_changes_something_runs_once_each_time(connection: Connection) -> None:
    connection.execute("CREATE SEQUENCE s")
    counted = [lines(connection, "SELECT nextval('s') AS n") for _ in range(3)]
    assert counted == [['{"n":1}'], ['{"n":2}'], ['{"n":3}']]


def test_a_known_stream_does_not_hide_the_catalog(connection: Connection) -> None:
    sql = "SELECT range AS n, 'x' AS x FROM range(100000)"
    table(connection, sql)
    connection.execute("CREATE TEMP TABLE mine (i INTEGER)")
    table(connection, sql)
    result = connection.execute_arrow(sql)
    assert result.fetch()
    assert Table("temp", "main", "mine") in connection.tables()
    result.close()


MOMENTS = st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31))
VALUES: dict[str, st.SearchStrategy[object]] = {
    "BOOLEAN": st.booleans(),
    "TINYINT": st.integers(-(2**7), 2**7 - 1),
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "UBIGINT": st.integers(0, 2**64 - 1),
    "HUGEINT": st.integers(-(2**127) + 1, 2**127 - 1),
    "UHUGEINT": st.integers(0, 2**128 - 1),
    "DOUBLE": st.floats(),
    "DECIMAL(18, 3)": st.decimals(-(10**14), 10**14, places=3),
    "DECIMAL(5, 5)": st.decimals("-0.9", "0.9", places=5),
    "VARCHAR": st.text(st.characters(codec="utf-8")),
    "UUID": st.uuids().map(str),
    "DATE": st.one_of(
        MOMENTS.map(lambda moment: moment.date()),
        st.sampled_from(["infinity", "-infinity", "0044-03-15 (BC)", "12000-01-01"]),
    ),
    "TIMESTAMP": st.one_of(
        MOMENTS, st.sampled_from(["infinity", "-infinity", "0044-03-15 (BC) 01:02:03"])
    ),
    "TIME": st.one_of(st.times(), st.just("24:00:00")),
}


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(*map(st.none().__or__, VALUES.values())), max_size=5))
@example(rows=[tuple(["infinity" if kind == "DATE" else None for kind in VALUES])])
def test_python_writes_what_the_engine_writes(rows: list[tuple[object, ...]]) -> None:
    database = DRIVER.open({})
    connection = database.connect()
    columns = ", ".join(f'"{kind}" {kind}' for kind in VALUES)
    connection.execute(f"CREATE TABLE t ({columns})")
    for row in rows:
        connection.execute(f"INSERT INTO t VALUES ({', '.join('?' for _ in row)})", row).close()
    for arrays in (False, True):
        by_engine = lines(connection, "FROM t", arrays=arrays)
        again = lines(connection, "FROM t", arrays=arrays)
        assert list(map(exact, again)) == list(map(exact, by_engine))
    connection.close()
    database.close()


@pytest.mark.parametrize("kind", ["FLOAT", "JSON", "INTEGER[]", "INTERVAL", "BLOB", "TIMESTAMPTZ"])
def test_what_python_has_no_exact_value_for_is_left_to_the_engine(kind: str) -> None:
    types = [duckdb.sqltype(kind)]
    assert _duckdb_few_rows.objects(["a"], types) is None
    assert _duckdb_few_rows.arrays(["a"], types) is None


# --- Arrow of few rows, by Python ---------------------------------------------------------------


class Reads:
    """Counts the schemas of streams: few rows by Python need none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.streams = 0
        opened = _duckdb_arrow._read  # noqa: SLF001

        def read(*given: Any) -> Any:
            self.streams += 1
            return opened(*given)

        monkeypatch.setattr(_duckdb_arrow, "_read", read)


def described(connection: Connection, sql: str) -> tuple[list[ResultColumn], Any]:
    """The columns, and the rows as pyarrow finds them right."""
    result = connection.execute_arrow(sql)
    messages = [result.schema]
    while batch := result.fetch():
        messages.append(bytes(batch))
    read = pa.ipc.open_stream(b"".join([*messages, END_OF_STREAM])).read_all()
    return result.columns, read


def same(one: Any, other: Any) -> bool:
    """Of tables, bit by bit where pyarrow's own comparison would take 0.0 for -0.0, or NaN for
    something else than NaN."""
    return bool(one.schema.equals(other.schema, check_metadata=True)) and bits(one) == bits(other)


def bits(table: Any) -> list[tuple[int, list[bool], Any]]:
    return [
        (each.null_count, each.is_valid().to_pylist(), repr(_raw(each)))
        for each in table.combine_chunks().columns
    ]


def _raw(column: Any) -> Any:
    """Values that Python has, for all that Arrow may hold: infinity and the year 12000 too."""
    integers = {pa.types.is_date32: pa.int32(), pa.types.is_time64: pa.int64()}
    integers[pa.types.is_timestamp] = pa.int64()
    wanted = next((to for is_one, to in integers.items() if is_one(column.type)), None)
    return (column if wanted is None else column.cast(wanted)).to_pylist()


def of_digits(precision: int, scale: int) -> st.SearchStrategy[object]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda units: f"{Decimal(f'{units}E-{scale}'):f}")


EXACT: dict[str, st.SearchStrategy[object]] = {
    **{
        f"{name}INT": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for name, bits in (("TINY", 8), ("SMALL", 16), ("BIG", 64))
    },
    "INTEGER": st.integers(-(2**31), 2**31 - 1),
    "UTINYINT": st.integers(0, 2**8 - 1),
    "USMALLINT": st.integers(0, 2**16 - 1),
    "UINTEGER": st.integers(0, 2**32 - 1),
    "UBIGINT": st.integers(0, 2**64 - 1),
    "HUGEINT": st.one_of(
        st.integers(-(10**38) + 1, 10**38 - 1),
        st.sampled_from([10**38, -(10**38), 2**127 - 1, -(2**127) + 1]),
    ),
    "BOOLEAN": st.booleans(),
    "DECIMAL(38, 0)": of_digits(38, 0),
    "DECIMAL(38, 38)": of_digits(38, 38),
    "DECIMAL(38, 7)": of_digits(38, 7),
    "DECIMAL(4, 1)": of_digits(4, 1),
    "FLOAT": st.floats(width=32),
    "DOUBLE": st.floats() | st.just(-0.0),
    "VARCHAR": st.one_of(st.text(st.characters(codec="utf-8")), st.sampled_from(["", "a\0b"])),
    "JSON": st.sampled_from(["null", '{"a": [1, 2.50]}', r'"\u0000"', " 1 "]),
    "BLOB": st.binary(),
    "DATE": VALUES["DATE"] | st.sampled_from(["0001-01-01", "9999-12-31", "0002-01-01"]),
    "TIME": VALUES["TIME"],
    "TIMESTAMP": VALUES["TIMESTAMP"]
    | st.sampled_from(["0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"]),
}


def test_all_types_that_python_has_are_tried() -> None:
    assert {kind.partition("(")[0] for kind in EXACT} == _duckdb_few_arrow._EXACT  # noqa: SLF001


def rows_of(kinds: list[str]) -> st.SearchStrategy[tuple[list[str], list[tuple[object, ...]]]]:
    row = st.tuples(*(st.none() | EXACT[kind] for kind in kinds))
    return st.tuples(st.just(kinds), st.lists(row, max_size=6))


KINDS = st.lists(st.sampled_from(list(EXACT)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(KINDS.flatmap(rows_of))
@example((["DATE", "VARCHAR"], [("infinity", None), (None, "")]))
@example((["TIMESTAMP"], [("-infinity",)]))
@example((["HUGEINT", "DOUBLE"], [(10**38, -0.0)]))
@example((["DOUBLE", "FLOAT"], [(-0.0, float("nan"))]))
def test_python_writes_the_arrow_that_the_engine_writes(
    table_: tuple[list[str], list[tuple[object, ...]]],
) -> None:
    chosen, given_ = table_
    database = DRIVER.open({"threads": "1"})
    connection = database.connect()
    columns = ", ".join(f'"{n} {kind}" {kind}' for n, kind in enumerate(chosen))
    connection.execute(f"CREATE TABLE t ({columns})")
    for values in given_:
        connection.execute(f"INSERT INTO t VALUES ({', '.join('?' for _ in chosen)})", values)
    first = described(connection, "FROM t")
    assert first[1].num_rows == len(given_)
    for _ in range(3):
        again = described(connection, "FROM t")
        assert again[0] == first[0]
        assert same(again[1], first[1])
    connection.close()
    database.close()


# Those that Python has, and each is written by it: what would fit must not go the long way.
@pytest.mark.parametrize(
    ("value", "by_python"),
    [
        ("'0002-01-01'::DATE", True),
        ("'9998-12-31'::DATE", True),
        ("'0001-01-01'::DATE", False),
        ("'9999-12-31'::DATE", False),
        ("'infinity'::DATE", False),
        ("'-infinity'::TIMESTAMP", False),
        ("'0044-03-15 (BC)'::DATE", False),
        ("'24:00:00'::TIME", False),
        ("'23:59:59.999999'::TIME", True),
        ("99999999999999999999999999999999999999::HUGEINT", True),
        ("100000000000000000000000000000000000000::HUGEINT", False),
        ("'-0.0'::DOUBLE", True),
        ("'nan'::FLOAT", True),
        ("''", True),
        ("'a' || chr(0) || 'b'", True),
        ("NULL::BLOB", True),
    ],
)
def test_the_edges(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, value: str, *, by_python: bool
) -> None:
    sql = f"SELECT {value} AS a"
    first = table(connection, sql)
    reads = Reads(monkeypatch)
    for number in range(1, 4):
        assert same(table(connection, sql), first)
        assert reads.streams == (0 if by_python else number)


@pytest.mark.parametrize("rows", [0, 1, MOST_ROWS - 1, MOST_ROWS, MOST_ROWS + 1])
def test_few_rows_are_so_many(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    sql = f"SELECT range, range::VARCHAR AS text FROM range({rows})"
    first = table(connection, sql)
    assert first.num_rows == rows
    reads = Reads(monkeypatch)
    assert same(table(connection, sql), first)
    assert same(table(connection, sql), first)
    assert reads.streams == (2 if rows > MOST_ROWS else 0)


@pytest.mark.parametrize(
    "more", ["FROM range(1, 1000)", "VALUES ('infinity')", f"VALUES ({10**38})"]
)
def test_what_does_not_fit_any_more_streams_from_then_on(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    kind = "DATE" if "infinity" in more else "HUGEINT"
    connection.execute(f"CREATE TABLE t (a {kind})")
    connection.execute("INSERT INTO t VALUES (NULL)")
    assert table(connection, "FROM t").num_rows == 1
    reads = Reads(monkeypatch)
    assert table(connection, "FROM t").num_rows == 1
    assert reads.streams == 0
    connection.execute(f"INSERT INTO t {more}")
    for number in range(1, 4):
        assert same(table(connection, "FROM t"), table(connection, f"FROM t -- {number}"))
    assert reads.streams == 6
    connection.execute("DELETE FROM t WHERE a IS NOT NULL")  # few again, but nobody tries
    table(connection, "FROM t")
    assert reads.streams == 7


@pytest.mark.parametrize(
    "value",
    [
        "'00000000-0000-0000-0000-000000000001'::UUID",
        "'a'::ENUM ('a', 'b')",
        "INTERVAL '1 month 2 days'",
        "'2026-01-01 00:00:00+00'::TIMESTAMPTZ",
        "'infinity'::TIMESTAMPTZ",
        "'12:00:00+02'::TIMETZ",
        "'12:00:00.123456789'::TIME_NS",
        "[1, NULL, 3]",
        "[1.5::DECIMAL(2, 1)]",
        "[1.5::DECIMAL(2, 1)]::DECIMAL(2, 1)[1]",
        "{'a': 1, 'b': 'x'}",
        "row(1, 'x')",
        "MAP {'a': 1}",
        "union_value(a := 1)",
        "'2026-01-01'::TIMESTAMP_S",
        "'2026-01-01'::TIMESTAMP_MS",
        "'2026-01-01'::TIMESTAMP_NS",
        "'0101'::BIT",
        "340282366920938463463374607431768211455::UHUGEINT",
        "42::BIGNUM",
        "1::VARIANT",
        "NULL",
        "'x' COLLATE NOCASE",
        "1 AS a, 2",
    ],
)
@pytest.mark.parametrize("read", [lines, described])
def test_all_other_types_are_the_same_each_time(
    connection: Connection, read: Any, value: str
) -> None:
    sql = f"SELECT {value} AS a"
    first = read(connection, sql)
    for _ in range(3):
        assert read(connection, sql) == first


def test_a_type_of_ones_own_is_the_type_that_it_stands_for(connection: Connection) -> None:
    connection.execute("CREATE TYPE \"JSON\" AS DATE; CREATE TYPE mood AS ENUM ('sad')")
    for sql in ("SELECT 'infinity'::main.\"JSON\" AS a", "SELECT 'sad'::mood AS a"):
        first = described(connection, sql)
        for _ in range(3):
            again = described(connection, sql)
            assert again[0] == first[0]
            assert same(again[1], first[1])


@pytest.mark.parametrize("rows", [1, 500])
@pytest.mark.parametrize("read", [lines, described])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Arrow has one type for both.
        ("'00000000-0000-0000-0000-000000000001'::VARCHAR", "uuid()"),
        ("'1'::VARCHAR", "'1'::JSON"),
        ("'12:00:00'::TIME", "'12:00:00+00'::TIMETZ"),  # which is cast to text
        ("1", "'1'"),
    ],
)
def test_what_a_file_has_become_is_seen(
    connection: Connection, tmp_path: Path, read: Any, before: str, after: str, rows: int
) -> None:
    path = tmp_path / "a.parquet"
    connection.execute(f"COPY (SELECT {before} AS a FROM range({rows})) TO '{path}'")
    sql = f"FROM '{path}'"
    read(connection, sql)
    read(connection, sql)
    connection._root.cursor().execute(  # noqa: SLF001  # a change that we hear nothing of
        f"COPY (SELECT {after} AS a FROM range({rows})) TO '{path}'"
    )
    expected = read(connection, f"{sql} -- not known")
    assert read(connection, sql) == expected
    assert read(connection, sql) == expected


def test_shapes_are_bounded() -> None:
    shapes = Shapes()
    for number in range(MOST + 1):
        shapes.keep("kind", f"SELECT {number}", number)
    assert shapes.get("kind", "SELECT 0") is None
    assert shapes.get("kind", "SELECT 1") == 1
    shapes.keep("kind", "SELECT 1", 1)  # now SELECT 2 is the oldest
    shapes.keep("kind", "one more", 1)
    assert [shapes.get("kind", f"SELECT {number}") for number in (1, 2, 3)] == [1, None, 3]
    shapes.keep("kind", "x" * (LONGEST + 1), 1)
    assert shapes.get("kind", "x" * (LONGEST + 1)) is None
    shapes.forget("kind", "SELECT 1")
    assert shapes.get("kind", "SELECT 1") is None
    since = shapes.cleared
    shapes.clear()
    assert shapes.get("kind", "SELECT 3") is None
    shapes.keep("kind", "SELECT 3", "of before", since)
    assert shapes.get("kind", "SELECT 3") is None
    shapes.keep("kind", "SELECT 3", "of now", shapes.cleared)
    assert shapes.get("kind", "SELECT 3") == "of now"


# What the engine makes before it is asked for


LARGE = "SELECT range AS n FROM range(200000)"
AS_IT_COMES, LITTLE = "10.0 MiB", "250.0 KiB"


def ahead(connection: Connection) -> object:
    (row,) = connection.execute("SELECT current_setting('streaming_buffer_size')").fetch(2)
    return row[0]


def test_little_of_what_is_known_to_be_large(connection: Connection) -> None:
    first = table(connection, LARGE)
    assert ahead(connection) == AS_IT_COMES
    assert table(connection, LARGE) == first
    assert ahead(connection) == LITTLE
    connection.reset()
    assert ahead(connection) == AS_IT_COMES


def test_as_it_comes_of_what_is_not(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS FROM range(1000)")
    for _ in range(3):
        table(connection, "FROM t")
    assert ahead(connection) == AS_IT_COMES


def test_nor_of_what_no_longer_is(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS FROM range(200000)")
    table(connection, "FROM t")
    connection.execute("DELETE FROM t WHERE range >= 1000")
    table(connection, "FROM t")
    connection.reset()
    table(connection, "FROM t")
    assert ahead(connection) == AS_IT_COMES


def test_of_what_was_small_once_too(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS FROM range(10)")
    for _ in range(2):
        table(connection, "FROM t")
    connection.execute("INSERT INTO t FROM range(200000)")
    for _ in range(2):
        assert table(connection, "FROM t").num_rows == 200_010
    assert ahead(connection) == LITTLE


def test_what_a_session_has_set_stays(connection: Connection) -> None:
    connection.execute("SET streaming_buffer_size = '20MB'")
    for _ in range(3):
        table(connection, LARGE)
    assert ahead(connection) == "19.0 MiB"


def test_where_it_cannot_be_set_nothing_breaks() -> None:
    locked = DRIVER.open({"lock_configuration": "true"})
    for connection in (locked.connect(), locked.connect_read_only()):
        for _ in range(3):
            assert table(connection, LARGE)["n"].to_pylist() == list(range(200_000))
        assert ahead(connection) == AS_IT_COMES
        connection.close()
    locked.close()


@pytest.fixture
def grown(connection: Connection) -> ArrowResult:
    """A result of 200 million rows, of which little is made ahead, as it was large before."""
    connection.execute("CREATE TABLE a AS FROM range(200000); CREATE TABLE b AS SELECT 1 AS n")
    table(connection, "FROM a, b")
    connection.execute("INSERT INTO b FROM range(1000)")
    result = connection.execute_arrow("FROM a, b")
    assert result.fetch()
    return result


def test_who_leaves_one_leaves_the_connection_free(
    connection: Connection, grown: ArrowResult
) -> None:
    grown.close()
    assert ahead(connection) == LITTLE


def test_it_can_be_interrupted(connection: Connection, grown: ArrowResult) -> None:
    with interrupting(connection):
        for _ in range(2):
            with pytest.raises(Cancelled):
                stream_of(grown)
    assert ahead(connection) == LITTLE


def test_rows_larger_than_that_come_whole_and_in_order(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE t AS SELECT range AS n, repeat('x', 4000) AS x FROM range(9000)"
    )
    for _ in range(2):
        rows = table(connection, "FROM t")
        assert rows["n"].to_pylist() == list(range(9000))
        assert {len(x) for x in rows["x"].to_pylist()} == {4000}
    assert ahead(connection) == LITTLE


def batch(connection: Connection, sql: str) -> int:
    """The rows of the largest."""
    stream = pa.ipc.open_stream(stream_of(connection.execute_arrow(sql)))
    return max(map(len, stream))


def test_batches_of_wide_rows_have_fewer(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS SELECT repeat('x', 5000) AS x FROM range(5000)")
    assert batch(connection, "FROM t") == 2048
    assert 64 <= batch(connection, "FROM t") < 2**20 / 5000
    connection.execute("UPDATE t SET x = 'y'")
    batch(connection, "FROM t")
    assert batch(connection, "FROM t") == 2048
    connection.execute("UPDATE t SET x = repeat('x', 50000)")
    batch(connection, "FROM t")
    assert batch(connection, "FROM t") == 64
