"""What a surface is to the transport: routes from requests to responses.

Nothing here knows sockets or Trio; ``transport/http11.py`` makes the requests and sends
the responses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from urllib.parse import parse_qs

from notebook_rpc.sansio import routing
from notebook_rpc.sansio.tokens import ANYBODY, User

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, values as they were sent, in order."""

# Exactly this, without parameters: ADONotebook.CLI compares the whole value.
JSON: Final[Headers] = ((b"content-type", b"application/json"),)
RETRY_AFTER: Final[Headers] = ((b"retry-after", b"1"),)
"""With 503, for whom it is worth while to come again: in seconds."""


@dataclass(slots=True)
class Request:
    """One HTTP request. ``body`` is empty until it has been read.

    ``path`` is percent-decoded and without the query; ``query`` is raw. ``parameters`` are
    the parts of the path that its route names, ``user`` is whose token came with it, or
    ``NOBODY`` on a route that asks for it later. ``remote`` is the address it came from, "" where
    there are no addresses: on a Unix socket.
    """

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""
    parameters: Mapping[str, str] = field(default_factory=dict)
    user: User = ANYBODY
    remote: str = ""
    _arguments: Mapping[str, str] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def header(self, name: bytes) -> str | None:
        """The value of a header, *name* in lower case; several are joined as RFC 9110, 5.3 says."""
        values = [value for key, value in self.headers if key == name]
        if len(values) == 1:
            return values[0].decode("latin-1")
        return b", ".join(values).decode("latin-1") if values else None

    @property
    def is_json(self) -> bool:
        """Whether the body is said to be JSON."""
        media_type = (self.header(b"content-type") or "").partition(";")[0]
        return media_type.strip().lower() == "application/json"

    @property
    def arguments(self) -> Mapping[str, str]:
        """Those in the query, as it was when they were first asked for; of several with one name
        the last."""
        if self._arguments is None:
            parsed = parse_qs(self.query, keep_blank_values=True)
            self._arguments = {name: values[-1] for name, values in parsed.items()}
        return self._arguments

    def argument(self, name: str) -> str | None:
        return self.arguments.get(name)


Send: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Passes a piece of a body on; returns once the peer is ready for more."""

Stream: TypeAlias = Callable[[Send], Awaitable[None]]
"""Writes a body of unknown length. It runs in the connection's own task and is cancelled
with it; if it raises, the client sees a body that was cut off, never one that looks whole."""


class BrokenOff(Exception):
    """A stream cannot go on, and not for a bug; the message is for the log."""


class WebSocket(Protocol):
    """An open WebSocket, as a surface has it.

    Whoever converses on it is cancelled when the client leaves, and closes the socket, with
    1000, by returning. Messages are received by one task at a time, and sent by any.
    """

    async def receive(self) -> str | bytes:
        """The next message, text or binary."""
        ...

    async def send(self, message: str | bytes | Sequence[bytes | memoryview]) -> None:
        """Send a text message (str) or a binary one (bytes, or pieces that are not joined).

        Messages go out in the order in which they were given; this returns when the client
        was ready to take this one, so that it waits as long as a slow reader makes it.
        """
        ...

    def sending(self, *, text: bool = False) -> AbstractAsyncContextManager[SendPieces]:
        """A message of unknown length, binary or *text*, sent in fragments as its pieces come.
        A text's pieces are UTF-8 together; one may end inside a character. Whatever
        else is to be sent waits for the end of the block; if that is an exception, the
        connection is cut, so that nobody takes the message for whole."""
        ...

    def working(self) -> AbstractContextManager[None]:
        """The work on a message that was received, for those who receive the next one meanwhile.
        A server that stops closes the socket, with 1001, when nothing is worked on any more."""
        ...

    def post(self, message: str | bytes) -> None:
        """Send when there is time for it, without waiting: for what the client did not ask for.
        A client that reads so slowly that too much has gathered is closed with 1008."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say why, and end. It does not return: the conversation is cancelled."""
        ...


SendPieces: TypeAlias = Callable[[Sequence[bytes | memoryview]], Awaitable[None]]

Conversation: TypeAlias = Callable[[WebSocket], Awaitable[None]]

WEBSOCKET: Final = routing.WEBSOCKET


@dataclass(slots=True)
class Response:
    """An answer. A sequence of pieces is sent as it is, without being joined first.

    Content-Length, Transfer-Encoding and Date are the transport's to set. ``done`` is called
    when the body is needed no more, sent or not; ``resources`` are then left, in the task of the
    handler, which has entered them. ``conversation``, with status 101, answers a request of the
    method WEBSOCKET, and begins when the socket is open. A body that is ``endless``, a stream of
    events say, is not waited for when the server stops: it is cancelled, and has then ended well.
    ``length`` is that of a stream which is known before it is written.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes | Sequence[bytes] | Stream = b""
    done: Callable[[], None] | None = None
    resources: AbstractAsyncContextManager[object] | None = None
    conversation: Conversation | None = None
    endless: bool = False
    length: int | None = None


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """``handler`` answers ``method`` on ``path``, where ``{name}`` stands for any one segment, and
    ``{name...}``, at its end, for all that may come."""

    method: str
    path: str
    handler: Handler
    asks_for_token: bool = False
    """A WebSocket's route whose clients may show their token in their first message. Until they
    have, the request's user is ``NOBODY``, and the surface must do nothing for them."""
    may_be_linked: bool = False
    """Pages of other sites may have links to it: to GET it does nothing and asks nobody."""


class Surface(Protocol):
    """One wire protocol."""

    def routes(self) -> Iterable[Route]: ...
