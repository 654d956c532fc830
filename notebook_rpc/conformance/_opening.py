"""Checks of opening: properties, secrets, and a database that nobody may change."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from notebook_rpc.conformance.outcomes import (
    Skipped,
    expect,
    expect_equal,
    refused,
)
from notebook_rpc.conformance.subject import values
from notebook_rpc.driver import SupportsReadOnly
from notebook_rpc.errors import DatabaseError, InvalidParams, NotebookError, NotSupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from notebook_rpc.conformance.subject import Subject
    from notebook_rpc.driver import Connection, Database

# What some database or other takes to make a session writable again.
WAYS_OUT = (
    "start transaction read write",
    "begin; set transaction read write",
    "set session characteristics as transaction read write",
    "set session transaction read write",
    "set default_transaction_read_only = off",
    "set transaction_read_only = off",
    "set access_mode = 'read_write'",
    "pragma query_only = off",
    "reset all",
)


def unknown_properties_are_named(subject: Subject) -> None:
    """A property that nobody knows is InvalidParams, with the property's name."""
    exc = refused("the property colour", lambda: _opened(subject, colour="red"), InvalidParams)
    expect("colour" in str(exc), f"the message must name the property: {exc}")


def the_description_is_for_people(subject: Subject) -> None:
    """`description` says in a line what was opened."""
    description = subject.database.description
    expect(bool(description.strip()), "it is empty")
    expect("\n" not in description, f"it has several lines: {description!r}")


def passwords_are_never_shown(subject: Subject) -> None:
    """No password is in the description, nor in the error of a database that cannot be opened."""
    password = secrets.token_hex(8)
    tries = [{"password": password}, {"password": f"{password};x=y"}]
    if "host" in subject.properties:
        tries += [{"password": password, "port": "1"}]
        tries += [{"password": password, "username": "nobody at all", "database": "none at all"}]
    for properties in tries:
        for text in _said(subject, properties):
            expect(password not in text, f"the password is in: {text.replace(password, '*****')}")


def _said(subject: Subject, properties: dict[str, str]) -> Iterator[str]:
    """All that a driver says when it is opened and used with *properties*."""
    try:
        database = _opened(subject, **properties)
    except NotebookError as exc:
        yield str(exc)
        return
    try:
        yield database.description
        yield repr(database)
        connection = database.connect()
    except NotebookError as exc:
        yield str(exc)
    else:
        try:
            connection.execute(subject.dialect.fails)
        except NotebookError as exc:
            yield str(exc)
        finally:
            connection.close()
    finally:
        database.close()


def read_only_is_enforced(subject: Subject) -> None:
    """Opened `read_only`, the database can be read, and refuses every way to change it."""
    writes = _writes(subject, subject.connect())
    try:
        connection = subject.reopen(read_only=True)
    except NotSupported as exc:
        raise Skipped(f"read-only is not supported: {exc}") from exc
    except InvalidParams as exc:
        if re.search("read.only", str(exc)):
            raise Skipped(f"not for this database: {exc}") from exc
        raise
    _expect_reading_only(subject, connection, writes)
    _expect_unchanged(subject, subject.reopen(read_only=False))


def read_only_connections_are_enforced(subject: Subject) -> None:
    """A connection of `connect_read_only` can read, beside one that writes, and refuses every
    way to change the database."""
    if not isinstance(subject.database, SupportsReadOnly):
        raise Skipped("the driver has no read-only connections beside others")
    writer = subject.connect()
    writes = _writes(subject, writer)
    try:
        reader = subject.database.connect_read_only()
    except NotSupported as exc:
        raise Skipped(f"read-only connections are not supported: {exc}") from exc
    subject.connections.append(reader)
    _expect_reading_only(subject, reader, writes)
    _expect_unchanged(subject, writer)
    writer.execute(writes[0])


def _writes(subject: Subject, connection: Connection) -> list[str]:
    """Ways to change the database, in which something has been made."""
    if not subject.dialect.sql:
        return [subject.touch(), subject.creation()]
    table = subject.create(connection)
    connection.execute(subject.touch())
    return [
        *(subject.touch(), f"delete from {table}", f"drop table {table}"),
        *(f"update {table} set id = 0", subject.creation("other")),
    ]


def _expect_reading_only(subject: Subject, connection: Connection, writes: Sequence[str]) -> None:
    for write in writes:
        refused(write, lambda: connection.execute(write), NotebookError)  # noqa: B023
        connection.rollback()
    for sql in WAYS_OUT:
        with suppress(DatabaseError):  # most databases know but one or two of them
            connection.execute(sql)
        what = f"{writes[0]} after {sql}"
        refused(what, lambda: connection.execute(writes[0]), NotebookError)
        connection.rollback()
    expect_equal("rows that can be read", values(connection, subject.rows(3)), [1, 2, 3])
    if subject.dialect.sql:
        count = f"select count(*) from {subject.quoted('made')}"
        expect_equal("rows", values(connection, count), [3])


def _expect_unchanged(subject: Subject, connection: Connection) -> None:
    if subject.dialect.sql:
        count = f"select count(*) from {subject.quoted('made')}"
        expect_equal("rows in truth", values(connection, count), [3])


def _opened(subject: Subject, **properties: str) -> Database:
    return subject.driver.open({**subject.properties, **properties})
