"""The language of the fake, and what tests can do with it beyond the language."""

from __future__ import annotations

import json
import threading

import pytest

from notebook_rpc.errors import (
    Cancelled,
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    QueryError,
    UnknownTable,
)
from notebook_rpc.model import Column, Table
from notebook_rpc.sansio.values import TextRows
from notebook_rpc.schema import ColumnFacts
from notebook_rpc_drivers.fake import DRIVER, FakeConnection, FakeDatabase, Gate


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture
def connection(database: FakeDatabase) -> FakeConnection:
    return database.connect()


def objects(connection: FakeConnection, sql: str) -> list[dict[str, str | None]]:
    return [json.loads(row) for row in TextRows(connection.execute(sql)).fetch(1000)]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("rows 2", [{"n": "1"}, {"n": "2"}]),
        ("ROWS 2 A b", [{"A": "1", "b": "2"}, {"A": "2", "b": "3"}]),
        ("rows 1 a a", [{"a": "1", "a_1": "2"}]),
        ("rows 0", []),
        ("columns 3", [{"c1": "1", "c2": "2", "c3": "3"}]),
        ("empty 2", [{}, {}]),
        ("big 5", [{"big": "xxxxx"}]),
        (
            "select name, id from users",
            [{"name": "Ada", "id": "1"}, {"name": 'O"Neil\\', "id": "2"}],
        ),
        ("select * from paid", [{"id": "1", "amount": "19.90"}, {"id": "2", "amount": "5.00"}]),
    ],
)
def test_rows(connection: FakeConnection, sql: str, rows: list[dict[str, str]]) -> None:
    assert objects(connection, sql) == rows


def test_a_value_of_every_type(connection: FakeConnection) -> None:
    (row,) = objects(connection, "types")
    assert row == {
        "nothing": None,
        "bool": "true",
        "int": str(2**70),
        "float": "-Infinity",
        "decimal": "0.10",
        "text": 'a\u00e9\U0001f986\n"\\',
        "bytes": "\\x006162",
        "date": "2026-02-28",
        "time": "23:59:58.000005",
        "timestamp": "2026-02-28T01:02:03+00:00",
        "interval": "P1DT1.5S",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "nested": '[1,0.10,{"a":null}]',
    }


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("error No Such Thing", "^No Such Thing$"),
        ("selec 1", "not understood: selec 1"),
        ("rows many", "not understood"),
        ("select nowhere from users", "users has no column nowhere"),
        ("select * from nowhere", "not understood"),
    ],
)
def test_errors(connection: FakeConnection, sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        connection.execute(sql)


def test_an_error_after_rows_comes_after_all_of_them(connection: FakeConnection) -> None:
    result = connection.execute("error after 3 rows Too Late")
    assert result.fetch(100) == [(1,), (2,), (3,)]
    for _ in range(2):
        with pytest.raises(QueryError, match=r"^Too Late$"):
            result.fetch(100)


def test_a_result_may_fail_to_close(connection: FakeConnection) -> None:
    result = connection.execute("error on close Stuck")
    assert result.fetch(2) == [(1,)]
    with pytest.raises(QueryError, match=r"^Stuck$"):
        result.close()
    result.close()
    assert connection.execute("rows 1").fetch(2) == [(1,)]


@pytest.mark.parametrize(("sql", "times"), [("wait", 1), ("wait 3", 3)])
def test_a_wait_takes_as_many_interrupts_as_it_says(
    database: FakeDatabase, connection: FakeConnection, sql: str, times: int
) -> None:
    connection.interrupt()  # too early, and lost
    stopped: list[NotebookError] = []

    def work() -> None:
        with pytest.raises(Cancelled) as caught:
            connection.execute(sql)
        stopped.append(caught.value)

    worker = threading.Thread(target=work)
    worker.start()
    database.waiting.wait()
    for _ in range(times):
        worker.join(0.01)
        assert worker.is_alive()
        connection.interrupt()
    worker.join()
    assert len(stopped) == 1
    assert connection.interrupts == times + 1


def test_a_close_may_wait(database: FakeDatabase, connection: FakeConnection) -> None:
    result = connection.execute("wait on close")

    def close() -> None:
        with pytest.raises(Cancelled):
            result.close()

    closer = threading.Thread(target=close)
    closer.start()
    database.waiting.wait()
    connection.interrupt()
    closer.join()
    assert connection.calls[-1] == "finish"


def test_a_script_replaces_statements() -> None:
    unreachable = DatabaseUnavailable("gone")
    connection = FakeDatabase({"select 1": "rows 1 one", "select 2": unreachable}).connect()
    assert objects(connection, "select 1") == [{"one": "1"}]
    with pytest.raises(DatabaseUnavailable, match="gone"):
        connection.execute("select 2")


def test_calls_are_recorded(database: FakeDatabase, connection: FakeConnection) -> None:
    connection.execute("rows 3", [1]).fetch(2)
    connection.columns("", "main", "users")
    connection.rollback()
    connection.close()
    assert connection.calls == [
        "execute rows 3",
        "fetch 2",
        "columns  main users",
        "rollback",
        "finish",
        "close",
    ]
    assert connection.closed
    assert database.connections == [connection]


@pytest.mark.parametrize("call", ["execute", "fetch", "finish", "close"])
def test_a_gate_holds_a_call_until_it_is_opened(call: str) -> None:
    gate = Gate()
    database = FakeDatabase(gates={call: gate})
    connection = database.connect()
    done = threading.Event()

    def work() -> None:
        connection.execute("rows 1").fetch(1)
        connection.close()
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    gate.reached.wait()
    assert connection.calls[-1].split()[0] == call
    assert not done.is_set()
    gate.opened.set()
    worker.join()
    assert done.is_set()


def test_any_call_can_fail(database: FakeDatabase, connection: FakeConnection) -> None:
    calls = {
        "connect": database.connect,
        "execute": lambda: connection.execute("rows 1"),
        "tables": connection.tables,
        "views": connection.views,
        "columns": lambda: connection.columns("", "", ""),
        "rollback": connection.rollback,
        "close": connection.close,
        "database.close": database.close,
    }
    for name, call in calls.items():
        database.failures = {name: DatabaseUnavailable(f"no {name}")}
        with pytest.raises(DatabaseUnavailable, match=f"^no {name}$"):
            call()
    assert not database.closed


def test_the_catalog(connection: FakeConnection) -> None:
    assert connection.tables() == [Table("fake", "main", "orders"), Table("fake", "main", "users")]
    assert connection.views() == [Table("fake", "main", "paid")]
    assert connection.columns("", "", "paid") == [
        Column("fake", "main", "paid", "id", "INTEGER"),
        Column("fake", "main", "paid", "amount", "DECIMAL"),
    ]


def test_tables_have_a_structure(connection: FakeConnection) -> None:
    facts = connection.describe(Table("", "", "ORDERS"))
    assert facts.table == Table("fake", "main", "orders")
    assert facts.columns == [
        ColumnFacts("id", "INTEGER", nullable=False),
        ColumnFacts("customer", "INTEGER"),
        ColumnFacts("amount", "DECIMAL"),
    ]
    users = Table("fake", "main", "users")
    assert [(each.kind.value, each.columns) for each in facts.constraints] == [
        ("primary key", ("id",)),
        ("foreign key", ("customer",)),
        ("check", ("amount",)),
    ]
    assert facts.constraints[1].references == users
    assert facts.create_stmt == "create table orders (id INTEGER, customer INTEGER, amount DECIMAL)"
    assert connection.describe(Table("fake", "main", "paid")).is_view
    assert connection.written(users) == "fake.main.users"
    for place in [("", "", "nothing"), ("", "other", "users"), ("other", "", "users")]:
        with pytest.raises(UnknownTable):
            connection.describe(Table(*place))


def test_rows_can_be_counted(connection: FakeConnection) -> None:
    connection.execute("create table none (a int)")
    for name, rows in (("fake.main.orders", "3"), ("users", "2"), ("none", "0")):
        assert objects(connection, f"select count(*) from {name}") == [{"count": rows}]
    with pytest.raises(QueryError):
        connection.execute("select count(*) from nothing")


def test_it_touches_the_tables_it_is_told(
    database: FakeDatabase, connection: FakeConnection
) -> None:
    database.touched = {"rows 1": frozenset("r"), "count 1": frozenset("w")}
    assert connection.reads("rows 1") == frozenset("r")
    assert connection.reads("rows 2") is None
    for sql, written in [
        *(("rows 1", frozenset()), ("count 1", frozenset("w")), ("count 2", None)),
        *(("begin", frozenset()), ("create table t (a integer)", frozenset()), ("commit", None)),
        *(("begin; create table u (a integer); rollback", frozenset()), ("commit", frozenset())),
    ]:
        connection.execute(sql)
        assert connection.take_written() == written, sql


def test_the_driver_is_told_what_shall_fail() -> None:
    database = DRIVER.open({"fail": "connect,database.close"})
    with pytest.raises(DatabaseUnavailable, match="connect fails"):
        database.connect()
    with pytest.raises(DatabaseUnavailable, match=r"database\.close fails"):
        database.close()
    with pytest.raises(InvalidParams, match="property colour"):
        DRIVER.open({"colour": "red"})
