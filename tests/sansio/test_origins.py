"""Where a result's columns come from: never wrong, and silent where it cannot be known."""

from __future__ import annotations

import pytest

from notebook_rpc.model import Table
from notebook_rpc.sansio.origins import Item, Origins, Outline, Source
from notebook_rpc.schema import ColumnFacts, TableFacts


def facts(name: str, *columns: str) -> TableFacts:
    return TableFacts(Table("", "", name), [ColumnFacts(each, "INTEGER") for each in columns])


KNOWN = {
    "users": facts("users", "id", "name"),
    "orders": facts("orders", "id", "user_id"),
    "twins": facts("twins", "Name", "name"),
    "nowhere": None,
}
USERS, ORDERS = Source("users", "u", is_renamed=True), Source("orders", "orders")
SUBQUERY, NOWHERE = Source("", "q"), Source("nowhere", "n")
STAR = Item("*")


def column(name: str, qualifier: str = "") -> Item:
    return Item(name, qualifier, name)


def told(items: list[Item], sources: list[Source], names: str, *, merges: bool = False) -> str:
    """Table and column of each; "-" for those of which nothing is known."""
    origins = Origins(Outline(items, sources, merges), KNOWN)
    found = [
        "-" if each is None else f"{each.facts.table.table}.{each.column.name}"
        for each in origins.of(names.split())
    ]
    return " ".join(found)


@pytest.mark.parametrize(
    ("items", "sources", "names", "expected"),
    [
        ([column("id")], [USERS], "id", "users.id"),
        ([column("ID")], [USERS], "ID", "users.id"),
        ([Item("name", "", "n")], [USERS], "n", "users.name"),
        ([Item("name", "u", "n")], [USERS, ORDERS], "n", "users.name"),
        (
            [column("name"), column("user_id")],
            [USERS, ORDERS],
            "name user_id",
            "users.name orders.user_id",
        ),
        ([Item(), column("id")], [USERS], "count id", "- users.id"),
        ([STAR], [USERS], "id name", "users.id users.name"),
        (
            [STAR],
            [USERS, ORDERS],
            "id name id_1 user_id",
            "users.id users.name orders.id orders.user_id",
        ),
        (
            [Item("*", "orders"), column("name")],
            [USERS, ORDERS],
            "id user_id name",
            "orders.id orders.user_id users.name",
        ),
        ([column("id"), column("id")], [USERS], "id id_1", "users.id users.id"),
    ],
)
def test_what_is_a_column_of_a_table_is_found(
    items: list[Item], sources: list[Source], names: str, expected: str
) -> None:
    assert told(items, sources, names) == expected


@pytest.mark.parametrize(
    ("items", "sources", "names"),
    [
        ([column("id")], [USERS, ORDERS], "id"),  # two have it
        ([column("age")], [USERS], "age"),  # none has: a rowid, a variable, the row itself
        ([column("name")], [USERS, SUBQUERY], "name"),  # it may be the subquery's
        ([column("name")], [USERS, NOWHERE], "name"),  # or that of what is not known
        ([column("name")], [Source("twins", "t")], "name"),  # differ in what quotes would tell
        ([column("id", "x")], [USERS], "id"),  # a part of a struct, or an outer query's
        ([column("id", "u")], [USERS, Source("orders", "U")], "id"),
        ([STAR], [USERS, SUBQUERY], "id name x"),
        ([Item("*", "q")], [USERS, SUBQUERY], "x"),
        ([Item("*", "x")], [USERS], "id name"),
        ([STAR], [], "x"),
    ],
)
def test_what_may_be_something_else_is_not(
    items: list[Item], sources: list[Source], names: str
) -> None:
    assert set(told(items, sources, names).split()) == {"-"}


def test_a_column_made_of_two_belongs_to_neither() -> None:
    assert (
        told([column("user_id"), column("name", "u")], [USERS, ORDERS], "user_id name", merges=True)
        == "- users.name"
    )
    assert told([STAR], [USERS, ORDERS], "id name user_id", merges=True) == "- - -"


@pytest.mark.parametrize("names", ["id", "id name x", "id x", "name id", "id name_x"])
def test_a_result_that_is_not_as_expected_is_not_explained(names: str) -> None:
    """The table was altered in between, or the outline is wrong."""
    assert set(told([STAR], [USERS], names).split()) == {"-"}


def test_without_an_outline_nothing_is_known() -> None:
    assert Origins(None, {}).of(["a", "b"]) == [None, None]
    assert Origins(None, KNOWN).tables == [each for each in KNOWN.values() if each is not None]
