"""JSON-RPC over a WebSocket, against a server process: a session each, which ends with it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.end_to_end.websocket_client import Closed, Refused, connected
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.end_to_end.websocket_client import WebSocketClient

ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(100000000000) b"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--max-sessions", "5") as server:
        yield server


async def say(client: WebSocketClient, id_: object, method: str, *params: object) -> None:
    await client.send_json({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})


async def ask(client: WebSocketClient, method: str, *params: object) -> Any:
    await say(client, 1, method, *params)
    answer = await client.receive_json()
    assert "error" not in answer, answer
    return answer["result"]


async def sessions(server: Server) -> int:
    """How many there are now."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        head = f"GET /readyz?verbose HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        await stream.send_all(f"{head}Connection: close\r\n\r\n".encode())
        answer = b"".join([piece async for piece in stream])
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["sessions"])


async def until_there_are(server: Server, number: int) -> None:
    with trio.fail_after(10):
        while await sessions(server) != number:
            await trio.lowlevel.checkpoint()


async def until_it_runs(client: WebSocketClient) -> None:
    """Ask until something is executed; nothing else may be answered meanwhile."""
    running = None
    with trio.fail_after(10):
        while running != "execute":
            running = (await ask(client, "progress"))["running"]


async def test_a_query_from_its_beginning_to_its_end(server: Server) -> None:
    async with connected(server.port, "/rpc") as client:
        sql = "SELECT i, 'row ' || i AS t FROM range(250) r(i)"
        assert await ask(client, "execute", sql) is True
        assert [each["column"] for each in await ask(client, "metadata")] == ["i", "t"]
        rows = []
        while page := await ask(client, "page", 100):
            rows += page
        assert rows == [{"i": str(i), "t": f"row {i}"} for i in range(250)]
        assert await ask(client, "finish") is True
        assert await client.close() == 1000


async def test_each_socket_has_a_session_of_its_own(server: Server) -> None:
    async with connected(server.port, "/rpc") as one, connected(server.port, "/rpc") as other:
        await ask(one, "execute", "CREATE TEMP TABLE mine (a INTEGER)")
        await ask(one, "finish")
        assert "mine" in [each["table"] for each in await ask(one, "tables")]
        assert "mine" not in [each["table"] for each in await ask(other, "tables")]


async def test_pipelined_calls_are_answered_in_order(server: Server) -> None:
    async with connected(server.port, "/rpc") as client:
        for number in range(300):
            await say(client, number, "execute", f"SELECT {number} AS n")
            await say(client, f"{number}", "page", 10)
            await say(client, None, "finish")
        for number in range(300):
            assert (await client.receive_json())["id"] == number
            assert (await client.receive_json())["result"] == [{"n": str(number)}]
            assert (await client.receive_json())["result"] is True


async def test_cancel_overtakes_what_waits(server: Server) -> None:
    async with connected(server.port, "/rpc") as client:
        await say(client, "endless", "execute", ENDLESS)
        for number in range(100):
            await say(client, number, "tables")
        await until_it_runs(client)
        began = time.perf_counter()
        await say(client, "cancel", "cancel")
        answers = [await client.receive_json() for _ in range(2)]
        seconds = time.perf_counter() - began
        assert {answer["id"] for answer in answers} == {"endless", "cancel"}
        errors = [answer["error"]["code"] for answer in answers if "error" in answer]
        assert errors == [-32800]
        assert seconds < 1
        assert [(await client.receive_json())["id"] for _ in range(100)] == list(range(100))


async def test_a_batch_and_notifications(server: Server) -> None:
    async with connected(server.port, "/rpc") as client:
        call = {"jsonrpc": "2.0", "method": "execute", "params": ["SELECT 1 AS a"]}
        await client.send_json([call, {"jsonrpc": "2.0", "id": 7, "method": "page", "params": [5]}])
        assert await client.receive_json() == [{"jsonrpc": "2.0", "id": 7, "result": [{"a": "1"}]}]
        await client.send_json({"jsonrpc": "2.0", "method": "finish"})
        assert await ask(client, "progress")
        await client.send("nonsense")
        assert (await client.receive_json())["error"]["code"] == -32700


async def test_a_large_page_is_one_message(server: Server) -> None:
    async with connected(server.port, "/rpc") as client:
        await ask(client, "execute", "SELECT repeat('é', 1000) AS t FROM range(5000)")
        page = await ask(client, "page", 5000)
        assert page == [{"t": "é" * 1000}] * 5000


@pytest.mark.parametrize("how", ["close", "vanish", "quit"])
async def test_everything_ends_with_the_socket(server: Server, how: str) -> None:
    await until_there_are(server, 0)
    async with connected(server.port, "/rpc") as client:
        for sql in (
            "CREATE OR REPLACE TABLE kept (a INTEGER)",
            "BEGIN",
            "INSERT INTO kept VALUES (1)",
        ):
            await ask(client, "execute", sql)
            await ask(client, "finish")
        await until_there_are(server, 1)
        if how == "quit":
            assert await ask(client, "quit") is None
            with pytest.raises(Closed) as closed:
                await client.receive()
            assert closed.value.code == 1000
        else:
            await say(client, 1, "execute", ENDLESS)
            await until_it_runs(client)
            if how == "close":
                assert await client.close() == 1000
    await until_there_are(server, 0)
    async with connected(server.port, "/rpc") as client:
        await ask(client, "execute", "SELECT count(*) AS n FROM kept")
        assert await ask(client, "page", 1) == [{"n": "0"}]


async def test_too_many_sessions_are_refused_with_a_status(server: Server) -> None:
    await until_there_are(server, 0)
    async with trio.open_nursery() as nursery:
        full = trio.Event()

        async def hold() -> None:
            async with connected(server.port, "/rpc"):
                await full.wait()

        for _ in range(5):
            nursery.start_soon(hold)
        await until_there_are(server, 5)
        with pytest.raises(Refused) as refused:
            async with connected(server.port, "/rpc"):
                pytest.fail("it was to be refused")
        assert refused.value.status == 503
        full.set()
    await until_there_are(server, 0)


async def test_an_unknown_connection_is_refused_with_a_status(server: Server) -> None:
    with pytest.raises(Refused) as refused:
        async with connected(server.port, "/rpc?connection=nowhere"):
            pytest.fail("it was to be refused")
    assert refused.value.status == 404


async def test_bytes_are_refused(server: Server) -> None:
    async with connected(server.port, "/rpc") as client:
        await client.send(b"{}")
        with pytest.raises(Closed) as closed:
            await client.receive()
        assert closed.value.code == 1003
