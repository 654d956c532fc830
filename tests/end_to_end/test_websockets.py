"""The limits of every WebSocket, on a server as it runs, and how it lets them go."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio

from tests.end_to_end.websocket_client import Closed, WebSocketClient, connected
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = '{"type":"cancel","queryId":"none"}'  # the least that is answered


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("duckdb://", "--max-message", "1000", "--ping-interval", "0.2") as server:
        yield server


async def a_slow_reader(port: int) -> WebSocketClient:
    """One whose system takes little for it."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(("127.0.0.1", port))
    client = WebSocketClient(trio.SocketStream(sock))
    await client.open(f"127.0.0.1:{port}", "/", (), ())
    return client


async def test_a_message_may_have_its_size_and_no_byte_more(server: Server) -> None:
    async with connected(server.port) as client:
        await client.send(NOTHING + " " * (1000 - len(NOTHING)))
        assert (await client.receive_json())["type"] == "cancelAck"
        await client.send(NOTHING + " " * (1001 - len(NOTHING)))
        with pytest.raises(Closed) as caught:
            await client.receive()
        assert caught.value.code == 1009


async def test_who_does_not_read_what_others_tell_is_closed() -> None:
    told = json.dumps({"type": "notify", "channel": "news", "payload": "x" * 10_000})
    with Server("duckdb://", "--max-backlog", "1MB") as server, trio.fail_after(60):
        slow = await a_slow_reader(server.port)
        await slow.send_json({"type": "subscribe", "channel": "news"})
        assert (await slow.receive_json())["type"] == "subscribed"
        async with slow.stream, connected(server.port) as teller:
            while not any("reads too slowly" in line for line in server.log):
                await teller.send(told)
                while (await teller.receive_json())["type"] != "notifyAck":
                    continue
            with pytest.raises((Closed, trio.BrokenResourceError)) as caught:
                await read_to_end(slow)
            # It hears why, or is cut off, if it goes on reading nothing for too long.
            assert getattr(caught.value, "code", 1008) == 1008


async def read_to_end(client: WebSocketClient) -> NoReturn:
    while True:
        await client.receive()


async def test_who_answers_no_ping_is_cut_off(server: Server) -> None:
    pings = 0
    async with connected(server.port) as client:
        with trio.fail_after(30), suppress(trio.BrokenResourceError):  # it is taken for dead
            while True:
                assert await client.stream.receive_some(2) == b"\x89\x00"
                pings += 1
    assert pings == 2


async def test_who_does_is_not(server: Server) -> None:
    async with connected(server.port) as client:
        with trio.move_on_after(1.5):
            await client.receive()  # answers pings
        await client.send(NOTHING)
        assert (await client.receive_json())["type"] == "cancelAck"


async def test_a_server_that_stops_says_goodbye_when_the_work_is_done() -> None:
    with Server("duckdb://") as server:
        async with connected(server.port) as idle, connected(server.port) as busy:
            query = "select sum(sqrt(range)) as s from range(30000000)"
            await busy.send_json({"type": "json", "sql": query, "queryId": "q"})
            await busy.send(NOTHING)
            assert (await busy.receive_json())["type"] == "cancelAck"  # so the query has begun
            server.process.terminate()
            with pytest.raises(Closed) as caught:
                await idle.receive()
            assert caught.value.code == 1001
            answer = await busy.receive_json()
            assert answer["type"] == "json", answer
            with pytest.raises(Closed) as caught:
                await busy.receive()
            assert caught.value.code == 1001
