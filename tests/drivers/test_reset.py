"""What one client leaves for the next, what others may see of it, and who got in whose way."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from notebook_rpc.driver import SupportsChanges, SupportsReset
from notebook_rpc.errors import Conflict, DatabaseUnavailable, NotebookError, QueryError
from notebook_rpc.model import Transaction
from notebook_rpc_drivers.duckdb import DRIVER as DUCKDB
from notebook_rpc_drivers.sqlite import DRIVER as SQLITE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc.driver import Connection, Database
    from tests.servers import Postgres


class Pair:
    """Two connections to one database."""

    def __init__(self, database: Database) -> None:
        self.one, self.other = database.connect(), database.connect()

    def close(self) -> None:
        self.one.close()
        self.other.close()

    def ask(self, sql: str) -> list[Any]:
        return rows(self.one, sql)


def rows(connection: Connection, sql: str) -> list[Any]:
    return list(connection.execute(sql).fetch(1000))


def changes(connection: Connection) -> int:
    assert isinstance(connection, SupportsChanges)
    return connection.changes


def reset(connection: Connection) -> None:
    assert isinstance(connection, SupportsReset)
    connection.reset()


def grows(connection: Connection, sql: str) -> bool:
    """Whether the connection says that others may see something of *sql*. May fail."""
    before = changes(connection)
    with contextlib.suppress(NotebookError):
        rows(connection, sql)
    return changes(connection) > before


@pytest.fixture
def duck() -> Iterator[Pair]:
    database = DUCKDB.open({"threads": "1"})
    pair = Pair(database)
    yield pair
    pair.close()
    database.close()


@pytest.fixture(params=["file", "memory"])
def lite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    path = str(tmp_path / "file.sqlite") if request.param == "file" else ":memory:"
    database = SQLITE.open({"database": path, "timeout": "0.05"})
    pair = Pair(database)
    yield pair
    pair.close()
    database.close()


@pytest.fixture
def post(postgres_server: Postgres) -> Iterator[Pair]:
    pytest.importorskip("psycopg", reason="needs the extra notebook_rpc[postgres]")
    from notebook_rpc_drivers.postgres import DRIVER  # psycopg may be missing

    database = DRIVER.open(postgres_server.properties)
    pair = Pair(database)
    pair.one.execute("drop schema public cascade; create schema public")
    yield pair
    pair.close()
    database.close()


# --- DuckDB -----------------------------------------------------------------------------------


def test_duckdb_leaves_nothing_to_the_next_client(duck: Pair) -> None:
    duck.one.execute("""
        CREATE TABLE t AS SELECT 1 AS a;
        CREATE TEMP TABLE secret AS SELECT 42 AS a;
        CREATE TEMP VIEW t AS SELECT 42 AS a;
        CREATE TEMP MACRO m() AS 42;
        CREATE SCHEMA s;
        SET search_path = 's';
        SET VARIABLE v = 42;
        PREPARE p AS SELECT 42""")
    duck.one.execute("FROM range(100000)").fetch(1)
    reset(duck.one)
    assert duck.ask("SELECT getvariable('v')") == [(None,)]
    assert duck.ask("FROM t") == [(1,)]
    for gone in ("FROM secret", "SELECT m()", "EXECUTE p"):
        with pytest.raises(QueryError):
            duck.one.execute(gone)
    assert duck.ask("SELECT current_schema()") == [("main",)]
    assert duck.one.transaction is Transaction.NONE


def test_duckdb_forgets_what_a_select_has_left(duck: Pair, tmp_path: Path) -> None:
    """Lines that cannot be read are kept in a temporary table, of any name."""
    (tmp_path / "bad.csv").write_text("id\n1\nsecret\n")
    rows(duck.other, "CREATE TABLE orders (id INTEGER)")
    columns = "columns = {'id': 'INTEGER'}, store_rejects = true, rejects_table = 'orders'"
    rows(duck.one, f"SELECT * FROM read_csv('{tmp_path}/bad.csv', header = true, {columns})")
    assert "secret" in str(duck.ask("FROM temp.orders"))
    reset(duck.one)
    assert duck.ask("FROM orders") == []


@pytest.mark.parametrize("sql", ["SELECT 1", "SET threads = 1", "SELEC", "BEGIN; SELECT 1; COMMIT"])
def test_duckdb_has_a_new_cursor_for_each_client(duck: Pair, sql: str) -> None:
    before = duck.ask("SELECT current_connection_id()")
    with contextlib.suppress(QueryError):
        rows(duck.one, sql)
    reset(duck.one)
    assert duck.ask("SELECT current_connection_id()") != before
    reset(duck.one)
    assert duck.one.execute("SELECT 1").fetch(2) == [(1,)]


@pytest.mark.parametrize(
    ("sql", "seen"),
    [
        ("SELECT 1", False),
        ("FROM t", False),
        ("SELEC", False),
        ("FROM nowhere", False),
        ("EXPLAIN SELECT 1", True),  # it may have run what it explains
        ("INSERT INTO t VALUES (1)", True),
        ("INSERT INTO t VALUES (1) RETURNING a", True),
        ("WITH x AS (INSERT INTO t VALUES (1) RETURNING a) FROM x", True),
        ("WITH x AS (INSERT INTO t VALUES (1) RETURNING a) FROM x; SELECT 1", True),
        ("EXPLAIN ANALYZE INSERT INTO t VALUES (1)", True),
        ("PREPARE p AS INSERT INTO t VALUES (1); EXECUTE p", True),
        ("CREATE VIEW v AS SELECT 1", True),
        ("SET GLOBAL TimeZone = 'UTC'", True),
        ("ATTACH ':memory:' AS more", True),
        ("CHECKPOINT", True),
        ("INSERT INTO t VALUES (1); FROM nowhere", True),  # the first has been committed
        ("BEGIN; INSERT INTO t VALUES (1); COMMIT", True),
        ("BEGIN; INSERT INTO t VALUES (1); FROM nowhere", False),
        ("BEGIN; INSERT INTO t VALUES (1); ROLLBACK", False),
        ("BEGIN; COMMIT", False),
    ],
)
def test_duckdb_tells_what_others_may_see(duck: Pair, sql: str, seen: bool) -> None:
    duck.other.execute("CREATE TABLE t (a INTEGER)")
    assert grows(duck.one, sql) is seen


def test_duckdb_tells_of_a_transaction_when_it_is_committed(duck: Pair) -> None:
    assert grows(duck.one, "CREATE TABLE t (a INTEGER)")
    assert not grows(duck.one, "BEGIN")
    assert not grows(duck.one, "INSERT INTO t VALUES (1)")
    assert not grows(duck.one, "FROM t")
    assert grows(duck.one, "COMMIT")
    assert not grows(duck.one, "BEGIN")
    assert not grows(duck.one, "INSERT INTO t VALUES (1)")
    duck.one.rollback()
    assert not grows(duck.one, "BEGIN")
    assert not grows(duck.one, "COMMIT")
    assert grows(duck.one, "BEGIN; ATTACH ':memory:' AS more")  # no ROLLBACK takes it back


def test_a_stream_given_up_in_a_transaction_interrupts_nothing_after_it(duck: Pair) -> None:
    duck.one.execute("BEGIN")
    for _ in range(20):
        duck.one.execute("FROM range(100000)").fetch(1)
        assert duck.ask("SELECT current_user()") == [("duckdb",)]  # a macro, while it is bound


N = "CREATE TABLE t (a INTEGER, b INTEGER); INSERT INTO t SELECT range, 0 FROM range(5)"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("UPDATE t SET b = 1", "UPDATE t SET b = 2"),
        ("DELETE FROM t", "DELETE FROM t"),
        ("ALTER TABLE t ADD COLUMN c INTEGER", "UPDATE t SET b = 2"),
        ("ALTER TABLE t ADD COLUMN c INTEGER", "INSERT INTO t VALUES (9, 9)"),
        ("ALTER TABLE t ADD COLUMN c INTEGER", "ALTER TABLE t ADD COLUMN d INTEGER"),
        ("DROP TABLE t", "DROP TABLE t"),
        ("CREATE TABLE x (a INTEGER)", "CREATE TABLE x (a INTEGER)"),
        ("CREATE VIEW x AS SELECT 1", "CREATE SCHEMA y; CREATE TABLE x (a INTEGER)"),
    ],
)
def test_duckdb_calls_a_conflict_by_its_name(duck: Pair, first: str, second: str) -> None:
    duck.other.execute(N)
    duck.other.execute("BEGIN")
    duck.other.execute(first)
    with pytest.raises(Conflict) as caught:  # nobody waits: the first may yet be undone
        duck.one.execute(second)
    assert caught.value.alone is (";" not in second)
    duck.other.execute("ROLLBACK")
    duck.one.execute("DROP SCHEMA IF EXISTS y")
    duck.one.execute(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ALTER TABLE t ADD COLUMN c INTEGER", "UPDATE t SET b = 2"),
        ("INSERT INTO k VALUES (9)", "INSERT INTO k VALUES (9)"),
        ("DROP TABLE t", "INSERT INTO t VALUES (9, 9)"),
    ],
)
def test_duckdb_finds_some_conflicts_at_the_commit(duck: Pair, first: str, second: str) -> None:
    duck.other.execute(f"{N}; CREATE TABLE k (a INTEGER PRIMARY KEY)")
    duck.other.execute("BEGIN; FROM t")
    duck.one.execute("BEGIN; FROM t")
    duck.one.execute(second)
    duck.other.execute(first)
    with pytest.raises(Conflict) as caught:  # noqa: PT012  # by the one or by the other
        duck.other.execute("COMMIT")
        duck.one.execute("COMMIT")
    assert not caught.value.alone  # a whole transaction would have to be repeated
    with pytest.raises(QueryError) as other:
        duck.other.execute("COMMIT; COMMIT")
    assert type(other.value) is QueryError


# --- SQLite -----------------------------------------------------------------------------------


def test_sqlite_leaves_nothing_to_the_next_client(lite: Pair, tmp_path: Path) -> None:
    lite.one.execute(f"""
        CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2);
        CREATE TEMP TABLE secret AS SELECT 42 AS a;
        CREATE TEMP VIEW t AS SELECT 42 AS a;
        ATTACH '{tmp_path / "more.sqlite"}' AS more;
        PRAGMA case_sensitive_like = 1;
        PRAGMA foreign_keys = 1""")
    lite.one.execute("SELECT * FROM secret").fetch(1)
    reset(lite.one)
    assert lite.ask("SELECT * FROM t") == [(1,), (2,)]
    assert lite.ask("SELECT 'a' LIKE 'A'") == [(1,)]
    assert lite.ask("PRAGMA foreign_keys") == [(0,)]
    assert [name for _, name, _ in lite.ask("PRAGMA database_list")] == ["main"]
    with pytest.raises(QueryError):
        lite.one.execute("SELECT * FROM secret")


def test_sqlite_opens_nothing_where_nothing_was_left(lite: Pair) -> None:
    lite.one.execute("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1)")
    before = lite.ask("SELECT total_changes()")  # of the connection
    assert before != [(0,)]
    reset(lite.one)
    assert lite.ask("SELECT total_changes()") == before
    lite.one.execute("CREATE TEMP TABLE x (a)")
    reset(lite.one)
    assert lite.ask("SELECT total_changes()") == [(0,)]


@pytest.mark.parametrize(
    ("sql", "seen"),
    [
        ("SELECT 1", False),
        ("SELECT * FROM v", False),
        ("SELEC", False),
        ("WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n FROM r) SELECT * FROM r", False),
        ("EXPLAIN QUERY PLAN SELECT * FROM t", False),
        ("INSERT INTO t VALUES (1)", True),
        ("INSERT INTO t VALUES (1) RETURNING a", True),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", True),
        ("INSERT INTO v VALUES (1)", True),  # through a trigger
        ("DELETE FROM t", True),
        ("CREATE INDEX i ON t (a)", True),
        ("PRAGMA user_version = 3", True),
        ("VACUUM", True),
        ("CREATE TEMP TABLE x (a)", False),
        ("CREATE TEMP TABLE x (a); INSERT INTO x VALUES (1)", False),
        ("INSERT INTO t VALUES (1); SELECT * FROM nowhere", True),
        ("BEGIN; INSERT INTO t VALUES (1); COMMIT", True),
        ("SAVEPOINT s; INSERT INTO t VALUES (1); RELEASE s", True),
        ("BEGIN; INSERT INTO t VALUES (1); ROLLBACK", False),
        ("BEGIN; INSERT INTO t VALUES (1)", False),
        ("BEGIN; SELECT * FROM t; COMMIT", False),
    ],
)
def test_sqlite_tells_what_others_may_see(lite: Pair, sql: str, seen: bool) -> None:
    lite.other.execute("""
        CREATE TABLE t (a INTEGER); CREATE VIEW v AS SELECT * FROM t;
        CREATE TRIGGER tr INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.a); END""")
    assert grows(lite.one, sql) is seen
    lite.one.rollback()
    assert not grows(lite.one, "SELECT 1")
    assert grows(lite.one, "INSERT INTO t VALUES (2)")
    assert grows(lite.one, "INSERT INTO t VALUES (2)")


def test_sqlite_calls_a_lock_that_was_waited_for_in_vain_a_conflict(lite: Pair) -> None:
    lite.one.execute("CREATE TABLE t (a INTEGER)")
    lite.other.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
    with pytest.raises(Conflict, match="locked") as caught:
        lite.one.execute("INSERT INTO t VALUES (2)")
    assert not caught.value.alone  # it was tried for as long as the property timeout says
    lite.other.execute("COMMIT")
    lite.one.execute("INSERT INTO t VALUES (2)")


def test_sqlite_calls_a_snapshot_that_is_too_old_a_conflict(tmp_path: Path) -> None:
    database = SQLITE.open({"database": str(tmp_path / "wal.sqlite")})
    pair = Pair(database)
    pair.one.execute("PRAGMA journal_mode = wal; CREATE TABLE t (a INTEGER)")
    pair.one.execute("BEGIN; SELECT * FROM t").fetch(1)
    pair.other.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(Conflict, match="locked"):
        pair.one.execute("INSERT INTO t VALUES (2)")
    assert pair.one.rollback()
    pair.one.execute("INSERT INTO t VALUES (2)")
    pair.close()
    database.close()


# --- PostgreSQL -------------------------------------------------------------------------------


def test_postgres_leaves_nothing_to_the_next_client(post: Pair) -> None:
    before = post.ask("show intervalstyle")
    post.one.execute("create table t as select 1 as a")
    post.one.execute("create temp table secret as select 42 as a")
    post.one.execute("create temp view t as select 42 as a; prepare p as select 42")
    post.one.execute("select set_config('intervalstyle', 'postgres', false)").fetch(1)
    post.one.execute("select pg_advisory_lock(7)").fetch(1)
    post.one.execute("select generate_series(1, 100000)").fetch(1)
    reset(post.one)
    assert post.ask("select * from t") == [(1,)]
    assert post.ask("show intervalstyle") == before
    assert rows(post.other, "select pg_try_advisory_lock(7)") == [(True,)]
    for gone in ("select * from secret", "execute p"):
        with pytest.raises(QueryError):
            post.one.execute(gone)
    reset(post.one)
    reset(post.one)
    assert post.one.transaction is Transaction.NONE


@pytest.mark.parametrize(
    ("sql", "seen"),
    [
        ("select 1", False),
        ("select * from t", False),
        ("select * from generate_series(1, 1000)", False),
        ("values (1)", False),
        ("show datestyle", False),
        ("set datestyle = 'ISO'", False),
        ("insert into t values (1)", True),
        ("insert into t values (1) returning a", True),
        ("with x as (insert into t values (1) returning a) select * from x", True),
        ("select written(1)", True),  # by a function
        ("select * from t where written(2) > 0", True),
        ("create table u (a integer)", True),
        ("select 1 as a into u", True),
        ("explain analyze insert into t values (1)", True),
        ("insert into t values (1); select * from nowhere", True),
        ("begin; insert into t values (1); commit", True),
        ("begin; insert into t values (1); commit and chain", True),
        ("begin; insert into t values (1); rollback", False),
        ("begin; insert into t values (1)", False),
        ("do $$ begin insert into t values (1); commit; raise 'late'; end $$", True),
    ],
)
def test_postgres_tells_what_others_may_see(post: Pair, sql: str, seen: bool) -> None:
    post.other.execute("""
        create table t (a integer); insert into t values (0);
        create function written(integer) returns integer language sql
            as 'insert into t values ($1) returning a'""")
    assert grows(post.one, sql) is seen
    post.one.rollback()
    assert not grows(post.one, "select 1")


def test_postgres_tells_of_what_a_function_wrote_when_its_rows_are_over(post: Pair) -> None:
    post.one.execute("""
        create table t (a integer);
        create function written(integer) returns integer language sql volatile
            as 'insert into t values ($1) returning a'""")
    before = changes(post.one)
    result = post.one.execute("select written(n) from generate_series(1, 1000) as n")
    result.fetch(10)
    result.close()
    assert changes(post.one) > before
    assert rows(post.other, "select count(*) > 0 from t") == [(True,)]


@pytest.mark.parametrize(
    ("sql", "alone"),
    [
        ("select clash()", True),
        ("update t set a = clash()", True),
        ("with x as (insert into t values (clash()) returning a) select * from x", True),
        ("select 1; select clash()", False),
        ("begin; select clash()", False),
        ("do $$ begin perform clash(); end $$", False),  # might have committed something before
        ("call clashing()", False),
    ],
)
@pytest.mark.parametrize("errcode", ["serialization_failure", "deadlock_detected"])
def test_postgres_says_of_a_conflict_whether_it_stood_alone(
    post: Pair, sql: str, alone: bool, errcode: str
) -> None:
    post.one.execute(f"""
        create table t as select 1 as a;
        create function clash() returns integer language plpgsql as
            $$ begin raise {errcode}; end $$;
        create procedure clashing() language plpgsql as
            $$ begin insert into t values (2); commit; perform clash(); end $$""")
    with pytest.raises(Conflict) as caught:
        post.one.execute(sql)
    assert caught.value.alone is alone
    assert caught.value.sqlstate in ("40001", "40P01")


def test_postgres_calls_a_failed_serialization_a_conflict(post: Pair) -> None:
    post.other.execute("create table t as select 1 as a")
    post.one.execute("begin isolation level repeatable read; select * from t").fetch(1)
    post.other.execute("update t set a = 2")
    with pytest.raises(Conflict, match="could not serialize") as caught:
        post.one.execute("update t set a = 3")
    assert not caught.value.alone
    assert post.one.rollback()


def test_a_broken_connection_counts_as_a_change(post: Pair) -> None:
    post.one.execute("create table t (a integer)")
    before = changes(post.one)
    ((number,),) = post.ask("select pg_backend_pid()")
    post.other.execute(f"select pg_terminate_backend({number})").fetch(1)
    with pytest.raises(DatabaseUnavailable):
        post.one.execute("insert into t values (1)")
    assert changes(post.one) > before
