"""The ADONotebook protocol: JSON-RPC 2.0 posted to ``/`` or to a session of one's own.

Where the protocol leaves room, docs/protocols/adonotebook.md says what we do. Everything
that reaches JSON-RPC is answered with status 200, everything that does not with an empty
body; a request of notifications only is answered with 204.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, TypeAlias, TypeVar

import msgspec

from notebook_rpc.errors import MethodNotFound, NotebookError, UnknownSession
from notebook_rpc.sansio import jsonrpc
from notebook_rpc.web import Response, Route

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from notebook_rpc.model import Column, Parameters, ResultColumn, Table
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.web import Request, Send, Stream

T = TypeVar("T")
Method: TypeAlias = Callable[[Any, Any], Awaitable[Sequence[bytes]]]

logger = logging.getLogger(__name__)

# Exactly this, without parameters: ADONotebook.CLI compares the whole value.
JSON: Final = ((b"content-type", b"application/json"),)


class Session(Protocol):
    """What the methods are carried out by; ``services.sessions.Session`` explains each."""

    async def tables(self, render: Callable[[Sequence[Table]], T]) -> T: ...
    async def views(self, render: Callable[[Sequence[Table]], T]) -> T: ...
    async def columns(
        self, catalog: str, schema: str, table: str, render: Callable[[Sequence[Column]], T]
    ) -> T: ...
    async def execute(
        self, sql: str, parameters: Parameters | None = None, seconds: float = math.inf
    ) -> None: ...
    async def metadata(self) -> Sequence[ResultColumn]: ...
    async def count(self) -> int: ...
    async def page(self, limit: int) -> Sequence[bytes]: ...
    async def finish(self) -> None: ...
    async def quit(self) -> None: ...
    def cancel(self) -> bool: ...
    def progress(self) -> object: ...


DEFAULT: Final = "default"
"""The name of the connection that the server was started with."""


class CreateBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of ``POST /sessions``."""

    connection: str | None = None


class NoParams(msgspec.Struct, forbid_unknown_fields=True):
    """Of every method not named below."""


class ColumnsParams(msgspec.Struct, forbid_unknown_fields=True):
    """Null and "" alike match every name."""

    catalog: str | None = None
    schema: str | None = None
    table: str | None = None


class ExecuteParams(msgspec.Struct, forbid_unknown_fields=True):
    sql: str
    params: list[Any] | dict[str, Any] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None


class PageParams(msgspec.Struct, forbid_unknown_fields=True):
    max: Annotated[int, msgspec.Meta(gt=0)]


class Sessions(Protocol):
    """Where the other sessions live; ``services.registry.Sessions`` explains each."""

    async def create(self, connection: str, user: User, /) -> str: ...
    def using(self, id_: str, user: User, /) -> AbstractContextManager[Session]: ...
    async def end(self, id_: str, user: User, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """``max_batch`` is the most calls of one batch; ``stack_traces``: errors have them;
    ``on_error`` hears the slug of each error that a client is told, ``hold`` the size of each
    answer, until it calls what ``hold`` has returned."""

    max_batch: int
    stack_traces: bool = False
    on_error: Callable[[str], None] = lambda _: None
    hold: Callable[[int], Callable[[], None]] = lambda _: lambda: None


class Dialogue:
    """JSON-RPC with one session: a message in, its answer out, over whatever carries them."""

    def __init__(
        self, session: Session, quit_: Callable[[], Awaitable[None]], options: Options
    ) -> None:
        """*quit_* is awaited after the method ``quit`` has succeeded, before its answer."""
        self._session = session
        self._quit = quit_
        self._options = options

    def is_urgent(self, message: bytes) -> bool:
        """Whether it goes around the session's queue, and so should around any other."""
        parsed = jsonrpc.parse(message, self._options.max_batch)
        return isinstance(parsed, jsonrpc.Call) and parsed.method in AROUND_THE_QUEUE

    async def answer(self, message: bytes) -> Sequence[bytes] | Stream | None:
        """Carry *message* out. The answer to a batch is a stream; None: there is none."""
        parsed = jsonrpc.parse(message, self._options.max_batch)
        if not isinstance(parsed, list):
            return await self._answer_one(parsed)
        if all(isinstance(call, jsonrpc.Call) and call.id is None for call in parsed):
            for call in parsed:
                await self._answer_one(call)
            return None
        return lambda send: self._answer_batch(parsed, send)

    async def _answer_batch(self, calls: list[jsonrpc.Call | jsonrpc.Refused], send: Send) -> None:
        """One call after the other, each answer sent before the next call begins: a batch of
        a thousand pages needs the memory of one."""
        opening = b"["
        for call in calls:
            answer = await self._answer_one(call)
            if answer is not None:
                release = self._options.hold(sum(map(len, answer)))
                try:
                    await send(opening + answer[0])
                    for piece in answer[1:]:
                        await send(piece)
                finally:
                    release()
                opening = b","
        await send(b"]")

    async def _answer_one(self, call: jsonrpc.Call | jsonrpc.Refused) -> Sequence[bytes] | None:
        """Carry out a call; None for a notification, whatever came of it."""
        if isinstance(call, jsonrpc.Refused):
            return [self._error(call.id, call.error)]
        try:
            result = await self._carry_out(call)
        except NotebookError as exc:
            return None if call.id is None else [self._error(call.id, exc)]
        except Exception:  # a bug of ours or of a driver: the client must get its answer
            logger.exception("%s failed", call.method)
            bug = NotebookError("internal error; the server's log has the details")
            return None if call.id is None else [self._error(call.id, bug)]
        return None if call.id is None else jsonrpc.result(call.id, result)

    async def _carry_out(self, call: jsonrpc.Call) -> Sequence[bytes]:
        try:
            signature, method = METHODS[call.method]
        except KeyError:
            raise MethodNotFound(f"there is no method {call.method!r}") from None
        result = await method(self._session, jsonrpc.bind(call.method, call.params, signature))
        if method is _quit:
            await self._quit()
        return result

    def _error(self, id_: bytes, exc: NotebookError) -> bytes:
        self._options.on_error(exc.slug)
        trace = self._options.stack_traces
        return jsonrpc.error(id_, exc, "".join(traceback.format_exception(exc)) if trace else "")


class Rpc:
    """The routes: one session for all who post to ``/``, as ADONotebook has it, and others for
    those who make their own."""

    def __init__(
        self,
        default: Session,
        sessions: Sessions,
        stop_server: Callable[[], None],
        options: Options,
    ) -> None:
        """*stop_server* is called after ``quit`` at ``/`` has succeeded; it must not wait."""
        self._sessions = sessions
        self._stop_server = stop_server
        self._options = options
        self._default = Dialogue(default, self._quit_server, options)

    def routes(self) -> Iterable[Route]:
        yield Route("POST", "/", self.post)
        yield Route("POST", "/sessions", self.create)
        yield Route("POST", "/sessions/{id}", self.post_to_session)
        yield Route("DELETE", "/sessions/{id}", self.end)

    async def post(self, request: Request) -> Response:
        return await self._exchange(self._default, request)

    async def create(self, request: Request) -> Response:
        """Make a session; the body, if any, is ``{"connection": name}``."""
        connection = DEFAULT
        if request.body:
            if not _is_json(request):
                return Response(415)
            try:
                asked = msgspec.json.decode(request.body, type=CreateBody)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return Response(400)
            connection = DEFAULT if asked.connection is None else asked.connection
        try:
            id_ = await self._sessions.create(connection, request.user)
        except NotebookError as exc:
            logger.warning("cannot make a session: %s", exc)
            retry = ((b"retry-after", b"1"),) if exc.http_status == 503 else ()
            reason = jsonrpc.encode({"slug": exc.slug, "message": str(exc)})
            return Response(exc.http_status, (*JSON, *retry), reason)
        url = f"/sessions/{id_}"
        body = jsonrpc.encode({"id": id_, "url": url, "connection": connection})
        return Response(201, (*JSON, (b"location", url.encode())), body)

    async def post_to_session(self, request: Request) -> Response:
        id_, user = request.parameters["id"], request.user
        try:
            with self._sessions.using(id_, user) as session:
                dialogue = Dialogue(session, partial(self._sessions.end, id_, user), self._options)
                response = await self._exchange(dialogue, request)
        except UnknownSession:
            return Response(404)
        if callable(response.body):  # a batch goes on when this has returned
            response.body = self._in_use(id_, user, response.body)
        return response

    async def end(self, request: Request) -> Response:
        try:
            await self._sessions.end(request.parameters["id"], request.user)
        except UnknownSession:
            return Response(404)
        return Response(204)

    async def _exchange(self, dialogue: Dialogue, request: Request) -> Response:
        if not _is_json(request):
            return Response(415)
        answer = await dialogue.answer(request.body)
        if answer is None:
            return Response(204)
        if callable(answer):
            return Response(200, JSON, answer)
        return Response(200, JSON, answer, self._options.hold(sum(map(len, answer))))

    def _in_use(self, id_: str, user: User, body: Stream) -> Stream:
        async def stream(send: Send) -> None:
            with self._sessions.using(id_, user):
                await body(send)

        return stream

    async def _quit_server(self) -> None:
        self._stop_server()


def _is_json(request: Request) -> bool:
    media_type = (request.header(b"content-type") or "").partition(";")[0]
    return media_type.strip().lower() == "application/json"


async def _tables(session: Session, _: NoParams) -> Sequence[bytes]:
    return [await session.tables(jsonrpc.encode)]


async def _views(session: Session, _: NoParams) -> Sequence[bytes]:
    return [await session.views(jsonrpc.encode)]


async def _columns(session: Session, params: ColumnsParams) -> Sequence[bytes]:
    names = (params.catalog or "", params.schema or "", params.table or "")
    return [await session.columns(*names, jsonrpc.encode)]


async def _execute(session: Session, params: ExecuteParams) -> Sequence[bytes]:
    await session.execute(params.sql, params.params, params.timeout or math.inf)
    return [b"true"]


async def _metadata(session: Session, _: NoParams) -> Sequence[bytes]:
    return [jsonrpc.encode(await session.metadata())]


async def _count(session: Session, _: NoParams) -> Sequence[bytes]:
    return [jsonrpc.encode(await session.count())]


async def _page(session: Session, params: PageParams) -> Sequence[bytes]:
    return await session.page(params.max)


async def _finish(session: Session, _: NoParams) -> Sequence[bytes]:
    await session.finish()
    return [b"true"]


async def _quit(session: Session, _: NoParams) -> Sequence[bytes]:
    await session.quit()
    return [b"null"]


async def _cancel(session: Session, _: NoParams) -> Sequence[bytes]:
    return [jsonrpc.encode(session.cancel())]


async def _progress(session: Session, _: NoParams) -> Sequence[bytes]:
    return [jsonrpc.encode(session.progress())]


METHODS: Final[Mapping[str, tuple[type[msgspec.Struct], Method]]] = {
    "tables": (NoParams, _tables),
    "views": (NoParams, _views),
    "columns": (ColumnsParams, _columns),
    "execute": (ExecuteParams, _execute),
    "metadata": (NoParams, _metadata),
    "count": (NoParams, _count),
    "page": (PageParams, _page),
    "finish": (NoParams, _finish),
    "quit": (NoParams, _quit),
    "cancel": (NoParams, _cancel),
    "progress": (NoParams, _progress),
}
AROUND_THE_QUEUE: Final = ("cancel", "progress")
