"""What ODBC drivers tell of tables: those we know, and the same ones taken for strangers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from notebook_rpc.errors import UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind
from notebook_rpc_drivers.odbc import DRIVER, _Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers import MariaDB, Postgres

PRIMARY_KEY, UNIQUE, FOREIGN_KEY, CHECK = ConstraintKind


@pytest.fixture
def opened() -> Iterator[Callable[..., _Connection]]:
    connections: list[_Connection] = []

    def open_(driver: str, properties: dict[str, str], *, known: bool = True) -> _Connection:
        connection = DRIVER.open({"driver": driver, **properties}).connect()
        connections.append(connection)
        if not known:
            connection.dbms = dataclasses.replace(connection.dbms, catalog=None)
        return connection

    yield open_
    for connection in connections:
        connection.close()


def run(connection: _Connection, *statements: str) -> None:
    for statement in statements:
        connection.execute(statement).close()


def named(name: str, schema: str = "", catalog: str = "") -> Table:
    return Table(catalog, schema, name)


def test_mariadb(mariadb_server: MariaDB, opened: Callable[..., _Connection]) -> None:
    connection = opened("MariaDB Unicode", mariadb_server.properties)
    run(connection, "create or replace database odbc_told", "use odbc_told")
    run(
        connection,
        "create table users (id int unsigned auto_increment primary key)",
        """create table orders (
            id bigint not null, `a``b` varchar(40) not null default 'it''s',
            price decimal(10, 2) default (1 + 2) check (price > 0 and `a``b` <> '`id`'),
            twice int generated always as (other * 2) stored, other int,
            made timestamp(3) not null default current_timestamp(3), kind enum ('a', 'b'),
            user int unsigned, constraint several check (other > 1 and id > 1),
            primary key (id, `a``b`), unique key u (kind, other),
            constraint whose foreign key (user) references users (id))""",
        "create view seen as select id as x from orders",
    )
    facts = connection.describe(named("orders"))
    assert facts.table == Table("odbc_told", "", "orders")
    assert facts.columns == [
        ColumnFacts("id", "bigint(20)", nullable=False),
        ColumnFacts("a`b", "varchar(40)", nullable=False, default="'it''s'"),
        ColumnFacts("price", "decimal(10,2)", default="(1 + 2)"),
        ColumnFacts("twice", "int(11)", generated="`other` * 2"),
        ColumnFacts("other", "int(11)"),
        ColumnFacts("made", "timestamp(3)", nullable=False, default="current_timestamp(3)"),
        ColumnFacts("kind", "enum('a','b')"),
        ColumnFacts("user", "int(10) unsigned"),
    ]
    users = Table("odbc_told", "", "users")
    assert facts.constraints == [
        Constraint(PRIMARY_KEY, "PRIMARY", ["id", "a`b"], "", None, []),
        Constraint(FOREIGN_KEY, "whose", ["user"], "", users, ["id"]),
        Constraint(UNIQUE, "u", ["kind", "other"], "", None, []),
        Constraint(CHECK, "price", ["price", "a`b"], "`price` > 0 and `a``b` <> '`id`'"),
        Constraint(CHECK, "several", ["other", "id"], "`other` > 1 and `id` > 1"),
    ]
    run(connection, f"drop table {connection.written(facts.table)}", facts.create_stmt)
    assert connection.describe(named("orders", "", "odbc_told")) == facts
    view = connection.describe(named("seen", "odbc_told"))  # as SQL has it: in front of the name
    assert (view.table.table, view.is_view, view.columns[0].name) == ("seen", True, "x")
    assert view.create_stmt.startswith("CREATE ")
    for unknown in (
        named("orders", "", "mysql"),
        named("ORDERS"),
        named("orders", "a", "odbc_told"),
    ):
        with pytest.raises(UnknownTable):
            connection.describe(unknown)
    assert "odbc_told" in connection.databases()
    assert not {"mysql", "information_schema"} & set(connection.databases())
    assert {"odbc_told", "mysql"} <= set(connection.schemas())
    run(connection, "drop database odbc_told")


def test_a_stranger_tells_what_odbc_has_words_for(
    postgres_server: Postgres, opened: Callable[..., _Connection]
) -> None:
    connection = opened("PostgreSQL Unicode", postgres_server.properties, known=False)
    run(
        connection,
        "drop schema if exists odbc_told cascade",
        "create schema odbc_told",
        "create table odbc_told.users (b int, a int, primary key (b, a))",
        """create table odbc_told.orders (
            id bigint not null primary key, name varchar(40) default 'x', price numeric(10, 2),
            one int unique, x int, y int, foreign key (x, y) references odbc_told.users (b, a))""",
        "create table odbc_told.orders_ (other int)",
        "create view odbc_told.seen as select id from odbc_told.orders",
    )
    facts = connection.describe(named("ORDERS", "odbc_told"))
    assert facts.table == Table("notebook", "odbc_told", "orders")
    assert facts.columns == [
        ColumnFacts("id", "int8", nullable=False),
        ColumnFacts("name", "varchar(40)", default="'x'::character varying"),
        ColumnFacts("price", "numeric(10,2)"),
        *(ColumnFacts(name, "int4") for name in ("one", "x", "y")),
    ]
    users = Table("notebook", "odbc_told", "users")
    assert facts.constraints == [
        Constraint(PRIMARY_KEY, "orders_pkey", ["id"]),
        Constraint(UNIQUE, "orders_one_key", ["one"]),
        Constraint(FOREIGN_KEY, "orders_x_y_fkey", ["x", "y"], "", users, ["b", "a"]),
    ]
    assert facts.create_stmt == ""
    assert connection.describe(named("seen", "odbc_told")).is_view
    with pytest.raises(UnknownTable):
        connection.describe(named("nothing", "odbc_told"))
    assert "odbc_told" in connection.schemas()
    assert connection.databases() == ["notebook"]
    run(connection, "drop schema odbc_told cascade")


def test_a_stranger_may_know_neither_schemas_nor_databases(
    tmp_path: Path, opened: Callable[..., _Connection]
) -> None:
    connection = opened("SQLite3", {"database": str(tmp_path / "a.db")}, known=False)
    run(connection, "create table t (id integer not null, a int, b int default 5, unique (b, a))")
    facts = connection.describe(named("T"))
    assert [column.name for column in facts.columns] == ["id", "a", "b"]
    assert [column.nullable for column in facts.columns] == [False, True, True]
    assert [column.default for column in facts.columns] == [None, None, "5"]
    assert [list(each.columns) for each in facts.constraints] == [["b", "a"]]
    assert connection.schemas() == connection.databases() == []


def test_a_name_with_a_null_character_is_unknown(
    tmp_path: Path, opened: Callable[..., _Connection]
) -> None:
    connection = opened("SQLite3", {"database": str(tmp_path / "a.db")})
    run(connection, "create table t (i int)")
    with pytest.raises(UnknownTable):
        connection.describe(named("t\0"))
