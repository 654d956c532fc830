"""The surface of live queries: what is asked, what is answered at once, and what streams."""

from __future__ import annotations

import json
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import Busy, QueryError
from notebook_rpc.sansio import sse
from notebook_rpc.surfaces.vibesql_live import KEEPALIVE, PATH, Live
from notebook_rpc.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trio.testing import MockClock

EVENT = sse.event("{}", name="initial")


class Watch:
    """Tells what the test says, and notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self.open = 0
        self._say, self._hear = trio.open_memory_channel[tuple[bytes, ...]](math.inf)

    def say(self, *pieces: bytes) -> None:
        self._say.send_nowait(pieces)

    async def events(self) -> Sequence[bytes]:
        return await self._hear.receive()

    @asynccontextmanager
    async def subscription(
        self, connection: str, sql: str, parameters: Any, key: Any, **options: Any
    ) -> AsyncIterator[Watch]:
        self.asked.append((connection, sql, list(parameters), list(key), options))
        if self.failure is not None:
            raise self.failure
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1


class Service:
    def __init__(self) -> None:
        self.watch = Watch()
        self.errors: list[str] = []
        self._surface = Live(self.watch.subscription, self.errors.append)

    async def ask(self, *headers: tuple[bytes, bytes], **arguments: str) -> Response:
        return await self.get(urlencode(arguments, quote_via=quote), *headers)

    async def visit(self, *headers: tuple[bytes, bytes], **arguments: str) -> None:
        """Ask, and leave at once."""
        response = await self.ask(*headers, **arguments)
        assert response.resources is not None
        async with response.resources:
            pass

    async def get(self, query: str, *headers: tuple[bytes, bytes]) -> Response:
        (route,) = self._surface.routes()
        assert (route.method, route.path) == ("GET", PATH)
        return await route.handler(Request("GET", PATH, query, headers))


@pytest.fixture
def service() -> Service:
    return Service()


def plain(options: dict[str, Any]) -> tuple[str | None, float]:
    return options["last_id"], options["every"]


async def test_the_answer_is_a_stream_without_an_end(service: Service) -> None:
    response = await service.ask(query="SELECT 1")
    assert response.status == 200
    assert dict(response.headers) == {
        b"content-type": b"text/event-stream",
        b"cache-control": b"no-store",
        b"x-accel-buffering": b"no",
    }
    assert response.endless
    assert service.watch.open == 1
    assert response.resources is not None
    async with response.resources:
        pass
    assert service.watch.open == 0


async def test_events_are_passed_on_as_they_come(
    service: Service, autojump_clock: MockClock
) -> None:
    response = await service.ask(query="SELECT 1")
    assert callable(response.body)
    assert response.resources is not None
    sent: list[tuple[float, bytes]] = []

    async def send(piece: bytes) -> None:
        sent.append((autojump_clock.current_time(), piece))

    async with response.resources, trio.open_nursery() as nursery:
        nursery.start_soon(response.body, send)
        service.watch.say(EVENT)
        await wait_all_tasks_blocked()
        assert sent == [(0, sse.retry(1000)), (0, EVENT)]
        sent.clear()
        await trio.sleep(10)
        service.watch.say(b"one", b"two")
        await trio.sleep(65)
        assert sent == [
            (10, b"one"),
            (10, b"two"),
            (10 + KEEPALIVE, b": keepalive\n"),
            (10 + 2 * KEEPALIVE, b": keepalive\n"),
        ]
        nursery.cancel_scope.cancel()


async def test_an_event_that_comes_as_silence_ends_is_not_cut_in_two(
    service: Service, autojump_clock: MockClock
) -> None:
    response = await service.ask(query="SELECT 1")
    assert callable(response.body)
    assert response.resources is not None
    sent: list[bytes] = []

    async def send(piece: bytes) -> None:
        sent.append(piece)
        await trio.lowlevel.checkpoint()

    async with response.resources, trio.open_nursery() as nursery:
        nursery.start_soon(response.body, send)
        await wait_all_tasks_blocked()
        service.watch.say(b"one", b"two")
        autojump_clock.jump(KEEPALIVE + 1)
        await wait_all_tasks_blocked()
        assert sent == [sse.retry(1000), b"one", b"two"]
        service.watch.say(b"three")
        await wait_all_tasks_blocked()
        assert sent[3:] == [b"three"]
        nursery.cancel_scope.cancel()


async def test_a_slow_reader_is_not_disturbed_by_keepalives(
    service: Service, autojump_clock: MockClock
) -> None:
    response = await service.ask(query="SELECT 1")
    assert callable(response.body)
    assert response.resources is not None
    sent: list[bytes] = []

    async def send(piece: bytes) -> None:
        await trio.sleep(2 * KEEPALIVE)
        sent.append(piece)

    async with response.resources, trio.open_nursery() as nursery:
        nursery.start_soon(response.body, send)
        service.watch.say(b"one", b"two")
        await trio.sleep(6 * KEEPALIVE + 1)
        assert autojump_clock.current_time() == 6 * KEEPALIVE + 1
        assert sent == [sse.retry(1000), b"one", b"two"]
        nursery.cancel_scope.cancel()


async def test_keepalives_come_every_30_seconds() -> None:
    assert KEEPALIVE == 30


async def test_what_is_asked(service: Service) -> None:
    await service.visit(query="SELECT $1", params='[1, "a", null]')
    await service.visit(query="SELECT 1", connection="sales", key="a,b c", poll="2.5")
    (first, second) = service.watch.asked
    assert first[:4] == ("default", "SELECT $1", [1, "a", None], [])
    assert plain(first[4]) == (None, math.inf)
    assert second[:4] == ("sales", "SELECT 1", [], ["a", "b c"])
    assert plain(second[4]) == (None, 2.5)


async def test_who_comes_back_says_what_it_saw_last(service: Service) -> None:
    await service.visit((b"last-event-id", b"x.1"), query="SELECT 1")
    await service.visit(query="SELECT 1", lastEventId="x.2")
    await service.visit((b"last-event-id", b"x.1"), query="SELECT 1", lastEventId="x.2")
    assert [asked[4]["last_id"] for asked in service.watch.asked] == ["x.1", "x.2", "x.1"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "SELECT 1", "params": "x"}, "params"),
        ({"query": "SELECT 1", "params": '{"a":1}'}, "params"),
        ({"query": "SELECT 1", "params": "[" * 129 + "]" * 129}, "params: there is too much"),
        ({"query": "SELECT 1", "params": "[1"}, "params"),
        ({"query": "SELECT 1", "params": "[\ufffd]"}, "params"),
        ({"query": "SELECT 1", "poll": "0.9"}, "poll"),
        ({"query": "SELECT 1", "poll": "inf"}, "poll"),
        ({"query": "SELECT 1", "poll": "nan"}, "poll"),
        ({"query": "SELECT 1", "poll": "-1"}, "poll"),
        ({"query": "SELECT 1", "poll": "often"}, "poll"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    service: Service, arguments: dict[str, str], names: str
) -> None:
    response = await service.ask(**arguments)
    assert (response.status, response.headers) == (400, ((b"content-type", b"application/json"),))
    assert isinstance(response.body, bytes)
    told = json.loads(response.body)
    assert set(told) == {"error", "code"}
    assert told["error"].startswith(names)
    assert service.watch.asked == []
    assert service.errors == ["invalid-params"]


async def test_a_query_that_fails_at_once_is_an_answer(service: Service) -> None:
    service.watch.failure = failure = QueryError("no such table")
    failure.sqlstate = "42P01"
    response = await service.ask(query="SELECT 1")
    assert response.status == 400
    assert response.body == b'{"error":"no such table","code":"42P01"}'
    service.watch.failure = Busy()
    response = await service.ask(query="SELECT 1")
    assert (response.status, response.body) == (503, b'{"error":"busy","code":null}')
    assert (b"retry-after", b"1") in response.headers
    assert service.errors == ["query-error", "busy"]


async def test_a_bug_is_an_answer_too(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.watch.failure = KeyError("a bug")
    response = await service.ask(query="SELECT 1")
    assert (response.status, response.headers) == (500, ((b"content-type", b"application/json"),))
    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["error"].startswith("internal error; ")
    assert service.errors == ["internal-error"]
    assert "a bug" in caplog.text
