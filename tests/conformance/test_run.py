"""How a check is run: its verdict, its limit of time, and what it leaves in the database."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from notebook_rpc.conformance import calls, drivers
from notebook_rpc.conformance import subject as subject_module
from notebook_rpc.conformance.dialects import DIALECTS
from notebook_rpc.conformance.drivers import Check, Verdict, run
from notebook_rpc.conformance.outcomes import Failed, Skipped, Unchecked
from notebook_rpc.conformance.subject import PREFIX, Subject, rest, values, ways
from notebook_rpc.errors import Cancelled
from notebook_rpc.sansio.values import TextRows
from notebook_rpc_drivers import sqlite
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase
from tests.conformance.broken import Driver, Fault, OfNoInterrupt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from notebook_rpc.conformance.drivers import Finding
    from notebook_rpc.model import Parameters, Result

SQLITE = DIALECTS["sqlite"]


@pytest.fixture
def properties(tmp_path: Path) -> dict[str, str]:
    return {"database": str(tmp_path / "a.sqlite")}


def judged(
    function: Callable[[Subject], None],
    properties: dict[str, str],
    quirks: dict[str, str] | None = None,
    seconds: float = 10.0,
    **faults: Fault,
) -> Finding:
    dialect = dataclasses.replace(SQLITE, quirks=quirks or {})
    return run(Check("things", function), Driver(**faults), properties, dialect, seconds)


def it_works(subject: Subject) -> None:
    """All is well."""
    subject.create(subject.connect())


def it_fails(subject: Subject) -> None:
    """It makes a table, and
    fails.

    This is not part of the sentence.
    """
    subject.create(subject.connect())
    raise Failed("it is broken")


def it_skips(_: Subject) -> None:
    raise Skipped("there is none")


def it_cannot_tell(_: Subject) -> None:
    raise Unchecked("nobody knows")


def tables(properties: dict[str, str]) -> list[str]:
    database = sqlite.DRIVER.open(properties)
    connection = database.connect()
    found = [table.table for table in connection.tables()]
    connection.close()
    database.close()
    return found


def test_a_check_has_the_name_and_the_sentence_of_its_function() -> None:
    check = Check("things", it_fails)
    assert (check.name, check.sentence) == ("it-fails", "It makes a table, and fails.")


def test_every_check_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len({check.name for check in drivers.CHECKS}) == len(drivers.CHECKS)
    assert all(check.sentence.endswith(".") for check in drivers.CHECKS)


@pytest.mark.parametrize(
    ("function", "quirks", "verdict", "message"),
    [
        (it_works, {}, Verdict.OK, ""),
        (it_fails, {}, Verdict.FAILED, "it is broken"),
        (it_skips, {}, Verdict.SKIPPED, "there is none"),
        (it_cannot_tell, {}, Verdict.UNCHECKED, "nobody knows"),
        (it_cannot_tell, {"it-cannot-tell": "it never could"}, Verdict.UNCHECKED, "nobody knows"),
        (it_fails, {"it-fails": "it never could"}, Verdict.QUIRK, "it never could"),
        (it_skips, {"it-skips": "it never could"}, Verdict.SKIPPED, "there is none"),
        (
            it_works,
            {"it-works": "it never could"},
            Verdict.FAILED,
            "it passes, and so is no quirk any more; remove it from the dialect: it never could",
        ),
    ],
)
def test_verdicts(
    properties: dict[str, str],
    function: Callable[[Subject], None],
    quirks: dict[str, str],
    verdict: Verdict,
    message: str,
) -> None:
    finding = judged(function, properties, quirks)
    assert (finding.verdict, finding.message) == (verdict, message)


def test_a_bug_of_the_driver_is_shown_with_its_place(properties: dict[str, str]) -> None:
    def tables(_: Any) -> Any:
        raise KeyError("oid")

    def it_asks(subject: Subject) -> None:
        subject.connect().tables()

    finding = judged(it_asks, properties, tables=tables)
    assert finding.verdict is Verdict.FAILED
    assert finding.message.startswith(f"not a NotebookError, but KeyError('oid'), in {__file__}")


@pytest.mark.parametrize("function", [it_works, it_fails])
def test_what_a_check_made_is_dropped_and_nothing_else(
    properties: dict[str, str], function: Callable[[Subject], None]
) -> None:
    database = sqlite.DRIVER.open(properties)
    database.connect().execute(f"create table somebodys (id integer); create table {PREFIX} (id)")
    database.close()
    finding = judged(function, properties)
    assert finding.message == ("" if function is it_works else "it is broken")
    assert sorted(tables(properties)) == sorted(["somebodys", PREFIX])


def test_views_and_open_transactions_are_no_obstacle(properties: dict[str, str]) -> None:
    def it_makes_a_mess(subject: Subject) -> None:
        connection = subject.connect()
        table = subject.create(connection, "a b")
        subject.create_view(connection, "seen", f"select id from {table}")
        connection.execute(f"begin; insert into {table} values (1)")
        subject.connect().execute(subject.rows(100_000)).fetch(1)
        raise Failed("it is broken")

    assert judged(it_makes_a_mess, properties).message == "it is broken"
    assert tables(properties) == []


def test_what_cannot_be_dropped_is_named(properties: dict[str, str]) -> None:
    def execute(connection: Any, sql: str, parameters: Any) -> Any:
        return connection.execute(sql.replace("drop table", "drop view"), parameters)

    for function, before in ((it_works, ""), (it_fails, "it is broken; ")):
        finding = judged(function, properties, execute=execute)
        assert finding.verdict is Verdict.FAILED
        assert finding.message.startswith(f"{before}left behind in the database: {PREFIX}")


def test_what_takes_too_long_is_interrupted(properties: dict[str, str]) -> None:
    def it_hangs(subject: Subject) -> None:
        connection = subject.connect()
        subject.create(connection)
        connection.execute(str(SQLITE.endless)).fetch(1)

    finding = judged(it_hangs, properties, seconds=0.05)
    assert (finding.verdict, finding.message) == (
        Verdict.FAILED,
        "it had not ended after 0.05 s",
    )
    assert tables(properties) == []


def test_a_thread_that_cannot_be_stopped_is_left_behind_but_not_its_tables(
    properties: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "GRACE", 0.3)
    end = threading.Event()

    def it_hangs(subject: Subject) -> None:
        subject.create(subject.connect())
        end.wait()

    try:
        finding = judged(it_hangs, properties, seconds=0.05)
    finally:
        end.set()
    assert finding.message == (
        "it had not ended after 0.05 s; a thread is left behind that cannot be stopped"
    )
    assert tables(properties) == []


def test_a_call_that_cannot_be_stopped_is_left_behind(
    properties: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "STUBBORN", 0.05)
    end = threading.Event()

    def it_interrupts(subject: Subject) -> None:
        connection = subject.connect()
        subject.create(connection)
        subject.interrupted(connection, end.wait, after=0.0)

    try:
        finding = judged(it_interrupts, properties)
    finally:
        end.set()
    assert finding.message.startswith("a call goes on although it was interrupted for ")
    assert finding.message.endswith("; a thread is left behind that cannot be stopped")
    assert tables(properties) == []


def test_calls_do_not_begin_while_an_interrupt_runs() -> None:
    """That is the port's rule, which `calls.Turns` keeps for the checks."""
    log: list[str] = []
    interrupting, go_on = threading.Event(), threading.Event()

    class Connection:
        def interrupt(self) -> None:
            log.append("interrupt begins")
            interrupting.set()
            go_on.wait()
            log.append("interrupt ends")

    turns = calls.Turns(Connection())  # type: ignore[arg-type]  # all of it that is used
    turns.interrupt()  # without a call there is nothing to interrupt
    assert log == []

    def first() -> None:
        hammer = calls.Call(turns.interrupt)
        interrupting.wait()
        assert not hammer.ended()

    call = calls.Call(lambda: (turns.call(first), turns.call(lambda: log.append("second"))))
    interrupting.wait()
    assert not call.ended(0.05)
    go_on.set()
    assert call.ended(10.0)
    call.outcome()
    turns.interrupt()  # nor after one
    assert log == ["interrupt begins", "interrupt ends", "second"]


def test_a_database_without_sql_is_asked_nothing_in_it() -> None:
    subject = Subject(Driver(), {}, dataclasses.replace(SQLITE, sql=False))
    with pytest.raises(Skipped, match="understands no SQL"):
        subject.sql_only()
    Subject(Driver(), {}, SQLITE).sql_only()


def test_a_connection_that_gives_wrong_rows_is_not_usable(properties: dict[str, str]) -> None:
    def it_asks(subject: Subject) -> None:
        subject.expect_usable(subject.connect(), "a test")

    assert judged(it_asks, properties).verdict is Verdict.OK
    finding = judged(it_asks, properties, fetch=lambda result, limit: result.fetch(limit)[1:])
    assert finding.message == "rows after a test: expected [1, 2, 3], found [2, 3]"


def test_values_are_of_a_result_that_is_closed(properties: dict[str, str]) -> None:
    finished: list[object] = []

    def it_asks(subject: Subject) -> None:
        assert values(subject.connect(), subject.rows(2)) == [1, 2]

    assert judged(it_asks, properties, finish=finished.append).verdict is Verdict.OK
    assert len(finished) == 1


def test_a_driver_that_gives_text_is_asked_for_it_too() -> None:
    plain, text = FakeDatabase().connect(), WithText()
    assert len(list(ways(plain))) == 1
    ours, theirs = ways(text)
    assert rest(ours("rows 1")) == ['{"n":"1"}']
    assert rest(theirs("rows 1")) == ['{"theirs":"1"}']


class WithText(FakeConnection):
    def __init__(self) -> None:
        super().__init__(FakeDatabase())

    def execute_text(self, sql: str, parameters: Parameters | None = None, /) -> Result[str]:
        return TextRows(self.execute(f"{sql} theirs", parameters))


def test_a_connection_that_is_slow_to_close_is_interrupted_and_closed(
    properties: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_module, "PATIENCE", 0.01)
    interrupted = threading.Event()
    closed: list[bool] = []

    def close(connection: Any) -> None:
        if not interrupted.is_set():
            interrupted.wait()
            raise Cancelled("interrupted")
        connection.close()
        closed.append(True)

    def it_connects(subject: Subject) -> None:
        subject.connect()

    finding = judged(it_connects, properties, close=close, interrupt=lambda _: interrupted.set())
    assert finding.verdict is Verdict.OK, finding.message
    assert closed == [True]


def test_every_connection_is_closed_and_then_the_database(properties: dict[str, str]) -> None:
    log: list[str] = []

    def close(connection: Any) -> None:
        log.append("connection")
        connection.close()

    class Closing:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def close(self) -> None:
            log.append("database")
            self._real.close()

    def opened(driver: Any, properties: Any, read_only: bool) -> Any:
        return Closing(driver.open(properties, read_only=read_only))

    def it_connects(subject: Subject) -> None:
        for kind in (type(subject.connect()), OfNoInterrupt):
            cast("Any", subject.database).connection_type = kind
            subject.connect()

    finding = judged(it_connects, properties, open=opened, close=close)
    assert finding.verdict is Verdict.OK, finding.message
    assert log == ["connection"] * 3 + ["database"]
