"""The Mosaic surface: strict order over a socket, and HTTP that never passes a part for a whole."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import Busy, QueryError, UnknownConnection
from notebook_rpc.model import BROKEN_STREAM
from notebook_rpc.sansio.tokens import User
from notebook_rpc.surfaces._telling import BUG
from notebook_rpc.surfaces.mosaic import Mosaic, Options
from notebook_rpc.web import WEBSOCKET, BrokenOff, Request, Response
from tests.surfaces.fakes import Database, Rows, Socket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.web import Handler

ADA = User("ada")


class Service:
    """The surface, and what it was asked for."""

    def __init__(self) -> None:
        self.database = Database()
        self.found: list[tuple[str, User, bool]] = []
        self.errors: list[str] = []
        self._surface = Mosaic(self.find, Options(self.errors.append))

    def find(self, connection: str, user: User, *, read_only: bool = False) -> Any:
        self.found.append((connection, user, read_only))
        if connection == "nowhere":
            raise UnknownConnection("there is no connection 'nowhere'")
        return self.database

    async def ask(self, method: str, *, body: bytes = b"", query: str = "") -> Response:
        handlers: dict[str, Handler] = {
            route.method: route.handler for route in self._surface.routes()
        }
        return await handlers[method](Request(method, "/mosaic", query, (), body, user=ADA))

    async def post(self, **asked: object) -> Response:
        return await self.ask("POST", body=json.dumps(asked).encode())

    @asynccontextmanager
    async def client(self, query: str = "") -> AsyncIterator[Socket]:
        response = await self.ask(WEBSOCKET, query=query)
        assert response.status == 101
        assert response.conversation is not None
        socket = Socket()
        with socket.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(response.conversation, socket)
                yield socket
                nursery.cancel_scope.cancel()


@pytest.fixture
def service() -> Service:
    service = Service()
    service.database.rows = {
        "one": Rows([[b"one"]]),
        "two": Rows([[b"t", memoryview(b"wo")]]),
        "slow": Rows([[b"slow"]], stands_at=0),
        "large": Rows([[b"a"], [b"b"], [b"c"]]),
        "late": Rows([[b"a"], QueryError("late")]),
        "bad": Rows([QueryError("Parser Error: no")]),
        "silent": Rows([QueryError("")]),
        "ddl": Rows([], columns=()),
        "buggy": Rows([KeyError("a bug")]),
    }
    return service


async def body_of(response: Response) -> bytes:
    sent = b""

    async def send(piece: bytes) -> None:
        nonlocal sent
        sent += piece

    assert response.resources is not None
    async with response.resources:
        assert callable(response.body)
        await response.body(send)
    return sent


class TestSocket:
    async def test_arrow_is_the_bare_stream(self, service: Service) -> None:
        async with service.client() as client:
            client.say({"type": "arrow", "sql": "two"})
            assert await client.hear() == b"two"

    async def test_json_is_a_text(self, service: Service) -> None:
        async with service.client() as client:
            client.say({"type": "json", "sql": "two"})
            assert await client.hear() == "two"

    @pytest.mark.parametrize("kind", ["exec", "arrow", "json"])
    async def test_what_has_no_rows_is_done(self, service: Service, kind: str) -> None:
        async with service.client() as client:
            client.say({"type": kind, "sql": "ddl"})
            assert await client.hear() == "{}"

    async def test_a_large_result_is_one_message_in_fragments(self, service: Service) -> None:
        async with service.client() as client:
            client.say({"type": "arrow", "sql": "large"})
            assert await client.hear() == b"abc"
            assert client.fragments == [b"a", b"b", b"c"]

    async def test_answers_come_in_the_order_of_the_requests(self, service: Service) -> None:
        async with service.client() as client:
            client.say(
                {"type": "arrow", "sql": "slow"},
                {"type": "json", "sql": "bad"},
                "nonsense",
                {"type": "exec", "sql": "one"},
                {"type": "arrow", "sql": "one"},
            )
            await client.silence()
            assert service.database.begun == ["alone", ("arrow", "slow", False)]
            service.database.rows["slow"].go.set()
            answers = [await client.hear() for _ in range(5)]
        errors = ['{"error":"Parser Error: no"}', '{"error":"not JSON"}']
        assert answers == [b"slow", *errors, "{}", b"one"]
        assert service.errors == ["query-error", "parse-error"]

    async def test_a_socket_keeps_its_connection_and_gives_it_back(self, service: Service) -> None:
        async with service.client() as client:
            for _ in range(2):
                client.say({"type": "exec", "sql": "one"})
                await client.hear()
        assert service.database.begun[0] == "alone"
        assert service.database.begun.count("alone") == 1
        assert service.found == [("default", ADA, False)]

    async def test_a_result_that_breaks_off_cannot_be_taken_for_whole(
        self, service: Service
    ) -> None:
        async with service.client() as client:
            client.say({"type": "arrow", "sql": "late"}, {"type": "arrow", "sql": "one"})
            assert await client.hear() == b"a" + BROKEN_STREAM
            assert await client.hear() == b"one"  # and no answer more than requests

    async def test_json_that_breaks_off_is_no_json(self, service: Service) -> None:
        service.database.rows["late"].reads = [[b"[1"], QueryError("late")]
        async with service.client() as client:
            client.say({"type": "json", "sql": "late"})
            assert await client.hear() == "[1"

    @pytest.mark.parametrize(
        "asked",
        [
            {"type": "other", "sql": "one"},
            {"type": "arrow"},
            {"sql": "one"},
            {"type": "arrow", "sql": 1},
            [],
            1,
        ],
    )
    async def test_what_is_no_query_is_an_error(self, service: Service, asked: object) -> None:
        async with service.client() as client:
            assert (await client.asks(asked))["error"].startswith("the JSON does not fit: ")

    async def test_an_error_is_never_an_empty_text(self, service: Service) -> None:
        async with service.client() as client:
            assert await client.asks({"type": "exec", "sql": "silent"}) == {"error": "query-error"}

    async def test_a_bug_is_an_answer_too(
        self, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with service.client() as client:
            answer = await client.asks({"type": "exec", "sql": "buggy"})
        assert answer["error"].startswith("internal error")
        assert "a bug" not in str(answer)
        assert "KeyError" in caplog.text

    async def test_a_slow_reader_of_a_small_result_keeps_nothing_of_it(
        self, service: Service
    ) -> None:
        async with service.client() as client:
            client.reads = trio.Event()
            client.say({"type": "arrow", "sql": "one"})
            await wait_all_tasks_blocked()
            assert service.database.over == ["one"]
            client.reads.set()
            assert await client.hear() == b"one"

    async def test_what_a_client_adds_is_its_own(self, service: Service) -> None:
        async with service.client() as client:
            client.say({"type": "arrow", "sql": "one", "persist": True, "uuid": "x"})
            await client.hear()
        assert service.database.begun[1] == ("arrow", "one", True)

    async def test_the_connection_is_chosen_in_the_url(self, service: Service) -> None:
        async with service.client("connection=sales"):
            assert service.found == [("sales", ADA, False)]
        assert (await service.ask(WEBSOCKET, query="connection=nowhere")).status == 404


class TestHTTP:
    async def test_arrow(self, service: Service) -> None:
        response = await service.post(type="arrow", sql="two")
        assert (response.status, response.body) == (200, [b"t", b"wo"])
        assert response.headers == ((b"content-type", b"application/vnd.apache.arrow.stream"),)

    async def test_json(self, service: Service) -> None:
        response = await service.post(type="json", sql="one")
        assert (response.status, response.body) == (200, [b"one"])
        assert response.headers == ((b"content-type", b"application/json"),)

    @pytest.mark.parametrize("kind", ["exec", "arrow", "json"])
    async def test_what_has_no_rows_has_no_body(self, service: Service, kind: str) -> None:
        response = await service.post(type=kind, sql="ddl")
        assert (response.status, response.headers, response.body) == (200, (), b"")

    async def test_a_large_result_is_streamed_with_its_connection(self, service: Service) -> None:
        response = await service.post(type="arrow", sql="large")
        assert response.status == 200
        assert service.database.over == []
        assert await body_of(response) == b"abc"
        assert service.database.over == ["large"]

    async def test_one_that_breaks_off_fails(self, service: Service) -> None:
        response = await service.post(type="json", sql="late")
        with pytest.raises(BrokenOff, match="late"):
            await body_of(response)
        assert service.database.over == ["late"]

    async def test_arrow_that_breaks_off_cannot_be_read(self, service: Service) -> None:
        """For readers that take a connection's end for the stream's."""
        response = await service.post(type="arrow", sql="late")
        assert callable(response.body)
        assert response.resources is not None
        sent: list[bytes] = []

        async def send(piece: bytes) -> None:
            sent.append(piece)

        async with response.resources:
            with pytest.raises(BrokenOff, match="late"):
                await response.body(send)
        assert sent == [b"a", BROKEN_STREAM]

    async def test_a_bug_is_an_answer_over_http(
        self, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        response = await service.post(type="exec", sql="buggy")
        assert (response.status, response.body) == (500, BUG.encode())
        assert service.errors == ["internal-error"]
        assert "a bug" in caplog.text

    async def test_a_full_server_says_when_to_come_again(self, service: Service) -> None:
        service.database.rows["full"] = Rows([Busy("full")])
        response = await service.post(type="exec", sql="full")
        assert (response.status, response.body) == (503, b"full")
        assert (b"retry-after", b"1") in response.headers

    @pytest.mark.parametrize(
        ("asked", "status", "text"),
        [
            (b'{"type":"arrow","sql":"bad"}', 400, b"Parser Error: no"),
            (b'{"type":"exec","sql":"bad"}', 400, b"Parser Error: no"),
            (b"{", 400, b"not JSON"),
            (b"\xff", 400, b"not JSON"),
            (b'{"type":"arrow","sql":"\xff"}', 400, b"not JSON"),
            (b'{"of":' + b"[" * 100_000, 400, b"there is too much in it: nested deeper"),
            (b"[" * 100_000, 400, b"there is too much in it: nested deeper"),
            (b"[]", 400, b"the JSON does not fit: "),
        ],
    )
    async def test_an_error_is_a_status_and_its_text(
        self, service: Service, asked: bytes, status: int, text: bytes
    ) -> None:
        response = await service.ask("POST", body=asked)
        assert response.status == status
        assert isinstance(response.body, bytes)
        assert response.body.startswith(text)
        assert service.database.over == [] or service.database.over == ["bad"]

    async def test_a_get_can_only_read(self, service: Service) -> None:
        query = "query=" + quote('{"type":"json","sql":"one"}')
        response = await service.ask("GET", query=query)
        assert (response.status, response.body) == (200, [b"one"])
        assert service.found == [("default", ADA, True)]
        await service.post(type="json", sql="one")
        assert service.found[1:] == [("default", ADA, False)]

    async def test_a_get_without_a_query_is_an_error(self, service: Service) -> None:
        assert (await service.ask("GET")).status == 400

    async def test_an_unknown_connection(self, service: Service) -> None:
        body = b'{"type":"exec","sql":"one"}'
        response = await service.ask("POST", body=body, query="connection=nowhere")
        assert response.status == 404
        assert service.errors == ["unknown-connection"]
