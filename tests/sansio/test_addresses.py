"""Where a database is, without what one needs to get in."""

from __future__ import annotations

import pytest

from notebook_rpc.errors import InvalidParams
from notebook_rpc.sansio import urls
from notebook_rpc.sansio.addresses import (
    LONGEST,
    Address,
    address,
    check_name,
    context_and_name,
    key,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql+psycopg://ada:s3cret@db:5432/sales?sslmode=require",
            Address("postgresql", "db", 5432, "ada", "sales", "postgresql+psycopg"),
        ),
        ("sqlite:///app.db", Address("sqlite", database="app.db", driver="sqlite")),
        ("duckdb://", Address("duckdb", driver="duckdb")),
        (
            "mssql+pyodbc://ada:s3cret@sales",
            Address("mssql", "sales", None, "ada", None, "mssql+pyodbc"),
        ),
        ("odbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Ds3cret", Address("odbc", driver="odbc")),
    ],
)
def test_an_address_has_what_finds_it_and_no_more(url: str, expected: Address) -> None:
    assert address(url.partition(":")[0], urls.read(url)[1]) == expected


@pytest.mark.parametrize(
    ("context", "name", "expected"), [("default", "a", "a"), ("__session__", "a", "__session__/a")]
)
def test_keys_and_names_are_each_others_reverse(context: str, name: str, expected: str) -> None:
    assert key(context, name) == expected
    assert context_and_name(expected) == (context, name)


@pytest.mark.parametrize("name", ["a", "__session__", "my-app.2", "é", "a" * LONGEST])
def test_a_name_is_letters_digits_and_little_else(name: str) -> None:
    check_name(name, "name")


@pytest.mark.parametrize("name", ["", "a/b", "a b", "..", "a=b", "a\n", "a" * (LONGEST + 1)])
def test_others_are_refused(name: str) -> None:
    with pytest.raises(InvalidParams, match="the name must be letters"):
        check_name(name, "name")
