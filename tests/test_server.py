"""How a server is asked to stop, and how it is put together.

Settings are tried on a whole server over the fake database, in this process.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import asynccontextmanager
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from notebook_rpc import plugins, server
from notebook_rpc.binding import CannotBind, Refused
from notebook_rpc.errors import Busy, DatabaseUnavailable
from notebook_rpc.gate import Gate
from notebook_rpc.server import CannotClose, Stop, serve
from notebook_rpc.settings import ConfigError, Settings
from notebook_rpc.web import WEBSOCKET
from notebook_rpc_drivers.fake import FakeDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path


async def refused(settings: Settings) -> None:
    """Start a server that must not come to serve anything."""
    with trio.fail_after(5):
        await serve(settings, print, Stop.never())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "db.example"])
async def test_other_than_loopback_is_refused_before_anything_is_opened(host: str) -> None:
    with pytest.raises(Refused, match="--insecure"):
        await refused(Settings(host=host, url="duckdb:////nonexistent/a"))


async def test_the_first_request_to_stop_drains_and_the_second_interrupts() -> None:
    stop = Stop.never()
    stop.request("SIGTERM")
    assert (stop.draining.is_set(), stop.now.is_set()) == (True, False)
    stop.request("SIGTERM")
    assert stop.now.is_set()


async def test_a_signal_after_quit_interrupts_and_quit_after_a_signal_does_not() -> None:
    stop = Stop.never()
    stop.drain("quit")
    assert (stop.draining.is_set(), stop.now.is_set()) == (True, False)
    stop.drain("quit")
    assert not stop.now.is_set()
    stop.request("SIGTERM")
    assert stop.now.is_set()


# Put together


class Guarded(FakeDatabase):
    """A database that must not be closed under a connection."""

    def close(self) -> None:
        assert all(connection.closed for connection in self.connections)
        super().close()


class Opens:
    """A driver of one database, whatever the properties."""

    def __init__(self, database: FakeDatabase) -> None:
        self.database = database

    def open(self, _: Mapping[str, str], /, *, read_only: bool = False) -> FakeDatabase:
        assert not read_only
        return self.database


class Running:
    """A server, and how to talk to it."""

    def __init__(self, url: str, stop: Stop) -> None:
        self.url = url
        self.stop = stop
        self.host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
        self.port = int(port)

    async def post(self, body: object, *headers: str, host: str | None = None) -> bytes:
        """The whole answer, head and body."""
        return await self.request("POST", "/", body, *headers, host=host)

    async def request(
        self, method: str, path: str, body: object, *headers: str, host: str | None = None
    ) -> bytes:
        data = json.dumps(body).encode()
        head = [
            *(f"{method} {path} HTTP/1.1", f"Host: {host or f'localhost:{self.port}'}"),
            *("Content-Type: application/json", f"Content-Length: {len(data)}"),
            *("Connection: close", *headers, "", ""),
        ]
        with trio.fail_after(5):
            stream = await trio.open_tcp_stream(self.host.strip("[]"), self.port)
            async with stream:
                await stream.send_all("\r\n".join(head).encode() + data)
                return b"".join([piece async for piece in stream])

    async def upgrade(
        self, path: str, message: str, *headers: str, host: str | None = None
    ) -> bytes:
        """Ask for a WebSocket and send *message*; everything the server says until it hangs up."""
        head = [
            *(f"GET {path} HTTP/1.1", f"Host: {host or f'localhost:{self.port}'}"),
            *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
            *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers, "", ""),
        ]
        text = message.encode()
        frame = bytes([0x81, 0x80 | 126, *len(text).to_bytes(2, "big"), 0, 0, 0, 0]) + text
        with trio.fail_after(5):
            stream = await trio.open_tcp_stream(self.host.strip("[]"), self.port)
            async with stream:
                await stream.send_all("\r\n".join(head).encode() + frame)
                await stream.send_eof()
                return b"".join([piece async for piece in stream])

    async def call(self, method: str, *params: object) -> dict[str, object]:
        answer = await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        decoded: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return decoded


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """A server that is asked to stop behind the block, if it was not in it, and has to in time."""
    stop = Stop.never()
    send, receive = trio.open_memory_channel[str](1)

    def listening(urls: Sequence[str]) -> None:
        (url,) = urls
        send.send_nowait(url)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, settings, listening, stop)
            yield Running(await receive.receive(), stop)
            if not stop.draining.is_set():
                stop.request("the test")


SETTINGS = Settings(url="fake://", port=0, grace=1000)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> FakeDatabase:
    """What a server that is started in the test opens."""
    database = Guarded()
    monkeypatch.setattr(plugins, "load_driver", lambda _: Opens(database))
    return database


# Nothing the server answers may be forgotten here: the routes are taken from its own gate.

TOKEN = "Authorization: Bearer s3cret-of-ada"
STRANGERS = [
    ("403", "evil.example", (TOKEN,)),
    ("403", None, (TOKEN, "Origin: https://evil.example")),
    ("403", None, (TOKEN, "Origin: null")),
    ("401", None, ()),
    ("401", None, ("Authorization: Bearer wrong",)),
    ("401", None, ("Authorization: Basic czNjcmV0LW9mLWFkYQ==",)),
]


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> list[Gate]:
    """The gates of the servers that are started in the test."""

    class Remembered(Gate):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    made: list[Gate] = []
    monkeypatch.setattr(server, "Gate", Remembered)
    return made


async def test_every_route_refuses_strangers_and_does_nothing(
    database: FakeDatabase, gates: list[Gate]
) -> None:
    settings = replace(SETTINGS, bearer_token=("s3cret-of-ada",))
    call = {"jsonrpc": "2.0", "id": 1, "method": "execute", "params": ["create table t (a int)"]}
    # What a WebSocket's message has to say differs; each takes of this what it knows.
    message = json.dumps({**call, "type": "exec", "sql": "create table t (a int)"})
    async with running(settings) as ours:
        begun = [list(connection.calls) for connection in database.connections]
        (gate,) = gates
        assert len(gate.routes) > 9
        for route in gate.routes:
            path = route.path.replace("{id}", "0" * 32)
            for status, host, headers in STRANGERS:
                if route.method == WEBSOCKET:
                    answer = await ours.upgrade(path, message, *headers, host=host)
                else:
                    answer = await ours.request(route.method, path, call, *headers, host=host)
                if route.asks_for_token and not headers:
                    assert answer.startswith(b"HTTP/1.1 101 ")
                    assert answer.endswith(b"\x88\x0e\x03\xf0unauthorized")  # closed with 1008
                else:
                    about = (route.method, path, headers)
                    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), about
                    assert answer.endswith(b"\r\n\r\n")
        assert [list(connection.calls) for connection in database.connections] == begun
        assert not ours.stop.draining.is_set()
        assert (await ours.request("POST", "/", call, TOKEN)).startswith(b"HTTP/1.1 200 ")
    assert database.created


async def test_a_token_that_has_ended_is_refused_however_it_comes(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("s3cret-of-ada expires=2020-01-01T00:00:00Z\n")
    file.chmod(0o600)
    async with running(replace(SETTINGS, bearer_token_file=str(file))) as ours:
        assert (await ours.request("POST", "/", {}, TOKEN)).startswith(b"HTTP/1.1 401 ")
        assert (await ours.upgrade("/rpc", "", TOKEN)).startswith(b"HTTP/1.1 401 ")
        message = json.dumps({"type": "auth", "token": "s3cret-of-ada"}).ljust(200)
        assert (await ours.upgrade("/", message)).endswith(b"\x88\x0e\x03\xf0unauthorized")


async def test_the_errors_that_clients_are_told_are_counted() -> None:
    async with running(SETTINGS) as ours:
        await ours.call("nonsense")
        await ours.request("POST", "/mosaic", {"type": "exec", "sql": "error no"})
        told = await ours.request("GET", "/metrics", None)
        for slug in (b"method-not-found", b"query-error"):
            assert b'notebook_rpc_errors_total{slug="' + slug + b'"} 1' in told


async def test_behind_a_server_nothing_stays_open(
    database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = threading.active_count()
    async with running(SETTINGS) as server:
        assert (await server.call("tables"))["result"]
        assert not database.closed
    assert [connection.closed for connection in database.connections] == [True]
    assert database.closed
    assert threading.active_count() == before
    told = [message for message in caplog.messages if "a fake" in message]
    assert told == ["opened default: a fake", "closed default: a fake"]


async def test_behind_a_server_that_is_cancelled_nothing_stays_open(
    database: FakeDatabase,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, SETTINGS, lambda _: nursery.cancel_scope.cancel(), Stop.never())
    assert database.connections[0].closed
    assert database.closed


async def test_a_database_that_cannot_be_connected_to_is_closed_again(
    database: FakeDatabase,
) -> None:
    database.failures["connect"] = DatabaseUnavailable("no")
    before = threading.active_count()
    with pytest.raises(DatabaseUnavailable, match="no"):
        await refused(SETTINGS)
    assert database.closed
    assert threading.active_count() == before


async def test_an_address_in_use_cannot_be_bound_and_leaves_nothing_open(
    database: FakeDatabase,
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(CannotBind, match="in use"),
    ):
        await refused(replace(SETTINGS, port=taken.getsockname()[1]))
    assert database.closed


async def test_a_database_that_fails_to_close_is_an_error_of_its_own(
    database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    database.failures["database.close"] = DatabaseUnavailable("disk full")
    with pytest.raises(CannotClose, match="closing default failed: disk full"):
        await serve(SETTINGS, print, at_once())
    assert "closed default" not in caplog.text


async def test_a_failing_close_does_not_hide_why_the_server_ended(
    database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    database.failures |= {
        "database.close": DatabaseUnavailable("disk full"),
        "connect": DatabaseUnavailable("no"),
    }
    with pytest.raises(DatabaseUnavailable, match="no"):
        await refused(SETTINGS)
    assert "disk full" in caplog.text


def at_once() -> Stop:
    """A stop that has been requested already."""
    stop = Stop.never()
    stop.request("the test")
    return stop


async def test_properties_come_before_those_of_the_url() -> None:
    settings = replace(SETTINGS, url="fake://?fail=tables", properties={"fail": "connect"})
    with pytest.raises(DatabaseUnavailable, match="connect fails"):
        await refused(settings)


async def test_a_property_that_the_driver_does_not_know_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="property nonsense"):
        await refused(replace(SETTINGS, properties={"nonsense": "1"}))


async def test_quit_stops_the_server_long_before_the_grace_period_ends() -> None:
    async with running(SETTINGS) as server:
        assert (await server.call("quit"))["result"] is None
        assert server.stop.draining.is_set()
        assert not server.stop.now.is_set()


@pytest.mark.parametrize("how", ["the grace period ends", "it is asked again"])
async def test_a_running_call_is_interrupted_when(how: str, database: FakeDatabase) -> None:
    grace = 0.05 if how == "the grace period ends" else 1000
    async with running(replace(SETTINGS, grace=grace)) as server, trio.open_nursery() as nursery:
        call = {"jsonrpc": "2.0", "id": 1, "method": "execute", "params": ["wait"]}
        nursery.start_soon(server.post, call)
        await trio.to_thread.run_sync(database.waiting.wait)
        server.stop.request("once")
        await trio.testing.wait_all_tasks_blocked()
        if grace == 1000:
            server.stop.request("twice")
    assert database.connections[0].interrupts
    assert database.closed


@pytest.mark.parametrize("host", ["LOCALHOST", "::1"])
async def test_loopback_by_another_name_needs_no_leave(host: str) -> None:
    async with running(replace(SETTINGS, host=host)) as server:
        assert server.url == f"http://{server.host}:{server.port}/"
        assert server.host == "[::1]" or host != "::1"
        assert (await server.call("tables"))["result"]


async def test_the_bound_address_is_a_name_of_ours_and_listening_on_it_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # An old way to write 127.0.0.1, which nobody takes for loopback.
    async with running(replace(SETTINGS, host="127.1", insecure=True)) as server:
        answer = await server.post({}, host=f"127.1:{server.port}")
        assert answer.startswith(b"HTTP/1.1 200 ")
    assert "listening on 127.1" in caplog.text


async def test_allowed_hosts_and_origins_come_from_the_settings() -> None:
    settings = replace(SETTINGS, allowed_host=("DB.example",), cors_origin=("https://ui.example",))
    async with running(settings) as server:
        answer = await server.post({}, "Origin: https://ui.example", host="db.example")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"access-control-allow-origin: https://ui.example\r\n" in answer
        assert (await server.post({}, host="evil.example")).startswith(b"HTTP/1.1 403 ")


async def test_limits_of_the_protocol_come_from_the_settings() -> None:
    settings = replace(SETTINGS, max_page=60, max_batch=2, stack_traces=True)
    async with running(settings) as server:
        await server.call("execute", "rows 1000")
        answer = await server.call("page", 1000)
        assert 2 < len(json.dumps(answer["result"], separators=(",", ":"))) <= 60
        await server.call("finish")
        assert (await server.post([1, 2])).count(b"-32600") == 2
        assert (await server.post([1, 2, 3])).count(b"-32600") == 1
        assert "Traceback" in str(await server.call("finish"))


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        ("max_header", "header_bytes"),
        ("header_timeout", "header_seconds"),
        ("idle_timeout", "idle_seconds"),
        ("max_body", "body_bytes"),
        ("body_timeout", "body_seconds"),
        ("body_rate", "body_rate"),
        ("send_timeout", "send_seconds"),
        ("max_message", "message_bytes"),
        ("max_backlog", "backlog_bytes"),
        ("ping_interval", "ping_seconds"),
        ("max_connections", "connections"),
    ],
)
def test_each_limit_of_the_transport_has_a_setting_of_its_own(setting: str, limit: str) -> None:
    changed: dict[str, Any] = {setting: 77}
    before = server._limits(SETTINGS)  # noqa: SLF001  # what each does is the transport's to test
    after = server._limits(replace(SETTINGS, **changed))  # noqa: SLF001
    differing = {each.name: getattr(after, each.name) for each in fields(after)}
    assert differing.items() - asdict(before).items() == {(limit, 77)}


async def test_scripts_that_get_no_thread_end_the_start_in_one_line() -> None:
    class NoThread:
        async def load(self) -> None:
            raise Busy("no thread for a setup script")

    with pytest.raises(ConfigError, match=r"^--routes: no thread for a setup script$"):
        await server._loaded(NoThread(), Stop.never())  # type: ignore[arg-type]  # noqa: SLF001  # no system without threads
