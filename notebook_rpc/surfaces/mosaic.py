"""What ``@uwdata/mosaic-core`` speaks: SQL in, Arrow or JSON out, over a WebSocket or HTTP.

Over a WebSocket answers have no ids: the client takes them in the order of its requests. So a
socket's requests are carried out one at a time, on a connection that is the socket's own. A GET
can only read.

What it refuses: to let a client take a part of a result for the whole, where the rest could not
be had.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import msgspec

from notebook_rpc.errors import InvalidRequest, NotebookError, ParseError
from notebook_rpc.model import BROKEN_STREAM, DEFAULT
from notebook_rpc.sansio import jsonrpc
from notebook_rpc.web import WEBSOCKET, BrokenOff, Response, Route

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.model import ResultColumn
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.web import Headers, Request, Send, WebSocket

logger = logging.getLogger(__name__)

Pieces: TypeAlias = Sequence[bytes | memoryview]

PATH: Final = "/mosaic"

NOTHING: Final = "{}"  # what the client takes for done
TEXT: Final = ((b"content-type", b"text/plain; charset=utf-8"),)
FORMATS: Final[Mapping[str, Headers]] = {
    "arrow": ((b"content-type", b"application/vnd.apache.arrow.stream"),),
    "json": ((b"content-type", b"application/json"),),
}


class Answer(Protocol):
    """A statement's rows; ``services.queries.Answer`` explains it."""

    @property
    def columns(self) -> Sequence[ResultColumn]: ...
    @property
    def ended(self) -> bool: ...
    async def read(self) -> Pieces: ...


class Queries(Protocol):
    """Statements on one database; ``services.queries.Queries`` explains each."""

    def alone(self) -> AbstractAsyncContextManager[Queries]: ...
    def arrow(self, sql: str, *, persist: bool = False) -> AbstractAsyncContextManager[Answer]: ...
    def json(self, sql: str, *, persist: bool = False) -> AbstractAsyncContextManager[Answer]: ...
    async def execute(self, sql: str) -> int: ...


class Find(Protocol):
    """Those of a user on a connection; raises ``UnknownConnection``."""

    def __call__(self, connection: str, user: User, /, *, read_only: bool = False) -> Queries: ...


class Asked(msgspec.Struct):
    """A request. Clients send more than these, which is theirs to know."""

    type: Literal["arrow", "json", "exec"]
    sql: str
    persist: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """``on_error`` hears the slug of each error that a client is told."""

    on_error: Callable[[str], None] = lambda _: None


class Mosaic:
    def __init__(self, queries: Find, options: Options) -> None:
        self._queries = queries
        self._options = options

    def routes(self) -> Iterable[Route]:
        yield Route(WEBSOCKET, PATH, self.open)
        yield Route("POST", PATH, self.post)
        yield Route("GET", PATH, self.get)

    # HTTP

    async def post(self, request: Request) -> Response:
        return await self._respond(request, request.body, read_only=False)

    async def get(self, request: Request) -> Response:
        """The request is in the query argument ``query``; what would write is an error."""
        query = request.argument("query") or ""
        return await self._respond(request, query.encode(), read_only=True)

    async def _respond(self, request: Request, body: bytes, *, read_only: bool) -> Response:
        try:
            asked = _parsed(body)
            queries = self._queries(_connection(request), request.user, read_only=read_only)
            if asked.type == "exec":
                await queries.execute(asked.sql)
                return Response(200)
            return await _streamed(queries, asked)
        except NotebookError as exc:
            self._options.on_error(exc.slug)
            return Response(exc.http_status, TEXT, _text(exc).encode())

    # WebSocket

    async def open(self, request: Request) -> Response:
        try:
            queries = self._queries(_connection(request), request.user)
        except NotebookError as exc:
            return Response(exc.http_status)
        return Response(101, conversation=partial(self._converse, queries))

    async def _converse(self, queries: Queries, socket: WebSocket) -> None:
        async with queries.alone() as own:
            while True:
                await self._answer(own, await socket.receive(), socket)

    async def _answer(self, queries: Queries, message: str | bytes, socket: WebSocket) -> None:
        try:
            asked = _parsed(message)
            if asked.type == "exec":
                await queries.execute(asked.sql)
                await socket.send(NOTHING)
            else:
                await _send(queries, asked, socket)
        except NotebookError as exc:
            self._options.on_error(exc.slug)
            await socket.send(jsonrpc.encode({"error": _text(exc)}).decode())
        except Exception:  # a bug of ours or of a driver: the client must get its answer
            logger.exception("a query failed")
            bug = "internal error; the server's log has the details"
            await socket.send(jsonrpc.encode({"error": bug}).decode())


def _parsed(message: str | bytes) -> Asked:
    try:
        return msgspec.json.decode(message, type=Asked)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"not a query: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ParseError("not JSON") from exc


def _connection(request: Request) -> str:
    return request.argument("connection") or DEFAULT


def _text(exc: NotebookError) -> str:
    """Never empty: the client takes an empty error for none."""
    return str(exc) or exc.slug


async def _streamed(queries: Queries, asked: Asked) -> Response:
    headers = FORMATS[asked.type]
    async with AsyncExitStack() as stack:
        answer = await stack.enter_async_context(_run(queries, asked))
        if not answer.columns:
            return Response(200)
        first = await answer.read()
        if answer.ended:
            return Response(200, headers, [bytes(piece) for piece in first])

        async def stream(send: Send) -> None:
            pieces = first
            while pieces:
                for piece in pieces:
                    await send(bytes(piece))
                try:
                    pieces = await answer.read()
                except NotebookError as exc:
                    raise BrokenOff(str(exc)) from exc

        return Response(200, headers, stream, resources=stack.pop_all())


def _run(queries: Queries, asked: Asked) -> AbstractAsyncContextManager[Answer]:
    ask = queries.arrow if asked.type == "arrow" else queries.json
    return ask(asked.sql, persist=asked.persist)


async def _send(queries: Queries, asked: Asked, socket: WebSocket) -> None:
    text = asked.type == "json"
    async with _run(queries, asked) as answer:
        if not answer.columns:
            await socket.send(NOTHING)
            return
        first = await answer.read()
        if not answer.ended:
            await _send_on(first, answer, socket, text=text)
            return
    await socket.send(b"".join(first).decode() if text else first)


async def _send_on(first: Pieces, answer: Answer, socket: WebSocket, *, text: bool) -> None:
    async with socket.sending(text=text) as send:
        pieces = first
        while pieces:
            await send(pieces)
            try:
                pieces = await answer.read()
            except NotebookError as exc:
                # The message is the request's one answer, and what is in it must not be usable;
                # JSON that ends too early is not.
                logger.warning("a result broke off: %s", exc)
                if not text:
                    await send([BROKEN_STREAM])
                return
