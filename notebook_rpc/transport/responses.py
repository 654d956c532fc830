"""HTTP/1.1 responses: status and headers to bytes, bodies to pieces worth sending.

No I/O, and a wall clock that is handed in. What a handler got wrong is refused before a
byte of it is sent.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import h11

from notebook_rpc.web import WEBSOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from notebook_rpc.web import Headers, Response

SWITCHING_PROTOCOLS = 101
PIECE = 256 * 1024  # bytes passed to a stream at once; larger gains nothing and holds more

# 499 is in no RFC: it is what errors.py has for a call that was cancelled.
_PHRASES: Final = {**{status.value: status.phrase for status in HTTPStatus}, 499: "Cancelled"}


class HeadWriter:
    """Writes response heads, remembering the last few hundred different ones.

    h11 validates the headers; framing and Date are the connection's own business, and a
    response that brings them is a bug.
    """

    MAX_REMEMBERED = 256
    OURS = frozenset({b"content-length", b"transfer-encoding", b"date"})
    OPENING = frozenset(
        {b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-extensions"}
    )

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._remembered: dict[tuple[int, Headers], bytes] = {}
        self._second = -1
        self._date = b""

    def write(self, status: int, headers: Headers, framing: bytes) -> bytes:
        """A head up to and including its blank line; *framing* is lines of ours, or empty.

        Raises:
            h11.LocalProtocolError, ValueError: the status or a header cannot be sent.
        """
        return self.opening(status, headers) + self._date_line() + framing + b"\r\n"

    def opening(self, status: int, headers: Headers) -> bytes:
        """The status line and *headers*; also how a response is found to be valid."""
        opening = self._remembered.get((status, headers))
        if opening is None:
            opening = self._render(status, headers)
            if len(self._remembered) >= self.MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[status, headers] = opening
        return opening

    def _render(self, status: int, headers: Headers) -> bytes:
        opens = status == SWITCHING_PROTOCOLS
        kind = h11.InformationalResponse if opens else h11.Response
        valid = kind(status_code=status, headers=list(headers)).headers
        ours = self.OURS | self.OPENING if opens else self.OURS
        if clash := ours.intersection(name for name, _ in valid):
            raise ValueError(f"a handler must not set {clash}")
        phrase = _PHRASES.get(status, "")
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode("ascii"))]
        lines += [b"%b: %b\r\n" % item for item in valid.raw_items()]
        return b"".join(lines)

    def _date_line(self) -> bytes:
        second = int(self._wall_clock())
        if second != self._second:
            self._second = second
            self._date = b"date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")
        return self._date


def check_kind(response: Response, method: str) -> None:
    """Raises ``ValueError`` if *response* opens a WebSocket by half, or one nobody asked for."""
    opens = response.status == SWITCHING_PROTOCOLS
    if opens != (response.conversation is not None) or (opens and method != WEBSOCKET):
        raise ValueError("101 and a conversation answer a request for a WebSocket, together")


def wants_close(response: Response) -> bool:
    """Whether a handler asks for the connection to be closed after its response."""
    return any(
        name.lower() == b"connection" and b"close" in value.lower()
        for name, value in response.headers
    )


def pieces(opening: bytes, body: Sequence[bytes]) -> Iterator[bytes | memoryview]:
    """*opening* and *body* in pieces of at most PIECE: small neighbours are joined, large
    ones sliced without a copy."""
    small, size = [opening], len(opening)
    for part in body:
        if size + len(part) <= PIECE:
            small.append(part)
            size += len(part)
            continue
        yield b"".join(small)
        small, size = [], 0
        view = memoryview(part)
        while len(view) > PIECE:
            yield view[:PIECE]
            view = view[PIECE:]
        small, size = [cast("bytes", view)], len(view)
    yield b"".join(small)
