"""Pools whose database is replaced: lent lanes may finish, idle ones go, and nothing stays."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import Cancelled
from notebook_rpc.services.pool import Pool, Pools
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.driver import Connection


class Water:
    """Pools of one lane each, by name, over one fake."""

    def __init__(self, workers: Workers) -> None:
        self.database = FakeDatabase()
        self._workers = workers
        self.pools = Pools(self.pool)

    def pool(self, _: str) -> Pool:
        async def connect() -> Connection:
            return await self._workers.run(self.database.connect)

        return Pool(connect, self._workers, limit=1, idle_seconds=60)

    def closed(self) -> list[bool]:
        return [each.closed for each in self.database.connections]


@pytest.fixture
async def water() -> AsyncIterator[Water]:
    workers = Workers(limit=2, spare=2)
    yield Water(workers)
    workers.close()


async def use(pool: Pool) -> None:
    async with pool.lane() as lane:
        await lane.open()


async def test_idle_lanes_are_closed_and_the_next_pool_is_new(water: Water) -> None:
    first = water.pools.pool("a")
    other = water.pools.pool("b")
    for pool in (first, other):
        await use(pool)
    await water.pools.retire(lambda key: key == "a")
    assert water.closed() == [True, False]
    assert water.pools.pool("a") is not first
    assert water.pools.pool("b") is other


async def test_a_lane_that_is_lent_is_closed_when_it_comes_back(water: Water) -> None:
    async with water.pools.pool("a").lane() as lane:
        await lane.open()
        await water.pools.retire(lambda _: True)
        assert water.closed() == [False]
    assert water.closed() == [True]


async def test_who_has_one_is_interrupted_all_the_same_when_the_server_stops(water: Water) -> None:
    async with water.pools.pool("a").lane() as lane:
        await lane.open()
        await water.pools.retire(lambda _: True)

        async def wait() -> None:
            async with lane.call("wait"):
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:

            async def stopped() -> None:
                with pytest.raises(Cancelled):
                    await wait()

            nursery.start_soon(stopped)
            await wait_all_tasks_blocked()
            water.pools.stop()


async def test_a_lane_that_was_closed_is_referred_to_by_nobody(water: Water) -> None:
    """Or its database would stay open."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(water.pools.expire)
        await use(water.pools.pool("a"))
        await wait_all_tasks_blocked()  # somebody waits for it to expire
        water.database.connections.pop()
        gone = trio.Event()
        async with water.pools.pool("a").lane() as lane:
            soon = trio.lowlevel.current_trio_token().run_sync_soon  # it may end on a worker
            weakref.finalize(await lane.open(), soon, gone.set).atexit = False
        del lane
        await wait_all_tasks_blocked()
        assert not gone.is_set()
        await water.pools.retire(lambda _: True)
        with trio.fail_after(5):
            await gone.wait()
        nursery.cancel_scope.cancel()


async def test_no_task_is_left_that_would_wait_for_its_lanes(water: Water) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(water.pools.expire)
        await use(water.pool("a"))  # as the workers have a task of their own once they have worked
        await wait_all_tasks_blocked()
        before = len(nursery.child_tasks)
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(3):
            await use(water.pools.pool("a"))
            await water.pools.retire(lambda _: True)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == before
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        nursery.cancel_scope.cancel()


async def test_who_reads_slowly_there_makes_room_as_elsewhere(water: Water) -> None:
    async with water.pools.pool("a").lane() as lane:
        await water.pools.retire(lambda _: True)
        async with water.pools.pool("a").lane() as another:
            assert water.pools.set_aside(lane)
            assert water.pools.set_aside(another)


async def test_a_lane_that_was_made_there_is_interrupted_too(water: Water) -> None:
    lane = water.pools.pool("a").make()
    await water.pools.retire(lambda _: True)
    gc.collect()  # and the pool is gone

    async def call() -> None:
        async with lane.call("wait"):
            water.pools.stop()
            await trio.sleep_forever()

    with pytest.raises(Cancelled), trio.fail_after(5):
        await call()
