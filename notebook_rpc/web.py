"""What a surface is to the transport: routes from requests to responses.

Nothing here knows sockets or Trio; ``transport/http11.py`` makes the requests and sends
the responses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from notebook_rpc.sansio.tokens import ANYBODY, User

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, values as they were sent, in order."""


@dataclass(slots=True)
class Request:
    """One HTTP request. ``body`` is empty until it has been read.

    ``path`` is percent-decoded and without the query; ``query`` is raw. ``parameters`` are
    the parts of the path that its route names, ``user`` is whose token came with it.
    """

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""
    parameters: Mapping[str, str] = field(default_factory=dict)
    user: User = ANYBODY

    def header(self, name: bytes) -> str | None:
        """The value of a header, *name* in lower case; several are joined as RFC 9110, 5.3 says."""
        values = [value for key, value in self.headers if key == name]
        if len(values) == 1:
            return values[0].decode("latin-1")
        return b", ".join(values).decode("latin-1") if values else None


Send: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Passes a piece of a body on; returns once the peer is ready for more."""

Stream: TypeAlias = Callable[[Send], Awaitable[None]]
"""Writes a body of unknown length. It runs in the connection's own task and is cancelled
with it; if it raises, the client sees a body that was cut off, never one that looks whole."""


@dataclass(slots=True)
class Response:
    """An answer. A sequence of pieces is sent as it is, without being joined first.

    Content-Length, Transfer-Encoding and Date are the transport's to set. ``done`` is called
    when the body is needed no more, sent or not.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes | Sequence[bytes] | Stream = b""
    done: Callable[[], None] | None = None


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """``handler`` answers ``method`` on ``path``, where ``{name}`` stands for any one segment."""

    method: str
    path: str
    handler: Handler


class Surface(Protocol):
    """One wire protocol."""

    def routes(self) -> Iterable[Route]: ...
