"""A session that nobody uses ends, and no other does: a machine with a clock of its own.

Apart from test_machine.py, where sessions are left alone for as long as the machine likes. Time
is real here, and the machine may be slow: that a session must be there is certain only if the
answer has come before its time was over by the clock of its client.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from tests.end_to_end import model, words
from tests.end_to_end.calls import execute
from tests.end_to_end.wire import Caller, Wire, request
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = 6
STEPS = 15
IDLE_SECONDS = 0.2  # --session-timeout
ANSWER_SECONDS = 10


@dataclass(eq=False)
class Session:
    model: model.Session
    used: float  # not before then
    running: Caller | None = None
    ended: bool = False

    @property
    def path(self) -> str:
        return self.model.path


class Machine(RuleBasedStateMachine):
    session = Bundle("session")

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.port = server.port
        self.world = model.World(words.FAKE, {})
        self.numbers = count()
        self.asking = Wire(self.port, ANSWER_SECONDS)
        self.sessions: list[Session] = []

    @rule(target=session)
    def make_a_session(self) -> Session:
        now = time.monotonic()
        status, _, body = self.ask("POST", "/sessions")
        assert status == 201
        url = json.loads(body)["url"]
        self.sessions.append(Session(model.Session(self.world, 0, url), now))
        return self.sessions[-1]

    @rule(session=session)
    def use(self, session: Session) -> None:
        self.progress(session)

    @rule(session=session)
    def work(self, session: Session) -> None:
        if session.running is None and self.progress(session) is not None:
            calls = [execute(words.Endless())]
            wire = Wire(self.port, ANSWER_SECONDS)
            caller = Caller(wire, session.model, calls, "alone", self.numbers)
            while (said := self.progress(session)) is not None and said["running"] != "execute":
                continue
            if said is None:  # it was over just before the call came
                assert caller.hear() == 404
                wire.leave("close")
            else:
                session.running = caller

    @rule(session=session, how=st.sampled_from(["cancel", "close", "reset"]))
    def stop_working(self, session: Session, how: str) -> None:
        """From then on it has all its time again."""
        caller, session.running = session.running, None
        if caller is None:
            return
        session.used = time.monotonic()
        if how == "cancel":
            call = {"jsonrpc": "2.0", "id": 1, "method": "cancel"}
            assert json.loads(self.ask("POST", session.path, call)[2])["result"] is True
            answer = caller.hear()
            assert isinstance(answer, dict)
            assert answer["error"]["code"] == model.CANCELLED
            how = "close"
        caller.wire.leave(how)
        self.progress(session)

    @rule()
    def wait_until_all_that_are_idle_have_ended(self) -> None:
        """One is made first: when its time is over, so is the time of any that is at work.

        Asking for a session would be using it, so /readyz is asked how many there are.
        """
        self.make_a_session()
        working = [session for session in self.sessions if session.running is not None]
        deadline = time.monotonic() + ANSWER_SECONDS
        while (number := self.number_of_sessions()) != len(working):
            assert number > len(working), "a session that works has ended"
            assert time.monotonic() < deadline
        for session in [*self.sessions]:
            said = self.progress(session)
            assert (said is None) == (session not in working)
            assert said is None or said["running"] == "execute"

    def progress(self, session: Session) -> dict[str, Any] | None:
        """Nothing of a session that has ended, which it may only do when it is idle."""
        began = time.monotonic()
        call = {"jsonrpc": "2.0", "id": 1, "method": "progress"}
        status, _, body = self.ask("POST", session.path, call)
        if status == 200:
            assert not session.ended
            session.used = began
            said: dict[str, Any] = json.loads(body)["result"]
            return said
        assert (status, body) == (404, b"")
        assert session.running is None
        assert session.ended or time.monotonic() - session.used >= IDLE_SECONDS
        if not session.ended:
            self.sessions.remove(session)
            session.ended = True
        return None

    def number_of_sessions(self) -> int:
        number: int = json.loads(self.ask("GET", "/readyz?verbose")[2])["sessions"]
        return number

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any, bytes]:
        self.asking.send(request(method, path, body))
        return self.asking.answer()

    def teardown(self) -> None:
        for session in self.sessions:
            if session.running is not None:
                session.running.wire.leave("close")
            self.ask("DELETE", session.path)
        self.asking.leave("close")


@pytest.fixture
def server() -> Iterator[Server]:
    arguments = ("--session-timeout", str(IDLE_SECONDS), "--log-level", "error")
    server = Server("fake://", *arguments)
    try:
        yield server
    finally:
        server.__exit__(*sys.exc_info())


def test_sessions_end_when_nobody_uses_them(server: Server) -> None:
    run_state_machine_as_test(
        lambda: Machine(server),  # type: ignore[arg-type]  # any callable will do
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=[*HealthCheck],
            print_blob=False,
        ),
    )
