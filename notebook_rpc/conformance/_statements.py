"""Checks of what goes in: several statements at once, parameters, and errors."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

from notebook_rpc.conformance.outcomes import (
    Failed,
    described,
    expect,
    expect_equal,
    needs,
    refused,
    shown,
)
from notebook_rpc.conformance.subject import rest, values, ways
from notebook_rpc.errors import NotebookError, QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.conformance.subject import Subject
    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Parameters

SURROGATE = "\ud800"  # half a pair: no UTF-8 for it


# Several statements.


def all_statements_run(subject: Subject) -> None:
    """All statements of a text run, in order, and the last one answers."""
    connection = subject.connect()
    sql = f"{subject.creation('one')}; {subject.creation('two')}; {subject.rows(2)}"
    expect_equal("rows of the last statement", values(connection, sql), [1, 2])
    expect_equal("tables", sorted(subject.own(connection.tables())), ["one", "two"])
    sql = f"{subject.rows(2)}; {subject.creation('three')}"
    expect_equal("columns of the last statement", list(connection.execute(sql).columns), [])
    expect("three" in subject.own(connection.tables()), "the last statement did not run")


def no_statement_is_an_error(subject: Subject) -> None:
    """Blanks, comments and semicolons alone are a QueryError."""
    connection = subject.connect()
    for sql in ("", "  \n", ";", " ;; ", "-- a comment", "-- one\n ; -- two"):
        refused(repr(sql), lambda: connection.execute(sql))  # noqa: B023  # called here
    subject.expect_usable(connection, "an empty statement")


def ends_of_statements_do_no_harm(subject: Subject) -> None:
    """A semicolon, a line break or a comment after a statement changes nothing."""
    connection = subject.connect()
    for end in (";", " ;\n ; ", " -- the end", "; -- the end;", "\n-- one\n;\n-- two\n"):
        for execute in ways(connection):
            rows = rest(execute(subject.rows(2) + end))
            expect_equal(f"rows with {end!r} behind", rows, ['{"n":"1"}', '{"n":"2"}'])


def semicolons_are_seen_through(subject: Subject) -> None:
    """A semicolon in a string, a quoted name or a comment ends no statement."""
    subject.sql_only()
    name = subject.dialect.quoted("a;b")
    texts = {"'a;b'": "a;b", "'it''s; --'": "it's; --", **subject.dialect.strings}
    for execute in ways(subject.connect()):
        for literal, text in texts.items():
            sql = f"select 1; select /* ; */ {literal} as {name} -- ;"
            expect_equal(sql, json.loads(rest(execute(sql))[0]), {"a;b": text})


# Parameters.


def parameters_by_position(subject: Subject) -> None:
    """Numbers, text and NULL are bound by position."""
    mark, connection = needs(subject.dialect.parameter), subject.connect()
    numbers = subject.dialect.echo_number.format(p=mark)
    for number in (42, -(2**31)):
        _expect_echo(connection, numbers, [number], str(number))
    texts = subject.dialect.echo.format(p=mark)
    for text in ("a'b\"c\\ \u00e9\U0001f986", "", None):
        _expect_echo(connection, texts, [text], text)


def parameters_by_name(subject: Subject) -> None:
    """Parameters are bound by name."""
    mark, connection = needs(subject.dialect.named), subject.connect()
    _expect_echo(connection, subject.dialect.echo_number.format(p=mark), {"x": 42}, "42")
    _expect_echo(connection, subject.dialect.echo.format(p=mark), {"x": "it's"}, "it's")


def _expect_echo(
    connection: Connection, sql: str, parameters: Parameters, wanted: str | None
) -> None:
    for execute in ways(connection):
        (row,) = rest(execute(sql, parameters))
        found = list(json.loads(row).values())
        expect_equal(f"what {shown(parameters)} came to", found, [wanted])


def parameters_belong_to_the_last_statement(subject: Subject) -> None:
    """Of several statements, the last one gets the parameters."""
    sql = subject.dialect.echo_number.format(p=needs(subject.dialect.parameter))
    found = values(subject.connect(), f"{subject.rows(2)}; {sql}", [42])
    expect_equal("rows", found, [42])


def parameters_are_no_sql(subject: Subject) -> None:
    """Text that looks like SQL stays text when it is bound."""
    connection = subject.connect()
    sql = subject.dialect.echo.format(p=needs(subject.dialect.parameter))
    subject.create(connection)
    drop = f"x'; drop table {subject.quoted('made')}; --"
    for text in (drop, "' or 1=1 --", "%s ? :x $1 {0}", "a\\' b", "null"):
        expect_equal("the text", values(connection, sql, [text]), [text])
    expect("made" in subject.own(connection.tables()), "a bound text was run as SQL")


def marks_in_strings_are_no_parameters(subject: Subject) -> None:
    """What looks like a parameter in a string, a name or a comment is none."""
    _marks_in_strings(subject, needs(subject.dialect.parameter), ["v"])


def marks_in_strings_are_no_named_parameters(subject: Subject) -> None:
    """What looks like a named parameter in a string, a name or a comment is none."""
    _marks_in_strings(subject, needs(subject.dialect.named), {"x": "v"})


def _marks_in_strings(subject: Subject, mark: str, parameters: Parameters) -> None:
    subject.sql_only()
    name = subject.dialect.quoted("a?b:x")
    echo = subject.dialect.echo.format(p=mark)
    sql = f"select '{mark} 100%' as {name}, v /* {mark} */ from ({echo}) e -- {mark}"
    for execute in ways(subject.connect()):
        (row,) = rest(execute(sql, parameters))
        expect_equal("the row", json.loads(row), {"a?b:x": f"{mark} 100%", "v": "v"})


def wrong_parameters_are_errors(subject: Subject) -> None:
    """Too few parameters, or too many, are a QueryError."""
    subject.sql_only()
    connection = subject.connect()
    sql = subject.dialect.echo.format(p=needs(subject.dialect.parameter))
    refused("too few", lambda: rest(connection.execute(sql, [])))
    refused("too many", lambda: rest(connection.execute(sql, ["a", "b"])))
    refused("none needed", lambda: rest(connection.execute(subject.rows(1), ["a"])))
    subject.expect_usable(connection, "wrong parameters")


def wrong_names_are_errors(subject: Subject) -> None:
    """A parameter that is missing, or of a name that the statement has not, is a QueryError."""
    subject.sql_only()
    connection = subject.connect()
    sql = subject.dialect.echo.format(p=needs(subject.dialect.named))
    refused("a missing name", lambda: rest(connection.execute(sql, {"y": "a"})))
    refused("no name at all", lambda: rest(connection.execute(sql, {})))
    refused("one too many", lambda: rest(connection.execute(sql, {"x": "a", "y": "b"})))
    subject.expect_usable(connection, "wrong parameters")


def odd_parameters_do_not_break(subject: Subject) -> None:
    """A parameter that cannot be bound is a QueryError, and nothing worse."""
    connection = subject.connect()
    sql = subject.dialect.echo.format(p=needs(subject.dialect.parameter))
    odd: Sequence[object] = (
        *(True, 0.5, 2**63, -(2**200), math.nan, math.inf),
        *("a\0b", [1, [2]], {"a": None}, "x" * 1_000_000),
    )
    for execute in ways(connection):
        for value in odd:
            try:
                rest(execute(sql, [value]))
            except QueryError:
                continue  # it says so
            except NotebookError as exc:
                what = f"{str(value)[:20]!r} as a parameter: expected QueryError"
                raise Failed(f"{what}, found {described(exc)}") from exc
    subject.expect_usable(connection, "odd parameters")


# Errors.


def errors_leave_the_connection_usable(subject: Subject) -> None:
    """A statement that fails is a QueryError with the database's words; the next one runs."""
    connection = subject.connect()
    for execute in ways(connection):
        exc = refused("a wrong statement", lambda: execute(subject.dialect.fails))  # noqa: B023
        expect("nowhere" in str(exc), f"the message must have the word at fault, nowhere: {exc}")
        alone = not re.search(r"statement \d+ of", str(exc))
        expect(alone, f"the statement is alone, and needs no number: {exc}")
        subject.expect_usable(connection, "an error")


def errors_name_the_statement(subject: Subject) -> None:
    """An error among several statements says which one failed, and those before it have run."""
    connection, fails = subject.connect(), subject.dialect.fails
    sql = f"{subject.creation('one')}; {fails}; {subject.creation('two')}"
    exc = refused("the second of three", lambda: connection.execute(sql))
    _expect_words(exc, "statement 2 of 3: ", "nowhere", "(after 1 that ran)")
    expect_equal("tables", subject.own(connection.tables()), ["one"])
    exc = refused("the first of two", lambda: connection.execute(f"{fails}; {subject.rows(1)}"))
    _expect_words(exc, "statement 1 of 2: ", "nowhere", "(nothing ran)")


def _expect_words(exc: NotebookError, *words: str) -> None:
    for word in words:
        expect(word in str(exc), f"the message must have the words {word!r}: {exc}")


def positions_point_at_the_place(subject: Subject) -> None:
    """An error that has a position means characters, from 1, of the SQL as it was sent."""
    subject.sql_only()
    connection = subject.connect()
    for before in ("select 1 as n,\n  ", "select 1; select '\U0001f986\u00e9' as a,\n\t"):
        sql = f"{before}nowhere"
        exc = refused(repr(sql), lambda: connection.execute(sql))  # noqa: B023
        if exc.position is not None:
            expect_equal(f"position in {sql!r}", exc.position, len(before) + 1)


def errors_of_the_data_are_query_errors(subject: Subject) -> None:
    """A broken constraint and a table that exists already are QueryErrors."""
    subject.sql_only()
    connection = subject.connect()
    table = subject.create(connection, columns=f"id {subject.dialect.declared[0]} not null")
    refused("NULL into NOT NULL", lambda: connection.execute(f"insert into {table} values (null)"))
    refused("a table that exists", lambda: subject.create(connection))
    connection.execute(subject.touch())
    expect_equal("rows", values(connection, f"select count(*) from {table}"), [3])


def broken_unicode_is_an_error(subject: Subject) -> None:
    """Half a surrogate pair, in a statement or in a parameter, is a QueryError."""
    connection = subject.connect()
    sql = f"{subject.dialect.fails} '{SURROGATE}'"
    refused("in the statement", lambda: connection.execute(sql))
    if isinstance(subject.dialect.parameter, str):
        sql = subject.dialect.echo.format(p=subject.dialect.parameter)
        for execute in ways(connection):
            refused("in a parameter", lambda: rest(execute(sql, [SURROGATE])))  # noqa: B023
    subject.expect_usable(connection, "broken Unicode")


def null_characters_do_not_break(subject: Subject) -> None:
    """A null character in a statement is an error, and never the quiet end of it."""
    connection = subject.connect()
    sql = f"{subject.rows(1)} \0; {subject.dialect.fails}"
    refused("a null character", lambda: connection.execute(sql))
    subject.expect_usable(connection, "a null character")
