"""The alarm for what is done on the event loop. The clock of its thread is wound by these tests."""

from __future__ import annotations

import logging
import queue
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from notebook_rpc.services import alarm as module
from notebook_rpc.services.alarm import IDLE, Alarm, Overdue

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 10.0  # seconds


class Clock:
    """Stands for ``time``: a look of the alarm's thread is taken when ``tick`` says so."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)  # the thread has looked, and sleeps until the next
        self._ticks: queue.SimpleQueue[None] = queue.SimpleQueue()

    def sleep(self, seconds: float) -> None:
        assert seconds == module.TICK
        self.asked.release()
        self._ticks.get()

    def tick(self) -> None:
        """One look, from its beginning to its end."""
        self.asked_for()
        self._ticks.put(None)

    def asked_for(self) -> None:
        assert self.asked.acquire(timeout=PATIENCE)

    def stop(self) -> None:
        for _ in range(2 * IDLE):
            self._ticks.put(None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def alarm(clock: Clock) -> Iterator[Alarm]:
    alarm = Alarm()
    yield alarm
    clock.stop()
    alarm.close()


def never() -> None:
    raise AssertionError("nobody was late")


def alarms() -> int:
    return sum(thread.name == "notebook-rpc-alarm" for thread in threading.enumerate())


class Late:
    """Work during which the alarm looks twice, or oftener, until it was interrupted."""

    def __init__(self, clock: Clock, interrupts: int = 1, *, fails: bool = True) -> None:
        self.left = interrupts
        self.looks = 0
        self._clock = clock
        self._fails = fails

    def __call__(self) -> str:
        while self.left > 0:
            self._clock.tick()
            self.looks += 1
            self._clock.asked_for()  # it has been done, and the next is wanted
            self._clock.asked.release()
        if self._fails:
            raise ConnectionError("interrupted")
        return "done all the same"

    def interrupt(self) -> None:
        self.left -= 1


def test_what_is_brief_gives_its_value_or_its_error(alarm: Alarm) -> None:
    def fail() -> None:
        raise LookupError("its own")

    assert alarm.around(lambda: 42, never) == 42
    with pytest.raises(LookupError, match="its own"):
        alarm.around(fail, never)


def test_whoever_is_there_at_two_looks_is_interrupted(alarm: Alarm, clock: Clock) -> None:
    late = Late(clock)
    with pytest.raises(Overdue) as caught:
        alarm.around(late, late.interrupt)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert late.looks == 2


def test_one_look_is_not_enough(alarm: Alarm, clock: Clock) -> None:
    def work() -> int:
        clock.tick()
        clock.asked_for()
        clock.asked.release()
        return 42

    for _ in range(5):  # each is another call
        assert alarm.around(work, never) == 42


@pytest.mark.parametrize("interrupts", [7, IDLE + 7])
def test_it_is_interrupted_until_it_stops(alarm: Alarm, clock: Clock, interrupts: int) -> None:
    late = Late(clock, interrupts)
    with pytest.raises(Overdue):
        alarm.around(late, late.interrupt)
    assert late.looks == interrupts + 1


def test_what_succeeds_all_the_same_is_overdue_too(alarm: Alarm, clock: Clock) -> None:
    """An interrupt that came too late for it may meet whatever is called next."""
    late = Late(clock, fails=False)
    with pytest.raises(Overdue) as caught:
        alarm.around(late, late.interrupt)
    assert caught.value.__cause__ is None


def test_who_comes_after_one_that_was_late_is_not(alarm: Alarm, clock: Clock) -> None:
    late = Late(clock)
    with pytest.raises(Overdue):
        alarm.around(late, late.interrupt)
    clock.tick()
    clock.tick()
    assert alarm.around(lambda: 42, never) == 42


def test_whoever_is_stopped_from_outside_is_not_overdue(alarm: Alarm, clock: Clock) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    interrupts: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        alarm.around(stopped, lambda: interrupts.append(True))
    clock.tick()
    clock.tick()
    clock.asked_for()  # it has been done, and the next is wanted
    clock.asked.release()
    assert interrupts == []


def test_an_interrupt_that_fails_is_logged_and_the_next_is_tried(
    alarm: Alarm, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    late = Late(clock, interrupts=2)

    def interrupt() -> None:
        late.interrupt()
        if late.left:
            raise ZeroDivisionError("a bug in the driver")

    with caplog.at_level(logging.ERROR), pytest.raises(Overdue):
        alarm.around(late, interrupt)
    assert "an interrupt failed" in caplog.text
    assert "a bug in the driver" in caplog.text
    assert late.looks == 3


def test_it_sleeps_when_nobody_has_come_for_a_while_and_wakes_for_the_next(
    alarm: Alarm, clock: Clock
) -> None:
    for _ in range(2):
        alarm.around(lambda: None, never)
        for _ in range(IDLE + 1):  # the first has seen that somebody was there
            clock.tick()
        assert not clock.asked.acquire(timeout=0.05)  # it does not look any more
        late = Late(clock)
        with pytest.raises(Overdue):
            alarm.around(late, late.interrupt)


def test_its_thread_begins_with_the_first_call_and_ends_with_it(clock: Clock) -> None:
    before = alarms()
    alarm = Alarm()
    assert alarms() == before
    alarm.around(lambda: None, never)
    assert alarms() == before + 1
    clock.stop()
    alarm.close()
    assert alarms() == before


def test_it_can_be_closed_while_it_sleeps(alarm: Alarm, clock: Clock) -> None:
    alarm.around(lambda: None, never)
    for _ in range(IDLE + 1):
        clock.tick()
    assert not clock.asked.acquire(timeout=0.05)
    closing = threading.Thread(target=alarm.close, daemon=True)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()


def test_it_can_be_closed_without_having_been_used() -> None:
    Alarm().close()


def test_without_a_thread_nothing_is_called(alarm: Alarm, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            alarm.around(never, never)
    assert alarm.around(lambda: 42, never) == 42


def test_nobody_is_interrupted_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks as fast as it can, while calls come and go, and some do not go by themselves."""
    monkeypatch.setattr(module, "TICK", 0)
    alarm = Alarm()
    running = 0
    interrupted: list[tuple[int, int]] = []

    def interrupt(number: int, stop: threading.Event) -> None:
        interrupted.append((running, number))
        stop.set()

    def work(number: int, stop: threading.Event) -> None:
        if number % 50 == 0:
            stop.wait(PATIENCE)

    overdue = []
    for number in range(10_000):
        running, stop = number, threading.Event()
        try:
            alarm.around(partial(work, number, stop), partial(interrupt, number, stop))
        except Overdue:
            overdue.append(number)
    alarm.close()
    assert {late for late in overdue if late % 50 == 0} == set(range(0, 10_000, 50))
    assert {late for _, late in interrupted} == set(overdue)
    assert all(one == another for one, another in interrupted)
