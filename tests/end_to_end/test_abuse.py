"""What hostile and broken clients do, to the real server: it answers the others all the while."""

from __future__ import annotations

import random
import resource
import select
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import Client, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--header-timeout", "2", "--max-body", "1MiB") as server:
        yield server


@pytest.fixture
def good(server: Server) -> Iterator[Client]:
    """A client that must be served well, whatever the others do."""
    with server.client() as client:
        yield client
        assert client.rows("select 42 as a") == [{"a": "42"}]


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def exchange(server: Server, data: bytes) -> bytes:
    """Everything the server says to *data* and the end of it."""
    with connect(server) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while more := client.recv(65536):
            answer += more
    return answer


@pytest.mark.usefixtures("good")
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\n\r\n", b"400"),
        (HEAD + b"Host: localhost\r\n\r\n", b"400"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"400"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", b"400"),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (HEAD + b"Content-Length: -5\r\n\r\n", b"400"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (HEAD + b"X: a\x00b\r\n\r\n", b"400"),
        (HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
        (HEAD + b"X: y\r\n" * 100_000 + b"\r\n", b"431"),
        (HEAD + b"Content-Length: 3000000000\r\n\r\n", b"413"),
        (b"\xff" * 200_000, b"4"),
    ],
    ids=lambda value: repr(value[-40:]),
)
def test_broken_framing_gets_one_4xx_and_a_close(
    server: Server, data: bytes, status: bytes
) -> None:
    answer = exchange(server, data)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.usefixtures("good")
def test_no_bytes_make_the_server_exit_hang_or_answer_5xx(server: Server) -> None:
    chance = random.Random(1995)  # noqa: S311  # nothing secret
    valid = HEAD + b'Content-Length: 47\r\n\r\n{"jsonrpc": "2.0", "id": 1, "method": "tables"}'
    for _ in range(300):
        data = bytearray(valid)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        answer = exchange(server, bytes(data))
        assert not answer or answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 501"))
    for size in (1, 10, 1000, 100_000):
        exchange(server, chance.randbytes(size))


def test_a_large_refused_body_still_gets_its_answer(server: Server, good: Client) -> None:
    with connect(server) as client:
        client.sendall(HEAD + b"Content-Length: 8000000\r\n\r\n" + bytes(8_000_000))
        assert client.recv(100).startswith(b"HTTP/1.1 413")
    assert good.call("progress")["state"] == "NoActive"


def test_clients_that_leave_at_every_point_cost_nothing(server: Server, good: Client) -> None:
    whole = HEAD + b'Content-Length: 47\r\n\r\n{"jsonrpc": "2.0", "id": 1, "method": "tables"}'
    before = server.memory()
    for end in range(0, len(whole) + 1, 3):
        with connect(server) as client:
            client.sendall(whole[:end])
    assert good.call("tables") == []
    assert server.memory() - before < 20_000_000


def test_slow_heads_are_dropped_in_time_and_delay_nobody(server: Server, good: Client) -> None:
    slow = {connect(server) for _ in range(300)}
    began, worst = time.monotonic(), 0.0
    try:
        for client in slow:
            client.send(HEAD[:20])
        while slow and time.monotonic() < began + 30:
            asked = time.monotonic()
            good.call("progress")
            worst = max(worst, time.monotonic() - asked)
            for client in select.select(slow, [], [], 0)[0]:
                assert client.recv(100).startswith(b"HTTP/1.1 408")
                slow.discard(client)
                client.close()
    finally:
        for client in slow:
            client.close()
    assert not slow
    assert time.monotonic() - began < 10  # the limit is 2 seconds here
    assert worst < 1


def test_a_thousand_idle_connections_cost_little_and_delay_nobody(good: Client) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Server() as server:
        before = server.memory()
        clients = [server.client() for _ in range(1000)]
        for client in clients:
            client.call("progress")
        cost = (server.memory() - before) / len(clients)
        asked = time.monotonic()
        clients[0].call("progress")
        assert time.monotonic() - asked < 1
        for client in clients:
            client.connection.close()
        assert cost < 60 * 1024
    assert good.call("progress")["running"] is None


def test_over_the_connection_limit_newcomers_are_told_to_come_back() -> None:
    with Server("--max-connections", "2") as server:
        with server.client() as first, server.client() as second:
            first.call("progress")
            second.call("progress")
            with connect(server) as third:
                answer = third.recv(1000)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"retry-after: 1\r\n" in answer
            first.call("progress")
        with server.client() as later:
            while True:
                try:
                    later.call("progress")
                    break
                except OSError:  # the first two are not gone yet
                    later.connection.close()


def test_slow_readers_do_not_add_up() -> None:
    """Ten of them ask for pages of 16 MiB, and read none for now; later all rows are there."""
    rows = 40_000
    query = f"select range as n, repeat('x', 1000) as t from range({rows})"
    with Server("--max-page", "16MiB", "--max-unsent", "16MiB") as server:
        clients = [server.session() for _ in range(10)]
        for client in clients:
            client.call("execute", query)
        before = server.memory()
        for client in clients:
            client.send("page", rows)
        for client in clients:  # its answer has begun: the page was made
            select.select([client.connection.sock], [], [], 30)
        assert server.peak_memory() - before < 60 * 1024 * 1024  # and not 160 MiB
        for client in clients:
            read = len(client.receive())
            while page := client.call("page", rows):
                read += len(page)
            assert read == rows
            client.connection.close()
