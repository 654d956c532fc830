"""Checks of which tables statements touch: a write must meet every query whose rows it may change.

That more is told than was touched, or that nobody knows, is no fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from notebook_rpc.conformance.outcomes import Skipped, expect, expect_equal, needs
from notebook_rpc.conformance.subject import values
from notebook_rpc.driver import Connection, SupportsTouched
from notebook_rpc.errors import QueryError

if TYPE_CHECKING:
    from notebook_rpc.conformance.subject import Subject
    from notebook_rpc.model import Touched


class _Touching(SupportsTouched, Connection, Protocol):
    """A connection that tells."""


def written_tables_are_told(subject: Subject) -> None:
    """INSERT, UPDATE and DELETE are told, with tables that the queries of theirs read."""
    writer, reader = _connect(subject), _connect(subject)
    for name in ("made", "Other one"):
        table = subject.create(writer, name)
        reads = reader.reads(f"select * from {table}")
        for write in (subject.touch(name), f"update {table} set id = 5", f"delete from {table}"):
            _expect_met(write, _told(writer, write), reads)


def all_statements_of_a_call_are_told(subject: Subject) -> None:
    """What several statements in one call have written is told of each, also if the last fails."""
    writer, reader = _connect(subject), _connect(subject)
    tables = [subject.create(writer, name) for name in ("one", "two")]
    call = f"{subject.touch('one')}; {subject.touch('two')}; {subject.dialect.fails}"
    told = _told(writer, call, fails=True)
    for table in tables:
        _expect_met(call, told, reader.reads(f"select id from {table}"))


def writes_are_told_when_they_are_committed(subject: Subject) -> None:
    """What a transaction has written is told by the call that commits it."""
    writer, reader = _connect(subject), _connect(subject)
    table = subject.create(writer)
    reads = reader.reads(f"select * from {table}")
    begin = needs(subject.dialect.begin)
    for between in (subject.touch(), f"delete from {table}"):
        for sql in (begin, between):
            writer.execute(sql).close()
        writer.take_written()
        _expect_met(f"the commit of {between}", _told(writer, "commit"), reads)
    for sql in (begin, subject.touch(), "rollback", begin, f"update {table} set id = 9"):
        writer.execute(sql).close()
    writer.take_written()
    _expect_met("a commit after a rollback", _told(writer, "commit"), reads)


def tables_behind_views_are_read(subject: Subject) -> None:
    """A query of a view reads the tables behind it, and behind the views it is made of."""
    writer, reader = _connect(subject), _connect(subject)
    table = subject.create(writer)
    subject.create_view(writer, "seen", f"select id from {table}")
    subject.create_view(writer, "far", f"select id from {subject.quoted('seen')}")
    told = _told(writer, subject.touch())
    for query in (
        f"select * from {subject.quoted('seen')}",
        f"select count(*) from {subject.quoted('far')}",
        f"select 1 where exists (select * from {subject.quoted('far')})",
        f"with x as (select * from {subject.quoted('far')}) select * from x",
    ):
        _expect_met(f"{subject.touch()}, for {query}", told, reader.reads(query))


def new_tables_may_change_anything(subject: Subject) -> None:
    """To make and to drop tables and views is told as a write to any table."""
    connection, drop = _connect(subject), subject.dialect.drop
    expect_equal("written by CREATE TABLE", _told(connection, subject.creation()), None)
    subject.create_view(connection, "seen", f"select id from {subject.quoted('made')}")
    expect_equal("written by CREATE VIEW", connection.take_written(), None)
    for what, sql in (
        ("DROP VIEW", subject.dialect.drop_view.format(view=subject.quoted("seen"))),
        ("DROP TABLE", "" if drop is None else drop.format(table=subject.quoted("made"))),
    ):
        if sql:
            expect_equal(f"written by {what}", _told(connection, sql), None)


def queries_write_nothing(subject: Subject) -> None:
    """A query is not told as a write."""
    connection = _connect(subject)
    table = subject.create(connection)
    connection.take_written()
    for query in (f"select * from {table}", subject.rows(3)):
        before = connection.changes
        values(connection, query)
        expect_equal(f"changes by {query}", connection.changes - before, 0)
        expect_equal(f"written by {query}", connection.take_written(), frozenset())


def asking_what_is_read_runs_nothing(subject: Subject) -> None:
    """`reads` runs nothing, and of what is no single query it says that it may be any."""
    connection = _connect(subject)
    table = subject.create(connection)
    query = f"select count(*) from {table}"
    for sql in (subject.touch(), f"{query}; {query}", f"drop table {table}", "no sql", ""):
        expect_equal(f"reads({sql!r})", connection.reads(sql), None)
    expect_equal("rows", values(connection, query), [0])


def _connect(subject: Subject) -> _Touching:
    subject.sql_only()
    connection = subject.connect()
    if not isinstance(connection, SupportsTouched):
        raise Skipped("the driver does not tell which tables are touched")
    return cast("_Touching", connection)


def _told(connection: _Touching, sql: str, *, fails: bool = False) -> Touched:
    """What was written by *sql*, which must have been told."""
    connection.take_written()
    before = connection.changes
    try:
        connection.execute(sql).close()
    except QueryError:
        if not fails:
            raise
    expect(connection.changes > before, f"changes has not grown by {sql}")
    return connection.take_written()


def _expect_met(what: str, written: Touched, reads: Touched) -> None:
    met = written is None or reads is None or bool(written & reads)
    expect(met, f"{what}: {reads} is read, and {written} was written")
