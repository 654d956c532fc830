"""Lanes: connections that break and are replaced. What a session makes of a lane, its tests say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from notebook_rpc.errors import Cancelled, DatabaseUnavailable
from notebook_rpc.model import Transaction
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


async def test_what_makes_room_does_not_wait_for_it() -> None:
    workers = Workers(limit=1, spare=1)
    track, other = Track(workers), Track(workers)
    await track.execute("begin")
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
        with trio.fail_after(5):
            await trio.to_thread.run_sync(gate.reached.wait)
            while track.lane.transaction is not Transaction.NONE:
                await trio.lowlevel.checkpoint()
            await track.lane.close()
        gate.opened.set()
    await other.lane.close()
    workers.close()
