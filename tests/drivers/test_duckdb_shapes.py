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

from notebook_rpc.errors import QueryError
from notebook_rpc.model import END_OF_STREAM, Table
from notebook_rpc_drivers import _duckdb_few_rows
from notebook_rpc_drivers._duckdb_shapes import LONGEST, MOST, Shapes
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_shapes_are_bounded() -> None:
    shapes = Shapes()
    for number in range(MOST + 1):
        shapes.keep("kind", f"SELECT {number}", number)
    assert shapes.get("kind", "SELECT 0") is None
    assert shapes.get("kind", "SELECT 1") == 1
    shapes.keep("kind", "x" * (LONGEST + 1), 1)
    assert shapes.get("kind", "x" * (LONGEST + 1)) is None
    shapes.forget("kind", "SELECT 1")
    assert shapes.get("kind", "SELECT 1") is None
    shapes.clear()
    assert shapes.get("kind", "SELECT 2") is None
