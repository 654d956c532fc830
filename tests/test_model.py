"""The words everyone uses: how they encode, how they sort, and names made distinct."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.model import Column, ResultColumn, Table, unique_names


def test_they_encode_as_the_protocol_has_them() -> None:
    assert (
        msgspec.json.encode([Table("c", "s", "t")]) == b'[{"catalog":"c","schema":"s","table":"t"}]'
    )
    assert (
        msgspec.json.encode(Column("c", "s", "t", "a", "INTEGER"))
        == b'{"catalog":"c","schema":"s","table":"t","column":"a","datatype":"INTEGER"}'
    )
    assert msgspec.json.encode(ResultColumn("a", "")) == b'{"column":"a","datatype":""}'


def test_tables_and_columns_sort_by_name_from_the_catalog_down() -> None:
    tables = [Table("b", "a", "a"), Table("a", "b", "a"), Table("a", "a", "b")]
    assert sorted(tables) == tables[::-1]
    columns = [Column("a", "a", "b", "a", "x"), Column("a", "a", "a", "b", "x")]
    assert sorted(columns) == columns[::-1]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a", "b", "A"], ["a", "b", "A"]),
        (["a", "a", "a"], ["a", "a_1", "a_2"]),
        (["a", "a", "a_1"], ["a", "a_2", "a_1"]),
        (["a_1", "a", "a"], ["a_1", "a", "a_2"]),
        (["a", "a", "a_1", "a_1"], ["a", "a_2", "a_1", "a_1_1"]),
        (["", ""], ["", "_1"]),
        (["b", "a", "b", "a"], ["b", "a", "b_1", "a_1"]),
    ],
)
def test_duplicate_names_are_numbered(names: list[str], expected: list[str]) -> None:
    assert unique_names(names) == expected


@given(st.lists(st.from_regex(r"[ab](_[12]){0,2}", fullmatch=True)))
def test_no_two_names_are_the_same_and_each_name_keeps_its_first_place(names: list[str]) -> None:
    unique = unique_names(iter(names))
    assert len(set(unique)) == len(names) == len(unique)
    for place, (name, made) in enumerate(zip(names, unique, strict=True)):
        if name in names[:place]:
            assert made.startswith(f"{name}_")
        else:
            assert made == name
