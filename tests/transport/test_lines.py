"""Messages that are lines: order, urgency, limits, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from notebook_rpc.transport.lines import LineConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.web import Send, Stream


class Echo:
    """Answers what it gets. "wait" waits for ``go``, "silent" has no answer, "many" is a stream,
    and what begins with "!" is urgent."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.seen: list[bytes] = []

    def is_urgent(self, message: bytes, /) -> bool:
        return message.startswith(b"!")

    async def answer(self, message: bytes, /) -> Sequence[bytes] | Stream | None:
        self.seen.append(message)
        if message == b"wait":
            await self.go.wait()
        if message == b"silent":
            return None
        if message == b"many":
            return self._many
        return [b"<", message, b">"]

    async def _many(self, send: Send) -> None:
        for number in range(3):
            await send(b"%d," % number)


class Peer:
    def __init__(self, max_line: int = 100) -> None:
        self.app = Echo()
        self.to_server, receiving = trio.testing.memory_stream_one_way_pair()
        sending, self.from_server = trio.testing.memory_stream_one_way_pair()
        self.lines = LineConnection(receiving, sending, self.app, max_line)
        self.sending = sending

    async def serve(self) -> None:
        await self.lines.serve()
        await self.sending.aclose()

    async def everything(self) -> bytes:
        answered = b""
        async for data in self.from_server:
            answered += data
        return answered


async def exchange(*pieces: bytes, max_line: int = 100) -> bytes:
    """What is answered to *pieces* and the end of file."""
    peer = Peer(max_line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve)
        for piece in pieces:
            await peer.to_server.send_all(piece)
        await peer.to_server.aclose()
        return await peer.everything()


async def test_each_line_is_answered_by_a_line_in_order() -> None:
    assert await exchange(b"a\nb\r\n\n  \nc\n") == b"<a>\n<b>\n<c>\n"


async def test_the_last_line_needs_no_end() -> None:
    assert await exchange(b"a\nb") == b"<a>\n<b>\n"


async def test_some_messages_have_no_answer_and_some_come_in_pieces() -> None:
    assert await exchange(b"silent\nmany\na\n") == b"0,1,2,\n<a>\n"


async def test_a_line_over_the_limit_is_cut_off() -> None:
    assert await exchange(b"x" * 30 + b"\ny\n", max_line=10) == b"<xxxxxxxxxx>\n<y>\n"


async def test_urgent_messages_do_not_wait_for_the_running_one() -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve)
        await peer.to_server.send_all(b"wait\nnext\n!now\n")
        assert await peer.from_server.receive_some() == b"<"
        await trio.testing.wait_all_tasks_blocked()
        assert peer.app.seen == [b"wait", b"!now"]
        peer.app.go.set()
        await peer.to_server.aclose()
        assert await peer.everything() == b"!now>\n<wait>\n<next>\n"


async def test_drain_reads_no_more_and_answers_what_was_read() -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve)
        await peer.to_server.send_all(b"wait\na\n")
        await trio.testing.wait_all_tasks_blocked()
        peer.lines.drain()
        await peer.to_server.send_all(b"late\n")
        peer.app.go.set()
        assert await peer.everything() == b"<wait>\n<a>\n"


@pytest.mark.parametrize("message", [b"a", b"many", b"!now"])
async def test_a_peer_that_takes_no_answers_ends_it(message: bytes) -> None:
    peer = Peer()
    await peer.from_server.aclose()
    await peer.to_server.send_all(b"silent\n" + message + b"\nwait\n")
    with pytest.raises(trio.BrokenResourceError):
        await peer.lines.serve()
