"""A whole server on a real PostgreSQL: clients that vanish, a database that goes and comes back."""

from __future__ import annotations

import os
import signal
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support import RpcError, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import Postgres
    from tests.support import Client


@pytest.fixture
def server(postgres_server: Postgres) -> Iterator[Server]:
    with Server(postgres_server.url) as server:
        yield server


def backend(client: Client) -> str:
    """The process of PostgreSQL that serves the session."""
    (row,) = client.rows("select pg_backend_pid() as pid")
    return str(row["pid"])


def is_busy(witness: Client, pid: str) -> bool:
    query = f"select count(*) as n from pg_stat_activity where state = 'active' and pid = {pid}"
    return witness.rows(query) == [{"n": "1"}]


def is_idle(witness: Client, pid: str) -> bool:
    """Or not there any more."""
    return not is_busy(witness, pid)


def until(condition: Callable[[], bool], seconds: float = 10) -> float:
    """Wait for it, and say how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
    return time.monotonic() - began


def test_the_statement_of_a_client_that_vanishes_is_gone_within_a_second(server: Server) -> None:
    with server.client() as witness:
        for _ in range(3):
            with server.session() as client:
                pid = backend(client)
                client.rows("begin")
                client.send("execute", "select pg_sleep(60)")
                until(partial(is_busy, witness, pid))
            assert until(partial(is_idle, witness, pid)) < 1


def test_the_transaction_of_a_session_that_ends_is_undone(server: Server) -> None:
    with server.client() as witness:
        witness.rows("create table undone (n integer)")
        with server.session() as client:
            client.rows("begin")
            client.rows("insert into undone values (1)")
            assert client.call("progress")["transaction"] == "in transaction"
            client.connection.request("DELETE", client.path)
            assert client.connection.getresponse().status == 204
        assert witness.rows("select count(*) as n from undone") == [{"n": "0"}]
        witness.rows("drop table undone")


def test_cancelling_takes_milliseconds(server: Server) -> None:
    with server.client() as witness, server.session() as client:
        times = []
        busy = partial(is_busy, witness, backend(client))
        for _ in range(15):
            client.send("execute", "select pg_sleep(60)")
            until(busy)
            with server.client(client.path) as other:
                began = time.monotonic()
                assert other.call("cancel") is True
                with pytest.raises(RpcError, match="execute was cancelled"):
                    client.receive()
                times.append(time.monotonic() - began)
        assert client.rows("select 7 as n") == [{"n": "7"}]
        print("median", statistics.median(times), "seconds")  # noqa: T201  # for the docs
        assert statistics.median(times) < 0.5  # 0.003 on a quiet machine


def test_a_failed_transaction_says_so_and_is_never_said_to_be_committed(server: Server) -> None:
    with server.session() as client:
        client.rows("begin")
        with pytest.raises(RpcError, match="division by zero"):
            client.rows("select 1/0")
        assert client.call("progress")["transaction"] == "failed transaction"
        with pytest.raises(RpcError, match="rolled back"):
            client.rows("commit")
        assert client.call("progress")["transaction"] == "autocommit"
        assert client.rows("select 7 as n") == [{"n": "7"}]


def test_a_database_that_was_restarted_is_an_error_once_and_then_works(
    server: Server, postgres_server: Postgres
) -> None:
    with server.session() as client, server.session() as reader:
        client.rows("begin")
        reader.call("execute", "select generate_series(1, 100000) as n")
        assert len(reader.call("page", 10)) == 10
        postgres_server.stop()
        with pytest.raises(RpcError, match="connection and its transaction are lost") as caught:
            client.rows("select 1")
        assert caught.value.data["slug"] == "database-unavailable"
        with pytest.raises(RpcError) as caught:  # there is nobody to connect to
            client.rows("select 1")
        assert caught.value.data["slug"] == "database-unavailable"
        with server.client() as other:
            other.connection.request("POST", "/sessions")
            response = other.connection.getresponse()
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert b"database-unavailable" in response.read()
        postgres_server.start()
        assert client.rows("select 7 as n") == [{"n": "7"}]
        with pytest.raises(RpcError) as caught:
            list(iter(lambda: reader.call("page", 1000), []))
        assert caught.value.data["slug"] == "database-unavailable"
        with pytest.raises(RpcError, match="lost"):
            reader.call("page", 10)
        reader.call("finish")
        assert reader.rows("select 8 as n") == [{"n": "8"}]


def test_a_database_that_hangs_is_given_up_after_a_while(postgres_server: Postgres) -> None:
    with (
        Server(postgres_server.url, "--query-timeout", "1") as server,
        server.session() as client,
    ):
        hung = int(backend(client))
        client.rows("begin")
        os.kill(hung, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(RpcError, match="took longer than 1 seconds"):
                client.call("execute", "select 1")
            assert time.monotonic() - began < 20  # 1 for the call, 5 for the server to react
            assert client.rows("select 7 as n") == [{"n": "7"}]
        finally:
            os.kill(hung, signal.SIGCONT)


def test_another_connection_is_opened_when_it_is_asked_for(postgres_server: Postgres) -> None:
    broken = f"postgresql://notebook@127.0.0.1:{postgres_server.port}/no_such_database"
    named = ("--connection", f"sales={postgres_server.url}", "--connection", f"team/gone={broken}")
    with Server(*named) as server, server.client() as client:
        assert client.rows("select version() like 'v%' as duckdb") == [{"duckdb": "true"}]
        client.connection.request(
            "POST", "/sessions", b'{"connection": "sales"}', {"Content-Type": "application/json"}
        )
        response = client.connection.getresponse()
        assert response.status == 201
        client.path = response.headers["Location"]
        response.read()
        (row,) = client.rows("select version() like 'PostgreSQL%' as postgres")
        assert row == {"postgres": "true"}
        for name, status in (("team/gone", 503), ("nobody", 404)):
            body = f'{{"connection": "{name}"}}'
            client.connection.request(
                "POST", "/sessions", body, {"Content-Type": "application/json"}
            )
            response = client.connection.getresponse()
            assert response.status == status
            assert (b"no_such_database" in response.read()) is (status == 503)
