"""Checks of queries that are run on the event loop: whoever says that one may be must be right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from notebook_rpc.conformance.outcomes import Skipped, expect, expect_equal, needs
from notebook_rpc.driver import (
    Connection,
    SupportsArrow,
    SupportsBrief,
    SupportsJson,
    SupportsReset,
)

if TYPE_CHECKING:
    from notebook_rpc.conformance.subject import Subject

MANY: Final = 300  # runs, after which a query should have proven what it is


class _Knowing(SupportsBrief, SupportsReset, Connection, Protocol):
    """A connection that says which queries are brief."""


def what_writes_is_not_brief(subject: Subject) -> None:
    """A statement that writes is never said to be harmless or brief, however often it has run."""
    connection = _connect(subject)
    subject.create(connection)
    for _ in range(MANY):
        _run(connection, subject.touch())
        expect(not connection.harmless(subject.touch()), f"harmless: {subject.touch()}")
        expect(not connection.brief(subject.touch()), f"brief: {subject.touch()}")


def what_is_brief_may_be_run_twice(subject: Subject) -> None:
    """A query that is said to be brief gives the same rows again, and is not brief in a
    transaction, nor when it was told to have taken for ever."""
    connection = _connect(subject)
    query = f"select id from {subject.create(connection)}"
    connection.execute(subject.touch()).close()
    rows = _run(connection, query)
    for _ in range(MANY):
        expect_equal("the rows of the same query", _run(connection, query), rows)
        if connection.brief(query):
            break
    else:
        raise Skipped(f"no query was brief after {MANY} runs")
    connection.execute(needs(subject.dialect.begin)).close()
    expect(not connection.brief(query), "a query is brief in a transaction")
    connection.rollback()
    connection.reset()
    expect(connection.brief(query), "a query is brief no more after a transaction")
    connection.took(query, math.inf)
    expect(not connection.brief(query), "a query is brief that was interrupted")


def _connect(subject: Subject) -> _Knowing:
    connection = subject.connect()
    if not isinstance(connection, SupportsBrief) or not isinstance(connection, SupportsReset):
        raise Skipped("The driver knows no brief queries.")
    return cast("_Knowing", connection)


def _run(connection: _Knowing, sql: str) -> Any:
    """As for a client that keeps no session."""
    connection.reset()
    if isinstance(connection, SupportsJson):
        result = connection.execute_json(sql)
        return result.fetch(10) if result.columns else []
    if isinstance(connection, SupportsArrow):
        arrow = connection.execute_arrow(sql)
        return bytes(arrow.fetch()) if arrow.columns else b""
    values = connection.execute(sql)
    return values.fetch(10) if values.columns else []
