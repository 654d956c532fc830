"""What is special about PostgreSQL; what all drivers share, the conformance checks ask."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from notebook_rpc.errors import (
    Cancelled,
    Conflict,
    DatabaseError,
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    NotSupported,
    QueryError,
    UnknownTable,
)
from notebook_rpc.model import Column, Table, Transaction

pytest.importorskip("psycopg", reason="needs the extra notebook_rpc[postgres]")

import psycopg

from notebook_rpc.sansio.sqltext import Statement
from notebook_rpc_drivers._postgres_rows import type_name
from notebook_rpc_drivers._postgres_sql import Prepared, first_word, parameter_text
from notebook_rpc_drivers._postgres_wire import Wire
from notebook_rpc_drivers.postgres import DRIVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.pq.abc import PGresult

    from notebook_rpc.driver import Connection, Database
    from notebook_rpc.model import Parameters
    from notebook_rpc_drivers._postgres_connection import Connection as PgConnection
    from tests.servers import Postgres

ENDLESS = "with recursive r(n) as (select 1 union all select 1 from r) select count(*) from r"


@pytest.fixture(scope="module")
def server(postgres_server: Postgres) -> Postgres:
    return postgres_server


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    database = DRIVER.open(server.properties)
    yield database
    database.close()


@pytest.fixture
def connection(server: Postgres) -> Iterator[PgConnection]:
    connection = DRIVER.open(server.properties).connect()
    connection.execute("drop schema public cascade; create schema public")
    yield connection
    connection.close()


@pytest.fixture
def reader(server: Postgres, connection: PgConnection) -> Iterator[PgConnection]:
    """A read-only one, beside ``connection``, which can write."""
    connection.execute("create table made (id integer); create sequence counter")
    reader = DRIVER.open(server.properties, read_only=True).connect()
    yield reader
    reader.close()


def rows(connection: Connection, sql: str, parameters: Parameters | None = None) -> list[Any]:
    return list(connection.execute(sql, parameters).fetch(10_000))


def value(connection: Connection, sql: str, parameters: Parameters | None = None) -> Any:
    ((found,),) = rows(connection, sql, parameters)
    return found


def text(connection: PgConnection, sql: str, parameters: Parameters | None = None) -> Any:
    """The only cell, as text."""
    (row,) = connection.execute_text(sql, parameters).fetch(10)
    (found,) = json.loads(row).values()
    return found


def state(connection: Connection) -> Transaction:
    return connection.transaction


def failure(call: Callable[[], object]) -> NotebookError:
    with pytest.raises(NotebookError) as caught:
        call()
    return caught.value


def interrupted(connection: PgConnection, call: Callable[[], object]) -> None:
    """Make *call* on a thread of its own and interrupt it until it ends with Cancelled."""
    outcome: list[str] = []

    def work() -> None:
        try:
            call()
        except NotebookError as exc:
            outcome.append(exc.slug)

    worker = threading.Thread(target=work)
    worker.start()
    while worker.is_alive():
        connection.interrupt()
        worker.join(0.005)
    assert outcome == [Cancelled.slug]


# --- Without a server


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1", "SELECT"),
        ("-- a\n/* b /* c */ */ ((VaLues (1)))", "VALUES"),
        ("$1", ""),
        ("'select'", ""),
        ("", ""),
    ],
)
def test_the_first_word_is_seen_through_comments_and_parentheses(sql: str, expected: str) -> None:
    assert first_word(sql) == expected


JSONB, INT_ARRAY = 3802, 1007


@pytest.mark.parametrize(
    ("given", "oid", "expected"),
    [
        (None, 0, None),
        (True, 0, "true"),
        (5, 0, "5"),
        (1.5, 0, "1.5"),
        (float("nan"), 0, "nan"),
        ("it's", 0, "it's"),
        ([1, None, [2.5, True]], INT_ARRAY, '{"1",NULL,{"2.5","true"}}'),
        (['a"b\\', "NULL", ""], 1009, r'{"a\"b\\","NULL",""}'),
        ([1, None, "é"], JSONB, '[1, null, "é"]'),
        ([{"a": 1}], 3807, r'{"{\"a\": 1}"}'),
        ({"a": [1]}, 0, '{"a": [1]}'),
    ],
)
def test_a_parameter_is_what_would_stand_between_quotes(
    given: object, oid: int, expected: str | None
) -> None:
    assert parameter_text(given, oid) == expected


@pytest.mark.parametrize("given", [b"", object(), {"a": float("nan")}, {"a": b""}])
def test_what_json_has_not_is_no_parameter(given: object) -> None:
    with pytest.raises(QueryError, match="parameter"):
        parameter_text(given)


def test_parameters_nested_too_deep_are_errors() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    for oid in (0, JSONB):
        with pytest.raises(QueryError, match="parameter"):
            parameter_text(nested, oid)


def test_a_position_is_found_again_behind_placeholders() -> None:
    statement = Statement("select :long_name, ':b', :b, nowhere", 100)
    prepared = Prepared.of(statement, {"long_name": 1, "b": 2})
    assert prepared.sql == "select $1, ':b', $2, nowhere"
    for word in ("select", "':b'", "nowhere"):
        sent = prepared.sql.index(word) + 2  # its second character, from 1
        assert prepared.locate(sent) == 100 + statement.text.index(word) + 2
    assert prepared.locate(prepared.sql.index("$2") + 2) == 100 + statement.text.index(", :b") + 3
    assert prepared.locate(None) is None
    assert Prepared.of(statement, None).locate(8) == 108


def test_names_of_builtin_types_need_no_server() -> None:
    assert type_name(23, -1) == "integer"
    assert type_name(1700, (10 << 16 | 2) + 4) == "numeric(10,2)"
    assert type_name(1043, 24) == "character varying(20)"
    assert type_name(INT_ARRAY, -1) == "integer[]"
    assert type_name(1114, 3) is None
    assert type_name(4_000_000, -1) is None


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"colour": "red"}, "property colour"),
        ({"replication": "database"}, "property replication"),
        ({"port": "many"}, "property port"),
        ({"host": "a\0b"}, "property host"),
        ({"connect_timeout": "soon"}, "connect_timeout"),
        ({"sslmode": "perhaps", "host": "127.0.0.1", "port": "1"}, "property sslmode"),
    ],
)
def test_a_wrong_property_is_named(properties: dict[str, str], expected: str) -> None:
    with pytest.raises(InvalidParams, match=expected):
        DRIVER.open(properties)


def test_a_wrong_address_is_noticed_at_once_and_the_password_kept() -> None:
    address = {"host": "127.0.0.1", "port": "1", "password": "secret"}
    exc = failure(lambda: DRIVER.open(address))
    assert type(exc) is DatabaseUnavailable
    assert "secret" not in str(exc)


# --- Opening


def test_a_wrong_database_is_unavailable(server: Postgres) -> None:
    given = {**server.properties, "database": "nowhere", "password": "secret"}
    with pytest.raises(DatabaseUnavailable, match="nowhere") as caught:
        DRIVER.open(given)
    assert "secret" not in str(caught.value)


def test_parameters_of_libpq_have_their_own_names(server: Postgres) -> None:
    options = "-c work_mem=1234kB -c datestyle=German"
    database = DRIVER.open({**server.properties, "application_name": "me", "options": options})
    with contextlib.closing(database.connect()) as connection:
        assert value(connection, "show application_name") == "me"
        assert value(connection, "show work_mem") == "1234kB"
        assert value(connection, "show datestyle").startswith("German")


def test_the_description_has_no_password(server: Postgres) -> None:
    database = DRIVER.open({**server.properties, "password": "secret"})
    assert database.description == f"PostgreSQL {server.database} at {server.host}:{server.port}"


# --- Statements


def test_statements_are_split_as_psql_does(connection: PgConnection) -> None:
    sql = r"""
        create table "a;b" (id integer); -- one; two
        create function five() returns integer begin atomic
            select case when true then 4 else 3 end; select 5; end;
        create function six() returns integer language plpgsql as $f$ begin return 6; end; $f$;
        select /* ; /* ; */ ; */ ';' || E'\';' || $$;'$$, five(), six() ;;"""
    assert rows(connection, sql) == [("; ';;'".replace(" ", ""), 5, 6)]


def test_each_statement_is_committed_in_its_own_right(connection: PgConnection) -> None:
    sql = "create table made (id integer); insert into made values (1); select 1/0; drop table made"
    exc = failure(lambda: connection.execute(sql))
    assert str(exc) == "statement 3 of 4: division by zero (after 2 that ran)"
    assert rows(connection, "select * from made") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("select @nowhere", None),
        ("/* é */ select 'x', @nowhere", None),
        ("select 1;\n select 2; -- é\n select 'é', @nowhere; select 4", None),
        ("insert into @nowhere values (1)", None),
        ("select :long_name, @nowhere", {"long_name": 1}),
        ("select $1, @nowhere, $1", [1]),
        ("select any_list = any($1), @nowhere from (select 1 as any_list) as s", [[1]]),
    ],
)
def test_an_error_says_where(
    connection: PgConnection, sql: str, parameters: Parameters | None
) -> None:
    position = sql.index("@") + 1
    exc = failure(lambda: connection.execute(sql.replace("@", ""), parameters))
    assert isinstance(exc, QueryError)
    assert exc.position == position
    assert exc.sqlstate in ("42703", "42P01")
    assert isinstance(exc, UnknownTable) == (exc.sqlstate == "42P01")
    assert "DECLARE" not in str(exc)


def test_an_error_without_a_place_has_none(connection: PgConnection) -> None:
    exc = failure(lambda: connection.execute("select 1/0"))
    assert (exc.sqlstate, exc.position) == ("22012", None)
    exc = failure(lambda: connection.execute("do $$ begin perform nowhere; end $$"))
    assert exc.position is None  # it is one in another text
    assert "CONTEXT" in str(exc)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08001", DatabaseError),  # dblink's: our own connection is whole
        ("0A000", NotSupported),
        ("23505", QueryError),
        ("40001", Conflict),
        ("40003", DatabaseError),
        ("53200", DatabaseError),
        ("55P03", DatabaseError),
        ("57014", QueryError),
        ("P0001", QueryError),
        ("XX000", DatabaseError),
    ],
)
def test_an_error_is_of_the_kind_its_sqlstate_says(
    connection: PgConnection, state: str, expected: type[NotebookError]
) -> None:
    sql = f"do $$ begin raise 'thus' using errcode = '{state}', hint = 'so'; end $$"
    exc = failure(lambda: connection.execute(sql))
    assert type(exc) is expected
    assert exc.sqlstate == state
    assert str(exc).startswith("thus\nHINT: so")
    assert value(connection, "select 1") == 1


@pytest.mark.parametrize("sql", ["copy made to stdout", "copy made from stdin"])
@pytest.mark.parametrize("before", ["", "select 1; "])
def test_there_is_no_client_to_copy_with(connection: PgConnection, sql: str, before: str) -> None:
    connection.execute("create table made (id integer)")
    connection.execute("insert into made select generate_series(1, 300000)")
    with pytest.raises(NotSupported, match="COPY"):
        connection.execute(before + sql)
    assert value(connection, "select count(*) from made") == 300_000


def test_a_copy_is_stopped_and_not_read_to_its_end(connection: PgConnection) -> None:
    endless = ENDLESS.replace("count(*)", "n")
    with pytest.raises(NotSupported, match="COPY"):
        connection.execute(f"copy ({endless}) to stdout")
    assert value(connection, "select 1") == 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_rows_that_nobody_wants_take_no_memory(connection: PgConnection) -> None:
    def peak() -> int:
        (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(line)

    Path("/proc/self/clear_refs").write_text("5")  # begin to measure anew
    before = peak()
    connection.execute("select repeat('x', 1000) from generate_series(1, 200000); select 1")
    assert peak() - before < 50_000  # of 200 MB


def test_listening_is_a_statement_and_notices_go_to_the_log(
    connection: PgConnection, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        connection.execute("listen here; notify here")
        connection.execute("do $$ begin raise warning 'careful'; end $$")
    assert {(record.levelname, record.message) for record in caplog.records} == {
        ("DEBUG", "notification on channel b'here'"),
        ("DEBUG", "WARNING: careful"),
    }


def test_a_statement_longer_than_the_socket_takes_at_once(connection: PgConnection) -> None:
    long = "x" * 20_000_000
    assert value(connection, f"select length('{long}')") == len(long)
    assert value(connection, "select length($1)", [long]) == len(long)


# --- Cursors


@pytest.mark.parametrize(
    "sql",
    [
        "select n from generate_series(1, 1000) as n",
        "(select generate_series(1, 1000))",
        "values " + ", ".join(f"({n})" for n in range(1, 1001)),
        "table thousand",
        "with s as (select id from thousand) select * from s order by id",
        "select id from thousand order by id for update",
    ],
)
def test_what_can_be_read_through_a_cursor_streams(connection: PgConnection, sql: str) -> None:
    connection.execute("create table thousand as select generate_series(1, 1000) as id")
    result = connection.execute(sql)
    assert result.streaming
    assert state(connection) is Transaction.NONE
    found = [result.fetch(n) for n in (1, 150, 848, 5)]
    assert [n for page in found for (n,) in page] == list(range(1, 1001))
    assert not result.streaming


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("insert into made values (7) returning id", [(7,)]),
        ("with w as (insert into made values (8) returning id) select * from w", [(8,)]),
        ("with w as (select 9 as n) insert into made select n from w returning id", [(9,)]),
        ("show server_encoding", [("UTF8",)]),
        ("prepare p as select 5; execute p", [(5,)]),
        ("select 10 as id into other; table other", [(10,)]),
    ],
)
@pytest.mark.parametrize("begin", [False, True])
def test_what_cannot_runs_once_and_spoils_nothing(
    connection: PgConnection, sql: str, expected: list[Any], begin: bool
) -> None:
    connection.execute("create table made (id integer)")
    if begin:
        connection.execute("begin; insert into made values (1)")
    assert rows(connection, sql) == expected
    assert state(connection) is (Transaction.OPEN if begin else Transaction.NONE)
    if begin:
        connection.execute("commit")
    counts = rows(connection, "select id, count(*) from made where id > 1 group by id")
    assert counts == ([(*expected[0], 1)] if "made" in sql else [])


def test_a_small_result_is_committed_by_the_time_it_is_there(
    server: Postgres, connection: PgConnection
) -> None:
    connection.execute("create table made (id integer)")
    connection.execute(
        "create function make() returns integer language sql as"
        " 'insert into made values (1) returning id'"
    )
    result = connection.execute("select make()")
    other = DRIVER.open(server.properties).connect()
    assert rows(other, "select * from made") == [(1,)]
    assert result.fetch(10) == [(1,)]
    other.close()


@pytest.mark.parametrize("read_to_the_end", [True, False])
def test_the_hidden_transaction_ends_with_the_result(
    server: Postgres, connection: PgConnection, read_to_the_end: bool
) -> None:
    connection.execute("set application_name = 'observed'")
    other = DRIVER.open(server.properties).connect()

    def activity() -> object:
        query = "select state from pg_stat_activity where application_name = 'observed'"
        return value(other, query)

    result = connection.execute("select generate_series(1, 1000)")
    assert (activity(), connection.transaction) == ("idle in transaction", Transaction.NONE)
    if read_to_the_end:
        result.fetch(1000)
    else:
        result.close()
    assert activity() == "idle"
    other.close()


def test_savepoints_work_around_cursors(connection: PgConnection) -> None:
    connection.execute("begin; create table made (id integer); savepoint one")
    result = connection.execute("select generate_series(1, 1000)")
    result.fetch(200)
    connection.tables()
    assert result.fetch(1) == [(201,)]
    failure(lambda: connection.execute("insert into made values (1), ('x')"))
    assert state(connection) is Transaction.FAILED
    failure(lambda: connection.execute("select 1"))
    connection.execute("rollback to one; insert into made values (2)")
    assert state(connection) is Transaction.OPEN
    assert rows(connection, "commit; select * from made") == [(2,)]
    assert state(connection) is Transaction.NONE


def test_an_error_of_a_later_row_ends_the_hidden_transaction(connection: PgConnection) -> None:
    result = connection.execute("select 1 / (500 - n) from generate_series(1, 1000) as n")
    with pytest.raises(QueryError, match="zero"):
        result.fetch(1000)
    assert state(connection) is Transaction.NONE
    assert value(connection, "select 1") == 1


def test_a_value_that_cannot_be_read_ends_the_hidden_transaction(connection: PgConnection) -> None:
    deep = "repeat('[', 5000) || repeat(']', 5000)"
    sql = f"select case when n = 500 then ({deep})::json end from generate_series(1, 5000) as n"
    result = connection.execute(sql)
    with pytest.raises(QueryError, match="cannot be read"):
        result.fetch(1000)
    assert value(connection, "select 1") == 1
    assert connection.rollback() is False


def test_a_selection_of_nothing_counts_its_rows(connection: PgConnection) -> None:
    result = connection.execute_text("select from generate_series(1, 1000)")
    assert (result.columns, result.count, result.fetch(5)) == ([], 1000, [])
    assert connection.execute("create table made as select generate_series(1, 7)").count == 7


def test_wide_rows_are_fetched_in_small_steps(connection: PgConnection) -> None:
    result = connection.execute("select repeat('x', 1000000) from generate_series(1, 200)")
    result.fetch(101)
    steps: list[int] = []
    fetch_more = connection.fetch_more

    def counted(wanted: int) -> tuple[PGresult, bool]:
        steps.append(wanted)
        return fetch_more(wanted)

    connection.fetch_more = counted  # type: ignore[method-assign]  # to look at the traffic
    assert len(result.fetch(200)) == 99
    assert steps
    assert max(steps) < 20


# --- Parameters


def test_parameters_have_the_types_of_their_places(connection: PgConnection) -> None:
    connection.execute("create table made (id integer, name text, j jsonb, a integer[])")
    insert = "insert into made values ($1, $2, $3, $4)"
    connection.execute(insert, ["5", 5, [1, {"x": None}], [1, None]])
    connection.execute(insert, [6, True, {"y": 1.5}, []])
    assert rows(connection, "select * from made where id = $1", [5]) == [
        (5, "5", [1, {"x": None}], [1, None])
    ]
    assert rows(
        connection, "select * from made where id = :id and name = :n", {"id": "6", "n": True}
    )
    assert rows(connection, "select id from made where id = any($1)", [[6, 7]]) == [(6,)]


def test_nothing_but_parameters_is_interpreted(connection: PgConnection) -> None:
    sql = "select '%s %(x)s % $1 ? :x' || $1, '{\"a\": 1}'::jsonb ? 'a', 7 % 4 -- $2 :y"
    assert rows(connection, sql, ["!"]) == [("%s %(x)s % $1 ? :x!", True, 3)]
    sql = "select '::'::text || :x, (array[1, 2, 3])[1:2], $$:y$$"
    assert rows(connection, sql, {"x": "!"}) == [("::!", [1, 2], ":y")]


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("select $1", None),
        ("select $1::int", []),
        ("select $1", [1, 2]),
        ("select :x", {"y": 1}),
        ("select $1::integer", ["x"]),
        ("select $1", ["\0"]),
        ("select $1", ["\ud800"]),
        ("select 1 in (" + ", ".join(f"${n + 1}" for n in range(65536)) + ")", [1] * 65536),
    ],
)
def test_wrong_parameters_are_errors_of_the_statement(
    connection: PgConnection, sql: str, parameters: Parameters | None
) -> None:
    with pytest.raises(QueryError):
        connection.execute(sql, parameters)
    assert value(connection, "select 1") == 1
    assert state(connection) is Transaction.NONE


# --- Values

INSTANT = "timestamptz '2020-01-02 03:04:05.6+02'"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("9223372036854775807", "9223372036854775807"),
        ("1234567890.12345678901234567890", "1234567890.12345678901234567890"),
        ("'NaN'::numeric", "NaN"),
        ("0.1::float4", "0.1"),
        ("'-infinity'::float8", "-Infinity"),
        ("true", "true"),
        ("date '10000-01-01'", "10000-01-01"),
        ("date '0044-03-15 BC'", "0044-03-15 BC"),
        ("timestamp '2020-01-02 03:04:05.6'", "2020-01-02T03:04:05.6"),
        ("timestamp 'infinity'", "infinity"),
        ("timestamptz '0044-03-15 01:02:03+00 BC'", "0044-03-15T01:02:03+00:00 BC"),
        (INSTANT, "2020-01-02T01:04:05.6+00:00"),
        (f"set timezone = 'Asia/Kolkata'; select {INSTANT}", "2020-01-02T06:34:05.6+05:30"),
        ("timetz '01:02:03+04'", "01:02:03+04:00"),
        ("interval '1 year 2 days -3 hours 4.5 seconds'", "P1Y2DT-2H-59M-55.5S"),
        (r"'\x00ff'::bytea", r"\x00ff"),
        (r"set bytea_output = 'escape'; select '\x005cff'::bytea", r"\x005cff"),
        ("set datestyle = 'German'; select timestamp '2020-01-02 03:04'", "02.01.2020 03:04:00"),
        ("set intervalstyle = 'postgres'; select interval '1 day'", "1 day"),
        ("set extra_float_digits = -15; select 0.123::float8", "0.1"),
        ("'{\"a\": [1.10, 12345678901234567890]}'::jsonb", '{"a": [1.10, 12345678901234567890]}'),
        ("array[array[1, null], array[3, 4]]", "[[1,null],[3,4]]"),
        ("array['NaN', 1.10]::numeric[]", '["NaN",1.10]'),
        ("array[timestamp 'infinity', '2020-01-02 03:04']", '["infinity","2020-01-02T03:04:00"]'),
        ("""array['{"a": 1.10}'::json]""", '[{"a":1.10}]'),
        ("row(1, 'a b')", '(1,"a b")'),
        ("int4range(1, 5)", "[1,5)"),
        ("null::integer", None),
    ],
)
def test_text_is_exact(connection: PgConnection, sql: str, expected: str | None) -> None:
    *before, last = sql.split("; select ")
    assert text(connection, "; ".join([*before, f"select {last}"])) == expected


def test_ones_own_types_have_names_and_their_arrays_are_lists(connection: PgConnection) -> None:
    connection.execute("create type mood as enum ('good', 'so, so'); create domain small as int")
    sql = "select 'good'::mood, array['good', 'so, so']::mood[], 5::small, '{a}'::varchar(3)[]"
    result = connection.execute_text(sql)
    kinds = [column.datatype for column in result.columns]
    assert kinds == ["mood", "mood[]", "integer", "character varying(3)[]"]
    (row,) = result.fetch(5)
    assert list(json.loads(row).values()) == ["good", '["good","so, so"]', "5", '["a"]']
    assert rows(connection, sql) == [("good", ["good", "so, so"], 5, ["a"])]


def test_values_without_a_type_in_python_stay_text(connection: PgConnection) -> None:
    sql = "select 1.50, '{\"a\": 1.10}'::json, interval '1 month', date 'infinity', '::1'::inet"
    (row,) = rows(connection, sql)
    assert row == (Decimal("1.50"), {"a": Decimal("1.10")}, "P1M", "infinity", "::1")


@pytest.mark.parametrize(
    "sql",
    [
        "date '0001-01-01 BC', date '-infinity'",
        "timestamp '294276-12-31 23:59:59.999999', timestamp 'infinity'",
        "timestamptz '0044-03-15 01:02:03+00 BC', timetz '24:00:00+02'",
        "array[timestamp '12000-01-02 03:04']",
    ],
)
def test_times_that_python_has_not_are_the_same_text_everywhere(
    connection: PgConnection, sql: str
) -> None:
    (line,) = connection.execute_text(f"select {sql}").fetch(2)
    found = [
        json.dumps(value, separators=(",", ":")) if isinstance(value, list) else value
        for (row,) in [rows(connection, f"select {sql}")]
        for value in row
    ]
    assert found == list(json.loads(line).values())


# --- The catalog


def test_the_catalog_has_every_kind_of_table_and_view(
    database: Database, connection: PgConnection
) -> None:
    other = database.connect()
    connection.execute(
        """create schema "Other"; create table "Other"."a'b" (id integer);
        create table parts (id integer, dropped text, n numeric(5, 2)[]) partition by range (id);
        alter table parts drop column dropped;
        create temp table passing (t timestamp(3) with time zone);
        create view seen as select 1 as n; create materialized view kept as select 1 as n;
        create sequence counter; create index on "Other"."a'b" (id)"""
    )
    other.execute("create temp table theirs (id integer)")
    at = "notebook"
    assert connection.tables() == [
        Table(at, "Other", "a'b"),
        Table(at, "pg_temp", "passing"),
        Table(at, "public", "parts"),
    ]
    assert connection.views() == [Table(at, "public", "kept"), Table(at, "public", "seen")]
    assert connection.columns("", "", "parts") == [
        Column(at, "public", "parts", "id", "integer"),
        Column(at, "public", "parts", "n", "numeric(5,2)[]"),
    ]
    assert connection.columns(at, "pg_temp", "") == [
        Column(at, "pg_temp", "passing", "t", "timestamp(3) with time zone")
    ]
    assert {column.table for column in connection.columns("", "", "")} == {
        *("a'b", "kept", "parts", "passing", "seen")
    }
    assert connection.columns("", "pg_catalog", "pg_class")[0].column == "oid"
    assert connection.columns("elsewhere", "", "") == []
    connection.execute('drop schema "Other" cascade')
    other.close()


def test_the_catalog_can_be_asked_in_a_failed_transaction(connection: PgConnection) -> None:
    connection.execute("create table made (id integer); begin")
    failure(lambda: connection.execute("select 1/0"))
    assert connection.tables() == [Table("notebook", "public", "made")]
    assert [column.column for column in connection.columns("", "", "made")] == ["id"]
    assert state(connection) is Transaction.FAILED


def test_a_timeout_of_the_catalog_spoils_no_transaction(connection: PgConnection) -> None:
    many = "; ".join(f"create table t{n} (id integer)" for n in range(300))
    connection.execute(f"begin; {many}; set local statement_timeout = 1")
    with contextlib.suppress(QueryError):  # quick machines make it in time
        for _ in range(20):
            connection.columns("", "", "")
    assert state(connection) is Transaction.OPEN
    connection.execute("set local statement_timeout = 0")
    assert len(connection.tables()) == 300


# --- Interrupts


def test_a_timeout_is_no_interrupt(connection: PgConnection) -> None:
    connection.execute("set statement_timeout = 20")
    with pytest.raises(QueryError, match="statement timeout"):
        connection.execute(ENDLESS)


def test_an_interrupt_fails_the_users_transaction_and_ends_ours(connection: PgConnection) -> None:
    interrupted(connection, lambda: connection.execute(ENDLESS))
    assert state(connection) is Transaction.NONE
    connection.execute("begin")
    interrupted(connection, lambda: connection.execute(ENDLESS))
    assert state(connection) is Transaction.FAILED
    assert connection.rollback() is True
    assert value(connection, "select 1") == 1


def test_a_call_does_not_end_before_its_interrupts_have_reached_the_server(
    server: Postgres,
) -> None:
    inside, leave, ended = threading.Event(), threading.Event(), threading.Event()
    telling, told = threading.Event(), threading.Event()

    class SlowToTell(psycopg.Connection[Any]):
        def cancel_safe(self, *, timeout: float = 30.0) -> None:
            telling.set()
            assert told.wait(timeout)

    wire = Wire(SlowToTell.connect(server.url))

    def call() -> None:
        with wire.calling():
            inside.set()
            leave.wait()
        ended.set()

    threads = [threading.Thread(target=call), threading.Thread(target=wire.interrupt)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    telling.wait()
    leave.set()
    assert not ended.wait(0.05)
    told.set()
    for thread in threads:
        thread.join()
    assert ended.is_set()
    wire.close()


def test_an_interrupt_never_hits_the_next_statement(connection: PgConnection) -> None:
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            connection.interrupt()

    hammers = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in hammers:
        thread.start()
    try:
        for _ in range(15):
            with pytest.raises(Cancelled):
                connection.execute(ENDLESS)
    finally:
        stop.set()
        for thread in hammers:
            thread.join()
    for _ in range(200):
        assert value(connection, "select 1") == 1


# --- Lost connections


def test_a_lost_connection_says_so(database: Database) -> None:
    connection, other = database.connect(), database.connect()
    pid = value(connection, "select pg_backend_pid()")
    connection.execute("begin")
    result = connection.execute("select generate_series(1, 1000)")
    value(other, "select pg_terminate_backend($1, 5000)", [pid])
    assert type(failure(lambda: result.fetch(1000))) is DatabaseUnavailable
    for call in (
        lambda: connection.execute("select 1"),
        connection.tables,
        connection.rollback,
    ):
        assert type(failure(call)) is DatabaseUnavailable
    assert state(connection) is Transaction.NONE
    connection.close()
    other.close()


def test_the_end_of_the_server_is_noticed_by_the_running_statement(database: Database) -> None:
    connection, other = database.connect(), database.connect()
    pid = value(connection, "select pg_backend_pid()")
    outcome: list[NotebookError] = []
    worker = threading.Thread(
        target=lambda: outcome.append(failure(lambda: connection.execute(ENDLESS)))
    )
    worker.start()
    assert value(other, "select pg_terminate_backend($1, 5000)", [pid])
    worker.join()
    assert type(outcome[0]) is DatabaseUnavailable
    connection.close()
    other.close()


def test_a_database_survives_its_servers_restart(server: Postgres, database: Database) -> None:
    connection = database.connect()
    server.restart()
    with pytest.raises(DatabaseUnavailable):
        connection.execute("select 1")
    connection.close()
    with contextlib.closing(database.connect()) as another:
        assert value(another, "select 1") == 1


def test_closing_ends_what_was_open(server: Postgres, connection: PgConnection) -> None:
    connection.execute("create table made (id integer)")
    other = DRIVER.open(server.properties).connect()
    other.execute("begin; lock table made")
    other.execute("select generate_series(1, 1000)").fetch(1)
    other.close()
    other.close()
    connection.execute("set lock_timeout = '10s'; drop table made")


# --- Read-only

WRITES = [
    "insert into made values (1)",
    "create table another (id integer)",
    "create temp table another (id integer)",
    "select nextval('counter')",
    "with w as (insert into made values (1) returning id) select * from w",
    "do $$ begin insert into made values (1); end $$",
    "explain analyze insert into made values (1)",
    "truncate made",
    "drop table made",
    "select 1 into another",
    "copy made from '/dev/null'",
    "vacuum made",
]
UNLOCKS = [
    "set default_transaction_read_only = off",
    "set session characteristics as transaction read write",
    "select set_config('default_transaction_read_only', 'off', false)",
    "set transaction read write",
    "set transaction_read_only = off",
    "set local transaction_read_only = off",
    "select set_config('transaction_read_only', 'off', false)",
    "do $$ begin set transaction read write; end $$",
    "do $$ begin set local transaction_read_only = off; insert into made values (1); end $$",
    "do $$ begin commit; set transaction read write; insert into made values (1); end $$",
    "reset all",
    "discard all",
    "begin read write",
    "begin; set transaction read write",
    "begin; select 1; set transaction read write",
    "begin; commit and chain; set transaction read write",
    "begin; rollback and chain; set transaction read write",
    "begin; savepoint a; set transaction read write",
    "begin; set transaction read only; rollback; set transaction read write",
    "start transaction isolation level serializable, read write",
    "begin read write; begin read write; set transaction read write",
    "commit; set transaction read write",
    "-- \rset transaction read write /*\nbegin */",
    "begin; -- \rset transaction read write /*\nbegin */",
]


@pytest.mark.parametrize("unlock", ["select 1", *UNLOCKS])
def test_read_only_cannot_be_undone(
    reader: PgConnection, connection: PgConnection, unlock: str
) -> None:
    for write in WRITES:
        with contextlib.suppress(NotebookError):
            reader.execute(unlock)
        with pytest.raises(NotebookError):
            reader.execute(write)
        with pytest.raises(NotebookError):
            reader.execute(f"{unlock}; {write}")
        reader.rollback()
    assert rows(connection, "select * from made") == []
    assert value(connection, "select is_called from counter") is False


def test_who_asks_for_writing_is_told(reader: PgConnection) -> None:
    for sql in ("set transaction read write", "begin; set transaction_read_only = off"):
        with pytest.raises(QueryError, match="read-write mode"):
            reader.execute(sql)
        reader.rollback()


def test_a_function_made_by_others_cannot_undo_it(
    reader: PgConnection, connection: PgConnection
) -> None:
    connection.execute(
        """create function sly() returns void language plpgsql
            set transaction_read_only = off as 'begin insert into made values (1); end';
        create procedure slyer() language plpgsql as
            'begin commit; set transaction read write; insert into made values (1); end'"""
    )
    for sql in ("select sly()", "call slyer()", "select 1; call slyer(); select 1"):
        with pytest.raises(QueryError):
            reader.execute(sql)
    assert rows(connection, "select * from made") == []


def test_reading_works_as_ever_when_read_only(
    reader: PgConnection, connection: PgConnection
) -> None:
    connection.execute("insert into made values (1)")
    assert state(reader) is Transaction.NONE
    assert rows(reader, "select * from made") == [(1,)]
    assert value(reader, "set work_mem = '1234kB'; show work_mem") == "1234kB"
    assert state(reader) is Transaction.NONE
    reader.execute("begin isolation level repeatable read read write; select 1")
    assert state(reader) is Transaction.OPEN
    assert value(reader, "show transaction_isolation") == "repeatable read"
    connection.execute("insert into made values (2)")
    assert rows(reader, "select * from made") == [(1,)]
    reader.execute("savepoint a")
    failure(lambda: reader.execute("select 1/0"))
    assert state(reader) is Transaction.FAILED
    assert rows(reader, "rollback to a; select * from made") == [(1,)]
    reader.execute("commit")
    assert state(reader) is Transaction.NONE
    result = reader.execute("select generate_series(1, 1000)")
    assert reader.tables() == [Table("notebook", "public", "made")]
    assert len(result.fetch(2000)) == 1000
