"""JSON-RPC over a WebSocket: in order, but for what goes around the queue."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import DatabaseUnavailable, NotebookError, TooManySessions
from notebook_rpc.sansio.tokens import ANYBODY, User
from notebook_rpc.surfaces._rpc_socket import GATHERED, MAX_WAITING, converse
from notebook_rpc.surfaces.dialogue import Options
from notebook_rpc.surfaces.rpc import Rpc
from notebook_rpc.web import WEBSOCKET, Request, Response
from tests.surfaces.fakes import Socket
from tests.surfaces.test_rpc import Remembering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from notebook_rpc.web import Send, Stream


class Parrot:
    """A dialogue that says what it hears, in its own ways."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.go = trio.Event()
        self.go_again = trio.Event()
        self.over = False
        self.held = 0

    def is_urgent(self, message: bytes) -> bool:
        return message.startswith(b"!")

    async def answer(self, message: bytes) -> Sequence[bytes] | Stream | None:
        self.heard.append(message)
        match message:
            case b"silence":
                return None
            case b"wait":
                await self.go.wait()
            case b"wait again, and longer":
                await self.go_again.wait()
            case b"quit":
                self.over = True
            case b"large":
                return [b"x" * GATHERED, "\u00e9".encode(), b"y"]
            case b"batch":
                return self._batch
        return [message[:1], message[1:]]

    async def _batch(self, send: Send) -> None:
        await send(b"[1")
        await self.go.wait()
        await send(b"]")

    def hold(self, size: int) -> Callable[[], None]:
        self.held += size

        def release() -> None:
            self.held -= size

        return release


@asynccontextmanager
async def talking(parrot: Parrot) -> AsyncIterator[Socket]:
    socket = Socket()
    with socket.scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(converse, parrot, lambda: parrot.over, parrot.hold, socket)
            yield socket
            nursery.cancel_scope.cancel()


async def test_answers_come_in_order_each_a_message() -> None:
    async with talking(Parrot()) as socket:
        socket.say("one", "silence", "two")
        assert [await socket.hear(), await socket.hear()] == ["one", "two"]


async def test_what_is_urgent_overtakes() -> None:
    parrot = Parrot()
    async with talking(parrot) as socket:
        socket.say("wait", "one", "!cancel")
        assert await socket.hear() == "!cancel"
        assert parrot.heard == [b"wait", b"!cancel"]
        parrot.go.set()
        assert [await socket.hear(), await socket.hear()] == ["wait", "one"]
        assert parrot.heard == [b"wait", b"!cancel", b"one"]  # each once


async def test_a_large_answer_is_sent_in_fragments() -> None:
    parrot = Parrot()
    async with talking(parrot) as socket:
        socket.say("large")
        assert await socket.hear() == "x" * GATHERED + "\u00e9y"
        assert socket.fragments == [b"x" * GATHERED + "\u00e9".encode(), b"y"]
        assert parrot.held == 0


async def test_while_an_answer_waits_for_its_reader_it_counts() -> None:
    parrot = Parrot()
    async with talking(parrot) as socket:
        socket.reads = trio.Event()
        socket.say("hello")
        await wait_all_tasks_blocked()
        assert parrot.held == 5
        socket.reads.set()
        assert await socket.hear() == "hello"


async def test_it_counts_no_more_when_its_reader_leaves() -> None:
    parrot = Parrot()
    async with talking(parrot) as socket:
        socket.reads = trio.Event()
        socket.say("hello")
        await wait_all_tasks_blocked()
        assert parrot.held == 5
    assert parrot.held == 0


async def test_a_batch_that_is_not_yet_large_does_not_keep_the_socket() -> None:
    parrot = Parrot()
    async with talking(parrot) as socket:
        socket.say("batch", "!cancel")
        assert await socket.hear() == "!cancel"
        parrot.go.set()
        assert await socket.hear() == "[1]"


async def test_no_more_is_taken_in_than_can_be_kept() -> None:
    parrot = Parrot()
    async with talking(parrot) as socket:
        socket.say("wait", *map(str, range(MAX_WAITING)), "one", "two")
        await wait_all_tasks_blocked()
        assert socket.unread() == 1  # one is in the hand of the receiver
        assert socket.at_work == MAX_WAITING + 2
        parrot.go.set()
        heard = [await socket.hear() for _ in range(MAX_WAITING + 3)]
        assert heard[-2:] == ["one", "two"]
        await wait_all_tasks_blocked()
        assert socket.at_work == 0


async def test_the_bytes_that_wait_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notebook_rpc.surfaces._rpc_socket.MAX_BYTES", 10)
    parrot = Parrot()
    async with talking(parrot) as socket:
        socket.say("wait", "123456", "7", "8", "9")
        await wait_all_tasks_blocked()
        assert socket.unread() == 2
        parrot.go.set()
        assert [await socket.hear() for _ in range(5)] == ["wait", "123456", "7", "8", "9"]


async def test_less_is_not_yet_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notebook_rpc.surfaces._rpc_socket.MAX_BYTES", 10)
    parrot = Parrot()
    async with talking(parrot) as socket:
        socket.say("wait", "wait again, and longer", "7", "8")
        await wait_all_tasks_blocked()
        assert socket.unread() == 1
        parrot.go.set()
        with trio.fail_after(5):  # if nothing waits any more, but goes round and round
            await wait_all_tasks_blocked()
        assert socket.unread() == 1
        parrot.go_again.set()
        assert [(await socket.hear())[:1] for _ in range(4)] == ["w", "w", "7", "8"]


async def test_bytes_are_no_json() -> None:
    async with talking(Parrot()) as socket:
        socket.say(b"{}")
        await trio.sleep_forever()
    assert socket.closed == (1003, "JSON-RPC is text")


async def test_the_end_of_the_session_is_the_end_of_the_conversation() -> None:
    parrot = Parrot()
    socket = Socket()
    socket.say("quit", "more")
    with trio.fail_after(5):
        await converse(parrot, lambda: parrot.over, parrot.hold, socket)
    assert list(socket.sent) == ["quit"]
    assert parrot.heard == [b"quit"]


class Registry:
    """Sessions that are made and ended, one at a time."""

    def __init__(self, failure: NotebookError | None = None) -> None:
        self.failure = failure
        self.said: list[object] = []
        self.session = Remembering()

    async def create(self, connection: str, user: User) -> str:
        self.said.append(("create", connection, user))
        if self.failure is not None:
            raise self.failure
        return "id"

    @contextmanager
    def using(self, id_: str, user: User) -> Iterator[Remembering]:
        self.said.append(("using", id_, user))
        yield self.session
        self.said.append("no more")

    async def end(self, id_: str, user: User) -> None:
        self.said.append(("end", id_, user))


async def open_socket(
    registry: Registry, query: str = "", options: Options | None = None
) -> Response:
    options = options or Options(10)
    rpc = Rpc(Remembering(), registry, lambda: None, options, readers=Remembering())
    (handler,) = (route.handler for route in rpc.routes() if route.method == WEBSOCKET)
    return await handler(Request(WEBSOCKET, "/rpc", query, ()))


class TestItsSession:
    async def test_it_ends_with_the_socket(self) -> None:
        registry, socket = Registry(), Socket()
        response = await open_socket(registry, "connection=sales")
        assert response.status == 101
        assert registry.said == [("create", "sales", ANYBODY), ("using", "id", ANYBODY)]
        assert response.resources is not None
        assert response.conversation is not None
        async with response.resources, trio.open_nursery() as nursery:
            nursery.start_soon(response.conversation, socket)
            asked = {"jsonrpc": "2.0", "id": 1, "method": "count"}
            assert (await socket.asks(asked))["result"] == 2**60
            nursery.cancel_scope.cancel()
        assert registry.said[2:] == ["no more", ("end", "id", ANYBODY)]

    async def test_quit_ends_the_socket(self) -> None:
        registry, socket = Registry(), Socket()
        response = await open_socket(registry)
        assert response.conversation is not None
        socket.say({"jsonrpc": "2.0", "id": 1, "method": "quit"})
        assert response.resources is not None
        with trio.fail_after(5):
            async with response.resources:
                await response.conversation(socket)
        assert json.loads(socket.sent[0])["result"] is None
        assert registry.session.calls == [("quit",)]

    async def test_it_ends_however_the_socket_does(self) -> None:
        registry = Registry()
        response = await open_socket(registry)
        assert response.resources is not None
        with pytest.raises(trio.BrokenResourceError):
            async with response.resources:
                raise trio.BrokenResourceError
        assert registry.said[-1] == ("end", "id", ANYBODY)

    async def test_its_answers_count_while_they_wait(self) -> None:
        parrot, socket = Parrot(), Socket()
        response = await open_socket(Registry(), options=Options(10, hold=parrot.hold))
        assert response.resources is not None
        assert response.conversation is not None
        socket.reads = trio.Event()
        socket.say({"jsonrpc": "2.0", "id": 1, "method": "count"})
        async with response.resources, trio.open_nursery() as nursery:
            nursery.start_soon(response.conversation, socket)
            await wait_all_tasks_blocked()
            held = parrot.held
            socket.reads.set()
            assert held == len(await socket.hear())
            nursery.cancel_scope.cancel()

    @pytest.mark.parametrize(
        ("failure", "status"), [(TooManySessions("full"), 503), (DatabaseUnavailable("gone"), 503)]
    )
    async def test_without_one_there_is_no_socket(
        self, failure: NotebookError, status: int
    ) -> None:
        registry = Registry(failure)
        response = await open_socket(registry)
        assert (response.status, response.conversation) == (status, None)
        assert dict(response.headers)[b"retry-after"] == b"1"
        assert registry.said == [("create", "default", ANYBODY)]
