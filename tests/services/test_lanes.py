"""Lanes: connections that break and are replaced. What a session makes of a lane, its tests say."""

from __future__ import annotations

import math
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
import trio
import trio.testing

from notebook_rpc.errors import Busy, Cancelled, DatabaseUnavailable, QueryError, QueryTimeout
from notebook_rpc.model import Transaction
from notebook_rpc.services import lanes
from notebook_rpc.services.here import NotHere
from notebook_rpc.services.lanes import Lane
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase, Gate
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Touched


class Silent:
    """A connection that does not tell what it has changed, or not which tables."""

    def __init__(self, connection: FakeConnection, *untold: str) -> None:
        self._connection = connection
        self._untold = untold

    def __getattr__(self, name: str) -> object:
        if name in self._untold:
            raise AttributeError(name)
        return getattr(self._connection, name)


class Track:
    """A lane to the fake, and how often it has lost a result."""

    def __init__(self, workers: Workers) -> None:
        self.database = FakeDatabase()
        self.losses = 0
        self.changes: list[set[str] | None] = []
        self.untold: tuple[str, ...] = ()

        async def connect() -> Connection:
            connection = await workers.run(self.database.connect)
            return cast("Connection", Silent(connection, *self.untold))

        self.lane = Lane(connect, workers, self.lose, changed=self.change)

    def lose(self) -> None:
        self.losses += 1

    def change(self, touched: Touched) -> None:
        self.changes.append(None if touched is None else set(touched))

    async def execute(self, sql: str) -> list[object]:
        async with self.lane.turn():
            return await self.lane.work(lambda c: [row[0] for row in c.execute(sql).fetch(9)])

    @property
    def connections(self) -> list[FakeConnection]:
        return self.database.connections


@pytest.fixture
async def track() -> AsyncIterator[Track]:
    workers = Workers(limit=4, spare=2)
    track = Track(workers)
    yield track
    await track.lane.close()
    workers.close()


async def test_nothing_is_connected_before_the_first_work(track: Track) -> None:
    assert track.connections == []
    assert await track.execute("rows 2") == [1, 2]
    assert await track.execute("rows 1") == [1]
    assert len(track.connections) == 1


async def test_a_broken_connection_is_closed_and_the_next_call_gets_a_new_one(track: Track) -> None:
    await track.execute("rows 1")
    with pytest.raises(DatabaseUnavailable, match=r"as it was told \(the connection is lost; the"):
        await track.execute("leave")
    assert track.connections[0].closed
    assert track.losses == 1
    assert await track.execute("rows 2") == [1, 2]
    assert [connection.closed for connection in track.connections] == [True, False]


async def test_who_had_a_transaction_hears_that_it_is_lost(track: Track) -> None:
    await track.execute("begin")
    with pytest.raises(DatabaseUnavailable, match="the connection and its transaction are lost"):
        await track.execute("leave")
    assert track.lane.transaction.value == "autocommit"


async def test_what_the_database_tells_of_it_is_kept(track: Track) -> None:
    gone = DatabaseUnavailable("terminated by an administrator")
    gone.sqlstate = "57P01"
    track.database.failures["execute"] = gone
    with pytest.raises(DatabaseUnavailable, match=r"administrator .*lost") as caught:
        await track.execute("rows 1")
    assert caught.value.sqlstate == "57P01"


async def test_so_it_is_of_a_transaction_that_was_undone(track: Track) -> None:
    cancelled = Cancelled("57014")
    cancelled.sqlstate = "57014"
    await track.execute("begin")
    with pytest.raises(Cancelled, match="57014; its transaction was rolled back") as caught:
        async with track.lane.undone_if_interrupted():
            raise cancelled
    assert caught.value.sqlstate == "57014"
    assert caught.value.__cause__ is cancelled


async def test_a_database_that_is_gone_is_asked_again_by_each_call(track: Track) -> None:
    gone = DatabaseUnavailable("nobody listens")
    track.database.failures["connect"] = gone
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="nobody listens"):
            await track.execute("rows 1")
    track.database.failures.clear()
    assert await track.execute("rows 1") == [1]


async def test_what_fails_in_giving_up_a_connection_is_not_the_callers(track: Track) -> None:
    await track.execute("rows 1")
    track.database.failures["close"] = DatabaseUnavailable("cannot even close")
    with pytest.raises(DatabaseUnavailable, match="as it was told"):
        await track.execute("leave")
    track.database.failures.clear()
    assert await track.execute("rows 1") == [1]


async def test_a_broken_connection_is_closed_although_its_caller_leaves_meanwhile(
    track: Track,
) -> None:
    closing = track.database.gates["close"] = Gate()

    async def leave() -> None:
        with scope, pytest.raises(DatabaseUnavailable):
            await track.execute("leave")

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        assert await trio.to_thread.run_sync(closing.reached.wait, 5)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not track.connections[0].closed
        closing.opened.set()
    assert track.connections[0].closed


async def test_only_so_many_wait_for_their_turn_and_closing_is_not_one_of_them() -> None:
    workers = Workers(limit=4, spare=2, max_waiting=2)
    track = Track(workers)
    gate = track.database.gates["execute"] = Gate()
    refused = []

    async def execute(number: int) -> None:
        try:
            await track.execute(f"rows {number}")
        except Busy:
            refused.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(execute, number)
            await trio.testing.wait_all_tasks_blocked()
        assert refused == [3, 4]
        nursery.start_soon(track.lane.close)
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert [call for call in track.connections[0].calls if "rows" in call] == [
        *("execute rows 0", "execute rows 1", "execute rows 2"),
    ]
    assert track.connections[0].closed
    workers.close()


async def test_what_makes_room_does_not_wait_for_it() -> None:
    workers = Workers(limit=1, spare=1)
    track, other = Track(workers), Track(workers)
    await track.execute("begin")
    await other.execute("rows 1")  # or it would have to connect first, and make room by that
    async with trio.open_nursery() as nursery:
        gate = other.database.gates["execute"] = Gate()

        async def interrupted() -> None:
            with pytest.raises(Cancelled):
                async with track.lane.undone_if_interrupted(), track.lane.call("execute"):
                    await track.execute("wait")

        nursery.start_soon(interrupted)
        await trio.to_thread.run_sync(track.database.waiting.wait)
        nursery.start_soon(other.execute, "rows 1")  # takes the only place as soon as it can
        await trio.testing.wait_all_tasks_blocked()
        track.lane.cancel()
        try:
            with trio.fail_after(5):
                while not gate.reached.is_set() or track.lane.transaction is not Transaction.NONE:
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(track.lane.close)
                while not track.connections[0].closed:
                    await trio.lowlevel.checkpoint()
        finally:
            gate.opened.set()
    await other.lane.close()
    workers.close()


async def test_nor_does_giving_up_what_is_broken() -> None:
    workers = Workers(limit=1, spare=1)
    track, other = Track(workers), Track(workers)
    await track.execute("rows 1")
    await other.execute("rows 1")
    leaving = track.database.gates["execute"] = Gate()
    gate = other.database.gates["execute"] = Gate()

    async def leave() -> None:
        with pytest.raises(DatabaseUnavailable):
            await track.execute("leave")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(other.execute, "rows 1")  # takes the only place as soon as it can
        await trio.testing.wait_all_tasks_blocked()
        leaving.opened.set()
        try:
            with trio.fail_after(5):
                while not gate.reached.is_set() or not track.connections[0].closed:
                    await trio.lowlevel.checkpoint()
        finally:
            gate.opened.set()
    for each in (track, other):
        await each.lane.close()
    workers.close()


async def test_whether_a_transaction_was_lost_is_known_from_before(track: Track) -> None:
    await track.execute("begin")
    (connection,) = track.connections

    def leave(_: Connection) -> None:
        connection.transaction = Transaction.NONE  # what is broken may say anything
        raise DatabaseUnavailable("gone")

    with pytest.raises(DatabaseUnavailable, match="and its transaction are lost"):
        await track.lane.work(leave)


@pytest.mark.parametrize("how", ["by request", "its caller leaves"])
async def test_a_connection_that_does_not_survive_an_interrupt_is_given_up(
    track: Track, how: str
) -> None:
    await track.execute("begin")
    track.database.failures["rollback"] = DatabaseUnavailable("gone")

    async def wait() -> None:
        with suppress(Cancelled), scope:
            async with track.lane.undone_if_interrupted(), track.lane.call("execute"):
                await track.execute("wait")

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.to_thread.run_sync(track.database.waiting.wait)
        if how == "by request":
            track.lane.cancel()
        else:
            scope.cancel()
    assert track.connections[0].closed
    track.database.failures.clear()
    assert await track.execute("rows 1") == [1]
    assert len(track.connections) == 2


async def test_it_is_the_present_connection_that_is_interrupted(track: Track) -> None:
    with pytest.raises(DatabaseUnavailable):
        await track.execute("leave")
    with pytest.raises(QueryTimeout):
        async with track.lane.call("execute", 0.01):
            await track.execute("wait")
    assert [connection.interrupts > 0 for connection in track.connections] == [False, True]


async def test_a_connection_that_does_not_close_is_interrupted(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "CLOSING", 0.01)
    await track.execute("rows 1")
    (connection,) = track.connections
    closing = track.database.gates["close"] = Gate()
    track.database.failures["close"] = Cancelled("interrupted")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(track.lane.close)
        try:
            with trio.fail_after(5):
                while not connection.interrupts:
                    await trio.lowlevel.checkpoint()
        finally:
            closing.opened.set()


class TestChanges:
    async def test_whatever_others_may_see_is_told_with_its_tables(self, track: Track) -> None:
        track.database.touched = {"count 1": frozenset("a"), "count 2": frozenset("b")}
        for sql, told in [
            ("rows 3", []),
            ("count 2", [{"b"}]),
            ("count 1; count 2", [{"a", "b"}]),
            ("begin", []),
            ("create table t (a integer)", []),
            ("commit", [None]),
            ("count 3", [None]),
            ("count 1", [{"a"}]),
        ]:
            await track.execute(sql)
            assert track.changes == told, sql
            track.changes.clear()

    async def test_a_failure_does_not_hide_what_came_before_it(self, track: Track) -> None:
        with pytest.raises(QueryError):
            await track.execute("count 1; error late")
        assert track.changes == [None]

    async def test_of_a_connection_that_does_not_tell_every_call_counts(self, track: Track) -> None:
        track.untold = ("changes", "take_written")
        await track.execute("rows 1")
        with pytest.raises(QueryError):
            await track.execute("error early")
        assert track.changes == [None, None]

    async def test_without_word_of_the_tables_it_may_be_any(self, track: Track) -> None:
        track.database.touched = {"count 1": frozenset("a")}
        track.untold = ("reads",)
        await track.execute("rows 1")
        await track.execute("count 1")
        assert track.changes == [None]

    @pytest.mark.parametrize("how", ["close", "interrupt", "break", "interrupt and break"])
    async def test_what_a_result_commits_when_it_is_closed_is_told(
        self, track: Track, how: str
    ) -> None:
        """As a cursor of PostgreSQL does, whose query has called a function that writes."""
        await track.execute("rows 1")
        (connection,) = track.connections

        def commit(*_: object) -> bool:
            connection.changes += 1
            if "break" in how:
                raise DatabaseUnavailable("gone")
            return False

        if how == "close":
            connection.close = commit  # type: ignore[assignment,method-assign]
            await track.lane.close()
        elif how == "break":
            connection.close = commit  # type: ignore[assignment,method-assign]
            with pytest.raises(DatabaseUnavailable):
                await track.execute("leave")
        else:
            connection.rollback = commit  # type: ignore[method-assign]
            with pytest.raises(Cancelled):
                async with track.lane.undone_if_interrupted():
                    raise Cancelled
        assert track.changes == [set()]


@pytest.mark.parametrize("computes", [True, False])
async def test_only_what_computes_here_keeps_others_waiting(*, computes: bool) -> None:
    class Spied(Workers):
        async def run(
            self, work: Any, interrupt: Any = None, *, waits: bool = False, holds: bool = True
        ) -> Any:
            told.append(waits)
            return await super().run(work, interrupt, waits=waits, holds=holds)

    class Computing(FakeConnection):
        computes_here: Final = True

    told: list[bool] = []
    workers, kind = Spied(limit=4, spare=2), Computing if computes else FakeConnection

    async def connect() -> Connection:
        return kind(FakeDatabase())

    lane = Lane(connect, workers, lambda: None)
    await lane.work(lambda connection: connection.execute("rows 1").close())
    assert told == [not computes]
    await lane.close()
    workers.close()


class Brief(FakeConnection):
    """Says which queries are brief, and hears how long they took."""

    computes_here: Final = True

    def __init__(self, database: FakeDatabase, *queries: str) -> None:
        super().__init__(database)
        self.told: list[tuple[str, float]] = []
        self.threads: list[int] = []
        self.queries = list(queries)

    def harmless(self, sql: str) -> bool:
        return sql in self.queries or sql == "rows 3"

    def brief(self, sql: str) -> bool:
        return sql in self.queries

    def took(self, sql: str, seconds: float) -> None:
        self.told.append((sql, seconds))
        if seconds == math.inf:
            self.queries.remove(sql)

    def arrive(self, call: str, detail: str = "") -> None:
        self.threads.append(threading.get_ident())
        super().arrive(call, detail)


class Quick(Track):
    """A lane to a database where "rows 2" is brief, and "wait" believed to be."""

    def __init__(self, workers: Workers) -> None:
        super().__init__(workers)
        self.workers = workers
        self.held: list[bool] = []  # may what was not run here hold up others?
        self.observed: list[str] = []
        self.connection = Brief(self.database, "rows 2", "wait", "error early", "leave")

        async def connect() -> Connection:
            return self.connection

        self.lane = Lane(connect, workers, self.lose, self.observe, self.change)

    def observe(self, name: str, seconds: float) -> None:
        assert 0 <= seconds < 5
        self.observed.append(name)

    async def ask(self, sql: str) -> list[object]:
        def work(connection: Connection) -> list[object]:
            return [row[0] for row in connection.execute(sql).fetch(9)]

        try:
            return await self.lane.work_here("query", work, sql)
        except NotHere as exc:
            self.held.append(exc.holds)
            return await self.lane.work(work, holds=exc.holds)

    @property
    def here(self) -> list[bool]:
        return [thread == threading.get_ident() for thread in self.connection.threads]


@asynccontextmanager
async def quick_lane() -> AsyncIterator[Quick]:
    workers = Workers(limit=4, spare=2)
    quick = Quick(workers)
    yield quick
    await quick.lane.close()
    workers.close()


class TestBrief:
    @pytest.fixture
    async def quick(self) -> AsyncIterator[Quick]:
        async with quick_lane() as quick:
            await quick.lane.open()  # before that nobody knows what is brief
            yield quick

    async def test_before_there_is_a_connection_nothing_is(self) -> None:
        async with quick_lane() as quick:
            assert await quick.ask("rows 2") == [1, 2]
            assert not any(quick.here)
            assert await quick.ask("rows 2") == [1, 2]
            assert quick.here[-1]

    async def test_what_is_brief_runs_on_the_event_loop(self, quick: Quick) -> None:
        assert await quick.ask("rows 2") == [1, 2]
        assert all(quick.here)
        ((sql, seconds),) = quick.connection.told
        assert sql == "rows 2"
        assert 0 < seconds < 5
        assert quick.observed == ["query"]

    async def test_the_rest_does_not(self, quick: Quick) -> None:
        assert await quick.ask("rows 1") == [1]
        assert await quick.ask("rows 3") == [1, 2, 3]
        assert not any(quick.here)
        assert quick.held == [True, False]
        assert quick.connection.told == []
        assert quick.observed == []  # but by whoever has a turn on the lane

    async def test_what_takes_longer_is_interrupted_and_run_again_on_a_worker(
        self, quick: Quick
    ) -> None:
        """After a ``reset``: the interrupt may have come too late, and wait for the next."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quick.ask, "wait")
            await until(lambda: quick.connection.calls.count("execute wait") == 2)
            nursery.cancel_scope.cancel()
        assert quick.connection.calls == ["execute wait", "reset", "execute wait"]
        assert quick.here == [True, False, False]
        assert quick.held == [False]
        assert quick.connection.told == [("wait", math.inf)]
        assert not quick.connection.brief("wait")

    async def test_while_a_thread_computes_it_runs_on_another(self, quick: Quick) -> None:
        stopped = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quick.workers.run, stopped.wait)
            await trio.testing.wait_all_tasks_blocked()
            assert await quick.ask("rows 2") == [1, 2]
            stopped.set()
        assert not any(quick.here)
        assert quick.held == [False]
        assert quick.connection.told == []
        assert quick.observed == []

    async def test_what_came_to_mean_another_while_it_waited_runs_on_a_thread(
        self, quick: Quick
    ) -> None:
        answers = iter([True, False])
        quick.connection.brief = lambda sql: next(answers)  # type: ignore[method-assign]  # noqa: ARG005
        assert await quick.ask("rows 2") == [1, 2]
        assert "execute rows 2" in quick.connection.calls
        assert not any(quick.here)

    async def test_its_errors_are_its_own(self, quick: Quick) -> None:
        with pytest.raises(QueryError, match="early"):
            await quick.ask("error early")
        assert all(quick.here)
        assert quick.observed == ["query"]

    async def test_a_connection_that_breaks_there_is_given_up(self, quick: Quick) -> None:
        with pytest.raises(DatabaseUnavailable, match="the next call gets a new one"):
            await quick.ask("leave")
        assert quick.here == [True, False, False]  # there it was met again, and closed
        assert quick.connection.closed

    async def test_what_a_former_client_has_left_is_cleared_before(self, quick: Quick) -> None:
        await quick.ask("rows 2")
        assert quick.lane.pass_on()
        assert await quick.ask("rows 2") == [1, 2]
        calls = [call for call in quick.connection.calls if call not in ("fetch 9", "finish")]
        assert calls == ["execute rows 2", "reset", "execute rows 2"]
        assert all(quick.here)
