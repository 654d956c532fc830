"""Lanes: connections that break and are replaced. What a session makes of a lane, its tests say."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio

from notebook_rpc.errors import DatabaseUnavailable
from notebook_rpc.services.lanes import Lane
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase, Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.driver import Connection


class Track:
    """A lane to the fake, and how often it has lost a result."""

    def __init__(self, workers: Workers) -> None:
        self.database = FakeDatabase()
        self.losses = 0

        async def connect() -> Connection:
            return await workers.run(self.database.connect)

        self.lane = Lane(connect, workers, self.lose)

    def lose(self) -> None:
        self.losses += 1

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


async def test_a_broken_connection_is_closed_although_its_caller_leaves_meanwhile() -> None:
    workers = Workers(limit=1, spare=1)
    track = Track(workers)
    broken = track.database.gates["execute"] = Gate()
    other, other_began = threading.Event(), threading.Event()

    def others_work() -> None:
        other_began.set()
        other.wait()

    async def leave() -> None:
        with scope, pytest.raises(DatabaseUnavailable):
            await track.execute("leave")

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        assert await trio.to_thread.run_sync(broken.reached.wait, 5)
        nursery.start_soon(workers.run, others_work)
        await trio.testing.wait_all_tasks_blocked()
        broken.opened.set()
        assert await trio.to_thread.run_sync(other_began.wait, 5)
        with trio.fail_after(5):
            while not workers.load().waiting:  # for the only thread, to close the connection
                await trio.lowlevel.checkpoint()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        other.set()
    assert track.connections[0].closed
    workers.close()
