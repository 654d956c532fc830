"""Sessions over the fake database: legality, order, cancelling, and what failures leave."""

from __future__ import annotations

import json
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from notebook_rpc.errors import (
    Cancelled,
    NotebookError,
    QueryError,
    QueryTimeout,
    WrongState,
)
from notebook_rpc.model import Transaction
from notebook_rpc.sansio.budget import LEAST, Budget
from notebook_rpc.sansio.values import TextRows
from notebook_rpc.services.sessions import Progress, Session
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase, Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Parameters, Result

CAP = 1 << 20


class Room:
    """A session, and the fake database behind it."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.database = FakeDatabase()
        self.connection: FakeConnection = self.database.connect()
        self.session = Session(given(self.connection), workers, CAP)

    async def rows(self, limit: int) -> list[dict[str, str | None]]:
        return decoded(await self.session.page(limit))

    async def state(self) -> str:
        return self.session.progress().state

    async def waiting(self) -> None:
        """Until a statement waits to be interrupted."""
        await happens(self.database.waiting)


def given(connection: Connection) -> Callable[[], Awaitable[Connection]]:
    """For a session that shall have *connection* and no other."""

    async def connect() -> Connection:
        return connection

    return connect


def decoded(page: Sequence[bytes]) -> list[dict[str, str | None]]:
    rows: list[dict[str, str | None]] = json.loads(b"".join(page))
    return rows


async def happens(event: threading.Event) -> None:
    with trio.fail_after(5):
        await trio.to_thread.run_sync(event.wait, 5)
    assert event.is_set()


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    workers = Workers(limit=4, spare=2)
    room = Room(workers)
    await room.session.open()
    yield room
    await room.session.close()
    workers.close()


@asynccontextmanager
async def running(work: Callable[[], Awaitable[Any]]) -> AsyncIterator[list[BaseException | None]]:
    """Run *work* beside the block; how it ended is in the list afterwards."""
    outcome: list[BaseException | None] = []

    async def call() -> None:
        try:
            await work()
        except NotebookError as exc:
            outcome.append(exc)
        else:
            outcome.append(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        yield outcome


async def test_a_query_from_execute_to_finish(room: Room) -> None:
    await room.session.execute("rows 250 n m")
    assert [column.column for column in await room.session.metadata()] == ["n", "m"]
    assert await room.session.count() == -1
    pages = [len(await room.rows(100)) for _ in range(4)]
    assert pages == [100, 100, 50, 0]
    await room.session.finish()
    assert await room.state() == "NoActive"


@pytest.mark.parametrize(
    ("budget", "least", "most"),
    [(Budget(0), 1, LEAST), (Budget(1 << 30), LEAST, CAP), (None, LEAST, CAP)],
)
async def test_pages_keep_within_a_budget(
    room: Room, budget: Budget | None, least: int, most: int
) -> None:
    session = Session(given(FakeConnection(room.database)), room.workers, CAP, budget=budget)
    await session.execute("rows 20000")
    while len(decoded(page := await session.page(20_000))) <= 100:  # those that were read ahead
        continue
    assert least < sum(map(len, page)) <= most
    await session.close()


async def test_each_query_has_rows_of_its_own(room: Room) -> None:
    for names in ("a", "b c"):
        await room.session.execute(f"rows 2 {names}")
        assert [list(row) for row in await room.rows(5)] == [names.split()] * 2
        await room.session.finish()


async def test_the_database_is_called_on_workers_only(room: Room) -> None:
    class Watched(FakeConnection):
        def arrive(self, call: str, detail: str = "") -> None:
            super().arrive(call, detail)
            threads[call] = threading.current_thread().name

    threads: dict[str, str] = {}
    session = Session(given(Watched(room.database)), room.workers, CAP)
    await session.tables(list)
    await session.views(list)
    await session.columns("", "", "", list)
    await session.execute("rows 200")
    await session.page(200)
    await session.finish()
    async with running(lambda: session.execute("wait")):
        await room.waiting()
        session.cancel()
    await session.close()
    assert threads.keys() == {
        *("tables", "views", "columns", "execute", "fetch", "finish", "rollback", "close")
    }
    assert all(name.startswith("notebook-rpc-worker") for name in threads.values()), threads


async def test_a_statement_without_rows(room: Room) -> None:
    await room.session.execute("count 7")
    assert await room.session.metadata() == []
    assert await room.session.count() == 7
    assert await room.rows(5) == []


async def test_the_catalog_is_there_in_both_states(room: Room) -> None:
    for _ in range(2):
        assert {table.table for table in await room.session.tables(list)} >= {"orders", "users"}
        assert [view.table for view in await room.session.views(list)] == ["paid"]
        assert len(await room.session.columns("", "", "users", list)) == 3
        assert len(await room.session.columns("fake", "main", "users", list)) == 3
        if await room.state() == "NoActive":
            await room.session.execute("rows 3")
    assert len(await room.rows(10)) == 3


async def test_the_catalog_is_rendered_on_a_worker(room: Room) -> None:
    def render(_: object) -> str:
        return threading.current_thread().name

    for call in (
        room.session.tables(render),
        room.session.views(render),
        room.session.columns("", "", "", render),
    ):
        assert (await call).startswith("notebook-rpc-worker")


async def test_a_call_in_the_wrong_state_never_reaches_the_database(room: Room) -> None:
    with pytest.raises(WrongState):
        await room.session.page(1)
    with pytest.raises(WrongState):
        await room.session.finish()
    await room.session.execute("rows 1")
    before = list(room.connection.calls)
    with pytest.raises(WrongState):
        await room.session.execute("rows 2")
    with pytest.raises(WrongState):
        await room.session.quit()
    assert room.connection.calls == before


async def test_after_quit_nothing_is_legal(room: Room) -> None:
    await room.session.quit()
    with pytest.raises(WrongState):
        await room.session.tables(list)


async def test_execute_reads_the_first_page_ahead(room: Room) -> None:
    await room.session.execute("rows 10")
    before = list(room.connection.calls)
    await room.session.metadata()
    assert len(await room.rows(100)) == 10
    assert await room.rows(100) == []
    assert room.connection.calls == before


async def test_what_was_read_ahead_is_handed_out_without_waiting(room: Room) -> None:
    await room.session.execute("rows 10")
    with trio.testing.assert_no_checkpoints():
        await room.session.metadata()
        await room.session.count()
        assert len(await room.rows(100)) == 10


async def test_a_page_keeps_within_the_sessions_bound(room: Room) -> None:
    session = Session(given(room.connection), room.workers, max_page_bytes=60)
    await session.execute("rows 1000")
    pages = [b"".join(await session.page(100)) for _ in range(3)]
    assert all(2 < len(page) <= 60 for page in pages)


async def test_rows_that_the_database_writes_as_text_are_not_written_again(room: Room) -> None:
    class Writing(FakeConnection):
        def execute_text(self, sql: str, parameters: Parameters | None = None, /) -> Result[str]:
            return Texts(self.execute(sql, parameters))

    class Texts(TextRows):
        def fetch(self, limit: int, /) -> list[str]:
            return [row.replace('"1"', '"one"') for row in super().fetch(limit)]

    session = Session(given(Writing(room.database)), room.workers, CAP)
    await session.execute("rows 2")
    assert decoded(await session.page(5)) == [{"n": "one"}, {"n": "2"}]


async def test_a_failed_execute_leaves_no_active(room: Room) -> None:
    with pytest.raises(QueryError, match="wrong"):
        await room.session.execute("error wrong")
    assert await room.state() == "NoActive"


async def test_an_error_in_the_first_rows_is_the_executes(room: Room) -> None:
    with pytest.raises(QueryError, match="late"):
        await room.session.execute("error after 3 rows late")
    assert await room.state() == "NoActive"
    assert "finish" in room.connection.calls  # the result was closed


async def test_a_failed_page_leaves_active_so_that_finish_works(room: Room) -> None:
    await room.session.execute("error after 150 rows late")
    assert len(await room.rows(100)) == 100
    with pytest.raises(QueryError, match="late"):
        await room.rows(100)
    assert await room.state() == "Active"
    await room.session.finish()
    assert await room.state() == "NoActive"


async def test_a_failed_finish_leaves_no_active(room: Room) -> None:
    await room.session.execute("error on close broken")
    with pytest.raises(QueryError, match="broken"):
        await room.session.finish()
    await room.session.execute("rows 1")


# Order


async def test_calls_run_one_at_a_time_in_order_of_arrival(room: Room) -> None:
    gate = room.database.gates["views"] = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.session.views, list)
        await happens(gate.reached)
        for table in "abc":
            nursery.start_soon(room.session.columns, "", "", table, list)
            await trio.testing.wait_all_tasks_blocked()
        assert room.session.progress().waiting == 3
        assert room.connection.calls == ["views"]
        gate.opened.set()
    names = [call.split()[-1] for call in room.connection.calls[1:]]
    assert names == ["a", "b", "c"]


async def test_a_call_that_waits_for_its_turn_may_leave(room: Room) -> None:
    gate = room.database.gates["views"] = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.session.views, list)
        await happens(gate.reached)
        with trio.move_on_after(0):
            await room.session.tables(list)
        gate.opened.set()
    assert room.connection.calls == ["views"]


# Cancelling


@pytest.mark.parametrize("interrupts", [1, 3])
async def test_cancel_interrupts_until_the_call_has_stopped(room: Room, interrupts: int) -> None:
    async with running(lambda: room.session.execute(f"wait {interrupts}")) as outcome:
        await room.waiting()
        assert room.session.progress().running == "execute"
        assert room.session.cancel() is True
    assert isinstance(outcome[0], Cancelled)
    assert str(outcome[0]) == "execute was cancelled"
    assert room.connection.interrupts >= interrupts
    assert await room.state() == "NoActive"
    await room.session.execute("rows 1")


async def test_a_call_that_cannot_be_interrupted_is_waited_for(room: Room) -> None:
    class Deaf:
        def __init__(self, real: FakeConnection) -> None:
            self.execute, self.tables, self.views = real.execute, real.tables, real.views
            self.columns, self.rollback, self.close = real.columns, real.rollback, real.close
            self.transaction = Transaction.NONE

    session = Session(given(Deaf(room.connection)), room.workers, CAP)
    gate = room.database.gates["tables"] = Gate()
    async with running(lambda: session.tables(list)) as outcome:
        await happens(gate.reached)
        assert session.cancel() is True
        await trio.testing.wait_all_tasks_blocked()
        assert outcome == []
        gate.opened.set()
    assert outcome == [None]
    assert room.connection.interrupts == 0


async def test_cancel_without_a_running_call_is_false(room: Room) -> None:
    assert room.session.cancel() is False
    await room.session.execute("rows 1")
    assert room.session.cancel() is False
    assert room.connection.interrupts == 0


async def test_cancel_reaches_the_running_call_only(room: Room) -> None:
    async with running(lambda: room.session.execute("wait")) as first:
        await room.waiting()
        async with running(lambda: room.session.tables(list)) as second:
            await trio.testing.wait_all_tasks_blocked()
            room.session.cancel()
    assert isinstance(first[0], Cancelled)
    assert second == [None]


async def test_a_cancelled_page_loses_the_result_but_not_the_session(room: Room) -> None:
    await room.session.execute("wait after 150 rows")
    assert len(await room.rows(100)) == 100
    async with running(lambda: room.session.page(100)) as outcome:
        await room.waiting()
        room.session.cancel()
    assert isinstance(outcome[0], Cancelled)
    assert await room.state() == "Active"
    with pytest.raises(Cancelled, match="call finish"):
        await room.rows(100)
    assert await room.session.metadata()
    await room.session.finish()
    await room.session.execute("rows 1")


async def test_a_cancelled_statement_has_its_transaction_rolled_back(room: Room) -> None:
    await room.session.execute("begin")
    await room.session.finish()
    async with running(lambda: room.session.execute("wait")) as outcome:
        await room.waiting()
        room.session.cancel()
    assert str(outcome[0]) == "execute was cancelled; its transaction was rolled back"
    assert room.connection.transaction is Transaction.NONE


async def test_a_statement_that_fails_leaves_its_transaction_to_the_client(room: Room) -> None:
    await room.session.execute("begin")
    await room.session.finish()
    with pytest.raises(QueryError):
        await room.session.execute("error wrong")
    await room.session.execute("error after 150 rows late")
    with pytest.raises(QueryError):
        await room.rows(200)
    assert room.connection.transaction is Transaction.OPEN
    assert "rollback" not in room.connection.calls


async def test_a_rollback_that_fails_changes_nothing_for_the_client(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.database.failures["rollback"] = QueryError("gone")
    async with running(lambda: room.session.execute("wait")) as outcome:
        await room.waiting()
        room.session.cancel()
    assert str(outcome[0]) == "execute was cancelled"
    assert "gone" in caplog.text


async def test_a_result_that_fails_to_close_does_not_keep_the_transaction_open(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    await room.session.execute("begin")
    await room.session.finish()
    await room.session.execute("wait after 150 rows")
    await room.session.page(100)
    room.database.failures["finish"] = QueryError("stuck")
    async with running(lambda: room.session.page(100)) as outcome:
        await room.waiting()
        room.session.cancel()
    room.database.failures.clear()
    assert str(outcome[0]) == "page was cancelled; its transaction was rolled back"
    assert room.connection.transaction is Transaction.NONE
    assert "stuck" in caplog.text


async def test_a_caller_that_leaves_has_its_statement_stopped_and_undone(room: Room) -> None:
    await room.session.execute("begin")
    await room.session.finish()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.session.execute, "wait 2")
            await room.waiting()
            scope.cancel()
    assert scope.cancelled_caught
    assert room.connection.transaction is Transaction.NONE
    assert await room.state() == "NoActive"
    assert room.session.progress().running is None


async def test_a_statement_that_was_done_before_the_interrupt_is_done(room: Room) -> None:
    gate = room.database.gates["execute"] = Gate()
    async with running(lambda: room.session.execute("count 3")) as outcome:
        await happens(gate.reached)
        room.session.cancel()
        gate.opened.set()
    assert outcome == [None]
    assert await room.session.count() == 3


async def test_a_stream_that_an_interrupt_has_spoiled_counts_as_cancelled(room: Room) -> None:
    gate = room.database.gates["execute"] = Gate()
    async with running(lambda: room.session.execute("rows 1000")) as outcome:
        await happens(gate.reached)
        room.session.cancel()
        gate.opened.set()
    assert isinstance(outcome[0], Cancelled)
    assert await room.state() == "NoActive"
    assert "finish" in room.connection.calls


async def test_a_page_of_such_a_stream_counts_as_cancelled_too(room: Room) -> None:
    await room.session.execute("rows 1000")
    gate = room.database.gates["fetch"] = Gate()
    async with running(lambda: room.session.page(200)) as outcome:
        await happens(gate.reached)
        room.session.cancel()
        gate.opened.set()
    assert isinstance(outcome[0], Cancelled)
    assert await room.state() == "Active"
    with pytest.raises(Cancelled, match="call finish"):
        await room.rows(1)


async def test_the_undoing_waits_for_its_turn_behind_others() -> None:
    workers = Workers(limit=1, spare=1)
    room = Room(workers)
    await room.session.execute("begin")
    await room.session.finish()
    gate = threading.Event()
    scope = trio.CancelScope()

    async def leave() -> None:
        with scope:
            await room.session.execute("wait")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await room.waiting()
        nursery.start_soon(workers.run, gate.wait)  # takes the only thread, once it is free
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        while room.session.progress().running is not None:
            await trio.lowlevel.checkpoint()
        gate.set()
    assert "rollback" in room.connection.calls
    assert room.connection.transaction is Transaction.NONE
    await room.session.close()
    workers.close()


async def test_a_call_over_its_time_is_interrupted_and_undone(
    room: Room, mock_clock: trio.testing.MockClock
) -> None:
    await room.session.execute("begin")
    await room.session.finish()
    async with running(lambda: room.session.execute("wait 2", None, 1.5)) as outcome:
        await room.waiting()
        mock_clock.jump(1.4)
        await trio.testing.wait_all_tasks_blocked()
        assert outcome == []
        mock_clock.rate = 1
    message = "execute took longer than 1.5 seconds; its transaction was rolled back"
    assert isinstance(outcome[0], QueryTimeout)
    assert str(outcome[0]) == message
    assert room.connection.transaction is Transaction.NONE
    assert await room.state() == "NoActive"


async def test_the_time_limit_counts_for_each_page_too(
    room: Room, mock_clock: trio.testing.MockClock
) -> None:
    await room.session.execute("wait after 150 rows", None, 1)
    mock_clock.jump(5)
    assert len(await room.rows(100)) == 100
    async with running(lambda: room.session.page(100)) as outcome:
        await room.waiting()
        mock_clock.rate = 10
    assert isinstance(outcome[0], QueryTimeout)
    await room.session.finish()


async def test_a_call_may_shorten_the_sessions_limit_but_not_extend_it(
    room: Room, mock_clock: trio.testing.MockClock
) -> None:
    workers = Workers(limit=1, spare=1)
    session = Session(given(room.connection), workers, CAP, 2.0)
    async with running(lambda: session.execute("wait", None, 100.0)) as outcome:
        await room.waiting()
        mock_clock.rate = 10
    assert str(outcome[0]) == "execute took longer than 2 seconds"
    mock_clock.rate = 0
    await session.execute("rows 1")
    workers.close()


async def test_cancelling_a_catalog_call_leaves_the_open_result_alone(room: Room) -> None:
    await room.session.execute("rows 150")
    gate = room.database.gates["tables"] = Gate()
    async with running(lambda: room.session.tables(list)) as outcome:
        await happens(gate.reached)
        room.session.cancel()
        gate.opened.set()
    assert outcome == [None]
    assert [len(await room.rows(100)) for _ in range(2)] == [100, 50]


# The end


async def test_close_waits_for_the_running_call_and_closes_the_connection(room: Room) -> None:
    gate = room.database.gates["views"] = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.session.views, list)
        await happens(gate.reached)
        nursery.start_soon(room.session.close)
        await trio.testing.wait_all_tasks_blocked()
        assert not room.connection.closed
        gate.opened.set()
    assert room.connection.closed


async def test_close_cannot_be_cancelled(room: Room) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await room.session.close()
    assert room.connection.closed


async def test_progress_tells_how_long_and_how_far_the_running_call_is(room: Room) -> None:
    class Estimating(FakeConnection):
        def progress(self) -> float | None:
            return 0.25

    session = Session(given(Estimating(room.database)), room.workers, CAP)
    assert session.progress() == Progress("NoActive", None, 0.0, 0, 0, None, "autocommit")
    async with running(lambda: session.execute("wait")):
        await room.waiting()
        now = session.progress()
        assert (now.running, now.fraction) == ("execute", 0.25)
        assert 0 < now.seconds < 60  # since it began, not since the epoch of some clock
        assert room.session.progress().running is None
        session.cancel()
    assert session.progress() == Progress("NoActive", None, 0.0, 0, 0, None, "autocommit")


async def test_progress_is_about_the_open_result_only(room: Room) -> None:
    await room.session.execute("rows 150")
    await room.rows(120)
    assert room.session.progress().rows == 120
    await room.session.finish()
    assert room.session.progress().rows == 0


async def test_figures_are_kept_of_calls_and_pages(room: Room) -> None:
    class Meter:
        calls: list[str] = []  # noqa: RUF012  # one test's own
        pages: list[tuple[int, int]] = []  # noqa: RUF012

        def call(self, name: str, seconds: float) -> None:
            assert 0 <= seconds < 60
            self.calls.append(name)

        def page(self, rows: int, size: int) -> None:
            self.pages.append((rows, size))

    meter = Meter()
    session = Session(given(room.connection), room.workers, CAP, meter=meter)
    await session.execute("rows 150")
    for _ in range(3):
        await session.page(120)
    await session.finish()
    with pytest.raises(QueryError):
        await session.execute("error no")
    assert meter.calls == ["execute", "page", "page", "finish", "execute"]
    (first, size), (second, _), (none, brackets) = meter.pages
    assert (first, second, none, brackets) == (120, 30, 0, 2)
    assert size == len(json.dumps([{"n": str(n + 1)} for n in range(120)], separators=(",", ":")))
