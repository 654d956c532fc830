"""Routes of the user's, with handlers at hand. What sockets see is in end_to_end/test_routes.py."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notebook_rpc import runtime
from notebook_rpc.errors import Busy
from notebook_rpc.runtime import http
from notebook_rpc.sansio.tokens import User
from notebook_rpc.services.handlers import Steps, Stopped
from notebook_rpc.surfaces import _routes_talk
from notebook_rpc.surfaces.routes import Endpoint, Folder, Options, Routes, Site
from notebook_rpc.web import WEBSOCKET, Request, Response
from tests.surfaces.fakes import Socket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from notebook_rpc.runtime import Ask, Desk
    from notebook_rpc.surfaces._routes_files import File

T = TypeVar("T")

AT_WORK: ContextVar[bool] = ContextVar("AT_WORK", default=False)


class Threads:
    """Those of Trio, which may all be ``taken``, or ``leave`` behind what is cancelled."""

    taken = False
    leave = False

    async def run(self, work: Callable[[Ask], T], name: str, *, seconds: float | None = None) -> T:
        if self.taken:
            raise Busy(name)
        limit = float("inf") if seconds is None else seconds
        with trio.fail_after(limit):
            return await trio.to_thread.run_sync(
                work, trio.from_thread.run, abandon_on_cancel=self.leave
            )
        raise AssertionError("not reached")

    def steps(self, pieces: Iterable[Any], encode: Callable[[Any], bytes]) -> Steps:
        return Steps(pieces, encode)


class Folders:
    """Files that are opened at once, and small."""

    async def open(self, folder: Path, segments: Sequence[str]) -> File | None:
        await trio.lowlevel.checkpoint()
        path = folder.joinpath(*segments)
        return Small(path.name, path.read_bytes()) if path.is_file() else None


@dataclass
class Small:
    name: str
    content: bytes
    changed: int = 0
    version: str = "1"
    is_folder: bool = False

    @property
    def size(self) -> int:
        return len(self.content)

    async def read(self, start: int, size: int) -> bytes:
        raise AssertionError(start, size)

    def close(self) -> None:
        raise AssertionError


class FakeDesk:
    def __init__(self, user: User) -> None:
        self.user = user

    async def query(self, sql: str, params: Any, connection: str | None, /) -> runtime.Rows:
        await trio.lowlevel.checkpoint()
        return runtime.Rows(
            [{"sql": sql, "params": params, "on": connection, "by": self.user.name}]
        )

    def session(self, connection: str | None, /) -> Any:
        raise AssertionError(connection)


class Running:
    """Routes, and whoever asks for them."""

    def __init__(self, *endpoints: Endpoint, **more: Any) -> None:
        self.closed: list[str] = []
        self.errors: list[str] = []
        self.threads = Threads()
        options = Options(30, at_work, self.errors.append)
        site = Site(endpoints, **more)
        self.surface = Routes(site, self.threads, self._desk, Folders(), options)

    @asynccontextmanager
    async def _desk(self, user: User) -> AsyncIterator[Desk]:
        try:
            yield FakeDesk(user)
        finally:
            self.closed.append(user.name)

    async def ask(
        self, method: str, path: str, /, *headers: tuple[bytes, bytes], **parameters: str
    ) -> Response:
        routes = {(each.method, each.path): each.handler for each in self.surface.routes()}
        request = Request(method, path, "", headers, parameters=parameters, user=User("ann"))
        key = "GET" if method == "HEAD" else method, path
        found = routes.get(key) or routes["GET", "/{path...}"]
        return await found(request)


@contextmanager
def at_work() -> Iterator[None]:
    token = AT_WORK.set(True)
    try:
        yield
    finally:
        AT_WORK.reset(token)


async def body_of(response: Response) -> bytes:
    if not callable(response.body):
        return response.body if isinstance(response.body, bytes) else b"".join(response.body)
    pieces = []

    async def send(piece: bytes) -> None:
        pieces.append(piece)

    assert response.resources is None
    await response.body(send)
    return b"".join(pieces)


# Handlers


async def test_scripts_are_at_work_in_their_handlers_and_nowhere_else() -> None:
    seen = []

    def plain(_: runtime.Request) -> runtime.Response:
        seen.append(AT_WORK.get())
        return http.stream(pieces())

    async def apart(_: runtime.Request) -> runtime.Response:
        seen.append(AT_WORK.get())
        return http.stream(slow_pieces())

    def pieces() -> Iterator[str]:
        seen.append(AT_WORK.get())
        yield "a"

    async def slow_pieces() -> AsyncIterator[str]:
        seen.append(AT_WORK.get())
        yield "a"

    running = Running(Endpoint("GET", "/p", plain), Endpoint("GET", "/a", apart))
    for path in ("/p", "/a"):
        response = await running.ask("GET", path)
        assert response.resources is not None
        assert callable(response.body)
        async with response.resources:
            sent: list[bool] = []

            async def send(_: bytes, sent: list[bool] = sent) -> None:
                sent.append(AT_WORK.get())

            await response.body(send)
            assert sent == [False]
            assert running.closed == []
        assert running.closed == ["ann"]
        running.closed.clear()
    assert seen == [True] * 4
    assert not AT_WORK.get()


async def test_the_databases_are_the_users_of_the_request() -> None:
    def plain(_: runtime.Request) -> runtime.Response:
        return http.json(200, runtime.sql.query("select ?", [1], "other"))

    async def apart(_: runtime.Request) -> runtime.Response:
        return http.json(200, await runtime.sql.query("select 1"))

    running = Running(Endpoint("GET", "/p", plain), Endpoint("GET", "/a", apart))
    assert await body_of(await running.ask("GET", "/p")) == (
        b'[{"sql":"select ?","params":[1],"on":"other","by":"ann"}]'
    )
    assert await body_of(await running.ask("GET", "/a")) == (
        b'[{"sql":"select 1","params":null,"on":null,"by":"ann"}]'
    )
    assert running.closed == ["ann", "ann"]
    with pytest.raises(RuntimeError, match="no request here"):
        runtime.sql.query("select 1")


async def test_an_async_handler_has_its_time_too(autojump_clock: MockClock) -> None:
    async def forever(_: runtime.Request) -> None:
        await trio.sleep_forever()

    running = Running(Endpoint("GET", "/", forever))
    response = await running.ask("GET", "/")
    assert (response.status, autojump_clock.current_time()) == (504, 30)
    assert running.errors == ["handler-timeout"]


def ends_everything(error: BaseException) -> Callable[[Any], Any]:
    async def handler(_: Any) -> None:
        raise error

    return handler


def ends_everything_in_a_task(error: BaseException) -> Callable[[Any], Any]:
    async def handler(_: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends_everything(error), None)
            await trio.sleep_forever()

    return handler


def ends_everything_on_a_thread(error: BaseException) -> Callable[[Any], Any]:
    def handler(_: Any) -> None:
        raise error

    return handler


WORST = [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), Stopped()]


@pytest.mark.parametrize("error", WORST, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "make", [ends_everything, ends_everything_in_a_task, ends_everything_on_a_thread]
)
async def test_whatever_a_script_raises_this_request_alone_fails(
    make: Callable[[BaseException], Any], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    handler = make(error)
    endpoints = Endpoint("GET", "/", handler), Endpoint(WEBSOCKET, "/", handler)
    assert (await Running(*endpoints).ask("GET", "/")).status == 500
    async with conversing(Running(*endpoints)) as socket:
        await wait_until(partial(is_closed, socket))
    assert socket.closed == (1011, "internal error")
    before = Running(Endpoint("GET", "/", lambda _: None), middleware=(handler,))
    assert (await before.ask("GET", "/")).status == 500
    assert caplog.text.count(type(error).__name__) >= 3  # the log knows


@pytest.mark.parametrize("error", WORST, ids=lambda error: type(error).__name__)
async def test_whatever_a_stream_raises_it_alone_breaks_off(error: BaseException) -> None:
    async def pieces() -> AsyncIterator[object]:
        yield "a"
        raise error

    async def handler(_: runtime.Request) -> runtime.Response:
        return http.stream(pieces())

    response = await Running(Endpoint("GET", "/", handler)).ask("GET", "/")
    assert response.resources is not None
    async with response.resources:
        response.resources = None
        with pytest.raises(RuntimeError):
            await body_of(response)


async def test_a_handler_that_is_cancelled_is_cancelled_and_nothing_else() -> None:
    async def handler(_: runtime.Request) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            started.set()
            try:
                await trio.sleep_forever()
            finally:
                seen.append(1)

    seen, started = list[int](), trio.Event()
    running = Running(Endpoint("GET", "/", handler))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.ask, "GET", "/")
        await started.wait()
        nursery.cancel_scope.cancel()
    assert (seen, running.errors) == ([1], [])


async def test_middleware_is_asked_in_order_until_one_answers() -> None:
    asked: list[str] = []

    def says(word: str, answer: runtime.Response | None) -> Callable[..., Any]:
        def middleware(request: runtime.Request) -> runtime.Response | None:
            asked.append(word)
            request.state["last"] = word
            return answer

        return middleware

    async def handler(request: runtime.Request) -> runtime.Response:
        return http.text(200, request.state["last"])

    passing = (says("first", None), says("second", None))
    endpoint = Endpoint("GET", "/", handler)
    assert await body_of(await Running(endpoint, middleware=passing).ask("GET", "/")) == b"second"
    stopping = (says("third", http.text(401, "no")), says("fourth", None))
    assert (await Running(endpoint, middleware=stopping).ask("GET", "/")).status == 401
    assert asked == ["first", "second", "third"]


async def test_a_request_that_has_begun_ends_with_the_site_it_began_with() -> None:
    running = Running(Endpoint("GET", "/", lambda _: http.text(200, "old")))
    (old,) = running.surface.routes()
    running.surface.site = Site((Endpoint("GET", "/", lambda _: http.text(200, "new")),))
    (new,) = running.surface.routes()
    request = Request("GET", "/", "", ())
    assert await body_of(await old.handler(request)) == b"old"
    assert await body_of(await new.handler(request)) == b"new"


async def test_a_generator_that_is_not_read_to_its_end_is_closed() -> None:
    closed = []

    def pieces() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(threading.current_thread() is threading.main_thread())

    async def slow_pieces() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            await trio.lowlevel.checkpoint()
            closed.append(threading.current_thread() is threading.main_thread())

    async def send(_: bytes) -> None:
        raise trio.BrokenResourceError

    for made in (pieces, slow_pieces):
        running = Running(Endpoint("GET", "/", lambda _, made=made: http.stream(made())))
        response = await running.ask("GET", "/")
        assert response.resources is not None
        assert callable(response.body)
        async with response.resources:
            with pytest.raises(trio.BrokenResourceError):
                await response.body(send)
    assert closed == [False, True]  # what is plain may block


async def test_one_that_a_thread_was_left_behind_in_is_closed_by_that_thread() -> None:
    where: list[threading.Thread] = []
    entered, go = threading.Event(), threading.Event()

    def pieces() -> Iterator[str]:
        yield "first"
        try:
            where.append(threading.current_thread())
            entered.set()
            assert go.wait(10)
            yield "second"
        finally:
            where.append(threading.current_thread())

    async def send(_: bytes) -> None:
        await trio.lowlevel.checkpoint()

    running = Running(Endpoint("GET", "/", lambda _: http.stream(pieces())))
    running.threads.leave = True
    response = await running.ask("GET", "/")
    assert response.resources is not None
    assert callable(response.body)
    async with response.resources, trio.open_nursery() as nursery:
        nursery.start_soon(response.body, send)
        await trio.to_thread.run_sync(entered.wait, 10)
        nursery.cancel_scope.cancel()
    go.set()
    await wait_until(lambda: len(where) == 2)
    assert where[0] is where[1]


async def test_why_a_stream_has_ended_is_not_hidden_by_how_it_was_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def pieces() -> Iterator[str]:
        try:
            yield "a"
        finally:
            raise ValueError("plain")

    async def slow_pieces() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            raise SystemExit("async")

    def quiet() -> Iterator[str]:
        yield "a"

    for made, taken in ((pieces, False), (quiet, True), (slow_pieces, False)):
        running = Running(Endpoint("GET", "/", lambda _, made=made: http.stream(made())))
        response = await running.ask("GET", "/")
        assert response.resources is not None
        assert callable(response.body)
        with trio.CancelScope() as scope:
            async with response.resources:

                async def send(
                    _: bytes, running: Running = running, scope: trio.CancelScope = scope
                ) -> None:
                    running.threads.taken = taken  # noqa: B023  # at this turn of the loop
                    scope.cancel()
                    await trio.lowlevel.checkpoint()

                await response.body(send)
        assert scope.cancelled_caught
    said = [(record.levelname, record.getMessage()[:28]) for record in caplog.records]
    line = "a stream could not be closed"
    assert said == [("ERROR", line), ("WARNING", line), ("ERROR", line)]


# WebSockets


@asynccontextmanager
async def conversing(running: Running, path: str = "/") -> AsyncIterator[Socket]:
    socket = Socket()
    response = await running.ask(WEBSOCKET, path)
    assert response.conversation is not None

    async def converse() -> None:
        assert response.conversation is not None
        with socket.scope:
            await response.conversation(socket)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse)
        yield socket
        socket.scope.cancel()


async def test_plain_code_waits_for_a_message_as_long_as_it_says() -> None:
    def handler(client: runtime.WebSocket) -> None:
        client.send([client.receive(0.001), client.receive(0), client.connected()])
        client.send(client.receive(10))
        client.send_binary([0, 255])

    async with conversing(Running(Endpoint(WEBSOCKET, "/", handler))) as socket:
        assert await socket.hears() == [None, None, True]
        socket.say("hello")
        assert await socket.hear() == "hello"
        assert await socket.hear() == b"\x00\xff"


async def test_plain_code_hears_that_its_client_has_left_and_may_tell_others() -> None:
    heard: list[object] = []
    others: list[runtime.WebSocket] = []

    def handler(client: runtime.WebSocket) -> None:
        if client.request.path == "/other":
            others.append(client)
            client.receive(10)
            return
        client.send("welcome")
        heard.append(client.receive(10))
        heard.append(client.connected())
        try:
            client.send("too late")
        except ConnectionError:
            others[0].send("it has left")

    running = Running(Endpoint(WEBSOCKET, "/", handler), Endpoint(WEBSOCKET, "/other", handler))
    async with conversing(running, "/other") as other:
        await wait_until(lambda: bool(others))
        async with conversing(running) as socket:
            assert await socket.hear() == "welcome"
            socket.scope.cancel()
        assert heard == [None, False]
        assert await other.hear() == "it has left"
        other.say("bye")


async def test_plain_code_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_routes_talk, "GRACE", 0.05)
    go = threading.Event()

    def handler(client: runtime.WebSocket) -> None:
        client.send("welcome")
        go.wait(10)

    running = Running(Endpoint(WEBSOCKET, "/", handler))
    running.threads.leave = True
    with trio.fail_after(5):
        async with conversing(running) as socket:
            assert await socket.hear() == "welcome"
    assert not go.is_set()
    go.set()


def is_closed(socket: Socket) -> bool:
    return socket.closed is not None


async def wait_until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  # threads set no event of Trio's
            await trio.sleep(0.001)


async def test_an_async_handler_waits_as_long_as_it_says(autojump_clock: MockClock) -> None:
    async def handler(client: runtime.WebSocket) -> None:
        await client.send([await client.receive(3), client.connected()])
        await client.send(await client.receive(None))
        await client.close(4000, "enough")

    running = Running(Endpoint(WEBSOCKET, "/", handler))
    async with conversing(running) as socket:
        assert running.closed == ["ann"]
        assert await socket.hears() == [None, True]
        assert autojump_clock.current_time() == 3
        socket.say("hello")
        assert await socket.hear() == "hello"
        await wait_all_tasks_blocked()
        assert socket.closed == (4000, "enough")
        assert running.closed == ["ann", "ann"]  # the desk of the request, and of the conversation


async def test_a_handler_that_fails_closes_its_socket_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails(_: runtime.WebSocket) -> None:
        raise ValueError("secret")

    def fails_too(_: runtime.WebSocket) -> None:
        raise ValueError("secret")

    for handler in (fails, fails_too):
        async with conversing(Running(Endpoint(WEBSOCKET, "/", handler))) as socket:
            await wait_until(partial(is_closed, socket))
        assert socket.closed == (1011, "internal error")
    assert caplog.text.count("ValueError: secret") == 2


async def test_a_socket_without_a_thread_is_told_to_come_again() -> None:
    running = Running(Endpoint(WEBSOCKET, "/", lambda _: None))
    running.threads.taken = True
    async with conversing(running) as socket:
        await wait_all_tasks_blocked()
    assert socket.closed == (1013, "busy")


async def test_middleware_may_refuse_a_socket() -> None:
    async def chat(_: runtime.WebSocket) -> None:
        raise AssertionError

    refuses = (lambda _: http.text(403, "no"),)
    response = await Running(Endpoint(WEBSOCKET, "/", chat), middleware=refuses).ask(WEBSOCKET, "/")
    assert (response.status, response.conversation) == (403, None)


# Files


async def test_a_site_may_be_a_folder(tmp_path: Path) -> None:
    lost = Running(folders=(Folder("", tmp_path),), not_found=lambda _: http.text(404, "lost"))
    paths = {(route.method, route.path) for route in lost.surface.routes()}
    assert paths == {
        *(("GET", "/"), ("GET", "/{path...}"), ("POST", "/{path...}"), ("PUT", "/{path...}")),
        *(("PATCH", "/{path...}"), ("DELETE", "/{path...}"), (WEBSOCKET, "/{path...}")),
    }
    (tmp_path / "sub").mkdir()
    for path in ("/", "/sub/"):  # without an index
        response = await lost.ask("GET", path, path=path[1:])
        assert (response.status, response.body) == (404, b"lost")
    (tmp_path / "index.html").write_text("home")
    assert (await lost.ask("GET", "/")).body == b"home"
    bare = Running(folders=(Folder("", tmp_path),))
    assert (await bare.ask("GET", "/none", path="none")).status == 404
