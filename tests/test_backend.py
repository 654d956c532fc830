"""What stands behind the surfaces: whose statement runs where, what is shared, how it all ends."""

from __future__ import annotations

import json
import math
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.backend import IDLE, Backend
from notebook_rpc.errors import (
    Cancelled,
    QueryError,
    QueryTimeout,
    TooManySessions,
    UnknownConnection,
    UnknownSession,
    WrongState,
)
from notebook_rpc.model import Stability
from notebook_rpc.sansio.tokens import ANYBODY, User
from notebook_rpc.services import _watch_query
from notebook_rpc.services.connections import Connections
from notebook_rpc.services.workers import Workers
from notebook_rpc.settings import ConfigError, Settings
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase, Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

ENGINES = {"default": "fake", "twin": "fake", "sales": "other"}
READER = User("ada", read_only=True)
SETTINGS = Settings(cache_size=0)
LASTING = {"rows 2": Stability.LASTING, "rows 3": Stability.SHARED}


class Firm:
    """A backend over three fakes, and all that it has connected to."""

    def __init__(self, settings: Settings) -> None:
        self.databases = {name: FakeDatabase() for name in ENGINES}
        for database in self.databases.values():
            database.stabilities = dict(LASTING)
        self.workers = Workers(limit=4, spare=2)
        openers = {name: (lambda each=each: each) for name, each in self.databases.items()}
        self.connections = Connections(openers, self.workers)
        self.backend = Backend(settings, self.connections, ENGINES, self.workers)

    def connected(self, name: str = "default") -> int:
        return len(self.databases[name].connections)

    def runs(self, sql: str, name: str = "default") -> int:
        calls = [call for each in self.databases[name].connections for call in each.calls]
        return calls.count(f"execute {sql}")

    def all_closed(self) -> bool:
        databases = self.databases.values()
        return all(each.closed for database in databases for each in database.connections)

    async def ask(self, sql: str, name: str = "default", *, persist: bool = True) -> Any:
        asked = self.backend.queries(name, ANYBODY).json(sql, persist=persist)
        async with asked as answer:
            pieces = b""
            while more := await answer.read():
                pieces += b"".join(more)
        return json.loads(pieces)


@asynccontextmanager
async def firm(settings: Settings = SETTINGS) -> AsyncIterator[Firm]:
    """A backend that is open; what goes on beside the requests does so."""
    firm = Firm(settings)
    await firm.backend.open()
    async with trio.open_nursery() as nursery:
        await nursery.start(firm.backend.run)
        yield firm
        nursery.cancel_scope.cancel()
    await firm.backend.close()
    assert firm.all_closed()
    await firm.connections.close()
    firm.workers.close()


class TestRights:
    async def test_a_statement_runs_on_the_database_it_is_for(self) -> None:
        async with firm() as ours:
            assert await ours.ask("rows 1", "sales") == [{"n": 1}]
            assert (ours.runs("rows 1", "sales"), ours.runs("rows 1")) == (1, 0)

    async def test_an_unknown_one_is_an_error_before_anything_is_made(self) -> None:
        async with firm() as ours:
            for _ in range(2):
                with pytest.raises(UnknownConnection, match="no connection 'nowhere'"):
                    ours.backend.queries("nowhere", ANYBODY)

    async def test_who_may_only_read_has_connections_that_cannot_write(self) -> None:
        async with firm() as ours:
            for user, read_only in ((READER, False), (ANYBODY, True)):
                reading = ours.backend.queries("default", user, read_only=read_only)
                with pytest.raises(QueryError, match="for reading only"):
                    await reading.execute("count 1")
                async with reading.alone() as own:
                    with pytest.raises(QueryError, match="for reading only"):
                        await own.execute("count 1")
            assert await ours.backend.queries("default", ANYBODY).execute("count 1") == 1

    async def test_so_it_is_with_sessions(self) -> None:
        async with firm() as ours:
            backend = ours.backend
            assert ours.connected() == 1  # the readers' session has not been asked yet
            with pytest.raises(QueryError, match="for reading only"):
                await backend.readers.execute("count 1")
            await backend.default.execute("count 1")
            for user in (READER, ANYBODY):
                id_ = await backend.sessions.create("sales", user)
                assert len(id_) == 32
                with backend.sessions.using(id_, user) as session:
                    if user.read_only:
                        with pytest.raises(QueryError, match="for reading only"):
                            await session.execute("count 2")
                    else:
                        await session.execute("count 2")
            assert ours.runs("count 2", "sales") == 2

    async def test_there_are_only_so_many_sessions(self) -> None:
        async with firm(replace(SETTINGS, max_sessions=1)) as ours:
            await ours.backend.sessions.create("default", ANYBODY)
            with pytest.raises(TooManySessions, match="there are 1 sessions"):
                await ours.backend.sessions.create("default", ANYBODY)


class TestLiveQueries:
    async def test_a_write_by_anybody_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_watch_query, "FRESH", math.inf)  # who comes later wants no look
        async with firm() as ours:
            backend = ours.backend
            async with backend.watch.subscription("default", "rows 1") as subscription:
                assert b"event: initial" in b"".join(await subscription.events())
                for write in (
                    backend.default.execute,
                    backend.queries("default", ANYBODY).execute,
                    backend.queries("twin", ANYBODY).execute,  # it may be the same
                ):
                    looks = ours.runs("rows 1")
                    await write("count 1")
                    with trio.fail_after(5):
                        while ours.runs("rows 1") == looks:
                            await trio.lowlevel.checkpoint()
                looks = ours.runs("rows 1")
                await backend.queries("sales", ANYBODY).execute("count 1")
                # Whoever subscribes waits for all looks that are due.
                async with backend.watch.subscription("default", "rows 1"):
                    assert ours.runs("rows 1") == looks

    async def test_it_cannot_write(self) -> None:
        async with firm() as ours:
            with pytest.raises(QueryError, match="for reading only"):
                async with ours.backend.watch.subscription("default", "count 1"):
                    pytest.fail("it has subscribed")

    async def test_together_they_have_one_client_s_share_of_the_connections(self) -> None:
        async with firm(replace(SETTINGS, max_pool=8)) as ours, trio.open_nursery() as nursery:
            ours.databases["sales"].gates["execute"] = gate = Gate()

            async def subscribe(number: int) -> None:
                async with ours.backend.watch.subscription("sales", f"rows {number}"):
                    await trio.sleep_forever()

            for number in range(1, 6):
                nursery.start_soon(subscribe, number)
            await trio.to_thread.run_sync(gate.reached.wait)
            await wait_all_tasks_blocked(0.05)
            assert ours.connected("sales") == 2
            gate.opened.set()
            with trio.fail_after(5):
                while not all(ours.runs(f"rows {number}", "sales") for number in range(1, 6)):
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


class TestAnotherDatabaseOfTheName:
    async def test_who_was_there_before_goes_on_with_it(self) -> None:
        async with firm() as ours:
            queries = ours.backend.queries("sales", ANYBODY)
            catalog = ours.backend.catalog("sales", ANYBODY)
            await queries.execute("count 1")
            await catalog.tables()
            before, after = ours.databases["sales"], FakeDatabase()
            await ours.backend.put("sales", lambda: after, "other")
            for _ in range(2):
                await queries.execute("count 1")
                await catalog.tables()
            assert [len(each.connections) for each in (before, after)] == [1, 1]

    async def test_a_slow_reader_of_the_one_before_reads_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("notebook_rpc.services.queries.UNREAD", 0.0)
        async with firm(replace(SETTINGS, max_pool=1)) as ours:
            asked = ours.backend.queries("sales", ANYBODY).json("rows 200000")
            rows = 0
            async with asked as answer:
                await answer.read()
                await ours.backend.put("sales", FakeDatabase, "other")
                while await answer.read():
                    await wait_all_tasks_blocked()
                    rows = answer.row_count
            assert rows == 200_000


class TestLimits:
    async def test_connections_that_are_lent(self) -> None:
        async with (
            firm(replace(SETTINGS, max_pool=1)) as ours,
            trio.open_nursery() as nursery,
            ours.backend.queries("sales", ANYBODY).json("rows 200000"),
        ):
            nursery.start_soon(ours.ask, "rows 1", "sales")
            with trio.fail_after(5):
                await wait_all_tasks_blocked()
                while ours.backend.workers.load().running:  # which reads ahead
                    await trio.lowlevel.checkpoint()
                    await wait_all_tasks_blocked()
            assert ours.connected("sales") == 1

    async def test_time_in_the_database(self) -> None:
        async with firm(replace(SETTINGS, query_timeout=0.01)) as ours:
            queries = ours.backend.queries("default", ANYBODY)
            for execute in (queries.execute, ours.backend.default.execute):
                with trio.fail_after(5), pytest.raises(QueryTimeout):
                    await execute("wait")

    async def test_pages_that_wait_for_slow_readers(self) -> None:
        for unsent, size in ((1, 65536), (2**30, 2**20)):
            async with firm(replace(SETTINGS, max_unsent=unsent)) as ours:
                await ours.backend.default.execute("rows 100000")
                page = await ours.backend.default.page(100_000)
                assert size * 0.9 < sum(map(len, page)) <= size * 2

    async def test_what_nobody_uses_is_closed_after_a_while(
        self, mock_clock: trio.testing.MockClock
    ) -> None:
        mock_clock.rate = 1  # so that to wait too long is to fail
        async with firm(replace(SETTINGS, session_timeout=2 * IDLE)) as ours:
            id_ = await ours.backend.sessions.create("twin", ANYBODY)
            await ours.ask("rows 1", "sales")
            for name, seconds in (("sales", IDLE), ("twin", IDLE)):
                await wait_all_tasks_blocked()
                (connection,) = ours.databases[name].connections
                assert not connection.closed
                mock_clock.jump(seconds + 1)
                with trio.fail_after(5):
                    while not connection.closed:
                        await trio.lowlevel.checkpoint()
            with (
                pytest.raises(UnknownSession),
                ours.backend.sessions.using(id_, ANYBODY),
            ):
                pytest.fail("it has ended")


class TestKeeping:
    @pytest.fixture
    def keeping(self, tmp_path: Path) -> Settings:
        return Settings(cache_size=2**20, cache_dir=str(tmp_path / "kept"))

    async def test_an_answer_is_kept_for_its_own_database(self, keeping: Settings) -> None:
        async with firm(keeping) as ours:
            for name in ("default", "default", "twin", "sales", "sales"):
                assert await ours.ask("rows 2", name) == [{"n": 1}, {"n": 2}]
            assert [ours.runs("rows 2", name) for name in ENGINES] == [1, 1, 1]

    @pytest.mark.parametrize(
        ("how", "where", "again"),
        [
            ("default", "default", 2),
            *(
                (how, where, again)
                for how in ("queries", "alone", "session")
                for where, again in (("default", 2), ("twin", 2), ("sales", 1))
            ),
        ],
    )
    async def test_whoever_writes_where_it_may_be_seen_makes_it_old(
        self, keeping: Settings, how: str, where: str, again: int
    ) -> None:
        async with firm(keeping) as ours:
            await ours.ask("rows 2")
            backend = ours.backend
            if how == "queries":
                await backend.queries(where, ANYBODY).execute("count 1")
            elif how == "alone":
                async with backend.queries(where, ANYBODY).alone() as own:
                    await own.execute("count 1")
            elif how == "default":
                await backend.default.execute("count 1")
            else:
                id_ = await backend.sessions.create(where, ANYBODY)
                with backend.sessions.using(id_, ANYBODY) as session:
                    await session.execute("count 1")
            await ours.ask("rows 2")
            assert ours.runs("rows 2") == again

    @pytest.mark.parametrize(("user", "again"), [(ANYBODY, 2), (READER, 1)])
    async def test_who_cannot_write_makes_nothing_old(
        self, keeping: Settings, user: User, again: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even by a driver that cannot tell a write from a read."""

        def connected(database: FakeDatabase, *, read_only: bool) -> FakeConnection:
            connection = FakeConnection(database, read_only=read_only)
            del connection.changes
            return connection

        async with firm(keeping) as ours:
            await ours.ask("rows 2")
            monkeypatch.setattr(FakeDatabase, "_connected", connected)
            async with ours.backend.queries("default", user).alone() as own:
                await own.execute("rows 1")
            await ours.ask("rows 2")
            assert ours.runs("rows 2") == again

    @pytest.mark.parametrize(("seconds", "runs"), [(0, 2), (60, 1)])
    async def test_what_others_may_change_is_kept_as_long_as_is_wanted(
        self, keeping: Settings, seconds: float, runs: int
    ) -> None:
        async with firm(replace(keeping, cache_ttl=seconds)) as ours:
            for _ in range(2):
                await ours.ask("rows 3")
            assert ours.runs("rows 3") == runs

    async def test_its_files_end_with_the_server(self, keeping: Settings, tmp_path: Path) -> None:
        async with firm(keeping) as ours:
            await ours.ask("rows 2")
            assert [each for each in (tmp_path / "kept").rglob("*") if each.is_file()]
        assert not [each for each in (tmp_path / "kept").rglob("*") if each.is_file()]

    async def test_they_lie_in_the_usual_place_unless_another_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for home, folder in (("", "home/.cache"), (str(tmp_path / "xdg"), "xdg")):
            monkeypatch.setenv("XDG_CACHE_HOME", home)
            kept = tmp_path / folder / "notebook-rpc"
            async with firm(Settings()) as ours:
                await ours.ask("rows 2", persist=False)
                assert not kept.exists()  # who keeps nothing needs no folder
                await ours.ask("rows 2")
                assert kept.is_dir()

    async def test_without_a_place_for_them_there_are_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        caplog.set_level("INFO")
        async with firm(Settings()) as ours:
            for _ in range(2):
                await ours.ask("rows 2")
            assert ours.runs("rows 2") == 2
        assert caplog.text.count("no results are kept") == 1  # told once
        with pytest.raises(ConfigError, match=r"cannot keep results in .*file: "):
            Firm(Settings(cache_dir=str(tmp_path / "file")))

    async def test_no_space_is_no_folder_either(self, keeping: Settings, tmp_path: Path) -> None:
        async with firm(replace(keeping, cache_size=0)) as ours:
            for _ in range(2):
                await ours.ask("rows 2")
            assert ours.runs("rows 2") == 2
        assert not (tmp_path / "kept").exists()


class TestTheEnd:
    @pytest.mark.parametrize("whose", ["default", "readers", "session", "queries"])
    async def test_whatever_is_being_done_is_interrupted(self, whose: str) -> None:
        async with firm() as ours, trio.open_nursery() as nursery:
            backend = ours.backend
            id_ = await backend.sessions.create("default", ANYBODY)
            with backend.sessions.using(id_, ANYBODY) as session:
                executes: dict[str, Callable[[str], Awaitable[object]]] = {
                    "default": backend.default.execute,
                    "readers": backend.readers.execute,
                    "session": session.execute,
                    "queries": backend.queries("default", ANYBODY).execute,
                }
                execute = executes[whose]

                async def interrupt() -> None:
                    await trio.to_thread.run_sync(ours.databases["default"].waiting.wait)
                    backend.interrupt()

                nursery.start_soon(interrupt)
                with trio.fail_after(5):
                    with pytest.raises(Cancelled):
                        await execute("wait")
                    with pytest.raises((Cancelled, WrongState)):  # no more calls are taken
                        await execute("wait")

    async def test_closing_goes_on_when_it_is_cancelled(self, tmp_path: Path) -> None:
        kept = tmp_path / "kept"
        async with firm(Settings(cache_dir=str(kept))) as ours:
            await ours.ask("rows 2")
            await ours.backend.readers.execute("rows 1")
            await ours.ask("rows 1", "sales")
            await ours.backend.sessions.create("twin", ANYBODY)
            with trio.CancelScope() as scope:
                scope.cancel()
                await ours.backend.close()
            assert ours.all_closed()
            assert not [each for each in kept.rglob("*") if each.is_file()]


async def test_tables_are_asked_for_as_their_user_may_see_them() -> None:
    async with firm() as ours:
        for user in (ANYBODY, READER):
            catalog = ours.backend.catalog("sales", user)
            assert [table.table for table, _ in await catalog.tables()] == ["orders", "users"]
        assert ours.connected("sales") == 2  # one of them can only read
        assert ours.connected("twin") == 0
        with pytest.raises(UnknownConnection):
            ours.backend.catalog("nowhere", ANYBODY)


async def test_counting_tables_takes_no_longer_than_a_query_may() -> None:
    async with firm(replace(SETTINGS, query_timeout=0.05)) as ours:
        ours.databases["default"].script["SELECT count(*) FROM fake.main.orders"] = "wait"
        with pytest.raises(QueryTimeout), trio.fail_after(5):
            await ours.backend.catalog("default", ANYBODY).tables(counts=True)


async def test_calls_and_loads_are_measured() -> None:
    async with firm() as ours:
        await ours.ask("rows 1")
        await ours.backend.default.execute("rows 1")
        await ours.backend.sessions.create("default", ANYBODY)
        told = ours.backend.meters.exposition().decode()
    for line in (
        'notebook_rpc_call_seconds_count{call="query"} 1',
        'notebook_rpc_call_seconds_count{call="execute"} 1',
        "notebook_rpc_sessions 1",
        "notebook_rpc_calls_running 0",
        "notebook_rpc_calls_waiting 0",
        "notebook_rpc_calls_queued 0",
    ):
        assert line in told.splitlines()
