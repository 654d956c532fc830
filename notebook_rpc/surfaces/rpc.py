"""The ADONotebook protocol: JSON-RPC 2.0 posted to ``/`` or to a session of one's own.

Where the protocol leaves room, docs/protocols/adonotebook.md says what we do. Everything
that reaches JSON-RPC is answered with status 200, everything that does not with an empty
body; a request of notifications only is answered with 204.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from notebook_rpc.errors import InvalidRequest, NotebookError, ParseError, UnknownSession
from notebook_rpc.model import DEFAULT
from notebook_rpc.sansio.jsontext import encode, read
from notebook_rpc.surfaces._rpc_socket import converse
from notebook_rpc.surfaces.dialogue import Dialogue, Options, Session
from notebook_rpc.web import JSON, RETRY_AFTER, WEBSOCKET, Response, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractContextManager

    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.web import Request, Send, Stream

logger = logging.getLogger(__name__)


class CreateBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of ``POST /sessions``."""

    connection: str | None = None


class Sessions(Protocol):
    """Where the other sessions live; ``services.registry.Sessions`` explains each."""

    async def create(self, connection: str, user: User, /) -> str: ...
    def using(self, id_: str, user: User, /) -> AbstractContextManager[Session]: ...
    async def end(self, id_: str, user: User, /) -> None: ...


class Rpc:
    """The routes: one session for all who post to ``/``, as ADONotebook has it, one for those of
    them who may only read, and others for those who make their own."""

    def __init__(
        self,
        default: Session,
        sessions: Sessions,
        stop_server: Callable[[], None],
        options: Options,
        *,
        readers: Session,
    ) -> None:
        """*stop_server* is called after ``quit`` at ``/`` has succeeded; it must not wait."""
        self._sessions = sessions
        self._stop_server = stop_server
        self._options = options
        self._default = Dialogue(default, self._quit_server, options)
        self._readers = Dialogue(readers, None, options)

    def routes(self) -> Iterable[Route]:
        yield Route("POST", "/", self.post)
        yield Route("POST", "/sessions", self.create)
        yield Route("POST", "/sessions/{id}", self.post_to_session)
        yield Route("DELETE", "/sessions/{id}", self.end)
        yield Route(WEBSOCKET, "/rpc", self.open)

    async def post(self, request: Request) -> Response:
        dialogue = self._readers if request.user.read_only else self._default
        return await self._exchange(dialogue, request)

    async def create(self, request: Request) -> Response:
        """Make a session; the body, if any, is ``{"connection": name}``."""
        connection = DEFAULT
        if request.body:
            if not request.is_json:
                return Response(415)
            try:
                asked = read(request.body, CreateBody, self._options.max_depth)
            except (ParseError, InvalidRequest):
                return Response(400)
            connection = DEFAULT if asked.connection is None else asked.connection
        try:
            id_ = await self._sessions.create(connection, request.user)
        except NotebookError as exc:
            return _no_session(exc)
        url = f"/sessions/{id_}"
        body = encode({"id": id_, "url": url, "connection": connection})
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

    async def open(self, request: Request) -> Response:
        """Make a session that ends with the WebSocket it is for; nobody else hears its id."""
        connection = request.argument("connection") or DEFAULT
        async with AsyncExitStack() as stack:
            try:
                own = self._own_session(connection, request.user)
                session = await stack.enter_async_context(own)
            except NotebookError as exc:
                return _no_session(exc)
            ended = trio.Event()

            async def quit_() -> None:
                ended.set()

            dialogue = Dialogue(session, quit_, self._options)
            talk = partial(converse, dialogue, ended.is_set, self._options.hold)
            return Response(101, conversation=talk, resources=stack.pop_all())

    @asynccontextmanager
    async def _own_session(self, connection: str, user: User) -> AsyncIterator[Session]:
        id_ = await self._sessions.create(connection, user)
        try:
            with self._sessions.using(id_, user) as session:
                yield session
        finally:
            await self._sessions.end(id_, user)

    async def _exchange(self, dialogue: Dialogue, request: Request) -> Response:
        if not request.is_json:
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


def _no_session(exc: NotebookError) -> Response:
    logger.warning("cannot make a session: %s", exc)
    retry = RETRY_AFTER if exc.http_status == 503 else ()
    reason = encode({"slug": exc.slug, "message": str(exc)})
    return Response(exc.http_status, (*JSON, *retry), reason)
