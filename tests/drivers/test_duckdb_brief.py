"""Which queries of DuckDB's are over at once, and may be run on the event loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from notebook_rpc_drivers import _duckdb_shapes
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc.model import Stability
    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers.duckdb import Database

SQL = "SELECT a FROM t"
WORTH = 3


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """One where it takes but a few runs until a query is worth a proof."""
    monkeypatch.setattr(_duckdb_shapes, "WORTH", WORTH)
    database = DRIVER.open({})
    yield database
    database.close()


@pytest.fixture
def one(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    connection.execute("CREATE TABLE t AS SELECT 42 AS a")
    connection.reset()
    yield connection
    connection.close()


@pytest.fixture
def other(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    connection.reset()
    yield connection
    connection.close()


def run(connection: Connection, sql: str = SQL) -> Any:
    """As a client of the pool does, who takes rows as JSON."""
    connection.reset()
    result = connection.execute_json(sql)
    return result.fetch(1000)


def prove(connection: Connection, sql: str = SQL) -> None:
    for _ in range(WORTH + 1):
        run(connection, sql)


def test_a_query_is_brief_when_it_has_proven_itself(one: Connection, other: Connection) -> None:
    for _ in range(WORTH):
        run(one)
        assert not one.brief(SQL)
    run(one)  # the first is bound, and the third of the others is worth it
    assert one.brief(SQL)
    assert other.brief(SQL)
    assert run(one) == ['{"a":42}']
    assert one.brief(SQL)


def test_the_proof_is_of_a_query_in_any_form(
    one: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask for another takes too long for the event loop."""
    prove(one)
    monkeypatch.setattr(one, "stability", None)
    for _ in range(2 * WORTH):
        one.reset()
        arrow = one.execute_arrow(SQL)
        while arrow.fetch():
            continue
        one.execute_json(SQL, arrays=True).fetch(1000)
        assert one.brief(SQL)


def test_a_proof_that_was_overtaken_by_a_change_of_the_schema_is_none(
    one: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stability = one.stability

    def overtaken(sql: str) -> Stability:
        found = stability(sql)
        one.shapes.clear()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(one, "stability", overtaken)
        prove(one)
        assert not one.brief(SQL)
    prove(one)
    assert one.brief(SQL)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT random() AS a",
        "SELECT nextval('s') AS a",
        "SELECT now() AS a",
        "FROM '{folder}/some.csv'",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (1) RETURNING a",
        "SET threads = 1",
        "SELECT 1; SELECT 2",
        "FROM range(100000)",
    ],
)
def test_nothing_is_brief_that_does_not_come_from_the_database_alone_or_is_not_small(
    one: Connection, tmp_path: Path, sql: str
) -> None:
    (tmp_path / "some.csv").write_text("a\n1\n")
    one.execute("CREATE SEQUENCE s")
    sql = sql.format(folder=tmp_path)
    for _ in range(4 * WORTH):
        run(one, sql)
        assert not one.brief(sql)
    one.reset()
    assert not one.brief(sql)


@pytest.mark.parametrize(
    "sql", ["BEGIN", "CREATE TEMP TABLE u AS SELECT 1", "SET TimeZone = 'UTC'"]
)
def test_nothing_is_on_a_connection_where_something_may_be_left(
    one: Connection, other: Connection, sql: str
) -> None:
    """There the same words may mean another query."""
    prove(one)
    assert other.brief(SQL)
    other.execute_json(sql).close()
    assert not other.brief(SQL)
    other.rollback()
    other.reset()
    prove(other)  # SET has made all of it forgotten
    assert other.brief(SQL)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT length(repeat('x', a)) AS n FROM t",
        "SELECT m(a) AS n FROM t",
        "SELECT count(DISTINCT range(a)) AS n FROM t",
    ],
)
def test_nothing_is_that_no_interrupt_may_reach(one: Connection, sql: str) -> None:
    """One row could hold the event loop for seconds."""
    one.execute("CREATE MACRO m(x) AS length(repeat('x', x))")
    for _ in range(4 * WORTH):
        run(one, sql)
        assert not one.brief(sql)
    one.reset()
    assert one.harmless(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n, sum(a * 2) AS s, min(upper(a::VARCHAR)) AS m FROM t WHERE a % 7 < 9",
        "SELECT 42",
        "SELECT sum(range) AS s FROM range(7)",
        "SELECT sum(n) AS s FROM generate_series(7) AS g(n)",
    ],
)
def test_ordinary_ones_are(one: Connection, sql: str) -> None:
    prove(one, sql)
    assert one.brief(sql)


def test_nothing_is_while_a_result_has_the_connection(one: Connection) -> None:
    prove(one)
    result = one.execute_json("FROM range(100000)")
    result.fetch(1)
    assert not one.brief(SQL)
    result.close()
    one.reset()
    assert one.brief(SQL)


def test_nothing_is_after_an_interrupt_that_may_have_come_too_late(
    one: Connection, other: Connection
) -> None:
    prove(one)
    with other.calling():
        other.interrupt()
    assert not other.brief(SQL)
    assert one.brief(SQL)
    other.reset()
    assert other.brief(SQL)


@pytest.mark.parametrize(
    "sql",
    ["ALTER TABLE t ADD COLUMN b INTEGER", "CREATE OR REPLACE VIEW t2 AS SELECT 1", "DROP TABLE t"],
)
def test_nothing_is_whose_words_may_have_come_to_mean_another(
    one: Connection, other: Connection, sql: str
) -> None:
    prove(one)
    other.execute(sql)
    assert not one.brief(SQL)


def test_one_that_takes_long_holds_up_nobody_all_the_same(
    one: Connection, other: Connection
) -> None:
    assert not one.harmless(SQL)
    prove(one)
    assert one.harmless(SQL)
    one.took(SQL, math.inf)
    assert one.harmless(SQL)
    assert not one.brief(SQL)
    other.execute("BEGIN")
    assert not other.harmless(SQL)  # where its words may see what others do not


def pause(connection: Connection) -> int:
    """How often it is asked in vain before it is brief again."""
    return next(number for number in range(1000) if connection.brief(SQL))


def test_one_that_takes_long_is_not_brief_for_a_while_and_then_for_twice_as_long(
    one: Connection,
) -> None:
    prove(one)
    pauses = []
    for _ in range(4):
        one.took(SQL, math.inf)
        pauses.append(pause(one))
    first = WORTH - 1
    assert pauses == [first, 2 * WORTH - 1, 4 * WORTH - 1, 8 * WORTH - 1]
    for _ in range(9 * WORTH):
        one.took(SQL, 0.0003)  # and makes up for some of it
    one.took(SQL, math.inf)
    assert pause(one) == 7 * WORTH - 1
    for _ in range(100 * WORTH):
        one.took(SQL, 0.0003)
    one.took(SQL, math.inf)
    assert pause(one) == first


def test_once_or_twice_may_be_the_machines_fault(one: Connection) -> None:
    prove(one)
    for _ in range(100):
        one.took(SQL, 0.0003)
    for _ in range(4):
        one.took(SQL, 0.004)
        assert one.brief(SQL)
    for _ in range(20):
        one.took(SQL, 0.004)
    assert not one.brief(SQL)


def test_how_long_it_took_is_of_no_query_that_is_not_known(one: Connection) -> None:
    one.took("SELECT 1", math.inf)
    assert not one.brief("SELECT 1")
