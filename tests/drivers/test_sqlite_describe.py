"""What SQLite tells of tables, and what is read out of the statements that made them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from notebook_rpc.errors import UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind
from notebook_rpc_drivers.sqlite import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc_drivers._sqlite_connection import Connection

PRIMARY_KEY, UNIQUE, FOREIGN_KEY, CHECK = ConstraintKind


@pytest.fixture
def connection() -> Iterator[Connection]:
    database = DRIVER.open({})
    connection = database.connect()
    yield connection
    connection.close()
    database.close()


def run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.execute(statement).close()


def named(name: str, schema: str = "", catalog: str = "") -> Table:
    return Table(catalog, schema, name)


ORDERS = """create table "Or ders" (
    id bigint not null default (1+2),
    "a""b" varchar(40) constraint unlike_x check (`a"b` <> 'x''),') default 'x)', -- ,check (no
    price decimal(10, 2) constraint "not null" not null constraint dear unique,
    twice int generated always as (id * 2) stored,
    user int constraint whose references users on delete cascade,
    kind text, /* unique */
    constraint key primary key (price, id),
    unique (kind, user),
    constraint both foreign key (kind, user) references users (kind, "i d"),
    check ([user] > 0 or (kind) is null)
)"""


def test_all_of_a_table(connection: Connection) -> None:
    run(connection, 'create table users ("i d" integer primary key, kind text)', ORDERS)
    facts = connection.describe(named("OR DERS"))
    assert facts.table == Table("", "main", "Or ders")
    assert facts.columns == [
        ColumnFacts("id", "bigint", nullable=False, default="1+2"),
        ColumnFacts('a"b', "varchar(40)", default="'x)'"),
        ColumnFacts("price", "decimal(10, 2)", nullable=False),
        ColumnFacts("twice", "INT", generated="id * 2"),
        ColumnFacts("user", "INT"),
        ColumnFacts("kind", "TEXT"),
    ]
    users = Table("", "main", "users")
    assert facts.constraints == [
        Constraint(PRIMARY_KEY, "key", ["price", "id"]),
        Constraint(UNIQUE, "dear", ["price"]),
        Constraint(UNIQUE, "", ["kind", "user"]),
        Constraint(FOREIGN_KEY, "whose", ["user"], "", users, ["i d"]),
        Constraint(FOREIGN_KEY, "both", ["kind", "user"], "", users, ["kind", "i d"]),
        Constraint(CHECK, "unlike_x", ['a"b'], "`a\"b` <> 'x''),'"),
        Constraint(CHECK, "", ["user", "kind"], "[user] > 0 or (kind) is null"),
    ]
    assert facts.create_stmt.lower() == ORDERS.lower()


def test_only_the_key_that_is_the_rowid_is_never_null(connection: Connection) -> None:
    run(
        connection,
        "create table a (id integer primary key)",
        "create table b (id text primary key)",
        "create table c (id text primary key) without rowid",
    )
    nullable = [connection.describe(named(name)).columns[0].nullable for name in "abc"]
    assert nullable == [False, True, False]


def test_a_view_of_what_is_gone_is_still_there(connection: Connection) -> None:
    run(connection, "create table t (i)", "create view v as select i from t")
    assert [column.name for column in connection.describe(named("V")).columns] == ["i"]
    run(connection, "drop table t")
    facts = connection.describe(named("v"))
    assert (facts.is_view, facts.columns) == (True, [])
    assert facts.create_stmt == "CREATE VIEW v as select i from t"


def test_temporary_tables_hide_others(connection: Connection) -> None:
    run(connection, "create table t (a)", "create temp table T (b)")
    assert connection.describe(named("t")).table == Table("", "temp", "T")
    assert connection.describe(named("t", "MAIN")).table == Table("", "main", "t")
    assert connection.databases() == connection.schemas() == ["main"]


def test_attached_files_are_schemas(connection: Connection, tmp_path: Path) -> None:
    path = str(tmp_path / "other.db").replace("'", "''")
    run(connection, f'attach \'{path}\' as "o.""t"', 'create table "o.""t".t (a)')
    there = Table("", 'o."t', "t")
    assert connection.describe(named("t")).table == there
    assert connection.describe(there).table == there
    assert connection.written(there) == '"o.""t"."t"'
    assert connection.databases() == ["main", 'o."t']


def test_a_virtual_table_has_columns(connection: Connection) -> None:
    run(connection, "create virtual table t using fts5(title, body, prefix='2')")
    facts = connection.describe(named("t"))
    assert [column.name for column in facts.columns] == ["title", "body"]
    assert facts.constraints == []


@pytest.mark.parametrize(
    "wanted", [named("t", "nowhere"), named("t", "", "main"), named("sqlite_master"), named("t\0")]
)
def test_others_are_unknown(connection: Connection, wanted: Table) -> None:
    run(connection, "create table t (a)")
    with pytest.raises(UnknownTable):
        connection.describe(wanted)


def test_many_columns(connection: Connection) -> None:
    run(connection, f"create table t ({', '.join(f'c{n} int' for n in range(2000))}, check (c7))")
    facts = connection.describe(named("t"))
    assert [column.name for column in facts.columns] == [f"c{n}" for n in range(2000)]
    assert facts.constraints == [Constraint(CHECK, "", ["c7"], "c7")]
