"""From ``?``, ``$1`` and ``:name`` to the five styles of PEP 249 and PostgreSQL's own."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.placeholders import Bound, Paramstyle, bind
from notebook_rpc.sansio.sqltext import MYSQL, POSTGRES, SQLITE

STYLES = get_args(Paramstyle)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("qmark", Bound("a = ? and b = ? % 2", [1, 2])),
        ("numeric", Bound("a = :1 and b = :2 % 2", [1, 2])),
        ("dollar", Bound("a = $1 and b = $2 % 2", [1, 2])),
        ("named", Bound("a = :p1 and b = :p2 % 2", {"p1": 1, "p2": 2})),
        ("format", Bound("a = %s and b = %s %% 2", [1, 2])),
        ("pyformat", Bound("a = %(p1)s and b = %(p2)s %% 2", {"p1": 1, "p2": 2})),
    ],
)
def test_question_marks(style: Paramstyle, expected: Bound) -> None:
    assert bind("a = ? and b = ? % 2", [1, 2], style) == expected


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("qmark", Bound("?, ?, ? % 2", ["b", "a", "b"])),
        ("numeric", Bound(":1, :2, :1 % 2", ["b", "a"])),
        ("dollar", Bound("$1, $2, $1 % 2", ["b", "a"])),
        ("named", Bound(":p2, :p1, :p2 % 2", {"p1": "a", "p2": "b"})),
        ("format", Bound("%s, %s, %s %% 2", ["b", "a", "b"])),
        ("pyformat", Bound("%(p2)s, %(p1)s, %(p2)s %% 2", {"p1": "a", "p2": "b"})),
    ],
)
def test_numbers(style: Paramstyle, expected: Bound) -> None:
    assert bind("$2, $1, $2 % 2", ("a", "b"), style) == expected
    assert bind("?2, ?1, ?2 % 2", ("a", "b"), style) == expected


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("qmark", Bound("?, ?, ? % 2", [2, 1, 2])),
        ("numeric", Bound(":1, :2, :1 % 2", [2, 1])),
        ("dollar", Bound("$1, $2, $1 % 2", [2, 1])),
        ("named", Bound(":b, :a, :b % 2", {"a": 1, "b": 2})),
        ("format", Bound("%s, %s, %s %% 2", [2, 1, 2])),
        ("pyformat", Bound("%(b)s, %(a)s, %(b)s %% 2", {"a": 1, "b": 2})),
    ],
)
def test_names(style: Paramstyle, expected: Bound) -> None:
    assert bind(":b, :a, :b % 2", {"a": 1, "b": 2}, style) == expected


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("parameters", [None, [], {}])
def test_without_parameters_a_statement_stays_as_it_is(
    style: Paramstyle, parameters: list[object] | None
) -> None:
    sql = "select '%', a ? b, :c, $1, a ?? b"
    assert bind(sql, parameters, style) == Bound(sql, None)


@pytest.mark.parametrize(
    "text",
    ["'? :a $1'", '"? :a $1"', "-- ? :a $1\n", "/* ? :a $1 */", "a::a", "x[1:a]", "x:a", "@a:=1"],
)
def test_what_only_looks_like_a_placeholder_is_none(text: str) -> None:
    assert bind(f"{text} ?", [1], "qmark").sql == f"{text} ?"
    assert bind(f"{text} :a", {"a": 1}, "dollar").sql == f"{text} $1"
    assert bind(f"{text} $1", [1], "numeric").sql == f"{text} :1"


def test_a_dialect_has_more_quotes() -> None:
    assert bind(r"E'\'?' $$?$$ ?", [1], "dollar", POSTGRES).sql == r"E'\'?' $$?$$ $1"
    assert bind("`?` ? # ?", [1], "format", MYSQL).sql == "`?` %s # ?"
    assert bind("a$1 $1", [1], "dollar", POSTGRES).sql == "a$1 $1"


def test_every_percent_sign_is_doubled_for_modules_that_format() -> None:
    for style in ("format", "pyformat"):
        sql, parameters = bind("'%s' \"%(a)s\" -- %\n%? ", [7], style)
        assert sql % ("7" if style == "format" else {"p1": "7"}) == "'%s' \"%(a)s\" -- %\n%7 "
        assert parameters


@pytest.mark.parametrize("style", STYLES)
def test_two_question_marks_are_one(style: Paramstyle) -> None:
    sql, _ = bind("a ?? b = ?", [1], style)
    assert sql.startswith("a ?? b" if style == "qmark" else "a ? b")


@pytest.mark.parametrize("style", STYLES)
def test_beside_numbers_and_names_a_question_mark_is_the_databases_own(style: Paramstyle) -> None:
    assert bind("a ? b, a ?? b, $1", [1], style).sql.startswith("a ? b, a ?? b, ")
    assert bind("a ? b, a ?? b, :c", {"c": 1}, style).sql.startswith("a ? b, a ?? b, ")


@pytest.mark.parametrize(
    ("sql", "parameters", "message"),
    [
        ("?, ?", [1], "asks for 2 parameters, but 1 were given"),
        ("?", [1, 2], "asks for 1 parameters, but 2 were given"),
        ("'?'", [1], "asks for 0 parameters, but 1 were given"),
        ("$1, $3", [1, 2], r"asks for \$3, but 2 were given"),
        ("$1", [1, 2], "asks for 1 parameters, but 2 were given"),
        ("$0", [1], r"asks for \$0, but"),
        ("$" + "9" * 5000, [1], r"asks for \$999999999, but"),
        (":a, :b", {"a": 1}, "asks for :b, which was not given"),
        (":a", {"a": 1, "c": 2, "b": 3}, "no parameter 'c'"),
        ("?", {"a": 1}, "no parameter 'a'"),
        (":a", [1], "asks for 0 parameters"),
    ],
)
@pytest.mark.parametrize("style", STYLES)
def test_what_does_not_go_together_is_an_error(
    sql: str, parameters: list[object], message: str, style: Paramstyle
) -> None:
    with pytest.raises(QueryError, match=message):
        bind(sql, parameters, style)


PIECES = ["?", "$1", "$2", ":a", ":b", "::", "??", "'", '"', "%", "%s", "/*", "*/", "--", "\n", "x"]
SQL = st.lists(st.sampled_from([*PIECES, " ", ",", "1", "[", ":"]), max_size=20).map("".join)
PARAMETERS = st.lists(st.integers(), max_size=3) | st.dictionaries(
    st.sampled_from("abc"), st.integers(), max_size=3
)


@given(SQL, PARAMETERS)
def test_all_styles_say_the_same(sql: str, parameters: list[object] | dict[str, object]) -> None:
    try:
        template, values = bind(sql, parameters, "format")
    except QueryError as exc:
        for style in STYLES:
            with pytest.raises(QueryError, match=re.escape(str(exc))):
                bind(sql, parameters, style)
        return
    if values is None:
        assert template == sql
        return
    assert isinstance(values, list)
    named, by_name = bind(sql, parameters, "pyformat")
    assert isinstance(by_name, dict)
    shown = {name: f"<{value}>" for name, value in by_name.items()}
    assert template % tuple(f"<{value}>" for value in values) == named % shown
    pieces = (template % (("\0",) * len(values))).split("\0")
    for style, mark in {"numeric": r":\d+", "dollar": r"\$\d+", "named": r":[pabc]\d?"}.items():
        text, bound = bind(sql, parameters, style)  # type: ignore[arg-type]
        pattern = f"({mark})".join(re.escape(piece) for piece in pieces)
        found = re.fullmatch(pattern, text)
        assert found is not None
        for place, value in zip(found.groups(), values, strict=True):
            if isinstance(bound, list):
                assert bound[int(place[1:]) - 1] == value
            else:
                assert bound is not None
                assert bound[place[1:]] == value


@given(SQL, st.lists(st.integers(), min_size=1, max_size=3))
def test_a_question_mark_is_one_where_sqlite_sees_one(sql: str, parameters: list[int]) -> None:
    """SQLite's own parser is the judge of what is in strings and comments."""
    sql = "select 1 where 1 in (" + re.sub(r"[$:]\w+|\?\?|[\[:%]", "", sql) + "\n)"
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute(sql, parameters)
        except sqlite3.ProgrammingError as exc:
            if "incorrect number of bindings" in str(exc).lower():
                with pytest.raises(QueryError):
                    bind(sql, parameters, "qmark", SQLITE)
        except sqlite3.Error:
            return  # it is no statement, so nobody knows
        else:
            assert bind(sql, parameters, "qmark", SQLITE) == Bound(sql, list(parameters))


def test_beside_numbers_a_name_with_a_colon_is_the_databases_own() -> None:
    assert bind("a (:b), $1", [1], "qmark") == Bound("a (:b), ?", [1])
