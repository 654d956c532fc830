"""Worker threads. These tests use real threads and real time, and wait for events only."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from typing import TYPE_CHECKING

import pytest
import trio

from notebook_rpc.services.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(limit=3, spare=2)
    yield workers
    workers.close()


class Interruptible:
    """Work that ends only when it has been interrupted *needed* times since it began."""

    def __init__(self, needed: int = 1, result: object = None) -> None:
        self.began = threading.Event()
        self.interrupts = 0
        self.stopped = threading.Event()
        self._needed, self._result = needed, result

    def __call__(self) -> object:
        self.began.set()
        self.stopped.wait()
        if self._result is None:
            raise ConnectionError("interrupted")
        return self._result

    def interrupt(self) -> None:
        self.interrupts += 1
        if self.interrupts >= self._needed:
            self.stopped.set()


async def began(work: Interruptible) -> None:
    await trio.to_thread.run_sync(work.began.wait)


async def test_the_value_and_the_error_are_the_works_own(workers: Workers) -> None:
    assert await workers.run(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0)
    assert await workers.run(lambda: 43) == 43


async def test_work_runs_in_another_thread_with_the_callers_context(workers: Workers) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    thread, value = await workers.run(lambda: (threading.current_thread().name, variable.get()))
    assert thread.startswith("notebook-rpc-worker")
    assert value == "set"


async def test_the_last_idle_worker_is_used_first(workers: Workers) -> None:
    first = await workers.run(threading.get_ident)
    assert [await workers.run(threading.get_ident) for _ in range(3)] == [first] * 3


async def test_slow_work_does_not_hold_up_quick_work(workers: Workers) -> None:
    slow = [Interruptible(), Interruptible()]
    async with trio.open_nursery() as nursery:
        for each in slow:
            nursery.start_soon(workers.run, each, each.interrupt)
            await began(each)
        with trio.fail_after(5):
            assert await workers.run(lambda: "quick") == "quick"
        nursery.cancel_scope.cancel()


async def test_beyond_the_limit_callers_wait_in_order(workers: Workers) -> None:
    gates = [threading.Event() for _ in range(3)]
    order: list[int] = []
    async with trio.open_nursery() as nursery:
        for gate in gates:
            nursery.start_soon(workers.run, gate.wait)
        await trio.testing.wait_all_tasks_blocked()

        async def late(number: int) -> None:
            await workers.run(lambda: order.append(number))

        for number in range(5):
            nursery.start_soon(late, number)
            await trio.testing.wait_all_tasks_blocked()
        assert order == []
        gates[0].set()
        with trio.fail_after(5):
            while len(order) < 5:
                await trio.lowlevel.checkpoint()
        gates[1].set()
        gates[2].set()
    assert order == [0, 1, 2, 3, 4]


async def test_a_caller_that_waits_for_a_worker_can_be_cancelled(workers: Workers) -> None:
    gate = threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(workers.run, gate.wait)
        await trio.testing.wait_all_tasks_blocked()
        ran: list[str] = []
        with trio.move_on_after(0):
            await workers.run(lambda: ran.append("late"))
        gate.set()
    assert ran == []
    assert await workers.run(lambda: "alive") == "alive"


@pytest.mark.parametrize("needed", [1, 4])
async def test_a_cancelled_call_is_interrupted_until_it_stops(
    workers: Workers, needed: int
) -> None:
    work = Interruptible(needed)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, work, work.interrupt)
            await began(work)
            scope.cancel()
    assert scope.cancelled_caught
    assert work.stopped.is_set()
    assert work.interrupts == needed


async def test_work_that_cannot_be_interrupted_is_waited_for(workers: Workers) -> None:
    began_it, gate = threading.Event(), threading.Event()

    def work() -> None:
        began_it.set()
        gate.wait()

    ended = trio.Event()

    async def call() -> None:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel, scope)
            await workers.run(work)
        ended.set()

    async def cancel(scope: trio.CancelScope) -> None:
        await trio.to_thread.run_sync(began_it.wait)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.to_thread.run_sync(began_it.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        gate.set()
    assert ended.is_set()


async def test_work_that_was_done_all_the_same_returns_its_value(workers: Workers) -> None:
    work = Interruptible(result="committed")
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await workers.run(work, work.interrupt) == "committed"
        assert trio.current_effective_deadline() == -float("inf")
    assert not scope.cancelled_caught


async def test_idle_workers_keep_nothing_alive(workers: Workers) -> None:
    class Value:
        pass

    value = await workers.run(Value)
    reference = weakref.ref(value)
    del value
    await workers.run(lambda: None)
    gc.collect()
    assert reference() is None


async def test_threads_beyond_the_spare_ones_end(workers: Workers) -> None:
    gate = threading.Event()
    before = threading.active_count()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(workers.run, gate.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert threading.active_count() == before + 3
        gate.set()
    assert threading.active_count() == before + 2
    workers.close()
    assert threading.active_count() == before
