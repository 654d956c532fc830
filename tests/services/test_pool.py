"""The pool: lanes that are lent, taken back, and closed when nobody needs them."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, cast
from weakref import ref

import pytest
import trio
import trio.testing

from notebook_rpc.errors import Cancelled, DatabaseUnavailable, QueryError
from notebook_rpc.model import Transaction
from notebook_rpc.services.pool import Pool, Pools
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase, Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.driver import Connection
    from notebook_rpc.services.lanes import Lane

IDLE = 60.0


class Unforgetting:
    """A connection without ``reset``."""

    def __init__(self, connection: FakeConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> object:
        if name == "reset":
            raise AttributeError(name)
        return getattr(self._connection, name)


class Pond:
    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.database = FakeDatabase()
        self.forgets = True

        async def connect() -> Connection:
            connection = await workers.run(self.database.connect)
            return connection if self.forgets else cast("Connection", Unforgetting(connection))

        self.pool = Pool(connect, workers, limit=2, idle_seconds=IDLE)

    def open_now(self) -> list[bool]:
        return [not connection.closed for connection in self.database.connections]


async def execute(lane: Lane, sql: str) -> None:
    await lane.work(lambda connection: connection.execute(sql))


@pytest.fixture
async def pond() -> AsyncIterator[Pond]:
    workers = Workers(limit=4, spare=2)
    pond = Pond(workers)
    yield pond
    await pond.pool.close()
    workers.close()


async def test_a_lane_is_used_again(pond: Pond) -> None:
    for _ in range(3):
        async with pond.pool.lane() as lane:
            await execute(lane, "rows 1")
    assert pond.open_now() == [True]


async def test_the_lane_used_last_is_lent_first(pond: Pond) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(pond.pool.lane())
        second = await stack.enter_async_context(pond.pool.lane())
    assert first is not second
    async with pond.pool.lane() as again:
        assert again is first  # the stack gave it back last


async def test_beyond_the_limit_borrowers_wait_in_order(pond: Pond) -> None:
    order: list[int] = []

    async def borrow(number: int) -> None:
        async with pond.pool.lane():
            order.append(number)

    # The outer lane stays lent, so that the others pass through one by one.
    async with pond.pool.lane(), trio.open_nursery() as nursery, pond.pool.lane():
        for number in range(3):
            nursery.start_soon(borrow, number)
            await trio.testing.wait_all_tasks_blocked()
        assert order == []
    assert order == [0, 1, 2]


async def test_a_transaction_left_open_is_undone(pond: Pond) -> None:
    async with pond.pool.lane() as lane:
        await execute(lane, "begin; create table t (a integer)")
    assert lane.transaction is Transaction.NONE
    assert "rollback" in pond.database.connections[0].calls
    assert pond.database.created == {}


async def test_so_is_one_that_has_failed(pond: Pond) -> None:
    async with pond.pool.lane() as lane:
        await execute(lane, "begin")
        with suppress(QueryError):
            await execute(lane, "abort now")
    assert lane.transaction is Transaction.NONE


@pytest.mark.parametrize(
    "failure", [DatabaseUnavailable("gone"), QueryError("stuck"), RuntimeError("a bug")]
)
async def test_a_lane_that_cannot_be_cleaned_is_not_lent_again(
    pond: Pond, failure: Exception
) -> None:
    async with pond.pool.lane() as lane:
        await execute(lane, "begin")
        pond.database.failures["rollback"] = failure  # type: ignore[assignment]
    assert pond.open_now() == [False]
    pond.database.failures.clear()
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
    assert pond.open_now() == [False, True]


async def test_lanes_nobody_uses_are_closed_after_a_while(
    pond: Pond, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1  # so that to wait too long is to fail

    async def all_closed() -> None:
        with trio.fail_after(5):
            while any(pond.open_now()):
                await trio.lowlevel.checkpoint()

    nursery.start_soon(pond.pool.expire)
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
    mock_clock.jump(IDLE - 1)
    await trio.testing.wait_all_tasks_blocked()
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
    mock_clock.jump(IDLE - 1)  # less since it was used last
    await trio.testing.wait_all_tasks_blocked()
    assert pond.open_now() == [True]
    mock_clock.jump(2)
    await all_closed()
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
    assert pond.open_now() == [False, True]
    mock_clock.jump(IDLE + 1)
    await all_closed()
    nursery.cancel_scope.cancel()


async def test_the_lane_that_has_been_idle_longest_is_closed_first(
    pond: Pond, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1  # so that to wait too long is to fail
    nursery.start_soon(pond.pool.expire)
    async with pond.pool.lane() as younger:
        async with pond.pool.lane() as older:
            await execute(older, "rows 1")
        await execute(younger, "rows 1")
        mock_clock.jump(IDLE / 2)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(IDLE / 2)
    with trio.fail_after(5):
        while all(pond.open_now()):
            await trio.lowlevel.checkpoint()
    assert pond.open_now() == [False, True]
    async with pond.pool.lane() as left, pond.pool.lane() as new:
        assert left is younger
        assert new is not older
    nursery.cancel_scope.cancel()


async def test_a_lane_that_was_used_meanwhile_stays_as_long_again(
    pond: Pond, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(pond.pool.expire)
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(IDLE - 1)
    async with pond.pool.lane():
        pass
    mock_clock.jump(2)
    await trio.testing.wait_all_tasks_blocked()
    async with pond.pool.lane() as again:
        assert again is lane
    nursery.cancel_scope.cancel()


async def test_a_lane_that_is_lent_is_not_idle(
    pond: Pond, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(pond.pool.expire)
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
    await trio.testing.wait_all_tasks_blocked()
    async with pond.pool.lane():
        mock_clock.jump(IDLE + 1)
        await trio.testing.wait_all_tasks_blocked()
        assert pond.open_now() == [True]
    nursery.cancel_scope.cancel()


async def test_a_lane_that_was_lent_for_nothing_has_not_connected(pond: Pond) -> None:
    async with pond.pool.lane():
        pass
    assert pond.database.connections == []


async def test_a_pool_that_closes_closes_its_idle_lanes(pond: Pond) -> None:
    async with pond.pool.lane() as one, pond.pool.lane() as other:
        await execute(one, "rows 1")
        await execute(other, "rows 1")
    await pond.pool.close()
    assert pond.open_now() == [False, False]


async def test_what_fails_in_closing_a_lane_is_not_the_borrowers(
    pond: Pond, caplog: pytest.LogCaptureFixture
) -> None:
    pond.forgets = False
    pond.database.failures["close"] = DatabaseUnavailable("cannot even close")
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
    assert "closing a pooled connection failed" in caplog.text


async def test_a_driver_that_fails_as_none_may_does_not_end_the_closing_of_others(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Lanes(FakeDatabase):
        """Of connections that do not close, and count how often they were asked to."""

        closings = 0

        def connect(self) -> FakeConnection:
            connection = super().connect()
            connection.close = self._fail  # type: ignore[method-assign]
            return connection

        def _fail(self) -> None:
            self.closings += 1
            raise RuntimeError("a bug")

    mock_clock.rate = 1  # so that to wait too long is to fail
    workers = Workers(limit=2, spare=2)
    database = Lanes()
    pool = Pool(partial(workers.run, database.connect), workers, limit=2, idle_seconds=IDLE)
    nursery.start_soon(pool.expire)
    async with pool.lane() as first, pool.lane() as second:
        await first.open()
        await second.open()
    mock_clock.jump(IDLE + 1)
    with trio.fail_after(5):
        while caplog.text.count("closing a pooled connection failed") < 2:
            await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
    assert database.closings == 2
    nursery.cancel_scope.cancel()
    workers.close()


async def test_a_lane_that_was_closed_is_forgotten(pond: Pond) -> None:
    pond.forgets = False
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
    left = ref(lane)
    del lane
    gc.collect()
    assert left() is None


async def test_a_lane_that_is_lent_when_the_pool_closes_is_closed_when_it_comes_back(
    pond: Pond,
) -> None:
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
        await pond.pool.close()
        assert pond.open_now() == [True]
    assert pond.open_now() == [False]


async def test_a_borrower_that_is_cancelled_gives_its_lane_back(pond: Pond) -> None:
    for _ in range(3):  # one more than there are
        with trio.CancelScope() as scope:
            async with pond.pool.lane() as lane:
                await execute(lane, "begin")
                scope.cancel()
                await trio.lowlevel.checkpoint()
    async with pond.pool.lane(), pond.pool.lane():
        assert pond.database.connections[0].transaction is Transaction.NONE


async def test_the_rollback_for_a_borrower_that_was_cancelled_is_not_interrupted(
    pond: Pond,
) -> None:
    gate = pond.database.gates["rollback"] = Gate()
    scope = trio.CancelScope()

    async def borrow() -> None:
        with scope:
            async with pond.pool.lane() as lane:
                await execute(lane, "begin")
                scope.cancel()
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(borrow)
        assert await trio.to_thread.run_sync(gate.reached.wait, 5)
        try:
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert pond.database.connections[0].interrupts == 0
        finally:
            gate.opened.set()  # or the rollback would never end


async def test_a_lane_that_is_lent_again_at_once_does_not_expire(nursery: trio.Nursery) -> None:
    workers = Workers(limit=4, spare=2)
    database = FakeDatabase()

    async def connect() -> Connection:
        return await workers.run(database.connect)

    async def borrow() -> None:
        async with pool.lane() as lane:
            await execute(lane, "rows 1")

    pool = Pool(connect, workers, limit=1, idle_seconds=IDLE)
    nursery.start_soon(pool.expire)
    for _ in range(20):
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as borrowers:
            borrowers.start_soon(borrow)
            borrowers.start_soon(borrow)  # waits, and takes the lane as it comes back
    nursery.cancel_scope.cancel()
    await pool.close()
    workers.close()


async def test_a_borrower_meets_nothing_of_those_before(pond: Pond) -> None:
    async with pond.pool.lane() as lane:
        await execute(lane, "create temp table mine (a integer)")
    (connection,) = pond.database.connections
    assert connection.calls == ["execute create temp table mine (a integer)"]
    async with pond.pool.lane() as lane:
        tables = await lane.work(lambda connection: connection.tables())
        assert "mine" not in [table.table for table in tables]
        await execute(lane, "rows 1")
    assert connection.calls[1:] == ["reset", "finish", "tables", "execute rows 1"]


async def test_a_connection_that_cannot_forget_is_not_lent_again(pond: Pond) -> None:
    pond.forgets = False
    for _ in range(2):
        async with pond.pool.lane() as lane:
            await execute(lane, "rows 1")
    assert pond.open_now() == [False, False]


async def test_what_had_nothing_to_forget_needs_no_way_to_forget(pond: Pond) -> None:
    pond.forgets = False
    async with pond.pool.lane():
        pass  # nothing was connected, so that the lane can be lent again
    async with pond.pool.lane() as lane:
        await execute(lane, "rows 1")
    assert pond.open_now() == [False]


async def test_a_client_has_its_share_and_no_more(pond: Pond, nursery: trio.Nursery) -> None:
    inside: list[str] = []

    async def borrow(client: str) -> None:
        async with pond.pool.lane(client):
            inside.append(client)
            await trio.sleep_forever()

    for client in ("a", "a", "b"):
        nursery.start_soon(borrow, client)
        await trio.testing.wait_all_tasks_blocked()
    assert inside == ["a", "b"]
    nursery.cancel_scope.cancel()


async def test_every_key_has_a_pool_of_its_own_that_expires(
    pond: Pond, mock_clock: trio.testing.MockClock
) -> None:
    made: list[str] = []

    def make(key: str) -> Pool:
        made.append(key)
        return pond.pool if key == "later" else other.pool

    mock_clock.rate = 1  # so that to wait too long is to fail
    other = Pond(pond.workers)
    pools = Pools(make)
    before = pools.pool("before")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pools.expire)
        await trio.testing.wait_all_tasks_blocked()
        assert pools.pool("before") is before
        for key in ("before", "later"):
            async with pools.pool(key).lane() as lane:
                await execute(lane, "rows 1")
        assert made == ["before", "later"]
        assert [*other.open_now(), *pond.open_now()] == [True, True]
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(IDLE + 1)
        with trio.fail_after(5):
            while any([*other.open_now(), *pond.open_now()]):
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    async with pools.pool("later").lane() as lane:
        await execute(lane, "rows 1")
    await pools.close()
    assert pond.open_now() == [False, False]


async def test_when_the_server_stops_all_pools_do(pond: Pond) -> None:
    pools: Pools[str] = Pools(lambda _: pond.pool)
    pools.pool("any")
    pools.stop()
    with pytest.raises(Cancelled, match="is stopping"):
        async with pools.pool("any").lane():
            pytest.fail("there are no more lanes")


async def test_when_the_server_stops_borrowers_are_interrupted(pond: Pond) -> None:
    async def stop() -> None:
        await trio.to_thread.run_sync(pond.database.waiting.wait)
        pond.pool.stop()

    async def wait(lane: Lane) -> None:
        async with lane.undone_if_interrupted(), lane.call("query"):
            await execute(lane, "wait")

    async with pond.pool.lane() as lane, trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        with pytest.raises(Cancelled):
            await wait(lane)
    with pytest.raises(Cancelled, match="is stopping"):
        async with pond.pool.lane():
            pytest.fail("there are no more lanes")
