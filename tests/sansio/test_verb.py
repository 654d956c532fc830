"""The word that says what a statement does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.sansio.verb import verb


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", "SELECT"),
        ("insert into t values (1)", "INSERT"),
        ("-- a comment\n /* and another */ INSERT INTO t SELECT 1;", "INSERT"),
        ("INSERT INTO t VALUES (1); SELECT 1", "SELECT"),
        ("SELECT ';'; INSERT INTO t VALUES (1) ;; ", "INSERT"),
        ("WITH a AS (SELECT 1) INSERT INTO t FROM a", "INSERT"),
        ("WITH a AS (INSERT INTO t VALUES (1) RETURNING i) SELECT * FROM a", "SELECT"),
        ("WITH RECURSIVE a(x) AS (VALUES (1)) DELETE FROM t", "DELETE"),
        ("(SELECT 1)", "SELECT"),
        ("EXPLAIN INSERT INTO t VALUES (1)", "EXPLAIN"),
        ("'insert'", ""),
        ("WITH", ""),
        ("", ""),
        (" ; -- nothing", ""),
    ],
)
def test_verbs(sql: str, expected: str) -> None:
    assert verb(sql) == expected


@given(st.text())
def test_no_text_is_too_odd(sql: str) -> None:
    assert verb(sql) == verb(sql).upper()
