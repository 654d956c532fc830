"""What ``notebook_rpc.driver`` promises, asked of every driver that needs no server."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pytest

from notebook_rpc.driver import Driver, SupportsInterrupt, SupportsText
from notebook_rpc.errors import Cancelled, InvalidParams, NotebookError, QueryError
from notebook_rpc.model import Column, Table
from notebook_rpc.sansio.values import TextRows
from notebook_rpc_drivers import duckdb, fake, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from notebook_rpc.driver import Connection, Database
    from notebook_rpc.model import Parameters, Result

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Dialect:
    """How one driver is told what the tests want, and where it differs."""

    driver: Driver
    rows: str  # {n} rows of one column from 1 to n
    twins: str  # one row of columns a, a
    touch: tuple[str, int]  # a statement without rows and what it counts
    fails: str
    fails_late: str  # gives the first 9999 rows at least
    endless: str
    endless_rows: str  # the first fetch gives rows, a later one does not come back
    by_position: tuple[str, list[object], object]
    by_name: tuple[str, dict[str, object], object]
    view: str
    catalog: str
    schema: str
    temporary_schema: tuple[str, str]


_RECURSIVE = "with recursive r(n) as (select 1 union all select n + 1 from r{limit})"

DIALECTS = {
    "duckdb": Dialect(
        duckdb.DRIVER,
        rows="select range as n from range(1, {n} + 1)",
        twins="select 1 as a, 2 as a",
        touch=("create table touched as select 1 as a from range(3)", 3),
        fails="select nowhere",
        fails_late="select case when range < 2999999 then 1 else error('late') end"
        " from range(3000000)",
        endless="select count(*) from range(1000000000000) where hash(range) % 7 = 9",
        endless_rows="select range from range(3) union all"
        " select range from range(1000000000000) where hash(range) % 7 = 9",
        by_position=("select ? + 1 as n", [41], 42),
        by_name=("select $x || $y as n", {"x": "a", "y": "b"}, "ab"),
        view="create view seen as select 1 as n",
        catalog="memory",
        schema="main",
        temporary_schema=("temp", "main"),
    ),
    "sqlite": Dialect(
        sqlite.DRIVER,
        rows=_RECURSIVE.format(limit=" limit {n}") + " select n from r limit {n}",
        twins="select 1 as a, 2 as a",
        touch=("create table touched(a); insert into touched values (1), (2), (3)", 3),
        fails="select nowhere",
        fails_late=_RECURSIVE.format(limit=" limit 10000")
        + " select case when n < 9999 then 1 else abs(-9223372036854775807 - 1) end from r",
        endless=_RECURSIVE.format(limit="") + " select count(*) from r",
        endless_rows=_RECURSIVE.format(limit="") + " select n from r where n < 4",
        by_position=("select ? + 1 as n", [41], 42),
        by_name=("select :x || :y as n", {"x": "a", "y": "b"}, "ab"),
        view="create view seen as select 1 as n",
        catalog="",
        schema="main",
        temporary_schema=("", "temp"),
    ),
    "fake": Dialect(
        fake.DRIVER,
        rows="rows {n}",
        twins="rows 1 a a",
        touch=("count 3", 3),
        fails="error nowhere",
        fails_late="error after 9999 rows late",
        endless="wait",
        endless_rows="wait after 3 rows",
        by_position=("echo", [42], 42),
        by_name=("echo", {"n": "ab"}, "ab"),
        view="commit",  # it has one
        catalog="fake",
        schema="main",
        temporary_schema=("fake", "main"),
    ),
}


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


@pytest.fixture
def database(dialect: Dialect) -> Iterator[Database]:
    database = dialect.driver.open({})
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    yield connection
    connection.close()


def rows_of(connection: Connection, sql: str, parameters: Parameters | None = None) -> list[object]:
    """All rows of a result of one column."""
    result = connection.execute(sql, parameters)
    rows = [value for (value,) in result.fetch(1_000_000)]
    result.close()
    return rows


def text_of(
    connection: Connection, sql: str, parameters: Parameters | None = None, /
) -> Result[str]:
    """As the services do it."""
    if isinstance(connection, SupportsText):
        return connection.execute_text(sql, parameters)
    return TextRows(connection.execute(sql, parameters))


def interrupting(connection: Connection, call: Callable[[], ResultT]) -> ResultT:
    """Make *call* on a worker thread, and interrupt it until it has stopped."""
    assert isinstance(connection, SupportsInterrupt)
    outcome: list[ResultT | BaseException] = []

    def work() -> None:
        try:
            outcome.append(call())
        except NotebookError as exc:
            outcome.append(exc)

    worker = threading.Thread(target=work)
    worker.start()
    while worker.is_alive():
        connection.interrupt()
        worker.join(0.005)
    (found,) = outcome
    if isinstance(found, BaseException):
        raise found
    return found


def hammering(connection: Connection, call: Callable[[], object]) -> None:
    """Make *call* thirty times, and interrupt the connection all the while."""
    assert isinstance(connection, SupportsInterrupt)
    interrupt, stop = connection.interrupt, threading.Event()

    def work() -> None:
        while not stop.is_set():
            interrupt()

    hammer = threading.Thread(target=work)
    hammer.start()
    try:
        for _ in range(30):
            with suppress(Cancelled):
                call()
    finally:
        stop.set()
        hammer.join()


@pytest.mark.parametrize(("number", "sizes"), [(250, [100, 100, 50, 0, 0]), (200, [100, 100, 0])])
def test_rows_come_in_pages_of_the_size_asked_for(
    connection: Connection, dialect: Dialect, number: int, sizes: list[int]
) -> None:
    result = connection.execute(dialect.rows.format(n=number))
    pages = [result.fetch(100) for _ in sizes]
    assert [len(page) for page in pages] == sizes
    assert [value for page in pages for (value,) in page] == list(range(1, number + 1))
    assert result.count == -1
    assert [column.column for column in result.columns] == ["n"]
    assert not result.streaming


def test_text_comes_in_the_same_pages(connection: Connection, dialect: Dialect) -> None:
    result = text_of(connection, dialect.rows.format(n=25))
    pages = [result.fetch(10) for _ in range(4)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert [json.loads(row) for row in pages[2]] == [{"n": str(n)} for n in range(21, 26)]


def test_names_are_distinct_and_the_same_in_columns_and_rows(
    connection: Connection, dialect: Dialect
) -> None:
    result = text_of(connection, dialect.twins)
    assert [column.column for column in result.columns] == ["a", "a_1"]
    assert result.fetch(2) == ['{"a":"1","a_1":"2"}']


@pytest.mark.parametrize("text", [True, False])
def test_a_statement_without_rows_counts_what_it_touched(
    connection: Connection, dialect: Dialect, text: bool
) -> None:
    sql, count = dialect.touch
    result = text_of(connection, sql) if text else connection.execute(sql)
    assert (list(result.columns), result.count, result.streaming) == ([], count, False)
    assert list(result.fetch(10)) == []


def test_ddl_counts_nothing(connection: Connection) -> None:
    assert connection.execute("create table made (id integer)").count == 0


def test_parameters_by_position(connection: Connection, dialect: Dialect) -> None:
    sql, parameters, expected = dialect.by_position
    assert rows_of(connection, sql, parameters) == [expected]
    (row,) = text_of(connection, sql, parameters).fetch(2)
    assert list(json.loads(row).values()) == [str(expected)]


def test_parameters_by_name(connection: Connection, dialect: Dialect) -> None:
    sql, parameters, expected = dialect.by_name
    assert rows_of(connection, sql, parameters) == [expected]
    (row,) = text_of(connection, sql, parameters).fetch(2)
    assert list(json.loads(row).values()) == [expected]


def test_parameters_belong_to_the_last_statement(connection: Connection, dialect: Dialect) -> None:
    sql, parameters, expected = dialect.by_position
    assert rows_of(connection, f"{dialect.rows.format(n=2)}; {sql}", parameters) == [expected]


@pytest.mark.parametrize("sql", ["", "  \n", ";", " ;; ", "-- a comment", "-- one\n ; -- two"])
def test_no_statement_at_all_is_an_error(connection: Connection, sql: str) -> None:
    with pytest.raises(QueryError, match="no statement"):
        connection.execute(sql)


def test_all_statements_run_and_the_last_one_answers(
    connection: Connection, dialect: Dialect
) -> None:
    sql = f"create table one (id integer); create table two (id integer); {dialect.rows}"
    assert rows_of(connection, sql.format(n=2)) == [1, 2]
    assert {"one", "two"} <= {table.table for table in connection.tables()}


def test_an_error_names_the_statement_of_several(connection: Connection, dialect: Dialect) -> None:
    sql = f"create table one (id integer); {dialect.fails}; create table two (id integer)"
    with pytest.raises(QueryError, match=r"(?s)statement 2 of 3: .*nowhere.*\(after 1 that ran\)"):
        connection.execute(sql)
    tables = {table.table for table in connection.tables()}
    assert "one" in tables
    assert "two" not in tables
    with pytest.raises(QueryError, match=r"(?s)statement 1 of 2: .*nowhere.*\(nothing ran\)"):
        connection.execute(f"{dialect.fails}; {dialect.rows.format(n=1)}")


def test_an_error_leaves_the_connection_usable(connection: Connection, dialect: Dialect) -> None:
    with pytest.raises(QueryError, match="nowhere") as caught:
        connection.execute(dialect.fails)
    assert "statement" not in str(caught.value)
    assert rows_of(connection, dialect.rows.format(n=2)) == [1, 2]


def test_a_result_that_failed_does_not_look_like_one_that_ended(
    connection: Connection, dialect: Dialect
) -> None:
    result = connection.execute(dialect.fails_late)
    with pytest.raises(QueryError):
        list(iter(lambda: result.fetch(500), []))
    with pytest.raises(QueryError):
        result.fetch(500)
    result.close()
    assert rows_of(connection, dialect.rows.format(n=2)) == [1, 2]


def test_the_next_statement_closes_the_result(connection: Connection, dialect: Dialect) -> None:
    first = connection.execute(dialect.rows.format(n=100_000))
    assert first.fetch(1)
    second = connection.execute(dialect.rows.format(n=3))
    with pytest.raises(QueryError, match="closed"):
        first.fetch(1)
    first.close()
    first.close()
    assert [value for (value,) in second.fetch(5)] == [1, 2, 3]


def test_half_a_surrogate_pair_in_the_statement_is_an_error(
    connection: Connection, dialect: Dialect
) -> None:
    with pytest.raises(QueryError):
        connection.execute(f"{dialect.fails} '\ud800'")
    assert rows_of(connection, dialect.rows.format(n=1)) == [1]


def test_half_a_surrogate_pair_in_a_parameter_is_an_error(
    connection: Connection, dialect: Dialect
) -> None:
    sql = dialect.by_position[0].replace(" + 1", "")
    with pytest.raises(QueryError):
        text_of(connection, sql, ["\ud800"]).fetch(1)
    assert rows_of(connection, dialect.rows.format(n=1)) == [1]


def test_the_catalog_has_tables_views_and_columns(connection: Connection, dialect: Dialect) -> None:
    at = (dialect.catalog, dialect.schema)
    connection.execute("create table made (id INTEGER, b VARCHAR)")
    connection.execute(dialect.view)
    tables, views = connection.tables(), connection.views()
    assert Table(*at, "made") in tables
    assert list(tables) == sorted(tables)
    assert list(views) == sorted(views)
    assert not set(tables) & set(views)
    view = views[0].table
    assert {column.table for column in connection.columns("", "", "")} >= {"made", view}
    assert list(connection.columns(*at, "made")) == [
        Column(*at, "made", "id", "INTEGER"),
        Column(*at, "made", "b", "VARCHAR"),
    ]
    assert {column.table for column in connection.columns(*at, view)} == {view}
    assert list(connection.columns(*at, "no' such\"")) == []
    assert list(connection.columns("no", "", "")) == []


def test_the_catalog_leaves_an_open_result_alone_and_sees_what_only_the_session_sees(
    connection: Connection, dialect: Dialect
) -> None:
    at, temporary = (dialect.catalog, dialect.schema), dialect.temporary_schema
    connection.execute("create table before (id integer)")
    connection.execute("create temp table passing (id integer)")
    connection.execute("begin")
    connection.execute("create table uncommitted (id integer)")
    for execute in (connection.execute, lambda sql: text_of(connection, sql)):
        result = execute(dialect.rows.format(n=100_000))
        assert len(result.fetch(10)) == 10
        assert result.streaming
        mine = {Table(*at, "before"), Table(*at, "uncommitted"), Table(*temporary, "passing")}
        assert mine <= set(connection.tables())
        assert connection.columns("", "", "passing")
        assert connection.columns("", "", "uncommitted")
        connection.views()
        assert sum(len(page) for page in iter(lambda: result.fetch(10_000), [])) == 99_990  # noqa: B023
    connection.rollback()


def test_a_rolled_back_table_is_gone_from_the_catalog_also_while_a_result_is_open(
    connection: Connection, dialect: Dialect
) -> None:
    connection.execute("begin; create table made (id integer)")
    assert connection.execute(dialect.rows.format(n=100_000)).fetch(1)
    assert "made" in {table.table for table in connection.tables()}
    connection.execute("rollback")
    assert connection.execute(dialect.rows.format(n=100_000)).fetch(1)
    assert "made" not in {table.table for table in connection.tables()}


def test_rollback_undoes_closes_and_may_come_again(
    connection: Connection, dialect: Dialect
) -> None:
    assert connection.rollback() is False
    connection.execute("begin; create table made (id integer)")
    result = connection.execute(dialect.rows.format(n=100_000))
    assert result.fetch(1)
    assert connection.rollback() is True
    with pytest.raises(QueryError, match="closed"):
        result.fetch(1)
    assert "made" not in {table.table for table in connection.tables()}
    connection.execute("begin; create table made (id integer); commit")
    assert connection.rollback() is False
    assert "made" in {table.table for table in connection.tables()}


def test_closing_a_connection_rolls_back(database: Database, dialect: Dialect) -> None:
    first, second = database.connect(), database.connect()
    first.execute("begin; create table made (id integer)")
    assert first.execute(dialect.rows.format(n=100_000)).fetch(1)
    first.close()
    assert "made" not in {table.table for table in second.tables()}
    second.close()


def test_what_is_committed_is_everybodys(database: Database) -> None:
    first, second = database.connect(), database.connect()
    first.execute("create table made (id integer)")
    first.execute("create temp table mine (id integer)")
    seen = {table.table for table in second.tables()}
    assert "made" in seen
    assert "mine" not in seen
    first.close()
    second.close()


def test_an_interrupt_stops_the_running_statement(connection: Connection, dialect: Dialect) -> None:
    with pytest.raises(Cancelled):
        interrupting(connection, lambda: text_of(connection, dialect.endless).fetch(1))
    assert rows_of(connection, dialect.rows.format(n=2)) == [1, 2]


def test_an_interrupt_stops_a_fetch(connection: Connection, dialect: Dialect) -> None:
    result = connection.execute(dialect.endless_rows)
    with pytest.raises(Cancelled):
        interrupting(connection, lambda: [result.fetch(2) for _ in range(3)])
    with pytest.raises(Cancelled):
        result.fetch(2)
    assert rows_of(connection, dialect.rows.format(n=2)) == [1, 2]


def test_an_interrupted_catalog_call_leaves_a_transaction_alone(
    database: Database, connection: Connection
) -> None:
    connection.execute("begin; create table made (id integer)")
    hammering(connection, connection.tables)
    hammering(connection, lambda: connection.columns("", "", ""))
    connection.execute("commit")
    other = database.connect()
    assert "made" in {table.table for table in other.tables()}
    other.close()


def test_an_interrupted_catalog_call_leaves_an_open_result_alone(
    connection: Connection, dialect: Dialect
) -> None:
    for execute in (connection.execute, lambda sql: text_of(connection, sql)):
        result = execute(dialect.rows.format(n=100_000))
        assert len(result.fetch(10)) == 10
        hammering(connection, connection.tables)
        hammering(connection, lambda: connection.columns("", "", ""))
        assert sum(len(page) for page in iter(lambda: result.fetch(10_000), [])) == 99_990  # noqa: B023


def test_an_interrupt_without_a_call_does_nothing(connection: Connection, dialect: Dialect) -> None:
    assert isinstance(connection, SupportsInterrupt)
    connection.interrupt()
    result = text_of(connection, dialect.rows.format(n=100_000))
    assert len(result.fetch(1)) == 1
    connection.interrupt()
    assert sum(len(page) for page in iter(lambda: result.fetch(10_000), [])) == 99_999


def test_an_interrupt_after_the_end_does_nothing(database: Database) -> None:
    connection = database.connect()
    connection.close()
    assert isinstance(connection, SupportsInterrupt)
    connection.interrupt()


def test_an_unknown_property_is_named(dialect: Dialect) -> None:
    with pytest.raises(InvalidParams, match="property colour"):
        dialect.driver.open({"colour": "red"})


def test_the_description_is_for_people(database: Database) -> None:
    assert database.description
