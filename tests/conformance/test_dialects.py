"""Dialects: the entries, the guess, and those that come as TOML."""

from __future__ import annotations

import string
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from notebook_rpc.conformance import dialects
from notebook_rpc.conformance.dialect import Dialect, Lacks, Values
from notebook_rpc.errors import InvalidParams

if TYPE_CHECKING:
    from pathlib import Path

PARTS = {"n": 1, "p": "?", "table": "t", "columns": "id integer", "view": "v", "query": "select 1"}


@pytest.mark.parametrize("name", dialects.DIALECTS)
def test_texts_have_only_the_parts_that_are_put_in(name: str) -> None:
    dialect = dialects.DIALECTS[name]
    for field in fields(Dialect):
        text = getattr(dialect, field.name)
        if isinstance(text, str):
            named = {part for _, part, _, _ in string.Formatter().parse(text) if part is not None}
            assert named <= PARTS.keys(), field.name
            assert ";" not in text, field.name


def test_quoted_names_double_the_quote() -> None:
    assert Dialect(driver="a").quoted('a"b') == '"a""b"'
    assert Dialect(driver="a", quote="`").quoted('a"`b') == '`a"``b`'
    assert Dialect(driver="a", quote="").quoted("ab") == "ab"


@pytest.mark.parametrize(
    ("driver", "properties", "name"),
    [
        ("duckdb", {"database": "a.duckdb"}, "duckdb"),
        ("sqlite", {"database": "a.sqlite"}, "sqlite"),
        ("sqlite", {}, "sqlite-memory"),
        ("sqlite", {"database": ":MEMORY:"}, "sqlite-memory"),
    ],
)
def test_a_dialect_is_guessed_from_driver_and_properties(
    driver: str, properties: dict[str, str], name: str
) -> None:
    assert dialects.guess(driver, properties) == name


def test_what_cannot_be_guessed_must_be_named() -> None:
    with pytest.raises(InvalidParams, match=r"no dialect for the driver 'mydb'.*duckdb, sqlite"):
        dialects.guess("mydb", {})


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_file_has_the_fields_under_their_own_names(tmp_path: Path) -> None:
    text = r"""
        driver = "mydb"
        sql = false
        quote = "`"
        declared = ["int", "text"]
        view = { lacks = "it has no views" }
        bytes = { type = "raw", samples = [["x'00'", '\x00']] }
        [quirks]
        texts = "it cuts them"
    """
    assert dialects.read(written(tmp_path / "my.toml", text)) == Dialect(
        driver="mydb",
        sql=False,
        quote="`",
        declared=("int", "text"),
        view=Lacks("it has no views"),
        bytes=Values("raw", (("x'00'", r"\x00"),)),
        quirks={"texts": "it cuts them"},
    )


def test_a_file_may_begin_with_another_dialect(tmp_path: Path) -> None:
    found = dialects.read(written(tmp_path / "my.toml", 'like = "duckdb"\nfails = "no"'))
    assert (found.named, found.fails) == ("$x", "no")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour = 1", "there is no field 'colour'"),
        ("rows = 1", "rows must be of the kind str"),
        ("sql = 'yes'", "sql must be of the kind bool"),
        ("rows = { lacks = 'no' }", "rows must be of the kind str"),
        ("bytes = { type = 'raw', samples = ['a'] }", r"bytes must be of the kind Values \| Lacks"),
        ("declared = ['int']", "declared must be"),
        ("quirks = { a = 1 }", "quirks must be"),
        ("like = 'nothing'", "like: there are duckdb"),
        ("rows", "my.toml: "),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidParams, match=complaint):
        dialects.read(written(tmp_path / "my.toml", text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match=r"no\.toml"):
        dialects.read(tmp_path / "no.toml")
