"""A part of a DuckDB query's rows, and the number of all, of one state of the database."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from notebook_rpc.driver import SupportsPages
from notebook_rpc.errors import Cancelled, QueryError
from notebook_rpc.model import Transaction
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers._duckdb_page import Page


@pytest.fixture
def connections() -> Iterator[tuple[Connection, Connection]]:
    database = DRIVER.open({"threads": "2"})
    first, other = database.connect(), database.connect()
    other.execute("CREATE TABLE t AS SELECT i, i % 3 AS three FROM range(100) r(i)")
    yield first, other
    for each in (first, other):
        each.close()
    database.close()


@pytest.fixture
def connection(connections: tuple[Connection, Connection]) -> Connection:
    assert isinstance(connections[0], SupportsPages)
    return connections[0]


def page_of(
    connection: Connection, sql: str, offset: int, limit: int | None, *parameters: object
) -> Page:
    page = connection.execute_page(sql, list(parameters) or None, offset, limit)
    assert page is not None
    return page


def numbers(page: Page) -> list[str]:
    rows: list[str] = []
    while more := page.fetch(7):
        rows += more
    return rows


@pytest.mark.parametrize(
    ("offset", "limit", "rows", "total"),
    [
        (0, 3, ["[99]", "[98]", "[97]"], 100),
        (98, 3, ["[1]", "[0]"], 100),
        (97, 3, ["[2]", "[1]", "[0]"], 100),
        (100, 3, [], 100),
        (10**18, 3, [], 100),
        (5, 0, [], 100),
        (98, None, ["[1]", "[0]"], 100),
    ],
)
def test_a_page_in_order(
    connection: Connection, offset: int, limit: int | None, rows: list[str], total: int
) -> None:
    page = page_of(connection, "SELECT i FROM t ORDER BY i DESC; -- all", offset, limit)
    assert [column.column for column in page.columns] == ["i"]
    assert numbers(page) == rows
    assert page.total() == total
    page.close()
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def test_no_rows_at_all(connection: Connection) -> None:
    page = page_of(connection, "SELECT i FROM t WHERE false", 0, 5)
    assert (numbers(page), page.total()) == ([], 0)


def test_parameters(connection: Connection) -> None:
    page = page_of(connection, "SELECT i FROM t WHERE three = $1 ORDER BY i", 1, 2, 2)
    assert (numbers(page), page.total()) == (["[5]", "[8]"], 33)


def test_rows_and_number_are_of_one_state(connections: tuple[Connection, Connection]) -> None:
    connection, other = connections
    page = page_of(connection, "SELECT i FROM t ORDER BY i", 0, 2)
    assert numbers(page) == ["[0]", "[1]"]
    other.execute("DELETE FROM t WHERE i > 9")
    assert page.total() == 100
    page.close()
    assert connection.execute("SELECT count(*) FROM t").fetch(2) == [(10,)]


def test_a_page_that_is_not_full_is_not_counted(
    connections: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, _ = connections
    monkeypatch.setattr(connection, "ask_in_snapshot", None)  # nobody may call it
    page = page_of(connection, "SELECT i FROM t ORDER BY i", 90, 20)
    assert (len(numbers(page)), page.total()) == (10, 100)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nextval('s')",
        "SELECT random()",
        "INSERT INTO t VALUES (1, 1) RETURNING i",
        "SELECT 1; SELECT 2",
        "SELEKT",
        "SELECT nope FROM t",
        "CREATE TABLE u (i INTEGER)",
        "FROM t LIMIT 'x'",
    ],
)
def test_what_cannot_run_twice_is_not_run(connection: Connection, sql: str) -> None:
    connection.execute("CREATE SEQUENCE s")
    connection.reset()
    assert connection.execute_page(sql, None, 0, 1) is None
    assert connection.transaction is Transaction.NONE
    assert connection.execute("SELECT count(*) FROM t").fetch(2) == [(100,)]
    assert connection.execute("SELECT nextval('s')").fetch(2) == [(1,)]


def test_an_open_transaction_is_left_alone(connection: Connection) -> None:
    connection.execute("BEGIN; INSERT INTO t VALUES (1, 1)")
    assert connection.execute_page("SELECT i FROM t", None, 0, 1) is None
    assert connection.execute("SELECT count(*) FROM t").fetch(2) == [(101,)]
    assert connection.rollback()


@pytest.mark.parametrize("how", ["close", "execute", "reset", "rollback"])
def test_its_transaction_ends_with_it(connections: tuple[Connection, Connection], how: str) -> None:
    connection, other = connections
    page = page_of(connection, "FROM range(100000)", 0, 90_000)
    page.fetch(1)
    assert page.streaming
    match how:
        case "close":
            page.close()
            page.close()
        case "execute":
            connection.execute("SELECT 1")
        case "reset":
            connection.reset()
        case "rollback":
            assert not connection.rollback()
    other.execute("DELETE FROM t WHERE i > 9")
    assert connection.execute("SELECT count(*) FROM t").fetch(2) == [(10,)]
    with pytest.raises(QueryError, match="closed"):
        page.fetch(1)


@pytest.mark.parametrize("how", ["rows", "number"])
def test_an_interrupt_leaves_a_connection_that_works(connection: Connection, how: str) -> None:
    endless = "SELECT a.i FROM t a, range(1000000000000) b"
    page = None
    if how == "rows":
        endless += " ORDER BY b.range"
    else:
        page = page_of(connection, endless, 0, 1)
        assert numbers(page) == ["[0]"]
    stopped = threading.Event()

    def interrupt() -> None:
        while not stopped.wait(0.01):
            connection.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    begin = partial(connection.execute_page, endless, None, 1, 1)
    try:
        with pytest.raises(Cancelled):
            (begin if page is None else page.total)()
    finally:
        stopped.set()
        thread.join()
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM t").fetch(2) == [(100,)]


def test_sql_for_a_part(connection: Connection, tmp_path: Path) -> None:
    assert connection.part("SELECT i FROM t ORDER BY i;", 1, 2) == (
        "FROM (SELECT i FROM t ORDER BY i\n) LIMIT 2 OFFSET 1"
    )
    file = tmp_path / "a.csv"
    file.write_text("1\n2\n3\n")
    part = connection.part(f"FROM '{file}' -- a file", 2, None)
    assert part is not None
    assert connection.execute(part).fetch(9) == [(3,)]
    assert connection.part("SELECT random()", 1, 2) is None
    assert connection.part("SELEKT", 1, 2) is None
