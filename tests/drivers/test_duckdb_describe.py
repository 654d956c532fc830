"""What DuckDB tells of tables, wherever they are and whoever sees them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from notebook_rpc.errors import QueryError, UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers.duckdb import Database

PRIMARY_KEY, UNIQUE, FOREIGN_KEY, CHECK = ConstraintKind


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


def named(name: str, schema: str = "", catalog: str = "") -> Table:
    return Table(catalog, schema, name)


def run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.execute(statement).close()


def found(connection: Connection, name: str, schema: str = "", catalog: str = "") -> Table:
    return connection.describe(named(name, schema, catalog)).table


def test_all_of_a_table(connection: Connection) -> None:
    run(
        connection,
        "create schema s",
        "create table s.users (id integer primary key, name varchar unique)",
        """create table s.orders (
            id bigint not null default (1 + 2), "a""b" varchar(40) default 'x''y',
            price decimal(10, 2) check (price > 0 and (price < 9 or id > 1)), made timestamptz,
            twice integer generated always as (id * 2), "user" integer references s.users (id),
            parts struct(a integer, "b c" varchar)[], kind enum ('a', 'b'),
            primary key (price, id))""",
    )
    facts = connection.describe(named("orders", "s"))
    assert facts.table == Table("memory", "s", "orders")
    assert not facts.is_view
    assert facts.columns == [
        ColumnFacts("id", "BIGINT", nullable=False, default="(1 + 2)"),
        ColumnFacts('a"b', "VARCHAR", default="'x''y'"),
        ColumnFacts("price", "DECIMAL(10,2)", nullable=False),
        ColumnFacts("made", "TIMESTAMP WITH TIME ZONE"),
        ColumnFacts("twice", "INTEGER", generated="(id * 2)"),
        ColumnFacts("user", "INTEGER"),
        ColumnFacts("parts", 'STRUCT(a INTEGER, "b c" VARCHAR)[]'),
        ColumnFacts("kind", "ENUM('a', 'b')"),
    ]
    users = Table("memory", "s", "users")
    condition = "((price > 0) AND ((price < 9) OR (id > 1)))"
    assert facts.constraints == [
        Constraint(CHECK, "", ["price", "id"], condition, None, []),
        Constraint(FOREIGN_KEY, "", ["user"], "", users, ["id"]),
        Constraint(PRIMARY_KEY, "", ["price", "id"], "", None, []),
    ]
    assert facts.create_stmt.startswith("CREATE TABLE s.orders(id BIGINT DEFAULT((1 + 2)), ")


def test_a_view_has_columns_and_no_constraints(connection: Connection) -> None:
    run(connection, "create table t (i integer primary key)", "create view v as from t")
    facts = connection.describe(named("V"))
    assert (facts.table.table, facts.is_view, facts.constraints) == ("v", True, [])
    assert facts.columns == [ColumnFacts("i", "INTEGER")]
    assert facts.create_stmt == "CREATE VIEW v AS SELECT * FROM t;"


def test_a_view_of_what_is_gone_is_still_there(connection: Connection) -> None:
    run(connection, "create table t (i integer)", "create view v as from t", "drop table t")
    assert connection.describe(named("v")).is_view


def test_names_are_the_same_in_any_case(connection: Connection) -> None:
    run(connection, 'create schema "S.s"', 'create table "S.s"."T.t" (i integer)')
    for name in (named("T.t", "S.s"), named("t.T", "s.S"), named("T.T", "s.s", "MEMORY")):
        assert connection.describe(name).table == Table("memory", "S.s", "T.t")


def test_a_table_is_the_one_that_sql_finds(connection: Connection) -> None:
    run(
        connection,
        *("create schema a", "create schema b", 'create schema "c.,""d"'),
        *("create table a.t (x integer)", "create table b.t (x integer)"),
        'create table "c.,""d".t (x integer)',
    )
    with pytest.raises(UnknownTable):
        connection.describe(named("t"))
    run(connection, "set search_path = 'B,a'")
    assert found(connection, "t").schema == "b"
    run(connection, """set search_path = '"c.,""d",a'""")
    assert found(connection, "t").schema == 'c.,"d'
    run(connection, "use memory.a")
    assert found(connection, "t").schema == "a"
    run(connection, "create temp table t (y integer)", "create table main.u (z integer)")
    assert found(connection, "t") == Table("temp", "main", "t")
    assert found(connection, "t", "b").schema == "b"
    assert found(connection, "T", "MAIN").catalog == "temp"
    assert found(connection, "u", "main") == Table("memory", "main", "u")


def test_the_search_path_is_known_while_rows_come(connection: Connection) -> None:
    run(connection, "create schema a", "create table a.t (i integer)", "create table t (i integer)")
    connection.execute("from range(1000000)").fetch(10)
    run(connection, "set search_path = 'a'")
    result = connection.execute("from range(1000000)")
    result.fetch(10)
    assert result.streaming
    assert found(connection, "t").schema == "a"
    assert connection.schemas() == ["a", "main"]
    assert len(result.fetch(10)) == 10
    result.close()


def test_attached_databases_are_catalogs(connection: Connection, tmp_path: Path) -> None:
    path = str(tmp_path / "other.duckdb").replace("'", "''")
    run(connection, f"attach '{path}' as \"o ther\"", 'create table "o ther".t (i integer)')
    run(connection, "create table t (j integer)", 'create schema "o ther".s')
    there = Table("o ther", "main", "t")
    assert connection.databases() == ["memory", "o ther"]
    assert connection.schemas() == ["main"]
    assert connection.describe(there).table == there
    assert found(connection, "t", "o ther") == there  # as SQL reads it
    assert found(connection, "t") == Table("memory", "main", "t")
    assert connection.written(there) == '"o ther"."main"."t"'
    run(connection, 'use "o ther"')
    assert found(connection, "t") == there
    assert connection.schemas() == ["main", "s"]
    run(connection, "create table s.u (i integer)", "use memory")
    assert found(connection, "u", "", "o THER").schema == "s"
    with pytest.raises(UnknownTable):
        connection.describe(named("u", "s"))  # SQL asks for the catalog, too


def test_uncommitted_structure_is_the_connections_own(database: Database) -> None:
    ours, theirs = database.connect(), database.connect()
    run(ours, "create table t (i integer unique)", "begin", "alter table t add column j integer")
    run(ours, "create schema new", "create table new.u (k integer check (k > 0))")
    with closing(ours.execute("from range(1000000)")) as result:
        result.fetch(10)
        assert result.streaming
        told = [ours.describe(named("T")), ours.describe(named("u", "NEW"))]
        assert ours.schemas() == ["main", "new"]
    assert [ours.describe(named("t")), ours.describe(named("u", "new"))] == told
    assert ours.schemas() == ["main", "new"]
    assert [column.name for column in told[0].columns] == ["i", "j"]
    assert [(each.kind, each.condition) for each in told[1].constraints] == [(CHECK, "(k > 0)")]
    assert [column.name for column in theirs.describe(named("t")).columns] == ["i"]
    with pytest.raises(UnknownTable):
        theirs.describe(named("u", "new"))
    assert theirs.schemas() == ["main"]
    ours.close()
    theirs.close()


def test_in_a_failed_transaction_it_is_what_others_see(connection: Connection) -> None:
    run(connection, "create table t (i integer primary key)", "insert into t values (1)")
    run(connection, "begin", "create table lost (i integer)")
    with pytest.raises(QueryError, match="i: 1"):
        connection.execute("insert into t values (1)")
    assert found(connection, "t").table == "t"
    with pytest.raises(UnknownTable):
        connection.describe(named("lost"))
    connection.rollback()


def test_what_was_altered_is_told_at_once(database: Database) -> None:
    ours, theirs = database.connect(), database.connect()
    run(ours, "create table t (i integer)")
    assert theirs.describe(named("t")).columns[0].default is None
    run(ours, "alter table t alter i set default 5", "alter table t alter i set not null")
    assert theirs.describe(named("t")).columns == [
        ColumnFacts("i", "INTEGER", nullable=False, default="5")
    ]
    ours.close()
    theirs.close()


def test_a_macro_of_the_client_is_not_asked(connection: Connection) -> None:
    run(connection, "create table a (i integer)", "create table t (i integer)")
    for name in ("lower(a)", "replace(a, b, c)", "current_setting(a)", "current_database()"):
        run(connection, f"create macro {name} as 'spoilt'")
    for name in ("duckdb_tables", "duckdb_columns", "duckdb_constraints", "duckdb_schemas"):
        run(connection, f"create macro {name}() as table select 1")
    assert found(connection, "T").table == "t"
    assert connection.schemas() == ["main"]


def test_many_columns(connection: Connection) -> None:
    run(connection, f"create table t ({', '.join(f'c{n} integer' for n in range(2000))})")
    names = [column.name for column in connection.describe(named("t")).columns]
    assert names == [f"c{n}" for n in range(2000)]


def test_a_reader_is_told_as_well(database: Database) -> None:
    writer, reader = database.connect(), database.connect_read_only()
    run(writer, "create table t (i integer primary key)")
    assert reader.describe(named("t")) == writer.describe(named("t"))
    writer.close()
    reader.close()
