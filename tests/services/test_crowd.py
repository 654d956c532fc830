"""Few calls begin at a time; what goes on for longer keeps nobody waiting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import Busy
from notebook_rpc.services.crowd import Crowd
from notebook_rpc.services.workers import Workers

if TYPE_CHECKING:
    from trio.testing import MockClock


class Calls:
    """Calls of a crowd, each of which goes on until it is told to end."""

    def __init__(self, nursery: trio.Nursery, crowd: Crowd) -> None:
        self._nursery = nursery
        self._crowd = crowd
        self._ends: dict[str, trio.CancelScope] = {}
        self.begun: list[str] = []

    def call(self, name: str) -> None:
        self._ends[name] = trio.CancelScope()
        self._nursery.start_soon(self._run, name)

    def end(self, name: str) -> None:
        self._ends[name].cancel()

    async def _run(self, name: str) -> None:
        with self._ends[name]:
            begun = await self._crowd.begin()
            try:
                self.begun.append(name)
                await trio.sleep_forever()
            finally:
                self._crowd.end(begun)


async def lock(door: trio.Lock) -> None:
    await door.acquire()


async def call_in_turn(calls: Calls, names: str) -> None:
    for name in names:
        calls.call(name)
        await wait_all_tasks_blocked()


async def test_as_many_begin_as_may(nursery: trio.Nursery) -> None:
    calls = Calls(nursery, Crowd(lock, limit=2, seconds=math.inf))
    await call_in_turn(calls, "abc")
    assert calls.begun == ["a", "b"]
    nursery.cancel_scope.cancel()


async def test_the_next_begins_when_one_ends(nursery: trio.Nursery) -> None:
    calls = Calls(nursery, Crowd(lock, limit=2, seconds=math.inf))
    await call_in_turn(calls, "abcd")
    calls.end("b")
    await wait_all_tasks_blocked()
    assert calls.begun == ["a", "b", "c"]
    calls.end("a")
    await wait_all_tasks_blocked()
    assert calls.begun == ["a", "b", "c", "d"]
    nursery.cancel_scope.cancel()


async def test_one_that_goes_on_does_not_count(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    calls = Calls(nursery, Crowd(lock, limit=1, seconds=0.001))
    await call_in_turn(calls, "abc")
    mock_clock.jump(0.0009)
    await wait_all_tasks_blocked()
    assert calls.begun == ["a"]
    mock_clock.jump(0.0002)
    await wait_all_tasks_blocked()
    assert calls.begun == ["a", "b"]
    mock_clock.jump(0.0011)
    await wait_all_tasks_blocked()
    assert calls.begun == ["a", "b", "c"]
    nursery.cancel_scope.cancel()


async def test_one_that_went_on_gives_no_place_when_it_ends(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    calls = Calls(nursery, Crowd(lock, limit=1, seconds=0.001))
    await call_in_turn(calls, "a")
    mock_clock.jump(0.002)
    await call_in_turn(calls, "bc")
    calls.end("a")
    await wait_all_tasks_blocked()
    assert calls.begun == ["a", "b"]
    nursery.cancel_scope.cancel()


async def test_who_gives_up_waiting_is_in_nobodys_way(nursery: trio.Nursery) -> None:
    calls = Calls(nursery, Crowd(lock, limit=1, seconds=math.inf))
    await call_in_turn(calls, "abc")
    calls.end("b")
    await wait_all_tasks_blocked()
    calls.end("a")
    await wait_all_tasks_blocked()
    assert calls.begun == ["a", "c"]
    nursery.cancel_scope.cancel()


async def test_no_more_wait_than_may(nursery: trio.Nursery) -> None:
    workers = Workers(1, 0, max_waiting=1)
    crowd = Crowd(workers.wait_for, limit=1, seconds=math.inf)
    calls = Calls(nursery, crowd)
    await call_in_turn(calls, "abc")  # b looks for room, c waits behind it
    with pytest.raises(Busy):
        await crowd.begin()
    nursery.cancel_scope.cancel()
