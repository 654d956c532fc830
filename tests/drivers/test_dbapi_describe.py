"""What databases behind modules of PEP 249 tell of tables: the known ones, and one by the
information schema alone, which is DuckDB's here."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from notebook_rpc.errors import QueryError, UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.sansio.sqltext import MYSQL, SQLITE, STANDARD
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind
from notebook_rpc_drivers import _dbapi_describe
from notebook_rpc_drivers._dbapi_facts import Catalog
from notebook_rpc_drivers.dbapi import DRIVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.servers import MariaDB, Postgres

PRIMARY_KEY, UNIQUE, FOREIGN_KEY, CHECK = ConstraintKind


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """Opens databases, and closes them and their connections at the end."""
    ends: list[Callable[[], None]] = []

    def open_(module: str, **properties: str) -> Any:
        database = DRIVER.open({"module": module, **properties})
        ends.append(database.close)
        connection = database.connect()
        ends.append(connection.close)
        return connection

    yield open_
    for end in reversed(ends):
        end()


def run(connection: Any, *statements: str) -> None:
    for statement in statements:
        connection.execute(statement).close()


def named(name: str, schema: str = "", catalog: str = "") -> Table:
    return Table(catalog, schema, name)


def test_by_the_information_schema(tmp_path: Path, opened: Callable[..., Any]) -> None:
    connection = opened("duckdb", database=str(tmp_path / "d.duckdb"))
    run(
        connection,
        "create table users (b integer, a integer, primary key (b, a))",
        """create table "Or.ders" (
            id bigint not null default 7, price decimal(10, 2) check (price > 0), x integer,
            y integer unique, primary key (id), foreign key (x, y) references users (b, a))""",
        'create view seen as select id from "Or.ders"',
    )
    facts = connection.describe(named("or.ders"))
    assert facts.table == Table("d", "main", "Or.ders")
    assert facts.columns == [
        ColumnFacts("id", "BIGINT", nullable=False, default="7"),
        ColumnFacts("price", "DECIMAL(10,2)"),
        ColumnFacts("x", "INTEGER"),
        ColumnFacts("y", "INTEGER"),
    ]
    users = Table("d", "main", "users")
    assert [dataclasses.astuple(Told.of(each)) for each in facts.constraints] == [
        (PRIMARY_KEY, ["id"], "", None, []),
        (UNIQUE, ["y"], "", None, []),
        (FOREIGN_KEY, ["x", "y"], "", users, ["b", "a"]),
        (CHECK, ["price"], "(price > 0)", None, []),
    ]
    assert connection.describe(named("seen", "MAIN")).is_view
    for unknown in (named("seen", "other"), named("seen", "", "other"), named("nothing")):
        with pytest.raises(UnknownTable):
            connection.describe(unknown)
    assert connection.databases() == ["d"]
    assert "main" in connection.schemas()
    assert connection.written(facts.table) == '"d"."main"."Or.ders"'


@dataclasses.dataclass
class Told:
    """A constraint without its name, which engines make up."""

    kind: ConstraintKind
    columns: list[str]
    condition: str
    references: Table | None
    referenced: list[str]

    @classmethod
    def of(cls, each: Constraint) -> Told:
        referenced = list(each.referenced)
        return cls(each.kind, list(each.columns), each.condition, each.references, referenced)


def answering(
    asked: list[str], *known: str
) -> Callable[[str, Sequence[str]], list[tuple[Any, ...]]]:
    """An information schema that has nothing but these views."""
    rows: dict[str, list[tuple[Any, ...]]] = {
        "information_schema.tables": [("c", None, "T", "BASE TABLE"), ("c", "s", "t", "VIEW")],
        "information_schema.columns": [
            ("a", "varchar", "YES", None, 40, None, None),
            ("b", "numeric", "NO", "1", None, 10, None),
            ("c", "double", "YES", None, None, 53, None),
        ],
        "information_schema.check_constraints": [
            ("c1", "CHECK ((b > 1))"),
            ("c2", "b IS NOT NULL"),
            ("c3", '("b" IS NOT NULL)'),
        ],
    }

    def ask(query: str, _: Sequence[str]) -> list[tuple[Any, ...]]:
        view = query.partition(" from ")[2].split()[0]
        if "referential_constraints" in query:
            view = "information_schema.referential_constraints"
        asked.append(view.removeprefix("information_schema."))
        if view.removeprefix("information_schema.") not in known:
            raise QueryError(f"there is no {view}")
        return rows[view]

    return ask


def test_an_information_schema_may_have_gaps() -> None:
    asked: list[str] = []
    ask = answering(asked, "tables", "columns", "check_constraints")
    facts = _dbapi_describe.describe(Catalog.STANDARD, ask, named("T"), may_fail=True)
    assert facts.table == Table("c", "", "T")
    assert facts.columns == [
        ColumnFacts("a", "varchar(40)"),
        ColumnFacts("b", "numeric(10,0)", nullable=False, default="1"),
        ColumnFacts("c", "double"),
    ]
    assert facts.constraints == [Constraint(CHECK, "c1", ["b"], "(b > 1)")]
    wanted = ["tables", "columns", "table_constraints", "referential_constraints"]
    assert asked == [*wanted, "check_constraints"]


def test_gaps_are_not_met_where_they_would_fail_a_transaction() -> None:
    asked: list[str] = []
    ask = answering(asked, "tables", "columns", "check_constraints")
    facts = _dbapi_describe.describe(Catalog.STANDARD, ask, named("T"), may_fail=False)
    assert (len(facts.columns), facts.constraints) == (3, [])
    assert asked == ["tables", "columns"]


def test_postgres_in_a_transaction(postgres_server: Postgres, opened: Callable[..., Any]) -> None:
    connection = opened("psycopg", **postgres_server.properties)
    run(connection, "begin", "create table dbapi_told (id int primary key, check (id > 0))")
    facts = connection.describe(named("DBAPI_TOLD", "public"))
    assert [each.kind for each in facts.constraints] == [PRIMARY_KEY, CHECK]
    run(connection, "drop table dbapi_told", facts.create_stmt)
    assert connection.describe(named("dbapi_told")) == facts
    connection.rollback()
    with pytest.raises(UnknownTable):
        connection.describe(named("dbapi_told"))


def test_mysql_has_schemas_and_no_catalogs(
    mariadb_server: MariaDB, opened: Callable[..., Any]
) -> None:
    connection = opened("pymysql", **mariadb_server.properties)
    run(connection, "create or replace table dbapi_told (id int primary key default 7)")
    facts = connection.describe(named("dbapi_told"))
    assert facts.table == Table("", "notebook", "dbapi_told")
    assert facts.columns == [ColumnFacts("id", "int(11)", nullable=False, default="7")]
    assert connection.describe(facts.table) == facts
    assert connection.written(facts.table) == "`notebook`.`dbapi_told`"
    with pytest.raises(UnknownTable):
        connection.describe(named("dbapi_told", "", "notebook"))
    run(connection, "drop table dbapi_told")


@pytest.mark.parametrize(
    ("dialect", "written"),
    [(STANDARD, '"a""b"."c`d"'), (SQLITE, '"a""b"."c`d"'), (MYSQL, '`a"b`.`c``d`')],
)
def test_names_are_quoted_as_the_database_does(dialect: Any, written: str) -> None:
    assert _dbapi_describe.written(dialect, named("c`d", 'a"b')) == written
