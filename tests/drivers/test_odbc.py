"""What the ODBC driver does beyond the contract: strings, errors, and other drivers' mistakes."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyodbc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.driver import SupportsInterrupt
from notebook_rpc.errors import (
    Cancelled,
    DatabaseError,
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    NotSupported,
    QueryError,
    UnknownTable,
)
from notebook_rpc.model import Table, Transaction
from notebook_rpc_drivers._odbc_errors import translated
from notebook_rpc_drivers._odbc_strings import connection_string, quoted
from notebook_rpc_drivers.odbc import DRIVER
from tests.support import missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from notebook_rpc_drivers.odbc import _Connection, _Database
    from tests.servers import MariaDB, Postgres

SECRET = "a;b}c{d e=f"


def opened(driver: str, properties: Mapping[str, str]) -> _Database:
    if driver not in pyodbc.drivers():
        missing(f"the ODBC driver {driver!r}")
    return DRIVER.open({"driver": driver, **properties})


@pytest.fixture
def postgres(postgres_server: Postgres) -> Iterator[_Connection]:
    connection = opened("PostgreSQL Unicode", postgres_server.properties).connect()
    yield connection
    connection.close()


@pytest.fixture
def mariadb(mariadb_server: MariaDB) -> Iterator[_Connection]:
    connection = opened("MariaDB Unicode", mariadb_server.properties).connect()
    yield connection
    connection.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[_Connection]:
    connection = opened("SQLite3", {"database": str(tmp_path / "db")}).connect()
    yield connection
    connection.close()


def value_of(connection: _Connection, sql: str, *parameters: object) -> Any:
    """The one value of the one row."""
    ((value,),) = connection.execute(sql, list(parameters) or None).fetch(2)
    return value


# Connection strings.


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        (
            {"driver": "A B", "host": "h", "port": "5", "username": "u", "password": "p"},
            "Driver={A B};Server=h;Port=5;UID=u;PWD=p",
        ),
        ({"driver": "}"}, "Driver={}}}"),
        ({"dsn": "mine", "Encrypt": "yes", "database": "d"}, "dsn=mine;Encrypt=yes;Database=d"),
        (
            {"driver": "ODBC Driver 18 for SQL Server", "host": "h", "port": "1433"},
            "Driver={ODBC Driver 18 for SQL Server};Server=h,1433",
        ),
        ({"dsn": "d", "password": "a;b}"}, "dsn=d;PWD={a;b}}}"),
        ({"dsn": "d", "password": "a%41"}, "dsn=d;PWD={a%41}"),
        ({"dsn": "d", "username": "a}b"}, "dsn=d;UID=a}b"),
        ({"dsn": "d", "password": "{a"}, "dsn=d;PWD={{a}"),
        ({"dsn": "d", "password": " a"}, "dsn=d;PWD={ a}"),
        ({"odbc_connect": "Driver={X};Server=h;"}, "Driver={X};Server=h"),
        ({"odbc_connect": "DSN=x", "password": "p"}, "DSN=x;PWD=p"),
        ({"odbc_connect": "DSN=x;Server=h", "host": "", "Empty": ""}, "DSN=x;Server=h;Empty="),
    ],
)
def test_properties_become_keywords(properties: dict[str, str], text: str) -> None:
    assert connection_string(properties).text == text


@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_value_in_braces_ends_where_it_should(value: str) -> None:
    string = connection_string({"dsn": "d", "password": value, "Next": "n"})
    assert string.get("next") == "n"
    assert (string.get("pwd") or "").strip() == value.strip()


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"dsn": "d", "a;b": "c"}, "a;b"),
        ({"dsn": "d", "a=b": "c"}, "a=b"),
        ({"dsn": "d", "": "c"}, ""),
        ({"odbc_connect": "DSN=d;UID=me", "username": "you"}, "username"),
        ({"host": "h", "Server": "other", "dsn": "d"}, "Server"),
        ({"host": "h"}, "driver"),
        ({"odbc_connect": "Server=h"}, "driver"),
        ({"dsn": "d", "login_timeout": "soon"}, "login_timeout"),
    ],
)
def test_properties_that_make_no_string_are_named(properties: dict[str, str], name: str) -> None:
    with pytest.raises(InvalidParams, match=f"property {name}:"):
        DRIVER.open(properties)


def test_a_null_character_would_end_the_string() -> None:
    with pytest.raises(InvalidParams, match="null"):
        DRIVER.open({"dsn": "d", "password": "a\0b"})


def test_defaults_do_not_replace_what_was_given() -> None:
    string = connection_string({"odbc_connect": "DSN=d;fetch=7"})
    assert string.with_defaults({"Fetch": "1000", "Protocol": "7.4-0"}) == (
        "DSN=d;fetch=7;Protocol=7.4-0"
    )


@pytest.mark.parametrize("password", [SECRET, "plain"])
def test_passwords_are_not_shown(password: str) -> None:
    for properties in (
        {"driver": "D", "host": "h", "password": password, "Token": f"t{password}"},
        {"odbc_connect": f"Driver={{D}};Server=h;PWD={quoted(password)}"},
    ):
        string = connection_string(properties)
        assert string.description == "ODBC driver=D; server=h"
        for text in (password, f"in PWD={quoted(password)};"):
            assert password not in string.redacted(f"failed: {text}")


def test_a_driver_that_is_missing_is_named_beside_those_that_are_there() -> None:
    with pytest.raises(DatabaseUnavailable, match=r"No Such.*installed are: ") as caught:
        DRIVER.open({"driver": "No Such", "password": SECRET})
    assert all(driver in str(caught.value) for driver in pyodbc.drivers())
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(DatabaseUnavailable, match=r"nowhere.*installed are: "):
        DRIVER.open({"dsn": "nowhere"})


def test_pooling_is_off_before_the_first_connection() -> None:
    with pytest.raises(DatabaseUnavailable):
        DRIVER.open({"dsn": "nowhere"})
    assert pyodbc.pooling is False


def test_read_only_is_not_pretended() -> None:
    with pytest.raises(NotSupported, match="login"):
        DRIVER.open({"dsn": "d"}, read_only=True)


def test_a_login_with_a_difficult_password(mariadb: _Connection, mariadb_server: MariaDB) -> None:
    mariadb.execute(f"create or replace user odd@'%' identified by '{SECRET}'")
    properties = {**mariadb_server.properties, "username": "odd", "database": ""}
    odd = opened("MariaDB Unicode", {**properties, "password": SECRET}).connect()
    assert value_of(odd, "select current_user()") == "odd@%"
    odd.close()
    with pytest.raises(DatabaseUnavailable, match="denied") as caught:
        opened("MariaDB Unicode", {**properties, "password": SECRET + "x"})
    assert SECRET not in str(caught.value)
    mariadb.execute("drop user odd@'%'")


@pytest.mark.parametrize("password", [SECRET, "a}b", "{a", "a b=c", "\u00e9\U0001f986", "%41+"])
def test_a_password_of_postgres(
    postgres: _Connection, postgres_server: Postgres, password: str
) -> None:
    rules = postgres_server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    postgres.execute("drop role if exists odd")
    postgres.execute(f"create role odd login password '{password}'")
    try:
        rules.write_text(f"host all odd 127.0.0.1/32 scram-sha-256\n{before}")
        value_of(postgres, "select pg_reload_conf()")
        properties = {**postgres_server.properties, "username": "odd"}
        for _ in range(1000):  # the server reads its file when it gets to it
            try:
                opened("PostgreSQL Unicode", properties)
            except DatabaseUnavailable:
                break
        odd = opened("PostgreSQL Unicode", {**properties, "password": password}).connect()
        assert value_of(odd, "select current_user") == "odd"
        odd.close()
    finally:
        rules.write_text(before)
        value_of(postgres, "select pg_reload_conf()")
        postgres.execute("drop role odd")


# Errors.

CASES: list[tuple[tuple[str, str], bool, type[NotebookError], str]] = [
    (
        ("42703", '[42703] ERROR: no "n";\nError while executing the query (1) (SQLExecDirectW)'),
        False,
        QueryError,
        'ERROR: no "n"',
    ),
    (
        ("42S02", "[42S02] [ma-3.1.15][10.11-MariaDB]No [table] (x) (1146) (SQLExecDirectW)"),
        False,
        UnknownTable,
        "No [table] (x) (1146)",
    ),
    (("HY000", '[HY000] [SQLite]near "x" (1) (1) (SQLExecDirectW)'), False, QueryError, 'near "x"'),
    (("HY000", "[HY000] [SQLite]locked (5) (5) (SQLExecute)"), False, DatabaseError, "locked"),
    (("23000", "[23000] [ma]Duplicate (1062) (SQLExecute)"), False, QueryError, "Duplicate (1062)"),
    (("HYC00", "[HYC00] not so (0) (SQLTables)"), False, NotSupported, "not so"),
    (("08S01", "[08S01] gone (35) (SQLTables)"), False, DatabaseUnavailable, "gone"),
    (("57P01", "[57P01] FATAL: end (35) (SQLFetch)"), False, DatabaseUnavailable, "FATAL: end"),
    (
        ("HY001", "[HY001] [ma-3.1.15]Server has gone away (2006) (SQLSetConnectAttr)"),
        False,
        DatabaseUnavailable,
        "Server has gone away (2006)",
    ),
    (("57014", "[57014] ERROR: stop (1) (SQLFetch)"), True, Cancelled, "ERROR: stop"),
    (("57014", "[57014] ERROR: stop (1) (SQLFetch)"), False, DatabaseError, "ERROR: stop"),
    (("HY018", "[HY018] [ma]stop (1317) (SQLExecute)"), True, Cancelled, "stop (1317)"),
    (("40P01", "[40P01] ERROR: deadlock (1) (SQLFetch)"), False, DatabaseError, "ERROR: deadlock"),
    (("22012", "[22012] ERROR: division (1) (SQLFetch)"), True, QueryError, "ERROR: division"),
]


@pytest.mark.parametrize(("arguments", "interrupted", "kind", "text"), CASES)
def test_the_state_says_what_it_was(
    arguments: tuple[str, str], interrupted: bool, kind: type[NotebookError], text: str
) -> None:
    found = translated(pyodbc.Error(*arguments), interrupted=interrupted, before="<", after=">")
    assert type(found) is kind
    assert str(found) == f"<{text}>"
    assert found.sqlstate == arguments[0]


def test_pyodbcs_own_errors_are_about_the_statement() -> None:
    found = translated(pyodbc.ProgrammingError("2 markers, but 1 parameter", "HY000"))
    assert (type(found), str(found)) == (QueryError, "2 markers, but 1 parameter")
    assert type(translated(ValueError("hour must be in 0..23"))) is QueryError


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_a_connection_that_was_cut_is_unavailable(
    server: str, request: pytest.FixtureRequest
) -> None:
    connection: _Connection = request.getfixturevalue(server)
    number = value_of(connection, connection.dbms.session)
    connection._database.say(f"{CUT[server]}".format(number))  # noqa: SLF001  # who else cuts it
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            connection.execute("select 1")
    with pytest.raises(DatabaseUnavailable):
        connection.tables()
    again = connection._database.connect()  # noqa: SLF001  # the same database
    assert value_of(again, "select 1") == 1
    again.close()


CUT = {"postgres": "select pg_terminate_backend({})", "mariadb": "kill {}"}


def test_an_error_has_its_state_and_no_password(postgres_server: Postgres) -> None:
    properties = {**postgres_server.properties, "password": SECRET}
    connection = opened("PostgreSQL Unicode", properties).connect()
    with pytest.raises(UnknownTable) as unknown:
        connection.execute(f"select '{SECRET}' from nowhere")
    assert unknown.value.sqlstate == "42P01"
    with pytest.raises(QueryError) as caught:
        connection.execute(f"select '{SECRET}'::int")
    assert SECRET not in str(caught.value)
    connection.close()


# Transactions.


def test_begin_takes_modes(postgres: _Connection) -> None:
    postgres.execute("begin isolation level serializable, read only")
    assert value_of(postgres, "show transaction_isolation") == "serializable"
    with pytest.raises(QueryError, match="read-only"):
        postgres.execute("create table made (id integer)")
    assert postgres.transaction is Transaction.FAILED
    postgres.execute("rollback")
    assert value_of(postgres, "show transaction_isolation") == "read committed"


def test_modes_that_are_wrong_begin_nothing(mariadb: _Connection) -> None:
    with pytest.raises(QueryError):
        mariadb.execute("start transaction with consistent snapshot")
    assert mariadb.transaction is Transaction.NONE


def test_a_second_begin_is_an_error_and_changes_nothing(sqlite: _Connection) -> None:
    sqlite.execute("begin; create table made (id integer)")
    with pytest.raises(QueryError, match="already"):
        sqlite.execute("begin")
    assert sqlite.transaction is Transaction.OPEN
    assert sqlite.rollback() is True
    assert sqlite.tables() == []


def test_a_chained_commit_begins_another_transaction(postgres: _Connection) -> None:
    postgres.execute("begin; create temp table made (id integer); commit and chain")
    assert postgres.transaction is Transaction.OPEN
    postgres.execute("insert into made values (1); rollback")
    assert value_of(postgres, "select count(*) from made") == 0


def test_rollback_to_mends_a_failed_transaction(postgres: _Connection) -> None:
    postgres.execute("begin; create temp table made (id integer); savepoint a")
    postgres.execute("insert into made values (1)")
    with pytest.raises(QueryError):
        postgres.execute("select nowhere")
    with pytest.raises(QueryError, match="aborted"):
        postgres.execute("select 1")
    states = [postgres.transaction]
    postgres.execute("rollback to a")
    assert [*states, postgres.transaction] == [Transaction.FAILED, Transaction.OPEN]
    postgres.execute("commit")
    assert value_of(postgres, "select count(*) from made") == 0


def test_what_only_the_driver_refuses_fails_no_transaction(postgres: _Connection) -> None:
    postgres.execute("begin")
    with pytest.raises(QueryError, match="none were given"):
        postgres.execute("select ?")
    with pytest.raises(QueryError, match="surrogates"):
        postgres.execute("select ?", ["\ud800"])
    assert postgres.transaction is Transaction.OPEN
    assert value_of(postgres, "select 1") == 1


def test_a_result_that_was_read_leaves_no_transaction_behind(postgres: _Connection) -> None:
    number = value_of(postgres, "select pg_backend_pid()")
    other = postgres._database.connect()  # noqa: SLF001  # the same database
    state = f"select state from pg_stat_activity where pid = {number}"
    assert value_of(other, state) == "idle"
    result = postgres.execute("select generate_series(1, 5000)")
    result.fetch(10)
    assert value_of(other, state) == "idle in transaction"
    result.close()
    assert value_of(other, state) == "idle"
    with pytest.raises(QueryError, match="zero"):
        postgres.execute("select 1 / (2000 - n) from generate_series(1, 5000) n").fetch(5000)
    assert value_of(other, state) == "idle"
    other.close()


# Where PostgreSQL's driver is helped.


def test_statements_that_write_may_look_like_queries(postgres: _Connection) -> None:
    postgres.execute("create temp table made (id integer)")
    adding = "with a as (insert into made values (1) returning id) select id from a"
    assert value_of(postgres, adding) == 1
    assert postgres.execute("with a as (select 2) insert into made select * from a").count == 1
    assert postgres.execute("select id into temp other from made").count == 2
    assert value_of(postgres, "select count(*) from other") == 2


@pytest.mark.parametrize("sql", ["copy pg_class to stdout", "COPY made FROM STDIN"])
def test_a_copy_to_the_client_is_refused(postgres: _Connection, sql: str) -> None:
    with pytest.raises(NotSupported, match="COPY"):
        postgres.execute(sql)


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("select true", True),
        ("select '6b86b273-ff34-4ce1-9d6b-804eff5a3f57'::uuid", uuid.UUID),
        ("select 4294967295::oid", 4294967295),
        ("select 'NaN'::numeric", "NaN"),
        ("select 'Infinity'::numeric", "Infinity"),
        (f"select {'9' * 50}.{'9' * 20}", Decimal(f"{'9' * 50}.{'9' * 20}")),
        ("select '-Infinity'::float8", float("-inf")),
        ("select '\\x00ff'::bytea", b"\0\xff"),
        ("select '12:30:15.123456'::time", datetime.time(12, 30, 15, 123456)),
        ("select '{\"a\": [1]}'::jsonb", '{"a": [1]}'),
        ("select '{1,2}'::int[]", "{1,2}"),
        ("select '1 day 02:00'::interval", "1 day 02:00:00"),
        ("select repeat('\U0001f986', 300000)", "\U0001f986" * 300_000),
        ("select null::uuid", None),
    ],
)
def test_values_of_postgres(postgres: _Connection, sql: str, value: object) -> None:
    found = value_of(postgres, sql)
    if isinstance(value, type):
        assert type(found) is value
    elif isinstance(found, Decimal) and isinstance(value, str):
        assert str(found) == value
    else:
        assert (type(found), found) == (type(value), value)


def test_a_value_that_python_cannot_hold_is_an_error_of_the_query(postgres: _Connection) -> None:
    with pytest.raises(QueryError, match="hour"):
        postgres.execute("select '24:00'::time").fetch(1)
    assert value_of(postgres, "select '24:00'::time::text") == "24:00:00"


def test_types_have_the_databases_names(postgres: _Connection, mariadb: _Connection) -> None:
    sql = "select 1::bigint a, 1.5::numeric(5, 2) b, 'x'::varchar(3) c, '[1,2)'::int4range d"
    assert [column.datatype for column in postgres.execute(sql).columns] == [
        *("int8", "numeric", "varchar", ""),
    ]
    sql = "select 1 a, cast(1 as decimal(5, 2)) b, 'x' c, cast('12:00' as time) d"
    assert [column.datatype for column in mariadb.execute(sql).columns] == [
        *("integer", "decimal", "varchar", "time"),
    ]


# Where MariaDB's driver is helped.


@pytest.mark.parametrize(
    "sql",
    [
        *("values (1), (2)", "(values (1))", "( /* a */ ( -- b\n values (1)))", "help 'x'"),
        *("/*!50000 select 1 */", "/*M! select 1 */", "xa recover", "handler a read first"),
        *("repair table a", "optimize table a", "set statement max_statement_time=1 for select 1"),
        *("alter table a optimize partition p", "cache index a in b", "# a\nvalues (1)"),
        "load data local infile '/etc/hostname' into table a",
    ],
)
def test_statements_that_would_crash_the_process_are_refused(
    mariadb: _Connection, sql: str
) -> None:
    with pytest.raises(NotSupported, match="crashes"):
        mariadb.execute(sql)


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("(select 1)", [(1,)]),
        ("# a comment\nselect 1 -- ?", [(1,)]),
        ("with a as (select 1) select * from a", [(1,)]),
        ("select 1 where false", []),
        ("begin not atomic select 1; select 2; end", [(1,)]),
        ("begin not atomic values (1), (2); end", [(1,), (2,)]),
        ('select \'?\', "it\\"s ?" /* ? */', [("?", 'it"s ?')]),
    ],
)
def test_statements_with_rows(mariadb: _Connection, sql: str, rows: list[object]) -> None:
    assert mariadb.execute(sql).fetch(10) == rows
    assert value_of(mariadb, "select 1") == 1


@pytest.mark.parametrize(
    ("kind", "literal", "value"),
    [
        ("int unsigned", "4294967295", 4294967295),
        ("bigint unsigned", "18446744073709551615", 18446744073709551615),
        ("bigint", "-9223372036854775808", -9223372036854775808),
        ("decimal(65, 30)", f"{'9' * 35}.{'1' * 30}", Decimal(f"{'9' * 35}.{'1' * 30}")),
        ("float", "0.1", 0.1),
        ("tinyint(1)", "2", 2),
        ("bit(1)", "b'1'", True),
        ("bit(20)", "b'101'", b"\0\0\x05"),
        ("year", "2024", 2024),
        ("time(6)", "'12:30:15.000001'", datetime.time(12, 30, 15, 1)),
        ("time", "'-838:59:59'", "-838:59:59"),
        ("date", "'0000-00-00'", "0000-00-00"),
        ("datetime", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00"),
        ("datetime(6)", "'9999-12-31 23:59:59.999999'", datetime.datetime.max),
        ("enum('a', 'b')", "'b'", "b"),
        ("uuid", "'6b86b273-ff34-4ce1-9d6b-804eff5a3f57'", "6b86b273-ff34-4ce1-9d6b-804eff5a3f57"),
        ("longtext", "repeat('\U0001f986', 300000)", "\U0001f986" * 300_000),
        ("longtext", "'a\\0b'", "a\0b"),
        ("longblob", "x'00ff'", b"\0\xff"),
    ],
)
def test_values_of_mariadb(mariadb: _Connection, kind: str, literal: str, value: object) -> None:
    mariadb.execute("set sql_mode = ''")
    mariadb.execute(f"create or replace temporary table made (v {kind})")
    mariadb.execute(f"insert into made values ({literal})")
    found = value_of(mariadb, "select v from made")
    assert (type(found), found) == (type(value), value)


# SQLite.


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("select 9223372036854775807", 9223372036854775807),
        ("select -9223372036854775808", -9223372036854775808),
        ("select 1.5", 1.5),
        ("select '\U0001f986'", "\U0001f986"),
        ("select x'00ff'", b"\0\xff"),
        ("select cast(x'ff61' as text)", b"\xffa"),
        ("select 'not a date' as d", "not a date"),
        ("select null", None),
    ],
)
def test_values_of_sqlite(sqlite: _Connection, sql: str, value: object) -> None:
    found = value_of(sqlite, sql)
    assert (type(found), found) == (type(value), value)


def test_a_column_of_sqlite_may_hold_anything(sqlite: _Connection) -> None:
    sqlite.execute("create table made (v integer, d date)")
    sqlite.execute("insert into made values (1, 'yesterday'), ('x', 2), (1.5, null)")
    rows = sqlite.execute("select v, d from made").fetch(10)
    assert rows == [(1, "yesterday"), ("x", "2"), (1.5, None)]


def test_names_of_sqlite_arrive_whole(sqlite: _Connection) -> None:
    sqlite.execute('create table "\u00e9\U0001f986" ("\u8868" integer)')
    assert sqlite.tables() == [Table("", "main", "\u00e9\U0001f986")]
    (column,) = sqlite.columns("", "", "\u00e9\U0001f986")
    assert column.column == "\u8868"
    (found,) = sqlite.execute('select 1 as "\u8868 \U0001f986"').columns
    assert found.column == "\u8868 \U0001f986"
    with pytest.raises(QueryError, match="\u8868"):
        sqlite.execute('select "\u8868\u8868" from \u8868')


@pytest.mark.parametrize("sql", ["values (1), (2)", "insert into made values (1) returning id"])
def test_rows_that_would_be_dropped_are_refused(sqlite: _Connection, sql: str) -> None:
    sqlite.execute("create table made (id integer)")
    with pytest.raises(NotSupported, match="rows"):
        sqlite.execute(sql)
    assert value_of(sqlite, "select count(*) from made") == 0


def test_only_what_can_be_interrupted_says_so(
    postgres: _Connection, mariadb: _Connection, sqlite: _Connection
) -> None:
    assert isinstance(postgres, SupportsInterrupt)
    assert isinstance(mariadb, SupportsInterrupt)
    assert not isinstance(sqlite, SupportsInterrupt)


# Parameters.


@pytest.mark.parametrize("server", ["postgres", "mariadb", "sqlite"])
def test_parameters_mean_themselves(server: str, request: pytest.FixtureRequest) -> None:
    connection: _Connection = request.getfixturevalue(server)
    connection.execute("create temporary table made (a bigint, b varchar(50), c numeric(30))")
    row = [-(2**63), "'; drop table made; --?", 2**64]
    connection.execute("insert into made values (?, ?, ?)", row)
    connection.execute("insert into made values (:a, :b, :a)", {"a": None, "b": "\U0001f986"})
    (first, second) = connection.execute("select a, b, c from made order by b").fetch(5)
    assert first[:2] == (-(2**63), "'; drop table made; --?")
    assert server == "sqlite" or first[2] == 2**64
    assert second == (None, "\U0001f986", None)


@pytest.mark.parametrize("value", [[1], {"a": 1}, "a\0b", "\ud800"])
def test_parameters_that_cannot_be_carried_are_refused(sqlite: _Connection, value: object) -> None:
    with pytest.raises(QueryError):
        sqlite.execute("select ?", [value])
    assert value_of(sqlite, "select 1") == 1


# The catalog.


def test_the_systems_own_tables_come_when_they_are_asked_for(
    postgres: _Connection, mariadb: _Connection
) -> None:
    assert not [table for table in postgres.tables() if table.schema.startswith("pg_")]
    assert postgres.columns("", "pg_catalog", "pg_class")
    assert postgres.columns("", "", "pg_class") == []
    assert not [table for table in mariadb.tables() if table.catalog == "mysql"]
    assert mariadb.columns("mysql", "", "user")


def test_another_sessions_temporary_tables_are_not_listed(postgres: _Connection) -> None:
    other = postgres._database.connect()  # noqa: SLF001  # the same database
    other.execute("create temp table theirs (id integer)")
    assert "theirs" in {table.table for table in other.tables()}
    assert "theirs" not in {table.table for table in postgres.tables()}
    assert postgres.columns("", "", "theirs") == []
    other.close()


def test_the_catalog_does_not_wait_for_the_rows_of_an_open_result(postgres: _Connection) -> None:
    """A holdable cursor is run to its end when its transaction commits; this one would take
    a day."""
    result = postgres.execute("select pg_sleep(case when n > 1000 then 1 else 0 end)"
                              " from generate_series(1, 100000) n")  # fmt: skip
    result.fetch(10)
    postgres.tables()
    postgres.columns("", "", "")
    assert len(result.fetch(10)) == 10
    result.close()
