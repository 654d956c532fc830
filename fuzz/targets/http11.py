"""Any bytes get zero or more whole answers, at most one refusal as the last of them, and a
close: never a hang, never a 500, and the same answers however the bytes are split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11
import trio
import trio.testing

from notebook_rpc.transport.http11 import Limits, serve_connection
from notebook_rpc.web import Handler, Request, Response, Send

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_POST = b"POST /a HTTP/1.1\r\nHost: h\r\n"
_GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
SEEDS: list[bytes] = [
    b"",
    _GET,
    b"GET /a%20b?c=d HTTP/1.1\r\nHost: h\r\n\r\nHEAD /stream HTTP/1.1\r\nhost: h\r\n\r\n",
    b"\r\nGET http://other:80/x HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /stream HTTP/1.0\n\n",
    (_POST + b"Content-Length: 3\r\n\r\nabc").replace(b"/a", b"/stream") + _GET,
    b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /refused HTTP/1.1\r\nHost: h\r\n\r\n" + _POST + b"Content-Length: 2\r\n\r\nok",
    b"POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok" + _GET,
    _POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
    _POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    _POST + b"Content-Length: 3, 3\r\n\r\nabc",
    _POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _POST + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: v\r\n\r\nGET",
    _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    _POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
]
# Small, so that a fuzzer's inputs reach them.
LIMITS = Limits(header_bytes=2048, body_bytes=4096)


class ScriptedStream(trio.abc.HalfCloseableStream):
    """Gives *pieces* to its reader, one a read; keeps what it is sent.

    The end comes when nothing else happens any more, as a client that closes earlier would
    cancel what it asked for. No second stream takes part, so that a run takes a millisecond.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter([piece for piece in pieces if piece])
        self.sent = bytearray()
        self.closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = next(self._pieces, b"")
        if not piece:
            await trio.testing.wait_all_tasks_blocked()
        assert max_bytes is None or len(piece) <= max_bytes
        return piece

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


@dataclass
class Echo:
    """Answers with the request's body and keeps what it was asked."""

    asked: list[Request] = field(default_factory=list)

    def admit(self, request: Request) -> Handler | Response:
        self.asked.append(request)
        return Response(403) if request.path == "/refused" else self.echo

    async def echo(self, request: Request) -> Response:
        async def stream(send: Send) -> None:
            await send(request.body)

        if request.path == "/stream" and not request.query:
            return Response(body=stream)
        return Response(
            headers=((b"x-path", request.path.encode().hex().encode()),), body=request.body
        )


@dataclass(frozen=True)
class Answer:
    """One final answer, as an h11 client understands it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    closes: bool


def parse_answers(data: bytes, methods: list[str]) -> list[Answer]:
    """Read whole answers to requests with *methods*, and nothing else, from *data*."""
    answers: list[Answer] = []
    while data:
        # More answers than requests: the last is a refusal of what was no request.
        method = methods[len(answers)] if len(answers) < len(methods) else "GET"
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        client.receive_data(b"")
        head, body = None, bytearray()
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.InformationalResponse)
        assert head is not None
        closes = client.their_state is h11.MUST_CLOSE
        answers.append(Answer(head.status_code, tuple(head.headers), bytes(body), closes))
        data = client.trailing_data[0]
    return answers


def exchange(pieces: list[bytes]) -> tuple[list[Answer], list[Request]]:
    """Send *pieces* and then the end to a server; return all that came of it."""
    app, stream = Echo(), ScriptedStream(pieces)

    async def main() -> None:
        with trio.fail_after(3600):  # every limit in seconds has passed by then
            await serve_connection(stream, app, LIMITS, wall_clock=lambda: 0)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert stream.closed
    return parse_answers(bytes(stream.sent), [request.method for request in app.asked]), app.asked


def check_answers(answers: list[Answer], requests: list[Request]) -> None:
    """At most one refusal; nothing after an answer that closes; the others are the app's."""
    refusals = [answer for answer in answers if answer.status not in (200, 403)]
    assert len(refusals) <= 1
    assert all(answer.status == 501 or 400 <= answer.status < 500 for answer in refusals)
    assert all(answer.body == b"" and answer is answers[-1] for answer in refusals)
    assert not any(answer.closes for answer in answers[:-1])
    answered = len(answers) - len(refusals)
    # A request whose body is cut off or too large was admitted, and is the one refused.
    assert len(requests) - answered in (0, len(refusals))


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Ways to cut *data*, chosen by itself."""
    step = 1 + sum(data) % 7 + len(data) // 512
    yield [data[at : at + step] for at in range(0, len(data), step)]
    middle = sum(data[::3]) % (len(data) + 1)
    yield [data[:middle], data[middle:]]


def target(data: bytes) -> None:
    answers, requests = exchange([data])
    check_answers(answers, requests)
    for pieces in splits(data):
        assert exchange(pieces) == (answers, requests), pieces
