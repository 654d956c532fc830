"""Mosaic against a server process: what its connectors need, over a WebSocket and over HTTP."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pytest
import trio

from tests.end_to_end.websocket_client import connected
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(100000000000) b"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def arrow(stream: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.ipc.open_stream(stream).read_all().to_pylist()
    return rows


class Rest:
    """Asks over HTTP, one connection for each request."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, method: str, target: str, body: str | None = None) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request(method, target, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("content-type", ""), answer.read()
        finally:
            connection.close()

    def post(self, kind: str, sql: str) -> tuple[int, str, bytes]:
        return self.ask("POST", "/mosaic", json.dumps({"type": kind, "sql": sql}))

    def get(self, kind: str, sql: str) -> tuple[int, str, bytes]:
        return self.ask("GET", "/mosaic?query=" + quote(json.dumps({"type": kind, "sql": sql})))


@pytest.fixture
def rest(server: Server) -> Rest:
    return Rest(server.port)


async def test_a_socket_answers_in_order(server: Server) -> None:
    async with connected(server.port, "/mosaic") as client:
        for number in range(50):
            await client.send_json({"type": "arrow", "sql": f"SELECT {number} AS n"})
            await client.send_json({"type": "json", "sql": f"SELECT {number} AS n"})
            await client.send_json({"type": "exec", "sql": "SELEKT"})
            await client.send_json({"type": "exec", "sql": "SELECT 1"})
        for number in range(50):
            stream = await client.receive()
            assert isinstance(stream, bytes)
            assert arrow(stream) == [{"n": number}]
            assert await client.receive_json() == [{"n": number}]
            assert (await client.receive_json())["error"].startswith("Parser Error: ")
            assert await client.receive() == "{}"


async def test_a_socket_keeps_what_is_temporary(server: Server) -> None:
    async with (
        connected(server.port, "/mosaic") as client,
        connected(server.port, "/mosaic") as other,
    ):
        await client.send_json({"type": "exec", "sql": "CREATE TEMP TABLE mine AS SELECT 7 AS n"})
        assert await client.receive() == "{}"
        for each in (client, other):
            await each.send_json({"type": "json", "sql": "FROM mine"})
        assert await client.receive_json() == [{"n": 7}]
        assert "mine" in (await other.receive_json())["error"]


async def test_a_large_result_is_whole(server: Server) -> None:
    async with connected(server.port, "/mosaic") as client:
        await client.send_json({"type": "arrow", "sql": "SELECT range AS n FROM range(1000000)"})
        stream = await client.receive()
        assert isinstance(stream, bytes)
        table = pa.ipc.open_stream(stream).read_all()
        assert table.num_rows == 1_000_000
        assert table["n"].to_pylist() == list(range(1_000_000))


async def test_a_late_error_leaves_nothing_that_can_be_read(server: Server) -> None:
    late = "SELECT CASE WHEN n < 900000 THEN n ELSE error('late') END AS n FROM range(1000000) r(n)"
    async with connected(server.port, "/mosaic") as client:
        await client.send_json({"type": "arrow", "sql": late})
        await client.send_json({"type": "json", "sql": "SELECT 1 AS n"})
        answer = await client.receive()
        if isinstance(answer, bytes):
            with pytest.raises(pa.ArrowInvalid):
                arrow(answer)
        else:  # nothing had been sent yet
            assert "late" in json.loads(answer)["error"]
        assert await client.receive_json() == [{"n": 1}]


async def test_a_client_that_leaves_stops_its_query(server: Server) -> None:
    async with connected(server.port, "/mosaic") as client:
        await client.send_json({"type": "exec", "sql": ENDLESS})
        await until_calls_run(server, 1)
    await until_calls_run(server, 0)


async def until_calls_run(server: Server, number: int) -> None:
    rest = Rest(server.port)
    with trio.fail_after(10):
        while True:
            _, _, body = await trio.to_thread.run_sync(rest.ask, "GET", "/readyz?verbose")
            if json.loads(body)["calls"]["running"] == number:
                return


def test_rest(rest: Rest) -> None:
    status, kind, body = rest.post("arrow", "SELECT 42 AS n")
    assert (status, kind) == (200, "application/vnd.apache.arrow.stream")
    assert arrow(body) == [{"n": 42}]
    assert rest.post("json", "SELECT 42 AS n") == (200, "application/json", b'[{"n":42}]')
    assert rest.post("exec", "CREATE OR REPLACE TABLE r AS SELECT 1 AS n") == (200, "", b"")
    status, _, body = rest.post("arrow", "SELEKT")
    assert status == 400
    assert body.startswith(b"Parser Error: ")


def test_an_empty_result_has_its_columns(rest: Rest) -> None:
    _, _, body = rest.post("arrow", "SELECT 1 AS n WHERE false")
    table = pa.ipc.open_stream(body).read_all()
    assert (table.column_names, table.num_rows) == (["n"], 0)
    assert rest.post("json", "SELECT 1 AS n WHERE false")[2] == b"[]"


def test_a_get_cannot_write(rest: Rest) -> None:
    assert rest.post("exec", "CREATE OR REPLACE TABLE got AS SELECT 1 AS n")[0] == 200
    for sql in ("INSERT INTO got VALUES (2)", "DROP TABLE got", "COMMIT; DELETE FROM got"):
        assert rest.get("exec", sql)[0] == 400, sql
    assert rest.get("json", "FROM got") == (200, "application/json", b'[{"n":1}]')


def test_a_transaction_ends_with_its_request(rest: Rest) -> None:
    assert rest.post("exec", "CREATE OR REPLACE TABLE open (n INTEGER)")[0] == 200
    status, _, body = rest.post("exec", "BEGIN; INSERT INTO open VALUES (1)")
    assert status == 400
    assert b"must end with the request" in body
    assert rest.post("json", "SELECT count(*) AS n FROM open")[2] == b'[{"n":0}]'


def test_a_large_body_is_whole(rest: Rest) -> None:
    _, _, body = rest.post("json", "SELECT range AS n FROM range(300000)")
    assert [row["n"] for row in json.loads(body)] == list(range(300_000))


def test_a_late_error_cuts_the_body(rest: Rest) -> None:
    late = "SELECT CASE WHEN n < 900000 THEN n ELSE error('late') END AS n FROM range(1000000) r(n)"
    try:
        status, _, body = rest.post("json", late)
    except (http.client.IncompleteRead, ConnectionError):
        return
    assert status == 400, body[-100:]
    assert b"late" in body


def test_no_other_method(rest: Rest) -> None:
    assert rest.ask("DELETE", "/mosaic")[0] == 405
