"""Checks of interrupts and of connections beside each other: who runs, who stops, who waits."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from notebook_rpc.conformance.calls import Call, Turns, interrupt_of
from notebook_rpc.conformance.outcomes import (
    Failed,
    Skipped,
    described,
    expect,
    expect_equal,
    needs,
    shown,
)
from notebook_rpc.conformance.subject import PATIENCE, rest, values, ways
from notebook_rpc.driver import SupportsProgress
from notebook_rpc.errors import Cancelled, NotebookError

if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_rpc.conformance.subject import Subject
    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Result

RUNNING = 0.05  # seconds after which a statement has certainly begun
LATEST = 2.0  # seconds: one for the database to look up from its work, one for a busy machine
HAMMERED = 30  # calls
PAUSE = 0.0002  # seconds between two interrupts of a hail


def interrupts_stop_a_statement(subject: Subject) -> None:
    """An interrupted `execute` raises Cancelled, and the connection can be used."""
    connection = subject.connect()
    for execute in ways(connection):
        work = partial(_first_row, execute, needs(subject.dialect.endless))
        for after in (0.0, RUNNING):  # as it begins, and when it has begun
            _expect_cancelled(subject, connection, work, after)
        subject.expect_usable(connection, "an interrupt")


def interrupts_stop_a_fetch(subject: Subject) -> None:
    """An interrupted `fetch` raises Cancelled, as do later ones; the connection can be used."""
    connection = subject.connect()
    interrupt_of(connection)
    for execute in ways(connection):
        work = partial(execute, needs(subject.dialect.stalls))
        with subject.running(connection, work) as call:
            if not call.ended(PATIENCE):
                return  # `execute` reads all rows, so that `fetch` never waits
        result = call.outcome()
        _expect_cancelled(subject, connection, partial(rest, result), RUNNING)
        try:
            again = result.fetch(1)
        except Cancelled:
            subject.expect_usable(connection, "an interrupted fetch")
        else:
            raise Failed(f"a fetch after the interrupted one gives {again}, as if all were well")


def interrupts_are_felt_soon(subject: Subject) -> None:
    """An interrupt takes less than two seconds, time after time on the same connection."""
    connection = subject.connect()
    work = partial(_first_row, connection.execute, needs(subject.dialect.endless))
    for number in range(1, 6):
        began = time.monotonic()
        _expect_cancelled(subject, connection, work, RUNNING)
        seconds = time.monotonic() - began - RUNNING
        expect(seconds < LATEST, f"interrupt number {number} took {seconds:.1f} s")
        subject.expect_usable(connection, f"interrupt number {number}")


def interrupts_between_calls_do_nothing(subject: Subject) -> None:
    """An interrupt without a running call leaves the open result, and what comes next, alone."""
    connection = subject.connect()
    interrupt = interrupt_of(connection)
    interrupt()
    for execute in ways(connection):
        result = execute(subject.rows(100_000))
        expect_equal("rows of fetch(1)", len(result.fetch(1)), 1)
        interrupt()
        left = len(rest(result))
        expect_equal("rows left after an interrupt between two fetches", left, 99_999)
        interrupt()
    subject.create(connection)
    interrupt()
    expect_equal("tables", subject.own(connection.tables()), ["made"])


def interrupts_after_the_end_do_nothing(subject: Subject) -> None:
    """To interrupt a connection that is closed is no error."""
    connection = subject.connect()
    interrupt = interrupt_of(connection)
    subject.close_one(connection)
    interrupt()


def interrupts_spare_other_connections(subject: Subject) -> None:
    """An interrupt stops a call of its own connection only."""
    first, second = subject.connect(), subject.connect()
    interrupt = interrupt_of(second)
    work = partial(_first_row, first.execute, needs(subject.dialect.endless))
    with subject.running(first, work) as call:
        for _ in range(20):
            interrupt()
            expect(not call.ended(0.005), "the interrupt of another connection has stopped it")


def interrupts_may_come_at_any_time(subject: Subject) -> None:
    """Quick calls under a hail of interrupts end well or as Cancelled, and nothing breaks."""
    connection = subject.connect()
    wanted = list(range(1, 201))

    def read() -> None:
        expect_equal("rows", values(connection, subject.rows(200)), wanted)

    _hail(connection, read)
    subject.expect_usable(connection, "a hail of interrupts")
    for execute in ways(connection):
        _hail(connection, partial(_first_row, execute, subject.rows(100_000)))
        subject.expect_usable(connection, "a hail of interrupts")


def interrupted_catalog_calls_spare_a_transaction(subject: Subject) -> None:
    """Interrupts of catalog calls leave an open transaction whole."""
    connection, begin = subject.connect(), needs(subject.dialect.begin)
    changes = [subject.creation()]
    if subject.dialect.sql:  # first, because for MySQL there is no transaction with CREATE
        subject.create(connection, "touched")
        changes.insert(0, subject.touch("touched"))
    for change in changes:
        connection.execute(f"{begin}; {change}")
        _hail(connection, connection.tables)
        _hail(connection, partial(connection.columns, "", "", ""))
        connection.execute("commit")
    other = subject.connect()
    expect("made" in subject.own(other.tables()), "a table of the transaction was lost")
    if subject.dialect.sql:
        count = values(other, f"select count(*) from {subject.quoted('touched')}")
        expect_equal("rows after COMMIT", count, [3])


def interrupted_catalog_calls_spare_a_result(subject: Subject) -> None:
    """Interrupts of catalog calls leave an open result alone."""
    connection = subject.connect()
    for execute in ways(connection):
        result = execute(subject.rows(100_000))
        expect_equal("rows of fetch(10)", len(result.fetch(10)), 10)
        _hail(connection, connection.tables)
        _hail(connection, partial(connection.columns, "", "", ""))
        expect_equal("rows left", len(rest(result)), 99_990)


def progress_is_a_fraction(subject: Subject) -> None:
    """`progress`, asked at any time, is None or from 0 to 1, and does not raise."""
    connection = subject.connect()
    if not isinstance(connection, SupportsProgress):
        raise Skipped("the driver knows no progress")
    found = [connection.progress()]
    work = partial(_first_row, connection.execute, needs(subject.dialect.endless))
    with subject.running(connection, work) as call:
        for _ in range(20):
            found.append(connection.progress())
            call.ended(0.005)
    found.append(connection.progress())
    wrong = [each for each in found if each is not None and not 0 <= each <= 1]
    expect(not wrong, f"progress was {wrong}")


def connections_do_not_wait_for_each_other(subject: Subject) -> None:
    """While one connection is busy, others connect, query, create and look at the catalog."""
    first, second = subject.connect(), subject.connect()

    def work() -> None:
        subject.expect_usable(second, "another one has begun an endless statement")
        subject.create(second)
        expect_equal("tables", subject.own(subject.connect().tables()), ["made"])

    endless = partial(_first_row, first.execute, needs(subject.dialect.endless))
    with subject.running(first, endless) as busy:
        expect(not busy.ended(RUNNING), "what was to be endless has ended")
        beside = Call(work)
        in_time = beside.ended(PATIENCE)
    if not in_time:
        beside.ended(PATIENCE)  # with the other one out of its way
        raise Failed(f"calls of another connection had to wait, for more than {PATIENCE:g} s")
    beside.outcome()


def _first_row(execute: Callable[[str], Result[object]], sql: str) -> object:
    return execute(sql).fetch(1)


def _expect_cancelled(
    subject: Subject, connection: Connection, work: Callable[[], object], after: float
) -> None:
    interrupt_of(connection)  # who cannot be interrupted is not left unchecked, but lacks this
    try:
        found = shown(subject.interrupted(connection, work, after))
    except Cancelled:
        return
    except NotebookError as exc:
        found = described(exc)
    raise Failed(f"an interrupted call: expected Cancelled, found {found}")


def _hail(connection: Connection, work: Callable[[], object]) -> None:
    """Do *work* many times, and interrupt the connection all the while."""
    turns, stop = Turns(connection), threading.Event()

    def hail() -> None:
        while not stop.wait(PAUSE):
            turns.interrupt()

    beside = Call(hail)
    try:
        for _ in range(HAMMERED):
            try:
                turns.call(work)
            except Cancelled:
                continue  # which is what interrupts are for
    finally:
        stop.set()
        beside.ended(PATIENCE)
    beside.outcome()
