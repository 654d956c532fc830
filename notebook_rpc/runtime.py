"""What the scripts of ``serve --routes`` import: routes, answers, and the databases.

One module for every script of every server in the process, so it keeps nothing itself: ``http``
and ``sql`` ask the context they are called in which server, and which request, is meant. Where a
call has to wait, an ``async def`` awaits it, and plain code, which runs on a thread, is kept
waiting.

It refuses to guess what a handler's value may mean: a handler returns what the helpers of
``http`` have made.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar
from urllib.parse import quote

import trio

from notebook_rpc import _runtime_messages as messages
from notebook_rpc._runtime_messages import BadRequest, Event, Request, Response
from notebook_rpc.errors import NotebookError as SqlError
from notebook_rpc.sansio import sse
from notebook_rpc.web import WEBSOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc._runtime_messages import GivenHeaders, Pieces
    from notebook_rpc.model import Parameters

__all__ = ["BadRequest", "Request", "Response", "Rows", "SqlError", "WebSocket", "http", "sql"]

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")

Work: TypeAlias = "Callable[[], Coroutine[Any, Any, T]]"
Handler: TypeAlias = "Callable[..., Any]"

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
STATIC: Final = "STATIC"
MIDDLEWARE: Final = "MIDDLEWARE"
NOT_FOUND: Final = "NOT FOUND"

TEXT: Final = "text/plain; charset=utf-8"
_URL: Final = "/:?#[]@!$&'()*+,;=%~"  # RFC 3986, 2.2, and what is escaped already


# Where a script is


@dataclass(frozen=True, slots=True)
class Registered:
    """What a script has asked for, and where. ``method`` is one of HTTP, ``WEBSOCKET``,
    ``STATIC``, ``MIDDLEWARE`` or ``NOT_FOUND``; ``handler`` is a function, the name of one, or
    the folder to be served."""

    method: str
    path: str
    handler: Handler | str
    file: str
    line: int


class Ask(Protocol):
    """Has something done on the event loop, and keeps the thread waiting for it."""

    def __call__(self, work: Work[T], /) -> T: ...


class Lane(Protocol):
    """A connection to a database that is a session's own."""

    async def query(self, sql: str, params: Parameters | None, /) -> Rows: ...


class Desk(Protocol):
    """The databases, as the user of a request may use them. Raises ``SqlError``."""

    async def query(
        self, sql: str, params: Parameters | None, connection: str | None, /
    ) -> Rows: ...
    def session(self, connection: str | None, /) -> AbstractAsyncContextManager[Lane]: ...


LOADING: Final[ContextVar[Callable[[Registered], None]]] = ContextVar("LOADING")
"""Who hears what the script that is being loaded registers."""

DESK: Final[ContextVar[Desk]] = ContextVar("DESK")
"""Of the request that is answered here."""

ASK: Final[ContextVar[Ask]] = ContextVar("ASK")
"""Of the thread that a plain handler runs on."""


def _do(work: Work[T]) -> Any:
    """What *work* gives: to be awaited in Trio, else at once."""
    if trio.lowlevel.in_trio_task():
        return work()
    ask = ASK.get(None)
    if ask is None:
        raise RuntimeError("this thread belongs to no request; ask for it in the handler's own")
    return ask(work)


# Routes and answers


class Http:
    """Routes, for setup scripts, and answers, for handlers."""

    # Routes. A handler is a function, or where it is found: "module.function". Without one, what
    # is returned decorates one.

    def get(self, path: str, handler: Handler | str | None = None) -> Any:
        return self._route("GET", path, handler)

    def post(self, path: str, handler: Handler | str | None = None) -> Any:
        return self._route("POST", path, handler)

    def put(self, path: str, handler: Handler | str | None = None) -> Any:
        return self._route("PUT", path, handler)

    def patch(self, path: str, handler: Handler | str | None = None) -> Any:
        return self._route("PATCH", path, handler)

    def delete(self, path: str, handler: Handler | str | None = None) -> Any:
        return self._route("DELETE", path, handler)

    def route(
        self, path: str, handler: Handler | str | None = None, methods: Iterable[str] = ("GET",)
    ) -> Any:
        """The same for several methods."""
        names = [str(method).upper() for method in methods]
        if unknown := set(names) - METHODS:
            raise ValueError(f"there are no routes for {', '.join(sorted(unknown))}")
        found = [self._route(name, path, handler) for name in names]
        if handler is not None:
            return found[0]

        def registered(function: F) -> F:
            for register in found:
                register(function)
            return function

        return registered

    def websocket(self, path: str, handler: Handler | str | None = None) -> Any:
        """The handler is given a ``WebSocket``, which is closed when it returns."""
        return self._route(WEBSOCKET, path, handler)

    def middleware(self, handler: Handler | str) -> Any:
        """Asked before every handler: None lets the request pass, a response answers it."""
        return self._route(MIDDLEWARE, "", handler)

    def not_found(self, handler: Handler | str) -> Any:
        """Answers where there is no route."""
        return self._route(NOT_FOUND, "", handler)

    def static(self, path: str, directory: str) -> None:
        """Serve the files of a folder, which is found from the script's own."""
        self._route(STATIC, path, str(directory))

    def _route(self, method: str, path: str, handler: Handler | str | None) -> Any:
        register = LOADING.get(None)
        if register is None:
            raise RuntimeError("routes are registered while the setup script is loaded")
        place = _caller()

        def registered(found: F) -> F:
            register(Registered(method, str(path), found, *place))
            return found

        if handler is None:
            return registered
        register(Registered(method, str(path), handler, *place))
        return None if isinstance(handler, str) else handler

    # Answers

    def json(self, status: int, data: Any, headers: GivenHeaders = None) -> Response:
        """*data* as JSON: of dates the ISO form, of decimals every digit, of bytes base64."""
        return messages.made(status, messages.encoded(data), "application/json", headers)

    def text(self, status: int, content: str, headers: GivenHeaders = None) -> Response:
        return messages.made(status, content.encode(), TEXT, headers)

    def html(self, status: int, content: str, headers: GivenHeaders = None) -> Response:
        return messages.made(status, content.encode(), "text/html; charset=utf-8", headers)

    def redirect(self, location: str, status: int = 302) -> Response:
        return messages.made(status, b"", None, {"location": quote(location, safe=_URL)})

    def response(
        self,
        status: int,
        body: str | bytes = b"",
        content_type: str | None = None,
        headers: GivenHeaders = None,
    ) -> Response:
        """Anything else."""
        return messages.made(status, messages.as_bytes(body), content_type, headers)

    def stream(
        self,
        pieces: Pieces,
        status: int = 200,
        content_type: str = TEXT,
        headers: GivenHeaders = None,
    ) -> Response:
        """The pieces, text or bytes, as they are made: by a generator, say, or an asynchronous
        one. Each is asked for when the client has taken the one before."""
        encode = messages.as_bytes
        return messages.made(status, pieces, content_type, headers, encode=encode)

    def events(self, events: Pieces, headers: GivenHeaders = None) -> Response:
        """Server-sent events: what ``event`` makes, a text, or anything that ``json`` takes."""
        given = {"cache-control": "no-store", "x-accel-buffering": "no", **dict(headers or ())}
        kind, encode = sse.CONTENT_TYPE.decode(), messages.as_event
        return messages.made(200, events, kind, given, encode=encode, endless=True)

    def parse_query(self, query: str) -> dict[str, str]:
        """The arguments of a query, or of a form's body; of several with one name the last."""
        return messages.arguments(query)

    def event(self, data: Any, name: str = "", id: str | None = None) -> Event:  # noqa: A002  # its name in the format
        return Event(data, name, id)


def _caller() -> tuple[str, int]:
    """Where a script has called us: its file and line."""
    frame = sys._getframe(1)  # noqa: SLF001  # inspect.stack() reads the files of all of them
    # No number of frames: before Python 3.12 a comprehension has one of its own.
    while frame.f_globals is globals() and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


# Databases


class Rows(list[dict[str, Any]]):
    """What a statement gave: a dictionary for each row. Values are those of JSON everywhere
    here, but a DECIMAL is a ``decimal.Decimal``. ``touched`` is how many rows a statement without
    rows has touched, -1 of one with rows."""

    def __init__(
        self, rows: Iterable[dict[str, Any]] = (), columns: tuple[str, ...] = (), touched: int = -1
    ) -> None:
        super().__init__(rows)
        self.columns = columns
        self.touched = touched


class Session:
    """A connection of the handler's own during a ``with`` or ``async with``: transactions and
    temporary tables last as long; what is still open at the end is rolled back."""

    def __init__(self, opened: AbstractAsyncContextManager[Lane]) -> None:
        self._opened = opened
        self._lane: Lane | None = None

    def query(self, sql: str, params: Parameters | None = None) -> Any:
        """As ``sql.query``."""
        if self._lane is None:
            raise RuntimeError("the session is not open; use it in a with block")
        return _do(partial(self._lane.query, sql, params))

    async def __aenter__(self) -> Session:
        self._lane = await self._opened.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._lane = None
        await self._opened.__aexit__(None, None, None)

    def __enter__(self) -> Session:
        _do(self.__aenter__)
        return self

    def __exit__(self, *exc: object) -> None:
        _do(self.__aexit__)


class Sql:
    """The server's databases, as the user whose token came with the request may use them."""

    def query(
        self, sql: str, params: Parameters | None = None, connection: str | None = None
    ) -> Any:
        """Run *sql*, with values for its placeholders, and return its ``Rows``, all of them; in an
        ``async def``, await it. *connection* is the name of a database other than the first.

        Raises:
            SqlError: it failed, or its rows are more than one page may hold.
        """
        return _do(partial(_desk().query, sql, params, connection))

    def session(self, connection: str | None = None) -> Session:
        return Session(_desk().session(connection))


def _desk() -> Desk:
    desk = DESK.get(None)
    if desk is None:
        raise RuntimeError("there is no request here, whose user could ask a database")
    return desk


# WebSockets


class Talk(Protocol):
    """One client's conversation."""

    @property
    def connected(self) -> bool: ...
    async def receive(self, timeout: float | None, /) -> str | bytes | None: ...  # noqa: ASYNC109  # of plain code
    async def send(self, message: str | bytes, /) -> None: ...
    async def close(self, code: int, reason: str, /) -> None: ...


class WebSocket:
    """What the handler of a WebSocket is given. In an ``async def``, await its calls, but for
    ``connected``. Any handler may send to the socket of another."""

    def __init__(self, talk: Talk, request: Request) -> None:
        self._talk = talk
        self.request = request

    @property
    def remote_addr(self) -> str:
        return self.request.remote_addr

    def connected(self) -> bool:
        return self._talk.connected

    def receive(self, timeout: float | None = 30) -> Any:
        """The next message, str or bytes; None if none came in *timeout* seconds, or the client
        has left."""
        return _do(partial(self._talk.receive, timeout))

    def send(self, message: Any) -> Any:
        """Text and bytes as they are, anything else as JSON.

        Raises:
            ConnectionError: the client has left.
        """
        ready = message if isinstance(message, str | bytes) else messages.text(message)
        return _do(partial(self._talk.send, ready))

    def send_binary(self, data: bytes | Iterable[int]) -> Any:
        return _do(partial(self._talk.send, bytes(data)))

    def close(self, code: int = 1000, reason: str = "") -> Any:
        return _do(partial(self._talk.close, code, reason))


http: Final = Http()
sql: Final = Sql()
