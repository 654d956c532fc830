"""Worker threads. These tests use real threads and real time, and wait for events only."""

from __future__ import annotations

import contextvars
import gc
import os
import random
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from notebook_rpc.errors import Busy
from notebook_rpc.services import workers as module
from notebook_rpc.services.alarm import TICK, Overdue
from notebook_rpc.services.doorbell import Doorbell
from notebook_rpc.services.here import NotHere
from notebook_rpc.services.worker import Job, Worker
from notebook_rpc.services.workers import TOGETHER, Load, Workers
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    assert await trio.to_thread.run_sync(work.began.wait, 5)


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


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's own on Linux alone")
async def test_work_gives_way_to_the_event_loop(workers: Workers) -> None:
    before = niceness()
    assert await workers.run(niceness) == min(before + 5, 19)
    inherited: list[int] = []

    def work() -> None:
        thread = threading.Thread(target=lambda: inherited.append(niceness()))
        thread.start()
        thread.join()

    await workers.run(work)
    assert inherited == [min(before + 5, 19)]
    assert niceness() == before


@pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's own on Linux alone")
async def test_where_it_may_not_it_works_all_the_same(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(os, "setpriority", refuse)
    assert await workers.run(niceness) == niceness()


async def test_the_last_idle_worker_is_used_first(workers: Workers) -> None:
    first = await workers.run(threading.get_ident)
    assert [await workers.run(threading.get_ident) for _ in range(3)] == [first] * 3


async def test_of_several_idle_workers_the_last_one_is_used_first(workers: Workers) -> None:
    gates = [threading.Event(), threading.Event()]
    idents: list[int] = []

    async def occupy(gate: threading.Event) -> None:
        idents.append(await workers.run(lambda: (gate.wait(), threading.get_ident())[1]))

    async with trio.open_nursery() as nursery:
        for gate in gates:
            nursery.start_soon(occupy, gate)
        await trio.testing.wait_all_tasks_blocked()
        for done, gate in enumerate(gates, 1):
            gate.set()
            while len(idents) < done:
                await trio.lowlevel.checkpoint()
    assert await workers.run(threading.get_ident) == idents[1]
    assert idents[0] != idents[1]


async def test_whatever_work_raises_reaches_the_caller(workers: Workers) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await workers.run(leave)
    assert await workers.run(lambda: "alive") == "alive"


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


async def test_beyond_the_limit_of_those_who_wait_callers_are_refused() -> None:
    workers = Workers(limit=1, spare=1, max_waiting=2)
    gate = threading.Event()
    ran: list[str] = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(workers.run, gate.wait)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Busy, match="2 calls wait already, and no more may"):
            await workers.run(lambda: ran.append("fourth"))
        assert await workers.run_beyond(lambda: "makes room") == "makes room"
        gate.set()
    await workers.run(lambda: ran.append("later"))
    assert ran == ["later"]
    workers.close()


async def test_who_waits_for_another_place_is_counted_apart(workers: Workers) -> None:
    session = trio.Lock()
    await session.acquire()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(workers.wait_for, session)
        await trio.testing.wait_all_tasks_blocked()
        load = workers.load()
        assert (load.running, load.waiting, load.queued) == (0, 0, 2)
        nursery.cancel_scope.cancel()
    assert workers.load().queued == 0
    session.release()


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
    workers: Workers, needed: int, caplog: pytest.LogCaptureFixture
) -> None:
    work = Interruptible(needed)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, work, work.interrupt)
            await began(work)
            scope.cancel()
    assert scope.cancelled_caught
    assert work.stopped.is_set()
    assert work.interrupts >= needed  # one may overlap the end of the work
    assert caplog.text == ""


async def test_interrupts_follow_soon_and_then_every_50_ms(
    workers: Workers, mock_clock: trio.testing.MockClock
) -> None:
    # The clock may jump here although it cannot see threads: the work ends by the tenth
    # interrupt, and while one is made there is no deadline to jump to.
    work = Interruptible(needed=10)
    times: list[float] = []

    def interrupt() -> None:
        times.append(mock_clock.current_time())
        work.interrupt()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, work, interrupt)
            await began(work)
            mock_clock.autojump_threshold = 0
            scope.cancel()
    gaps = [after - before for before, after in pairwise(times[:10])]
    assert gaps == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05, 0.05])


async def test_a_cancelled_call_gives_back_its_worker_and_its_place(workers: Workers) -> None:
    idents: set[int] = set()
    causes: list[BaseException | None] = []

    async def call(work: Interruptible) -> None:
        def identified() -> object:
            idents.add(threading.get_ident())
            return work()

        try:
            await workers.run(identified, work.interrupt)
        except trio.Cancelled as cancelled:
            causes.append(cancelled.__cause__)
            raise

    for _ in range(4):  # one more than there are places
        work = Interruptible()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, work)
                await began(work)
                nursery.cancel_scope.cancel()
    assert len(idents) == 1
    assert [type(cause) for cause in causes] == [ConnectionError] * 4  # what the work said


@pytest.mark.parametrize("interrupt", [None, lambda: None])
async def test_work_may_end_at_the_moment_it_is_cancelled(
    workers: Workers, interrupt: Callable[[], None] | None
) -> None:
    token = trio.lowlevel.current_trio_token()
    for _ in range(50):
        with trio.CancelScope() as scope:
            cancel = partial(token.run_sync_soon, scope.cancel)
            await workers.run(cancel, interrupt)
        assert not scope.cancelled_caught  # the work was done all the same


async def test_work_that_cannot_be_interrupted_is_waited_for(workers: Workers) -> None:
    began_it, gate = threading.Event(), threading.Event()

    def work() -> None:
        began_it.set()
        gate.wait()

    ended = trio.Event()
    scope = trio.CancelScope()

    async def call() -> None:
        with scope:
            await workers.run(work)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.to_thread.run_sync(began_it.wait)
        scope.cancel()
        try:
            await trio.testing.wait_all_tasks_blocked()
            assert not ended.is_set()
        finally:
            gate.set()  # or the worker would never end
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
    with trio.fail_after(5):  # the worker may not have come to rest yet
        while reference() is not None:
            await trio.lowlevel.checkpoint()


async def test_an_error_is_freed_with_its_last_reference(workers: Workers) -> None:
    class Failure(Exception):
        pass

    def fail() -> None:
        raise Failure

    async def call() -> weakref.ref[Failure]:
        try:
            await workers.run(fail)
        except Failure as exc:
            return weakref.ref(exc)
        raise AssertionError

    gc.disable()  # which would free a cycle, some time
    try:
        reference = await call()
        with trio.fail_after(5):
            while reference() is not None:
                await trio.lowlevel.checkpoint()
    finally:
        gc.enable()


async def test_an_interrupt_that_fails_is_logged_and_the_call_is_waited_for(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    work = Interruptible()

    def interrupt() -> None:
        work.interrupt()
        raise OSError("a bug of the driver")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, work, interrupt)
            await began(work)
            scope.cancel()
    assert scope.cancelled_caught
    assert "a bug of the driver" in caplog.text


async def test_the_load_tells_who_runs_and_who_waits(workers: Workers) -> None:
    assert workers.load() == Load(running=0, waiting=0, limit=3, threads=0)
    gate = threading.Event()
    names: set[str] = set()

    def work() -> None:
        names.add(threading.current_thread().name)
        gate.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(workers.run, work)
        try:
            await until(lambda: workers.load() == Load(3, waiting=1, limit=3, threads=3))
        finally:
            gate.set()
    assert workers.load() == Load(running=0, waiting=0, limit=3, threads=2)
    assert len(names) == 3  # a log or a debugger can tell them apart


async def test_threads_beyond_the_spare_ones_end(workers: Workers) -> None:
    gate = threading.Event()
    before = threading.active_count()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(workers.run, gate.wait)
        try:
            await until(lambda: threading.active_count() == before + 3)
        finally:
            gate.set()
    assert threading.active_count() == before + 2
    workers.close()
    assert threading.active_count() == before


@pytest.fixture
def _for_ever_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: who stands in the line stays there until others have ended."""
    monkeypatch.setattr(module, "YOUNG", 1000.0)


class Held:
    """Calls that are held by a gate each, and of which as many as may have been begun."""

    def __init__(self, workers: Workers, nursery: trio.Nursery, count: int = TOGETHER) -> None:
        self.works = [Interruptible(result="held") for _ in range(count)]
        for work in self.works:
            nursery.start_soon(workers.run, work, work.interrupt)  # else a failing test would hang

    async def begun(self) -> None:
        for work in self.works:
            await until(work.began.is_set)

    def let_go(self) -> None:
        for work in self.works:
            work.interrupt()


@pytest.mark.usefixtures("_for_ever_young")
async def test_young_calls_are_begun_two_at_a_time() -> None:
    workers = Workers(limit=200, spare=2)
    inside: set[int] = set()
    most = ended = 0
    counting = threading.Lock()

    async def call(number: int) -> None:
        def work() -> None:
            nonlocal most
            with counting:
                inside.add(number)
                most = max(most, len(inside))
            time.sleep(0)  # another thread's turn
            with counting:
                inside.remove(number)

        nonlocal ended
        await workers.run(work)
        ended += 1

    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        for number in range(198):
            nursery.start_soon(call, number)
        await trio.testing.wait_all_tasks_blocked()
        assert workers.load() == Load(running=2, waiting=198, limit=200, threads=2)
        assert most == 0
        held.let_go()
    assert ended == 198
    assert 1 <= most <= TOGETHER
    assert workers.load() == Load(running=0, waiting=0, limit=200, threads=2)
    for number in range(2 * TOGETHER):  # those that rest are not counted as young
        with trio.fail_after(5):
            await call(number)
    workers.close()


@pytest.mark.usefixtures("_for_ever_young")
async def test_calls_in_the_line_begin_in_order_of_arrival() -> None:
    workers = Workers(limit=12, spare=2)
    order: list[int] = []

    async def call(number: int) -> None:
        await workers.run(lambda: order.append(number))

    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        for number in range(10):
            nursery.start_soon(call, number)
            await trio.testing.wait_all_tasks_blocked()
        held.works[1].interrupt()  # this thread alone goes on
        await until(lambda: len(order) == 10)
        held.let_go()
    assert order == list(range(10))
    workers.close()


async def test_a_third_call_begins_when_the_first_two_are_no_longer_young(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "YOUNG", 0.05)
    async with trio.open_nursery() as nursery:
        before = time.perf_counter()
        held = Held(workers, nursery)
        await held.begun()
        with trio.fail_after(5):
            began = await workers.run(time.perf_counter)
        assert began >= before + 0.05
        held.let_go()


async def test_whoever_comes_when_they_are_no_longer_young_does_not_wait_first(
    workers: Workers,
    mock_clock: trio.testing.MockClock,  # it stands still, so that nothing ends a wait in the line
) -> None:
    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        now = time.perf_counter()
        while time.perf_counter() <= now + module.YOUNG:
            await trio.lowlevel.checkpoint()
        third = Held(workers, nursery, count=1)
        await trio.testing.wait_all_tasks_blocked()
        assert workers.load() == Load(running=3, waiting=0, limit=3, threads=3)
        assert mock_clock.current_time() == 0
        held.let_go()
        third.let_go()


async def test_a_call_in_the_line_is_begun_though_the_clock_jumps(
    workers: Workers,
    autojump_clock: trio.testing.MockClock,  # how old a call is, another clock tells
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "YOUNG", 0.02)
    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        assert autojump_clock.autojump_threshold == 0
        with trio.fail_after(1000):  # where the clock would jump to if nothing else was awaited
            assert await workers.run(lambda: "third") == "third"
        held.let_go()


async def test_a_call_taken_from_the_line_is_as_young_as_it_is() -> None:
    """And not as old as the one before it, which the same worker made."""
    doorbell = Doorbell()
    began: list[tuple[float, float]] = []

    def work() -> None:
        began.append((worker.since, time.perf_counter()))

    doorbell.expect()
    first, second = Job(work, doorbell), Job(work, doorbell)
    worker = Worker("worker of a test", deque([second]), lambda _: None)
    worker.young = True
    worker.jobs.put(first)
    await second.finished()
    worker.stop()
    doorbell.close()
    (told, first_at), (since, second_at) = began
    assert told == 0  # by whoever gives it a job
    assert first_at <= since <= second_at
    assert second.begun


@pytest.mark.parametrize("limit", [40, 150])
async def test_slow_calls_all_begin_up_to_the_limit(limit: int) -> None:
    workers = Workers(limit=limit, spare=2)
    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery, count=limit + 7)
        await until(lambda: workers.load() == Load(limit, 7, limit, threads=limit))
        await until(lambda: sum(work.began.is_set() for work in held.works) == limit)
        held.let_go()
    assert workers.load() == Load(running=0, waiting=0, limit=limit, threads=2)
    workers.close()


@pytest.mark.usefixtures("_for_ever_young")
async def test_a_call_cancelled_in_the_line_never_runs_and_gives_its_place_back(
    workers: Workers,
) -> None:
    ran: list[str] = []
    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        async with trio.open_nursery() as waiting:
            waiting.start_soon(workers.run, lambda: ran.append("cancelled"), None)
            await trio.testing.wait_all_tasks_blocked()
            assert workers.load() == Load(running=2, waiting=1, limit=3, threads=2)
            waiting.cancel_scope.cancel()
        assert workers.load() == Load(running=2, waiting=0, limit=3, threads=2)
        nursery.start_soon(workers.run, lambda: ran.append("next"))
        await trio.testing.wait_all_tasks_blocked()
        held.let_go()
    assert ran == ["next"]
    assert workers.load() == Load(running=0, waiting=0, limit=3, threads=2)


@pytest.mark.usefixtures("_for_ever_young")
async def test_a_call_cancelled_just_when_it_is_begun_is_interrupted(workers: Workers) -> None:
    work = Interruptible(needed=2)
    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        async with trio.open_nursery() as waiting:
            waiting.start_soon(workers.run, work, work.interrupt)
            await trio.testing.wait_all_tasks_blocked()
            held.works[0].interrupt()
            assert work.began.wait(5)  # a thread has taken it; the event loop could not hear of it
            waiting.cancel_scope.cancel()
        assert work.interrupts >= 2
        held.let_go()
    assert workers.load() == Load(running=0, waiting=0, limit=3, threads=2)


@pytest.mark.usefixtures("_for_ever_young")
async def test_what_runs_beyond_the_limit_never_stands_in_the_line(workers: Workers) -> None:
    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        nursery.start_soon(workers.run, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            assert await workers.run_beyond(lambda: "beyond") == "beyond"
        assert workers.load() == Load(running=2, waiting=1, limit=3, threads=3)
        held.let_go()


@pytest.mark.usefixtures("_for_ever_young")
async def test_what_ran_beyond_the_limit_does_not_go_on_with_the_line(workers: Workers) -> None:
    ran: list[str] = []
    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        nursery.start_soon(workers.run, lambda: ran.append("in line"))
        await trio.testing.wait_all_tasks_blocked()
        await workers.run_beyond(lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        assert ran == []
        held.let_go()
    assert ran == ["in line"]


def refuse_threads(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The system is out of threads so many *times*, and has some again."""
    start = threading.Thread.start
    left = iter(range(times))

    def refusing(thread: threading.Thread) -> None:
        if next(left, None) is not None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)


async def test_without_a_thread_that_call_alone_fails(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_threads(monkeypatch, times=5)  # more than there are places: each is given back
    for _ in range(4):
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await workers.run(lambda: "never")
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await workers.run_beyond(lambda: "never")
    assert workers.load() == Load(running=0, waiting=0, limit=3, threads=0)
    assert await workers.run(lambda: "later") == "later"
    assert await workers.run_beyond(lambda: "later") == "later"
    assert workers.load() == Load(running=0, waiting=0, limit=3, threads=1)


@pytest.mark.usefixtures("_for_ever_young")
async def test_without_a_thread_one_in_the_line_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = Workers(limit=4, spare=2)
    outcomes: list[str] = []

    async def call() -> None:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await workers.run(lambda: outcomes.append("never"))
        outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        refuse_threads(monkeypatch, times=1)
        monkeypatch.setattr(module, "YOUNG", 0.0)
        with trio.fail_after(5):  # lets the one before it begin, which is refused, and then begins
            await workers.run(lambda: outcomes.append("next"))
        await until(lambda: len(outcomes) == 2)
        held.let_go()
    assert sorted(outcomes) == ["next", "refused"]
    assert workers.load() == Load(running=0, waiting=0, limit=4, threads=2)
    workers.close()


@pytest.mark.usefixtures("_for_ever_young")
async def test_who_comes_when_workers_have_looked_and_not_come_to_rest_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = threading.Semaphore(0)

    class Telling(Doorbell):
        def leave(self, call: Callable[[], None]) -> None:
            super().leave(call)
            told.release()

    monkeypatch.setattr(module, "Doorbell", Telling)
    workers = Workers(limit=3, spare=2)
    async with trio.open_nursery() as nursery:
        held = Held(workers, nursery)
        await held.begun()
        held.let_go()
        for _ in held.works:  # while the event loop stands still
            assert told.acquire(timeout=5)
        with trio.fail_after(5):
            assert await workers.run(lambda: "begun") == "begun"
    workers.close()


async def test_without_a_thread_an_interrupt_is_tried_again(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    work = Interruptible()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, work, work.interrupt)
            await until(work.began.is_set)
            refuse_threads(monkeypatch, times=2)
            scope.cancel()
    assert scope.cancelled_caught
    assert [record.getMessage() for record in caplog.records] == ["an interrupt failed"] * 2


@pytest.fixture
def _hurried_threads() -> Iterator[None]:
    """Python lets another thread go on almost wherever it may."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hurried_threads")
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_each_call_has_one_outcome(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # no secret
    threads_before = threading.active_count()
    limit = chance.choice([1, 3, 30])
    workers = Workers(limit, spare=2)
    ran = [0] * 200
    outcomes: list[list[str]] = [[] for _ in ran]

    async def call(number: int) -> None:
        stop = threading.Event()
        seconds = chance.choice([0, 0, chance.uniform(0, 0.005)])
        fails, interruptible = chance.random() < 0.2, chance.random() < 0.7
        run = workers.run if chance.random() < 0.9 else workers.run_beyond
        patience = chance.choice([float("inf"), 0, chance.uniform(0, 0.02)])

        def work() -> int:
            ran[number] += 1
            if stop.wait(seconds):
                raise InterruptedError
            if fails:
                raise ValueError(number)
            return number

        with trio.move_on_after(patience) as scope:
            try:
                assert await run(work, stop.set if interruptible else None) == number
                outcomes[number].append("returned")
            except ValueError as exc:
                outcomes[number].append(f"raised {exc}")
        if scope.cancelled_caught:
            outcomes[number].append("cancelled")

    async def watch() -> None:
        while True:
            load = workers.load()
            assert 0 <= load.running <= limit
            assert min(load.waiting, load.threads, load.queued) >= 0
            await trio.lowlevel.checkpoint()

    with trio.fail_after(20):
        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            async with trio.open_nursery() as nursery:
                for number in range(len(ran)):
                    nursery.start_soon(call, number)
                    if chance.random() < 0.3:
                        await trio.lowlevel.checkpoint()
            watching.cancel_scope.cancel()
    for times, outcome in zip(ran, outcomes, strict=True):
        assert len(outcome) == 1
        assert times == 1 or (times == 0 and outcome == ["cancelled"])
    said = {(number, outcome) for number, [outcome] in enumerate(outcomes)}
    assert {"returned", "cancelled"} < {outcome for _, outcome in said}
    raised = {(number, outcome) for number, outcome in said if outcome.startswith("raised")}
    assert raised
    assert raised == {(number, f"raised {number}") for number, _ in raised}
    load = workers.load()
    assert load == Load(running=0, waiting=0, limit=limit, threads=load.threads)
    assert threading.active_count() == threads_before + load.threads
    assert load.threads <= 2
    workers.close()
    assert threading.active_count() == threads_before


async def test_calls_that_wait_for_others_do_not_stand_in_the_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notebook_rpc.services.workers.YOUNG", 3600.0)
    workers = Workers(limit=12, spare=0)
    gate = threading.Event()
    async with trio.open_nursery() as nursery:
        try:
            for _ in range(4):
                nursery.start_soon(workers.run, gate.wait)
            for _ in range(5):
                nursery.start_soon(partial(workers.run, gate.wait, waits=True))
            await until(lambda: workers.load() == Load(7, waiting=2, limit=12, threads=7))
        finally:
            gate.set()
    workers.close()


async def test_who_closes_too_soon_takes_no_outcome_away() -> None:
    workers = Workers(limit=4, spare=4)
    gate = threading.Event()
    before = threading.active_count()
    outcomes: list[object] = []

    async def call() -> None:
        outcomes.append(await workers.run(gate.wait))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            workers.close()
            gate.set()
    assert outcomes == [True] * 4
    assert threading.active_count() == before
    assert await workers.run(lambda: "and works all the same") == "and works all the same"
    assert threading.active_count() == before


# --- On the event loop ------------------------------------------------------------------------


def never() -> None:
    raise AssertionError("it was brief")


async def test_what_is_brief_runs_on_the_event_loop_with_the_callers_context(
    workers: Workers,
) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("the caller's")

    def work() -> tuple[int, str]:
        seen = variable.get()
        variable.set("the work's")
        return threading.get_ident(), seen

    assert await workers.run_here(work, never) == (threading.get_ident(), "the caller's")
    assert variable.get() == "the caller's"
    assert workers.load() == Load(running=0, waiting=0, limit=3, threads=0)


async def test_an_error_of_what_is_brief_is_its_own(workers: Workers) -> None:
    def work() -> None:
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        await workers.run_here(work, never)
    assert await workers.run_here(lambda: 42, never) == 42


async def test_what_is_not_brief_is_interrupted(workers: Workers) -> None:
    work = Interruptible(needed=2)
    began = trio.current_time()
    with pytest.raises(Overdue) as caught:
        await workers.run_here(work, work.interrupt)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert trio.current_time() - began > TICK
    assert await workers.run_here(lambda: 42, never) == 42


@pytest.mark.parametrize("how", ["run", "run_beyond"])
async def test_nothing_runs_here_while_a_thread_computes(workers: Workers, how: str) -> None:
    slow = Interruptible(result="done")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(getattr(workers, how), slow)
        await began(slow)
        with pytest.raises(NotHere):
            await workers.run_here(never, never)
        slow.interrupt()
    assert await workers.run_here(lambda: 42, never) == 42


async def test_nor_while_one_stands_in_the_line(workers: Workers) -> None:
    held = [Interruptible(result="done") for _ in range(TOGETHER + 1)]
    async with trio.open_nursery() as nursery:
        for each in held:
            nursery.start_soon(workers.run, each)
        await began(held[0])
        for each in held[:-1]:
            each.interrupt()
        with pytest.raises(NotHere) as caught:
            await workers.run_here(never, never)
        assert not caught.value.holds
        held[-1].interrupt()


@pytest.mark.parametrize(("waits", "holds"), [(True, True), (False, False)])
async def test_threads_that_wait_for_a_server_or_hold_nothing_do_not_matter(
    workers: Workers, *, waits: bool, holds: bool
) -> None:
    """Else brief calls that were once sent to threads would send each other there for ever."""
    slow = Interruptible(result="done")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(workers.run, slow, waits=waits, holds=holds))
        await began(slow)
        assert await workers.run_here(lambda: 42, never) == 42
        slow.interrupt()
    await workers.run(lambda: None)
    assert await workers.run_here(lambda: 42, never) == 42


async def test_a_thread_that_begins_meanwhile_sends_those_who_wait_elsewhere(
    workers: Workers,
) -> None:
    slow = Interruptible(result="done")
    refused = []

    async def call() -> None:
        try:
            await workers.run_here(never, never)
        except NotHere:
            refused.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run, slow)
        for _ in range(3):
            nursery.start_soon(call)
        await began(slow)
        slow.interrupt()
    assert len(refused) == 3


async def test_beyond_the_limit_of_those_who_wait_nobody_waits_to_run_here() -> None:
    workers = Workers(limit=1, spare=1, max_waiting=2)
    answers = []

    async def call() -> None:
        with suppress(Busy):
            answers.append(await workers.run_here(lambda: 42, never))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(call)
    assert answers == [42, 42]
    workers.close()


async def test_nothing_runs_here_when_the_threads_are_closed(workers: Workers) -> None:
    workers.close()
    with pytest.raises(NotHere):
        await workers.run_here(never, never)
