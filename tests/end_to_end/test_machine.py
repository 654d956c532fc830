"""Sessions as their clients see them, against a model that never read the server's code.

One Hypothesis machine drives the default session and a few others of a real server process over
real sockets: calls alone, in batches and pipelined, several sessions at work at once, calls that
queue behind one that never ends, clients that cancel, leave and delete. ``model.py`` says what
must come of each call, and after each step every session has to say of itself what its model
says. Where something takes its time the machine waits for a condition, never for time.

The examples are the same in every run, so that a commit and not the dice decides whether the
tests pass. NOTEBOOK_RPC_TEST_EXAMPLES=1000 makes it a long run, and one with dice.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import sys
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.end_to_end import model, words
from tests.end_to_end.calls import (
    CALLS,
    COUNT,
    FINISH,
    LAST,
    LIMITS,
    LONG,
    METADATA,
    NO_CALLS,
    READABLE,
    SERIES,
    STATEMENTS,
    TABLES,
    execute,
    page,
)
from tests.end_to_end.following import SESSIONS, Backend, Follower, Session
from tests.end_to_end.model import AUTOCOMMIT, FAILED, OPEN, Call
from tests.end_to_end.wire import Caller, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.end_to_end.words import Statement

EXAMPLES = 120  # of each database
STEPS = 20  # of each example
SOAK = os.environ.get("NOTEBOOK_RPC_TEST_EXAMPLES")

SHORTLY = 0.02  # a time limit, in seconds
HOW = st.sampled_from(["batch", "pipelined"])
LEAVING = st.sampled_from(["close", "half-close", "reset"])
ENDING = st.one_of(st.sampled_from(["cancel", "delete"]), st.just("cancel"), LEAVING)
WHO = st.integers(0, SESSIONS)  # counted round and round
WHAT = st.one_of(SERIES, SERIES, READABLE)


class Machine(Follower):
    """``who`` is one of the sessions there are: 0 the default one, and so on in order of age;
    ``which`` is one of those that a rule is about."""

    @initialize(others=st.integers(0, SESSIONS), tables=st.sets(TABLES))
    def begin(self, others: int, tables: set[str]) -> None:
        self.sessions = [Session(self.world, 0, "/")]
        for _ in range(others):
            self.make_a_session()
        creating = [
            call for each in sorted(tables) for call in (execute(words.Create(each)), FINISH)
        ]
        for session in self.sessions if tables else []:
            self.post(session, creating, "batch")

    @rule()
    def make_a_session(self) -> None:
        status, headers, body = self.exchange(request("POST", "/sessions"))
        if len(self.sessions) > SESSIONS:
            assert (status, headers["retry-after"]) == (503, "1")
            assert json.loads(body)["slug"] == "too-many-sessions"
            return
        made = json.loads(body)
        assert (status, headers["location"]) == (201, made["url"])
        slot = min({*range(1, SESSIONS + 1)} - {session.slot for session in self.sessions})
        self.sessions.append(Session(self.world, slot, made["url"]))

    # Calls that come to an end

    @rule(who=WHO, calls=st.lists(CALLS, min_size=1, max_size=6), how=HOW)
    def call(self, who: int, calls: list[Call], how: str) -> None:
        self.post(self.one(who), calls, how)

    @rule(who=WHO, statements=st.lists(STATEMENTS | LAST, min_size=1, max_size=4), how=HOW)
    def work(self, who: int, statements: list[Statement], how: str) -> None:
        """Calls as they should be made, so that most of them succeed."""
        calls = [call for each in statements for call in (execute(each), COUNT, page(2), FINISH)]
        self.post(self.one(who), [*self.finish_first(who), *calls], how)

    @rule(who=WHO, what=WHAT, limits=st.lists(LIMITS, min_size=2, max_size=8), end=st.booleans())
    def read(self, who: int, what: Statement, limits: list[int], end: bool) -> None:
        """The catalog in between, which must neither disturb the result nor miss anything."""
        first, *others = map(page, limits)
        calls = [execute(what), METADATA, COUNT, first, Call("tables"), *others]
        self.post(self.one(who), [*self.finish_first(who), *calls], "batch")
        if end and self.one(who).running is None:
            self.read_on(self.one(who), limits)

    def read_on(self, session: Session, limits: list[int]) -> None:
        """To the end, and once more."""
        for limit in itertools.chain(limits, itertools.repeat(1000)):
            if session.running or session.result is None or session.result.lost:
                break
            ended = not session.result.left
            self.post(session, [page(limit)])
            if ended:
                break

    @rule(who=WHO, begin=st.booleans())
    def work_for_too_long(self, who: int, begin: bool) -> None:
        """With nothing else in it: on a busy machine any call may take as long."""
        session = self.one(who)
        if session.at_rest and session.transaction != FAILED:
            begins = begin and session.transaction == AUTOCOMMIT
            first = [execute(words.Begin()), FINISH] if begins else []
            self.post(session, [*first, execute(words.Endless(), timeout=SHORTLY)], "batch")

    @rule(who=WHO, call=st.sampled_from([*NO_CALLS]), around=st.lists(CALLS, max_size=2))
    def call_what_makes_no_sense(self, who: int, call: Call, around: list[Call]) -> None:
        """It changes nothing, and does not even wait for its turn."""
        if not self.one(who).callers:
            self.post(self.one(who), [*around, call, *around], "batch")

    @rule(who=WHO, rows=st.sampled_from([1, 2, 150]), limit=LIMITS, read=st.booleans())
    def share(self, who: int, rows: int, limit: int, read: bool) -> None:
        """Add to the table of all, or read some of it: what others add is no part of an open
        result. Outside of transactions only: within them it is as the database likes."""
        session = self.one(who)
        if session.at_rest and session.transaction == AUTOCOMMIT:
            insert, select = words.Insert(words.SHARED, rows), words.Select(words.SHARED)
            calls = [execute(select), page(limit)] if read else [execute(insert), COUNT, FINISH]
            self.post(session, calls, "batch")

    # Calls that do not come to an end, and those behind them

    @precondition(lambda self: len(self.at_work) < len(self.sessions))
    @rule(which=WHO, calls=LONG, how=HOW, behind=st.lists(CALLS, max_size=2))
    def call_for_ever(self, which: int, calls: list[Call], how: str, behind: list[Call]) -> None:
        free = [session for session in self.sessions if session.running is None]
        session = free[which % len(free)]
        self.post(session, [FINISH, *calls] if session.active else calls, how)
        if session.running is not None:
            for call in behind:
                self.post(session, [call])

    @precondition(lambda self: self.at_work)
    @rule(which=WHO, calls=st.lists(CALLS, min_size=1, max_size=3), how=HOW)
    def wait_in_line(self, which: int, calls: list[Call], how: str) -> None:
        self.post(self.at_work[which % len(self.at_work)], calls, how)

    @precondition(lambda self: self.world.dialect.one_writer and len(self.writers) == 1)
    @rule(who=WHO, table=st.sampled_from(words.OWN))
    def wait_for_a_lock(self, who: int, table: str) -> None:
        session, (writer,) = self.one(who), self.writers
        waits = writer.transaction == OPEN and not writer.callers
        if waits and session.at_rest and session is not writer:
            session.waits_for = writer
            there = table in session.tables  # to create it again would fail without waiting
            self.post(session, [execute(words.Insert(table, 1) if there else words.Create(table))])

    # What ends them

    @precondition(lambda self: self.at_work)
    @rule(which=WHO, how=ENDING)
    def end_it(self, which: int, how: str) -> None:
        session = self.at_work[which % len(self.at_work)]
        if how == "cancel":
            self.cancel(self.sessions.index(session))
        elif how == "delete":
            self.delete(session)
        else:
            self.leave(session, how)

    @rule(who=WHO)
    def cancel(self, who: int) -> None:
        session = self.one(who)
        running = session.running
        caller = Caller(self.wire(), session, [Call("cancel")], "alone", self.numbers)
        assert caller.hear() == {"result": running is not None}
        self.idle_wires.append(caller.wire)
        if running is not None:
            self.end_call(session, session.interrupt(running.calls[0]))
        self.settle(session)

    def leave(self, session: Session, how: str) -> None:
        """While one's call runs; and one's other calls come to nothing with it."""
        caller = session.take_running()
        caller.wire.leave(how)
        session.interrupt(caller.calls[0])
        self.settle(session)

    @precondition(lambda self: any(session.queue for session in self.sessions))
    @rule(which=WHO, how=LEAVING)
    def leave_the_line(self, which: int, how: str) -> None:
        """As if one had never been in it."""
        crowded = [session for session in self.sessions if session.queue]
        session = crowded[which % len(crowded)]
        session.queue.pop().wire.leave(how)
        self.settle(session)

    @rule(who=WHO, how=st.sampled_from(["delete", "quit"]))
    def end(self, who: int, how: str) -> None:
        session = self.one(who)
        if how == "delete":
            self.delete(session)
        elif not session.callers and (session.slot or session.active):  # at "/" it is the server's
            self.post(session, [Call("quit"), Call("tables"), execute(words.Series(1))], "batch")
        if session.ended:
            self.is_gone(session)

    def delete(self, session: Session) -> None:
        status, headers, body = self.exchange(request("DELETE", session.path))
        assert body == b""
        if session.slot == 0:
            assert (status, headers["allow"]) == (405, "OPTIONS, POST")
            return
        assert status == 204
        session.end()
        if session.running is not None:
            self.end_call(session, model.Fails((model.CANCELLED,)))
        self.settle(session)

    def is_gone(self, session: Session) -> None:
        self.post(session, [Call("progress"), FINISH], "batch")
        self.post(session, [execute(words.Series(1)), Call("tables")], "pipelined")
        assert self.exchange(request("DELETE", session.path))[0] == 404

    def one(self, who: int) -> Session:
        return self.sessions[who % len(self.sessions)]

    def finish_first(self, who: int) -> list[Call]:
        return [FINISH] if self.one(who).active else []


def run(backend: Backend) -> None:
    try:
        run_state_machine_as_test(
            lambda: Machine(backend),  # type: ignore[arg-type]  # any callable will do
            settings=settings(
                max_examples=int(SOAK or EXAMPLES),
                stateful_step_count=STEPS,
                derandomize=SOAK is None,
                database=None,
                deadline=None,
                suppress_health_check=[*HealthCheck],
                print_blob=False,
                report_multiple_bugs=False,  # to shrink one takes minutes: each try is a new server
            ),
        )
    finally:
        print(f"{backend.examples} examples")  # noqa: T201  # for whoever wants to know
        backend.server.__exit__(*sys.exc_info())


def test_on_the_fake() -> None:
    run(Backend(words.FAKE, lambda: "fake://"))


def test_on_sqlite(tmp_path: Path) -> None:
    numbers = itertools.count()

    def new_url() -> str:
        file = tmp_path / f"{next(numbers)}.sqlite"
        database = sqlite3.connect(file)
        database.execute("pragma journal_mode = wal")  # readers and the writer need not wait
        database.close()
        return f"sqlite:///{file}?timeout=60"

    run(Backend(words.SQLITE, new_url))


def test_on_duckdb(tmp_path: Path) -> None:
    numbers = itertools.count()

    def new_url() -> str:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return f"duckdb:///{folder}/machine.duckdb"  # whose catalog is called "machine"

    run(Backend(words.DUCKDB, new_url, "-P", "threads", "2"))
