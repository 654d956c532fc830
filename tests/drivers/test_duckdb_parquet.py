"""DuckDB's rows in a Parquet file, whatever the client may reach or write."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from notebook_rpc.driver import SupportsParquet
from notebook_rpc.errors import Cancelled, DatabaseError, NotebookError, QueryError
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc_drivers._duckdb_connection import Connection


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    database = DRIVER.open({"threads": "2"})
    connection = database.connect()
    yield connection
    connection.close()
    database.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "rows.parquet")


def rows_in(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def test_it_is_offered(connection: Connection) -> None:
    assert isinstance(connection, SupportsParquet)


def test_rows_are_in_the_file(connection: Connection, path: str) -> None:
    query = "SELECT i, 'x' || i AS s, NULL AS n, i AS i FROM range(3) r(i) WHERE i >= $1"
    written = connection.execute_parquet(query, [1], path)
    assert [column.column for column in written.columns] == ["i", "s", "n", "i_1"]
    assert (written.count, written.rows) == (-1, 2)
    assert rows_in(path) == [
        {"i": 1, "s": "x1", "n": None, "i_1": 1},
        {"i": 2, "s": "x2", "n": None, "i_1": 2},
    ]


def test_types_are_those_of_arrow(connection: Connection, path: str) -> None:
    connection.execute("CREATE TYPE mood AS ENUM ('sad')")
    query = """SELECT 1.50::DECIMAL(9, 2) AS d, 'sad'::mood AS e, {'x': [1]} AS s,
        TIMESTAMP '2026-02-28 01:02:03' AS t, 'a'::BLOB AS b, 'q"' AS "q""n" """
    connection.execute_parquet(query, None, path)
    assert [str(kind) for kind in pq.read_schema(path).types] == [
        *("decimal128(9, 2)", "string", "struct<x: list<element: int32>>"),
        *("timestamp[us]", "binary", "string"),
    ]
    assert pq.read_schema(path).names[-1] == 'q"n'


def test_no_rows_are_a_file_with_columns(connection: Connection, path: str) -> None:
    assert connection.execute_parquet("SELECT 1 AS x WHERE false", None, path).rows == 0
    assert (pq.read_schema(path).names, rows_in(path)) == (["x"], [])


def test_a_statement_without_rows_writes_none(connection: Connection, path: str) -> None:
    connection.execute("CREATE OR REPLACE TABLE t (i INTEGER)")
    done = connection.execute_parquet("INSERT INTO t VALUES (1), (2)", None, path)
    assert (done.columns, done.count) == ([], 2)


def test_what_has_run_is_not_run_again(connection: Connection, path: str) -> None:
    connection.execute("CREATE OR REPLACE TABLE t (i INTEGER)")
    connection.execute_parquet("INSERT INTO t VALUES (1), (2) RETURNING i", None, path)
    assert rows_in(path) == [{"i": 1}, {"i": 2}]
    assert connection.execute("SELECT count(*) FROM t").fetch(2) == [(2,)]


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELEKT", "Parser Error: "),
        ("SELECT error('first')", "Invalid Input Error: first$"),
        (
            "SELECT CASE WHEN i < 900000 THEN 1 ELSE error('late') END FROM range(1000000) r(i)",
            "^Invalid Input Error: late$",
        ),
    ],
)
def test_errors_are_those_of_the_statement(
    connection: Connection, path: str, sql: str, error: str
) -> None:
    with pytest.raises(QueryError, match=error):
        connection.execute_parquet(sql, None, path)
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def test_a_full_disk_is_not_the_statements_fault(connection: Connection) -> None:
    with pytest.raises(DatabaseError, match="No space left on device") as caught:
        connection.execute_parquet("FROM range(1000000)", None, "/dev/full")
    assert not isinstance(caught.value, QueryError)
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def test_who_may_reach_no_file_and_write_nothing_gets_one(tmp_path: Path, path: str) -> None:
    (tmp_path / "own").mkdir()
    driver = DRIVER.within([(tmp_path / "own").resolve()])
    database = driver.open({})
    connection = database.connect_read_only()
    try:
        with pytest.raises(QueryError):
            connection.execute(f"COPY (SELECT 1) TO '{path}'")
        connection.execute_parquet("SELECT 1 AS x", None, path)
        assert rows_in(path) == [{"x": 1}]
    finally:
        connection.close()
        database.close()


@pytest.mark.parametrize(
    "endless",
    [
        "SELECT count(*) FROM range(100000000000) a, range(100000000000) b",
        "FROM range(1000000000000)",
    ],
    ids=["before the first row", "among the rows"],
)
def test_an_interrupt_stops_it(connection: Connection, endless: str) -> None:
    stopped = threading.Event()

    def interrupt() -> None:
        while not stopped.wait(0.01):
            connection.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Cancelled):
            connection.execute_parquet(endless, None, "/dev/null")
    finally:
        stopped.set()
        thread.join()
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def test_no_failure_and_no_interrupt_is_waited_for_in_vain(connection: Connection) -> None:
    """Where other programs use the processors, an engine that gives up in the middle of another's
    stream has waited for ever."""
    late = """SELECT i, CASE WHEN i < 300000 THEN 'abc' ELSE error('late') END
        FROM range(900000) r(i)"""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    said: list[str] = []

    def write() -> None:
        for _ in range(10):
            for sql in (late, "SELECT i, random() FROM range(1000000000) r(i)"):
                try:
                    connection.execute_parquet(sql, None, "/dev/null")
                except NotebookError as exc:
                    said.append(exc.slug)

    writer = threading.Thread(target=write, daemon=True)
    try:
        writer.start()
        for _ in range(1000):
            writer.join(0.02)
            if not writer.is_alive():
                break
            if len(said) % 2:
                connection.interrupt()
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert (len(said), set(said)) == (20, {"query-error", "cancelled"})
