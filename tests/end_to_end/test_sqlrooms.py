"""SQLRooms clients at a real server: what they send and get, and what they can do to it.

Clocks are real here. A limit of seconds is for a loaded machine; what is measured is in
docs/benchmarks.md.
"""

from __future__ import annotations

import io
import json
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.ipc
import pytest
import trio

from tests.end_to_end.websocket_client import Closed, Refused, connected
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.end_to_end.websocket_client import WebSocketClient

SLOW = "select count(*) from range(10000000) a, range(10000000) b where a.range + b.range = 3"
SECONDS = 30
MB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@asynccontextmanager
async def client(server: Server, target: str = "/") -> AsyncIterator[WebSocketClient]:
    with trio.fail_after(SECONDS):
        async with connected(server.port, target) as socket:
            yield socket


def frame(header: object, payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "big") + text + payload


def unframed(message: str | bytes) -> tuple[Any, bytes]:
    assert isinstance(message, bytes), message
    begin = 4 + int.from_bytes(message[:4], "big")
    return json.loads(message[4:begin]), message[begin:]


def table(message: str | bytes) -> Any:
    """What an Arrow reader makes of a result."""
    return pyarrow.ipc.open_stream(unframed(message)[1]).read_all()


async def ask(socket: WebSocketClient, kind: str, sql: str, id_: object = "q") -> None:
    await socket.send_json({"type": kind, "sql": sql, "queryId": id_})


async def rows(socket: WebSocketClient, sql: str) -> Any:
    await ask(socket, "json", sql)
    answer = await socket.receive_json()
    assert answer["type"] == "json", answer
    return json.loads(answer["data"])


async def until_idle(server: Server) -> None:
    """Until no thread is at work on a call."""
    while True:
        with server.client() as http:
            http.connection.request("GET", "/metrics")
            metrics = http.connection.getresponse().read().decode()
        if any(line.endswith("calls_running 0") for line in metrics.splitlines()):
            return
        await trio.sleep(0.01)


async def test_every_kind_of_query(server: Server) -> None:
    async with client(server) as socket:
        await ask(socket, "exec", "create or replace table t(x int); insert into t values (1), (2)")
        assert await socket.receive_json() == {"type": "ok", "queryId": "q"}
        await ask(socket, "arrow", "insert into t values (null)", 17)
        assert await socket.receive_json() == {"type": "ok", "queryId": 17}
        await ask(socket, "arrow", "select * from t", "é")
        message = await socket.receive()
        assert unframed(message)[0] == {"type": "arrow", "queryId": "é"}
        assert table(message).to_pydict() == {"x": [1, 2, None]}
        await ask(socket, "arrow", "select * from t where false")
        empty = table(await socket.receive())
        assert (empty.schema.names, empty.num_rows) == (["x"], 0)
        assert await rows(socket, "select x, 'é' as s from t") == [
            {"x": 1, "s": "é"},
            {"x": 2, "s": "é"},
            {"x": None, "s": "é"},
        ]
        await ask(socket, "json", "selec")
        refused = await socket.receive_json()
        assert refused["queryId"] == "q"
        assert refused["error"].startswith('Parser Error: syntax error at or near "selec"')


async def test_an_upload_can_be_queried(server: Server) -> None:
    data = pyarrow.table({"k": [1, 2], "s": ["a", None]})
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data)
    header = {"type": "uploadArrow", "queryId": "u", "tableName": "main.up"}
    async with client(server) as socket:
        await socket.send(frame(header, sink.getvalue()))
        assert await socket.receive_json() == {"type": "uploadAck", "queryId": "u"}
        assert await rows(socket, "from up") == [{"k": 1, "s": "a"}, {"k": 2, "s": None}]
        await socket.send(frame(header, sink.getvalue()[:-20]))
        assert (await socket.receive_json())["type"] == "error"
        assert await rows(socket, "from up") == [{"k": 1, "s": "a"}, {"k": 2, "s": None}]


async def test_two_hundred_queries_in_flight(server: Server) -> None:
    async with client(server) as socket, trio.open_nursery() as nursery:
        heard: dict[int, int] = {}

        async def hear() -> None:
            while len(heard) < 200:
                message = await socket.receive()
                heard[unframed(message)[0]["queryId"]] = table(message)["x"][0].as_py()

        nursery.start_soon(hear)
        for number in range(200):
            await ask(socket, "arrow", f"select {number} as x", number)
    assert heard == {number: number for number in range(200)}


async def test_a_cancelled_query_stops_and_says_so(server: Server) -> None:
    async with client(server) as socket:
        for number in range(10):
            await ask(socket, "arrow", SLOW, number)
            if number % 2:  # else right behind it
                await trio.sleep(0.02)
            await socket.send_json({"type": "cancel", "queryId": number})
            began = time.monotonic()
            heard = [await socket.receive_json(), await socket.receive_json()]
            assert time.monotonic() - began < 2
            assert {"type": "cancelAck", "queryId": number, "cancelled": True} in heard
            assert {"type": "error", "queryId": number, "error": "Query was cancelled"} in heard
        await until_idle(server)


async def test_slow_queries_do_not_starve_quick_ones(server: Server) -> None:
    async with client(server) as slow, client(server) as quick:
        for number in range(16):
            await ask(slow, "json", SLOW, number)
        for _ in range(10):
            assert await rows(quick, "select 42 as x") == [{"x": 42}]
        for number in range(16):
            await slow.send_json({"type": "cancel", "queryId": number})
        for _ in range(32):
            await slow.receive()


async def test_a_query_ends_when_its_client_leaves(server: Server) -> None:
    async with client(server) as socket:
        for number in range(4):
            await ask(socket, "json", SLOW, number)
        assert await rows(socket, "select 1 as x") == [{"x": 1}]
    with trio.fail_after(2):
        await until_idle(server)


LARGE = "select range as a, repeat('x', 100) as b from range(1000000)"  # about 110 MB


async def test_a_large_result_takes_little_memory_however_slowly_it_is_read() -> None:
    with Server() as server:
        async with client(server) as socket:
            await rows(socket, "select 1 as x")
            await ask(socket, "arrow", "select 1 as x")
            await socket.receive()
            before = server.memory()
            await ask(socket, "arrow", LARGE)
            await trio.sleep(0.5)  # in which all of it could be computed
            held = server.memory() - before
            result = table(await socket.receive())
            assert (result.num_rows, result["a"][-1].as_py()) == (1_000_000, 999_999)
            assert result.nbytes > 100 * MB
            assert held < 64 * MB
            assert server.peak_memory() - before < 64 * MB
            assert await rows(socket, "select 1 as x") == [{"x": 1}]


async def test_slow_readers_do_not_keep_the_others_from_connections() -> None:
    with Server("--max-pool", "4") as server:
        async with AsyncExitStack() as stack:
            for _ in range(4):
                slow = await stack.enter_async_context(client(server))
                await ask(slow, "arrow", "from range(5000000)")
            async with client(server) as socket:
                assert await rows(socket, "select 1 as x") == [{"x": 1}]
            assert table(await slow.receive()).num_rows == 5_000_000


async def test_a_large_json_result(server: Server) -> None:
    async with client(server) as socket:
        large = await rows(socket, "select range as a, 'é\"' as b from range(200000)")
    assert large == [{"a": number, "b": 'é"'} for number in range(200_000)]


LOST = "if(range = 900000, error('lost'), range)"


async def test_a_result_that_fails_late_is_whole_to_nobody(server: Server) -> None:
    async with client(server) as socket:
        await ask(socket, "arrow", f"select {LOST} as x from range(1000000)")
        message = await socket.receive()
        if isinstance(message, bytes):
            with pytest.raises(pyarrow.ArrowInvalid):
                table(message)
            message = await socket.receive()
        failed = json.loads(message)
        assert (failed["type"], failed["queryId"]) == ("error", "q")
        assert "lost" in failed["error"]
        assert await rows(socket, "select 1 as x") == [{"x": 1}]


async def test_a_large_result_can_be_cancelled_in_its_middle(server: Server) -> None:
    async with client(server) as socket:
        await ask(socket, "arrow", "select range as x from range(100000000000)")
        await socket.begins()
        await socket.send_json({"type": "cancel", "queryId": "q"})
        with pytest.raises(pyarrow.ArrowInvalid):
            table(await socket.receive())
        heard = [await socket.receive_json(), await socket.receive_json()]
        assert {"type": "cancelAck", "queryId": "q", "cancelled": True} in heard
        assert {"type": "error", "queryId": "q", "error": "Query was cancelled"} in heard
        assert await rows(socket, "select 1 as x") == [{"x": 1}]


async def test_notifications(server: Server) -> None:
    async with client(server) as one, client(server) as two:
        await one.send_json({"type": "subscribe", "channel": "c"})
        assert await one.receive_json() == {"type": "subscribed", "channel": "c"}
        notification = {"type": "notify", "channel": "c", "payload": {"op": "update"}}
        await two.send_json(notification)
        assert await two.receive_json() == notification
        assert await two.receive_json() == {"type": "notifyAck", "channel": "c"}
        assert await one.receive_json() == notification


async def test_tokens() -> None:
    auth = {"type": "auth", "token": "secret"}
    with Server("--bearer-token", "secret") as server:
        async with client(server, "/?roomId=r") as socket:
            await socket.send_json(auth)
            assert await socket.receive_json() == {"type": "authAck"}
            assert await rows(socket, "select 1 as x") == [{"x": 1}]
        for first in (
            {"type": "auth", "token": "wrong"},
            {"type": "exec", "sql": "create table stolen(x int)"},
        ):
            async with client(server) as socket:
                await socket.send_json(first)
                refused = await socket.receive_json()
                assert refused == {"type": "error", "error": "unauthorized"}
                with pytest.raises(Closed) as closed:
                    await socket.receive()
                assert closed.value.code == 1008
        async with client(server, "/?token=secret") as socket:
            await socket.send_json(auth)  # as the CRDT client and others do both
            assert await socket.receive_json() == {"type": "authAck"}
            assert await rows(socket, "from duckdb_tables()") == []
        with pytest.raises(Refused) as refused_at_once:
            async with client(server, "/?token=wrong"):
                pass
        assert refused_at_once.value.status == 401


async def test_a_page_of_another_origin_cannot_connect(server: Server) -> None:
    with pytest.raises(Refused) as refused:
        async with connected(server.port, headers=[(b"origin", b"https://evil.example")]):
            pass
    assert refused.value.status == 403


async def test_the_url_chooses_the_connection() -> None:
    with Server("--connection", "other=sqlite://") as server:
        async with client(server, "/?connection=other") as socket:
            version = await rows(socket, "select sqlite_version() is not null as x")
            assert version == [{"x": 1}]
        with pytest.raises(Refused) as refused:
            async with client(server, "/?connection=none"):
                pass
        assert refused.value.status == 404


async def test_a_server_that_stops_lets_queries_end_and_says_goodbye() -> None:
    with Server() as server:
        async with client(server) as busy, client(server) as idle:
            assert await rows(idle, "select 1 as x") == [{"x": 1}]
            await ask(busy, "json", "select count(*) as n from range(600000000)")
            await trio.sleep(0.1)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(Closed) as closed:
                await idle.receive()
            assert closed.value.code == 1001
            assert json.loads((await busy.receive_json())["data"]) == [{"n": 600_000_000}]
            with pytest.raises(Closed) as closed:
                await busy.receive()
            assert closed.value.code == 1001
