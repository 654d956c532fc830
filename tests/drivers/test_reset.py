"""What one client leaves for the next, what others may see of it, and who got in whose way."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from notebook_rpc.driver import SupportsChanges, SupportsReset
from notebook_rpc.errors import Conflict, DatabaseUnavailable, NotebookError, QueryError
from notebook_rpc.model import END_OF_STREAM, Transaction
from notebook_rpc_drivers import _duckdb_few_rows, _duckdb_shapes
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


# --- DuckDB's cursors that nothing was left on --------------------------------------------------


def read_arrow(connection: Any, sql: str) -> Any:
    result = connection.execute_arrow(sql)
    parts = [result.schema]
    while batch := result.fetch():
        parts.append(bytes(batch))
    return pa.ipc.open_stream(b"".join([*parts, END_OF_STREAM])).read_all().to_pylist()


def read_json(connection: Any, sql: str) -> list[Any]:
    lines = []
    result = connection.execute_json(sql)
    while page := result.fetch(1000):
        lines += page
    return [json.loads(line) for line in lines]


READS = pytest.mark.parametrize("read", [read_arrow, read_json])


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes but a few runs until a query is worth a proof."""
    monkeypatch.setattr(_duckdb_shapes, "WORTH", 3)


def cursor_of(connection: Any) -> Any:
    return connection.cursor


def keeps(connection: Connection, sql: str, read: Any) -> bool:
    """Whether ``reset`` keeps the cursor that *sql* has run on; no next client meets anything."""
    before = cursor_of(connection)
    read(connection, sql)
    reset(connection)
    kept = cursor_of(connection) is before
    if not kept:
        with pytest.raises(duckdb.ConnectionException):
            before.execute("SELECT 1")  # it is closed
    return kept


def prove(connection: Connection, sql: str, read: Any) -> bool:
    """Run it until it is proven to leave nothing, if ever."""
    reset(connection)
    return [keeps(connection, sql, read) for _ in range(_duckdb_shapes.WORTH + 3)][-1]


@READS
def test_duckdb_keeps_a_cursor_when_a_query_has_proven_itself(duck: Pair, read: Any) -> None:
    reset(duck.one)
    kept = [keeps(duck.one, "SELECT 42 AS a", read) for _ in range(_duckdb_shapes.WORTH + 3)]
    assert kept == [False] * _duckdb_shapes.WORTH + [True] * 3
    assert keeps(duck.one, "SELECT 42 AS a", read)
    assert not keeps(duck.one, "SELECT 43 AS a", read)
    # The proof is of the query, not of the connection.
    duck.other.execute("SELECT 1")
    reset(duck.other)
    assert keeps(duck.other, "SELECT 42 AS a", read)


@pytest.mark.usefixtures("soon")
@READS
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT setseed(0.5) AS a",
        "SELECT random() AS a",
        "SELECT now() AS a",
        "SELECT nextval('s') AS a",
        "SELECT nextval('s') AS a, currval('s') AS b",
        "SELECT getvariable('v') AS a",
        "FROM repeat(setseed(0.5), 1)",
        "FROM seeds",
        "SELECT seed()",
        "FROM duckdb_settings() LIMIT 1",
        "FROM '{folder}/bad.csv'",
        "FROM read_csv('{folder}/bad.csv', columns = {{'a': 'INTEGER'}}, store_rejects = true)",
        "FROM query('SELECT random()')",
        "SELECT current_connection_id()",
    ],
)
def test_duckdb_replaces_the_cursor_of_all_that_is_not_proven(
    duck: Pair, tmp_path: Path, read: Any, sql: str
) -> None:
    (tmp_path / "bad.csv").write_text("a\n1\nsecret\n")
    duck.one.execute("""
        CREATE SEQUENCE s;
        CREATE VIEW seeds AS SELECT setseed(0.5) AS a;
        CREATE MACRO seed() AS setseed(0.5)""")
    sql = sql.format(folder=tmp_path)
    for _ in range(6):
        assert not keeps(duck.one, sql, read)
    assert rows(duck.one, "SELECT count(*) FROM duckdb_tables() WHERE temporary") == [(0,)]


@pytest.mark.usefixtures("soon")
@READS
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "SET VARIABLE v = 42",
        "SET integer_division = true",
        "PREPARE p AS SELECT 42",
        "CREATE TEMP TABLE secret AS SELECT 42 AS a",
        "SELECT setseed(0.5)",
        "BEGIN",
        "FROM nowhere",
        "FROM range(1000)",
    ],
)
def test_duckdb_keeps_no_cursor_on_which_anything_else_has_run(
    duck: Pair, read: Any, sql: str
) -> None:
    duck.other.execute("CREATE TABLE t (a INTEGER)")
    prove(duck.one, "SELECT 42 AS a", read)
    before = cursor_of(duck.one)
    read(duck.one, "SELECT 42 AS a")
    with contextlib.suppress(QueryError):
        duck.one.execute(sql)
    read(duck.one, "SELECT 42 AS a")
    reset(duck.one)
    assert cursor_of(duck.one) is not before
    assert duck.one.transaction is Transaction.NONE
    assert duck.ask("SELECT getvariable('v'), 7 / 2") == [(None, 3.5)]
    for gone in ("EXECUTE p", "FROM secret"):
        with pytest.raises(QueryError):
            duck.one.execute(gone)


@pytest.mark.usefixtures("soon")
@READS
@pytest.mark.parametrize("first", ["BEGIN", "PREPARE p AS SELECT 42", "SELECT setseed(0.5)"])
def test_duckdb_looks_at_all_statements_of_a_text(duck: Pair, read: Any, first: str) -> None:
    assert prove(duck.one, "SELECT 42 AS a", read)
    assert not keeps(duck.one, f"{first};SELECT 42 AS a", read)
    assert duck.one.transaction is Transaction.NONE
    with pytest.raises(QueryError):
        duck.one.execute("EXECUTE p")


def test_duckdb_keeps_no_cursor_on_which_a_query_was_but_planned() -> None:
    database = DUCKDB.open({"threads": "1"})
    reader = database.connect_read_only()
    seeds = "range(coalesce(setseed(0.5)::VARCHAR::BIGINT, 1))"
    for sql in (f"FROM {seeds}, enable_logging()", f"SELECT nowhere FROM {seeds}"):
        reader.reset()
        before = cursor_of(reader)
        with pytest.raises(QueryError):
            reader.execute(sql)
        reader.reset()
        assert cursor_of(reader) is not before
    reader.close()
    database.close()


@pytest.mark.usefixtures("soon")
@READS
@pytest.mark.parametrize("how", ["at once", "by another", "in a transaction"])
def test_duckdb_forgets_what_was_proven_when_a_name_means_something_else(
    duck: Pair, read: Any, how: str
) -> None:
    duck.other.execute("CREATE VIEW v AS SELECT 0.5::DOUBLE AS a")
    assert prove(duck.one, "FROM v", read)
    changed = "CREATE OR REPLACE VIEW v AS SELECT random() AS a"
    if how == "in a transaction":
        duck.other.execute(f"BEGIN; {changed}")
        assert prove(duck.one, "FROM v", read)  # for whom it is what it was
        duck.other.execute("COMMIT")
    else:
        (duck.other if how == "by another" else duck.one).execute(changed)
        reset(duck.one)
    for _ in range(6):
        assert not keeps(duck.one, "FROM v", read)


@pytest.mark.usefixtures("soon")
@READS
def test_duckdb_keeps_no_cursor_that_an_interrupt_may_wait_for(
    duck: Pair, monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    assert prove(duck.one, "SELECT 42 AS a", read)
    fetched = _duckdb_few_rows.columns_of

    def interrupted(described: Any) -> Any:
        duck.one.interrupt()  # type: ignore[attr-defined]  # when its rows are there: too late
        return fetched(described)

    before = cursor_of(duck.one)
    monkeypatch.setattr(_duckdb_few_rows, "columns_of", interrupted)
    assert read(duck.one, "SELECT 42 AS a") == [{"a": 42}]
    monkeypatch.undo()
    reset(duck.one)
    assert cursor_of(duck.one) is not before
    assert read(duck.one, "SELECT 42 AS a") == [{"a": 42}]


@READS
@pytest.mark.parametrize(
    ("setting", "sql"),
    [
        ("integer_division = true", "SELECT 7 / 2 AS a"),
        ("preserve_identifier_case = 'lowercase'", "SELECT 1 AS Big"),
        ("TimeZone = 'Asia/Tokyo'", "SELECT ('2026-01-01'::TIMESTAMPTZ)::VARCHAR AS a"),
    ],
)
@pytest.mark.parametrize("scope", ["", "GLOBAL"])
def test_duckdb_reads_a_known_text_as_each_connection_is_set(
    duck: Pair, read: Any, setting: str, sql: str, scope: str
) -> None:
    duck.one.execute("SET TimeZone = 'UTC'")
    duck.other.execute("SET TimeZone = 'UTC'")
    reset(duck.one)
    for _ in range(3):
        read(duck.one, sql)
        read(duck.other, sql)
    plain = read(duck.other, sql)
    duck.one.execute(f"SET {scope} {setting}")
    for number in range(4):
        assert read(duck.one, sql) == read(duck.one, f"{sql} -- {number}, not known")
        assert read(duck.other, sql) == read(duck.other, f"{sql} -- {number}, nor this")
    if not scope:
        assert read(duck.other, sql) == plain != read(duck.one, sql)
    duck.one.execute(f"RESET {scope} {setting.partition(' ')[0]}")
    reset(duck.one)
    for number in range(4):
        assert read(duck.one, sql) == read(duck.one, f"{sql} -- {number}, not known any more")


@pytest.mark.usefixtures("soon")
@READS
def test_duckdb_runs_a_known_text_in_several_threads(read: Any) -> None:
    database = DUCKDB.open({"threads": "1"})
    sql = (
        "SELECT a, count(*) AS n FROM (SELECT range % 7 AS a FROM range(100)) GROUP BY a ORDER BY a"
    )
    connections = [database.connect() for _ in range(4)]
    expected = read(connections[0], sql)
    together = threading.Barrier(len(connections))

    runs = 20 * _duckdb_shapes.WORTH

    def run(connection: Connection) -> list[Any]:
        together.wait()
        found = []
        for _ in range(runs):
            reset(connection)
            found.append(read(connection, sql))
        return found

    with ThreadPoolExecutor(len(connections)) as pool:
        assert all(found == [expected] * runs for found in pool.map(run, connections))
    for connection in connections:
        connection.close()
    database.close()


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
