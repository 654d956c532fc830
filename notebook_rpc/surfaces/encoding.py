"""Answers in a coding that their client takes: what a surface puts between its handler and the
transport, without a word about threads.

It refuses to code what gets no smaller, and to hide that a body broke off: what is coded breaks off
with it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

from notebook_rpc.errors import NotAcceptable
from notebook_rpc.sansio import negotiation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.web import Handler, Request, Response, Send, Stream

SMALLEST: Final = 1024  # bytes; what fits into a packet gains nothing
_GATHERED: Final = 64 * 1024  # bytes that are coded at a time, if there are more

VARY: Final = (b"vary", b"accept-encoding")
_NO_CONTENT: Final = 204
COMPRESSED: Final = {b"application/vnd.apache.parquet"}


class Coder(Protocol):
    """One body on its way; ``services.compression.Coder`` explains it."""

    async def write(self, pieces: Sequence[bytes | memoryview], /) -> bytes: ...
    async def end(self, pieces: Sequence[bytes | memoryview] = (), /) -> bytes: ...


class Codings(Protocol):
    """``services.compression.Compression``."""

    @property
    def codings(self) -> Sequence[str]: ...
    def begin(self, coding: str, /) -> Coder: ...


class Encoding:
    """Given to a surface, which wraps its handlers in it."""

    def __init__(self, codings: Codings | None = None) -> None:
        """None: nothing is ever coded."""
        self._codings = codings

    def of(self, handler: Handler) -> Handler:
        """*handler*, its answers coded if the client takes that and it is worth it. Who takes
        neither a coding of ours nor none is refused, with ``NotAcceptable``, before anything is
        done. Not for bodies whose pieces must not wait for others, such as events."""
        codings = self._codings
        if codings is None:
            return handler

        async def coded(request: Request) -> Response:
            accepted = request.header(b"accept-encoding")
            coding = negotiation.coding(accepted, codings.codings)
            if coding is None:
                offered = ", ".join([*codings.codings, negotiation.IDENTITY])
                raise NotAcceptable(f"there is no such coding: only {offered}")
            response = await handler(request)
            if response.status != _NO_CONTENT and not _is_compressed(response):
                response.headers = (*response.headers, VARY)
                smallest = SMALLEST if negotiation.coding(accepted, ()) else 1
                if coding != negotiation.IDENTITY and _size(response.body) >= smallest:
                    await _code(response, coding, codings.begin(coding))
            return response

        return coded


def _is_compressed(response: Response) -> bool:
    """As it is."""
    types = [value for name, value in response.headers if name == b"content-type"]
    return any(kind in COMPRESSED for kind in types)


def _size(body: bytes | Sequence[bytes] | Stream) -> float:
    if callable(body):
        return math.inf
    return len(body) if isinstance(body, bytes) else sum(map(len, body))


async def _code(response: Response, coding: str, coder: Coder) -> None:
    body = response.body
    if callable(body):
        response.body = _coded(coder, body)
    elif response.resources is None and response.done is None:
        response.body = await coder.end([body] if isinstance(body, bytes) else body)
    else:
        return  # whoever is cancelled here would leave them behind
    response.headers = (*response.headers, (b"content-encoding", coding.encode()))


def _coded(coder: Coder, body: Stream) -> Stream:
    async def stream(send: Send) -> None:
        gathered: list[bytes] = []
        size = 0

        async def code(piece: bytes) -> None:
            nonlocal gathered, size
            gathered.append(piece)
            size += len(piece)
            if size >= _GATHERED:
                pieces, gathered, size = gathered, [], 0
                if coded := await coder.write(pieces):
                    await send(coded)

        await body(code)
        await send(await coder.end(gathered))

    return stream
