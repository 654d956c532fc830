"""Routes of the user's: requests to handlers of scripts, and what these return to responses.

A handler that is an ``async def`` runs in the connection's own task, any other on a thread of
``services.handlers``. Both have a limit of time, and both see the databases through a desk of
their request's own.

It refuses to tell a client why a handler failed: that is for the log.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

import trio

from notebook_rpc import runtime
from notebook_rpc.errors import Busy, HandlerTimeout, NotebookError
from notebook_rpc.sansio.jsontext import encode
from notebook_rpc.sansio.tracing import REQUEST
from notebook_rpc.surfaces._routes_files import Files, Folder
from notebook_rpc.surfaces._routes_streams import send_async, send_plain
from notebook_rpc.surfaces._routes_talk import AsyncTalk, PlainTalk
from notebook_rpc.web import JSON, RETRY_AFTER, WEBSOCKET, Response, Route

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from notebook_rpc.runtime import Ask, Desk, Handler
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.surfaces._routes_streams import Steps
    from notebook_rpc.web import Request, WebSocket

__all__ = ["Endpoint", "Folder", "Options", "Routes", "Site"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", WEBSOCKET)
ANYWHERE: Final = "/{path...}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A handler, and what it answers."""

    method: str
    path: str
    handler: Handler


@dataclass(frozen=True, slots=True)
class Site:
    """What scripts have asked for."""

    endpoints: tuple[Endpoint, ...] = ()
    middleware: tuple[Handler, ...] = ()
    not_found: Handler | None = None
    folders: tuple[Folder, ...] = ()


class Threads(Protocol):
    """``services.handlers.Handlers``."""

    async def run(
        self, work: Callable[[Ask], T], name: str, *, seconds: float | None = None
    ) -> T: ...
    def steps(self, pieces: Iterable[Any], encode: Callable[[Any], bytes]) -> Steps: ...


Desks: TypeAlias = "Callable[[User], AbstractAsyncContextManager[Desk]]"


@dataclass(frozen=True, slots=True)
class Options:
    """*seconds* is what a handler may take. *guard* makes the blocks in which scripts are at
    work. *on_error* hears the slug of each error that a client is told."""

    seconds: float
    guard: Callable[[], AbstractContextManager[None]]
    on_error: Callable[[str], None] = lambda _: None


class Routes:
    """``site`` may be exchanged for another one; whoever has asked for the routes asks again."""

    def __init__(
        self,
        site: Site,
        threads: Threads,
        desks: Desks,
        files: Files,
        options: Options,
    ) -> None:
        """*desks* has one for each request."""
        self.site = site
        self._threads = threads
        self._desks = desks
        self._files = files
        self._options = options

    def routes(self) -> Iterable[Route]:
        site = self.site
        for each in site.endpoints:
            work = _converse if each.method == WEBSOCKET else _handle
            yield self._route(site, each.method, each.path, partial(work, each.handler))
        for folder in site.folders:
            for method, path in folder.paths():
                yield self._route(site, method, path, partial(_file, folder))
        if site.not_found is not None:
            taken = {each.method for each in site.endpoints if each.path == ANYWHERE}
            taken |= {"GET" for folder in site.folders if not folder.path}
            for method in METHODS:
                if method not in taken:
                    yield self._route(site, method, ANYWHERE, _not_found)

    def _route(self, site: Site, method: str, path: str, work: _Work) -> Route:
        return Route(method, path, partial(self._answer, site, work), may_be_linked=True)

    async def _answer(self, site: Site, work: _Work, request: Request) -> Response:
        async with AsyncExitStack() as stack:
            desk = await stack.enter_async_context(self._desks(request.user))
            asked = runtime.Request(request)
            tools = self._desks, self._threads, self._files, self._options
            visit = Visit(site, request, asked, desk, *tools)
            try:
                response = await visit.answered(work)
            except runtime.BadRequest as exc:
                self._options.on_error("invalid-request")
                return Response(400, JSON, encode({"error": str(exc)}))
            except Exception as exc:  # noqa: BLE001  # of a script: this request alone fails
                return self._failed(request, exc)
            if callable(response.body):  # it may go on using the desk
                response.resources = stack.pop_all()
            return response

    def _failed(self, request: Request, exc: Exception) -> Response:
        slug, status = "internal-error", 500
        if isinstance(exc, NotebookError) and exc.http_status in (503, 504):
            slug, status = exc.slug, exc.http_status  # which say nothing of the script
            logger.warning("%s %r: %s", request.method, request.path, exc)
        else:
            logger.error("the handler of %s %r failed", request.method, request.path, exc_info=exc)
        self._options.on_error(slug)
        body = encode({"error": slug, "request": REQUEST.get()})
        return Response(status, JSON + RETRY_AFTER if status == 503 else JSON, body)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, on its way through the scripts."""

    site: Site
    request: Request
    asked: runtime.Request
    desk: Desk
    desks: Desks
    threads: Threads
    files: Files
    options: Options

    async def answered(self, work: _Work) -> Response:
        """What *work* gives, if no middleware is before it."""
        for each in self.site.middleware:
            stopped = await self.call(each)
            if stopped is not None:
                return self.response(stopped, each)
        return await work(self)

    async def handled(self, handler: Handler) -> Response:
        return self.response(await self.call(handler), handler)

    async def call(self, function: Handler) -> Any:
        """What *function* returns."""
        if not _is_async(function):
            return await self._run(_name(function), partial(function, self.asked))
        with self._within(), trio.move_on_after(self.options.seconds):
            return await function(self.asked)
        raise HandlerTimeout(f"{_name(function)} took longer than it may")

    def response(self, given: object, handler: Handler) -> Response:
        """What a handler has returned, as the transport wants it."""
        if not isinstance(given, runtime.Response):
            raise TypeError(
                f"{_name(handler)} returned {type(given).__name__}, and not what one of the helpers"
                " of runtime.http makes"
            )
        body = given.body
        if isinstance(body, bytes):
            return Response(given.status, given.headers, body)
        if isinstance(body, AsyncIterable):
            stream = partial(send_async, body, given.encode, self._within)
        else:
            steps = self.threads.steps(body, given.encode)
            stream = partial(send_plain, steps, partial(self._run, _name(handler)))
        return Response(given.status, given.headers, stream, endless=given.endless)

    async def converse(self, handler: Handler, socket: WebSocket) -> None:
        """Leave a WebSocket to *handler*, to its end."""
        if _is_async(handler):
            talk = AsyncTalk(socket)
            with self._within(), talk.lasting():
                await handler(runtime.WebSocket(talk, self.asked))
            return
        plain = PlainTalk(socket)
        work = partial(handler, runtime.WebSocket(plain, self.asked))
        await plain.last(partial(self._run, _name(handler), work, seconds=math.inf))

    async def _run(self, name: str, work: Callable[[], T], *, seconds: float | None = None) -> T:
        """Do *work* of a script's on a thread."""
        with self._within():
            return await self.threads.run(partial(_on_thread, work), name, seconds=seconds)

    @contextmanager
    def _within(self) -> Iterator[None]:
        """A block in which the script is at work."""
        token = runtime.DESK.set(self.desk)
        try:
            with self.options.guard(), _errors_alone():
                yield
        finally:
            runtime.DESK.reset(token)


_Work = Callable[[Visit], Awaitable[Response]]
"""Answers what has passed the middleware."""


async def _handle(handler: Handler, visit: Visit) -> Response:
    return await visit.handled(handler)


async def _file(folder: Folder, visit: Visit) -> Response:
    found = await folder.find(visit.request, visit.files)
    return await _not_found(visit) if found is None else found


async def _not_found(visit: Visit) -> Response:
    if visit.site.not_found is None:
        return Response(404)
    return await visit.handled(visit.site.not_found)


async def _converse(handler: Handler, visit: Visit) -> Response:
    async def conversation(socket: WebSocket) -> None:
        try:
            async with visit.desks(visit.request.user) as desk:
                await replace(visit, desk=desk).converse(handler, socket)
        except Exception as exc:  # of a script: this socket alone fails
            if isinstance(exc, Busy):
                logger.warning("WebSocket %r: %s", visit.request.path, exc)
                await socket.close(1013, exc.slug)
            else:
                logger.error("the handler of WebSocket %r failed", visit.request.path, exc_info=exc)
                await socket.close(1011, "internal error")

    return Response(101, conversation=conversation)


@contextmanager
def _errors_alone() -> Iterator[None]:
    """A block that raises nothing worse than an ``Exception``, but for what is Trio's own.
    Connections take anything else for what is to end the server: ``sys.exit()`` in a task that a
    handler has started must not, nor ``asyncio.CancelledError``."""
    try:
        yield
    except (Exception, trio.Cancelled):
        raise
    except BaseExceptionGroup as group:
        _, rest = group.split(trio.Cancelled)
        if rest is None:
            raise
        # Without those that are cancelled: Trio tells again whoever has not heard it.
        raise RuntimeError("a handler ended with more than an error") from rest
    except BaseException as exc:
        raise RuntimeError(f"a handler raised {type(exc).__name__}") from exc


def _on_thread(work: Callable[[], T], ask: Ask) -> T:
    runtime.ASK.set(ask)
    value = work()
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("a handler that is no async def returned a coroutine")
    return value


def _is_async(function: Handler) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004  # it is called, not asked whether
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _name(function: Handler) -> str:
    module = getattr(function, "__module__", "").rpartition(".")[2]
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
