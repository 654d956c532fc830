"""Any module of PEP 249: a made-up one, of which nothing is known, and the well-known.

What every driver must do is checked by the conformance suite, over six modules; here is what the
modules differ in.
"""

from __future__ import annotations

import sqlite3
import struct
import sys
import threading
import time
from contextlib import closing
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from notebook_rpc.driver import SupportsInterrupt
from notebook_rpc.errors import (
    Cancelled,
    DatabaseError,
    DatabaseUnavailable,
    InvalidParams,
    NotSupported,
    QueryError,
)
from notebook_rpc.model import Column, ResultColumn, Table, Transaction
from notebook_rpc.sansio.sqltext import statements
from notebook_rpc_drivers._dbapi_facts import FACTS, Facts
from notebook_rpc_drivers._dbapi_open import arguments, secrets_of
from notebook_rpc_drivers.dbapi import DRIVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Parameters
    from tests.servers import MariaDB, Postgres

NONE, OPEN, FAILED = Transaction


def rows_of(connection: Connection, sql: str, parameters: Parameters | None = None) -> list[Any]:
    result = connection.execute(sql, parameters)
    rows = [tuple(row) for row in result.fetch(100_000)]
    result.close()
    return rows


# A module that nobody knows.


class Toy(ModuleType):
    """A module of PEP 249 over SQLite, strictly by its letter: no autocommit, no extensions.

    ``log`` is what it was asked to do. ``on_execute`` may be replaced, to fail.
    """

    apilevel, threadsafety, paramstyle = "2.0", 1, "format"

    class Error(Exception): ...

    class InterfaceError(Error): ...

    class DatabaseError(Error): ...

    class OperationalError(DatabaseError): ...

    class NotSupportedError(DatabaseError): ...

    NUMBER, STRING = 1, 3

    def __init__(self, path: Path) -> None:
        super().__init__("toy")
        self.path = path
        self.log: list[str] = []
        self.given: dict[str, object] = {}
        self.extras: dict[str, Any] = {}
        self.on_execute: Callable[[str], None] = lambda _: None
        self.on_commit: Callable[[], None] = lambda: None
        self.on_rollback: Callable[[], None] = lambda: None

    def connect(self, user: str = "", port: int = 5, verbose: bool = False, **others: Any) -> Any:
        self.given = {"user": user, "port": port, "verbose": verbose, **others}
        connection = ToyConnection(self)
        for name, value in self.extras.items():
            setattr(connection, name, value)
        return connection


class ToyConnection:
    def __init__(self, module: Toy) -> None:
        self.module = module
        self.db = sqlite3.connect(module.path, isolation_level=None, check_same_thread=False)

    def cursor(self) -> ToyCursor:
        return ToyCursor(self)

    def commit(self) -> None:
        self.module.log.append("commit")
        self.module.on_commit()
        if self.db.in_transaction:
            self.db.execute("commit")

    def rollback(self) -> None:
        self.module.log.append("rollback")
        self.module.on_rollback()
        if self.db.in_transaction:
            self.db.execute("rollback")

    def close(self) -> None:
        self.db.close()


class ToyCursor:
    def __init__(self, connection: ToyConnection) -> None:
        self.connection, self.inner = connection, connection.db.cursor()
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1

    def execute(self, sql: str, parameters: tuple[object, ...] | list[object] = ()) -> None:
        module, db = self.connection.module, self.connection.db
        module.log.append(sql)
        module.on_execute(sql)
        if not db.in_transaction and not getattr(self.connection, "autocommit", False):
            db.execute("begin")
        try:
            self.inner.execute(sql.replace("%s", "?").replace("%%", "%"), tuple(parameters))
        except sqlite3.Error as exc:
            raise module.OperationalError(str(exc)) from exc
        codes = iter([1, 3, int, None])
        found = self.inner.description
        self.description = [(row[0], next(codes), *row[2:]) for row in found] if found else None
        self.rowcount = self.inner.rowcount

    def fetchmany(self, size: int) -> list[Any]:
        return self.inner.fetchmany(size)

    def close(self) -> None:
        self.connection.module.log.append("close")
        self.inner.close()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Toy:
    module = Toy(tmp_path / "toy")
    monkeypatch.setitem(sys.modules, "toy", module)
    return module


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """Opens databases, and closes them and their connections at the end."""
    ends: list[Callable[[], None]] = []

    def open_(module: str, **properties: str) -> Any:
        database = DRIVER.open({"module": module, **properties})
        ends.append(database.close)
        connection = database.connect()
        ends.append(connection.close)
        return connection

    yield open_
    for end in reversed(ends):
        end()


def test_without_autocommit_every_statement_is_committed(
    toy: Toy, opened: Callable[..., Connection]
) -> None:
    connection = opened("toy")
    connection.execute("create table t (id integer)")
    assert connection.execute("insert into t values (1), (2)").count == 2
    assert toy.log == [
        *("create table t (id integer)", "close", "commit"),
        *("insert into t values (1), (2)", "close", "commit"),
    ]
    with closing(sqlite3.connect(toy.path)) as other:
        assert other.execute("select count(*) from t").fetchone() == (2,)


def test_a_commit_waits_for_the_end_of_an_open_result(
    toy: Toy, opened: Callable[..., Connection]
) -> None:
    connection = opened("toy")
    result = connection.execute("select 1 union all select 2")
    assert result.fetch(1) == [(1,)]
    assert "commit" not in toy.log
    assert result.fetch(2) == [(2,)]
    assert toy.log[-1] == "commit"
    connection.execute("select 1 union all select 2").close()
    assert toy.log[-2:] == ["close", "commit"]


def test_between_begin_and_the_end_nothing_is_committed(
    toy: Toy, opened: Callable[..., Connection]
) -> None:
    connection = opened("toy")
    connection.execute("create table t (id integer)")
    connection.tables()  # from now on it is known how to ask
    connection.execute("begin")
    assert connection.transaction is OPEN
    toy.log.clear()
    connection.execute("insert into t values (1)")
    assert rows_of(connection, "select * from t") == [(1,)]
    assert connection.tables() == [Table("", "main", "t")]
    assert "commit" not in toy.log
    connection.execute("rollback")
    assert (toy.log[-1], connection.transaction) == ("rollback", NONE)
    assert rows_of(connection, "select * from t") == []
    connection.execute("begin; insert into t values (1); commit and chain; delete from t")
    assert connection.transaction is OPEN
    assert connection.rollback()
    assert rows_of(connection, "select * from t") == [(1,)]
    with pytest.raises(QueryError, match="statement 2 of 2: there is a transaction already"):
        connection.execute("begin; begin")


def test_a_statement_that_fails_leaves_no_transaction_behind(
    toy: Toy, opened: Callable[..., Connection]
) -> None:
    connection = opened("toy")
    with pytest.raises(QueryError, match="no such column: nowhere"):
        connection.execute("select nowhere")
    assert toy.log[-1] == "rollback"


def test_modes_of_a_transaction_are_set(toy: Toy, opened: Callable[..., Connection]) -> None:
    connection = opened("toy")
    with pytest.raises(QueryError):  # by SQLite, which has no such statement
        connection.execute("begin isolation level serializable")
    assert "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE" in toy.log


@pytest.mark.parametrize("method", ["on_commit", "on_rollback"])
def test_a_module_that_has_no_transactions_says_so_at_begin(
    toy: Toy, opened: Callable[..., Connection], method: str
) -> None:
    def refuse() -> None:
        raise toy.NotSupportedError("no transactions here")

    setattr(toy, method, refuse)
    connection = opened("toy")
    assert rows_of(connection, "select 1") == [(1,)]
    with pytest.raises(NotSupported, match="no transactions"):
        connection.execute("begin")
    assert connection.transaction is NONE


def test_an_autocommit_is_switched(toy: Toy, opened: Callable[..., Any]) -> None:
    toy.extras["autocommit"] = False
    connection = opened("toy")
    raw = connection._raw  # noqa: SLF001
    assert raw.autocommit is True
    connection.execute("create table t (id integer)")
    assert "commit" not in toy.log
    connection.execute("begin; insert into t values (1)")
    assert raw.autocommit is False
    connection.execute("commit")
    assert (raw.autocommit, toy.log[-1]) == (True, "commit")


def test_an_autocommit_may_be_a_method(toy: Toy, opened: Callable[..., Connection]) -> None:
    said: list[bool] = []
    toy.extras["autocommit"] = said.append
    opened("toy").execute("begin; rollback")
    assert said == [True, False, True]


def test_who_cannot_be_interrupted_does_not_say_so(
    toy: Toy, opened: Callable[..., Connection]
) -> None:
    assert not isinstance(opened("toy"), SupportsInterrupt)
    toy.extras["cancel"] = lambda: None
    assert isinstance(opened("toy"), SupportsInterrupt)


def test_a_cancel_is_called_while_a_statement_runs_and_only_then(
    toy: Toy, opened: Callable[..., Any]
) -> None:
    cancelled, running = threading.Event(), threading.Event()

    def run(sql: str) -> None:
        if sql == "wait":
            running.set()
            assert cancelled.wait(10)
            raise toy.OperationalError("stopped")

    toy.extras["cancel"], toy.on_execute = cancelled.set, run
    connection = opened("toy")
    connection.interrupt()
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            connection.execute("wait")
        except Cancelled as exc:
            outcome.append(exc)

    worker = threading.Thread(target=work)
    worker.start()
    assert running.wait(10)
    assert not cancelled.is_set()
    connection.interrupt()
    worker.join()
    assert str(outcome[0]) == "stopped"
    cancelled.clear()
    connection.interrupt()
    assert not cancelled.is_set()


def test_a_failing_cancel_raises_nothing(toy: Toy, opened: Callable[..., Any]) -> None:
    def cancel() -> None:
        raise toy.InterfaceError("no")

    toy.extras["cancel"] = cancel
    connection = opened("toy")
    toy.on_execute = lambda _: connection.interrupt()
    with pytest.raises(Cancelled, match="interrupted"):
        connection.execute("select 1")
    toy.on_execute = lambda _: None
    assert rows_of(connection, "select 1") == [(1,)]


@pytest.mark.parametrize(
    "error", [TypeError("what?"), struct.error("argument out of range"), KeyError("x")]
)
def test_what_python_says_about_a_statement_is_the_statements_fault(
    toy: Toy, opened: Callable[..., Connection], error: Exception
) -> None:
    def fail(sql: str) -> None:
        if sql == "fail":
            raise error

    toy.on_execute = fail
    connection = opened("toy")
    with pytest.raises(QueryError) as caught:
        connection.execute("fail")
    assert caught.value.__cause__ is error
    assert rows_of(connection, "select 1") == [(1,)]


@pytest.mark.parametrize("kind", ["OperationalError", "InterfaceError"])
def test_an_operational_error_is_a_lost_connection_only_if_it_is_lost(
    toy: Toy, opened: Callable[..., Connection], kind: str
) -> None:
    lost = False

    def fail(sql: str) -> None:
        if sql == "fail" or lost:
            raise getattr(toy, kind)("gone")

    toy.on_execute = fail
    connection = opened("toy")
    with pytest.raises(QueryError, match="gone"):
        connection.execute("fail")
    connection.execute("begin")
    lost = True
    with pytest.raises(DatabaseUnavailable, match="gone"):
        connection.execute("fail")
    assert connection.transaction is NONE
    lost = False
    with pytest.raises(DatabaseUnavailable, match="the connection is broken"):
        connection.execute("select 1")


def test_an_error_of_the_module_itself_is_no_broken_connection(
    toy: Toy, opened: Callable[..., Connection]
) -> None:
    def fail(sql: str) -> None:
        if sql == "fail":
            raise toy.NotSupportedError("never")

    toy.on_execute = fail
    connection = opened("toy")
    with pytest.raises(NotSupported, match="never"):
        connection.execute("fail")


@pytest.mark.usefixtures("toy")
def test_types_have_the_names_of_pep_249(opened: Callable[..., Connection]) -> None:
    result = opened("toy").execute("select 1 as a, 'x' as b, 2 as c, 3 as d")
    assert list(result.columns) == [
        ResultColumn("a", "NUMBER"),
        ResultColumn("b", "STRING"),
        ResultColumn("c", ""),
        ResultColumn("d", ""),
    ]


def test_parameters_go_in_the_modules_own_style(
    toy: Toy, opened: Callable[..., Connection]
) -> None:
    connection = opened("toy")
    assert rows_of(connection, "select $2, $1, '50%'", [1, 2]) == [(2, 1, "50%")]
    assert "select %s, %s, '50%%'" in toy.log
    assert rows_of(connection, "select :a || :a", {"a": "x"}) == [("xx",)]


def test_the_catalog_is_found_by_asking(toy: Toy, opened: Callable[..., Connection]) -> None:
    connection = opened("toy")
    connection.execute("create table t (id integer); create view v as select 1 as n")
    assert (connection.tables(), connection.views()) == (
        [Table("", "main", "t")],
        [Table("", "main", "v")],
    )
    assert connection.columns("", "", "t") == [Column("", "main", "t", "id", "INTEGER")]
    toy.log.clear()
    connection.tables()
    assert not [sql for sql in toy.log if "information_schema" in sql]


def test_a_database_without_catalog_says_so(toy: Toy, opened: Callable[..., Connection]) -> None:
    def fail(sql: str) -> None:
        if "schema" in sql or "sqlite" in sql:
            raise toy.DatabaseError("no such table")

    toy.on_execute = fail
    with pytest.raises(NotSupported, match="no information schema"):
        opened("toy").tables()


def test_threadsafety_0_lets_one_thread_at_a_time_into_the_module(
    toy: Toy, opened: Callable[..., Connection]
) -> None:
    toy.threadsafety = 0
    toy.extras["cancel"] = lambda: None
    inside, most = 0, 0

    def count(_: str) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.005)  # long enough for another thread to get in, if it can
        inside -= 1

    toy.on_execute = count
    connections = [opened("toy"), opened("toy")]  # of two databases, too
    assert not isinstance(connections[0], SupportsInterrupt)
    threads = [
        threading.Thread(target=lambda c=c: [rows_of(c, "select 1") for _ in range(10)])
        for c in connections
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


# Opening.


def test_a_module_that_is_missing_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FACTS, "toys.sold.dbapi", Facts(package="toys"))
    with pytest.raises(
        DatabaseUnavailable, match=r"no module toys\.sold\.dbapi: pip install 'toys'"
    ):
        DRIVER.open({"module": "toys.sold.dbapi"})
    with pytest.raises(DatabaseUnavailable, match="no module no_such_thing: install the package"):
        DRIVER.open({"module": "no_such_thing"})


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("", "module is missing"),
        ("os; import sys", "no name of a module"),
        (".relative", "no name of a module"),
        ("json", "no database module of PEP 249, it has no connect"),
        ("email.message", "it has no connect"),
    ],
)
def test_what_is_no_database_module_is_refused(module: str, said: str) -> None:
    with pytest.raises(InvalidParams, match=said):
        DRIVER.open({"module": module})


def test_a_module_that_does_not_import_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_toy.py").write_text("import not_there_at_all")
    (tmp_path / "burnt_toy.py").write_text("raise RuntimeError('smoke')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DatabaseUnavailable, match=r"needs another one: .*not_there_at_all"):
        DRIVER.open({"module": "broken_toy"})
    with pytest.raises(DatabaseUnavailable, match="cannot be imported: smoke"):
        DRIVER.open({"module": "burnt_toy"})


def test_values_are_what_the_signature_says_or_what_is_said_aloud(toy: Toy) -> None:
    database = DRIVER.open(
        {
            "module": "toy",
            "username": "me",
            "port": "7",
            "verbose": "yes",
            "timeout": "5",
            "retries:int": "3",
            "factor:float": "0.5",
            "keep:bool": "off",
            "name:str": "1",
            "options:json": '{"a": [null]}',
            "port2": "8",
        }
    )
    database.close()
    assert toy.given == {
        "user": "me",
        "port": 7,
        "verbose": True,
        "timeout": "5",
        "retries": 3,
        "factor": 0.5,
        "keep": False,
        "name": "1",
        "options": {"a": [None]},
        "port2": "8",
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", "x"),
        ("port", "1" * 30),
        ("verbose", "perhaps"),
        ("timeout:int", "1.5"),
        ("timeout:float", "soon"),
        ("options:json", "{"),
        ("timeout:date", "2026-01-01"),
        ("timeout:", "5"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(toy: Toy, key: str, value: str) -> None:
    with pytest.raises(InvalidParams, match=f"property {key.partition(':')[0]}: ") as caught:
        DRIVER.open({"module": toy.__name__, key: value})
    assert value not in str(caught.value).partition(": ")[2] or len(value) == 1


def given_to(name: str, properties: Mapping[str, str], **known: object) -> dict[str, object]:
    """What the module *name* would be connected with; it has the parameters *known*."""
    source = f"def connect({', '.join(known)}{', ' if known else ''}**others): pass"
    module = ModuleType(name)
    exec(source, vars(module))  # noqa: S102  # a signature, which is what it is about
    return arguments(module, name, FACTS.get(name, Facts()), properties, read_only=False)


URL = {"username": "u", "password": "p", "host": "h", "port": "1", "database": "d"}


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("unheard_of", (), {"user": "u", "password": "p", "host": "h", "port": 1, "database": "d"}),
        ("unheard_of", ("uid", "pwd", "server", "port", "db"), "uid pwd server port db"),
        ("psycopg2", (), "user password host port dbname"),
        ("oracledb", (), "user password host port service_name"),
        ("snowflake.connector", (), "user password account port database"),
        ("databricks.sql", (), "user access_token server_hostname port catalog"),
    ],
)
def test_the_words_of_a_url_are_the_modules_own(
    name: str, known: tuple[str, ...], expected: dict[str, object] | str
) -> None:
    if isinstance(expected, str):
        expected = dict(zip(expected.split(), ["u", "p", "h", 1, "d"], strict=True))
    found = given_to(name, URL, **dict.fromkeys(known))
    assert found == {**FACTS.get(name, Facts()).arguments, **expected}


def test_a_schema_may_stand_behind_the_catalog() -> None:
    found = given_to("snowflake.connector", {"database": "d/s"})
    assert (found["database"], found["schema"]) == ("d", "s")
    assert given_to("pymysql", {"database": "d/s"})["database"] == "d/s"


def test_a_word_of_the_modules_own_wins() -> None:
    found = given_to("snowflake.connector", {"host": "h", "account": "a"})
    assert found == {"host": "h", "account": "a"}


def test_adbc_gets_a_uri() -> None:
    properties = {**URL, "password": "p@/:?", "host": "::1", "connect_timeout": "3 s"}
    found = given_to("adbc_driver_postgresql.dbapi", properties, uri=None)
    assert found["uri"] == "postgresql://u:p%40%2F%3A%3F@[::1]:1/d?connect_timeout=3%20s"
    assert {"p@/:?", "p%40%2F%3A%3F"} == secrets_of(properties)


def test_a_secret_is_in_no_error(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(**given: str) -> None:
        raise toy.OperationalError(f"cannot log in with {given}")

    monkeypatch.setattr(toy, "connect", connect)
    with pytest.raises(DatabaseUnavailable) as caught:
        DRIVER.open({"module": "toy", "password": "pass%word", "api_token": "t0ken"})
    said = f"{caught.value!r} {caught.value.__cause__!r}"
    assert "cannot log in" in said
    assert "pass%word" not in said
    assert "t0ken" not in said


def test_an_argument_too_many_is_named(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidParams, match="property colour: "):
        DRIVER.open({"module": "sqlite3", "database": ":memory:", "colour": "red"})

    def connect(host: str) -> None:
        raise AssertionError(host)

    monkeypatch.setattr(toy, "connect", connect)
    with pytest.raises(InvalidParams, match="property colour: "):
        DRIVER.open({"module": "toy", "colour": "red"})
    with pytest.raises(InvalidParams, match="missing"):
        DRIVER.open({"module": "toy"})


def test_the_description_has_a_place_and_no_password(toy: Toy) -> None:
    database = DRIVER.open({"module": "toy", "host": "h", "password": "d", "database": "d"})
    database.close()
    assert (database.description, toy.given["database"]) == ("toy h", "d")


@pytest.mark.parametrize("name", FACTS)
def test_the_facts_are_of_use(name: str) -> None:
    facts = FACTS[name]
    assert len(statements("begin; select '[;]', \";\"; commit", facts.dialect)) == 3
    assert facts.package or name in sys.stdlib_module_names


# SQLite's own.


def test_sqlite_is_opened_read_only_by_sqlite_itself(tmp_path: Path) -> None:
    path = tmp_path / "odd name?.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("create table t (id integer)")
    for module in ("sqlite3", "adbc_driver_sqlite.dbapi"):
        properties = {"module": module, "database": str(path)}
        with closing(DRIVER.open(properties, read_only=True)) as database:
            connection = database.connect()
            assert rows_of(connection, "select count(*) from t") == [(0,)]
            with pytest.raises(DatabaseError, match="readonly"):
                connection.execute("insert into t values (1)").fetch(1)
            connection.close()


def test_nothing_is_read_only_that_cannot_be(toy: Toy) -> None:
    with pytest.raises(NotSupported, match="toy"):
        DRIVER.open({"module": toy.__name__}, read_only=True)


def test_sqlites_returning_holds_no_lock(tmp_path: Path, opened: Callable[..., Connection]) -> None:
    for module in ("sqlite3", "adbc_driver_sqlite.dbapi"):
        path = tmp_path / module
        connection = opened(module, database=str(path))
        connection.execute("create table t (id integer)")
        assert connection.execute("insert into t values (1), (2) returning id").fetch(1) == [(1,)]
        with closing(sqlite3.connect(path, timeout=0)) as other:
            other.execute("begin immediate")


def test_adbc_knows_its_arguments() -> None:
    with pytest.raises(InvalidParams, match="property colour: "):
        DRIVER.open({"module": "adbc_driver_sqlite.dbapi", "colour": "red"})


def test_sqlite_counts_what_its_module_does_not(opened: Callable[..., Connection]) -> None:
    for module in ("sqlite3", "adbc_driver_sqlite.dbapi"):
        connection = opened(module, database=":memory:")
        connection.execute("create table t (id integer)")
        insert = "with n(i) as (values (1), (2)) insert into t select i from n"
        assert connection.execute(insert).count == 2
        assert connection.execute("drop table t").count == 0


# PostgreSQL's.

POSTGRES_MODULES = ["psycopg", "pg8000.dbapi", "adbc_driver_postgresql.dbapi"]


@pytest.fixture(params=POSTGRES_MODULES)
def postgres(
    request: pytest.FixtureRequest, postgres_server: Postgres, opened: Callable[..., Any]
) -> Any:
    return opened(request.param, **postgres_server.properties)


def test_percent_signs_and_placeholders_do_not_meet(postgres: Connection) -> None:
    sql = 'select \'%s %\', 7 % 4, "%" /* % \' */ from (select ? as "%") as t -- %s'
    assert rows_of(postgres, sql, ["x"]) == [("%s %", 3, "x")]
    assert rows_of(postgres, "select '%s', 7 % 4") == [("%s", 3)]
    assert rows_of(postgres, """select '{"a":1}'::jsonb ? $1, $$?$$""", ["a"]) == [(True, "?")]


def test_a_failed_transaction_can_only_be_rolled_back(postgres: Connection) -> None:
    postgres.execute("begin")
    with pytest.raises(QueryError):
        postgres.execute("select nowhere")
    assert postgres.transaction is FAILED
    assert isinstance(postgres.tables(), list)
    with pytest.raises(QueryError, match="abort"):
        postgres.execute("select 1")
    postgres.execute("rollback; begin; savepoint s")
    with pytest.raises(QueryError):
        postgres.execute("select nowhere")
    postgres.execute("rollback to s")
    assert postgres.transaction is OPEN
    assert postgres.rollback()


def test_an_error_has_its_sqlstate_and_place(postgres: Any) -> None:
    with pytest.raises(QueryError) as caught:
        postgres.execute("select 1; select 'é', nowhere")
    assert caught.value.sqlstate == "42703"
    if not postgres.facts.adbc:
        assert caught.value.position == 23


def test_a_connection_that_was_ended_is_unavailable(
    postgres: Connection, postgres_server: Postgres, opened: Callable[..., Connection]
) -> None:
    ((pid,),) = rows_of(postgres, "select pg_backend_pid()")
    other = opened("psycopg", **postgres_server.properties)
    rows_of(other, f"select pg_terminate_backend({pid})")
    while rows_of(other, f"select 1 from pg_stat_activity where pid = {pid}"):
        time.sleep(0.01)  # the server does it when it gets to it
    with pytest.raises(DatabaseUnavailable):
        rows_of(postgres, "select 1")
    with pytest.raises(DatabaseUnavailable, match="broken"):
        postgres.execute("select 1")
    assert postgres.transaction is NONE
    assert postgres.rollback() is False


def test_what_is_no_query_runs_too(postgres: Connection) -> None:
    assert rows_of(postgres, "show search_path") == [('"$user", public',)]
    assert rows_of(postgres, "explain (costs off) select 1") == [("Result",)]


@pytest.mark.parametrize("sql", ["copy (select 1) to stdout", "/* */ Copy t from stdin"])
def test_copy_to_the_client_is_refused(postgres: Connection, sql: str) -> None:
    with pytest.raises(NotSupported, match="COPY"):
        postgres.execute(sql)
    assert rows_of(postgres, "select 'copy stdin'") == [("copy stdin",)]


def test_arrow_values_are_those_of_python(
    postgres_server: Postgres, opened: Callable[..., Connection]
) -> None:
    connection = opened("adbc_driver_postgresql.dbapi", **postgres_server.properties)
    sql = """select 1.50::numeric(10, 2), '11111111-2222-3333-4444-555555555555'::uuid::text,
        '11111111-2222-3333-4444-555555555555'::uuid, interval '1 month 2 days -3.5 s', null,
        array[1, 2], true, '{"a": 1}'::jsonb"""
    result = connection.execute(sql)
    ((number, text, uuid, interval, null, array, true, json),) = result.fetch(2)
    assert (number, text, str(uuid)) == ("1.50", str(uuid), text)
    assert (interval, null, array, true, json) == ("P1M2DT-3.5S", None, [1, 2], True, '{"a": 1}')
    assert [column.datatype for column in result.columns[2:4]] == [
        "uuid",
        "interval_month_day_nano",
    ]


def test_waiting_for_arrow_does_not_stop_other_threads(
    postgres_server: Postgres, opened: Callable[..., Connection]
) -> None:
    """What is waited for comes when another thread has gone round a hundred times."""
    connection = opened("adbc_driver_postgresql.dbapi", **postgres_server.properties)
    holder = opened("adbc_driver_postgresql.dbapi", **postgres_server.properties)
    rows_of(holder, "select pg_advisory_lock(817)::text")
    connection.execute("set statement_timeout = '10s'")
    result = connection.execute(
        "select n from generate_series(1, 100000) n"
        " union all select 1 where pg_advisory_lock(817) is not null"
    )
    reading = threading.Event()

    def release() -> None:
        reading.wait()
        for _ in range(100):
            time.sleep(0.001)  # that is, lets go of the interpreter and wants it back
        rows_of(holder, "select pg_advisory_unlock(817)")

    other = threading.Thread(target=release)
    other.start()
    reading.set()
    count = 0
    while rows := result.fetch(10_000):
        count += len(rows)
    other.join()
    assert count == 100_001


# MySQL's.


@pytest.fixture
def mariadb(mariadb_server: MariaDB, opened: Callable[..., Any]) -> Any:
    return opened("pymysql", **mariadb_server.properties)


def test_a_time_is_text(mariadb: Connection) -> None:
    values = ["23:59:58", "-01:02:03", "838:59:59", "00:00:00.000001"]
    columns = ", ".join(f"cast('{value}' as time(6))" for value in values)
    assert rows_of(mariadb, f"select {columns}, cast(null as time)") == [(*values, None)]


def test_ddl_in_a_transaction_shows_that_it_was_committed(mariadb: Connection) -> None:
    mariadb.execute("start transaction with consistent snapshot")
    assert mariadb.transaction is OPEN
    mariadb.execute("create or replace table dbapi_made (id int)")
    assert mariadb.transaction is NONE
    mariadb.execute("drop table dbapi_made")


def test_a_killed_connection_is_unavailable(
    mariadb: Connection, mariadb_server: MariaDB, opened: Callable[..., Connection]
) -> None:
    ((number,),) = rows_of(mariadb, "select connection_id()")
    opened("pymysql", **mariadb_server.properties).execute(f"kill {number}")
    with pytest.raises(DatabaseUnavailable):
        rows_of(mariadb, "select 1")


def test_a_result_given_up_is_stopped_and_nothing_else(mariadb: Connection) -> None:
    for number in range(50):
        result = mariadb.execute("select seq from seq_1_to_1000000000")
        assert len(result.fetch(3)) == 3
        result.close()
        assert rows_of(mariadb, f"select {number}") == [(number,)]
    for number in range(50):  # all of it has been sent before it is given up
        assert len(mariadb.execute("select 1 union all select 2").fetch(1)) == 1
        assert rows_of(mariadb, f"select {number}") == [(number,)]


def test_a_body_of_statements_is_one(mariadb: Connection) -> None:
    mariadb.execute(
        "create or replace procedure dbapi_p(n int) begin if n > 1 then select 'more' as a;"
        " else select 'less' as a; end if; end; call dbapi_p(2)"
    )
    assert rows_of(mariadb, "call dbapi_p(1)") == [("less",)]
    assert rows_of(mariadb, "select 1") == [(1,)]
    mariadb.execute("drop procedure dbapi_p")
