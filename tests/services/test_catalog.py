"""The catalog for clients without a session: what it finds under which name, and how it counts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import DatabaseUnavailable, NotSupported, QueryTimeout, UnknownTable
from notebook_rpc.model import Column, Table
from notebook_rpc.schema import ColumnFacts, TableFacts
from notebook_rpc.services.catalog import Catalog
from notebook_rpc.services.pool import Pool
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from notebook_rpc.driver import Connection

ORDERS = Table("fake", "main", "orders")
USERS = Table("fake", "main", "users")


class Plain:
    """A connection that describes nothing, with tables of any name."""

    def __init__(self, tables: Sequence[Table], views: Sequence[Table] = ()) -> None:
        self.listed = 0
        self._tables = tables
        self._views = views
        self._real = FakeConnection(FakeDatabase())
        self.execute, self.rollback = self._real.execute, self._real.rollback
        self.close = self._real.close

    @property
    def transaction(self) -> object:
        return self._real.transaction

    def tables(self) -> Sequence[Table]:
        self.listed += 1
        return self._tables

    def views(self) -> Sequence[Table]:
        return self._views

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        return [Column(catalog, schema, table, "a", "INTEGER")]


class Describing(Plain):
    """One that finds only what is spelt in full, and what is in the schema ``first``."""

    def describe(self, table: Table, /) -> TableFacts:
        whole = Table(table.catalog, table.schema or "first", table.table)
        if whole in [*self._tables, *self._views] or not table.table:
            return TableFacts(whole, (), create_stmt="told")
        raise UnknownTable(table.table)

    def schemas(self) -> list[str]:
        return ["first"]

    def databases(self) -> list[str]:
        return ["one"]

    def written(self, table: Table, /) -> str:
        return table.table


class Desk:
    """A catalog of the fake's tables, or of what *connect* gives."""

    def __init__(self, workers: Workers, seconds: float = 60) -> None:
        self.database = FakeDatabase()
        self.connect: Callable[[], object] = self.database.connect

        async def connect() -> Connection:
            return self.connect()  # type: ignore[return-value]  # Plain is as much as is needed

        self.pool = Pool(connect, workers, limit=2, idle_seconds=60)
        self.catalog = Catalog(self.pool.lane, seconds)

    def calls(self) -> list[str]:
        return [call for connection in self.database.connections for call in connection.calls]


@asynccontextmanager
async def opened(seconds: float = 60) -> AsyncIterator[Desk]:
    workers = Workers(limit=4, spare=2)
    desk = Desk(workers, seconds)
    try:
        yield desk
    finally:
        await desk.pool.close()
        workers.close()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with opened() as desk:
        yield desk


# Tables and their rows


async def test_tables_come_sorted_and_without_views(desk: Desk) -> None:
    assert await desk.catalog.tables() == [(ORDERS, None), (USERS, None)]
    assert desk.calls() == ["tables"]


async def test_rows_are_counted_if_they_are_asked_for(desk: Desk) -> None:
    assert await desk.catalog.tables(counts=True) == [(ORDERS, 3), (USERS, 2)]


async def test_more_tables_than_are_counted_at_a_time(desk: Desk) -> None:
    names = [f"t{number:03}" for number in range(120)]
    connection = desk.database.connect()
    for name in names:
        connection.execute(f"create table {name} (a int)")
    found = await desk.catalog.tables(counts=True)
    assert [(table.table, rows) for table, rows in found] == [
        ("orders", 3),
        *((name, 0) for name in names),
        ("users", 2),
    ]


async def test_a_table_that_cannot_be_counted_does_not_lose_the_others(desk: Desk) -> None:
    desk.database.script["SELECT count(*) FROM fake.main.orders"] = "error you may not"
    assert await desk.catalog.tables(counts=True) == [(ORDERS, None), (USERS, 2)]


async def test_a_connection_that_breaks_is_an_error(desk: Desk) -> None:
    desk.database.script["SELECT count(*) FROM fake.main.orders"] = "leave"
    with pytest.raises(DatabaseUnavailable):
        await desk.catalog.tables(counts=True)


async def test_who_cannot_write_a_name_counts_nothing(desk: Desk) -> None:
    desk.connect = lambda: Plain([Table("", "", "b"), Table("", "", "a")])
    assert await desk.catalog.tables(counts=True) == [
        (Table("", "", "a"), None),
        (Table("", "", "b"), None),
    ]


async def test_counting_takes_no_longer_than_a_query_may() -> None:
    async with opened(seconds=0.05) as desk:
        desk.database.script["SELECT count(*) FROM fake.main.orders"] = "wait"
        with pytest.raises(QueryTimeout, match="tables took longer than"), trio.fail_after(5):
            await desk.catalog.tables(counts=True)


async def test_who_leaves_stops_the_counting(desk: Desk) -> None:
    desk.database.script["SELECT count(*) FROM fake.main.orders"] = "wait"
    async with trio.open_nursery() as nursery:

        async def count() -> None:
            await desk.catalog.tables(counts=True)

        nursery.start_soon(count)
        with trio.fail_after(5):
            await trio.to_thread.run_sync(desk.database.waiting.wait)
            nursery.cancel_scope.cancel()
    await wait_all_tasks_blocked()
    (connection,) = desk.database.connections
    assert connection.interrupts > 0
    assert "users" not in " ".join(connection.calls)


# Descriptions


async def test_a_table_is_described_by_its_name(desk: Desk) -> None:
    facts = await desk.catalog.describe("orders")
    assert facts.table == ORDERS
    assert facts.columns[0] == ColumnFacts("id", "INTEGER", nullable=False)
    assert facts.primary_key == ("id",)


@pytest.mark.parametrize("name", ["main.orders", "fake.main.orders", "ORDERS"])
async def test_or_with_its_schema_or_as_sql_would_find_it(desk: Desk, name: str) -> None:
    assert (await desk.catalog.describe(name)).table == ORDERS


async def test_a_view_is_described_as_one(desk: Desk) -> None:
    facts = await desk.catalog.describe("paid")
    assert facts.is_view
    assert [column.name for column in facts.columns] == ["id", "amount"]


@pytest.mark.parametrize(
    "name", ["", "nothing", "other.orders", ".orders", "orders.", "or\0ders", "\ud800", "." * 1000]
)
async def test_other_names_are_unknown(desk: Desk, name: str) -> None:
    with pytest.raises(UnknownTable):
        await desk.catalog.describe(name)


SOME = [
    *(Table("", "first", name) for name in ("t", "x.y")),
    *(Table("", "second", name) for name in ("Only", "only", "t")),
    *(Table("", "x", "y"), Table("", "a.b", "t"), Table("", "c.d", "e.f"), Table("c", "s", "t")),
]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("t", Table("", "first", "t")),
        ("second.t", Table("", "second", "t")),
        ("first.x.y", Table("", "first", "x.y")),
        ("a.b.t", Table("", "a.b", "t")),
        ("c.s.t", Table("c", "s", "t")),
        ("x.y", Table("", "first", "x.y")),  # and not the table y of the schema x
    ],
)
async def test_what_sql_would_find_is_found_at_once(desk: Desk, name: str, found: Table) -> None:
    connection = Describing(SOME)
    desk.connect = lambda: connection
    assert (await desk.catalog.describe(name)).table == found
    assert connection.listed == 0


async def test_no_name_is_not_any_name(desk: Desk) -> None:
    desk.connect = lambda: Describing(SOME)
    with pytest.raises(UnknownTable):
        await desk.catalog.describe("")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("only", Table("", "second", "only")),
        ("ONLY", Table("", "second", "Only")),
        ("C.D.E.F", Table("", "c.d", "e.f")),
        ("seen", Table("", "second", "seen")),
        ("c.d.e.f", Table("", "c.d", "e.f")),
    ],
)
async def test_and_then_whatever_is_anywhere(desk: Desk, name: str, found: Table) -> None:
    desk.connect = lambda: Describing(SOME, [Table("", "second", "seen")])
    facts = await desk.catalog.describe(name)
    assert (facts.table, facts.create_stmt) == (found, "told")


async def test_a_driver_that_describes_nothing_has_columns(desk: Desk) -> None:
    desk.connect = lambda: Plain([Table("", "s", "t")], [Table("", "s", "v")])
    table = Table("", "s", "t")
    columns = [ColumnFacts("a", "INTEGER")]
    assert await desk.catalog.describe("s.T") == TableFacts(table, columns)
    assert (await desk.catalog.describe("v")).is_view
    with pytest.raises(UnknownTable):
        await desk.catalog.describe("s")


# Schemas and databases


async def test_schemas_and_databases_are_the_drivers(desk: Desk) -> None:
    assert await desk.catalog.schemas() == ["main"]
    assert await desk.catalog.databases() == ["fake"]


async def test_or_those_of_its_tables(desk: Desk) -> None:
    desk.connect = lambda: Plain([Table("c", "s", "t"), Table("b", "", "t")], [Table("", "v", "v")])
    assert await desk.catalog.schemas() == ["s", "v"]
    assert await desk.catalog.databases() == ["b", "c"]


async def test_a_database_without_catalogs_says_so(desk: Desk) -> None:
    desk.connect = lambda: Plain([Table("", "s", "t")])
    with pytest.raises(NotSupported):
        await desk.catalog.databases()
