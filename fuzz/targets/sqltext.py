"""Any text is cut into statements that stand where they say, in order, with nothing but blanks,
comments and semicolons between them, each of which is one statement; and its placeholders are
translated so that a module which formats gets the same text as one that takes question marks."""

from __future__ import annotations

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.placeholders import bind
from notebook_rpc.sansio.sqltext import (
    MYSQL,
    ORACLE,
    POSTGRES,
    SQLITE,
    STANDARD,
    TSQL,
    Dialect,
    Kind,
    statements,
    tokens,
    transaction_control,
)

DIALECTS = [STANDARD, POSTGRES, MYSQL, SQLITE, TSQL, ORACLE]
BETWEEN = {Kind.BLANK, Kind.COMMENT, Kind.SEMICOLON}

# The first byte is the dialect.
SEEDS = [
    b"\0select ';', \"?\" -- ?;\n, ?; /* ; */ select 2;;",
    b"\1select E'\\';?', $a$ ; $$ $a$, $1, $2::int, a ? b, /* /* */ ; */ x[1:a]; begin read only",
    b"\1create or replace function f() begin atomic select 1; select case a when b end; end; x",
    b"\2create definer=`a`@`b` procedure p() begin if a then b; end if; end; # ;\n select '\\'' --",
    b"\2/*! set names utf8 */; /*M! ; */ start transaction with consistent snapshot",
    b"\3create temp trigger t on [a]] begin select `;`; end; rollback to a; commit and chain",
    b"\4declare @a int; set @a = ?; select [a]];b]",
    b"\5begin a; b; end;",
    b"\1E'a'\n'\\'; ' $\xc3\xa9$;$\xc3\xa9$ %s %% ?? $tag",
]


def target(data: bytes) -> None:
    dialect = DIALECTS[data[0] % len(DIALECTS)] if data else STANDARD
    sql = data[1:].decode("utf-8", "surrogateescape")
    check_statements(sql, dialect)
    check_placeholders(sql, dialect)


def check_statements(sql: str, dialect: Dialect) -> None:
    found = list(tokens(sql, dialect))
    assert "".join(sql[start:end] for _, start, end in found) == sql
    at = 0
    for text, start in statements(sql, dialect):
        assert sql[start : start + len(text)] == text
        assert_nothing(sql[at:start], dialect)
        assert [again.text for again in statements(text, dialect)] == [text]
        transaction_control(text, dialect)
        at = start + len(text)
    assert_nothing(sql[at:], dialect)


def assert_nothing(text: str, dialect: Dialect) -> None:
    assert {kind for kind, _, _ in tokens(text, dialect)} <= BETWEEN


def check_placeholders(sql: str, dialect: Dialect) -> None:
    places = [sql[a:b] for kind, a, b in tokens(sql, dialect) if kind is Kind.PLACEHOLDER]
    names = {place[1:]: number for number, place in enumerate(places) if place[0] == ":"}
    count = sum(place == "?" for place in places)
    if "??" in sql:
        return  # the one thing that they write differently
    for parameters in (names, list(range(count))):
        try:
            plain, values = bind(sql, parameters, "qmark", dialect)
            template, same = bind(sql, parameters, "format", dialect)
        except QueryError:
            assert count < len(places)  # there are numbers, which want something else
            continue
        assert values == same
        if isinstance(values, list):
            assert template % (("?",) * len(values)) == plain
