"""Calls on the event loop: in order, a few at a time, each with one outcome."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from notebook_rpc.services import here as module
from notebook_rpc.services.here import SLICE, Here, NotHere

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def here() -> Iterator[Here]:
    here = Here(lambda: True)
    yield here
    here.close()


def never() -> None:
    raise AssertionError("it was brief")


class Rounds(trio.abc.Instrument):
    """Counts how often the event loop has asked what is ready."""

    count = 0

    def after_io_wait(self, _: float) -> None:
        self.count += 1


@pytest.fixture
async def rounds() -> Rounds:
    rounds = Rounds()
    trio.lowlevel.add_instrument(rounds)
    return rounds


class Clock:
    """In the place of ``time``: each call takes *seconds*."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += self._seconds


async def all_at_once(here: Here, rounds: Rounds, calls: int, clock: Clock) -> list[int]:
    """In which rounds so many calls are made that were asked for in one; it comes first."""
    made: list[int] = []

    def work() -> None:
        made.append(rounds.count)
        clock.work()

    async def ask() -> None:
        made.append(rounds.count)
        made[0] = rounds.count
        await here.run(work, never)

    async with trio.open_nursery() as nursery:
        for _ in range(calls):
            nursery.start_soon(ask)
    return [made[0], *made[-calls:]]


@pytest.mark.parametrize(("together", "share"), [(6, 0.1), (1, 1.1), (2, 0.6)])
async def test_few_are_made_together_and_then_whatever_is_ready_has_its_turn(
    here: Here, rounds: Rounds, monkeypatch: pytest.MonkeyPatch, together: int, share: float
) -> None:
    """As many as a slice of time has room for."""
    clock = Clock(share * SLICE)
    monkeypatch.setattr(module, "time", clock)
    asked, *made = await all_at_once(here, rounds, 6, clock)
    assert made == [asked + 1 + number // together for number in range(6)]


async def test_they_are_made_in_order_of_arrival(here: Here) -> None:
    made: list[int] = []
    expected = []

    async def ask(number: int) -> None:
        expected.append(number)  # tasks begin in any order
        await here.run(lambda: made.append(number), never)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert made == expected


async def test_who_has_been_cancelled_before_is_not_called(here: Here) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await here.run(never, never)
    assert scope.cancelled_caught
    assert await here.run(lambda: 42, never) == 42


async def test_who_leaves_while_waiting_is_not_called_and_the_others_are(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE", 0)
    made: list[int] = []
    scopes = [trio.CancelScope() for _ in range(6)]
    order: list[int] = []

    async def ask(number: int) -> None:
        order.append(number)
        with scopes[number]:
            await here.run(lambda: called(number), never)

    def called(number: int) -> None:
        made.append(number)
        if len(made) == 1:
            for each in (order[1], order[3], order[5]):  # the next to lead has been woken already
                scopes[each].cancel()

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(ask, number)
    assert made in ([order[0], order[2], order[4]], [order[0], order[1], order[2], order[4]])
    assert await here.run(lambda: 42, never) == 42


async def test_who_may_not_be_made_now_is_told_so_and_the_next_is_tried() -> None:
    allowed = iter([True, False, True])
    here = Here(lambda: next(allowed))
    outcomes: list[object] = []

    async def ask() -> None:
        try:
            outcomes.append(await here.run(lambda: 42, never))
        except NotHere:
            outcomes.append(NotHere)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert sorted(map(str, outcomes)) == sorted(map(str, [42, 42, NotHere]))
    here.close()


async def test_an_error_is_its_callers_alone(here: Here) -> None:
    failed = []

    def fail() -> None:
        raise LookupError("its own")

    async def ask(number: int) -> None:
        try:
            await here.run(fail if number % 2 else lambda: None, never)
        except LookupError:
            failed.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(ask, number)
    assert sorted(failed) == [1, 3, 5, 7]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_each_call_has_one_outcome(
    here: Here, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)  # noqa: S311
    monkeypatch.setattr(module, "SLICE", 0.00005)
    made: list[int] = []
    outcomes: dict[int, str] = {}

    def work(number: int) -> int:
        made.append(number)
        if number % 7 == 0:
            raise LookupError
        return number

    async def ask(number: int) -> None:
        for _ in range(chance.randrange(4)):
            await trio.lowlevel.checkpoint()
        with trio.move_on_after(chance.choice([0, 0.0001, 1])):
            try:
                assert await here.run(lambda: work(number), never) == number
                outcomes[number] = "value"
            except LookupError:
                outcomes[number] = "error"
            return
        outcomes[number] = "cancelled"

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(ask, number)
        assert await here.run(lambda: 42, never) == 42
    assert len(made) == len(set(made))
    for number, outcome in outcomes.items():
        assert (outcome == "cancelled") == (number not in made)
        assert outcome in ("cancelled", "error" if number % 7 == 0 else "value")
    assert len(outcomes) == 300
