"""Queries that have become brief enough for the event loop, and what else goes on there."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from notebook_rpc_drivers._duckdb_shapes import WORTH
from tests.end_to_end.test_sqlrooms import ask, client, rows, table
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.end_to_end.websocket_client import WebSocketClient

HOT = "select count(*) as n from t a, t b, t c where a.x * b.x * c.x % 7 = 3"
FEW, MANY = 3, 500  # rows: 27 to be counted, and 125 million


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@asynccontextmanager
async def hot(server: Server) -> AsyncIterator[WebSocketClient]:
    """A socket whose client has asked ``HOT`` so often that it is known."""
    async with client(server) as socket:
        await ask(
            socket, "exec", f"create or replace table t as select range as x from range({FEW})"
        )
        await socket.receive()
        for _ in range(2 * WORTH):
            assert await rows(socket, HOT) == [{"n": expected(FEW)}]
        yield socket


def expected(count: int) -> int:
    kinds = [sum(x % 7 == rest for x in range(count)) for rest in range(7)]
    every = range(7)
    return sum(
        kinds[a] * kinds[b] * kinds[c]
        for a in every
        for b in every
        for c in every
        if a * b * c % 7 == 3
    )


async def grow(socket: WebSocketClient) -> None:
    """By a write, which makes nothing of the query forgotten."""
    await ask(socket, "exec", f"insert into t select range from range({FEW}, {MANY})")
    await socket.receive()


async def test_one_that_takes_long_all_of_a_sudden_keeps_nobody_waiting(server: Server) -> None:
    async with hot(server) as socket, client(server) as other:
        await grow(socket)
        began = time.monotonic()
        await ask(socket, "json", HOT)
        answers = 0
        longest = 0.0
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                await socket.receive()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            while True:
                asked = time.monotonic()
                assert await rows(other, "select 42 as x") == [{"x": 42}]
                longest = max(longest, time.monotonic() - asked)
                answers += 1
        assert answers > 10
        assert longest < (time.monotonic() - began) / 2
        await ask(socket, "arrow", HOT)
        assert table(await socket.receive()).to_pylist() == [{"n": expected(MANY)}]


async def test_it_can_be_cancelled_as_any_other(server: Server) -> None:
    async with hot(server) as socket:
        await grow(socket)
        await ask(socket, "json", HOT)
        await socket.send_json({"type": "cancel", "queryId": "q"})
        heard = [await socket.receive_json(), await socket.receive_json()]
        assert {"type": "cancelAck", "queryId": "q", "cancelled": True} in heard
        assert {"type": "error", "queryId": "q", "error": "Query was cancelled"} in heard
        assert await rows(socket, HOT) == [{"n": expected(MANY)}]


async def test_what_others_have_written_is_seen_at_once(server: Server) -> None:
    async with hot(server) as socket, client(server) as other:
        for count in range(FEW, FEW + 20):
            assert await rows(socket, HOT) == [{"n": expected(count)}]
            await ask(other, "exec", f"insert into t values ({count})")
            await other.receive()
        await ask(other, "exec", "create or replace table t as select 1::bigint as x")
        await other.receive()
        assert await rows(socket, HOT) == [{"n": 0}]
