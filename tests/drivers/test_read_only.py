"""Read-only connections beside others that write: nothing that a client sends changes anything."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import pytest

from notebook_rpc.driver import SupportsReadOnly
from notebook_rpc.errors import Cancelled, NotebookError, NotSupported, QueryError
from notebook_rpc.model import Line, Table, Transaction
from notebook_rpc_drivers import _duckdb_read_only as rules
from notebook_rpc_drivers import duckdb as duckdb_driver
from notebook_rpc_drivers import odbc, postgres, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from notebook_rpc.driver import Connection, Database
    from tests.servers import Postgres


def rows(connection: Connection, sql: str) -> list[Any]:
    result = connection.execute(sql)
    found = list(result.fetch(10_000))
    result.close()
    return found


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(QueryError) as caught:
        call()
    return str(caught.value)


def everything(writer: Connection, folder: Path, queries: Sequence[str]) -> object:
    """What a reader must not change: rows, settings, and files but for what keeps them."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".csv"}
    return files, writer.tables(), writer.views(), [rows(writer, query) for query in queries]


# What a client may put in front of a write and behind it, to have it taken for something else.
AROUND = [
    *("{}", "/* a */ {} -- b", "select 1; {}", "{}; select 1", "begin; {}; commit", "commit; {}"),
    *("rollback; {}", "explain {}", "explain analyze {}", "explain (analyze) {}", "( {} )"),
    *("begin transaction read write; {}", "prepare p as {}; execute p", "select ({})"),
]


# --- DuckDB

DUCK_STATE = [
    "from t",
    "select last_value from duckdb_sequences()",
    "select name, value from duckdb_settings() where name <> 'memory_limit' order by name",
    "select database_name, path from duckdb_databases() order by all",
    "select function_name from duckdb_functions() where not internal",
    "select extension_name, loaded from duckdb_extensions()",
]
DUCK_WRITES = [
    *("insert into t values (2)", "update t set x = 2", "delete from t", "truncate t"),
    *(
        "insert into t values (2) returning x",
        "merge into t using t u on false when matched then delete",
    ),
    *("create table n (x int)", "create or replace table t as select 5 as x", "drop table t"),
    *("create temp table n (x int)", "create view n as select 1", "create macro n() as 1"),
    *("create temp macro n() as 1", "create sequence n", "create schema n", "create type n as int"),
    *("alter table t add y int", "comment on table t is 'x'", "create index n on t (x)"),
    *(
        "select nextval('s')",
        "select setval('s', 7)",
        "from t order by nextval('s')",
        "from counted",
    ),
    "with w as (insert into t values (2) returning x) from w",
    "from query('select nextval(''s'')')",
    "from json_execute_serialized_sql(json_serialize_sql('select nextval(''s'')'))",
    "pragma json_execute_serialized_sql(json_serialize_sql('select nextval(''s'')'))",
    "from json_execute_serialized_sql(json_serialize_sql('from enable_logging()'))",
    *("from enable_logging()", "call enable_logging()", "from logged", "from logging()"),
    *("from query('from enable_logging()')", "select (select count(*) from enable_logging())"),
    *("from summary((from enable_logging()))", "from t where x in (select 1 from logged)"),
    *("from t, lateral (from enable_logging())", "summarize from enable_logging()"),
    "from enable_logging(storage = 'file', storage_path = '{folder}/log.csv')",
    *("from enable_profiling(save_location = '{folder}/p.csv')", "pragma enable_profiling"),
    *("from checkpoint()", "from force_checkpoint()", "checkpoint", "vacuum", "analyze"),
    "from register_external_resource_type('a', 'b', 'c', 'd', 'e', 'f', 'g')",
    *("copy t to '{folder}/o.csv'", "copy (from t) to '{folder}/o.csv' (format parquet)"),
    *("copy (pivot t on x) to '{folder}/o.csv'", "copy t from '{folder}/in.csv'"),
    *(
        "export database '{folder}/out.csv'",
        "import database '{folder}'",
        "copy from database a to b",
    ),
    *("attach '{folder}/b.csv' as b", "attach ':memory:' as b", "detach a", "use memory"),
    *("set threads = 1", "set global threads = 1", "reset threads", "pragma threads = 1"),
    *("set session search_path = 'temp'", "set variable v = 1", "pragma disable_optimizer"),
    *("install httpfs", "load json", "force install json", "update extensions"),
    *("create secret n (type duckdb)", "prepare p as select 1", "execute p", "deallocate p"),
    *(
        "begin",
        "begin transaction read only",
        "commit",
        "rollback",
        "abort",
        "call pragma_version()",
    ),
    "create table n as pivot t on x",
    "pivot (from enable_logging()) on x",
    "set access_mode = 'read_write'",
]


class Duck(NamedTuple):
    writer: Connection
    reader: Any
    folder: Path


@pytest.fixture(scope="module")
def duck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Duck]:
    """One database for all tests: none of them changes it."""
    folder = tmp_path_factory.mktemp("duck")
    (folder / "in.csv").write_text("x\n1\n")
    database = duckdb_driver.DRIVER.open({"database": str(folder / "a.duckdb"), "threads": "2"})
    writer, reader = database.connect(), database.connect_read_only()
    writer.execute(
        """create table t as select 1 as x; create sequence s;
        create view counted as select nextval('s') from t;
        create view logged as from enable_logging();
        create macro logging() as table from enable_logging()"""
    )
    yield Duck(writer, reader, folder)
    reader.close()
    writer.close()
    database.close()


@pytest.mark.parametrize("write", DUCK_WRITES)
def test_duckdb_lets_nothing_through(duck: Duck, write: str) -> None:
    writer, reader, folder = duck
    before = everything(writer, folder, DUCK_STATE)
    for around in AROUND:
        sql = around.format(write.replace("{folder}", str(folder)))
        assert failure(lambda: reader.execute(sql)), sql  # noqa: B023
        assert reader.transaction is Transaction.NONE
        assert reader.rollback() is False
    assert everything(writer, folder, DUCK_STATE) == before
    assert rows(reader, "from t") == [(1,)]


def forms_of_rows() -> Iterator[str]:
    return (name for name in dir(rules.ReadOnlyConnection) if name.startswith("execute"))


@pytest.mark.parametrize("name", sorted({*forms_of_rows()} - {"execute_page", "execute_parquet"}))
def test_duckdb_lets_nothing_through_in_whatever_form_the_rows_are_wanted(
    duck: Duck, name: str
) -> None:
    writer, reader, folder = duck
    execute = getattr(reader, name)
    if name == "execute_lines":
        execute = partial(execute, line=Line.CSV)
    before = everything(writer, folder, DUCK_STATE)
    for write in ("insert into t values (2)", "from logged", f"copy t to '{folder}/o.csv'"):
        assert "ead" in failure(lambda: execute(write))  # noqa: B023
    assert everything(writer, folder, DUCK_STATE) == before
    result = execute("from range(3000)")
    result.close()
    assert reader.rollback() is False


def test_duckdb_lets_nothing_through_into_parquet(duck: Duck, tmp_path: Path) -> None:
    writer, reader, folder = duck
    file = str(tmp_path / "rows.parquet")
    before = everything(writer, folder, DUCK_STATE)
    for write in ("insert into t values (2)", "from logged", f"copy t to '{folder}/o.csv'"):
        assert "ead" in failure(lambda: reader.execute_parquet(write, None, file))  # noqa: B023
    assert everything(writer, folder, DUCK_STATE) == before
    assert reader.execute_parquet("from range(3000)", None, file).rows == 3000
    assert reader.rollback() is False


def test_nor_by_pages(duck: Duck) -> None:
    writer, reader, folder = duck
    before = everything(writer, folder, DUCK_STATE)
    for write in (
        *("insert into t values (2)", "insert into t values (2) returning x", "from logged"),
        *(f"copy t to '{folder}/o.csv'", "from t) limit 1; drop table t; from (t", "from counted"),
    ):
        assert reader.execute_page(write, None, 0, 1) is None
        part = reader.part(write, 0, 1)
        assert part is None or failure(lambda: reader.execute(part))  # noqa: B023
        assert reader.rollback() is False
    assert everything(writer, folder, DUCK_STATE) == before


def test_a_page_and_its_number_are_read_in_one_transaction(duck: Duck) -> None:
    _, reader, _ = duck
    page = reader.execute_page("from range(10000)", None, 10, 3)
    assert page.fetch(9) == ["[10]", "[11]", "[12]"]
    assert page.fetch(9) == []
    with pytest.raises(duckdb.Error, match="read-only"):
        reader.cursor.execute("insert into t values (2)")
    page = reader.execute_page("from range(10000)", None, 10, 3)
    while page.fetch(9):
        continue
    assert page.total() == 10_000
    page.close()
    assert reader.rollback() is False
    assert rows(reader, "from t") == [(1,)]


def test_a_duckdb_reader_uploads_nothing(duck: Duck) -> None:
    before = everything(duck.writer, duck.folder, DUCK_STATE)
    with pytest.raises(QueryError, match="a read-only connection takes no uploads"):
        duck.reader.upload("", "t", b"")
    assert everything(duck.writer, duck.folder, DUCK_STATE) == before


def test_duckdb_says_why(duck: Duck) -> None:
    reader = duck.reader
    for sql, why in (
        ("copy t to 'x'", "a read-only connection can run queries, and no COPY statement"),
        ("update extensions", "a read-only connection can run queries, and nothing else"),
        ("select 1; drop table t", r"statement 2 of 2: .* no DROP statement \(nothing ran\)"),
        ("explain analyze copy t to 'x'", "can have queries explained, and nothing else"),
        ("explain insert into t (x) select 1", "can have queries explained, and nothing else"),
        ("explain (analyze) insert into t (x) select 1", "have queries explained, and nothing"),
        ("pivot t on x", r"needs the values of a PIVOT: ON column IN \(1, 2\)"),
        ("from logged", "cannot run enable_logging: it is not known to only read"),
        ("select nextval('s')", "transaction is launched in read-only mode"),
    ):
        assert re.search(why, failure(lambda: reader.execute(sql)))  # noqa: B023


def test_duckdb_points_at_the_place_in_what_was_sent(duck: Duck) -> None:
    reader = duck.reader
    for sql, place in (
        ("select y from t", "\n\nLINE 1: select y from t\n               ^"),
        ("select" + "\n" * 9 + " y from t", "\n\nLINE 10:  y from t\n          ^"),
        ("select" + "\n" * 8 + " y from t", "\n\nLINE 9:  y from t\n         ^"),
        ("select 1; select y", "\n\nLINE 1: select y\n               ^ (nothing ran)"),
    ):
        assert failure(lambda: reader.execute(sql)).endswith(place)  # noqa: B023
    with pytest.raises(QueryError) as caught:
        reader.execute("select 1; selec")
    assert caught.value.position == 11


QUERIES = [
    *(
        "from t",
        "table t",
        "values (1)",
        "select 1; select 2",
        "describe t",
        "show tables",
        "show all tables",
    ),
    *(
        "summarize t",
        "show databases",
        "explain from t",
        "explain analyze from t",
        "explain (from t)",
    ),
    *("explain (analyze, format json) from t", "/* a */ explain /* b */ analyze (from t) -- c"),
    *("pivot t on x in (1, 2) using count(*)", "unpivot (select 1 as a, 2 as b) on a, b"),
    "with recursive r as (select 1 as a union all select a + 1 from r where a < 3) from r",
    "with r as materialized (from t) from r, r as q",
    *(
        "from t join t u using (x)",
        "from t left join t u on t.x < u.x",
        "from t semi join t u using (x)",
    ),
    *("from t asof join t u on t.x >= u.x", "from t positional join t u", "from t, t u, t v"),
    *(
        "from t t1 join t t2 on t1.x < t2.x and t1.x + 1 > t2.x",
        "from t where x < (select avg(x) from t)",
    ),
    *(
        "from t order by x limit 2",
        "from t order by x",
        "from t limit 10%",
        "from t using sample 3",
    ),
    *(
        "from t tablesample 10%",
        "select x, row_number() over () from t",
        "select count(distinct x) from t",
    ),
    *("select x, sum(x) over (partition by x order by x) from t", "select 1 union select 2"),
    *(
        "select x, count(*) from t group by rollup (x)",
        "select 1 except select 2",
        "select unnest([1, 2])",
    ),
    *(
        "from t, unnest([x])",
        "from t, range(x)",
        "from t, json_each('[1]')",
        "from t, lateral (select x)",
    ),
    *(
        "from summary((from t))",
        "select query from (select 1 as query)",
        "from histogram(t, x)",
    ),
    *("from '{folder}/in.csv'", "from read_text('{folder}/in.csv')", "from glob('{folder}/*')"),
    *(
        "from sniff_csv('{folder}/in.csv')",
        "from information_schema.tables",
        "from pg_catalog.pg_class",
    ),
    *(
        "from duckdb_logs",
        "from duckdb_settings()",
        "from pragma_table_info('t')",
        "from duckdb_functions()",
    ),
    *(
        "from t where false",
        "select list_transform([1], lambda a: a + 1)",
        "from generate_series(1, 3)",
    ),
    *("select current_setting('threads')", "from (values (1), (2)) v(a) where a in (1, 2)"),
]


@pytest.mark.parametrize("query", QUERIES)
def test_duckdb_reads_what_it_reads_elsewhere(duck: Duck, query: str) -> None:
    writer, reader, folder = duck
    query = query.format(folder=folder)
    expected, found = writer.execute(query), reader.execute(query)
    assert found.columns == expected.columns
    if not re.search("analyze|sample|duckdb_", query):
        assert sorted(map(str, found.fetch(3000))) == sorted(map(str, expected.fetch(3000)))
    found.close()
    assert reader.rollback() is False


@pytest.mark.parametrize(
    "sql",
    [
        "from query('from t')",
        "from query_table('t')",
        "from t, QUERY ('select 1')",
        "from system.main.\"query\" /* here */ ('from t')",
        "select (select count(*) from query(case when random() < 2 then 'from t' end))",
        "explain from \"Query_Table\" ('t')",
    ],
)
def test_text_that_becomes_sql_is_refused(duck: Duck, sql: str) -> None:
    """It is computed twice, for the judge and for the engine, and need not be the same."""
    assert "query() and query_table()" in failure(lambda: duck.reader.execute(sql))


def test_duckdb_s_table_functions_are_all_judged() -> None:
    """One that is new in the engine is to be looked at, and put in the list if it only reads."""
    with duckdb.connect() as connection:
        found = connection.execute(
            "select distinct function_name from duckdb_functions() where function_type = 'table'"
        )
        names = {name for (name,) in found.fetchall()}
    refused = {
        *(
            "arrow_scan",
            "arrow_scan_dumb",
            "pandas_scan",
            "python_arrow_scan",
            "python_map_function",
        ),
        *("query", "query_table"),  # see above
        *("checkpoint", "force_checkpoint", "json_execute_serialized_sql", "truncate_duckdb_logs"),
        *("enable_logging", "disable_logging", "enable_profiling", "disable_profiling"),
        *("create_external_resource", "destroy_external_resource", "duckdb_external_resources"),
        *(
            "register_external_resource",
            "register_external_resource_type",
            "deregister_external_resource",
        ),
    }
    assert names - rules.READS == refused


def test_parameters_are_judged_with_the_query(duck: Duck) -> None:
    reader = duck.reader
    assert list(reader.execute("select x, $1::int from t where x = $1", [1]).fetch(9)) == [(1, 1)]
    assert list(reader.execute("select $a::int", {"a": 5}).fetch(9)) == [(5,)]
    failure(lambda: reader.execute("from query($1)", ["from enable_logging()"]))
    failure(lambda: reader.execute("select $1"))


def test_a_duckdb_result_streams_beside_the_catalog_and_ends_its_transaction(
    duck: Duck,
) -> None:
    writer, reader, _ = duck
    result = reader.execute_text("from range(5000) r(i)")
    assert [json.loads(row) for row in result.fetch(2)] == [{"i": "0"}, {"i": "1"}]
    assert reader.tables() == [Table("a", "main", "t")]
    assert [each.column for each in reader.columns("", "", "t")] == ["x"]
    writer.execute("create table later as select 2 as x")
    assert len(result.fetch(5000)) == 4998
    assert result.fetch(1) == []
    assert reader.rollback() is False
    assert rows(reader, "from later") == [(2,)]
    writer.execute("drop table later")
    for _ in range(20):  # a stream that is left in its middle is not in the way of the next
        reader.execute("from range(100000)").fetch(3)
    assert rows(reader, "select count(*) from t") == [(1,)]
    late = "select case when i = 8000 then error('late') end from range(9000) r(i)"
    assert "late" in failure(lambda: rows(reader, late))
    assert reader.rollback() is False
    assert rows(reader, "select 1") == [(1,)]


def test_a_duckdb_query_can_be_interrupted(duck: Duck) -> None:
    reader = duck.reader
    stopped = threading.Event()

    def interrupt() -> None:
        while not stopped.wait(0.01):
            reader.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        for sql in (
            "select count(*) from range(1000000000000) a",
            "from range(1000000000000) where range < 0",
        ):
            with pytest.raises(Cancelled):
                reader.execute(sql).fetch(1)
    finally:
        stopped.set()
        thread.join()
    assert reader.rollback() is False
    assert rows(reader, "select 1") == [(1,)]


# --- SQLite

LITE_STATE = [
    *("select * from t", "select name, sql from sqlite_master", "pragma user_version"),
    *(
        "pragma journal_mode",
        "pragma soft_heap_limit",
        "pragma hard_heap_limit",
        "pragma schema_version",
    ),
]
LITE_WRITES = [
    *(
        "insert into t values (2)",
        "update t set x = 2",
        "delete from t",
        "replace into t values (2)",
    ),
    *(
        "insert into t values (2) returning x",
        "create table n (x)",
        "drop table t",
        "create view n as select 1",
    ),
    *(
        "alter table t add y",
        "create index n on t (x)",
        "create trigger n after insert on t begin select 1; end",
    ),
    *(
        "pragma user_version = 7",
        "pragma application_id = 7",
        "pragma journal_mode = wal",
        "analyze",
    ),
    *("pragma writable_schema = on", "pragma query_only = off", "pragma locking_mode = exclusive"),
    *(
        "pragma wal_checkpoint",
        "pragma wal_checkpoint(truncate)",
        "pragma optimize",
        "pragma main.optimize",
    ),
    *("pragma temp_store_directory = '{folder}'", "pragma hard_heap_limit = 9000000", "vacuum"),
    *(
        "pragma soft_heap_limit = 9000000",
        "pragma incremental_vacuum",
        "vacuum into '{folder}/o.csv'",
    ),
    *("attach '{folder}/o.csv' as b", "attach ':memory:' as b", "attach '' as b", "detach main"),
    *("attach '{folder}/a.sqlite' as b", "attach 'file:{folder}/a.sqlite?mode=rw' as b"),
    *("with w as (select 5) insert into t select * from w", "select load_extension('x')"),
    *("create virtual table n using fts5(a)", "select writefile('{folder}/o.csv', 'x')"),
]
LITE_AROUND = [
    around for around in AROUND if "explain" not in around and "prepare" not in around
] + ["begin immediate; {}", "pragma query_only = off; {}", "savepoint a; {}; release a"]


@pytest.fixture(params=["file", "wal", "memory"])
def lite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Connection, Connection]]:
    path = "" if request.param == "memory" else str(tmp_path / "a.sqlite")
    database = sqlite.DRIVER.open({"database": path, "timeout": "0"})
    writer = database.connect()
    writer.execute("create table t (x); insert into t values (1)")
    if request.param == "wal":
        rows(writer, "pragma journal_mode = wal")
    reader = database.connect_read_only()
    yield writer, reader
    reader.close()
    writer.close()
    database.close()


def test_sqlite_lets_nothing_through(lite: tuple[Connection, Connection], tmp_path: Path) -> None:
    writer, reader = lite
    before = everything(writer, tmp_path, LITE_STATE)
    for write in LITE_WRITES:
        for around in LITE_AROUND:
            sql = around.format(write.format(folder=tmp_path))
            with pytest.raises(NotebookError):
                reader.execute(sql)
            reader.rollback()
            assert everything(writer, tmp_path, LITE_STATE) == before, sql
    assert rows(reader, "select * from t") == [(1,)]
    writer.execute("insert into t values (2)")
    assert rows(reader, "select * from t") == [(1,), (2,)]


def test_sqlite_tells_of_itself(lite: tuple[Connection, Connection]) -> None:
    _, reader = lite
    assert reader.tables() == [Table("", "main", "t")]
    assert [column.column for column in reader.columns("", "", "t")] == ["x"]
    assert rows(reader, "pragma table_info(t)")[0][1] == "x"
    assert rows(reader, "select name from pragma_table_xinfo('t')") == [("x",)]
    assert rows(reader, "pragma user_version") == [(0,)]
    assert rows(reader, "pragma integrity_check") == [("ok",)]


def test_temporary_tables_are_the_reader_s_own(lite: tuple[Connection, Connection]) -> None:
    writer, reader = lite
    reader.execute("create temp table n (x); insert into n values (5)")
    assert rows(reader, "select * from n") == [(5,)]
    assert writer.tables() == [Table("", "main", "t")]


# --- PostgreSQL

POST_STATE = [
    *("select * from t", "select is_called from s", "select oid from pg_largeobject_metadata"),
    *(
        "select nspname from pg_namespace where nspname not like 'pg_%temp%'",
        "select * from pg_db_role_setting",
    ),
    *("select relname from pg_class where relnamespace = 'public'::regnamespace", "show work_mem"),
    *("select * from pg_locks where locktype = 'relation' and relation = 't'::regclass",),
]
POST_WRITES = [
    *(
        "insert into t values (2)",
        "update t set x = 2",
        "delete from t",
        "truncate t",
        "drop table t",
    ),
    *(
        "create table n (x int)",
        "create temp table n (x int)",
        "select 2 as x into n",
        "select nextval('s')",
    ),
    *("select setval('s', 7)", "with w as (insert into t values (2) returning x) select * from w"),
    *(
        "do $$ begin insert into t values (2); end $$",
        "do $$ begin commit; insert into t values (2); end $$",
    ),
    *(
        "select lo_unlink(4711)",
        "select lo_create(4712)",
        "do $$ begin perform lo_unlink(4711); end $$",
    ),
    *(
        "select lo_from_bytea(4713, 'x')",
        "select sly()",
        "call slyer()",
        "lock table t",
        "analyze t",
    ),
    *("copy t to '/tmp/nbrpc'", "copy (select 1) to program 'true'", "copy t from '/etc/hostname'"),
    *("vacuum t", "reindex table t", "comment on table t is 'x'", "alter table t add y int"),
    *("alter role ordinary set work_mem = '1MB'", "create schema n", "select * from t for update"),
    *("set work_mem = '1MB'", "set session characteristics as transaction read write", "notify n"),
    *("create database n", "alter system set work_mem = '1MB'", "drop owned by current_user"),
    *(
        "refresh materialized view n",
        "import foreign schema a from server b into c",
        "grant all on t to public",
    ),
]
POST_UNLOCKS = [
    *(
        "",
        "set default_transaction_read_only = off; ",
        "set transaction read write; ",
        "reset all; ",
    ),
    *("set session characteristics as transaction read write; ", "begin read write; ", "commit; "),
    "select set_config('default_transaction_read_only', 'off', false); ",
    "select set_config('transaction_read_only', 'off', false); ",
    *("rollback; begin read write; ", "commit and chain; ", "savepoint a; ", "set role none; "),
    *("discard all; ", "start transaction isolation level serializable, read write; "),
]


@pytest.fixture
def post(postgres_server: Postgres) -> Iterator[Database]:
    """A database of a role that is no superuser."""
    main = postgres.DRIVER.open(postgres_server.properties)
    owner = main.connect()
    owner.execute(
        "create role reader_s_owner login; create database read_only owner reader_s_owner"
    )
    named = {"username": "reader_s_owner", "database": "read_only"}
    database = postgres.DRIVER.open({**postgres_server.properties, **named})
    yield database
    database.close()
    owner.execute("drop database read_only with (force)")
    owner.execute("drop role reader_s_owner")
    owner.close()
    main.close()


@pytest.fixture
def pair(post: Database) -> Iterator[tuple[Connection, Connection]]:
    writer = post.connect()
    writer.execute(
        """create table t (x int); insert into t values (1); create sequence s;
        select lo_create(4711);
        create function sly() returns void language plpgsql
            set transaction_read_only = off as 'begin insert into t values (1); end';
        create procedure slyer() language plpgsql as
            'begin commit; set transaction read write; insert into t values (1); end'"""
    )
    assert isinstance(post, SupportsReadOnly)
    reader = post.connect_read_only()
    yield writer, reader
    reader.close()
    writer.close()


@pytest.mark.parametrize("unlock", POST_UNLOCKS)
def test_postgres_lets_nothing_through(
    pair: tuple[Connection, Connection], tmp_path: Path, unlock: str
) -> None:
    writer, reader = pair
    before = everything(writer, tmp_path, POST_STATE)
    for write in POST_WRITES:
        for sql in (write, unlock + write, f"{unlock}{write}; commit"):
            with contextlib.suppress(NotebookError):  # some are taken back, without an error
                reader.execute(sql)
        if unlock:
            with contextlib.suppress(NotebookError):
                reader.execute(unlock)
            with contextlib.suppress(NotebookError):
                reader.execute(write)
        assert reader.rollback() is False
        assert everything(writer, tmp_path, POST_STATE) == before, write
    assert rows(reader, "select x from t") == [(1,)]
    assert rows(reader, "show default_transaction_read_only") == [("on",)]


def test_a_transaction_of_a_postgres_reader_s_own_is_refused(
    pair: tuple[Connection, Connection],
) -> None:
    _, reader = pair
    for sql in (
        "begin",
        "commit",
        "rollback",
        "savepoint a",
        "commit and chain",
        "begin; select 1",
    ):
        with pytest.raises(QueryError, match="is a transaction of its own"):
            reader.execute(sql)
        assert reader.transaction is Transaction.NONE
        assert reader.rollback() is False


def test_a_postgres_reader_streams_and_keeps_the_catalog(
    pair: tuple[Connection, Connection],
) -> None:
    writer, reader = pair
    result = reader.execute("select generate_series(1, 1000)")
    assert len(result.fetch(10)) == 10
    assert reader.tables() == [Table("read_only", "public", "t")]
    assert len(result.fetch(2000)) == 990
    assert rows(reader, "select 1; select 2") == [(2,)]
    writer.execute("drop table t")  # no lock is left
    assert reader.tables() == []


def test_a_role_that_may_write_files_of_the_postgres_server_gets_no_readers(
    postgres_server: Postgres, post: Database
) -> None:
    main = postgres.DRIVER.open(postgres_server.properties)
    with pytest.raises(NotSupported, match="may do what pg_execute_server_program and pg_write"):
        main.connect_read_only()
    owner = main.connect()
    owner.execute("grant pg_write_server_files to reader_s_owner")
    assert isinstance(post, SupportsReadOnly)
    with pytest.raises(NotSupported, match="may do what pg_write_server_files may"):
        post.connect_read_only()
    owner.execute("revoke pg_write_server_files from reader_s_owner")
    post.connect_read_only().close()
    owner.close()
    main.close()


# --- Others


def test_odbc_does_not_pretend() -> None:
    assert not issubclass(odbc._Database, SupportsReadOnly)  # noqa: SLF001
