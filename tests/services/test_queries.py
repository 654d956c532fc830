"""Statements without a session: rows in pieces, and what becomes of them when things go wrong."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pyarrow as pa
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import Cancelled, Conflict, NotSupported, QueryError, QueryTimeout
from notebook_rpc.model import END_OF_STREAM, ResultColumn, Stability, Transaction
from notebook_rpc.services import queries
from notebook_rpc.services.cache import Cache
from notebook_rpc.services.pool import Pool
from notebook_rpc.services.queries import FIRST_PAUSE, TRIES, Keeping, Queries
from notebook_rpc.services.versions import Versions
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase, Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Parameters
    from notebook_rpc.services.answers import Answer
    from notebook_rpc.services.lanes import Lane
    from notebook_rpc_drivers._fake_result import FakeResult

MANY = 200_000  # rows; some pieces of them


class Desk:
    """Queries on the fake, with two connections to be lent."""

    def __init__(self, workers: Workers, seconds: float = 60) -> None:
        self.database = FakeDatabase()
        self.kind: type[FakeConnection] = FakeConnection

        async def connect() -> Connection:
            connection = self.kind(self.database)
            self.database.connections.append(connection)
            return connection

        self.pool = Pool(connect, workers, limit=2, idle_seconds=60)
        self.queries = self.client(seconds)

    def client(self, seconds: float = 60) -> Queries:
        """Somebody else."""
        pool = self.pool
        return Queries(pool.lane, pool.make, seconds, set_aside=pool.set_aside)

    def calls(self) -> list[str]:
        return [call for connection in self.database.connections for call in connection.calls]


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(limit=4, spare=2)
    yield workers
    workers.close()


@pytest.fixture
async def desk(workers: Workers) -> AsyncIterator[Desk]:
    desk = Desk(workers)
    yield desk
    await desk.pool.close()


async def idle(workers: Workers) -> None:
    """Until nobody does anything, on the event loop or on a worker."""
    with trio.fail_after(5):
        await wait_all_tasks_blocked()
        while workers.load().running:
            await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()


async def everything(answer: Answer) -> bytes:
    pieces: list[bytes | memoryview] = []
    while more := await answer.read():
        pieces += more
    assert answer.ended
    assert await answer.read() == ()
    return b"".join(pieces)


def arrow_rows(stream: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pa.ipc.open_stream(stream).read_all().to_pylist()
    return found


async def rows(desk: Desk, sql: str, parameters: list[object] | None = None) -> Any:
    async with desk.queries.json(sql, parameters) as answer:
        return json.loads(await everything(answer))


async def test_a_small_result_has_ended_with_the_first_read(desk: Desk) -> None:
    async with desk.queries.json("rows 2") as answer:
        assert answer.columns == [ResultColumn("n", "INTEGER")]
        assert not answer.ended
        assert b"".join(await answer.read()) == b'[{"n":1},{"n":2}]'
        assert answer.ended
        assert await answer.read() == ()


async def test_no_rows_are_an_empty_array(desk: Desk) -> None:
    assert await rows(desk, "rows 0") == []


async def test_parameters_reach_the_statement(desk: Desk) -> None:
    assert await rows(desk, "echo", ["a", 2]) == [{"1": "a", "2": 2}]
    async with desk.queries.arrow("echo", ["a", 2]) as answer:
        assert arrow_rows(await everything(answer)) == [{"1": "a", "2": 2}]


async def test_they_do_where_the_database_writes_its_rows_itself(desk: Desk) -> None:
    class Writing(FakeConnection):
        def execute_json(self, sql: str, parameters: Parameters | None = None, /) -> NoReturn:
            raise QueryError(f"json of {sql}, {parameters}")

        def execute_arrow(self, sql: str, parameters: Parameters | None = None, /) -> NoReturn:
            raise QueryError(f"arrow of {sql}, {parameters}")

        def upload(self, schema: str, table: str, stream: bytes, /) -> int:
            return len(f"{schema}.{table}") if (schema, table, stream) == ("s", "t", b"x") else -1

    desk.kind = Writing
    with pytest.raises(QueryError, match=r"^json of echo, \['a'\]$"):
        await rows(desk, "echo", ["a"])
    with pytest.raises(QueryError, match=r"^arrow of echo, \{'b': 1\}$"):
        async with desk.queries.arrow("echo", {"b": 1}):
            pytest.fail("it was to fail")
    assert await desk.queries.upload("s", "t", b"x") == 3


@pytest.mark.parametrize(("how", "mib"), [("json", 1), ("arrow", 2)])
async def test_a_large_result_comes_in_pieces_of_a_bounded_size(
    desk: Desk, how: str, mib: int
) -> None:
    sizes: list[int] = []
    stream = b""
    async with getattr(desk.queries, how)(f"rows {2 * MANY}") as answer:
        while pieces := await answer.read():
            sizes.append(sum(map(len, pieces)))
            stream += b"".join(pieces)
    found = json.loads(stream) if how == "json" else arrow_rows(stream)
    assert found == [{"n": n} for n in range(1, 2 * MANY + 1)]
    assert len(sizes) > 2
    assert max(sizes) < (mib + 0.2) * 2**20


async def test_no_more_is_read_ahead_than_a_piece(desk: Desk, workers: Workers) -> None:
    async with desk.queries.json(f"wait after {MANY} rows") as answer:
        await answer.read()
        await idle(workers)
        assert not desk.database.waiting.is_set()


async def test_arrow_is_a_whole_stream(desk: Desk) -> None:
    async with desk.queries.arrow("rows 3") as answer:
        assert (await everything(answer)).endswith(END_OF_STREAM)
    async with desk.queries.arrow("rows 0") as answer:
        stream = await everything(answer)
        assert stream.startswith(b"\xff\xff\xff\xff")
        assert stream.endswith(END_OF_STREAM)


@pytest.mark.parametrize("how", ["json", "arrow"])
async def test_a_statement_without_rows_has_a_count(desk: Desk, how: str) -> None:
    async with getattr(desk.queries, how)("count 7") as answer:
        assert (list(answer.columns), answer.count, answer.ended) == ([], 7, True)
        assert await answer.read() == ()


async def test_connections_are_used_again_and_given_back(desk: Desk) -> None:
    for _ in range(5):
        await rows(desk, "rows 1")
        assert await desk.queries.execute("count 2") == 2
    assert len(desk.database.connections) == 1


@pytest.mark.parametrize("how", ["json", "execute"])
async def test_a_client_has_its_share_of_the_connections(
    desk: Desk, workers: Workers, how: str
) -> None:
    other = Queries(desk.pool.lane, desk.pool.make)

    async def ask(queries: Queries) -> None:
        if how == "execute":
            await queries.execute("rows 1")
        else:
            async with queries.json("rows 1"):
                pass

    async with trio.open_nursery() as nursery, desk.queries.json(f"rows {MANY}"):
        nursery.start_soon(ask, desk.queries)
        await idle(workers)
        assert len(desk.database.connections) == 1
        await ask(other)
        assert len(desk.database.connections) == 2
        assert desk.calls().count("execute rows 1") == 1


async def test_what_was_read_whole_keeps_no_connection_from_others(desk: Desk) -> None:
    async with desk.queries.json("rows 2") as answer:
        assert await rows(desk, "rows 1") == [{"n": 1}]
        assert len(desk.database.connections) == 1
        assert await everything(answer) == b'[{"n":1},{"n":2}]'


async def test_a_query_without_parameters_that_may_be_brief_is_asked_for_here_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Brief(FakeConnection):
        def harmless(self, sql: str) -> bool:
            asked.append(sql)
            return True

        def brief(self, sql: str) -> bool:
            return sql == "rows 2"

        def took(self, sql: str, seconds: float) -> None:
            assert (sql, seconds < 5) == ("rows 2", True)

    desk.kind = Brief
    assert await rows(desk, "rows 1") == [{"n": 1}]  # that was the first, to a new connection
    assert asked == []
    monkeypatch.setattr(Workers, "run", None)
    for ask in (desk.queries.json, desk.queries.rows, desk.queries.arrow):
        async with ask("rows 2") as answer:
            await everything(answer)
    monkeypatch.undo()
    assert asked == ["rows 2"] * 3
    held: list[bool] = []
    run = Workers.run

    async def noted(self: Workers, *arguments: Any, holds: bool = True, **options: Any) -> object:
        held.append(holds)
        return await run(self, *arguments, holds=holds, **options)

    monkeypatch.setattr(Workers, "run", noted)
    await rows(desk, "rows 1")
    monkeypatch.undo()
    assert asked.pop() == "rows 1"
    assert held == [False]  # it is harmless
    await rows(desk, "echo", [7])
    async with desk.queries.export("csv", "rows 2") as answer:
        await everything(answer)
    await desk.queries.execute("rows 2")
    assert asked == ["rows 2"] * 3


class TestFailures:
    async def test_an_early_one_is_raised_before_anything_is_given(self, desk: Desk) -> None:
        with pytest.raises(QueryError, match=r"^early$"):
            async with desk.queries.json("error early"):
                pytest.fail("there is no answer")
        assert await rows(desk, "rows 1") == [{"n": 1}]

    async def test_a_late_one_comes_with_the_rows_that_cannot_be_had(self, desk: Desk) -> None:
        async with desk.queries.json(f"error after {MANY} rows late") as answer:
            first = b"".join(await answer.read())
            with pytest.raises(QueryError, match=r"^late$"):
                await everything(answer)
        assert first.startswith(b'[{"n":1},')

    async def test_the_borrower_s_own_comes_through_as_it_is(self, desk: Desk) -> None:
        for sql in ("rows 1", f"rows {MANY}"):
            with pytest.raises(KeyError):  # and in no group
                async with desk.queries.json(sql):
                    raise KeyError
        assert len(desk.database.connections) == 1

    async def test_to_execute_is_to_go_to_the_end(self, desk: Desk) -> None:
        with pytest.raises(QueryError, match=r"^late$"):
            await desk.queries.execute("error after 5000 rows late")
        assert "finish" in desk.calls()

    @pytest.mark.parametrize(("columns", "most"), [(1, 8192), (100, 81), (9000, 1)])
    async def test_the_wider_the_rows_that_nobody_reads_the_fewer_at_a_time(
        self, desk: Desk, columns: int, most: int
    ) -> None:
        class Wide(FakeConnection):
            def execute(self, sql: str, parameters: Parameters | None = None, /) -> FakeResult:
                result = super().execute(sql, parameters)
                result.columns *= columns
                return result

        desk.kind = Wide
        await desk.queries.execute("rows 1")
        fetch = f"fetch {most}"
        assert desk.calls() == ["execute rows 1", fetch, fetch, "finish"]

    async def test_sql_has_its_size_and_no_character_more(self, desk: Desk) -> None:
        bounded = Queries(desk.pool.lane, desk.pool.make, max_sql=6)
        async with bounded.alone() as own:
            for asked in (bounded, own):
                for ask in (asked.arrow, asked.json, asked.rows, partial(asked.export, "rows")):
                    async with ask("rows 1"):
                        pass
                    with pytest.raises(QueryError, match=r"6 characters .* and this has 7"):
                        async with ask("rows 10"):
                            pass
                with pytest.raises(QueryError, match="this has 7"):
                    await asked.execute("rows 10")
                with pytest.raises(QueryError, match="this has 7"):
                    async with asked.export("rows", "rows 10", limit=1):
                        pass
        assert not any("rows 10" in call for call in desk.calls())

    async def test_what_has_no_rows_is_not_asked_for_them(self, desk: Desk) -> None:
        await desk.queries.execute("count 1")
        assert desk.calls() == ["execute count 1", "finish"]

    async def test_a_statement_that_takes_too_long_is_interrupted(self, workers: Workers) -> None:
        desk = Desk(workers, seconds=0.01)
        with pytest.raises(QueryTimeout):
            await desk.queries.execute("wait")
        async with desk.queries.json(f"wait after {MANY} rows") as answer:
            with pytest.raises(QueryTimeout):
                await everything(answer)
        async with desk.queries.alone() as own:
            with trio.fail_after(5), pytest.raises(QueryTimeout):
                await own.execute("wait")
        await desk.pool.close()

    async def test_what_a_database_does_not_have_is_said(self, desk: Desk) -> None:
        with pytest.raises(NotSupported, match="takes no Arrow"):
            await desk.queries.upload("", "t", END_OF_STREAM)


class TestSlowReaders:
    async def test_their_connections_are_in_nobody_s_way(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queries, "UNREAD", 0.01)
        async with (
            desk.client().json(f"rows {MANY}") as one,
            desk.client().json(f"rows {MANY}") as two,
        ):
            with trio.fail_after(5):
                assert await rows(desk, "rows 1") == [{"n": 1}]
            for slow in (one, two):
                assert len(json.loads(await everything(slow))) == MANY
        assert len(desk.database.connections) == 3

    async def test_nor_are_those_whose_rest_cannot_be_had(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queries, "UNREAD", 0.01)
        async with (
            desk.client().json(f"error after {MANY} rows late") as one,
            desk.client().json(f"error after {MANY} rows late") as two,
        ):
            for slow in (one, two):
                await slow.read()
            with trio.fail_after(5):
                assert await rows(desk, "rows 1") == [{"n": 1}]
            for slow in (one, two):
                with pytest.raises(QueryError, match=r"^late$"):
                    await everything(slow)

    async def test_who_reads_keeps_his_place(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queries, "UNREAD", 60)  # a loaded machine can lose a second

        def set_aside(_: Lane) -> bool:
            pytest.fail("it is read")

        quick = Queries(desk.pool.lane, desk.pool.make, set_aside=set_aside)
        async with quick.json(f"rows {MANY}") as answer:
            await everything(answer)

    async def test_where_too_many_are_slow_one_asks_again(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queries, "UNREAD", 0.01)
        asked = 0
        done = trio.Event()

        def set_aside(_: Lane) -> bool:
            nonlocal asked
            asked += 1
            if asked == 3:
                done.set()
            return asked == 3

        slow = Queries(desk.pool.lane, desk.pool.make, set_aside=set_aside)
        async with slow.json(f"rows {MANY}") as answer:
            with trio.fail_after(5):
                await done.wait()
            assert len(json.loads(await everything(answer))) == MANY
        assert asked == 3


class TestLeaving:
    @pytest.mark.parametrize(("how", "many"), [("json", MANY), ("arrow", 3 * MANY)])
    async def test_who_has_seen_enough_frees_the_result_and_the_connection(
        self, desk: Desk, how: str, many: int
    ) -> None:
        async with getattr(desk.queries, how)(f"rows {many}") as answer:
            await answer.read()
        assert "finish" in desk.calls()
        await rows(desk, "rows 1")
        assert len(desk.database.connections) == 1

    async def test_who_leaves_between_two_reads_interrupts_nothing(
        self, desk: Desk, workers: Workers
    ) -> None:
        with trio.CancelScope() as scope:
            async with desk.queries.json(f"rows {MANY}") as answer:
                await answer.read()
                await idle(workers)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert "finish" in desk.calls()
        assert desk.database.connections[0].interrupts == 0

    async def test_a_result_that_fails_to_close_is_not_the_borrowers(
        self, desk: Desk, workers: Workers, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with desk.queries.json(f"rows {MANY}") as answer:
            await answer.read()
            await idle(workers)
            desk.database.failures["finish"] = QueryError("cannot close")
        assert "closing a result failed" in caplog.text
        desk.database.failures.clear()

    async def test_a_result_that_does_not_close_is_interrupted(
        self, desk: Desk, workers: Workers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queries, "CLOSING", 0.01)
        closing = Gate()

        async def leave() -> None:
            async with desk.queries.json(f"rows {MANY}") as answer:
                await answer.read()
                await idle(workers)
                desk.database.gates["finish"] = closing
                desk.database.failures["finish"] = Cancelled("interrupted")

        await opened_when_interrupted(desk, closing, leave)
        desk.database.failures.clear()

    @pytest.mark.parametrize("how", ["json", "arrow"])
    async def test_who_is_cancelled_in_the_first_call_interrupts_it(
        self, desk: Desk, how: str
    ) -> None:
        async def ask() -> None:
            async with getattr(desk.queries, how)("wait"):
                pytest.fail("it was to wait")

        await cancelled_while_waiting(desk, ask)

    async def test_who_is_cancelled_later_interrupts_it_too(self, desk: Desk) -> None:
        async def ask() -> None:
            async with desk.queries.json(f"wait after {MANY} rows") as answer:
                await everything(answer)

        await cancelled_while_waiting(desk, ask)

    async def test_who_is_cancelled_in_execute_interrupts_it(self, desk: Desk) -> None:
        async def ask() -> None:
            await desk.queries.execute("wait 3")

        await cancelled_while_waiting(desk, ask)


async def opened_when_interrupted(
    desk: Desk, gate: Gate, ask: Callable[[], Awaitable[None]]
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        try:
            assert await trio.to_thread.run_sync(gate.reached.wait, 5)
            with trio.fail_after(5):
                while not desk.database.connections[0].interrupts:
                    await trio.lowlevel.checkpoint()
        finally:
            gate.opened.set()


async def cancelled_while_waiting(desk: Desk, ask: Callable[[], Awaitable[None]]) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.to_thread.run_sync(desk.database.waiting.wait)
            nursery.cancel_scope.cancel()
    assert desk.database.connections[0].interrupts > 0
    assert await rows(desk, "rows 1") == [{"n": 1}]
    assert len(desk.database.connections) == 1


class TestTransactions:
    @pytest.mark.parametrize("how", ["json", "arrow", "execute"])
    async def test_one_that_would_stay_open_is_undone_and_refused(
        self, desk: Desk, how: str
    ) -> None:
        sql = "begin; create table t (a integer)"

        async def ask() -> None:
            if how == "execute":
                await desk.queries.execute(sql)
            else:
                async with getattr(desk.queries, how)(sql):
                    pytest.fail("it was to be refused")

        with pytest.raises(QueryError, match="must end with the request that began it"):
            await ask()
        assert desk.database.created == {}

    async def test_one_that_ends_is_welcome(self, desk: Desk) -> None:
        await desk.queries.execute("begin; create table t (a integer); commit")
        assert list(desk.database.created) == ["t"]

    async def test_a_conflict_is_tried_again(self, desk: Desk) -> None:
        assert await desk.queries.execute("conflict 3") == 1
        desk.database.conflicts = 0
        async with desk.queries.json("conflict 5") as answer:
            assert answer.count == 1

    async def test_but_not_for_ever(self, desk: Desk) -> None:
        with pytest.raises(Conflict):
            await desk.queries.execute("conflict 99")
        assert desk.database.conflicts == TRIES

    async def test_between_two_tries_is_a_pause_that_grows(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        times: list[float] = []

        class Losing:
            """A lane whose every statement meets a conflict, and needs no thread for it."""

            transaction = Transaction.NONE

            async def work(self, _: object) -> NoReturn:
                times.append(autojump_clock.current_time())
                conflict = Conflict("another was first")
                conflict.alone = True
                raise conflict

            @asynccontextmanager
            async def call(self, *_: object) -> AsyncIterator[None]:
                yield

            undone_if_interrupted = call

        @asynccontextmanager
        async def lend(_: object) -> AsyncIterator[Lane]:
            yield cast("Lane", Losing())

        with pytest.raises(Conflict):
            await Queries(lend, lambda: cast("Lane", Losing())).execute("any")
        pauses = [after - before for before, after in pairwise(times)]
        assert len(pauses) == TRIES - 1
        for number, pause in enumerate(pauses):
            assert FIRST_PAUSE <= pause / 2**number < 2 * FIRST_PAUSE

    async def test_nor_where_more_than_the_statement_would_be_repeated(self, desk: Desk) -> None:
        desk.database.script["busy"] = Conflict("in a transaction")
        with pytest.raises(Conflict):
            await desk.queries.execute("busy")
        assert [call for call in desk.calls() if call == "execute busy"] == ["execute busy"]


async def test_alone_one_connection_is_kept(desk: Desk) -> None:
    async with desk.queries.alone() as own:
        await own.execute("begin; create temp table mine (a integer)")
        await own.execute("create table t (a integer)")
        async with own.json("rows 1") as answer:
            await everything(answer)
        await own.execute("commit")
        assert list(desk.database.created) == ["t"]
    (connection,) = desk.database.connections
    assert "reset" not in connection.calls
    assert connection.closed


async def test_alone_statements_come_one_at_a_time(desk: Desk, workers: Workers) -> None:
    gate = desk.database.gates["execute"] = Gate()
    async with desk.queries.alone() as own, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(own.execute, "rows 1")
        try:
            await trio.to_thread.run_sync(gate.reached.wait)
            await wait_all_tasks_blocked()
            assert workers.load().running == 1
        finally:
            gate.opened.set()


@pytest.mark.parametrize("how", ["json", "execute"])
async def test_alone_an_interrupt_undoes_the_transaction(workers: Workers, how: str) -> None:
    async def ask() -> None:
        if how == "execute":
            await own.execute("wait")
        else:
            async with own.json("wait"):
                pytest.fail("it was to wait")

    desk = Desk(workers, seconds=0.01)
    async with desk.queries.alone() as own:
        await own.execute("begin; create table t (a integer)")
        with pytest.raises(QueryTimeout, match="its transaction was rolled back"):
            await ask()
        assert desk.database.connections[0].transaction is Transaction.NONE
    await desk.pool.close()


class KeepingDesk(Desk):
    def __init__(self, workers: Workers, cache: Cache, seconds: float = 60) -> None:
        self._seconds = seconds
        super().__init__(workers, seconds)
        self.cache = cache
        self.versions = Versions()
        self.keep_shared(0)
        lasting = ("rows 2", f"rows {MANY}", f"error after {MANY} rows late", "count 1")
        self.database.stabilities = dict.fromkeys(lasting, Stability.LASTING)
        self.database.stabilities["rows 3"] = Stability.SHARED

    def keep_shared(self, seconds: float) -> None:
        keeping = Keeping(
            lambda: self.cache, "default", lambda: self.versions.of("default"), seconds
        )
        self.queries = Queries(self.pool.lane, self.pool.make, self._seconds, keeping)


class TestKeeping:
    @pytest.fixture
    async def kept(self, workers: Workers, tmp_path: Path) -> AsyncIterator[KeepingDesk]:
        desk = KeepingDesk(workers, Cache(tmp_path / "kept", 2**26, workers))
        yield desk
        await desk.pool.close()
        await desk.cache.close()

    async def ask(
        self, desk: Desk, sql: str, parameters: list[object] | None = None, how: str = "json"
    ) -> bytes:
        async with getattr(desk.queries, how)(sql, parameters, persist=True) as answer:
            assert answer.columns == [ResultColumn("n", "INTEGER")]
            assert answer.count == -1
            return await everything(answer)

    def runs(self, desk: Desk, sql: str) -> int:
        return desk.calls().count(f"execute {sql}")

    @pytest.mark.parametrize("how", ["json", "arrow"])
    @pytest.mark.parametrize("sql", ["rows 2", f"rows {MANY}"])
    async def test_what_lasts_is_computed_once(self, kept: KeepingDesk, sql: str, how: str) -> None:
        first = await self.ask(kept, sql, how=how)
        assert await self.ask(kept, sql, how=how) == first
        assert self.runs(kept, sql) == 1

    async def test_another_format_or_parameter_is_another_answer(self, kept: KeepingDesk) -> None:
        assert await self.ask(kept, "rows 2") != await self.ask(kept, "rows 2", how="arrow")
        await self.ask(kept, "rows 2", [1])
        assert self.runs(kept, "rows 2") == 3

    async def test_a_write_makes_it_old(self, kept: KeepingDesk) -> None:
        await self.ask(kept, "rows 2")
        kept.versions.wrote("default")
        await self.ask(kept, "rows 2")
        assert self.runs(kept, "rows 2") == 2

    async def test_what_others_may_change_is_kept_where_that_is_wanted(
        self, kept: KeepingDesk
    ) -> None:
        await self.ask(kept, "rows 3")
        await self.ask(kept, "rows 3")
        assert self.runs(kept, "rows 3") == 2
        kept.keep_shared(60)
        await self.ask(kept, "rows 3")
        await self.ask(kept, "rows 3")
        assert self.runs(kept, "rows 3") == 3

    async def test_what_does_not_last_is_never_kept(self, kept: KeepingDesk) -> None:
        await self.ask(kept, "rows 4")
        await self.ask(kept, "rows 4")
        assert self.runs(kept, "rows 4") == 2

    async def test_what_others_may_change_is_not_kept_for_longer(self, kept: KeepingDesk) -> None:
        kept.keep_shared(1e-9)
        await self.ask(kept, "rows 3")
        await self.ask(kept, "rows 3")
        assert self.runs(kept, "rows 3") == 2

    async def test_where_nobody_can_tell_nothing_is_kept(self, kept: KeepingDesk) -> None:
        class Silent(FakeConnection):
            stability = None  # type: ignore[assignment]  # so that it has no such capability

        kept.kind = Silent
        await self.ask(kept, "rows 2")
        await self.ask(kept, "rows 2")
        assert self.runs(kept, "rows 2") == 2

    async def test_to_find_out_takes_no_longer_than_a_statement_may(
        self, workers: Workers, tmp_path: Path
    ) -> None:
        desk = KeepingDesk(workers, Cache(tmp_path / "kept", 2**26, workers), seconds=0.01)
        telling = desk.database.gates["stability"] = Gate()
        desk.database.failures["stability"] = Cancelled("interrupted")

        async def ask() -> None:
            with pytest.raises(QueryTimeout, match="stability took longer"):
                await self.ask(desk, "rows 2")

        await opened_when_interrupted(desk, telling, ask)
        await desk.pool.close()
        await desk.cache.close()

    async def test_who_comes_while_it_is_computed_waits_for_it(
        self, kept: KeepingDesk, workers: Workers
    ) -> None:
        computing = kept.database.gates["execute"] = Gate()
        answers: list[bytes] = []

        async def ask() -> None:
            answers.append(await self.ask(kept, "rows 2"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            try:
                await trio.to_thread.run_sync(computing.reached.wait)
                # A client of its own, who has its own share of the connections.
                kept.keep_shared(0)
                nursery.start_soon(ask)
                await wait_all_tasks_blocked()
                while workers.load().running > 1:
                    await trio.lowlevel.checkpoint()
                await wait_all_tasks_blocked()
            finally:
                computing.opened.set()
        assert answers == [b'[{"n":1},{"n":2}]'] * 2
        assert self.runs(kept, "rows 2") == 1

    async def test_nothing_is_kept_that_nobody_asked_to_keep(self, kept: KeepingDesk) -> None:
        await rows(kept, "rows 2")
        await self.ask(kept, "rows 2")
        await rows(kept, "rows 2")
        assert self.runs(kept, "rows 2") == 3

    async def test_what_has_no_rows_is_not_kept(self, kept: KeepingDesk) -> None:
        for _ in range(2):
            async with kept.queries.json("count 1", persist=True) as answer:
                assert answer.count == 1
                assert await everything(answer) == b""
        assert self.runs(kept, "count 1") == 2

    async def test_half_an_answer_is_not_kept(self, kept: KeepingDesk) -> None:
        late = f"error after {MANY} rows late"
        for _ in range(2):
            with pytest.raises(QueryError, match="late"):
                await self.ask(kept, late)
        assert self.runs(kept, late) == 2
        for _ in range(2):
            async with kept.queries.json(f"rows {MANY}", persist=True) as answer:
                await answer.read()
        assert self.runs(kept, f"rows {MANY}") == 2

    async def test_alone_nothing_is_kept(self, kept: KeepingDesk) -> None:
        async with kept.queries.alone() as own:
            for _ in range(2):
                async with own.json("rows 2", persist=True) as answer:
                    await everything(answer)
        assert self.runs(kept, "rows 2") == 2
