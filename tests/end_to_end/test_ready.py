"""/readyz on real databases: one that hangs, one that is gone, one that is merely busy."""

from __future__ import annotations

import http.client
import os
import signal
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Postgres

SLOW = "select count(*) from range(10000000) a, range(10000000) b where a.range + b.range = 3"


def ready(server: Server) -> tuple[int, str, float]:
    """Status and body of /readyz, and how many seconds it took."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    began = time.monotonic()
    connection.request("GET", "/readyz")
    response = connection.getresponse()
    body = response.read().decode()
    took = time.monotonic() - began
    connection.close()
    return response.status, body, took


def until_ready(server: Server) -> None:
    deadline = time.monotonic() + 30
    while ready(server)[0] != 200:
        assert time.monotonic() < deadline


@contextmanager
def hung(postgres: Postgres) -> Iterator[None]:
    """A server that is there, and takes connections and bytes, but does nothing with them."""
    parent = postgres.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    pids = [parent, *map(int, children)]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_busy_database_is_not_a_dead_one() -> None:
    """All threads are taken, and both cores of DuckDB too."""
    with Server("--max-threads", "3", "--grace", "0.1") as server, ExitStack() as clients:
        sessions = [clients.enter_context(server.session()) for _ in range(4)]
        for session in sessions:
            session.send("execute", SLOW)
        for _ in range(5):
            assert ready(server)[:2] == (200, "ok")


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")  # noqa: PTH112
def test_a_database_that_hangs_is_told_of_in_time_and_forgiven(postgres_server: Postgres) -> None:
    with Server(postgres_server.url) as server:
        until_ready(server)
        with hung(postgres_server):
            for _ in range(2):
                status, body, took = ready(server)
                assert (status, body) == (503, "the database has not answered for 1 s")
                assert took < 3
            threads = len(os.listdir(f"/proc/{server.process.pid}/task"))  # noqa: PTH208
            for _ in range(2):
                assert ready(server)[0] == 503
            assert len(os.listdir(f"/proc/{server.process.pid}/task")) <= threads  # noqa: PTH208
        until_ready(server)


def test_a_server_whose_database_hangs_can_be_stopped(postgres_server: Postgres) -> None:
    with Server(postgres_server.url, "--grace", "0.1") as server:
        until_ready(server)
        with hung(postgres_server):
            assert ready(server)[0] == 503
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 0


def test_a_database_that_is_gone_is_told_of_and_found_again(postgres_server: Postgres) -> None:
    with Server(postgres_server.url) as server:
        until_ready(server)
        postgres_server.stop()
        try:
            status, body, _ = ready(server)
            assert status == 503
            assert "connection" in body
        finally:
            postgres_server.start()
        until_ready(server)
