"""Statements that are read on workers: with what the database tells, and without sqlglot."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from notebook_rpc.errors import DatabaseUnavailable, NotSupported, UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.sansio.changes import Change, Condition, Operation
from notebook_rpc.sansio.origins import MOST_SOURCES
from notebook_rpc.schema import ColumnFacts, TableFacts
from notebook_rpc.services.sqlreading import Statements
from notebook_rpc.services.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WITHOUT_A = Change(Operation.REMOVE, "SELECT", columns=["a"])
WITH_B = Change(Operation.ADD, "WHERE", [Condition("b", "=", "1")])


class Catalog:
    """Tables t0, t1 and so on, of the columns a and b; "down" is a database that is."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def describe(self, name: str) -> TableFacts:
        self.asked.append(name)
        if name == "down":
            raise DatabaseUnavailable("it is down")
        if not name.startswith("t"):
            raise UnknownTable(f"there is no table {name!r}")
        return TableFacts(Table("", "", name), [ColumnFacts(each, "INT") for each in "ab"])


@pytest.fixture
async def statements() -> AsyncIterator[Statements]:
    workers = Workers(limit=2, spare=2)
    yield Statements(workers)
    workers.close()


async def test_origins_are_of_the_tables_that_there_are(statements: Statements) -> None:
    catalog = Catalog()
    found = await statements.origins("select t1.a, x.b, c from t1, x, t1 y, down", "", catalog)
    assert catalog.asked == ["t1", "x", "down"]
    assert [facts.table.table for facts in found.tables] == ["t1"]
    told = [
        each and (each.facts.table.table, each.column.name) for each in found.of(["a", "b", "c"])
    ]
    assert told == [("t1", "a"), None, None]


@pytest.mark.parametrize("sql", ["insert into t1 values (1)", "selec", "select 1 union select 2"])
async def test_of_what_cannot_be_read_nothing_is_asked(statements: Statements, sql: str) -> None:
    catalog = Catalog()
    assert (await statements.origins(sql, "", catalog)).of(["a"]) == [None]
    assert catalog.asked == []


async def test_so_many_tables_are_asked_about_and_no_more(statements: Statements) -> None:
    catalog = Catalog()
    sources = ", ".join(f"t{number}" for number in range(MOST_SOURCES + 5))
    found = await statements.origins(f"select t0.a, t{MOST_SOURCES}.a from {sources}", "", catalog)
    assert len(catalog.asked) == MOST_SOURCES
    first, beyond = found.of(["a", "a_1"])
    assert first is not None
    assert beyond is None


async def test_a_change_asks_for_columns_where_it_needs_them(statements: Statements) -> None:
    catalog = Catalog()
    assert await statements.changed("select * from t1", WITH_B, "", catalog) == (
        "SELECT * FROM t1 WHERE b = 1"
    )
    assert catalog.asked == []
    assert await statements.changed("select * from t1", WITHOUT_A, "", catalog) == (
        "SELECT b FROM t1"
    )


async def test_tables_and_checks_are_read(statements: Statements) -> None:
    assert (await statements.table("create table t (a int)", "")).columns == [
        ColumnFacts("a", "INT")
    ]
    assert await statements.conditions(["a > 1", "f(a)"], "") == [
        {"lhs": "a", "pred": ">", "rhs": "1"},
        {"sql": "f(a)"},
    ]


class TestWithoutSqlglot:
    @pytest.fixture(autouse=True)
    def _missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [each for each in sys.modules if "sansio.sql" in each]:
            monkeypatch.delitem(sys.modules, name)
        package = sys.modules["notebook_rpc.sansio"]
        for name in ("sqledit", "sqltables", "sqltree"):
            monkeypatch.delattr(package, name, raising=False)
        monkeypatch.setitem(sys.modules, "sqlglot", None)

    async def test_no_statement_can_be_changed(self, statements: Statements) -> None:
        for change in (WITH_B, WITHOUT_A):
            with pytest.raises(NotSupported, match=r"pip install 'notebook_rpc\[scoot\]'"):
                await statements.changed("select * from t1", change, "", Catalog())
        with pytest.raises(NotSupported, match="sqlglot"):
            await statements.table("create table t (a int)", "")

    async def test_columns_come_from_nowhere_and_checks_are_as_written(
        self, statements: Statements
    ) -> None:
        found = await statements.origins("select a from t1", "", Catalog())
        assert found.of(["a"]) == [None]
        assert await statements.conditions(["a > 1"], "") == [{"sql": "a > 1"}]
