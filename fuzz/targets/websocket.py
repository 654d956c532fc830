"""Any bytes on an open WebSocket are messages that come back, pings that are answered, and at
most one farewell with a documented code: what wsproto alone sees, however they are split."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, TypeAlias

import trio
import trio.testing
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, TextMessage
from wsproto.events import Ping as PingEvent
from wsproto.events import Pong as PongEvent

from fuzz.targets.http11 import ScriptedStream
from notebook_rpc.transport.frames import Closing, Incoming, Ping, Pong, Violation
from notebook_rpc.transport.http11 import Limits, serve_connection
from notebook_rpc.web import Handler, Request, Response, WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT = 300  # bytes of a message; small, so that a fuzzer's inputs reach it
OURS = {1000, 1002, 1007, 1009}  # what we close with, if we are the first
ASKED = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
OFFERED = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

Said: TypeAlias = str | bytes | Ping | Pong | Closing | int


def _frame(first: int, payload: bytes, *, mask: bytes = b"\x00\x00\x00\x00") -> bytes:
    if len(payload) > 125:
        return bytes([first, 0xFE]) + len(payload).to_bytes(2, "big") + mask + payload
    return bytes([first, 0x80 | len(payload)]) + mask + payload


def _deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


# The first byte says whether compression is agreed on; the rest is what the client sends.
_HELLO = _frame(0x81, b"hello")
SEEDS: list[bytes] = [
    b"",
    b"\x00" + _HELLO + _frame(0x82, b"\x00\xff") + _frame(0x88, b"\x03\xe8bye"),
    b"\x00" + _frame(1, b"a\xc3") + _frame(0x89, b"?") + _frame(0, b"") + _frame(0x80, b"\xa9"),
    b"\x00" + _frame(0x81, bytes([0x5C, 0x2A, 0x35]), mask=b"\x34\x4f\x54\x00"),
    b"\x00" + _HELLO + _frame(0x81, b"\xff"),
    b"\x00" + _frame(0x81, b"x" * 301),
    b"\x00" + _frame(0x01, b"x" * 290) + _frame(0x80, b"x" * 11),
    b"\x00" + _frame(0x83, b"") + _HELLO,
    b"\x00" + _frame(0xC1, b"reserved"),
    b"\x00" + _frame(0x80, b"of nothing"),
    b"\x00\x81\x05hello",
    b"\x00" + _frame(0x88, b"\x03\xee") + _HELLO,
    b"\x00" + _frame(0x88, b"") + _HELLO,
    b"\x00" + _frame(0x8A, b"unasked for") + b"\x82\xff" + b"\xff" * 8,
    b"\x01" + _frame(0xC1, _deflated(b"hello " * 50)) + _HELLO,
    b"\x01" + _frame(0x42, _deflated(bytes(300))[:4]) + _frame(0x89, b"") + _frame(0x80, b"\x00"),
    b"\x01" + _frame(0xC2, _deflated(bytes(301))),
    b"\x01" + _frame(0xC1, bytes.fromhex("f348cdc9c9070000")) + _frame(0xC1, b"\xff"),
]


def read(pieces: Iterable[bytes], *, deflate: bool) -> list[Said]:
    """What *pieces* say; a number is the code of a close that they call for."""
    incoming = Incoming(LIMIT, deflate=deflate)
    said: list[Said] = []
    try:
        for piece in pieces:
            for event in incoming.feed(piece):
                if event is not None:
                    said.append(event)
                if isinstance(event, Closing):
                    return said
    except Violation as exc:
        said.append(known(exc.code, deflate=deflate))
    return said


def known(code: int, *, deflate: bool) -> int:
    """Deflated data can be both broken and too large. Which is seen first, is by chance."""
    return 1007 if deflate and code == 1009 else code


def understood(connection: Connection, data: bytes) -> list[Said]:
    """What wsproto alone understands."""
    said: list[Said] = []
    parts: list[str | bytes] = []
    connection.receive_data(data)
    events: Iterable[Event] = connection.events()
    for event in events:
        if isinstance(event, TextMessage | BytesMessage):
            parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
            if event.message_finished:
                said.append(parts[0][:0].join(parts))  # type: ignore[arg-type]  # all of one kind
                parts.clear()
        elif isinstance(event, PingEvent):
            said.append(Ping(bytes(event.payload)))
        elif isinstance(event, PongEvent):
            said.append(Pong(bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            code = None if event.code == 1005 else int(event.code)
            said.append(Closing(code, event.reason or ""))
    return said


class Echo:
    def admit(self, _request: Request) -> Handler:
        return self.answer

    async def answer(self, _request: Request) -> Response:
        return Response(101, conversation=self.converse)

    async def converse(self, peer: WebSocket) -> None:
        while True:
            await peer.send(await peer.receive())


def exchange(pieces: list[bytes], *, deflate: bool) -> bytes:
    """What a server sends on the socket to a client that sends *pieces*, then the end."""
    asked = ASKED + (OFFERED if deflate else b"") + b"\r\n"
    stream = ScriptedStream([asked, *pieces])

    async def main() -> None:
        with trio.fail_after(3600):  # every limit in seconds has passed by then
            await serve_connection(stream, Echo(), Limits(message_bytes=LIMIT))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert stream.closed
    head, _, rest = bytes(stream.sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert (b"permessage-deflate" in head) == deflate
    return rest


def split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def target(data: bytes) -> None:
    deflate, data = data[:1] == b"\x01", data[1:]
    said = read([data], deflate=deflate)
    for size in (1, 3, 7):
        assert read(split(data, size), deflate=deflate) == said
    end = said[-1] if said else 0
    assert not isinstance(end, int) or end == 0 or end in OURS
    if not deflate and end != 1009:
        broken = isinstance(end, int) and end != 0
        # A frame out of place we refuse by its header; wsproto waits for the mask and a byte more.
        reference = understood(Connection(ConnectionType.SERVER), data + bytes(5 * broken))
        if broken:
            last = reference.pop()
            assert isinstance(last, Closing)
            assert last.code == end
            assert reference == said[:-1]
        else:
            assert reference == said
    for size in (len(data) + 1, len(data) // 2 + 1, len(data) // 20 + 1):
        check_answers(exchange(split(data, size), deflate=deflate), said, deflate=deflate)


def check_answers(sent: bytes, said: list[Said], *, deflate: bool) -> None:
    """Messages come back in order, and pings, of which some may be left out (RFC 6455, 5.5.3)."""
    answers = understood(Connection(ConnectionType.CLIENT), sent)
    messages = [each for each in said if isinstance(each, str | bytes)]
    assert [each for each in answers if isinstance(each, str | bytes)] == messages
    pings = iter([each.payload for each in said if isinstance(each, Ping)])
    for pong in answers:
        if isinstance(pong, Pong):
            assert pong.payload in pings  # searches on from the one before
    closes = [each for each in answers if isinstance(each, Closing)]
    end = said[-1] if said else 0
    if isinstance(end, Closing):
        assert closes == [Closing(end.code, "")]
    elif isinstance(end, int) and end:
        assert [known(each.code or 0, deflate=deflate) for each in closes] == [end]
    else:
        assert closes == []
