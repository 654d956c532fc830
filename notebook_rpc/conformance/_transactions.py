"""Checks of transactions: autocommit unless somebody says BEGIN, and the truth about it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from notebook_rpc.conformance.outcomes import Failed, described, expect_equal, needs, refused
from notebook_rpc.conformance.subject import values, ways
from notebook_rpc.errors import Cancelled, NotebookError, QueryError
from notebook_rpc.model import Transaction

if TYPE_CHECKING:
    from notebook_rpc.conformance.subject import Subject
    from notebook_rpc.driver import Connection


def autocommit_is_the_rule(subject: Subject) -> None:
    """Without BEGIN, others see a write as soon as the call has ended."""
    subject.sql_only()
    first, second = subject.connect(), subject.connect()
    table = subject.create(first)
    for number in (1, 2):
        first.execute(subject.touch())
        expect_equal("transaction after INSERT", first.transaction, Transaction.NONE)
        _expect_rows(second, table, 3 * number, "another connection sees")
    values(first, subject.rows(3))
    expect_equal("transaction after a query", first.transaction, Transaction.NONE)


def a_transaction_is_hidden_until_commit(subject: Subject) -> None:
    """After BEGIN nobody else sees a change, and after COMMIT everybody does."""
    subject.sql_only()
    first, second = subject.connect(), subject.connect()
    table = subject.create(first)
    begin = needs(subject.dialect.begin)
    first.execute(begin)
    first.execute(subject.touch())
    _expect_rows(first, table, 3, "before COMMIT it sees itself")
    _expect_rows(second, table, 0, "before COMMIT another connection sees")
    first.execute("commit")
    _expect_rows(second, table, 3, "after COMMIT another connection sees")
    first.execute(f"{begin}; {subject.touch()}; commit")
    _expect_rows(second, table, 6, "after all in one call another connection sees")


def rollback_undoes(subject: Subject) -> None:
    """ROLLBACK as a statement undoes what came after BEGIN."""
    subject.sql_only()
    connection = subject.connect()
    table = subject.create(connection)
    connection.execute(subject.touch())
    connection.execute(needs(subject.dialect.begin))
    connection.execute(f"delete from {table}")
    _expect_rows(connection, table, 0, "before ROLLBACK it sees")
    connection.execute("rollback")
    _expect_rows(connection, table, 3, "after ROLLBACK it sees")
    connection.execute(subject.touch())
    _expect_rows(subject.connect(), table, 6, "in autocommit mode again, another connection sees")


def the_state_of_the_transaction_is_told(subject: Subject) -> None:
    """`transaction` is OPEN between BEGIN and COMMIT or ROLLBACK, in any case, else NONE."""
    connection = subject.connect()
    begin = needs(subject.dialect.begin)
    for sql, state in (
        (subject.rows(1), Transaction.NONE),
        (begin, Transaction.OPEN),
        (subject.rows(1), Transaction.OPEN),
        ("commit", Transaction.NONE),
        (begin.upper(), Transaction.OPEN),
        ("ROLLBACK", Transaction.NONE),
        (f"-- really\n{begin};", Transaction.OPEN),
        (f"{subject.rows(1)}; commit -- now", Transaction.NONE),
        (f"{begin}; commit; {begin}; {subject.rows(1)}", Transaction.OPEN),
    ):
        connection.execute(sql).close()
        expect_equal(f"transaction after {sql!r}", connection.transaction, state)


def rollback_tells_whether(subject: Subject) -> None:
    """`rollback()` undoes, closes the result, and returns whether there was a transaction."""
    connection = subject.connect()
    subject.create(connection)
    expect_equal("rollback() without a transaction", connection.rollback(), False)
    connection.execute(needs(subject.dialect.begin))
    connection.execute(subject.touch())
    result = connection.execute(subject.rows(100_000))
    expect_equal("rows of fetch(1)", len(result.fetch(1)), 1)
    expect_equal("rollback() with a transaction", connection.rollback(), True)
    refused("a fetch after rollback()", lambda: result.fetch(1))
    expect_equal("transaction after rollback()", connection.transaction, Transaction.NONE)
    expect_equal("rollback() again", connection.rollback(), False)
    if subject.dialect.sql:
        _expect_rows(connection, subject.quoted("made"), 0, "after rollback() it sees")
    result = connection.execute(subject.rows(100_000))
    expect_equal("rows of fetch(1)", len(result.fetch(1)), 1)
    expect_equal("rollback() with a result alone", connection.rollback(), False)
    refused("a fetch after rollback()", lambda: result.fetch(1))
    subject.expect_usable(connection, "rollback()")


def a_commit_is_true_or_an_error(subject: Subject) -> None:
    """COMMIT commits all that was written, or is an error: it never undoes without a word."""
    subject.sql_only()
    connection = subject.connect()
    table = subject.create(connection)
    for failing in (subject.dialect.fails, needs(subject.dialect.fails_late)):
        connection.execute(f"delete from {table}")
        connection.execute(needs(subject.dialect.begin))
        connection.execute(subject.touch())
        refused("a wrong statement", partial(values, connection, failing))
        try:
            connection.execute("commit")
        except QueryError:
            _expect_rows(connection, table, 0, "after COMMIT was an error it sees")
        else:
            _expect_rows(connection, table, 3, "after COMMIT was no error it sees")
        expect_equal("transaction after COMMIT", connection.transaction, Transaction.NONE)


def closing_rolls_back(subject: Subject) -> None:
    """To close a connection undoes its transaction."""
    subject.sql_only()
    first, second = subject.connect(), subject.connect()
    table = subject.create(second)
    first.execute(needs(subject.dialect.begin))
    first.execute(subject.touch())
    expect_equal("rows", len(first.execute(subject.rows(100_000)).fetch(1)), 1)
    subject.connections.remove(first)
    first.close()
    _expect_rows(second, table, 0, "after the other one was closed it sees")
    second.execute(subject.touch())  # nothing is locked any more
    _expect_rows(second, table, 3, "after its own INSERT it sees")


def a_failed_statement_tells_the_state(subject: Subject) -> None:
    """After an error in a transaction, `transaction` tells whether it can go on."""
    connection = subject.connect()
    subject.create(connection)
    connection.execute(needs(subject.dialect.begin))
    connection.execute(subject.touch())
    refused("a wrong statement", lambda: connection.execute(subject.dialect.fails))
    _expect_truth(subject, connection)


def an_interrupted_statement_tells_the_state(subject: Subject) -> None:
    """After an interrupt in a transaction, `transaction` tells whether it can go on."""
    connection = subject.connect()
    endless = needs(subject.dialect.endless)
    subject.create(connection)
    connection.execute(needs(subject.dialect.begin))
    connection.execute(subject.touch())
    subject.interrupted(
        connection,
        lambda: refused(
            "an endless statement", lambda: connection.execute(endless).fetch(1), Cancelled
        ),
        after=0.0,
    )
    _expect_truth(subject, connection)


def _expect_truth(subject: Subject, connection: Connection) -> None:
    state = connection.transaction
    try:
        values(connection, subject.rows(3))
        works = True
    except QueryError:
        works = False
    what = f"whether the next statement runs, where transaction is {state.name}"
    expect_equal(what, works, state is not Transaction.FAILED)
    expect_equal("transaction after that", connection.transaction, state)
    expect_equal("rollback()", connection.rollback(), state is not Transaction.NONE)
    expect_equal("transaction after rollback()", connection.transaction, Transaction.NONE)
    if subject.dialect.sql:
        _expect_rows(connection, subject.quoted("made"), 0, "after rollback() it sees")
    subject.expect_usable(connection, "a failed transaction")


# What creates and drops. MySQL, for one, commits before it does.


def ddl_is_rolled_back(subject: Subject) -> None:
    """CREATE TABLE in a transaction is undone by ROLLBACK, rollback() and close()."""
    connection, other = subject.connect(), subject.connect()
    begin = needs(subject.dialect.begin)
    for end in ("ROLLBACK", "rollback()", "close()"):
        connection.execute(f"{begin}; {subject.creation()}")
        expect_equal("tables it sees", subject.own(connection.tables()), ["made"])
        expect_equal("tables others see", subject.own(other.tables()), [])
        if end == "ROLLBACK":
            connection.execute("rollback")
        elif end == "rollback()":
            expect_equal("rollback()", connection.rollback(), True)
        else:
            subject.connections.remove(connection)
            connection.close()
            connection = other
        expect_equal(f"tables after {end}", subject.own(connection.tables()), [])
    connection.execute(f"{begin}; {subject.creation()}; commit")
    expect_equal("tables after COMMIT", subject.own(subject.connect().tables()), ["made"])


def uncommitted_tables_are_in_the_catalog(subject: Subject) -> None:
    """The catalog has what the transaction made, and no more of it after ROLLBACK, also
    while a result is open."""
    connection, begin = subject.connect(), needs(subject.dialect.begin)
    for execute in ways(connection):
        connection.execute(f"{begin}; {subject.creation('new')}")
        expect_equal("rows", len(execute(subject.rows(100_000)).fetch(1)), 1)
        expect_equal("tables", subject.own(connection.tables()), ["new"])
        columns = connection.columns("", "", subject.name("new"))
        expect_equal("columns", [column.column.lower() for column in columns], ["id"])
        connection.execute("rollback")
        expect_equal("rows", len(execute(subject.rows(100_000)).fetch(1)), 1)
        expect_equal("tables after ROLLBACK", subject.own(connection.tables()), [])


def _expect_rows(connection: Connection, table: str, number: int, what: str) -> None:
    try:
        found = values(connection, f"select count(*) from {table}")
    except NotebookError as exc:
        raise Failed(f"{what}: {described(exc)}") from exc
    expect_equal(f"{what} so many rows", found, [number])
