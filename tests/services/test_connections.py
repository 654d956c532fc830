"""Databases by name: opened late, once, and again after a failure; closed in order."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import (
    DatabaseError,
    DatabaseUnavailable,
    MissingDriver,
    NotSupported,
    QueryError,
    UnknownConnection,
)
from notebook_rpc.services.connections import Connections
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Shelf:
    """Three databases, and what happened to them in order."""

    def __init__(self, workers: Workers) -> None:
        self.events: list[str] = []
        self.databases = {name: FakeDatabase() for name in ("default", "sales", "team/plans")}
        self.gone: set[str] = set()
        self.workers = workers
        openers = {name: self.opener(name) for name in self.databases}
        self.connections = Connections(openers, workers)

    def opener(self, name: str) -> Callable[[], FakeDatabase]:
        def opened() -> FakeDatabase:
            self.events.append(f"open {name}")
            if name in self.gone:
                raise DatabaseUnavailable(f"{name} is gone")
            return self.databases[name]

        return opened


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    workers = Workers(limit=4, spare=2)
    shelf = Shelf(workers)
    yield shelf
    await shelf.connections.close()
    workers.close()


async def test_a_database_is_opened_when_first_asked_for_and_only_once(shelf: Shelf) -> None:
    assert shelf.events == []
    await shelf.connections.connect("sales")
    await shelf.connections.connect("sales")
    assert shelf.events == ["open sales"]
    assert len(shelf.databases["sales"].connections) == 2


async def test_of_many_who_ask_at_once_one_opens_it(shelf: Shelf) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(shelf.connections.connect, "team/plans")
    assert shelf.events == ["open team/plans"]
    assert len(shelf.databases["team/plans"].connections) == 5


async def test_an_unknown_name_is_an_error_that_has_it(shelf: Shelf) -> None:
    with pytest.raises(UnknownConnection, match="there is no connection 'plans'"):
        await shelf.connections.connect("plans")
    assert shelf.events == []


async def test_a_database_that_was_gone_is_tried_again(shelf: Shelf) -> None:
    shelf.gone.add("sales")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="sales is gone"):
            await shelf.connections.connect("sales")
    shelf.gone.clear()
    await shelf.connections.connect("sales")
    assert shelf.events == ["open sales"] * 3


async def test_the_last_opened_is_closed_first_and_a_failure_stops_nothing(shelf: Shelf) -> None:
    order: list[str] = []
    for name, database in shelf.databases.items():
        database.close = lambda name=name: order.append(name)  # type: ignore[method-assign, misc]
    failure = DatabaseError("the disk is full")

    def fail() -> None:
        order.append("sales")
        raise failure

    shelf.databases["sales"].close = fail  # type: ignore[method-assign]
    for name in ("default", "sales", "team/plans"):
        await shelf.connections.open(name)
    assert await shelf.connections.close() == {"sales": failure}
    assert order == ["team/plans", "sales", "default"]
    assert await shelf.connections.close() == {}


async def test_so_it_is_if_a_driver_fails_as_none_may(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    shelf.databases["sales"].close = fail  # type: ignore[method-assign]
    for name in ("default", "sales"):
        await shelf.connections.open(name)
    failures = await shelf.connections.close()
    assert {name: str(failure) for name, failure in failures.items()} == {
        "sales": "RuntimeError: a bug"
    }
    assert shelf.databases["default"].closed
    assert "closing sales failed" in caplog.text


async def test_what_was_never_opened_is_not_closed(shelf: Shelf) -> None:
    await shelf.connections.open("sales")
    await shelf.connections.close()
    assert shelf.databases["sales"].closed
    assert not shelf.databases["default"].closed


async def test_closing_cannot_be_cancelled(shelf: Shelf) -> None:
    for name in ("default", "sales"):
        await shelf.connections.open(name)
    shelf.databases["sales"].failures["database.close"] = DatabaseError("the disk is full")
    with trio.CancelScope() as scope:
        scope.cancel()
        failures = await shelf.connections.close()
    assert list(failures) == ["sales"]
    assert shelf.databases["default"].closed


async def test_whoever_has_waited_for_a_try_that_failed_shares_the_failure(shelf: Shelf) -> None:
    shelf.gone.add("sales")
    failures = []

    async def ask() -> None:
        try:
            await shelf.connections.connect("sales")
        except DatabaseUnavailable as exc:
            failures.append(str(exc))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert failures == ["sales is gone"] * 5
    assert shelf.events == ["open sales"]


async def test_it_is_shared_with_all_that_is_known_of_it(shelf: Shelf) -> None:
    def opened() -> FakeDatabase:
        failure = MissingDriver("install it")
        failure.module = "psycopg"
        raise failure

    connections = Connections({"sales": opened}, shelf.workers)
    modules = []

    async def ask() -> None:
        try:
            await connections.connect("sales")
        except MissingDriver as exc:
            modules.append(exc.module)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert modules == ["psycopg"] * 3


async def test_a_read_only_connection_beside_one_that_writes(shelf: Shelf) -> None:
    reader = await shelf.connections.connect("sales", read_only=True)
    writer = await shelf.connections.connect("sales")
    with pytest.raises(QueryError, match="reading only"):
        reader.execute("count 1")
    assert writer.execute("count 1").count == 1


class Plain:
    """A database that knows of no read-only connections."""

    description = "plain"

    def __init__(self) -> None:
        self.connections: list[object] = []

    def connect(self) -> Any:
        self.connections.append(object())
        return self.connections[-1]

    def close(self) -> None:
        """It holds nothing."""


async def test_what_cannot_be_read_only_is_refused_to_who_may_only_read() -> None:
    plain = Plain()
    workers = Workers(limit=1, spare=1)
    connections = Connections({"sales": lambda: plain}, workers)
    with pytest.raises(NotSupported, match="the driver of sales has no read-only connections"):
        await connections.connect("sales", read_only=True)
    assert plain.connections == []
    assert await connections.connect("sales") is plain.connections[0]
    workers.close()


async def test_a_database_that_is_open_for_reading_only_needs_no_other_connections() -> None:
    plain = Plain()
    workers = Workers(limit=1, spare=1)
    connections = Connections({"sales": lambda: plain}, workers, read_only=True)
    assert await connections.connect("sales", read_only=True) is plain.connections[0]
    workers.close()


class Counted:
    """A database whose connections can be counted by references, as those of real drivers."""

    class Connection:
        """Nothing is asked of it here."""

    def __init__(self, name: str) -> None:
        self.description = name
        self.closed = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def connect(self) -> Any:
        return Counted.Connection()

    def close(self) -> None:
        self._token.run_sync_soon(self.closed.set)


def _same(database: Counted) -> Counted:
    return database


class TestReplacing:
    @pytest.fixture
    async def connections(self, nursery: trio.Nursery) -> AsyncIterator[Connections]:
        workers = Workers(limit=1, spare=1)  # so that what is asked for comes in order
        connections = Connections({}, workers)
        nursery.start_soon(connections.run)
        yield connections
        nursery.cancel_scope.cancel()
        await connections.close()
        workers.close()

    async def test_what_was_put_is_there(self, connections: Connections) -> None:
        first = Counted("first")
        assert "a" not in connections
        await connections.put("a", lambda: first)
        assert "a" in connections
        assert connections.is_open("a")
        assert await connections.open("a") is first

    async def test_the_one_before_is_closed_at_once_if_nobody_uses_it(
        self, connections: Connections
    ) -> None:
        first, second = Counted("first"), Counted("second")
        await connections.put("a", lambda: first)
        await connections.put("a", lambda: second)
        with trio.fail_after(5):
            await first.closed.wait()
        assert await connections.open("a") is second
        assert not second.closed.is_set()

    async def test_those_who_use_it_may_finish(self, connections: Connections) -> None:
        first, second = Counted("first"), Counted("second")
        await connections.put("a", lambda: first)
        used = [await connections.connect("a") for _ in range(2)]
        await connections.put("a", lambda: second)
        while used:
            await wait_all_tasks_blocked()
            await connections.connect("a")  # of the second; whatever was to be closed is
            assert not first.closed.is_set()
            used.pop()
        with trio.fail_after(5):
            await first.closed.wait()

    async def test_it_is_closed_however_many_calls_wait(self) -> None:
        workers = Workers(limit=1, spare=1, max_waiting=0)
        connections = Connections({}, workers)
        first, second = Counted("first"), Counted("second")
        for each in (first, second):
            await connections.put("a", partial(_same, each))
        waiting = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, waiting.wait)
            await wait_all_tasks_blocked()
            nursery.start_soon(connections.run)
            try:
                with trio.fail_after(5):
                    await first.closed.wait()
            finally:
                waiting.set()
            nursery.cancel_scope.cancel()
        await connections.close()
        workers.close()

    async def test_one_that_fails_to_close_as_none_may_ends_nothing(
        self, connections: Connections, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            raise RuntimeError("a bug")

        broken, second, third = Counted("broken"), Counted("second"), Counted("third")
        broken.close = fail  # type: ignore[method-assign]
        for each in (broken, second, third):
            await connections.put("a", partial(_same, each))
        with trio.fail_after(5):
            await second.closed.wait()
        assert "RuntimeError: a bug" in caplog.text

    async def test_what_does_not_open_changes_nothing(self, connections: Connections) -> None:
        first = Counted("first")

        def fails() -> Any:
            raise DatabaseUnavailable("gone")

        await connections.put("a", lambda: first)
        for name in ("a", "b"):
            with pytest.raises(DatabaseUnavailable, match="gone"):
                await connections.put(name, fails)
        assert await connections.open("a") is first
        assert "b" not in connections
        assert not first.closed.is_set()

    async def test_at_the_end_those_that_are_still_used_are_closed_too(
        self, connections: Connections
    ) -> None:
        first, second = Counted("first"), Counted("second")
        await connections.put("a", lambda: first)
        used = await connections.connect("a")
        await connections.put("a", lambda: second)
        await connections.close()
        await wait_all_tasks_blocked()
        assert first.closed.is_set()
        assert second.closed.is_set()
        del used

    async def test_a_try_that_failed_is_not_held_against_the_next(self, shelf: Shelf) -> None:
        shelf.gone.add("sales")
        with pytest.raises(DatabaseUnavailable):
            await shelf.connections.open("sales")
        other = FakeDatabase()
        await shelf.connections.put("sales", lambda: other)
        assert await shelf.connections.open("sales") is other
