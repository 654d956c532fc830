"""What goes out on a WebSocket first, what waits, and what becomes of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notebook_rpc.transport.frames import PING, control, frame, message
from notebook_rpc.transport.http11 import Limits
from notebook_rpc.transport.outbox import ALLOWANCE, MAX_CONTROLS, Outbox, drop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notebook_rpc.transport.frames import Piece


class Plain(trio.abc.SendStream):
    """A stream with room for *room* bytes; whoever sends more waits for ``more``, or breaks."""

    def __init__(self, room: int = 0) -> None:
        self.sent = bytearray()
        self.room = room
        self.broken = False
        self._more = trio.Event()

    def more(self, room: int) -> None:
        self.room += room
        self._more.set()
        self._more = trio.Event()

    def break_it(self) -> None:
        self.broken = True
        self.more(0)

    def take(self, data: bytes | memoryview) -> int:
        if self.broken:
            raise trio.BrokenResourceError
        part = data[: self.room]
        self.room -= len(part)
        self.sent += part
        return len(part)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.room and not self.broken:
            await self._more.wait()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            await self.wait_send_all_might_not_block()
            view = view[self.take(view) :]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Gathering(Plain):
    """One that takes pieces, and some at once, as a socket does."""

    def gather_now(self, pieces: Sequence[Piece]) -> int:
        return self.take(b"".join(pieces))


STREAMS = pytest.mark.parametrize("kind", [Plain, Gathering])


@asynccontextmanager
async def writing(outbox: Outbox) -> AsyncIterator[trio.Nursery]:
    """A task writes out, as long as the block runs."""

    async def write() -> None:
        while not outbox.finished:
            await outbox.write_out()
            await outbox.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        yield nursery
        nursery.cancel_scope.cancel()


def text(content: str) -> bytes:
    return b"".join(message(content))


# Order


@STREAMS
async def test_messages_go_out_in_the_order_in_which_they_were_given(kind: type[Plain]) -> None:
    stream = kind(10_000)
    outbox = Outbox(stream, Limits())
    async with writing(outbox):
        await outbox.send(message("a"))
        outbox.post(message("b"))
        outbox.post(message("c"))
        await outbox.send(message("d"))
        outbox.post(message("e"))
        await wait_all_tasks_blocked()
    assert stream.sent == b"".join(map(text, "abcde"))


@STREAMS
async def test_also_when_each_has_to_wait(kind: type[Plain]) -> None:
    stream = kind(0)
    outbox = Outbox(stream, Limits())
    async with writing(outbox) as nursery:
        for letter in "abcdefgh":
            if letter in "bdg":
                outbox.post(message(letter))
            else:
                nursery.start_soon(outbox.send, message(letter))
            await wait_all_tasks_blocked()
        for _ in range(24):
            stream.more(1)
            await wait_all_tasks_blocked()
        assert stream.sent == b"".join(map(text, "abcdefgh"))


async def test_what_a_socket_takes_at_once_is_there_at_once() -> None:
    stream = Gathering(1000)
    outbox = Outbox(stream, Limits())
    outbox.post(message("a"))
    outbox.control(control(PING))
    await outbox.send(message("b"))  # no other task runs that could write it
    assert stream.sent == text("a") + control(PING) + text("b")


@STREAMS
async def test_a_control_frame_overtakes_messages_but_never_enters_a_frame(
    kind: type[Plain],
) -> None:
    stream = kind(5)
    outbox = Outbox(stream, Limits())
    async with writing(outbox):
        outbox.post(message("first" * 20))
        outbox.post(message("second"))
        await wait_all_tasks_blocked()
        outbox.control(control(PING, b"1"))
        outbox.control(control(PING, b"2"))
        stream.more(1000)
        await wait_all_tasks_blocked()
    pings = control(PING, b"1") + control(PING, b"2")
    assert stream.sent == text("first" * 20) + pings + text("second")


@STREAMS
async def test_control_frames_that_wait_are_bounded_and_the_last_are_kept(
    kind: type[Plain],
) -> None:
    stream = kind(1)
    outbox = Outbox(stream, Limits())
    async with writing(outbox):
        outbox.post(message("a"))
        await wait_all_tasks_blocked()
        for number in range(1000):
            outbox.control(control(PING, b"%d" % number))
        stream.more(10_000)
        await wait_all_tasks_blocked()
    kept = [control(PING, b"%d" % number) for number in range(1000 - MAX_CONTROLS, 1000)]
    assert stream.sent == text("a") + b"".join(kept)


@STREAMS
async def test_nothing_but_control_frames_enters_an_open_message(kind: type[Plain]) -> None:
    stream = kind(10_000)
    outbox = Outbox(stream, Limits())
    async with writing(outbox) as nursery:
        await outbox.open()
        await outbox.fragment(frame(2, [b"one"], finished=False))
        outbox.post(message("posted"))
        nursery.start_soon(outbox.send, message("sent"))
        await wait_all_tasks_blocked()
        outbox.control(control(PING))
        await outbox.fragment(frame(0, [b"two"], finished=False))
        await wait_all_tasks_blocked()
        assert stream.sent == b"\x02\x03one" + control(PING) + b"\x00\x03two"
        assert not outbox.at_rest
        await outbox.fragment(frame(0, []))
        outbox.end_message()
        await wait_all_tasks_blocked()
        assert outbox.at_rest
    assert stream.sent.endswith(b"\x80\x00" + text("posted") + text("sent"))


@STREAMS
async def test_two_open_messages_take_turns(kind: type[Plain]) -> None:
    stream = kind(10_000)
    outbox = Outbox(stream, Limits())

    async def send(letter: bytes) -> None:
        await outbox.open()
        for opcode in (2, 0, 0):
            await outbox.fragment(frame(opcode, [letter], finished=False))
            await wait_all_tasks_blocked()
        await outbox.fragment(frame(0, []))
        outbox.end_message()

    async with writing(outbox) as nursery:
        async with trio.open_nursery() as senders:
            senders.start_soon(send, b"a")
            senders.start_soon(send, b"b")
        nursery.cancel_scope.cancel()
    one = b"\x02\x01a\x00\x01a\x00\x01a\x80\x00"
    assert bytes(stream.sent) in (one + one.replace(b"a", b"b"), one.replace(b"a", b"b") + one)


async def test_many_sends_in_a_row_let_others_have_their_turn() -> None:
    outbox, turns = Outbox(Gathering(10_000), Limits()), 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(170):
            await outbox.send(message("a"))
        assert turns >= 5
        nursery.cancel_scope.cancel()


# Waiting, and not


@STREAMS
async def test_a_send_returns_when_all_of_it_was_taken(kind: type[Plain]) -> None:
    stream, done = kind(50), trio.Event()
    outbox = Outbox(stream, Limits())

    async def send() -> None:
        await outbox.send(message(bytes(100)))
        done.set()

    async with writing(outbox) as nursery:
        nursery.start_soon(send)
        stream.more(51)
        await wait_all_tasks_blocked()
        assert (len(stream.sent), done.is_set()) == (101, False)
        stream.more(1)
        await done.wait()


@STREAMS
async def test_one_that_is_cancelled_goes_out_whole_or_not_at_all(kind: type[Plain]) -> None:
    stream = kind(5)
    outbox = Outbox(stream, Limits())
    async with writing(outbox):
        async with trio.open_nursery() as senders:
            for letter in "ab":
                senders.start_soon(outbox.send, message(letter * 10))
                await wait_all_tasks_blocked()
            senders.cancel_scope.cancel()
        outbox.post(message("after"))
        stream.more(1000)
        await wait_all_tasks_blocked()
    assert stream.sent == text("a" * 10) + text("after")


@STREAMS
async def test_so_does_the_turn_of_a_message_in_fragments(kind: type[Plain]) -> None:
    stream = kind(5)
    outbox = Outbox(stream, Limits())
    async with writing(outbox):
        outbox.post(message("a" * 10))
        await wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await outbox.open()
        stream.more(1000)
        await wait_all_tasks_blocked()
        await outbox.send(message("after"))
    assert stream.sent == text("a" * 10) + text("after")


async def test_what_was_posted_and_waits_has_a_limit_in_bytes() -> None:
    outbox = Outbox(Plain(), Limits(backlog_bytes=3 * (12 + ALLOWANCE)))
    assert [outbox.post(message("0123456789")) for _ in range(4)] == [True, True, True, False]


async def test_but_one_message_may_be_as_large_as_it_likes() -> None:
    outbox = Outbox(Plain(), Limits(backlog_bytes=1000))
    assert [outbox.post(message(bytes(5000))), outbox.post(message(b""))] == [True, False]


async def test_which_is_given_back_when_it_has_gone_out() -> None:
    stream = Plain()
    outbox = Outbox(stream, Limits(backlog_bytes=12 + ALLOWANCE))
    async with writing(outbox):
        for _ in range(10):
            assert outbox.post(message("0123456789"))
            stream.more(12)
            await wait_all_tasks_blocked()


@STREAMS
async def test_a_stream_that_takes_nothing_is_given_up(
    kind: type[Plain], autojump_clock: MockClock
) -> None:
    stream = kind(5)
    outbox = Outbox(stream, Limits(send_seconds=60))
    outbox.post(message("a" * 10))
    with pytest.raises(trio.TooSlowError):
        await outbox.write_out()
    assert autojump_clock.current_time() == 60


async def test_but_not_one_that_takes_a_little_now_and_then(autojump_clock: MockClock) -> None:
    stream = Gathering(5)
    outbox = Outbox(stream, Limits(send_seconds=60))

    async def drip() -> None:
        while True:
            await trio.sleep(50)
            stream.more(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        outbox.post(message("a" * 10))
        await outbox.write_out()
        assert autojump_clock.current_time() == 350
        nursery.cancel_scope.cancel()


@STREAMS
async def test_a_stream_that_breaks_is_told_by_whoever_writes_out(kind: type[Plain]) -> None:
    stream = kind(5)
    outbox = Outbox(stream, Limits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, message("a" * 10))
        await wait_all_tasks_blocked()
        stream.break_it()
        outbox.post(message("b"))  # nobody who only posts hears of it
        with pytest.raises(trio.BrokenResourceError):
            await outbox.write_out()
        nursery.cancel_scope.cancel()


async def test_also_if_it_breaks_under_somebody_else() -> None:
    stream = Gathering(5)
    stream.break_it()
    outbox = Outbox(stream, Limits())
    outbox.post(message("b"))
    with pytest.raises(trio.BrokenResourceError):
        await outbox.write_out()


# The end


@STREAMS
async def test_a_farewell_comes_behind_what_waits_if_that_is_to_be_flushed(
    kind: type[Plain],
) -> None:
    stream = kind(5)
    outbox = Outbox(stream, Limits())
    async with writing(outbox):
        for letter in "abc":
            outbox.post(message(letter * 10))
        outbox.close(b"bye", flush=True)
        outbox.post(message("too late"))
        stream.more(1000)
        await wait_all_tasks_blocked()
    assert outbox.finished
    assert stream.sent == b"".join(text(letter * 10) for letter in "abc") + b"bye"


@STREAMS
async def test_else_behind_the_frame_that_has_begun(kind: type[Plain]) -> None:
    stream = kind(5)
    outbox = Outbox(stream, Limits())
    async with writing(outbox):
        for letter in "abc":
            outbox.post(message(letter * 10))
        await wait_all_tasks_blocked()
        outbox.close(b"bye")
        assert not outbox.finished
        stream.more(1000)
        await wait_all_tasks_blocked()
    assert outbox.finished
    assert stream.sent == text("a" * 10) + b"bye"


async def test_it_may_come_in_an_open_message() -> None:
    stream = Gathering(1000)
    outbox = Outbox(stream, Limits())
    await outbox.open()
    await outbox.fragment(frame(2, [b"one"], finished=False))
    outbox.close(b"bye", flush=True)
    await outbox.write_out()
    assert stream.sent == b"\x02\x03onebye"


async def test_whoever_waits_for_what_will_not_be_written_is_told() -> None:
    outbox, told = Outbox(Plain(), Limits()), list[str]()

    async def wait_for(name: str) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await (outbox.send(message("a")) if name == "send" else outbox.open())
        told.append(name)

    async with trio.open_nursery() as nursery:
        for name in ("send", "open"):
            nursery.start_soon(wait_for, name)
            await wait_all_tasks_blocked()
        outbox.close(b"bye")
    await wait_for("send")  # and at once, from then on
    assert sorted(told) == ["open", "send", "send"]


@STREAMS
async def test_also_whoever_waits_for_what_has_begun(kind: type[Plain]) -> None:
    stream, told = kind(5), trio.Event()
    outbox = Outbox(stream, Limits())

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await outbox.send(message("a" * 10))
        told.set()

    async with trio.open_nursery() as sender:
        async with writing(outbox):
            sender.start_soon(send)
            await wait_all_tasks_blocked()
        outbox.abandon()
        await told.wait()


async def test_last_words_are_said_if_no_frame_is_in_the_middle() -> None:
    for room, expected in ((1000, b"\x81\x0a0123456789bye"), (5, b"\x81\x0a012")):
        stream = Gathering(room)
        outbox = Outbox(stream, Limits())
        outbox.post(message("0123456789"))
        stream.more(100 if room == 1000 else 0)
        outbox.last_words(b"bye")
        assert stream.sent == expected


def test_what_was_sent_is_dropped_to_the_byte() -> None:
    for sent in range(10):
        parts: list[Piece] = [b"ab", b"", memoryview(b"cdef"), b"ghi", b""]
        drop(parts, sent)
        assert b"".join(parts) == b"abcdefghi"[sent:]
    assert parts == []
