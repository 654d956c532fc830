"""Live queries against a server process: unmodified clients, writes through every surface, what
breaks in between, and what is left when it has ended."""

from __future__ import annotations

import http.client
import json
import math
import shutil
import subprocess
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import httpx
import httpx_sse
import pytest
import trio

from tests.end_to_end.websocket_client import connected
from tests.event_stream import Event, Follower, Reader
from tests.support import Server, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(100000000000) b"
MANY = "SELECT range AS a, 'a text' AS b FROM range(30)"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def target(sql: str, **arguments: object) -> str:
    return "/api/subscribe?" + urlencode({"query": sql, **arguments}, quote_via=quote)


def execute(server: Server, sql: str) -> None:
    with server.client() as client:
        client.call("execute", sql)
        client.call("finish")


class Subscriber(Follower):
    """Follows over a plain connection, one event at a time."""

    def __init__(self, port: int, path: str, last_id: str = "", seconds: float = 30) -> None:
        super().__init__()
        self._reader = Reader()
        self._reader.last_id = last_id
        self._events: list[Event] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
        headers = {"Last-Event-ID": last_id} if last_id else {}
        self._connection.request("GET", path, headers=headers)
        self.response = self._connection.getresponse()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def next(self) -> Event | None:
        """None: the server has ended the stream."""
        while not self._events:
            data = self.response.read1()
            if not data:
                return None
            self._events += self._reader.feed(data)
        event = self._events.pop(0)
        self.take(event)
        return event

    def hears(self, name: str) -> None:
        event = self.next()
        assert event is not None
        assert event.name == name, event


def subscriber(server: Server, sql: str, last_id: str = "", **arguments: object) -> Subscriber:
    subscriber = Subscriber(server.port, target(sql, **arguments), last_id)
    assert subscriber.response.status == 200, subscriber.response.read()
    return subscriber


# Clients that people have


def test_httpx_sse(server: Server) -> None:
    execute(server, f"CREATE OR REPLACE TABLE h AS {MANY}")
    follower = Follower()
    base = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=base, timeout=30) as client:

        @contextmanager
        def following() -> Iterator[Callable[[str], None]]:
            headers = {"Last-Event-ID": follower.last_id} if follower.last_id else {}
            path = target("FROM h", key="a")
            with httpx_sse.connect_sse(client, "GET", path, headers=headers) as source:
                events = source.iter_sse()

                def hears(name: str) -> None:
                    event = next(events)
                    assert event.event == name
                    follower.take(Event(event.event, event.data, event.id))

                yield hears

        with following() as hears:
            hears("initial")
            execute(server, "INSERT INTO h VALUES (100, 'new')")
            hears("delta")
            execute(server, "UPDATE h SET b = 'other'")
            hears("update")
            execute(server, "ALTER TABLE h RENAME TO i")
            hears("error")
            execute(server, "ALTER TABLE i RENAME TO h")
            hears("update")
        execute(server, "DELETE FROM h WHERE a = 100")
        with following() as hears:
            hears("delta")
        assert follower.rows == [[number, "other"] for number in range(30)]


PAGE = """<!doctype html><script>
    const source = new EventSource(%s);
    let told = Promise.resolve();  // one by one: each may take a connection of its own
    const tell = (name, event) => {
        const data = event.data ?? "null", last_id = event.lastEventId ?? "";
        const body = JSON.stringify({name, data, last_id});
        told = told.then(() => fetch("/told", {method: "POST", body}));
    };
    source.onopen = (event) => tell("open", event);
    for (const name of ["initial", "update", "delta", "reload", "error"])
        source.addEventListener(name, (event) => tell(name, event));
</script>"""


class Host:
    """Serves a page to a browser, and is told by it; a line between the browser and the server
    that can be cut."""

    def __init__(self, nursery: trio.Nursery, page: Callable[[int], str], port: int) -> None:
        self._nursery = nursery
        self._page = page
        self._behind = port
        self._told, self.tells = trio.open_memory_channel[Event](math.inf)
        self._lines: set[trio.CancelScope] = set()
        self.line = 0

    async def open(self) -> str:
        """The page's URL."""
        listeners = []
        for serve in (self._serve_page, self._pass_on):
            serving = await trio.open_tcp_listeners(0, host="127.0.0.1")
            listeners.append(serving[0].socket.getsockname()[1])
            self._nursery.start_soon(trio.serve_listeners, serve, serving)
        page, self.line = listeners
        return f"http://127.0.0.1:{page}/"

    def cut(self) -> None:
        for line in self._lines:
            line.cancel()

    async def _serve_page(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(headers.get(b"content-length", b"0")):
            body += await stream.receive_some()
        content = b""
        if head.startswith(b"POST /told "):
            self._told.send_nowait(Event(**json.loads(body)))
        elif head.startswith(b"GET / "):
            content = self._page(self.line).encode()
        opening = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n"
        await stream.send_all(opening + b"Content-Length: %d\r\n\r\n" % len(content) + content)

    async def _pass_on(self, stream: trio.SocketStream) -> None:
        async def copy(source: trio.SocketStream, to: trio.SocketStream) -> None:
            async for data in source:
                await to.send_all(data)
            nursery.cancel_scope.cancel()

        server = await trio.open_tcp_stream("127.0.0.1", self._behind)
        async with stream, server, trio.open_nursery() as nursery:
            self._lines.add(nursery.cancel_scope)
            nursery.start_soon(copy, stream, server)
            nursery.start_soon(copy, server, stream)
        self._lines.discard(nursery.cancel_scope)


async def test_a_browser(server: Server, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        missing("chromium, as in Debian's package of that name")
    execute(server, f"CREATE OR REPLACE TABLE c AS {MANY}")
    follower = Follower()

    def page(line: int) -> str:
        return PAGE % json.dumps(f"http://127.0.0.1:{line}" + target("FROM c", key="a"))

    async with trio.open_nursery() as nursery:
        host = Host(nursery, page, server.port)

        async def hears(name: str) -> None:
            with trio.fail_after(60):
                event = await host.tells.receive()
            assert event.name == name
            if event.data != "null":
                follower.take(event)

        url = await host.open()
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0", url]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
        process = await nursery.start(partial(trio.run_process, command, **quiet))
        await hears("open")
        await hears("initial")
        execute(server, "INSERT INTO c VALUES (100, 'new')")
        await hears("delta")
        execute(server, "UPDATE c SET b = 'other'")
        await hears("update")
        execute(server, "ALTER TABLE c RENAME TO d")
        await hears("error")
        assert "c" in follower.errors[0]
        execute(server, "ALTER TABLE d RENAME TO c")
        await hears("update")
        host.cut()
        await hears("error")  # of the connection, without data
        execute(server, "DELETE FROM c WHERE a = 100")
        await hears("open")
        await hears("delta")
        assert follower.rows == [[number, "other"] for number in range(30)]
        process.kill()
        await process.wait()
        nursery.cancel_scope.cancel()


# Who writes


async def by_sqlrooms(server: Server, sql: str) -> None:
    async with connected(server.port) as client:
        await client.send_json({"type": "exec", "sql": sql})
        assert (await client.receive_json())["type"] == "ok"


async def by_a_socket_of_mosaic(server: Server, sql: str) -> None:
    async with connected(server.port, "/mosaic") as client:
        await client.send_json({"type": "exec", "sql": sql})
        assert await client.receive() == "{}"


async def by_a_socket_of_rpc(server: Server, sql: str) -> None:
    async with connected(server.port, "/rpc") as client:
        call = {"jsonrpc": "2.0", "id": 1, "method": "execute", "params": [sql]}
        await client.send_json(call)
        assert "result" in await client.receive_json()


async def by_rpc(server: Server, sql: str) -> None:
    execute(server, sql)


async def by_a_session(server: Server, sql: str) -> None:
    with server.session() as client:
        client.call("execute", "BEGIN")
        client.call("finish")
        client.call("execute", sql)
        client.call("finish")
        client.call("execute", "COMMIT")
        client.call("finish")


@pytest.fixture(scope="module", params=["duckdb", "sqlite"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of each engine that tells which tables are touched."""
    path = tmp_path_factory.mktemp(request.param) / "database"
    with Server(f"{request.param}:///{path}") as server:
        yield server


async def test_a_write_through_any_surface_is_told(database: Server) -> None:
    ways = [by_rpc, by_a_session, by_sqlrooms, by_a_socket_of_mosaic, by_a_socket_of_rpc]
    execute(database, "CREATE TABLE w (a INTEGER)")
    with subscriber(database, "SELECT a FROM w ORDER BY a") as watcher:
        watcher.hears("initial")
        for number, way in enumerate(ways):
            await way(database, f"INSERT INTO w VALUES ({number})")
            await trio.to_thread.run_sync(watcher.hears, "update")
            assert watcher.rows == [[each] for each in range(number + 1)]


# What may be asked


def asked(server: Server, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_what_would_write_is_refused(database: Server) -> None:
    execute(database, "CREATE TABLE r (a INTEGER)")
    for sql in (
        "INSERT INTO r VALUES (1)",
        "INSERT INTO r VALUES (1) RETURNING a",
        "DELETE FROM r; SELECT 1",
        "DROP TABLE r",
        "BEGIN",
    ):
        status, body = asked(database, target(sql))
        assert (status, set(json.loads(body))) == (400, {"error", "code"}), sql
    with database.client() as client:
        assert client.rows("SELECT count(*) AS n FROM r") == [{"n": "0"}]


def test_where_nothing_would_keep_it_from_writing_it_is_refused(tmp_path: Path) -> None:
    url = f"dbapi:sqlite3?database={tmp_path / 'database'}"
    with Server(url) as server:
        status, body = asked(server, target("SELECT 1"))
        assert status == 501
        assert "read-only" in json.loads(body)["error"]


def test_parameters(server: Server) -> None:
    path = target("SELECT $1 AS a, $2 AS b", params='["x", 2]')
    with Subscriber(server.port, path) as watcher:
        watcher.hears("initial")
        assert (watcher.columns, watcher.rows) == (["a", "b"], [["x", 2]])


def test_methods(server: Server) -> None:
    assert asked(server, target("SELECT 1"), "HEAD") == (200, b"")
    assert asked(server, target("SELECT 1"), "POST")[0] == 405
    assert asked(server, "/api/subscribe")[0] == 400


def test_a_token_is_needed_here_too() -> None:
    with Server("--bearer-token", "secret") as server:
        assert asked(server, target("SELECT 1"))[0] == 401


def test_who_polls_sees_what_others_write(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a\n1\n")
    with subscriber(server, f"FROM '{path}'", poll=1) as watcher:
        watcher.hears("initial")
        path.write_text("a\n1\n2\n")
        watcher.hears("update")
        assert watcher.rows == [[1], [2]]


# Limits

LARGEST = 12_000_000


@pytest.fixture(scope="module")
def limited() -> Iterator[Server]:
    limits = ("--max-subscriptions", "2", "--max-live", str(LARGEST), "--send-timeout", "1")
    with Server(*limits) as server:
        yield server


def test_so_many_may_subscribe_and_no_more(limited: Server) -> None:
    until(limited, "subscriptions", 0)
    with subscriber(limited, "SELECT 1"), subscriber(limited, "SELECT 1"):
        status, body = asked(limited, target("SELECT 1"))
        assert (status, json.loads(body)["code"]) == (503, None)
    until(limited, "subscriptions", 0)
    subscriber(limited, "SELECT 1").__exit__()


def test_a_result_may_have_its_size_and_no_byte_more(limited: Server) -> None:
    until(limited, "subscriptions", 0)
    room = LARGEST - len('data: {"columns":["a"],"rows":[[""]]}\n')
    sql = "SELECT repeat('x', {}) AS a"
    assert asked(limited, target(sql.format(room)), "HEAD")[0] == 200
    status, body = asked(limited, target(sql.format(room + 1)))
    assert (status, f"{LARGEST} bytes" in json.loads(body)["error"]) == (400, True)


def test_who_does_not_read_is_cut_off(limited: Server) -> None:
    until(limited, "subscriptions", 0)
    with subscriber(limited, "SELECT repeat('x', 1000) AS a FROM range(11000)") as watcher:
        until(limited, "subscriptions", 1)
        until(limited, "subscriptions", 0)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            watcher.next()


# How it ends


def metric(server: Server, name: str) -> int:
    _, body = asked(server, "/metrics")
    return next(
        int(float(line.split()[1]))
        for line in body.decode().splitlines()
        if line.startswith(f"notebook_rpc_{name} ")
    )


def until(server: Server, name: str, value: int) -> None:
    deadline = time.monotonic() + 20
    while metric(server, name) != value:
        assert time.monotonic() < deadline, name
        time.sleep(0.02)


def test_who_leaves_leaves_nothing_behind(server: Server) -> None:
    threads = metric(server, "connections")
    execute(server, "CREATE OR REPLACE TABLE l AS SELECT 1 AS a")
    watchers = [subscriber(server, "FROM l") for _ in range(20)]
    for watcher in watchers:
        watcher.hears("initial")
    assert metric(server, "subscriptions") == 20
    assert metric(server, "live_queries") >= 1
    for watcher in watchers:
        watcher.__exit__()
    until(server, "subscriptions", 0)
    until(server, "connections", threads)


def test_who_leaves_before_the_first_result_stops_the_query(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", target(ENDLESS))
    until(server, "calls_running", 1)
    connection.close()
    until(server, "calls_running", 0)
    until(server, "subscriptions", 0)


def test_a_server_that_stops_does_not_wait_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    url = f"duckdb:///{tmp_path / 'database.duckdb'}"
    with Server(url, "--grace", "30") as server:
        execute(server, "CREATE TABLE s AS SELECT 1 AS a")
        with subscriber(server, "FROM s") as watcher:
            watcher.hears("initial")
            began = time.monotonic()
            server.process.terminate()
            assert watcher.next() is None
            assert server.wait() == 0
            assert time.monotonic() - began < 10
    with Server(url) as server, subscriber(server, "FROM s", watcher.last_id) as again:
        again.hears("initial")
        assert again.rows == [[1]]
