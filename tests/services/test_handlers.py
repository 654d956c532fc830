"""Threads of handlers. These tests use real threads and real time, and wait for events only."""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from notebook_rpc.errors import Busy, HandlerTimeout
from notebook_rpc.services.handlers import Handlers, Steps, Stopped
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.services.handlers import Ask

SHORT = 0.1  # seconds


class Held:
    """Work that goes on until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self, _: Ask) -> str:
        self.began.set()
        assert self.go.wait(10)
        return "done"


async def test_the_value_and_the_error_are_the_works_own() -> None:
    handlers = Handlers(1, 10)
    assert await handlers.run(lambda _: 42, "f") == 42
    with pytest.raises(KeyError, match="x"):
        await handlers.run(lambda _: dict[str, int]()["x"], "f")
    assert handlers.running == 0


async def test_it_runs_on_a_thread_that_has_its_name_in_the_callers_context() -> None:
    word: contextvars.ContextVar[str] = contextvars.ContextVar("word")
    word.set("mine")

    def work(_: Ask) -> tuple[str, bool]:
        found = word.get(), threading.current_thread() is threading.main_thread()
        word.set("the thread's")
        return found

    assert await Handlers(1, 10).run(work, "f") == ("mine", False)
    assert word.get() == "mine"


async def test_what_would_end_a_program_is_an_error_of_the_handler() -> None:
    def work(_: Ask) -> None:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match=r"^f raised SystemExit$") as raised:
        await Handlers(1, 10).run(work, "f")
    assert isinstance(raised.value.__cause__, SystemExit)


async def test_it_can_have_things_done_on_the_event_loop() -> None:
    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        if number == 3:
            raise KeyError(number)
        return 2 * number

    def work(ask: Ask) -> list[object]:
        try:
            ask(lambda: double(3))
        except KeyError as exc:
            return [ask(lambda: double(1)), ask(lambda: double(2)), exc.args]
        return []

    assert await Handlers(1, 10).run(work, "f") == [2, 4, (3,)]


async def test_to_cancel_the_caller_cancels_what_it_has_done_and_stops_the_handler() -> None:
    handlers = Handlers(1, 10)
    asked, stopped = trio.Event(), threading.Event()
    cancelled = []

    async def forever() -> None:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(True)

    def work(ask: Ask) -> None:
        try:
            ask(forever)
        except Stopped:
            stopped.set()
            raise

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handlers.run, work, "f")
            await asked.wait()
            nursery.cancel_scope.cancel()
    assert cancelled == [True]
    assert await trio.to_thread.run_sync(stopped.wait, 10)
    await until(lambda: handlers.running == 0)


async def test_one_that_takes_too_long_is_left_behind_and_counts_until_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    handlers = Handlers(1, SHORT)
    held = Held()
    with pytest.raises(HandlerTimeout, match="f took longer than it may"):
        await handlers.run(held, "f")
    assert (handlers.running, handlers.left_behind) == (1, 1)
    with pytest.raises(Busy, match="all 1 handlers"):
        await handlers.run(lambda _: None, "g")
    held.go.set()
    await until(lambda: handlers.running == 0)
    assert await handlers.run(lambda _: 1, "g") == 1
    said = [record.getMessage() for record in caplog.records]
    assert "f still runs after 0.1 seconds; it keeps its thread" in said
    assert any(line.startswith("f, left behind, has ended after") for line in said)


async def test_one_that_was_left_behind_is_answered_nothing_and_its_failure_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handlers = Handlers(1, SHORT)
    held = Held()
    raised: list[type[BaseException]] = []

    def work(ask: Ask) -> None:
        held(ask)
        for _ in range(2):
            try:
                ask(trio.lowlevel.checkpoint)
            except BaseException as exc:  # noqa: BLE001  # what tests are for
                raised.append(type(exc))
        raise KeyError("its own")

    with pytest.raises(HandlerTimeout):
        await handlers.run(work, "f")
    held.go.set()
    await until(lambda: handlers.running == 0)
    assert raised == [Stopped, Stopped]
    (failure,) = [record for record in caplog.records if record.exc_info]
    assert (failure.getMessage(), failure.levelname) == ("it failed", "WARNING")


async def test_the_wait_for_a_thread_is_in_order_and_bounded() -> None:
    handlers = Handlers(1, 10, max_waiting=2)
    held = Held()
    order: list[int] = []

    async def run(number: int) -> None:
        await handlers.run(lambda _: order.append(number), "f")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handlers.run, held, "f")
            await trio.testing.wait_all_tasks_blocked()
            for number in range(2):
                nursery.start_soon(run, number)
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Busy, match="2 requests wait"):
                await run(2)
            held.go.set()
    assert order == [0, 1]


async def test_a_conversation_may_last_but_waits_no_longer_for_a_thread() -> None:
    handlers = Handlers(1, SHORT)
    held = Held()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: handlers.run(held, "f", seconds=float("inf")))
        await trio.to_thread.run_sync(held.began.wait, 10)
        with pytest.raises(Busy):
            await handlers.run(lambda _: None, "g", seconds=float("inf"))
        assert handlers.left_behind == 0
        held.go.set()


async def test_who_closes_hears_what_still_runs(caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers(2, SHORT)
    held = Held()
    with pytest.raises(HandlerTimeout):
        await handlers.run(held, "f")
    caplog.clear()
    handlers.close()
    assert [record.getMessage()[:21] for record in caplog.records] == ["f still runs, since 0"]
    held.go.set()
    await until(lambda: handlers.running == 0)


def test_a_handler_may_outlive_the_event_loop() -> None:
    held = Held()
    refused: list[type[BaseException]] = []
    ended = threading.Event()

    def work(ask: Ask) -> None:
        held(ask)
        try:
            ask(trio.lowlevel.checkpoint)
        except Stopped as exc:
            refused.append(type(exc))
        finally:
            ended.set()

    async def main() -> None:
        with pytest.raises(HandlerTimeout):
            await Handlers(1, SHORT).run(work, "f")

    trio.run(main)
    held.go.set()
    assert ended.wait(10)
    assert refused == [Stopped]


# Iterators, one step after the other


def test_a_thread_that_comes_too_late_finds_it_closed() -> None:
    closed: list[str] = []

    def pieces() -> Iterator[str]:
        try:
            yield "a"
        finally:
            closed.append("once")

    steps = Handlers.steps(pieces(), str.encode)
    assert steps.next() == b"a"
    assert steps.leave()
    assert steps.next() is None
    assert closed == []
    steps.close()
    assert (steps.next(), closed) == (None, ["once"])


def test_who_leaves_as_a_step_ends_is_the_only_one_to_close() -> None:
    closed: list[str] = []

    def pieces() -> Iterator[str]:
        try:
            yield "a"
        finally:
            closed.append("once")

    class LeavesBehind:
        """A lock; as its second holder lets it go, somebody leaves."""

        def __init__(self) -> None:
            self._lock = threading.Lock()
            self.releases = 0
            self.is_theirs = False

        def __enter__(self) -> None:
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()
            self.releases += 1
            if self.releases == 2:
                self.is_theirs = steps.leave()

    steps = Steps(pieces(), str.encode)
    steps._lock = lock = LeavesBehind()  # type: ignore[assignment]  # noqa: SLF001  # the moment
    assert steps.next() == b"a"
    assert (lock.is_theirs, closed) == (True, [])
    steps.close()
    assert closed == ["once"]
