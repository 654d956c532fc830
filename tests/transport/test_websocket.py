"""A WebSocket from its handshake to its farewell, as clients see it, byte for byte."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
import trustme
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from fuzz.targets.http11 import ScriptedStream
from notebook_rpc.transport.addresses import open_tcp, open_unix
from notebook_rpc.transport.http11 import Connection, Limits, serve_connection
from notebook_rpc.transport.listener import Listener
from notebook_rpc.transport.responses import HeadWriter
from notebook_rpc.transport.sockets import SocketStream
from notebook_rpc.transport.websocket import UNREAD_MESSAGES
from notebook_rpc.web import WEBSOCKET, Conversation, Handler, Request, Response, WebSocket
from tests.transport.test_deflate import compressed, deflated
from tests.transport.test_frames import sent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
ASKED = (
    b"GET /chat?x=1 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
OPENED = (  # to the key of RFC 6455, 1.3
    b"HTTP/1.1 101 Switching Protocols\r\n" + DATE + b"upgrade: websocket\r\n"
    b"connection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
PING = b"\x89\x00"


def told(code: int, reason: bytes = b"") -> bytes:
    """The close frame of a server."""
    return bytes([0x88, 2 + len(reason)]) + code.to_bytes(2, "big") + reason


def close(code: int) -> bytes:
    """A client's."""
    return sent(8, code.to_bytes(2, "big"))


async def echo(peer: WebSocket) -> None:
    while True:
        await peer.send(await peer.receive())


async def listen(peer: WebSocket) -> None:
    while True:
        await peer.receive()


class Chat:
    """Answers every request for a WebSocket with one conversation, and others with 404."""

    def __init__(self, conversation: Conversation = echo, **about: object) -> None:
        self.response = Response(101, conversation=conversation)
        for name, value in about.items():
            setattr(self.response, name, value)

    def admit(self, request: Request) -> Handler | Response:
        return self.answer if request.method == WEBSOCKET else Response(404)

    async def answer(self, _: Request) -> Response:
        return self.response


class Client:
    """The other end: it sends what it is told to, and compares what it gets."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._got = bytearray()

    async def send(self, *data: bytes) -> None:
        for piece in data:
            await self.stream.send_all(piece)

    async def take(self, count: int) -> bytes:
        while len(self._got) < count:
            more = await self.stream.receive_some()
            assert more, bytes(self._got)
            self._got += more
        taken = bytes(self._got[:count])
        del self._got[:count]
        return taken

    async def gets(self, expected: bytes) -> None:
        assert await self.take(len(expected)) == expected

    async def gets_at_last(self, expected: bytes = b"") -> None:
        """Also that nothing follows but the end."""
        async for more in self.stream:
            self._got += more
        assert bytes(self._got) == expected


@asynccontextmanager
async def chatting(
    conversation: Conversation = echo, limits: Limits | None = None, *, asked: bytes = ASKED
) -> AsyncIterator[Client]:
    """A client whose socket is open; leaving the block ends both sides."""
    ours, theirs = memory_stream_pair()
    client = Client(ours)
    async with trio.open_nursery() as nursery:
        app = Chat(conversation)
        nursery.start_soon(serve_connection, theirs, app, limits or Limits(), lambda: 0)
        await client.send(asked)
        await client.gets(OPENED)
        yield client
        nursery.cancel_scope.cancel()


async def answer_to(*pieces: bytes, app: Chat, limits: Limits | None = None) -> bytes:
    """What a client gets that sends *pieces*, then the end, and reads to the end."""
    stream = ScriptedStream(pieces)
    await serve_connection(stream, app, limits, wall_clock=lambda: 0)
    return bytes(stream.sent)


# The handshake


async def test_it_is_opened_and_what_came_right_behind_the_request_is_heard() -> None:
    async with chatting(asked=ASKED + sent(1, b"hello")) as client:
        await client.gets(b"\x81\x05hello")
        await client.send(sent(2, b"\x00\x01"))
        await client.gets(b"\x82\x02\x00\x01")


async def test_also_byte_by_byte() -> None:
    data = ASKED + sent(1, b"hello") + close(1000)
    pieces = [data[at : at + 1] for at in range(len(data))]
    assert await answer_to(*pieces, app=Chat()) == OPENED + b"\x81\x05hello" + told(1000)


async def test_the_handler_gets_the_request_and_may_add_headers() -> None:
    asked: list[Request] = []

    class Asked(Chat):
        async def answer(self, request: Request) -> Response:
            asked.append(request)
            return await super().answer(request)

    app = Asked(headers=((b"Sec-WebSocket-Protocol", b"chat"),))
    got = await answer_to(ASKED, app=app)
    assert got.startswith(
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Protocol: chat\r\n" + DATE
    )
    assert [(each.method, each.path, each.query) for each in asked] == [(WEBSOCKET, "/chat", "x=1")]


async def test_a_handler_may_take_its_time_and_what_comes_meanwhile_is_heard() -> None:
    class Slow(Chat):
        async def answer(self, request: Request) -> Response:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            return await super().answer(request)

    data = [ASKED, sent(1, b"early")[:3], sent(1, b"early")[3:] + sent(1, b"too"), close(1000)]
    assert await answer_to(*data, app=Slow()) == OPENED + b"\x81\x05early\x81\x03too" + told(1000)


async def test_any_other_answer_is_an_ordinary_one_and_the_connection_is_kept() -> None:
    class Refusing(Chat):
        async def answer(self, _: Request) -> Response:
            return Response(401)

    refused = b"HTTP/1.1 401 Unauthorized\r\n" + DATE + b"content-length: 0\r\n\r\n"
    assert await answer_to(ASKED + ASKED, app=Refusing()) == refused * 2


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (ASKED, Response(101)),
        (ASKED, Response(200, conversation=echo)),
        (ASKED, Response(101, ((b"upgrade", b"websocket"),), conversation=echo)),
        (ASKED, Response(101, ((b"sec-websocket-accept", b"x"),), conversation=echo)),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", Response(101, conversation=echo)),
    ],
)
async def test_half_an_answer_is_a_bug_and_a_500(
    request_: bytes, response: Response, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(Chat):
        def admit(self, _request: Request) -> Handler | Response:
            return self.answer

        async def answer(self, _: Request) -> Response:
            return response

    got = await answer_to(request_, app=Wrong())
    assert got == b"HTTP/1.1 500 Internal Server Error\r\n" + DATE + b"content-length: 0\r\n\r\n"
    assert "failed" in caplog.text


async def test_another_version_is_told_which_one_we_speak() -> None:
    got = await answer_to(ASKED.replace(b"13", b"8"), app=Chat())
    assert got == (
        b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\n" + DATE + b"connection: close\r\ncontent-length: 0\r\n\r\n"
    )


async def test_compression_is_agreed_on_when_it_is_offered_and_is_one_way() -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    data = ASKED[:-2] + offer + compressed(deflated(b"hello " * 10)) + close(1000)
    got = await answer_to(data, app=Chat())
    agreed = (
        b"sec-websocket-extensions: permessage-deflate; server_no_context_takeover; "
        b"client_no_context_takeover\r\n\r\n"
    )
    assert got == OPENED[:-2] + agreed + b"\x81\x3c" + b"hello " * 10 + told(1000)
    assert await answer_to(ASKED + compressed(b"x"), app=Chat()) == OPENED + told(
        1002, b"protocol error"
    )


# Conversing


async def test_whatever_is_sent_goes_out_in_order_and_in_one_message_each() -> None:
    async def conversation(peer: WebSocket) -> None:
        await peer.send("text")
        peer.post(b"posted")
        await peer.send([b"pie", memoryview(b"ces")])
        async with peer.sending() as send:
            await send([b"frag", b"ment"])
            peer.post("waits")
            await send([b"s"])
        async with peer.sending(text=True):
            pass

    async with chatting(conversation) as client:
        await client.gets(b"\x81\x04text\x82\x06posted\x82\x06pieces")
        await client.gets(b"\x02\x08fragment\x00\x01s\x80\x00\x81\x05waits\x01\x00"[:-2])
        await client.gets(b"\x81\x00")


async def test_a_message_that_breaks_off_is_never_taken_for_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def conversation(peer: WebSocket) -> None:
        async with peer.sending() as send:
            await send([b"half"])
            raise LookupError

    async with chatting(conversation) as client:
        await client.gets(b"\x02\x04half")
        await client.gets_at_last()
    assert caplog.messages == ["a conversation failed"]


async def test_the_wait_for_its_turn_can_be_cancelled_without_harm() -> None:
    async def conversation(peer: WebSocket) -> None:
        async with peer.sending() as send, trio.open_nursery() as nursery:
            await send([b"half"])
            nursery.start_soon(second, peer)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                await send([b"whole"])

    async def second(peer: WebSocket) -> None:
        async with peer.sending() as send:
            await send([b"never"])

    async with chatting(conversation) as client:
        await client.gets(b"\x02\x04half\x00\x05whole\x80\x00" + told(1000))


async def test_a_conversation_that_returns_closes_with_1000() -> None:
    async def conversation(peer: WebSocket) -> None:
        peer.post("bye")

    done: list[str] = []
    app = Chat(conversation, done=lambda: done.append("done"))
    assert await answer_to(ASKED, app=app) == OPENED + b"\x81\x03bye" + told(1000)
    assert done == ["done"]


async def test_one_that_raises_is_logged_and_closes_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def conversation(peer: WebSocket) -> NoReturn:
        await peer.receive()
        raise LookupError("secret")

    async with chatting(conversation) as client:
        await client.send(sent(1, b"x"))
        await client.gets(told(1011, b"the server failed"))
        await client.send(close(1011))
        await client.gets_at_last()
    assert caplog.messages == ["a conversation failed"]
    assert "LookupError: secret" in caplog.text


async def test_one_may_close_with_a_code_and_a_reason_of_its_own() -> None:
    async def conversation(peer: WebSocket) -> None:
        peer.post("sorry")
        await peer.close(4001, "not today")
        raise AssertionError("it returned")

    async with chatting(conversation) as client:
        await client.gets(b"\x81\x05sorry" + told(4001, b"not today"))
        await client.send(close(4001))
        await client.gets_at_last()


async def test_whoever_sends_to_a_closed_socket_is_told_and_whoever_posts_is_not() -> None:
    sockets: list[WebSocket] = []

    async def conversation(peer: WebSocket) -> None:
        sockets.append(peer)
        await listen(peer)

    async with chatting(conversation) as client:
        await client.stream.aclose()
        await wait_all_tasks_blocked()
        sockets[0].post("anybody there?")
        with pytest.raises(trio.ClosedResourceError):
            await sockets[0].send("hello?")
        with pytest.raises(trio.ClosedResourceError):
            await sockets[0].close()


# The client's farewell, with and without a word


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_farewell_is_answered_with_its_own_code(code: int) -> None:
    async with chatting() as client:
        await client.send(close(code))
        await client.gets_at_last(told(code))


async def test_one_without_a_code_with_none() -> None:
    async with chatting() as client:
        await client.send(sent(8))
        await client.gets_at_last(b"\x88\x00")


@pytest.mark.parametrize("farewell", [close(1000), b""], ids=["close", "nothing"])
@pytest.mark.parametrize("held", [False, True])
async def test_who_leaves_cancels_the_conversation(
    farewell: bytes, held: bool, autojump_clock: MockClock
) -> None:
    log: list[str] = []

    async def conversation(peer: WebSocket) -> None:
        log.append(str(await peer.receive()))
        try:
            while not held:
                await peer.receive()
            await trio.sleep_forever()
        finally:
            log.append("cancelled")

    async with chatting(conversation) as client:
        await client.send(sent(1, b"query"))
        await wait_all_tasks_blocked()
        await (client.send(farewell) if farewell else client.stream.aclose())
        if held and farewell:  # it is given a moment to end by itself
            await trio.sleep(0.05)
        await wait_all_tasks_blocked()
        assert log == ["query", "cancelled"]
        assert autojump_clock.current_time() <= 0.1


@pytest.mark.parametrize("farewell", [close(1000), b""], ids=["close", "nothing"])
async def test_what_was_said_right_before_leaving_is_heard(
    farewell: bytes,
    autojump_clock: MockClock,  # noqa: ARG001  # used by being there
) -> None:
    heard: list[str | bytes] = []

    async def conversation(peer: WebSocket) -> None:
        while True:
            heard.append(await peer.receive())
            await trio.sleep(0.01)

    async with chatting(conversation) as client:
        await client.send(sent(1, b"a") + sent(1, b"b") + farewell)
        await client.stream.aclose()
        await trio.sleep(1)
    assert heard == ["a", "b"]


async def test_but_only_for_a_moment(autojump_clock: MockClock) -> None:
    async def conversation(peer: WebSocket) -> None:
        await peer.receive()
        await trio.sleep(1000)

    await answer_to(ASKED + sent(1, b"a") + sent(1, b"b") + close(1000), app=Chat(conversation))
    assert autojump_clock.current_time() <= 0.1


async def test_a_client_that_does_not_answer_our_farewell_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    async def conversation(_: WebSocket) -> None:
        return

    async with chatting(conversation) as client:
        await client.send(sent(1, b"never heard"))
        await client.gets_at_last(told(1000))
        assert autojump_clock.current_time() == 5


# Breaking the protocol; the frames themselves are in test_frames.py and test_deflate.py


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sent(3), 1002), (b"\x81\x01a", 1002), (sent(1, b"\xff"), 1007), (sent(2, b"a" * 101), 1009)
    ],
)  # fmt: skip
async def test_a_violation_is_told_behind_the_answers_to_what_came_before(
    data: bytes,
    code: int,
    autojump_clock: MockClock,  # noqa: ARG001  # used by being there
) -> None:
    async with chatting(limits=Limits(message_bytes=100)) as client:
        await client.send(sent(1, b"fine") + data + sent(1, b"ignored") * 10)
        await client.gets(b"\x81\x04fine")
        head = await client.take(4)
        assert (head[0], head[2:]) == (0x88, code.to_bytes(2, "big"))
        await client.take(head[1] - 2)
        await client.gets_at_last()
        await client.send(b"and on it goes" * 1000)  # read, so that nothing is reset
        await trio.sleep(6)
        with pytest.raises(trio.BrokenResourceError):  # but not for ever
            await client.send(b"and on it goes")


async def test_a_broken_client_that_leaves_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with chatting() as client:
        await client.send(sent(3))
        await client.stream.aclose()
        await wait_all_tasks_blocked()
        assert autojump_clock.current_time() == 0


# Pings


async def test_pings_are_answered_while_the_conversation_is_at_work() -> None:
    async def conversation(peer: WebSocket) -> None:
        await peer.receive()
        await trio.sleep_forever()

    async with chatting(conversation) as client:
        await client.send(sent(1, b"query"), sent(9, b"1"), sent(9, b""))
        await client.gets(b"\x8a\x011\x8a\x00")


async def test_a_silent_client_is_pinged_and_after_two_in_vain_cut_off(
    autojump_clock: MockClock,
) -> None:
    async with chatting() as client:
        await client.gets(PING)
        assert autojump_clock.current_time() == 30
        await client.gets(PING)
        await client.gets_at_last()
        assert autojump_clock.current_time() == 90


@pytest.mark.parametrize("signs", [[sent(10)] * 3, [sent(1, b"x")] * 3, [b"\x89", b"\x80", b"K"]])
async def test_any_byte_is_a_sign_of_life(signs: list[bytes], autojump_clock: MockClock) -> None:
    async def drip() -> None:
        for sign in signs:
            await trio.sleep(45)
            await client.send(sign)

    async with chatting(listen) as client, trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        await client.gets(PING * 5)
        assert autojump_clock.current_time() == 150
        nursery.cancel_scope.cancel()


async def test_a_socket_may_live_for_ever(autojump_clock: MockClock) -> None:
    async with chatting() as client:
        for _ in range(100):
            await client.gets(PING)
            await client.send(sent(10))
        assert autojump_clock.current_time() == 3000


# Slow readers and fast writers


class Stuck(ScriptedStream):
    """Takes the answer's head, and nothing more."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.sent:
            await trio.sleep_forever()
        await super().send_all(data)


async def test_a_client_that_takes_nothing_is_cut_off(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def conversation(peer: WebSocket) -> None:
        await peer.send(b"x")
        raise AssertionError("it was sent")

    class Waiting(Stuck):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return await super().receive_some(max_bytes) or await trio.sleep_forever()

    await serve_connection(Waiting([ASKED]), Chat(conversation), Limits(send_seconds=20))
    assert autojump_clock.current_time() == 20
    assert caplog.records == []


async def test_one_for_whom_too_much_gathers_is_closed_with_1008(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def conversation(peer: WebSocket) -> None:
        for _ in range(20):
            peer.post("x" * 100)
        await trio.lowlevel.checkpoint()
        raise AssertionError("it goes on")

    async with chatting(conversation, Limits(backlog_bytes=1000)) as client:
        await client.gets(told(1008, b"too slow"))
        await client.send(close(1008))
        await client.gets_at_last()
    assert caplog.messages == ["a WebSocket was closed, as its client reads too slowly"]


async def test_messages_that_nobody_receives_are_few_and_then_tcp_holds_the_client() -> None:
    class Counting(ScriptedStream):
        reads = 0

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            self.reads += 1
            return await super().receive_some(max_bytes)

    async def conversation(peer: WebSocket) -> None:
        await wait_all_tasks_blocked()
        reads.append(stream.reads)
        for number in range(300):
            assert await peer.receive() == f"{number}"

    reads: list[int] = []
    stream = Counting([ASKED, *(sent(1, b"%d" % number) for number in range(300))])
    await serve_connection(stream, Chat(conversation), wall_clock=lambda: 0)
    assert reads == [1 + UNREAD_MESSAGES]
    assert stream.sent == OPENED + told(1000)


async def test_a_client_that_leaves_behind_unread_messages_is_noticed(
    autojump_clock: MockClock,
) -> None:
    class Leaving(ScriptedStream):
        looks = 0

        def hung_up(self) -> bool:
            self.looks += 1
            return trio.current_time() - began > leaves_after

    async def conversation(_: WebSocket) -> None:
        await trio.sleep_forever()

    for leaves_after in (0.01, 600):
        began = trio.current_time()
        stream = Leaving([ASKED, *[sent(1, b"x")] * 300])
        await serve_connection(stream, Chat(conversation), wall_clock=lambda: 0)
        late = autojump_clock.current_time() - began - leaves_after
        assert 0 <= late <= (0.05 if leaves_after < 1 else 1)
    assert 600 <= stream.looks <= 606


async def test_many_small_frames_let_others_have_their_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with chatting(listen) as client, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await client.send(sent(0, fin=False).join([sent(1, fin=False), *[b""] * 9999, sent(9)]))
        await client.gets(b"\x8a\x00")
        assert turns > 10_000 / 64
        nursery.cancel_scope.cancel()


# Draining


class Drained:
    """A connection that can be drained, and a client, who is told so in the end."""

    def __init__(self, app: Chat) -> None:
        ours, theirs = memory_stream_pair()
        self.client = Client(ours)
        self.connection = Connection(theirs, app, Limits(), HeadWriter(lambda: 0))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Callable[[], None]]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.connection.serve)
            await self.client.send(ASKED)
            await self.client.gets(OPENED)
            yield self.connection.drain
            await self.client.gets(told(1001, b"the server stops"))
            await self.client.send(close(1001))
            await self.client.gets_at_last()


async def test_an_idle_socket_is_closed_with_1001() -> None:
    async with Drained(Chat(listen)).open() as drain:
        await wait_all_tasks_blocked()
        drain()


async def test_one_that_works_on_a_message_may_answer_it_first_and_gets_no_other() -> None:
    ready = trio.Event()

    async def conversation(peer: WebSocket) -> None:
        while True:
            message = await peer.receive()
            await ready.wait()
            await peer.send(message)

    drained = Drained(Chat(conversation))
    async with drained.open() as drain:
        await drained.client.send(sent(1, b"a"), sent(1, b"b"))
        await wait_all_tasks_blocked()
        drain()
        await wait_all_tasks_blocked()
        ready.set()
        await drained.client.gets(b"\x81\x01a")


async def test_so_may_one_that_works_on_several_in_tasks_of_their_own() -> None:
    ready = {"a": trio.Event(), "b": trio.Event()}

    async def conversation(peer: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(work, peer, await peer.receive())

    async def work(peer: WebSocket, message: str | bytes) -> None:
        with peer.working():
            await ready[str(message)].wait()
            await peer.send(message)

    drained = Drained(Chat(conversation))
    async with drained.open() as drain:
        await drained.client.send(sent(1, b"a"), sent(1, b"b"))
        await wait_all_tasks_blocked()
        drain()
        for name in "ba":
            await wait_all_tasks_blocked()
            ready[name].set()
            await drained.client.gets(b"\x81\x01" + name.encode())


async def test_draining_before_it_is_open_closes_it_as_soon_as_it_is() -> None:
    class Slow(Chat):
        async def answer(self, request: Request) -> Response:
            drained.connection.drain()
            return await super().answer(request)

    drained = Drained(Slow(listen))
    async with drained.open():
        await wait_all_tasks_blocked()


# On real sockets


@asynccontextmanager
async def serving(
    where: str, folder: Path, conversation: Conversation, limits: Limits | None = None
) -> AsyncIterator[tuple[Listener, Callable[[], Awaitable[Client]]]]:
    """A server during the block, and what connects to it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    listener = Listener(Chat(conversation), limits, tls=context if where == "tls" else None)
    sockets = [open_unix(folder / "s")] if where == "unix" else await open_tcp("127.0.0.1", 0)

    async def connect() -> Client:
        stream: trio.abc.Stream
        if where == "unix":
            stream = await trio.open_unix_socket(folder / "s")
        else:
            stream = await trio.open_tcp_stream(*sockets[0].getsockname()[:2])
        if where == "tls":
            stream = trio.SSLStream(
                stream, trust, server_hostname="localhost", https_compatible=True
            )
        clients.append(Client(stream))
        await clients[-1].send(ASKED)
        assert (await clients[-1].take(len(OPENED))).startswith(b"HTTP/1.1 101 ")
        return clients[-1]

    clients: list[Client] = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.serve, sockets)
            try:
                yield listener, connect
            finally:
                nursery.cancel_scope.cancel()
                for client in clients:
                    await trio.aclose_forcefully(client.stream)


EVERYWHERE = pytest.mark.parametrize("where", ["tcp", "unix", "tls"])


@EVERYWHERE
async def test_it_works_everywhere(where: str, tmp_path: Path) -> None:
    async with serving(where, tmp_path, echo) as (_, connect):
        client = await connect()
        await client.send(sent(1, b"hello"), sent(2, b"x" * 70_000))
        await client.gets(b"\x81\x05hello\x82\x7f" + (70_000).to_bytes(8, "big") + b"x" * 70_000)
        await client.send(*(sent(9, b"%d" % number) for number in range(9)))
        await client.gets(b"".join(b"\x8a\x01%d" % number for number in range(9)))
        await client.send(close(1000))
        await client.gets_at_last(told(1000))


@EVERYWHERE
@pytest.mark.parametrize("unread", [0, 150])
async def test_who_vanishes_cancels_its_conversation_at_once(
    where: str, unread: int, tmp_path: Path
) -> None:
    cancelled = trio.Event()

    async def conversation(_: WebSocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(where, tmp_path, conversation) as (_, connect):
        client = await connect()
        await client.send(sent(2, bytes(1000)) * unread)
        await trio.aclose_forcefully(client.stream)
        with trio.fail_after(1):  # in 0.1 s, where nothing else runs
            await cancelled.wait()


@EVERYWHERE
async def test_a_large_message_arrives_whole_at_a_slow_reader_and_pings_are_answered_meanwhile(
    where: str, tmp_path: Path
) -> None:
    piece = bytes(range(256)) * 4096  # 1 MiB

    async def conversation(peer: WebSocket) -> None:
        async with peer.sending() as send:
            for _ in range(20):
                await send([piece[:1000], memoryview(piece)[1000:]])

    async with serving(where, tmp_path, conversation) as (_, connect):
        client = await connect()
        await client.send(sent(9, b"?"))
        header, pong, received = (1 << 20).to_bytes(8, "big"), b"\x8a\x01?", 0
        for opcode in (2, *[0] * 19):
            head = await client.take(10)
            if head.startswith(pong):
                head, received = head[3:] + await client.take(3), received + 1
            assert head == bytes([opcode, 127]) + header
            assert await client.take(len(piece)) == piece
        rest = await client.take(2 + 4 + 3 * (1 - received))
        assert rest.replace(pong, b"") == b"\x80\x00" + told(1000)


async def test_who_reads_nothing_at_all_is_cut_off_in_the_end(tmp_path: Path) -> None:
    ended = trio.Event()

    async def conversation(peer: WebSocket) -> None:
        try:
            while True:
                peer.post(bytes(100_000))
                await trio.lowlevel.checkpoint()
        finally:
            ended.set()

    limits = Limits(backlog_bytes=1_000_000, linger_seconds=0.1)
    async with serving("tcp", tmp_path, conversation, limits) as (listener, connect):
        client = await connect()
        await ended.wait()
        while listener.connections:  # noqa: ASYNC110  # the kernel's part sets no event
            await trio.sleep(0.01)
        with pytest.raises(trio.BrokenResourceError):  # a reset, not an end
            await client.gets_at_last()


async def test_a_connection_that_is_cancelled_still_says_why() -> None:
    ours, theirs = (SocketStream(end) for end in socket.socketpair())
    client = Client(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, theirs, Chat(listen), Limits(), lambda: 0)
        await client.send(ASKED)
        await client.gets(OPENED)
        nursery.cancel_scope.cancel()
    await client.gets_at_last(told(1001))
    await ours.aclose()
