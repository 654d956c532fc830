"""Calls from threads to the event loop. Real threads, and bells that count or that let a thread in
at the worst moment."""

from __future__ import annotations

import gc
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from notebook_rpc.services.doorbell import Doorbell, _EventFd, _SocketPair
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import FrameType

    from notebook_rpc.services.doorbell import _Bell

    MakeBell = Callable[[], _Bell]

linux = pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")


@pytest.fixture(
    params=[
        pytest.param(
            _EventFd,
            marks=pytest.mark.skipif(not hasattr(os, "eventfd"), reason="Linux alone has it"),
        ),
        _SocketPair,
    ]
)
def make(request: pytest.FixtureRequest) -> MakeBell:
    made: MakeBell = request.param
    return made


class Watched:
    """A bell that counts its rings, and does *meanwhile* once it has been silenced."""

    def __init__(self, bell: _Bell, meanwhile: Callable[[], None]) -> None:
        self._bell, self._meanwhile = bell, meanwhile
        self.rings = self.silenced = 0

    def fileno(self) -> int:
        return self._bell.fileno()

    def ring(self) -> None:
        self.rings += 1
        self._bell.ring()

    def silence(self) -> None:
        self.silenced += 1
        self._bell.silence()
        self._meanwhile()

    def wake(self) -> None:
        """As if something else had made it readable, and nobody had rung."""
        self._bell.ring()

    def close(self) -> None:
        self._bell.close()


def in_a_thread(work: Callable[[], None]) -> None:
    """Have it done while the event loop stands still."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


async def heard_one(doorbell: Doorbell) -> None:
    heard = trio.Event()
    in_a_thread(partial(doorbell.leave, heard.set))
    with trio.fail_after(5):
        await heard.wait()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_all_calls_arrive_on_the_event_loop_and_each_threads_in_order(make: MakeBell) -> None:
    doorbell = Doorbell(make)
    doorbell.expect()
    heard: list[tuple[int, int]] = []
    where: set[int] = set()

    def call(thread: int, number: int) -> None:
        where.add(threading.get_ident())
        heard.append((thread, number))

    def ring(thread: int) -> None:
        for number in range(2000):
            doorbell.leave(partial(call, thread, number))

    threads = [threading.Thread(target=ring, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    await until(lambda: len(heard) == 8000)
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [n for thread, n in heard if thread == number] == list(range(2000))
    assert where == {threading.get_ident()}
    doorbell.close()


async def test_one_ring_is_enough_for_all_that_is_left_before_it_is_heard(make: MakeBell) -> None:
    bell = Watched(make(), lambda: None)
    doorbell = Doorbell(lambda: bell)
    doorbell.expect()
    heard: list[int] = []

    def leave() -> None:
        for number in range(1000):
            doorbell.leave(partial(heard.append, number))

    threads = [threading.Thread(target=leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()  # the event loop is busy meanwhile
    await until(lambda: len(heard) == 4000)
    assert bell.rings == 1
    await trio.testing.wait_all_tasks_blocked()
    assert bell.silenced == 1
    await heard_one(doorbell)
    assert bell.rings == 2
    doorbell.close()


async def test_what_is_left_between_silence_and_look_is_heard(make: MakeBell) -> None:
    heard: list[str] = []

    def meanwhile() -> None:
        if bell.silenced == 1:
            in_a_thread(lambda: doorbell.leave(lambda: heard.append("second")))

    bell = Watched(make(), meanwhile)
    doorbell = Doorbell(lambda: bell)
    doorbell.expect()
    in_a_thread(lambda: doorbell.leave(lambda: heard.append("first")))
    await until(lambda: len(heard) == 2)
    assert heard == ["first", "second"]
    doorbell.close()


async def test_what_is_left_during_a_look_is_heard(make: MakeBell) -> None:
    doorbell = Doorbell(make)
    doorbell.expect()
    heard: list[int] = []

    def call(number: int) -> None:
        heard.append(number)
        if number < 5:
            in_a_thread(lambda: doorbell.leave(partial(call, number + 1)))

    in_a_thread(lambda: doorbell.leave(partial(call, 0)))
    await until(lambda: len(heard) == 6)
    assert heard == list(range(6))
    doorbell.close()


async def test_calls_that_leave_calls_do_not_keep_others_from_the_event_loop() -> None:
    doorbell = Doorbell()
    doorbell.expect()
    stopped = False
    calls = 0

    def again() -> None:
        nonlocal calls
        calls += 1
        assert calls < 10_000, "nobody else had a turn"
        if not stopped:
            doorbell.leave(again)

    doorbell.leave(again)
    await until(lambda: calls > 10)
    stopped = True
    await trio.testing.wait_all_tasks_blocked()
    doorbell.close()


async def test_it_may_be_woken_for_nothing(make: MakeBell) -> None:
    bell = Watched(make(), lambda: None)
    doorbell = Doorbell(lambda: bell)
    doorbell.expect()
    bell.wake()
    await until(lambda: bell.silenced == 1)
    await heard_one(doorbell)
    doorbell.close()


async def test_it_may_find_no_ring_when_it_has_been_woken(make: MakeBell) -> None:
    def meanwhile() -> None:
        if bell.silenced == 1:
            bell.silence()  # as if what woke it had gone: there is nothing to be read

    bell = Watched(make(), meanwhile)
    doorbell = Doorbell(lambda: bell)
    doorbell.expect()
    await heard_one(doorbell)
    assert bell.silenced == 2
    await heard_one(doorbell)
    doorbell.close()


def test_it_serves_one_run_after_another(make: MakeBell) -> None:
    made: list[_Bell] = []

    def one_more() -> _Bell:
        made.append(make())
        return made[-1]

    doorbell = Doorbell(one_more)

    async def run() -> None:
        for _ in range(2):
            doorbell.expect()
            await heard_one(doorbell)

    for _ in range(3):
        trio.run(run)
    assert len(made) == 3
    doorbell.close()


@linux
def test_the_end_of_a_run_frees_its_descriptors(make: MakeBell) -> None:
    doorbell = Doorbell(make)

    async def run() -> None:
        doorbell.expect()
        await heard_one(doorbell)

    trio.run(run)
    gc.collect()
    before = descriptors()
    for _ in range(5):
        trio.run(run)
    assert descriptors() == before
    doorbell.close()


@linux
async def test_closed_it_frees_its_descriptors_and_may_be_expected_again(make: MakeBell) -> None:
    doorbell = Doorbell(make)
    gc.collect()
    before = descriptors()
    for _ in range(3):
        doorbell.expect()
        assert descriptors() > before
        await heard_one(doorbell)
        doorbell.close()
        await trio.testing.wait_all_tasks_blocked()
        assert descriptors() == before
    doorbell.close()  # once more does no harm


@linux
async def test_closed_before_its_task_began_it_may_be_expected_again(make: MakeBell) -> None:
    doorbell = Doorbell(make)
    gc.collect()
    before = descriptors()
    doorbell.expect()
    doorbell.close()
    doorbell.expect()
    await heard_one(doorbell)  # the task of the first has ended by now
    with_one = descriptors()
    doorbell.expect()
    assert descriptors() == with_one
    doorbell.close()
    await trio.testing.wait_all_tasks_blocked()
    assert descriptors() == before


async def test_a_ring_that_was_not_heard_when_it_was_closed_is_not_counted_on(
    make: MakeBell,
) -> None:
    doorbell = Doorbell(make)
    doorbell.expect()
    in_a_thread(lambda: doorbell.leave(lambda: None))
    doorbell.close()
    doorbell.expect()
    await heard_one(doorbell)
    doorbell.close()


@linux
def test_expected_too_late_it_says_so_and_serves_the_next_run(make: MakeBell) -> None:
    doorbell = Doorbell(make)
    told: list[RuntimeError] = []
    words: AsyncIterator[None]

    async def last_words() -> AsyncIterator[None]:
        try:
            yield
        finally:  # when trio has no system tasks any more
            try:
                doorbell.expect()
            except RuntimeError as exc:
                told.append(exc)

    async def leave_it_open() -> None:
        nonlocal words
        words = last_words()
        await anext(words)

    async def run() -> None:
        doorbell.expect()
        await heard_one(doorbell)

    trio.run(run)
    before = descriptors()
    trio.run(leave_it_open)
    assert len(told) == 1
    assert descriptors() == before
    trio.run(run)
    doorbell.close()


def held_after_its_first_line(
    function: Callable[..., None], held: threading.Event, go_on: threading.Event
) -> Callable[[FrameType, str, object], Any]:
    """A tracer that holds the thread it is set in where another may have its turn."""
    lines = 0

    def inside(_frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line"
        if lines < 2:
            return inside
        sys.settrace(None)
        held.set()
        go_on.wait()
        return None

    def trace(frame: FrameType, _event: str, _: object) -> Any:
        return inside if frame.f_code is function.__code__ else None

    return trace


@pytest.mark.parametrize("closes", [True, False])
def test_a_thread_may_be_about_to_ring_when_all_is_over(make: MakeBell, closes: bool) -> None:
    """Another's ring was heard after this thread had left its call, and both were found. The
    thread must not fail then, nor ring a bell that is gone: it may be a worker, to be used again.
    """
    doorbell = Doorbell(make)
    heard: list[str] = []
    errors: list[Exception] = []
    held, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        sys.settrace(held_after_its_first_line(Doorbell.leave, held, go_on))
        try:
            doorbell.leave(partial(heard.append, "slow"))
        except Exception as exc:  # noqa: BLE001  # whatever it is, the test says so
            errors.append(exc)
        finally:
            sys.settrace(None)

    async def run() -> None:
        doorbell.expect()
        thread.start()
        assert held.wait(5)
        in_a_thread(lambda: doorbell.leave(partial(heard.append, "other")))
        await until(lambda: len(heard) == 2)
        if closes:
            doorbell.close()

    async def run_again() -> None:
        doorbell.expect()
        await heard_one(doorbell)

    thread = threading.Thread(target=slow)
    try:
        trio.run(run)
    finally:
        go_on.set()
        thread.join()
    assert heard == ["slow", "other"]
    assert errors == []
    trio.run(run_again)
    doorbell.close()
