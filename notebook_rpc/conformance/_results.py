"""Checks of results: pages, counts, names of columns, and rows without end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from notebook_rpc.conformance.outcomes import Failed, expect, expect_equal, needs, refused
from notebook_rpc.conformance.subject import rest, values, ways
from notebook_rpc.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.conformance.subject import Subject
    from notebook_rpc.model import Result


def rows_come_in_pages(subject: Subject) -> None:
    """`fetch` gives as many rows as asked for while there are any, in order, then none."""
    connection = subject.connect()
    for number, sizes in ((250, [100, 100, 50, 0, 0]), (200, [100, 100, 0])):
        result = connection.execute(subject.rows(number))
        pages = [result.fetch(100) for _ in sizes]
        expect_equal(f"page sizes of {number} rows", [len(page) for page in pages], sizes)
        found = [value for page in pages for (value,) in page]
        expect_equal("rows", found, list(range(1, number + 1)))
        expect_equal("count of a statement with rows", result.count, -1)
        expect_equal("columns", [column.column for column in result.columns], ["n"])
        expect(not result.streaming, "streaming is still true after the last row")


def text_comes_in_the_same_pages(subject: Subject) -> None:
    """Rows as text come in pages of the size asked for, each row one JSON object."""
    for execute in ways(subject.connect()):
        result = execute(subject.rows(25))
        pages = [result.fetch(10) for _ in range(4)]
        expect_equal("page sizes", [len(page) for page in pages], [10, 10, 5, 0])
        wanted = [{"n": str(n)} for n in range(21, 26)]
        expect_equal("the third page", [json.loads(row) for row in pages[2]], wanted)


def duplicate_names_are_made_distinct(subject: Subject) -> None:
    """Columns called a, a are a, a_1, alike in `columns` and in rows as text."""
    for execute in ways(subject.connect()):
        result = execute(subject.dialect.twins)
        expect_equal("columns", [column.column for column in result.columns], ["a", "a_1"])
        expect_equal("rows", list(result.fetch(2)), ['{"a":"1","a_1":"2"}'])


def column_names_are_kept(subject: Subject) -> None:
    """Spaces, quotes, case, signs and Unicode in the names of columns arrive as they are."""
    subject.sql_only()
    names = ["a b", 'quo"te', "apo'st", "MiXed", "\u00e9\u8868", "50%", "a?b", "a:x", "{b}", "a;b"]
    columns = ", ".join(
        f"{number} as {subject.dialect.quoted(name)}" for number, name in enumerate(names)
    )
    for execute in ways(subject.connect()):
        result = execute(f"select {columns}")
        expect_equal("columns", [column.column for column in result.columns], names)
        wanted = {name: str(number) for number, name in enumerate(names)}
        expect_equal("the row", json.loads(result.fetch(1)[0]), wanted)


def wide_rows_are_whole(subject: Subject) -> None:
    """A row may have 500 columns."""
    subject.sql_only()
    columns = ", ".join(f"{number} as c{number}" for number in range(500))
    for execute in ways(subject.connect()):
        (row,) = rest(execute(f"select {columns}"))
        expect_equal("values", list(json.loads(row).values()), [str(n) for n in range(500)])


def the_next_statement_closes_the_result(subject: Subject) -> None:
    """A new statement closes the result before it; to fetch from that is an error."""
    connection = subject.connect()
    first = connection.execute(subject.rows(100_000))
    expect_equal("rows of fetch(1)", len(first.fetch(1)), 1)
    second = connection.execute(subject.rows(3))
    refused("fetch from the result before", lambda: first.fetch(1))
    first.close()
    first.close()
    expect_equal("rows of the new result", [value for (value,) in second.fetch(5)], [1, 2, 3])


def a_closed_result_gives_no_rows(subject: Subject) -> None:
    """To fetch from a closed result is an error, and to close it again is none."""
    connection = subject.connect()
    for number in (3, 100_000):
        result = connection.execute(subject.rows(number))
        expect_equal("rows of fetch(1)", len(result.fetch(1)), 1)
        result.close()
        result.close()
        refused("fetch from a closed result", lambda: result.fetch(1))  # noqa: B023  # called here
        expect(not result.streaming, "streaming is still true after close()")
    subject.expect_usable(connection, "closing a result early")


def a_failed_result_does_not_look_ended(subject: Subject) -> None:
    """An error in the middle of the rows is raised, and again by every later fetch."""
    connection = subject.connect()
    try:
        result = connection.execute(subject.dialect.fails_late)
    except QueryError:
        pass  # it has read ahead to the very end, and tells at once
    else:
        refused("rows that end in an error", lambda: list(iter(lambda: result.fetch(500), [])))
        refused("a fetch after the error", lambda: result.fetch(500))
        result.close()
    subject.expect_usable(connection, "an error among the rows")


def large_results_are_whole(subject: Subject) -> None:
    """Of 300 000 rows none is lost, doubled or out of order."""
    for execute in ways(subject.connect()):
        result = execute(subject.rows(300_000))
        at = 0
        while page := result.fetch(7_919):
            wanted = [f'{{"n":"{n}"}}' for n in range(at + 1, at + len(page) + 1)]
            if list(page) != wanted:
                wrong = next(pair for pair in zip(page, wanted, strict=True) if pair[0] != pair[1])
                raise Failed(f"row {at} or later: expected {wrong[1]}, found {wrong[0]}")
            at += len(page)
        expect_equal("number of rows", at, 300_000)


def first_rows_do_not_wait_for_the_last(subject: Subject) -> None:
    """Rows come while the database is still at work on others, so memory need not hold all."""
    connection = subject.connect()
    sql = needs(subject.dialect.stalls)
    found = subject.promptly(
        connection,
        lambda: connection.execute(sql).fetch(10),
        "no row had come after {} s although 50 000 were there: it reads all before it gives one",
    )
    expect_equal("the first rows", [n for (n,) in found], list(range(1, 11)))


def closing_early_does_not_wait(subject: Subject) -> None:
    """To close a result, or run the next statement, does not wait for the rows nobody wants."""
    connection = subject.connect()
    sql = needs(subject.dialect.stalls)

    def opened() -> Result[Sequence[object]]:
        result = connection.execute(sql)
        result.fetch(10)
        return result

    for what in ("close()", "the next statement", "rollback()", "to close the connection"):
        result = subject.promptly(connection, opened, "no row had come after {} s")
        end = {
            "close()": result.close,
            "the next statement": lambda: values(connection, subject.rows(3)),
            "rollback()": connection.rollback,
            "to close the connection": connection.close,
        }[what]
        subject.promptly(connection, end, f"{what} had not ended after {{}} s: it waits for rows")
    subject.connections.remove(connection)


def a_statement_without_rows_counts(subject: Subject) -> None:
    """INSERT has no columns and no rows, and `count` is the number of rows it touched."""
    connection = subject.connect()
    subject.create(connection)
    for execute in ways(connection):
        result = execute(subject.touch())
        expect_equal("columns", list(result.columns), [])
        expect_equal("count", result.count, 3)
        expect_equal("streaming", result.streaming, False)
        expect_equal("rows", list(result.fetch(10)), [])


def ddl_counts_nothing(subject: Subject) -> None:
    """CREATE TABLE has no columns, no rows, and a `count` of 0."""
    result = subject.connect().execute(subject.creation())
    expect_equal("columns", list(result.columns), [])
    expect_equal("count", result.count, 0)
    expect_equal("rows", list(result.fetch(10)), [])


def update_and_delete_count(subject: Subject) -> None:
    """`count` is the number of rows that UPDATE and DELETE touched, also if it is none."""
    subject.sql_only()
    connection = subject.connect()
    table = subject.create(connection)
    connection.execute(subject.touch())
    for sql, count in (
        (f"update {table} set id = id + 10 where id > 1", 2),
        (f"update {table} set id = id + 10 where id > 1000", 0),
        (f"delete from {table} where id = 1", 1),
        (f"insert into {table} select id from {table}", 2),
        (f"delete from {table}", 4),
    ):
        result = connection.execute(sql)
        expect_equal(f"count of {sql}", result.count, count)
        expect_equal(f"columns of {sql}", list(result.columns), [])


def returning_gives_rows(subject: Subject) -> None:
    """INSERT ... RETURNING has columns, rows and a `count` of -1, and has happened by then."""
    connection, other = subject.connect(), subject.connect()
    sql = needs(subject.dialect.returning).format(table=subject.quoted("made"))
    table = subject.create(connection)
    result = connection.execute(sql)
    expect_equal("columns", [column.column for column in result.columns], ["id"])
    expect_equal("count", result.count, -1)
    expect_equal("rows", [n for (n,) in result.fetch(1)], [7])  # the other one stays unread
    expect_equal("what others see", values(other, f"select count(*) from {table}"), [2])
    result.close()
    connection.execute(sql).close()
    expect_equal("after another", values(other, f"select count(*) from {table}"), [4])
