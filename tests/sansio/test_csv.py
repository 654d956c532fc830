"""Records of CSV, read back by Python's own reader and by DuckDB's."""

from __future__ import annotations

import csv as reader
import io
import tempfile

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_rpc.sansio.csv import END, record, records


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        (["a", "1", "true"], "a,1,true"),
        (["a,b", 'c"d', "e\nf", "g\rh"], '"a,b","c""d","e\nf","g\rh"'),
        ([None, "", "x"], ',"",x'),
        ([None], '""'),
        ([""], '""'),
        ([None, None], ","),
        ([" a ", "'b'", "=1+1"], " a ,'b',=1+1"),
    ],
)
def test_a_record(cells: list[str | None], text: str) -> None:
    assert record(cells) == text


# A CSV file is text: NUL is none, and half of a surrogate pair cannot be written.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1))
def test_a_reader_gets_what_was_written(rows: list[list[str]]) -> None:
    text = "".join(row + END for row in records(rows))
    assert list(reader.reader(io.StringIO(text, newline=""), strict=True)) == rows


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.tuples(st.none() | CELLS, st.none() | CELLS), min_size=1, max_size=5))
def test_duckdb_tells_null_from_nothing(rows: list[tuple[str | None, str | None]]) -> None:
    text = "".join(row + END for row in ["x,y", *records(rows)])
    with tempfile.NamedTemporaryFile("w", newline="", encoding="utf-8", suffix=".csv") as file:
        file.write(text)
        file.flush()
        query = (
            f"FROM read_csv('{file.name}', header=true, auto_detect=false, quote='\"', escape='\"',"
            " columns={x: 'VARCHAR', y: 'VARCHAR'}, new_line='\\r\\n', nullstr='',"
            " allow_quoted_nulls=false)"
        )
        assert duckdb.execute(query).fetchall() == rows
