"""Whoever applies what a live query tells has, in the end, what a SELECT returns: random queries
and random writes, on real engines, of several subscribers of which one leaves and comes back."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notebook_rpc.backend import Backend
from notebook_rpc.errors import NotebookError
from notebook_rpc.model import DEFAULT
from notebook_rpc.sansio.tokens import ANYBODY
from notebook_rpc.services import _watch_query
from notebook_rpc.services.connections import Connections
from notebook_rpc.services.workers import Workers
from notebook_rpc.settings import Settings
from notebook_rpc_drivers import duckdb, sqlite
from tests.event_stream import Follower, Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from notebook_rpc.driver import Driver

DRIVERS: dict[str, Driver] = {"duckdb": duckdb.DRIVER, "sqlite": sqlite.DRIVER}
SCHEMA = """
    CREATE TABLE t (a INTEGER, b VARCHAR);
    CREATE TABLE u (a INTEGER, c INTEGER);
    CREATE VIEW v AS SELECT b, sum(a) AS total FROM t GROUP BY b;
    INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, 'y'), (3, NULL), (4, 'z'), (5, 'z'), (6, 'w')
"""
QUERIES = st.sampled_from(
    [
        ("SELECT * FROM t", ""),
        ("SELECT * FROM t", "a"),
        ("SELECT * FROM t ORDER BY a, b", ""),
        ("SELECT * FROM t ORDER BY b DESC, a LIMIT 3", "a"),
        ("SELECT b, a FROM t WHERE a > 2", "b"),
        ("SELECT * FROM v", "b"),
        ("SELECT count(*) AS n FROM v", ""),
        ("SELECT t.a, c FROM t JOIN u ON t.a = u.a ORDER BY 1, 2", "a"),
        ("WITH w AS (SELECT a FROM u) SELECT b FROM t WHERE a IN (SELECT a FROM w)", ""),
    ]
)
NUMBERS = st.integers(0, 6)
WRITES = st.one_of(
    st.builds("INSERT INTO t VALUES ({}, '{}')".format, NUMBERS, st.sampled_from("xyz")),
    st.builds("INSERT INTO u (a, c) VALUES ({}, {})".format, NUMBERS, NUMBERS),
    st.builds("UPDATE t SET b = '{}' WHERE a = {}".format, st.sampled_from("xyz"), NUMBERS),
    st.builds("UPDATE t SET a = a + 1 WHERE b = '{}'".format, st.sampled_from("xyz")),
    st.builds("DELETE FROM {} WHERE a = {}".format, st.sampled_from("tu"), NUMBERS),
    st.sampled_from(
        [
            "BEGIN; DELETE FROM t; ROLLBACK",
            "BEGIN; DELETE FROM u; INSERT INTO t VALUES (9, 'x'); COMMIT",
            "DROP VIEW v; CREATE VIEW v AS SELECT b, max(a) AS total FROM t GROUP BY b",
            "DROP VIEW v; CREATE VIEW v AS SELECT c AS b, a FROM u",
            "ALTER TABLE u ADD COLUMN d INTEGER",
        ]
    ),
)


class Client(Follower):
    """Applies what it is told, as it comes, until it is cancelled."""

    def __init__(self, sql: str) -> None:
        super().__init__()
        self.sql = sql
        self.changed = trio.Event()

    async def follow(self, backend: Backend, key: str) -> None:
        reader = Reader()
        reader.last_id = self.last_id
        asked = (DEFAULT, self.sql, (), key.split(",") if key else ())
        async with backend.watch.subscription(*asked, last_id=self.last_id) as subscription:
            while True:
                for event in reader.feed(b"".join(await subscription.events())):
                    self.take(event)
                self.changed.set()

    def agrees(self, columns: list[str], rows: list[Any]) -> bool:
        if "ORDER" in self.sql:
            return (self.columns, self.rows) == (columns, rows)
        counts = (Counter(map(json.dumps, each)) for each in (self.rows, rows))
        return self.columns == columns and len({frozenset(each.items()) for each in counts}) == 1


@asynccontextmanager
async def a_backend(kind: str, path: Path) -> AsyncIterator[Backend]:
    workers = Workers(limit=8, spare=8)
    opener = {DEFAULT: lambda: DRIVERS[kind].open({"database": str(path)})}
    connections = Connections(opener, workers)
    backend = Backend(Settings(cache_size=0), connections, {DEFAULT: kind}, workers)
    try:
        async with trio.open_nursery() as nursery:
            await backend.open()
            nursery.start_soon(backend.run)
            await trio.testing.wait_all_tasks_blocked()
            yield backend
            nursery.cancel_scope.cancel()
    finally:
        await backend.close()
        assert not await connections.close()
        workers.close()


async def selected(backend: Backend, sql: str) -> tuple[list[str], list[Any]]:
    async with backend.queries(DEFAULT, ANYBODY).rows(sql) as answer:
        pieces: list[bytes | memoryview] = []
        while more := await answer.read():
            pieces += more
        return [column.column for column in answer.columns], json.loads(b"".join(pieces))


@pytest.mark.parametrize("kind", DRIVERS)
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    asked=st.lists(QUERIES, min_size=1, max_size=4),
    writes=st.lists(st.tuples(WRITES, st.booleans()), max_size=12),
    leaves=st.tuples(NUMBERS, NUMBERS),
)
def test_subscribers_converge(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    asked: list[tuple[str, str]],
    writes: list[tuple[str, bool]],
    leaves: tuple[int, int],
) -> None:
    path = tmp_path_factory.mktemp(kind) / "database"

    async def converge() -> None:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(a_backend(kind, path))
            session = await stack.enter_async_context(backend.queries(DEFAULT, ANYBODY).alone())
            await session.execute(SCHEMA)
            clients = [Client(sql) for sql, _ in asked]
            nursery = await stack.enter_async_context(trio.open_nursery())
            for client, (_, key) in zip(clients[1:], asked[1:], strict=True):
                nursery.start_soon(client.follow, backend, key)
            away = trio.CancelScope()

            async def come_and_go() -> None:
                with away:
                    await clients[0].follow(backend, asked[0][1])

            nursery.start_soon(come_and_go)
            for number, (sql, waits) in enumerate(writes):
                if number == leaves[0]:
                    away.cancel()
                    await trio.testing.wait_all_tasks_blocked()
                try:
                    await session.execute(sql)
                except NotebookError:  # a view of what is no more, for one
                    assert ";" in sql or "ALTER" in sql
                if number == leaves[0] + leaves[1]:
                    away = trio.CancelScope()
                    nursery.start_soon(come_and_go)
                if waits:  # else several writes fall together
                    await trio.testing.wait_all_tasks_blocked(0.001)
            if away.cancel_called:
                away = trio.CancelScope()
                nursery.start_soon(come_and_go)
            with trio.fail_after(10):
                for client in clients:
                    columns, rows = await selected(backend, client.sql)
                    while not client.agrees(columns, rows):
                        client.changed = trio.Event()
                        await client.changed.wait()
            nursery.cancel_scope.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_watch_query, "PAUSE", 0.002)
        trio.run(converge)
