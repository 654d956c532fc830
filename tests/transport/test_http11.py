"""HTTP/1.1 on a stream: what a client sees, byte for byte, and what it costs us."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from fuzz.targets.http11 import Answer, ScriptedStream, parse_answers
from notebook_rpc.transport.http11 import Connection, Limits, serve_connection
from notebook_rpc.transport.responses import PIECE, HeadWriter
from notebook_rpc.web import Handler, Request, Response, Send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MemoryReceiveStream, MemorySendStream

    Client = trio.StapledStream[MemorySendStream, MemoryReceiveStream]

DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
TOO_LARGE = f"413 {HTTPStatus(413).phrase}".encode()  # Python 3.13 has the newer phrase
CLOSED = b"connection: close\r\ncontent-length: 0\r\n\r\n"


async def echo(request: Request) -> Response:
    return Response(body=f"{request.method} {request.path} ".encode() + request.body)


@dataclass
class FakeApp:
    """Gives every request to *handler*, or refuses it."""

    handler: Handler = echo
    refusal: Response | None = None
    asked: list[Request] = field(default_factory=list)

    def admit(self, request: Request) -> Handler | Response:
        self.asked.append(request)
        return self.refusal or self.handler


async def answer_to(
    *pieces: bytes, app: FakeApp | None = None, limits: Limits | None = None
) -> bytes:
    """What a client gets that sends *pieces*, then the end, and reads to the end."""
    stream = ScriptedStream(pieces)
    await serve_connection(stream, app or FakeApp(), limits, wall_clock=lambda: 0)
    assert stream.closed
    return bytes(stream.sent)


def answering(response: Response) -> FakeApp:
    async def handler(_: Request) -> Response:
        return response

    return FakeApp(handler)


def refusal(line: bytes) -> bytes:
    return b"HTTP/1.1 " + line + b"\r\n" + DATE + CLOSED


@asynccontextmanager
async def a_client(app: FakeApp, limits: Limits | None = None) -> AsyncIterator[Client]:
    """A client of a running server; leaving the block ends both."""
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, app, limits or Limits(), lambda: 0)
        yield client
        nursery.cancel_scope.cancel()


async def read_to_end(client: Client) -> bytes:
    return b"".join([piece async for piece in client])


# One request, one answer


async def test_an_answer_is_one_send_with_head_and_body() -> None:
    class Counting(ScriptedStream):
        sends = 0

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            self.sends += 1
            await super().send_all(data)

    stream = Counting([POST])
    await serve_connection(stream, FakeApp(), wall_clock=lambda: 0)
    expected = b"HTTP/1.1 200 OK\r\n" + DATE + b"content-length: 10\r\n\r\nPOST / abc"
    assert (stream.sent, stream.sends) == (bytearray(expected), 1)


async def test_the_handler_gets_the_request_that_was_admitted_with_its_body() -> None:
    app = FakeApp()
    await answer_to(b"PUT /a%20b?c HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", app=app)
    headers = ((b"host", b"h"), (b"content-length", b"1"))
    assert app.asked == [Request("PUT", "/a b", "c", headers, b"x")]


async def test_pipelined_requests_are_answered_in_order_and_the_connection_is_kept() -> None:
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(20))
    answers = parse_answers(await answer_to(requests), ["GET"] * 20)
    assert [answer.body for answer in answers] == [b"GET /%d " % number for number in range(20)]
    assert not any(answer.closes for answer in answers)


async def test_a_pipelining_client_does_not_keep_the_others_waiting() -> None:
    turns: list[str] = []

    async def handler(request: Request) -> Response:
        turns.append(request.path)
        return Response()

    async def other() -> None:
        while "/9" not in turns:
            turns.append("other")
            await trio.lowlevel.checkpoint()

    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        nursery.start_soon(serve_connection, Eager([requests]), FakeApp(handler))
    assert turns.count("other") >= 9


class Eager(ScriptedStream):
    """Like a socket with room: what it is given is gone at once, without a checkpoint."""

    def send_now(self, data: bytes | memoryview) -> int:
        self.sent += data
        return len(data)


async def test_requests_of_all_kinds_mean_the_same_in_one_piece_and_byte_by_byte() -> None:
    data = GET + POST + b"\r\n" + CHUNKED + b"3;x\r\nabc\r\n1\r\nd\r\n0\r\nt: v\r\n\r\n" + GET
    whole = await answer_to(data)
    assert [answer.body for answer in parse_answers(whole, ["GET", "POST", "POST", "GET"])] == [
        b"GET / ", b"POST / abc", b"POST / abcd", b"GET / ",
    ]  # fmt: skip
    assert await answer_to(*(data[at : at + 1] for at in range(len(data)))) == whole


async def test_http_1_0_is_answered_and_closed() -> None:
    sent = await answer_to(b"GET / HTTP/1.0\r\n\r\n" + GET)
    opening = b"HTTP/1.1 200 OK\r\n" + DATE
    assert sent == opening + b"connection: close\r\ncontent-length: 6\r\n\r\nGET / "


async def test_a_client_that_says_close_is_told_close_and_asked_no_more() -> None:
    sent = await answer_to(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET)
    assert [answer.closes for answer in parse_answers(sent, ["GET"])] == [True]


async def test_a_handler_may_close_too() -> None:
    app = answering(Response(headers=((b"Connection", b"close"),)))
    sent = await answer_to(GET, GET, app=app)
    assert sent == b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + DATE + b"content-length: 0\r\n\r\n"


@pytest.mark.parametrize("body", [b"hello", [b"he", b"llo"]])
async def test_head_gets_the_length_and_no_body(body: bytes | list[bytes]) -> None:
    sent = await answer_to(
        b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", app=answering(Response(body=body))
    )
    assert sent == b"HTTP/1.1 200 OK\r\n" + DATE + b"content-length: 5\r\n\r\n"


async def test_head_of_a_stream_does_not_run_it() -> None:
    async def stream(_: Send) -> NoReturn:
        raise AssertionError("it ran")

    sent = await answer_to(
        b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", app=answering(Response(body=stream))
    )
    assert sent == b"HTTP/1.1 200 OK\r\n" + DATE + b"\r\n"


@pytest.mark.parametrize(("status", "phrase"), [(204, b"No Content"), (304, b"Not Modified")])
async def test_some_answers_never_have_a_body(status: int, phrase: bytes) -> None:
    sent = await answer_to(GET, app=answering(Response(status, body=b"hidden")))
    assert sent == b"HTTP/1.1 %d %b\r\n" % (status, phrase) + DATE + b"\r\n"


async def test_a_large_body_of_pieces_goes_out_in_pieces_of_bounded_size() -> None:
    sizes: list[int] = []

    class Measuring(ScriptedStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            sizes.append(len(data))
            await super().send_all(data)

    body = [b"a" * 10] * 1000 + [b"b" * (3 * PIECE + 7)] + [b"c", b"", b"d" * PIECE, b"e"]
    stream = Measuring([GET])
    await serve_connection(stream, answering(Response(body=body)))
    assert parse_answers(bytes(stream.sent), ["GET"])[0].body == b"".join(body)
    assert max(sizes) <= PIECE
    assert len(sizes) <= 7  # small neighbours were joined


# 100 Continue


async def test_a_waiting_client_is_told_to_continue() -> None:
    head, body = POST[:-7] + b"\r\nExpect: 100-continue\r\n\r\n", b"abc"
    async with a_client(FakeApp()) as client:
        await client.send_all(head)
        assert await client.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send_all(body)
        assert (await client.receive_some()).endswith(b"POST / abc")


async def test_one_that_does_not_wait_is_not() -> None:
    sent = await answer_to(POST[:-7] + b"\r\nExpect: 100-continue\r\n\r\nabc")
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_one_that_is_refused_is_not_told_to_continue_and_loses_the_connection() -> None:
    app = FakeApp(refusal=Response(401))
    sent = await answer_to(POST[:-7] + b"\r\nExpect: 100-continue\r\n\r\n", GET, app=app)
    assert sent == refusal(b"401 Unauthorized")


# Refusing by the head


async def test_a_refused_request_with_a_small_body_keeps_its_connection() -> None:
    app = FakeApp(refusal=Response(404))
    sent = await answer_to(POST[:-2], POST[-2:], GET, app=app)
    answers = parse_answers(sent, ["POST", "GET"])
    assert [(answer.status, answer.closes) for answer in answers] == [(404, False)] * 2
    assert [(request.method, request.body) for request in app.asked] == [
        ("POST", b""),
        ("GET", b""),
    ]


@pytest.mark.parametrize("length", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
async def test_one_with_a_large_or_unknown_body_is_answered_before_it_and_closed(
    length: bytes,
) -> None:
    async with a_client(FakeApp(refusal=Response(403))) as client:
        await client.send_all(b"POST / HTTP/1.1\r\nHost: h\r\n" + length + b"\r\n\r\n")
        assert await read_to_end(client) == refusal(b"403 Forbidden")


async def test_what_the_client_goes_on_sending_is_read_and_thrown_away() -> None:
    limits = Limits(linger_bytes=1000)
    async with a_client(FakeApp(refusal=Response(413)), limits) as client:
        await client.send_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")
        assert await read_to_end(client) == refusal(TOO_LARGE)
        for _ in range(11):
            await client.send_all(b"a" * 100)
            await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):  # but not for ever
            await client.send_all(b"a")


# Malformed requests


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (POST.replace(b"Host", b"Content-Length: 3\r\nHost"), b"400 Bad Request"),
        (POST.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost"), b"400 Bad Request"),
        (POST.replace(b"Host", b"Transfer-Encoding: gzip\r\nHost"), b"501 Not Implemented"),
        (b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01", b"400 Bad Request"),
        (b" GET / HTTP/1.1\r\n", b"400 Bad Request"),
        (b"GET / HT", b"400 Bad Request"),
        (POST[:-1], b"400 Bad Request"),
        (CHUNKED + b"x\r\n", b"400 Bad Request"),
        (CHUNKED + b"3\r\na", b"400 Bad Request"),
    ],
)  # fmt: skip
async def test_a_malformed_request_gets_one_empty_refusal_after_the_answers(
    data: bytes, line: bytes
) -> None:
    sent = await answer_to(GET + data)
    first, rest = sent.split(b"GET / ", 1)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rest == refusal(line)


async def test_nothing_after_a_malformed_request_is_read_as_a_request() -> None:
    app = FakeApp()
    assert await answer_to(b"GET / HTTP/1.1\r\n\r\n" + GET, app=app) == refusal(b"400 Bad Request")
    assert app.asked == []


async def test_a_client_that_says_nothing_is_told_nothing() -> None:
    assert await answer_to() == b""
    assert await answer_to(b"\r\n", b"\r\n") == b""


# Limits in bytes


async def test_a_huge_head_is_refused_even_without_a_newline() -> None:
    limits = Limits(header_bytes=1000)
    line = b"431 Request Header Fields Too Large"
    async with a_client(FakeApp(), limits) as client:
        await client.send_all(b"G" * 1001)
        assert await read_to_end(client) == refusal(line)
    long = b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"a" * 1000 + b"\r\n\r\n"
    assert await answer_to(long, limits=limits) == refusal(line)
    just = Limits(header_bytes=len(long))
    assert (await answer_to(long, limits=just)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async with a_client(FakeApp(), Limits(body_bytes=2)) as client:
        await client.send_all(POST[:-3])
        assert await read_to_end(client) == refusal(TOO_LARGE)


async def test_a_chunked_body_over_the_limit_as_soon_as_it_is() -> None:
    async with a_client(FakeApp(), Limits(body_bytes=2)) as client:
        await client.send_all(CHUNKED + b"ffff\r\nabc")
        assert await read_to_end(client) == refusal(TOO_LARGE)


# Limits in seconds


async def drip(client: Client, data: bytes, seconds: float) -> None:
    for at in range(len(data)):
        await trio.sleep(seconds)
        await client.send_all(data[at : at + 1])


async def test_a_head_has_30_seconds_from_its_first_byte(autojump_clock: MockClock) -> None:
    async with a_client(FakeApp()) as client, trio.open_nursery() as nursery:
        await trio.sleep(100)
        nursery.start_soon(drip, client, GET, 5)
        assert await read_to_end(client) == refusal(b"408 Request Timeout")
        assert 134 <= autojump_clock.current_time() <= 136  # the first byte came at 105
        nursery.cancel_scope.cancel()


async def test_an_idle_connection_is_closed_silently(autojump_clock: MockClock) -> None:
    async with a_client(FakeApp()) as client:
        await client.send_all(GET)
        assert (await read_to_end(client)).endswith(b"GET / ")
        assert 295 <= autojump_clock.current_time() <= 300


async def test_stray_line_ends_between_requests_are_no_head(autojump_clock: MockClock) -> None:
    async with a_client(FakeApp()) as client:
        await client.send_all(b"\r\n")
        assert await read_to_end(client) == b""
        assert autojump_clock.current_time() >= 295


async def test_a_stalled_body_has_20_seconds(autojump_clock: MockClock) -> None:
    async with a_client(FakeApp()) as client:
        await client.send_all(POST[:-1])
        assert await read_to_end(client) == refusal(b"408 Request Timeout")
        assert 19 <= autojump_clock.current_time() <= 21


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_earns_time_by_its_bytes_but_not_by_dripping(
    autojump_clock: MockClock, chunked: bool
) -> None:
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 10000"
    async with a_client(FakeApp()) as client, trio.open_nursery() as nursery:
        await client.send_all(b"POST / HTTP/1.1\r\nHost: h\r\n" + length + b"\r\n\r\n")
        await client.send_all((b"2710\r\n" if chunked else b"") + b"a" * 5000)
        nursery.start_soon(drip, client, b"a" * 1000, 1)
        assert await read_to_end(client) == refusal(b"408 Request Timeout")
        assert 29 <= autojump_clock.current_time() <= 31
        nursery.cancel_scope.cancel()


async def test_half_a_request_from_a_slow_client_costs_nobody_else_anything(
    autojump_clock: MockClock,
) -> None:
    async with a_client(FakeApp()) as slow, a_client(FakeApp()) as quick:
        await slow.send_all(GET[:-3])
        await quick.send_all(GET)
        assert (await quick.receive_some()).endswith(b"GET / ")
        assert autojump_clock.current_time() == 0


async def test_a_handler_may_take_its_time(autojump_clock: MockClock) -> None:
    async def slow(_: Request) -> Response:
        await trio.sleep(50_000)
        return Response(body=b"done")

    async with a_client(FakeApp(slow)) as client:
        await client.send_all(POST[:-3])
        await trio.sleep(1)
        await client.send_all(b"abc")
        assert (await client.receive_some()).endswith(b"done")
        assert autojump_clock.current_time() == 50_001


async def test_a_client_that_takes_nothing_is_cut_off(autojump_clock: MockClock) -> None:
    stuck = trio.Event()

    class Stuck(ScriptedStream):
        async def send_all(self, _data: bytes | bytearray | memoryview) -> None:
            await stuck.wait()

    stream = Stuck([GET, GET])
    await serve_connection(stream, FakeApp())
    assert stream.closed
    assert 59 <= autojump_clock.current_time() <= 60


async def test_lingering_has_an_end(autojump_clock: MockClock) -> None:
    client, server = memory_stream_pair()
    await client.send_all(b"\x00")
    await serve_connection(server, FakeApp())
    assert autojump_clock.current_time() == 5


# Handlers that fail, clients that leave


async def test_a_handler_that_raises_is_logged_and_answered_with_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(_: Request) -> NoReturn:
        raise LookupError("secret")

    sent = await answer_to(POST + GET, app=FakeApp(handler))
    answers = parse_answers(sent, ["POST", "GET"])
    assert [(answer.status, answer.body, answer.closes) for answer in answers] == [
        (500, b"", False)
    ] * 2
    assert caplog.messages == ["the handler of POST '/' failed", "the handler of GET '/' failed"]
    assert "LookupError: secret" in caplog.text


async def test_so_is_one_whose_answer_cannot_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    app = answering(Response(headers=((b"a", b"b\r\nc: d"),)))
    assert (await answer_to(GET, app=app)).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert "Illegal header value" in caplog.text


async def test_so_is_an_app_that_fails_to_decide(caplog: pytest.LogCaptureFixture) -> None:
    class Undecided:
        def admit(self, _request: Request) -> NoReturn:
            raise LookupError

    stream = ScriptedStream([GET])
    await serve_connection(stream, Undecided())
    assert stream.sent.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert caplog.messages == ["admitting GET '/' failed"]


async def test_so_is_a_refusal_that_cannot_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    sent = await answer_to(GET, app=FakeApp(refusal=Response(99)))
    assert sent.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert caplog.messages == ["admitting GET '/' failed"]


@pytest.mark.parametrize(
    "answer",
    [
        Response(body=b"hello"),
        Response(204),
        Response(body=[b"x" * PIECE, b"y"]),
        Response(200, ((b"date", b"mine"),)),  # which cannot be sent
    ],
    ids=["small", "none", "large", "wrong"],
)
async def test_a_handler_hears_when_its_answer_is_needed_no_more(answer: Response) -> None:
    done: list[int] = []
    stream = ScriptedStream([GET])
    answer.done = lambda: done.append(len(stream.sent))
    await serve_connection(stream, answering(answer), wall_clock=lambda: 0)
    assert done == [len(stream.sent)]  # once, behind the last byte


async def test_also_if_the_client_takes_nothing(autojump_clock: MockClock) -> None:
    class Stuck(ScriptedStream):
        async def send_all(self, _data: bytes | bytearray | memoryview) -> None:
            await trio.sleep_forever()

    done: list[float] = []
    answer = Response(body=b"hello", done=lambda: done.append(autojump_clock.current_time()))
    await serve_connection(Stuck([GET]), answering(answer), Limits(send_seconds=60))
    assert len(done) == 1
    assert 59 <= done[0] <= 60


async def test_a_client_that_leaves_cancels_its_handler(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def handler(_: Request) -> Response:
        log.append("started")
        try:
            await trio.sleep_forever()
        finally:
            log.append("cancelled")
        return Response()

    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, FakeApp(handler))
        await client.send_all(GET + GET)
        await wait_all_tasks_blocked()
        assert log == ["started"]
        await client.aclose()
    assert log == ["started", "cancelled"]
    assert caplog.records == []


async def test_requests_pipelined_behind_a_handler_that_blocks_are_answered_too() -> None:
    async def handler(request: Request) -> Response:
        await wait_all_tasks_blocked()
        return Response(body=request.path.encode())

    async with a_client(FakeApp(handler)) as client:
        for number in range(5):
            await client.send_all(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        data = bytearray()
        while b"/4" not in data:
            data += await client.receive_some()
    answers = parse_answers(bytes(data), ["GET"] * 5)
    assert [answer.body for answer in answers] == [b"/0", b"/1", b"/2", b"/3", b"/4"]


# Streams


async def count_to_3(send: Send) -> None:
    for number in range(3):
        await send(b"%d" % number)
        await send(b"")  # must not look like the last chunk


async def test_a_stream_is_chunked_and_the_connection_is_kept() -> None:
    sent = await answer_to(GET + GET, app=answering(Response(body=count_to_3)))
    opening = b"HTTP/1.1 200 OK\r\n" + DATE + b"transfer-encoding: chunked\r\n\r\n"
    assert sent == (opening + b"1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n") * 2


def counted(length: int, *pieces: bytes) -> FakeApp:
    """Answers with a stream whose length is said before."""

    async def stream(send: Send) -> None:
        for piece in pieces:
            await send(piece)

    async def answer(_: Request) -> Response:
        return Response(body=stream, length=length)

    return FakeApp(answer)


async def test_a_stream_whose_length_is_known_is_sent_as_it_is() -> None:
    head = b"HTTP/1.1 200 OK\r\n" + DATE + b"content-length: 4\r\n\r\n"
    whole = await answer_to(GET, GET, app=counted(4, b"a", b"", b"bcd"))
    assert whole == 2 * (head + b"abcd")
    asked = GET.replace(b"GET", b"HEAD")
    assert await answer_to(asked, app=counted(4, b"abcd")) == head
    old = await answer_to(b"GET / HTTP/1.0\r\n\r\n", app=counted(4, b"abcd"))
    assert old == head.replace(DATE, DATE + b"connection: close\r\n") + b"abcd"


@pytest.mark.parametrize("pieces", [(b"abc",), (b"ab", b"cde")])
async def test_one_that_is_of_another_length_is_cut_off(
    pieces: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    sent = await answer_to(GET, GET, app=counted(4, *pieces))
    assert sent.count(b"HTTP/1.1") == 1
    assert len(sent.partition(b"\r\n\r\n")[2]) < 4
    assert "broke off" in caplog.text


async def test_the_request_has_the_address_it_came_from() -> None:
    app = FakeApp()
    stream = ScriptedStream([GET])
    await Connection(stream, app, Limits(), HeadWriter(lambda: 0), "192.0.2.1").serve()
    await answer_to(GET, app=app)
    assert [request.remote for request in app.asked] == ["192.0.2.1", ""]


async def test_for_http_1_0_it_ends_with_the_connection() -> None:
    sent = await answer_to(b"GET / HTTP/1.0\r\n\r\n", app=answering(Response(body=count_to_3)))
    assert sent == b"HTTP/1.1 200 OK\r\n" + DATE + b"connection: close\r\n\r\n012"


async def test_the_head_of_a_stream_does_not_wait_for_its_first_piece() -> None:
    async def stream(_: Send) -> None:
        await trio.sleep_forever()

    async with a_client(answering(Response(body=stream))) as client:
        await client.send_all(GET)
        assert (await client.receive_some()).endswith(b"transfer-encoding: chunked\r\n\r\n")


async def test_a_stream_that_raises_never_looks_whole(caplog: pytest.LogCaptureFixture) -> None:
    async def stream(send: Send) -> NoReturn:
        await send(b"half")
        raise LookupError

    sent = await answer_to(GET + GET, app=answering(Response(body=stream)))
    assert sent.endswith(b"\r\n\r\n4\r\nhalf\r\n")
    assert caplog.messages == ["the body of GET '/' broke off"]


async def test_resources_may_cut_a_stream_off(caplog: pytest.LogCaptureFixture) -> None:
    scope = trio.CancelScope()

    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        with scope:
            yield

    async def stream(send: Send) -> None:
        await send(b"half")
        scope.cancel()
        await trio.sleep_forever()

    async def handler(_: Request) -> Response:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(resources())
            return Response(body=stream, resources=stack.pop_all())

    sent = await answer_to(GET + GET, app=FakeApp(handler))
    assert sent.endswith(b"\r\n\r\n4\r\nhalf\r\n")
    assert caplog.records == []


async def test_where_the_stream_can_it_is_aborted_in_the_middle_and_only_there() -> None:
    class Abortable(ScriptedStream):
        aborted = False

        def abort(self) -> None:
            self.aborted = True

    async def stream(_: Send) -> NoReturn:
        raise LookupError

    for response, aborted in [(Response(body=stream), True), (Response(body=count_to_3), False)]:
        server = Abortable([b"GET / HTTP/1.0\r\n\r\n"])
        await serve_connection(server, answering(response))
        assert (server.aborted, server.closed) == (aborted, True)


@pytest.mark.parametrize("waits", [True, False])
async def test_a_client_that_leaves_cancels_a_stream(
    waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    async def stream(send: Send) -> None:
        try:
            while True:
                await send(b"a")
                if waits:
                    await trio.sleep_forever()
        finally:
            log.append("cancelled")

    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, answering(Response(body=stream)))
        await client.send_all(GET)
        await client.receive_some()
        await client.aclose()
    assert log == ["cancelled"]
    assert caplog.records == []


async def test_a_stream_lets_others_have_their_turn_where_sending_never_waits() -> None:
    turns: list[str] = []

    async def other() -> None:
        while turns.count("stream") < 100:
            turns.append("other")
            await trio.lowlevel.checkpoint()

    async def stream(send: Send) -> None:
        for _ in range(100):
            await send(b"a")
            turns.append("stream")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        nursery.start_soon(serve_connection, Eager([GET]), answering(Response(body=stream)))
    assert turns.count("other") >= 100


async def test_a_stream_may_take_its_time_between_pieces(autojump_clock: MockClock) -> None:
    async def stream(send: Send) -> None:
        for _ in range(3):
            await send(b"a")
            await trio.sleep(1000)

    async with a_client(answering(Response(body=stream))) as client:
        await client.send_all(b"GET / HTTP/1.0\r\n\r\n")
        assert (await read_to_end(client)).endswith(b"aaa")
        assert autojump_clock.current_time() == 3000


async def test_a_slow_reader_holds_a_stream_back() -> None:
    """Through a pipe that holds one send at a time, the stream is never two ahead."""
    written = 0

    async def stream(send: Send) -> None:
        nonlocal written
        for _ in range(100):
            await send(b"a" * 1000)
            written += 1

    taking, taken = trio.open_memory_channel[bytes](0)

    class Pipe(ScriptedStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await taking.send(bytes(data))

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return await super().receive_some(max_bytes) or await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, Pipe([GET]), answering(Response(body=stream)))
        assert (await taken.receive()).startswith(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            await wait_all_tasks_blocked()
            assert written == number
            assert await taken.receive() == b"3e8\r\n" + b"a" * 1000 + b"\r\n"
        assert await taken.receive() == b"0\r\n\r\n"
        nursery.cancel_scope.cancel()


# Draining


async def test_drain_ends_an_idle_connection_at_once() -> None:
    client, server = memory_stream_pair()
    connection = Connection(server, FakeApp(), Limits(), HeadWriter(lambda: 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(GET)
        await client.receive_some()
        await wait_all_tasks_blocked()
        connection.drain()
        assert await client.receive_some() == b""


@pytest.mark.parametrize("pieces", [[GET[:5], GET[5:]], [POST[:-1], POST[-1:]]])
async def test_drain_lets_a_request_that_has_begun_be_answered(pieces: list[bytes]) -> None:
    client, server = memory_stream_pair()
    connection = Connection(server, FakeApp(), Limits(), HeadWriter(lambda: 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(pieces[0])
        await wait_all_tasks_blocked()
        connection.drain()
        await client.send_all(pieces[1])
        (answer,) = parse_answers(await read_to_end(client), ["GET"])
        assert (answer.status, answer.closes) == (200, True)


async def test_drain_lets_a_handler_finish() -> None:
    may_finish = trio.Event()

    async def handler(_: Request) -> Response:
        await may_finish.wait()
        return Response(body=b"finished")

    client, server = memory_stream_pair()
    connection = Connection(server, FakeApp(handler), Limits(), HeadWriter(lambda: 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(GET)
        await wait_all_tasks_blocked()
        connection.drain()
        may_finish.set()
        (answer,) = parse_answers(await read_to_end(client), ["GET"])
        assert answer == Answer(200, answer.headers, b"finished", closes=True)


async def test_drain_in_the_middle_of_an_answer_ends_the_connection_after_it(
    autojump_clock: MockClock,
) -> None:
    class Draining(ScriptedStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            connection.drain()
            await super().send_all(data)

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return await super().receive_some(max_bytes) or await trio.sleep_forever()

    stream = Draining([GET])
    connection = Connection(stream, FakeApp(), Limits(), HeadWriter(lambda: 0))
    await connection.serve()
    (answer,) = parse_answers(bytes(stream.sent), ["GET"])
    assert answer.body == b"GET / "
    assert autojump_clock.current_time() == 0


async def test_drain_lets_the_next_of_several_pipelined_requests_say_that_it_is_the_last() -> None:
    stream = Eager([GET * 10])
    connection = Connection(stream, FakeApp(), Limits(), HeadWriter(lambda: 0))

    async def drain() -> None:
        while not stream.sent:
            await trio.lowlevel.checkpoint()
        connection.drain()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        nursery.start_soon(connection.serve)
    closes = [answer.closes for answer in parse_answers(bytes(stream.sent), ["GET"] * 10)]
    # Trio runs the two tasks of a round in any order.
    assert closes in ([False, True], [False, False, True])


async def test_drain_ends_a_stream_that_has_no_end() -> None:
    async def events(send: Send) -> None:
        await send(b"event")
        await trio.sleep_forever()

    client, server = memory_stream_pair()
    app = answering(Response(body=events, endless=True))
    connection = Connection(server, app, Limits(), HeadWriter(lambda: 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(GET)
        await wait_all_tasks_blocked()
        connection.drain()
        (answer,) = parse_answers(await read_to_end(client), ["GET"])
        assert answer.body == b"event"


async def test_drain_ends_one_that_begins_later() -> None:
    may_begin, log = trio.Event(), []

    async def events(send: Send) -> None:
        log.append("begun")
        await send(b"event")
        log.append("sent")

    async def handler(_: Request) -> Response:
        await may_begin.wait()
        return Response(body=events, endless=True)

    client, server = memory_stream_pair()
    connection = Connection(server, FakeApp(handler), Limits(), HeadWriter(lambda: 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(GET)
        await wait_all_tasks_blocked()
        connection.drain()
        may_begin.set()
        (answer,) = parse_answers(await read_to_end(client), ["GET"])
        assert (answer.body, answer.closes) == (b"", True)
    assert log == ["begun"]


async def test_drain_does_not_wait_for_who_does_not_read_a_stream_without_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(ScriptedStream):
        stuck = aborted = False

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if b"event" in bytes(data):
                self.stuck = True
                await trio.sleep_forever()
            await super().send_all(data)

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return await super().receive_some(max_bytes) or await trio.sleep_forever()

        def abort(self) -> None:
            self.aborted = True

    async def events(send: Send) -> None:
        await send(b"event")

    stream = Stuck([GET])
    app = answering(Response(body=events, endless=True))
    connection = Connection(stream, app, Limits(), HeadWriter(lambda: 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await wait_all_tasks_blocked()
        assert stream.stuck
        connection.drain()
    assert stream.aborted
    (message,) = caplog.messages
    assert message.startswith("the body of GET '/' broke off: the server stops")


async def test_a_stream_that_has_an_end_is_waited_for() -> None:
    may_end = trio.Event()

    async def rows(send: Send) -> None:
        await may_end.wait()
        await send(b"rows")

    client, server = memory_stream_pair()
    app = answering(Response(body=rows))
    connection = Connection(server, app, Limits(), HeadWriter(lambda: 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.serve)
        await client.send_all(GET)
        await wait_all_tasks_blocked()
        connection.drain()
        await wait_all_tasks_blocked()
        may_end.set()
        (answer,) = parse_answers(await read_to_end(client), ["GET"])
        assert answer.body == b"rows"
