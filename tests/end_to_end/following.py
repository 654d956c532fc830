"""How the machine of test_machine.py follows the calls that it makes.

A call is posted, the model says what must come of it and when, and the answer is read and
compared at that moment: in the order in which calls are carried out, not sent. What calls there
are is test_machine.py's; what must come of them is model.py's.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from tests.end_to_end import model, words
from tests.end_to_end.calls import FINISH, NO_CALLS, execute
from tests.end_to_end.model import AUTOCOMMIT, GONE, RUNS
from tests.end_to_end.wire import Caller, Wire, request
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.end_to_end.model import Call, Expected
    from tests.end_to_end.wire import Answer
    from tests.end_to_end.words import Dialect

SESSIONS = 3  # besides the default one
MAX_PAGE = 4 * 1024  # bytes: some 100 to 300 rows
WAITING = 3  # callers behind the one whose call runs
ANSWER_SECONDS = 10  # what is not answered by then never will be


class Session(model.Session):
    """With those who have called it: whose call runs, and who waits in line."""

    running: Caller | None = None
    waits_for: Session | None = None  # who holds the lock that the running call needs

    def __init__(self, world: model.World, slot: int, path: str) -> None:
        super().__init__(world, slot, path)
        self.queue: deque[Caller] = deque()

    @property
    def callers(self) -> list[Caller]:
        return [*([] if self.running is None else [self.running]), *self.queue]

    @property
    def pending(self) -> list[Call]:
        return [call for caller in self.callers for call in caller.calls]

    @property
    def at_rest(self) -> bool:
        return not (self.ended or self.active or self.callers)

    @property
    def may_write(self) -> bool:
        return self.transaction != AUTOCOMMIT or any(call.writes for call in self.pending)

    def take_running(self) -> Caller:
        assert self.running is not None
        caller, self.running, self.waits_for = self.running, None, None
        return caller

    def progress(self) -> dict[str, object]:
        """What it says of itself, as far as that is certain."""
        running = None if self.running is None else self.running.calls[0]
        method = None if running is None else running.method
        return {**self.says(running), "running": method, "waiting": len(self.queue)}


class Backend:
    """A server process on an empty database, for all examples."""

    def __init__(self, dialect: Dialect, new_url: Callable[[], str], *arguments: str) -> None:
        self.dialect = dialect
        self.examples = 0
        self._new_url = new_url
        limits = ("--max-sessions", str(SESSIONS), "--max-page", str(MAX_PAGE))
        self._arguments = (*arguments, *limits, "--log-level", "error")
        self.start()

    def start(self) -> None:
        self.committed: dict[int, dict[str, model.Numbers]] = {}  # what examples left behind
        self.server = Server(self._new_url(), *self._arguments)
        if not self.dialect.lax:
            with self.server.client() as client:
                client.rows(f"create table {words.SHARED} (n integer)")

    def restart(self) -> None:
        """After a failure, when what the server does next would tell nothing."""
        self.server.process.kill()
        self.server.wait()
        self.start()


class Follower(RuleBasedStateMachine):
    def __init__(self, backend: Backend) -> None:
        super().__init__()
        backend.examples += 1
        self.backend = backend
        self.world = model.World(backend.dialect, backend.committed)
        self.sessions: list[Session] = []  # without those that have ended
        self.wires: list[Wire] = []
        self.idle_wires: list[Wire] = []
        self.numbers = itertools.count(1)

    @property
    def at_work(self) -> list[Session]:
        return [session for session in self.sessions if session.running is not None]

    @property
    def writers(self) -> list[Session]:
        return [session for session in self.sessions if session.may_write]

    def post(self, session: Session, calls: list[Call], how: str = "alone") -> None:
        """Send *calls*, and follow them as far as they get."""
        calls = [session.nearest(call) for call in calls]
        if self.can_follow(session, calls):
            session.queue.append(Caller(self.wire(), session, calls, how, self.numbers))
            self.settle(session)

    def can_follow(self, session: Session, calls: list[Call]) -> bool:
        """Whether the model can tell what comes of *calls*, and the machine can bear it."""
        if len(session.queue) >= WAITING:
            return False
        if len(calls) > 1 and any(caller.many for caller in session.callers):
            return False  # they would take turns, in an order that nobody has promised
        long = [each for each in self.sessions if any(call.long for call in each.pending)]
        if any(call.long for call in calls) and len(long) >= self.world.dialect.long_calls:
            return False
        if not self.world.dialect.one_writer or not any(call.writes for call in calls):
            return True
        if any(each.waits_for is session for each in self.sessions):
            return len(calls) == len(calls[0].script) == 1 and not session.callers
        first_to_wait = session.waits_for is not None and not session.callers
        return first_to_wait or not {*self.writers} - {session}

    def settle(self, session: Session) -> None:
        """Follow the calls of *session* until one runs that does not end, or none is left."""
        while session.running is None and session.queue:
            session.running = session.queue.popleft()
            if session.waits_for is None:
                self.begin_call(session)
        if session.ended and session in self.sessions:
            self.sessions.remove(session)
        for other in self.sessions:
            if other.waits_for is not None and other.waits_for.transaction == AUTOCOMMIT:
                other.waits_for = None
                if other.running is not None:  # the lock is free
                    self.begin_call(other)
                self.settle(other)
        if not session.ended:
            self.wait_until_it_says_so(session)

    def begin_call(self, session: Session) -> None:
        assert session.running is not None
        call = session.running.calls[0]
        expected: Expected
        if call in NO_CALLS and not session.ended:
            expected = model.Fails((NO_CALLS[call],))
        else:
            expected = session.carry_out(call)
        if expected is not RUNS:
            self.end_call(session, expected)

    def end_call(self, session: Session, expected: Expected) -> None:
        """Its caller hears what came of it, and comes back with its next call, if it has one."""
        caller = session.take_running()
        check(caller.calls[0], expected, caller.hear())
        if caller.calls:
            session.queue.append(caller)
        else:
            caller.hang_up()
            self.idle_wires.append(caller.wire)

    def wait_until_it_says_so(self, session: Session) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.said(session) != [session.progress()]:
            late = time.monotonic() > deadline
            assert not late, f"{session} says {self.said(session)}, not {session.progress()}"

    def said(self, *sessions: Session) -> list[dict[str, object]]:
        """What they say of themselves, of what is certain."""
        ask = {"jsonrpc": "2.0", "id": 1, "method": "progress"}
        answers = self.exchanges([request("POST", session.path, ask) for session in sessions])
        said = [json.loads(body)["result"] for _, _, body in answers]
        return [
            {name: each[name] for name in session.progress()}
            for session, each in zip(sessions, said, strict=True)
        ]

    def exchanges(self, requests: Iterable[bytes]) -> list[Answer]:
        wire = self.wire()
        wire.send(*requests)
        answers = [wire.answer() for _ in requests]
        self.idle_wires.append(wire)
        return answers

    def exchange(self, request: bytes) -> Answer:
        (answer,) = self.exchanges([request])
        return answer

    def wire(self) -> Wire:
        """One that nobody uses; most have been used before."""
        if len(self.idle_wires) > 3:
            return self.idle_wires.pop(0)
        self.wires.append(Wire(self.backend.server.port, ANSWER_SECONDS))
        return self.wires[-1]

    @invariant()
    def all_is_as_the_model_has_it(self) -> None:
        said, should = self.said(*self.sessions), [each.progress() for each in self.sessions]
        assert said == should, f"{self.sessions} say {said}, not {should}"
        _, _, body = self.exchange(request("GET", "/readyz?verbose"))
        assert json.loads(body)["sessions"] == sum(session.slot > 0 for session in self.sessions)

    def teardown(self) -> None:
        try:
            if isinstance(sys.exc_info()[1], Exception):
                self.backend.restart()
            elif self.sessions:
                self.leave_nothing_behind()
        finally:
            for wire in self.wires:
                wire.leave("close")

    def leave_nothing_behind(self) -> None:
        default, *others = self.sessions
        # First those who wait for a lock, or they would get it.
        for session in sorted(self.sessions, key=lambda session: session.waits_for is None):
            while session.queue:  # one by one: of two that leave, either may be noticed first
                session.queue.pop().wire.leave("close")
                self.wait_until_it_says_so(session)
            if session.running is not None:
                caller = session.take_running()
                caller.wire.leave("close")
                session.interrupt(caller.calls[0])
                self.wait_until_it_says_so(session)
        for session in others:
            assert self.exchange(request("DELETE", session.path))[0] == 204
            session.end()
        self.sessions = [default]
        calls = [FINISH] if default.active else []
        if default.transaction != AUTOCOMMIT:
            calls += [execute(words.Rollback()), FINISH]
        if calls:
            self.post(default, calls, "batch")
        for sql in self.world.tidying(default):
            for method, *params in (("execute", sql), ("finish",)):
                call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
                self.exchange(request("POST", "/", call))
        for wire in self.idle_wires:  # one answer more than there should be would come now
            wire.send(request("GET", "/healthz"))
            assert wire.answer()[2] == b"ok"


def check(call: Call, expected: Expected, heard: dict[str, Any] | int) -> None:
    """Whether *call* has had the answer that it had to have."""
    if expected is GONE and heard == 404:
        return
    if call.notify:
        assert heard == 204
        if isinstance(expected, model.NextRows):
            expected.result.handed += min(expected.limit, expected.result.left)
        return
    assert isinstance(heard, dict), f"status {heard}, not {expected}"
    match expected:
        case model.Gives(results):
            assert heard in [{"result": result} for result in results], f"{heard}, not {expected}"
        case model.Fails(codes, saying, not_saying):
            assert "error" in heard, f"{heard}, not {expected}"
            assert heard["error"]["code"] in codes, f"{heard}, not {expected}"
            assert saying in heard["error"]["message"], f"{heard}, not {expected}"
            assert not_saying not in heard["error"]["message"], heard
        case model.NextRows(result, limit):
            assert "result" in heard, f"{heard}, not the next of {result.left} rows"
            rows = heard["result"]
            wanted = result.rows[result.handed :][:limit]
            assert rows == wanted[: len(rows)], f"{rows[:3]}... at row {result.handed + 1}"
            if len(rows) < len(wanted):  # for its size alone, and never with none
                one_more = json.dumps(wanted[: len(rows) + 1], separators=(",", ":"))
                assert rows
                assert len(one_more) > MAX_PAGE
            result.handed += len(rows)
        case model.Places(certain, possible):
            places = [tuple(place.values()) for place in heard["result"]]
            assert len(places) == len({*places})
            assert certain <= {*places} <= possible, f"{places}, not {expected}"
        case model.GONE:
            assert heard["error"]["code"] in (model.WRONG_STATE, model.UNKNOWN_SESSION)
