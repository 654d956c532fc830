"""Work that blocks is cancelled when its client leaves; work that does not costs nothing."""

from __future__ import annotations

import math
import types
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
from trio.testing import MockClock, Sequencer, memory_stream_pair, wait_all_tasks_blocked

from notebook_rpc.transport.inbox import WATCHED_BYTES, Inbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator

    from trio.testing import MemoryReceiveStream, MemorySendStream

Ends = tuple["trio.StapledStream[MemorySendStream, MemoryReceiveStream]", Inbox, trio.CancelScope]


@asynccontextmanager
async def an_inbox() -> AsyncIterator[Ends]:
    """A client's stream, the inbox at its other end, and the scope that work runs in."""
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            yield client, Inbox(server, nursery, scope), scope
        nursery.cancel_scope.cancel()


async def blocks_once() -> None:
    await trio.lowlevel.checkpoint()


async def blocks_for_ever() -> None:
    await trio.sleep_forever()


async def test_bytes_wait_in_the_buffer_until_they_are_taken() -> None:
    async with an_inbox() as (client, inbox, _):
        await client.send_all(b"abc")
        await inbox.receive()
        assert (inbox.take(2), inbox.ended) == (b"ab", False)
        await client.aclose()
        await inbox.receive()
        assert (inbox.take(1), inbox.ended) == (b"c", True)


async def test_work_that_does_not_block_needs_no_second_task() -> None:
    async def work() -> int:
        return 7

    async with an_inbox() as (_, inbox, _):
        tasks = trio.lowlevel.current_statistics().tasks_living
        assert await inbox.attend(work()) == 7
        assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_its_exception_is_its_own_in_both_steps() -> None:
    async def fails(blocks: bool) -> None:
        if blocks:
            await trio.lowlevel.checkpoint()
        raise LookupError

    async with an_inbox() as (_, inbox, _):
        for blocks in (False, True):
            with pytest.raises(LookupError):
                await inbox.attend(fails(blocks))


@types.coroutine
def a_trap_of_another_framework() -> Generator[object, object, None]:
    yield "not Trio's"


async def test_what_the_run_loop_throws_reaches_the_work() -> None:
    async def work() -> str:
        await trio.lowlevel.checkpoint()
        try:
            await a_trap_of_another_framework()
        except TypeError as exc:
            return str(exc)
        return "nothing was thrown"

    async with an_inbox() as (_, inbox, _):
        assert "unrecognized yield message" in await inbox.attend(work())


async def within_scopes(blocked: Callable[[], Awaitable[None]]) -> None:
    with trio.CancelScope(), trio.move_on_after(100):
        await blocked()


async def within_a_nursery(blocked: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blocked)


async def within_a_nested_nursery(blocked: Callable[[], Awaitable[None]]) -> None:
    with trio.CancelScope():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await blocked()


async def after_a_checkpoint(blocked: Callable[[], Awaitable[None]]) -> None:
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()
    await blocked()


SHAPES = [within_scopes, within_a_nursery, within_a_nested_nursery, after_a_checkpoint]


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_client_that_leaves_cancels_the_work(
    shape: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
) -> None:
    log: list[str] = []

    async def blocked() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("unwound")

    async def work() -> None:
        await shape(blocked)
        log.append("not cancelled")

    async with an_inbox() as (client, inbox, scope), trio.open_nursery() as leaving:
        leaving.start_soon(client.aclose)
        await inbox.attend(work())
    assert scope.cancelled_caught
    assert log == ["unwound"]


@pytest.mark.parametrize("shape", SHAPES)
async def test_work_in_any_shape_goes_on_where_it_was(
    shape: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
) -> None:
    ready = trio.Event()

    async def work() -> str:
        with trio.CancelScope() as own:

            async def blocked() -> None:
                await ready.wait()
                own.cancel()

            await shape(blocked)
        return "done"

    async with an_inbox() as (_, inbox, _), trio.open_nursery() as other:
        other.start_soon(wake_when_blocked, ready)
        assert await inbox.attend(work()) == "done"


async def wake_when_blocked(event: trio.Event) -> None:
    await wait_all_tasks_blocked()
    event.set()


async def test_a_timeout_of_the_work_is_its_own(autojump_clock: MockClock) -> None:
    async def work() -> str:
        with trio.move_on_after(5):
            await trio.sleep_forever()
        return "timed out"

    async with an_inbox() as (_, inbox, scope):
        scope.deadline = 1  # of an earlier phase; lifted for the work
        assert await inbox.attend(work()) == "timed out"
        assert scope.deadline == math.inf
        assert autojump_clock.current_time() == 5


async def test_a_shielded_section_ends_before_the_cancellation_is_seen() -> None:
    sequence, log = Sequencer(), []

    async def work() -> None:
        with trio.CancelScope(shield=True):
            async with sequence(0):
                log.append("shielded")
            async with sequence(2):
                log.append("still shielded")
        await trio.lowlevel.checkpoint()
        log.append("not cancelled")

    async def leave() -> None:
        async with sequence(1):
            await client.aclose()
            await wait_all_tasks_blocked()

    async with an_inbox() as (client, inbox, scope), trio.open_nursery() as leaving:
        leaving.start_soon(leave)
        await inbox.attend(work())
    assert scope.cancelled_caught
    assert log == ["shielded", "still shielded"]


async def test_what_arrives_during_the_work_is_kept_in_order_and_watching_goes_on() -> None:
    async with an_inbox() as (client, inbox, scope):

        async def work() -> None:
            await client.send_all(b"one")
            await wait_all_tasks_blocked()
            await client.send_all(b"two")
            await wait_all_tasks_blocked()
            await client.aclose()
            await trio.sleep_forever()

        await inbox.attend(work())
    assert scope.cancelled_caught
    assert inbox.buffer == b"onetwo"


async def test_a_watcher_left_over_reads_for_whoever_comes_next() -> None:
    async with an_inbox() as (client, inbox, scope):
        for number in range(3):
            await inbox.attend(blocks_once())
            async with trio.open_nursery() as sending:
                sending.start_soon(client.send_all, b"%d" % number)
                await inbox.receive()
        assert inbox.take(3) == b"012"
        await inbox.attend(blocks_once())
        await client.aclose()
        await wait_all_tasks_blocked()
        assert inbox.ended
        assert not scope.cancel_called  # nothing was running


async def test_watching_stops_at_a_bound_so_that_a_client_cannot_fill_the_memory() -> None:
    async with an_inbox() as (client, inbox, _):

        async def work() -> None:
            for _ in range(4):
                await client.send_all(bytes(WATCHED_BYTES))
                await wait_all_tasks_blocked()

        await inbox.attend(work())
        assert len(inbox.buffer) == WATCHED_BYTES


class Unread:
    """A stream that is full of what nobody will read now."""

    def __init__(self, leaves_at: float = math.inf) -> None:
        self._leaves_at = leaves_at
        self.looks = 0

    async def receive_some(self, _: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(WATCHED_BYTES)

    def hung_up(self) -> bool:
        self.looks += 1
        return trio.current_time() >= self._leaves_at


@asynccontextmanager
async def full(stream: Unread) -> AsyncIterator[tuple[Inbox, trio.CancelScope]]:
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            yield Inbox(cast("trio.abc.ReceiveStream", stream), nursery, scope), scope
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("leaves_at", "late", "looks"), [(0.08, 0.1, 3), (600, 1, 606)])
async def test_a_client_that_leaves_behind_what_is_not_read_is_noticed_all_the_same(
    autojump_clock: MockClock, leaves_at: float, late: float, looks: int
) -> None:
    stream = Unread(autojump_clock.current_time() + leaves_at)
    began = autojump_clock.current_time()
    async with full(stream) as (inbox, scope):
        await inbox.attend(blocks_for_ever())
    assert scope.cancelled_caught
    assert 0 <= autojump_clock.current_time() - began - leaves_at <= late
    assert stream.looks <= looks


async def test_who_reads_on_does_not_wait_for_the_next_look(autojump_clock: MockClock) -> None:
    async def a_minute() -> None:
        await trio.sleep(60)

    async with full(Unread()) as (inbox, _):
        await inbox.attend(a_minute())
        began = autojump_clock.current_time()
        inbox.take(WATCHED_BYTES)
        await inbox.receive()  # for the watcher, which reads no more
        await inbox.receive()
        assert autojump_clock.current_time() == began
        assert len(inbox.buffer) == WATCHED_BYTES


async def test_a_client_that_had_left_before_the_work_began_cancels_it_too() -> None:
    async with an_inbox() as (client, inbox, scope):
        await client.aclose()
        await inbox.receive()
        await inbox.attend(blocks_for_ever())
    assert scope.cancelled_caught
