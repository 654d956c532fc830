"""What DuckDB does beyond the contract: exact text, nothing run twice, a true catalog."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import duckdb
import pytest

from notebook_rpc.errors import (
    Cancelled,
    DatabaseError,
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    QueryError,
)
from notebook_rpc.model import Column, ResultColumn, Table, Transaction
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers.duckdb import Database


@pytest.fixture
def database() -> Iterator[Database]:
    database = DRIVER.open({"threads": "2"})
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    yield connection
    connection.close()


@contextmanager
def held(path: str, *, read_only: bool) -> Iterator[int]:
    """Another process has the file open during the block; its id."""
    code = f"""if True:
        import duckdb
        duckdb.connect({path!r}).close()
        holder = duckdb.connect({path!r}, read_only={read_only})
        print("held", flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.communicate(b"\n")


def cells(connection: Connection, sql: str) -> list[object]:
    """The text of the only row."""
    (row,) = connection.execute_text(sql).fetch(2)
    return list(json.loads(row).values())


def tables(connection: Connection) -> set[str]:
    return {table.table for table in connection.tables()}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("null", None),
        ("true", "true"),
        ("170141183460469231731687303715884105727::hugeint", str(2**127 - 1)),
        ("12345678901234567890.1234567890::decimal(30, 10)", "12345678901234567890.1234567890"),
        ("0.1::float", "0.1"),
        ("1e300", "1e+300"),
        ("'nan'::double", "NaN"),
        ("'inf'::float", "Infinity"),
        ("'-inf'::double", "-Infinity"),
        ("null::double", None),
        ("'\\xAB\\x00z'::blob", "\\xab007a"),
        ("null::blob", None),
        ("date '2026-02-28'", "2026-02-28"),
        ("date 'infinity'", "infinity"),
        ("time '01:02:03.000004'", "01:02:03.000004"),
        ("timestamp_ns '2026-02-28 01:02:03.123456789'", "2026-02-28 01:02:03.123456789"),
        ("interval '1 month 2 days'", "1 month 2 days"),
        ("uuid '00000000-0000-0000-0000-000000000001'", "00000000-0000-0000-0000-000000000001"),
        ("'b'::enum('a', 'b')", "b"),
        ("'10'::bit", "10"),
        ("[1, null]", "[1,null]"),
        ("{'a': 'x', 'b': [1.50::decimal(30, 2)]}", '{"a":"x","b":[1.50]}'),
        ("[9007199254740993.01::decimal(18, 2), null]", "[9007199254740993.01,null]"),
        ("map {'k': 1}", '{"k":1}'),
        ("row(1, 'x')", '[1,"x"]'),
        ("array_value(1, 2)", "[1,2]"),
        ("union_value(num := 2)", '{"num":2}'),
        ("{'a': 1}::variant", '{"a":1}'),
        ("'{\"a\": 1}'::json", '{"a": 1}'),
        ("'POINT (1 2)'::geometry", "POINT (1 2)"),
        ("'\U0001f986' || chr(0)", "\U0001f986\0"),
    ],
)
def test_the_text_of_a_value(connection: Connection, sql: str, expected: str | None) -> None:
    assert cells(connection, f"select {sql}") == [expected]


def test_every_type_there_is_has_a_text_and_a_value(connection: Connection) -> None:
    text = connection.execute_text("from test_all_types()")
    rows = [json.loads(row) for row in text.fetch(5)]
    assert len(rows) == 3
    assert {type(value) for value in rows[0].values()} == {str}
    assert set(rows[2].values()) == {None}
    native = connection.execute("from test_all_types()")
    assert len(native.fetch(5)) == 3
    assert native.columns == text.columns


def test_what_python_cannot_hold_comes_as_text(connection: Connection) -> None:
    sql = """select 1 as n, timestamptz '2026-02-28 00:00:00+00' as at, 0.5::decimal(2, 1) as d,
        timestamp_ns '2026-02-28 01:02:03.123456789' as exact"""
    connection.execute("set timezone = 'UTC'")
    assert connection.execute(sql).fetch(2) == [
        (1, "2026-02-28 00:00:00+00", Decimal("0.5"), "2026-02-28 01:02:03.123456789")
    ]


def test_columns_have_the_engine_s_types(connection: Connection) -> None:
    result = connection.execute_text("select 1 as a, 1.5::decimal(4, 2) as b, [{'x': 1}] as c")
    assert result.columns == [
        ResultColumn("a", "INTEGER"),
        ResultColumn("b", "DECIMAL(4,2)"),
        ResultColumn("c", "STRUCT(x INTEGER)[]"),
    ]


def test_any_name_will_do(connection: Connection) -> None:
    sql = """select 1 as "a'b""c\\", 2 as r, 3 as c0, 4 as A, 5 as a, 6 as a"""
    assert connection.execute_text(sql).fetch(2) == [
        '{"a\'b\\"c\\\\":"1","r":"2","c0":"3","A":"4","a":"5","a_1":"6"}'
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 as n ; -- done;",
        "select 1 as n /* ; */;;",
        "select 1 as n -- end",
        "; select 1 as n",
    ],
)
def test_semicolons_and_comments_around(connection: Connection, sql: str) -> None:
    assert connection.execute_text(sql).fetch(2) == ['{"n":"1"}']


def test_parameters_reach_inside_and_lists_are_values(connection: Connection) -> None:
    sql = "with w as (select $who as who) select who, $n as n from w limit $most"
    parameters = {"who": "a'b", "n": [1, 2], "most": 1}
    assert connection.execute_text(sql, parameters).fetch(2) == ['{"who":"a\'b","n":"[1,2]"}']


@pytest.mark.parametrize("parameters", [[], [1, 2], {"x": 1}, [2**200]])
def test_wrong_parameters_are_errors(connection: Connection, parameters: object) -> None:
    with pytest.raises(QueryError):
        connection.execute_text("select ?", parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("insert into t values (7), (8)", 2),
        ("update t set a = a + 1", 3),
        ("delete from t where a > 1", 2),
        ("create table u as from t", 3),
        ("create table u (a integer)", 0),
        ("begin", 0),
        ("set threads = 2", 0),
        ("checkpoint", 0),
        ("prepare p as select 1", 0),
        ("prepare p as insert into t values (1); execute p", 1),
    ],
)
def test_what_has_no_rows_has_a_count(connection: Connection, sql: str, count: int) -> None:
    connection.execute("create table t as select unnest([1, 2, 3]) as a")
    for execute in (connection.execute, connection.execute_text):
        connection.execute("begin")
        result = execute(sql if sql not in ("begin", "checkpoint") else f"commit; {sql}")
        assert (result.columns, result.count, result.fetch(1)) == ([], count, [])
        connection.rollback()
        connection.execute("deallocate prepare p") if sql.startswith("prepare") else None


@pytest.mark.parametrize(
    "sql",
    [
        'insert into t values (4) returning a as "Count"',
        'prepare p as select 4 as "Count"; execute p',
        'with w as (insert into t values (4) returning a) select a as "Count" from w',
    ],
)
def test_rows_that_look_like_a_count_are_rows(connection: Connection, sql: str) -> None:
    connection.execute("create table t (a bigint)")
    result = connection.execute_text(sql)
    assert [column.column for column in result.columns] == ["Count"]
    assert (result.count, result.fetch(2)) == (-1, ['{"Count":"4"}'])


@pytest.mark.parametrize("text", [True, False])
def test_nothing_runs_twice_and_everything_runs_to_its_end(
    connection: Connection, text: bool
) -> None:
    execute = connection.execute_text if text else connection.execute
    connection.execute("create sequence s; create table t (a integer)")
    execute("select nextval('s') from range(10000); select nextval('s') as n")
    execute("insert into t values (1) returning a").close()
    assert connection.execute("select currval('s'), (select count(*) from t)").fetch(2) == [
        (10001, 1)
    ]


def test_a_syntax_error_anywhere_runs_nothing_and_says_so(connection: Connection) -> None:
    with pytest.raises(QueryError, match=r"(?s)syntax error.*\(nothing ran\)"):
        connection.execute("create table t (a integer); selec 1")
    assert tables(connection) == set()
    with pytest.raises(QueryError, match="syntax error") as caught:
        connection.execute("selec ';';; -- no more")
    assert "ran" not in str(caught.value)


def test_errors_show_the_client_s_sql_and_never_ours(connection: Connection) -> None:
    with pytest.raises(QueryError, match=r"(?s)LINE 1: selec 1.*\^"):
        connection.execute_text("selec 1")
    with pytest.raises(QueryError) as caught:
        connection.execute_text("select (range || 'x')::integer from range(3)").fetch(3)
    assert str(caught.value) == "Conversion Error: Could not convert string '0x' to INT32"
    with pytest.raises(QueryError, match=r"a\n\nLINE 1: b"):
        connection.execute_text("select error('a' || chr(10) || chr(10) || 'LINE 1: b')").fetch(1)


@pytest.mark.parametrize(
    ("sql", "message", "position"),
    [
        ("select 1; select 2; selec 3", "statement 3 of 3: Parser", 21),
        ("select ';'; selec 2;\n select 3", "statement 2 of 3: Parser", 13),
        ("select 1;\r\n\tselec 2; select '\u00e9'; ", "statement 2 of 3: Parser", 13),
        ("select '\u65e5\u672c;' -- ;\n;;select '\U0001f986' frm a b;", "statement 2 of 2: P", 36),
        (f"select 1; select {'1+' * 100} 2 zz yy xx; select 3", "statement 2 of 3: Pars", 224),
        ("select 1; select '", "statement 2 of 2: Parser", 18),
        (";\n selec 1", "Parser", 4),
        ("select '\u65e5' frm a a a", "Parser", None),  # which of them?
        ("select 1; select '\u65e5' frm a a a", "Parser", None),
    ],
)
def test_a_syntax_error_has_its_place(
    connection: Connection, sql: str, message: str, position: int | None
) -> None:
    with pytest.raises(QueryError, match=f"^{message}") as caught:
        connection.execute(sql)
    assert caught.value.position == position


def test_a_long_tail_of_semicolons_is_nothing(connection: Connection) -> None:
    started = time.thread_time()
    for end in (";", "; ", ";\r\n"):
        assert connection.execute_text("select 1 as n" + end * 300_000).fetch(2) == ['{"n":"1"}']
    assert time.thread_time() - started < 1  # it was one second for each


MACROS = """
    create macro json_object(a, b) as '{"evil"'; create macro to_json(a) as 'evil';
    create macro isfinite(a) as false; create macro isnan(a) as true;
    create macro lower(a) as 'evil'; create macro hex(a) as 'evil';
    create macro "||"(a, b) as 'evil'; create macro ">"(a, b) as false;
    create macro current_database() as 'evil';
    create macro duckdb_tables() as table select 'evil' as database_name, '' as schema_name,
        'evil' as table_name, false as internal;
    create macro duckdb_views() as table select 'evil' as database_name, '' as schema_name,
        'evil' as view_name, false as internal;
    create macro duckdb_columns() as table select 'evil' as database_name, '' as schema_name,
        'evil' as table_name, 'evil' as column_name, 'evil' as data_type, 1 as column_index,
        false as internal"""


@pytest.mark.parametrize("temp", ["", "temp "])
def test_macros_do_not_change_what_our_own_sql_says(connection: Connection, temp: str) -> None:
    connection.execute("create table kept (a integer); create view seen as from kept")
    connection.execute(MACROS.replace("create macro", f"create {temp}macro"))
    assert cells(connection, "select 1") == ["1"]
    sql = "select 1.5::double, 'inf'::float, 'nan'::double, '\\xAB'::blob, null::blob, [1]"
    assert cells(connection, sql) == ["1.5", "Infinity", "NaN", "\\xab", None, "[1]"]
    assert connection.tables() == [Table("memory", "main", "kept")]
    assert connection.views() == [Table("memory", "main", "seen")]
    assert [column.column for column in connection.columns("", "", "")] == ["a", "a"]


@pytest.mark.parametrize("kind", ["table", "temp table", "view"])
@pytest.mark.parametrize("sql", ["pragma version", "call pragma_version()"])
def test_a_result_that_is_kept_is_no_table_of_the_user_s(
    connection: Connection, kind: str, sql: str
) -> None:
    connection.execute(f"create {kind} kept as select 7 as a, 8 as b")
    for _ in range(2):
        (row,) = connection.execute_text(sql).fetch(2)
        assert json.loads(row)["library_version"].startswith("v")
    assert connection.execute_text("from kept").fetch(2) == ['{"a":"7","b":"8"}']


def test_a_full_disk_is_not_the_statement_s_fault(tmp_path: Path) -> None:
    database = DRIVER.open({"database": str(tmp_path / "small.db")})
    connection = database.connect()
    connection.execute("create table t (a varchar); begin")
    connection.execute("insert into t select hash(range) from range(100000)")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))  # bytes
    try:
        with pytest.raises(DatabaseError, match="Could not write file") as commit:
            connection.execute("commit")
        with pytest.raises(DatabaseError, match="Could not write file") as copy:
            connection.execute(f"copy (from range(1000000)) to '{tmp_path}/out.csv'")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [type(caught.value) for caught in (commit, copy)] == [DatabaseError, DatabaseError]
    connection.close()
    database.close()


def test_a_constraint_that_fails_at_commit_is_the_statement_s_fault(
    database: Database, connection: Connection
) -> None:
    connection.execute("create table t (a varchar primary key)")
    other = database.connect()
    for each in (connection, other):
        each.execute("begin; insert into t values ('Could not write')")
    connection.execute("commit")
    with pytest.raises(QueryError, match="Failed to commit"):
        other.execute("commit")
    other.close()


def test_a_statement_newer_than_its_list_of_types_is_refused(connection: Connection) -> None:
    with pytest.raises(DatabaseError, match="not a valid StatementType"):
        connection.execute("update extensions (nosuch)")


def test_sql_does_not_read_python_variables(connection: Connection) -> None:
    with pytest.raises(QueryError, match="Table with name statement does not exist"):
        connection.execute("select * from statement")  # a variable of the driver


def test_rows_stream(connection: Connection) -> None:
    result = connection.execute_text("select range as n from range(1000000000000)")
    assert result.fetch(2) == ['{"n":"0"}', '{"n":"1"}']
    assert result.streaming


def test_a_failed_transaction_says_so_until_it_is_rolled_back(connection: Connection) -> None:
    connection.execute("begin; create table t (a integer)")
    with pytest.raises(QueryError):
        connection.execute("select error('now')")
    with pytest.raises(QueryError, match="ROLLBACK"):
        connection.execute_text("select 1")
    assert connection.rollback() is True
    assert connection.execute("select 1").fetch(2) == [(1,)]


def test_the_state_of_a_transaction_is_the_engine_s(connection: Connection) -> None:
    def state_after(sql: str) -> Transaction:
        try:
            connection.execute(sql).fetch(1)
        except QueryError:
            assert not sql.startswith("begin")
        return connection.transaction

    fatal = "select error('late')"
    assert state_after(fatal) is Transaction.NONE
    assert state_after("begin") is Transaction.OPEN
    assert state_after("select nowhere") is Transaction.OPEN  # the binder's errors are harmless
    assert state_after("select 1") is Transaction.OPEN  # and to have asked is no hindrance
    assert state_after(fatal) is Transaction.FAILED
    assert state_after("rollback") is Transaction.NONE


@pytest.mark.parametrize("end", ["commit", "END", "commit; select 1"])
def test_a_failed_transaction_is_never_said_to_be_committed(
    connection: Connection, end: str
) -> None:
    connection.execute("create table t (n integer primary key)")
    connection.execute("begin; insert into t values (1)")
    with pytest.raises(QueryError):
        connection.execute("insert into t values (1)")
    with pytest.raises(QueryError, match="the transaction had failed and was rolled back"):
        connection.execute(end)
    assert connection.transaction is Transaction.NONE
    assert cells(connection, "select count(*) from t") == ["0"]


def test_a_failed_transaction_has_the_catalog_of_before(connection: Connection) -> None:
    connection.execute("create table kept (a integer); create view seen as from kept")
    with pytest.raises(QueryError):
        connection.execute("begin; create table t (a integer); select error('now')")
    assert connection.tables() == [Table("memory", "main", "kept")]
    assert connection.views() == [Table("memory", "main", "seen")]
    assert [column.table for column in connection.columns("", "", "")] == ["kept", "seen"]
    with pytest.raises(QueryError, match="ROLLBACK"):
        connection.execute("select 1")


class TestCatalogWhileAResultIsOpen:
    ROWS = "select * from range(2000000)"

    def test_it_has_what_others_have_committed_meanwhile(
        self, database: Database, connection: Connection
    ) -> None:
        result = connection.execute_text(self.ROWS)
        result.fetch(1)
        other = database.connect()
        other.execute("create table late (id integer, name varchar); create view seen as from late")
        assert connection.tables() == [Table("memory", "main", "late")]
        assert connection.views() == [Table("memory", "main", "seen")]
        assert connection.columns("memory", "main", "late") == [
            Column("memory", "main", "late", "id", "INTEGER"),
            Column("memory", "main", "late", "name", "VARCHAR"),
        ]
        other.close()

    @pytest.mark.parametrize(
        "sql",
        [
            "create temp table mine (a integer)",
            "create temp view mine as select 1 as a",
            "explain analyze create temp table mine as select 1 as a",
            "begin; create temp table mine (a integer); commit",
            'create TEMPORARY table "mine" (a integer)',
        ],
    )
    def test_it_has_what_is_temporary(self, connection: Connection, sql: str) -> None:
        connection.execute_text(self.ROWS).fetch(1)
        connection.execute(f"create table kept (a integer); {sql}")
        connection.execute_text(self.ROWS).fetch(1)
        found = [*connection.tables(), *connection.views()]
        assert sorted(found) == [Table("memory", "main", "kept"), Table("temp", "main", "mine")]
        assert connection.columns("temp", "", "mine") == [
            Column("temp", "main", "mine", "a", "INTEGER")
        ]
        assert connection.columns("memory", "", "mine") == []
        kind = "view" if "view" in sql else "table"
        connection.execute(f"drop {kind} mine")
        connection.execute_text(self.ROWS).fetch(1)
        assert tables(connection) == {"kept"}
        assert connection.views() == []

    def test_what_is_not_there_is_not_looked_for(self, connection: Connection) -> None:
        wide = ", ".join(f"c{number} integer" for number in range(500))
        made = "; ".join(f"create table t{number} ({wide})" for number in range(100))
        connection.execute(f"begin; {made}; commit")

        def seconds(sql: str) -> float:
            started = time.perf_counter()
            connection.execute(sql).close()
            return time.perf_counter() - started

        with_ddl = min(seconds("create or replace table u (a integer); select 1") for _ in "123")
        connection.execute("create temp table passing (a integer); drop table passing")
        looking = min(seconds("create or replace table u (a integer); select 1") for _ in "123")
        assert with_ddl < looking / 2

    def test_a_table_dropped_in_the_transaction_is_gone_for_it_alone(
        self, database: Database, connection: Connection
    ) -> None:
        connection.execute("create table kept (a integer); begin; drop table kept")
        connection.execute_text(self.ROWS).fetch(1)
        assert tables(connection) == set()
        other = database.connect()
        assert tables(other) == {"kept"}
        other.close()
        connection.rollback()
        connection.execute_text(self.ROWS).fetch(1)
        assert tables(connection) == {"kept"}

    def test_interrupting_a_catalog_call_does_not_spoil_it(self, connection: Connection) -> None:
        result = connection.execute_text(self.ROWS)
        result.fetch(1)
        connection.tables()  # makes the sibling
        stop = threading.Event()

        def interrupt() -> None:
            while not stop.is_set():
                connection.interrupt()

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        interrupted = 0
        try:
            for _ in range(30):
                try:
                    connection.columns("", "", "")
                except Cancelled:
                    interrupted += 1
        finally:
            stop.set()
            interrupter.join()
        assert interrupted
        assert sum(len(page) for page in iter(lambda: result.fetch(100_000), [])) == 1_999_999


def test_progress_goes_from_nothing_to_one(connection: Connection) -> None:
    assert connection.progress() is None
    seen: set[float | None] = set()
    sql = "select count(*) from range(200000000) where hash(range) % 7 = 9"
    worker = threading.Thread(target=lambda: connection.execute_text(sql).fetch(1))
    worker.start()
    while worker.is_alive():
        seen.add(connection.progress())
        worker.join(0.005)
    found = sorted(value for value in seen if value is not None)
    assert found[0] >= 0
    assert found[-1] <= 1
    assert sum(0.1 < value < 0.9 for value in found) > 3
    assert connection.progress() is None


class TestOpening:
    @pytest.mark.parametrize(
        ("properties", "name"),
        [
            ({"nosuch": "1"}, "nosuch"),
            ({"threads": "many"}, "threads"),
            ({"threads": "2", "access_mode": "sideways"}, "access_mode"),
            ({"host": "example.org"}, "host"),
        ],
    )
    def test_a_wrong_property_is_named(self, properties: dict[str, str], name: str) -> None:
        with pytest.raises(InvalidParams, match=f"property {name}:"):
            DRIVER.open(properties)

    def test_no_property_is_named_when_memory_is_short(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def short(*_: object, **__: object) -> None:
            raise duckdb.OutOfMemoryException("Failed to allocate block of 16384 bytes")

        monkeypatch.setattr(duckdb, "connect", short)
        with pytest.raises(DatabaseUnavailable, match=r"^Failed to allocate"):
            DRIVER.open({"threads": "2"})

    def test_a_property_is_duckdb_s_own_option(self) -> None:
        database = DRIVER.open({"threads": "1", "lock_configuration": "true"})
        connection = database.connect()
        assert cells(connection, "select current_setting('threads')") == ["1"]
        assert connection.progress() is None
        with pytest.raises(QueryError, match="locked"):
            connection.execute("set threads = 2")
        connection.close()
        database.close()

    def test_who_holds_the_file_is_told_and_what_to_do(self, tmp_path: Path) -> None:
        file = {"database": str(tmp_path / "held.duckdb")}
        for read_only, remedy in ((False, "end it first"), (True, "can be opened read-only")):
            with (
                held(file["database"], read_only=read_only) as pid,
                pytest.raises(DatabaseUnavailable, match=rf"\(PID {pid}\): .*{remedy}"),
            ):
                DRIVER.open(file)
        with held(file["database"], read_only=True):
            DRIVER.open(file, read_only=True).close()

    def test_read_only_is_the_engine_s(self, tmp_path: Path) -> None:
        file = {"database": str(tmp_path / "a.duckdb")}
        with pytest.raises(DatabaseUnavailable):
            DRIVER.open(file, read_only=True)
        database = DRIVER.open(file)
        database.connect().execute("create table t as select 7 as n")
        database.close()
        database = DRIVER.open(file, read_only=True)
        connection = database.connect()
        assert cells(connection, "from t") == ["7"]
        for sql in ("insert into t values (8)", "drop table t"):
            with pytest.raises(QueryError, match="read-only mode"):
                connection.execute(sql)
        for sql in (
            f"attach '{tmp_path}/b.duckdb'",
            f"copy t to '{file['database']}' (format csv)",
            f"export database '{tmp_path}/exported'",
            "set enable_external_access = true",
        ):
            with pytest.raises(QueryError):
                connection.execute(sql)
        connection.close()
        database.close()
        assert [path.name for path in tmp_path.iterdir()] == ["a.duckdb"]

    @pytest.mark.parametrize(
        "properties", [{}, {"database": ":memory:x"}, {"database": "a", "access_mode": "automatic"}]
    )
    def test_what_cannot_be_read_only_is_refused(self, properties: dict[str, str]) -> None:
        with pytest.raises(InvalidParams, match="read-only"):
            DRIVER.open(properties, read_only=True)

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(DatabaseUnavailable, match=r"IO Error"):
            DRIVER.open({"database": str(tmp_path / "no" / "such.db")})
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(DatabaseUnavailable, match=f"{path} is not a regular file"):
                DRIVER.open({"database": str(path)})
        broken = tmp_path / "broken.db"
        broken.write_bytes(b"not a database" * 1000)
        with pytest.raises(DatabaseUnavailable, match="not a valid DuckDB database file"):
            DRIVER.open({"database": str(broken), "threads": "2"})

    @pytest.mark.parametrize("path", [os.fsdecode(b"/no/\xff.db"), "/no/\0.db"])
    def test_a_path_that_is_none_is_named(self, path: str) -> None:
        with pytest.raises(InvalidParams, match="property database"):
            DRIVER.open({"database": path})

    def test_a_database_that_was_detached_can_be_closed(self, tmp_path: Path) -> None:
        path = tmp_path / "o\"n'e.db"
        database = DRIVER.open({"database": str(path)})
        connection = database.connect()
        connection.execute("create table t as select 1 as a; attach ':memory:' as o; use o")
        connection.execute('detach "o""n\'e"')
        connection.close()
        database.close()
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    def test_what_was_committed_is_in_the_file_after_close(self, tmp_path: Path) -> None:
        path = tmp_path / "a b.db"
        database = DRIVER.open({"database": str(path)})
        assert database.description == f"DuckDB {path}"
        connection = database.connect()
        connection.execute("pragma disable_checkpoint_on_shutdown")
        connection.execute("create table t as select 1 as a; begin; insert into t values (2)")
        connection.close()
        database.close()
        assert [file.name for file in tmp_path.iterdir()] == ["a b.db"]  # no log to replay
        database = DRIVER.open({"database": str(path), "access_mode": "READ_ONLY"})
        connection = database.connect()
        assert cells(connection, "select sum(a) from t") == ["1"]
        assert connection.execute_text("pragma version").fetch(1)  # needs nothing written
        with pytest.raises(QueryError, match="read-only"):
            connection.execute("insert into t values (3)")
        connection.close()
        database.close()


def test_not_a_number_survives_natively(connection: Connection) -> None:
    ((value,),) = connection.execute("select 'nan'::double").fetch(2)
    assert math.isnan(value)


def test_every_failure_is_ours(connection: Connection) -> None:
    for sql in (
        "select * from read_csv('/no/such')",
        "attach '/no/such/dir/x.db'",
        "call nosuch()",
    ):
        with pytest.raises(NotebookError):
            connection.execute(sql)
