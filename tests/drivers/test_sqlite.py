"""What SQLite does beyond the contract: splitting SQL, waiting for locks, attached files."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.errors import (
    Cancelled,
    DatabaseError,
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    QueryError,
)
from notebook_rpc.model import Column, ResultColumn, Table
from notebook_rpc.sansio.values import TextRows
from notebook_rpc_drivers._sqlite_text import split
from notebook_rpc_drivers.sqlite import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc_drivers._sqlite_connection import Connection
    from notebook_rpc_drivers.sqlite import _Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a?b#c%20 d.db"


@pytest.fixture
def database(path: Path) -> Iterator[_Database]:
    database = DRIVER.open({"database": str(path)})
    yield database
    database.close()


@pytest.fixture
def connection(database: _Database) -> Iterator[Connection]:
    connection = database.connect()
    yield connection
    connection.close()


TRIGGER = "create trigger t after insert on a begin select ';'; delete from b; end"
STATEMENTS = [
    "select 1",
    "select ';' || '''; '",
    'select 1 as "a;""b"',
    "select 1 as [a;b], 2 as `c;d`",
    "select 1 /* ; ' \" */",
    "select 1 -- ; '\n",
    "explain " + TRIGGER,
    TRIGGER,
    TRIGGER.replace("trigger", "temp trigger"),
    "begin",
    "selec nonsense",
]


BLANKS = st.text(alphabet=" \n;").map(lambda blank: ";" + blank) | st.sampled_from(
    ["; -- x; '\n", ";/* ; ' */", "; /* -- */\n;", ";--\n"]
)


@given(st.lists(st.tuples(st.sampled_from(STATEMENTS), BLANKS), max_size=4), BLANKS)
def test_split_finds_every_statement(parts: list[tuple[str, str]], start: str) -> None:
    found = split(start + "".join(statement + blank for statement, blank in parts))
    statements = [statement for statement, _ in parts]
    assert len(found) == len(statements)
    for piece, statement in zip(found, statements, strict=True):
        assert statement.strip() in piece


@pytest.mark.parametrize(
    "sql",
    [
        TRIGGER,
        TRIGGER.replace("trigger", "/* x */TEMPORARY -- y\n trigger"),
        "explain query plan " + TRIGGER,
        "create trigger t after insert on a begin select case 1 when 1 then 2 end; end",
        "create trigger t after insert on a begin delete from b; /* end; */ END -- ;\n",
        "create view trigger_v as select 1",
        "create table end(a)",
        "create trigger a.b begin select ';end;'; end",
    ],
)
def test_split_ends_a_trigger_where_sqlite_does(sql: str) -> None:
    assert split(f"{sql};select 1; end; select 2") == [f"{sql};", "select 1;", " end;", " select 2"]
    assert sqlite3.complete_statement(f"{sql};")
    if "trigger" in sql.split():
        cut = sql[: sql.lower().rindex("end")]
        assert split(f"{cut} ; select 1") == [f"{cut} ; select 1"]


@pytest.mark.parametrize(
    "sql",
    [
        "create trigger t after insert on a begin "
        + "update b set x = case 1 when 1 then 2 end; " * 60_000
        + "end",
        "select 1" + ";" * 500_000,
        "create trigger t after insert on a begin " + "/* ; */;" * 200_000,
    ],
)
def test_split_takes_time_in_proportion(sql: str) -> None:
    started = time.thread_time()
    assert len(split(sql)) == 1
    assert time.thread_time() - started < 2  # asking SQLite, the first took 17


@pytest.mark.parametrize("sql", ["", " ; ", "-- a; b", "/* ; */;", "/* open ;", "--\n-- -- --\n;"])
def test_split_of_nothing(sql: str) -> None:
    assert split(sql) == []


@pytest.mark.parametrize("sql", ["/*", "-- x\n /*", "select 1; /*"])
def test_a_comment_that_opens_at_the_very_end_is_the_error_it_is_for_sqlite(
    connection: Connection, sql: str
) -> None:
    with pytest.raises(QueryError, match="syntax error"):
        connection.execute(sql)


def test_a_statement_before_the_last_runs_to_its_end(connection: Connection) -> None:
    late = "select abs(column1) from (values (1), (2), (-9223372036854775807 - 1))"
    with pytest.raises(QueryError, match="statement 1 of 2: integer overflow"):
        connection.execute(f"{late}; select 1")


def test_a_trigger_is_made_and_runs(connection: Connection) -> None:
    connection.execute("create table a(x); create table b(x); insert into b values (1); " + TRIGGER)
    result = connection.execute("insert into a values (1), (2); select count(*) as n from b")
    assert result.fetch(2) == [(0,)]


def test_values_keep_their_own_types(connection: Connection) -> None:
    result = connection.execute(
        "select 1 as i, 1.5 as f, 9e999 as inf, 'x' as s, x'00ff' as b, null"
    )
    assert result.columns[0] == ResultColumn("i", "")
    assert result.fetch(2) == [(1, 1.5, math.inf, "x", b"\x00\xff", None)]


def test_text_that_is_not_utf8_comes_as_bytes(connection: Connection) -> None:
    sql = "select cast(x'ff41' as text) as a, '\u00e9' as b"
    assert connection.execute(sql).fetch(2) == [(b"\xffA", "\u00e9")]
    assert TextRows(connection.execute(sql)).fetch(2) == ['{"a":"\\\\xff41","b":"\u00e9"}']


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("insert into t values (7), (8)", 2),
        ("with w(x) as (values (7), (8)) insert into t select x from w", 2),
        ("replace into t values (7)", 1),
        ("update t set a = a + 1", 3),
        ("delete from t where a > 1", 2),
        ("delete from t where 0", 0),
        ("create table u as select * from t", 0),
        ("alter table t add b", 0),
        ("begin", 0),
        ("pragma user_version = 3", 0),
    ],
)
def test_what_has_no_rows_has_a_count(connection: Connection, sql: str, count: int) -> None:
    connection.execute("create table t(a); create table log(a)")
    connection.execute("create trigger r after insert on t begin insert into log values (1); end")
    connection.execute("insert into t values (1), (2), (3)")
    result = connection.execute(sql)
    assert (result.columns, result.count, result.fetch(1)) == ([], count, [])


def test_returning_has_rows_and_is_committed_before_they_are_read(
    database: _Database, connection: Connection
) -> None:
    connection.execute("create table t(a)")
    result = connection.execute("insert into t values (1), (2), (3) returning a, a")
    other = database.connect()
    other.execute("insert into t values (4)")  # would wait for the lock
    assert not result.streaming
    assert [column.column for column in result.columns] == ["a", "a_1"]
    assert [result.fetch(2) for _ in range(3)] == [[(1, 1), (2, 2)], [(3, 3)], []]
    other.close()


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("select ?", [2**63]),
        ("select ?", [["nested"]]),
        ("select ?", []),
        ("select ?", [1, 2]),
        ("select :a", {"b": 1}),
        ("select '\0'", []),
        ("select 1; select '\0'; select 2", []),
    ],
)
def test_what_cannot_be_bound_is_an_error(
    connection: Connection, sql: str, parameters: object
) -> None:
    with pytest.raises(QueryError):
        connection.execute(sql, parameters)  # type: ignore[arg-type]
    assert connection.execute("select 1").fetch(2) == [(1,)]


def test_a_name_that_no_parameter_has_is_an_error(connection: Connection) -> None:
    connection.execute("create table t(a)")
    with pytest.raises(QueryError, match="no parameter 'who'"):
        connection.execute("insert into t values (:a)", {"a": 1, "who": 2})
    sql = "select :a + @b + $c + ?4, (select count(*) from t)"
    assert connection.execute(sql, {"a": 1, "b": 2, "c": 3, "4": 4}).fetch(2) == [(10, 0)]


def test_a_number_behind_a_dollar_is_a_place(connection: Connection) -> None:
    sql = "select $2 || '$1' || $1 || $2 || \"$1\" from (select '.' as \"$1\") -- $3"
    assert connection.execute(sql, ["a", "b"]).fetch(2) == [("b$1ab.",)]
    with pytest.raises(QueryError):
        connection.execute("select $2, $1", ["a"])


def test_a_catalog_has_what_is_attached_and_what_is_temporary(connection: Connection) -> None:
    connection.execute('attach \':memory:\' as "o\'""x"; create table "o\'""x".t(a int)')
    connection.execute("create temp table t(b text, c text as (b || 'x')); create table t(d)")
    connection.execute("create table auto(id integer primary key autoincrement)")
    assert connection.tables() == [
        Table("", "main", "auto"),
        Table("", "main", "t"),
        Table("", "o'\"x", "t"),
        Table("", "temp", "t"),
    ]
    assert connection.columns("", "", "t") == [
        Column("", "main", "t", "d", ""),
        Column("", "o'\"x", "t", "a", "INT"),
        Column("", "temp", "t", "b", "TEXT"),
        Column("", "temp", "t", "c", "TEXT"),
    ]
    assert connection.columns("", "temp", "") == connection.columns("", "temp", "t")


def test_a_broken_view_does_not_hide_the_rest(connection: Connection) -> None:
    connection.execute("create table t(a); create view v as select a from t; create table u(b)")
    connection.execute("drop table t")
    assert connection.views() == [Table("", "main", "v")]
    assert connection.columns("", "", "") == [Column("", "main", "u", "b", "")]


def test_a_file_that_cannot_be_attached_is_the_statement_s_fault(connection: Connection) -> None:
    with pytest.raises(QueryError, match="unable to open"):
        connection.execute("attach '/no/such/file.db' as x")


class TestLocks:
    @pytest.fixture
    def holder(self, path: Path, connection: Connection) -> Iterator[sqlite3.Connection]:
        connection.execute("create table t(a)")
        holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        holder.execute("begin immediate")
        yield holder
        holder.close()

    @pytest.mark.usefixtures("holder")
    def test_no_patience(self, path: Path) -> None:
        database = DRIVER.open({"database": str(path), "timeout": "0"})
        connection = database.connect()
        with pytest.raises(DatabaseError, match="database is locked"):
            connection.execute("insert into t values (1)")
        connection.close()
        database.close()

    @pytest.mark.usefixtures("holder")
    def test_patience_ends(self, path: Path) -> None:
        database = DRIVER.open({"database": str(path), "timeout": "0.05"})
        connection = database.connect()
        with pytest.raises(DatabaseError, match="database is locked"):
            connection.execute("insert into t values (1)")
        connection.close()
        database.close()

    def test_patience_pays(self, connection: Connection, holder: sqlite3.Connection) -> None:
        outcome: list[int | NotebookError] = []

        def work() -> None:
            try:
                outcome.append(connection.execute("insert into t values (1)").count)
            except NotebookError as exc:
                outcome.append(exc)

        worker = threading.Thread(target=work)
        worker.start()
        worker.join(0.01)  # long enough for a first try, as a rule; more is not needed
        assert worker.is_alive()
        holder.execute("commit")
        worker.join()
        assert outcome == [1]

    @pytest.mark.usefixtures("holder")
    def test_an_interrupt_ends_the_waiting(self, connection: Connection) -> None:
        outcome: list[BaseException] = []

        def work() -> None:
            with pytest.raises(Cancelled) as caught:
                connection.execute("insert into t values (1)")
            outcome.append(caught.value)

        worker = threading.Thread(target=work)
        worker.start()
        while worker.is_alive():
            connection.interrupt()
            worker.join(0.005)
        assert str(outcome[0]) == "interrupted while waiting for a lock"

    def test_an_interrupt_ends_a_catalog_call_s_waiting_and_not_the_open_result(
        self, connection: Connection, tmp_path: Path
    ) -> None:
        holder = sqlite3.connect(tmp_path / "other.db", isolation_level=None)
        holder.execute("create table x(a)")
        connection.execute(f"attach '{tmp_path}/other.db' as other")
        result = connection.execute("select value from json_each(json_array(1, 2, 3))")
        assert result.fetch(1) == [(1,)]
        holder.execute("begin exclusive")
        outcome: list[BaseException] = []

        def work() -> None:
            with pytest.raises(Cancelled) as caught:
                connection.tables()
            outcome.append(caught.value)

        worker = threading.Thread(target=work)
        worker.start()
        while worker.is_alive():
            connection.interrupt()
            worker.join(0.005)
        assert str(outcome[0]) == "interrupted while waiting for a lock"
        assert result.fetch(3) == [(2,), (3,)]
        holder.close()

    def test_a_long_catalog_call_can_be_interrupted(self, connection: Connection) -> None:
        made = ";".join(f"create table t{number}(a, b, c)" for number in range(3000))
        connection.execute(f"begin; {made}; commit")
        outcome: list[str] = []

        def work() -> None:
            try:
                connection.columns("", "", "")
            except Cancelled as exc:
                outcome.append(str(exc))

        for _ in range(100):  # on a busy machine it may be over before anybody interrupts it
            worker = threading.Thread(target=work)
            worker.start()
            while worker.is_alive():
                connection.interrupt()
                worker.join(0.0001)
            if outcome:
                break
        assert outcome == ["interrupted"]


class TestOpening:
    def test_a_database_in_memory_is_shared_by_its_own_connections_alone(self) -> None:
        databases = [DRIVER.open(properties) for properties in ({}, {"database": ":memory:"})]
        first, second = databases[0].connect(), databases[0].connect()
        stranger = databases[1].connect()
        first.execute("create table t(a)")
        assert second.tables() == [Table("", "main", "t")]
        assert stranger.tables() == []
        for connection in (first, second, stranger):
            connection.close()
        for database in databases:
            database.close()
        assert databases[0].description == "SQLite in memory"

    def test_the_file_is_made_where_it_was_asked_for(
        self, path: Path, connection: Connection
    ) -> None:
        connection.execute("create table t(a)")
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_read_only(self, path: Path, connection: Connection) -> None:
        connection.execute("create table t(a)")
        database = DRIVER.open({"database": str(path), "mode": "ro"})
        reader = database.connect()
        assert reader.tables() == [Table("", "main", "t")]
        with pytest.raises(QueryError, match="readonly"):
            reader.execute("insert into t values (1)")
        reader.close()
        database.close()

    def test_read_only_is_no_way_to_any_file(self, path: Path, connection: Connection) -> None:
        connection.execute("create table t(a); insert into t values (7)")
        database = DRIVER.open({"database": str(path)}, read_only=True)
        reader = database.connect()
        other = path.with_name("other.sqlite")
        for sql in (
            "insert into t values (8)",
            f"attach '{path}' as w",
            f"attach 'file:{path}?mode=rw' as w",
            f"attach '{other}' as w",
            f"vacuum into '{other}'",
        ):
            with pytest.raises(QueryError):
                reader.execute(sql)
        assert reader.execute("select a from t").fetch(2) == [(7,)]
        assert not other.exists()
        reader.close()
        database.close()

    def test_what_cannot_be_opened(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken.db"
        broken.write_bytes(b"not a database" * 1000)
        os.mkfifo(tmp_path / "pipe")
        for unusable in (tmp_path / "no" / "such.db", tmp_path, tmp_path / "pipe", broken):
            with pytest.raises(DatabaseUnavailable, match=unusable.name):
                DRIVER.open({"database": str(unusable)})
        with pytest.raises(DatabaseUnavailable, match=r"new\.db"):
            DRIVER.open({"database": str(tmp_path / "new.db"), "mode": "rw"})

    @pytest.mark.parametrize("path", ["/no/\ud800.db", "/no/\0.db"])
    def test_a_path_that_is_none_is_named(self, path: str) -> None:
        with pytest.raises(InvalidParams, match="property database"):
            DRIVER.open({"database": path})

    @pytest.mark.parametrize(
        "properties",
        [{"mode": "w"}, {"timeout": "soon"}, {"timeout": "-1"}, {"timeout": "nan"}, {"host": "h"}],
    )
    def test_a_wrong_property_is_named(self, properties: dict[str, str]) -> None:
        with pytest.raises(InvalidParams, match=f"property {min(properties)}:"):
            DRIVER.open(properties)

    def test_the_journal_mode_stays(self, path: Path, connection: Connection) -> None:
        connection.execute("create table t(a)")
        with closing(sqlite3.connect(path)) as plain:
            assert plain.execute("pragma journal_mode").fetchone() == ("delete",)
