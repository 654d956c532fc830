"""What ``@uwdata/mosaic-core`` speaks: SQL in, Arrow or JSON out, over a WebSocket or HTTP.

Over a WebSocket answers have no ids: the client takes them in the order of its requests. So a
socket's requests are carried out one at a time, on a connection that is the socket's own. A GET
can only read.

What it refuses: to let a client take a part of a result for the whole, where the rest could not
be had.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from notebook_rpc.errors import NotebookError
from notebook_rpc.model import BROKEN_STREAM, DEFAULT
from notebook_rpc.sansio.jsontext import MAX_DEPTH, encode, read
from notebook_rpc.surfaces._rows import pass_on, stream
from notebook_rpc.surfaces._telling import BUG, reason, telling
from notebook_rpc.web import JSON, WEBSOCKET, BrokenOff, Response, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.surfaces._rows import Answer
    from notebook_rpc.web import Headers, Request, WebSocket

logger = logging.getLogger(__name__)

PATH: Final = "/mosaic"

NOTHING: Final = "{}"  # what the client takes for done
TEXT: Final = ((b"content-type", b"text/plain; charset=utf-8"),)
FORMATS: Final[Mapping[str, Headers]] = {
    "arrow": ((b"content-type", b"application/vnd.apache.arrow.stream"),),
    "json": JSON,
}
# What makes an answer unreadable that breaks off: JSON that ends too early is so by itself.
LAST_WORDS: Final = {"arrow": BROKEN_STREAM, "json": b""}


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
    """``on_error`` hears the slug of each error that a client is told; ``max_depth`` is how deep
    JSON may be nested."""

    on_error: Callable[[str], None] = lambda _: None
    max_depth: int = MAX_DEPTH


class Mosaic:
    def __init__(self, queries: Find, options: Options) -> None:
        self._queries = queries
        self._options = options

    def routes(self) -> Iterable[Route]:
        for method, handler in (("POST", self.post), ("GET", self.get), (WEBSOCKET, self.open)):
            yield Route(method, PATH, telling(handler, _spell, self._options.on_error))

    # HTTP

    async def post(self, request: Request) -> Response:
        return await self._respond(request, request.body, read_only=False)

    async def get(self, request: Request) -> Response:
        """The request is in the query argument ``query``; what would write is an error."""
        query = request.argument("query") or ""
        return await self._respond(request, query.encode(), read_only=True)

    async def _respond(self, request: Request, body: bytes, *, read_only: bool) -> Response:
        asked = self._read(body)
        queries = self._queries(_connection(request), request.user, read_only=read_only)
        if asked.type == "exec":
            await queries.execute(asked.sql)
            return Response(200)
        return await _streamed(queries, asked)

    def _read(self, message: str | bytes) -> Asked:
        return read(message, Asked, self._options.max_depth)

    # WebSocket

    async def open(self, request: Request) -> Response:
        queries = self._queries(_connection(request), request.user)
        return Response(101, conversation=partial(self._converse, queries))

    async def _converse(self, queries: Queries, socket: WebSocket) -> None:
        async with queries.alone() as own:
            while True:
                await self._answer(own, await socket.receive(), socket)

    async def _answer(self, queries: Queries, message: str | bytes, socket: WebSocket) -> None:
        try:
            asked = self._read(message)
            if asked.type == "exec":
                await queries.execute(asked.sql)
                await socket.send(NOTHING)
            else:
                await _send(queries, asked, socket)
        except NotebookError as exc:
            self._options.on_error(exc.slug)
            await socket.send(encode({"error": reason(exc)}).decode())
        except Exception:  # a bug of ours or of a driver: the client must get its answer
            logger.exception("a query failed")
            await socket.send(encode({"error": BUG}).decode())


def _connection(request: Request) -> str:
    return request.argument("connection") or DEFAULT


def _spell(exc: NotebookError, _: Request) -> Response:
    return Response(exc.http_status, TEXT, reason(exc).encode("utf-8", "backslashreplace"))


async def _streamed(queries: Queries, asked: Asked) -> Response:
    headers = FORMATS[asked.type]
    async with AsyncExitStack() as stack:
        answer = await stack.enter_async_context(_run(queries, asked))
        if not answer.columns:
            return Response(200)
        first = await answer.read()
        if answer.ended:
            return Response(200, headers, [bytes(piece) for piece in first])
        rows = stream(answer, first, last_words=LAST_WORDS[asked.type])
        return Response(200, headers, rows, resources=stack.pop_all())


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
            async with socket.sending(text=text) as send:
                # The message is the request's one answer, and what is in it must not be usable.
                try:
                    await pass_on(answer, first, send, LAST_WORDS[asked.type])
                except BrokenOff as exc:
                    logger.warning("a result broke off: %s", exc)
            return
    await socket.send(b"".join(first).decode() if text else first)
