"""Live queries: when they are looked at, and what subscribers are told."""
# ruff: noqa: ARG001  # pytest-trio looks for a clock among a test's own arguments

from __future__ import annotations

import json
import math
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import (
    Busy,
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    QueryError,
    UnknownConnection,
)
from notebook_rpc.model import ResultColumn
from notebook_rpc.services import _watch_query, watch
from notebook_rpc.services._watch_query import FRESH, JOINED, LINGER, PAUSE, RETRY
from notebook_rpc.services.watch import LINGERING, RESULTS, Limits, Watch
from tests.event_stream import Event, Follower, Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trio.testing import MockClock

    from notebook_rpc.model import Parameters, Touched
    from notebook_rpc.services.watch import Subscription

T = TypeVar("T")

Rows = list[tuple[object, ...]]
ENGINES = {"main": "duckdb", "twin": "duckdb", "other": "sqlite"}


class Result:
    count = -1
    streaming = False

    def __init__(self, columns: Sequence[str], rows: Rows) -> None:
        self.columns = [ResultColumn(name, "") for name in columns]
        self._rows = iter(rows)
        self.fetched = 0
        self.closed = False

    def fetch(self, limit: int, /) -> Rows:
        rows = [row for _, row in zip(range(limit), self._rows, strict=False)]
        self.fetched += len(rows)
        return rows

    def close(self) -> None:
        self.closed = True


class Connection:
    """The one connection of ``Desk``: a table that the test changes, and a query of it."""

    changes = 0

    def __init__(self) -> None:
        self.columns = ["a", "b"]
        self.rows: Rows = [(1, "x")]
        self.read: Touched | NotebookError = frozenset({"t"})
        self.failure: Exception | None = None
        self.asked: list[tuple[str, Parameters | None]] = []
        self.reads_asked = 0
        self.results: list[Result] = []

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> Any:
        self.asked.append((sql, parameters))
        if self.failure is not None:
            raise self.failure
        self.results.append(Result(self.columns, list(self.rows)))
        return self.results[-1]

    def reads(self, _: str, /) -> Touched:
        self.reads_asked += 1
        if isinstance(self.read, NotebookError):
            raise self.read
        return self.read

    def take_written(self) -> Touched:
        return None


class Desk:
    """Runs what is to be run at once, or when ``go`` is set."""

    def __init__(self, limits: Limits) -> None:
        self.connection: Any = Connection()
        self.begun: list[float] = []
        self.cancelled = 0
        self.go = trio.Event()
        self.go.set()
        self.watch = Watch(self._find, ENGINES.__getitem__, limits)

    def _find(self, name: str) -> Desk:
        if name not in ENGINES:
            raise UnknownConnection(f"there is no connection {name!r}")
        return self

    async def run(self, _name: str, work: Callable[[Any], T], _sql: str) -> T:
        self.begun.append(trio.current_time())
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return work(self.connection)

    def write(self, *rows: tuple[object, ...], touched: Touched = frozenset({"t"})) -> None:
        self.connection.rows = list(rows)
        self.watch.wrote("main", touched)

    def subscription(self, sql: str = "q", **options: Any) -> Any:
        connection = options.pop("connection", "main")
        parameters, key = options.pop("parameters", ()), options.pop("key", ())
        return self.watch.subscription(connection, sql, parameters, key, **options)

    @asynccontextmanager
    async def client(self, sql: str = "q", **options: Any) -> AsyncIterator[Client]:
        async with self.subscription(sql, **options) as subscription:
            yield Client(subscription)


class Client(Follower):
    def __init__(self, subscription: Subscription) -> None:
        super().__init__()
        self._subscription = subscription
        self._reader = Reader()

    async def next(self) -> list[Event]:
        with trio.fail_after(1000):
            pieces = await self._subscription.events()
        events = self._reader.feed(b"".join(pieces))
        for event in events:
            self.take(event)
        return events

    async def hears(self, *names: str) -> None:
        assert [event.name for event in await self.next()] == list(names)

    async def silence(self) -> None:
        with trio.move_on_after(1000) as scope:
            told = await self._subscription.events()
            pytest.fail(f"told {told!r}")
        assert scope.cancelled_caught


@asynccontextmanager
async def a_desk(subscriptions: int = 100, result_bytes: int = 1 << 20) -> AsyncIterator[Desk]:
    desk = Desk(Limits(subscriptions, result_bytes))
    async with trio.open_nursery() as nursery:
        await nursery.start(desk.watch.run)
        yield desk
        assert desk.watch.subscriptions == 0
        kept = sum(query.cost for query in desk.watch._live.values())  # noqa: SLF001
        assert desk.watch._size == kept  # noqa: SLF001
        nursery.cancel_scope.cancel()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with a_desk() as desk:
        yield desk


# What a subscriber is told


async def test_first_comes_the_result(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client() as client:
        (event,) = await client.next()
        assert event.name == "initial"
        assert json.loads(event.data) == {"columns": ["a", "b"], "rows": [[1, "x"]]}
        assert event.last_id
    assert all(result.closed for result in desk.connection.results)


async def test_a_small_change_of_much_is_a_delta(autojump_clock: MockClock, desk: Desk) -> None:
    rows: Rows = [(number, "a text") for number in range(20)]
    desk.connection.rows = rows
    async with desk.client() as client:
        await client.hears("initial")
        desk.write(*rows[1:], (100, "new"))
        (event,) = await client.next()
        assert event.name == "delta"
        assert json.loads(event.data) == {
            "inserts": [[100, "new"]],
            "updates": [],
            "deletes": [[0, "a text"]],
        }
        assert client.rows == [list(row) for row in desk.connection.rows]


async def test_a_change_of_all_is_an_update(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.write((2, "y"))
        await client.hears("update")
        assert client.rows == [[2, "y"]]


async def test_with_a_key_a_changed_row_is_an_update_of_the_delta(
    autojump_clock: MockClock, desk: Desk
) -> None:
    rows: Rows = [(number, "a text") for number in range(20)]
    desk.connection.rows = rows
    async with desk.client(key=["a"]) as client:
        await client.hears("initial")
        desk.write(*rows[:5], (5, "another"), *rows[6:])
        (event,) = await client.next()
        assert json.loads(event.data) == {
            "inserts": [],
            "updates": [{"before": [5, "a text"], "after": [5, "another"]}],
            "deletes": [],
        }


async def test_a_key_that_is_no_column_is_refused(autojump_clock: MockClock, desk: Desk) -> None:
    with pytest.raises(InvalidParams, match="no column 'c'"):
        async with desk.client(key=["a", "c"]):
            pytest.fail("it has subscribed")


async def test_nothing_is_told_if_nothing_has_changed(
    autojump_clock: MockClock, desk: Desk
) -> None:
    desk.connection.rows = [(1, "x"), (2, "y")]
    async with desk.client() as client:
        await client.hears("initial")
        desk.write((1, "x"), (2, "y"))
        await client.silence()
        desk.write((2, "y"), (1, "x"))  # in another order, which nobody has asked for
        await client.silence()
        assert len(desk.begun) == 3


async def test_else_a_row_may_come_anywhere(autojump_clock: MockClock, desk: Desk) -> None:
    rows: Rows = [(number, "a text") for number in range(20)]
    desk.connection.rows = rows
    async with desk.client() as client:
        await client.hears("initial")
        desk.write((100, "new"), *rows)
        await client.hears("delta")
        assert client.rows == [*map(list, rows), [100, "new"]]


async def test_who_asks_for_an_order_gets_it(autojump_clock: MockClock, desk: Desk) -> None:
    rows: Rows = [(number, "a text") for number in range(20)]
    desk.connection.rows = rows
    async with desk.client("q ORDER/**/BY a") as client:
        await client.hears("initial")
        desk.write(*reversed(rows))
        await client.hears("update")
        desk.write((-1, "a text"), *rows)  # a delta would put it last
        await client.hears("update")
        desk.write(*rows)
        await client.hears("delta")
        desk.write(*rows, (100, "a text"))
        await client.hears("delta")
        assert client.rows == [list(row) for row in desk.connection.rows]


async def test_other_columns_are_told_by_a_reload(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.connection.columns = ["a", "c"]
        desk.write((1, "x"), touched=None)
        await client.hears("reload", "initial")
        assert client.columns == ["a", "c"]


# Failures


async def test_a_query_that_fails_cannot_be_subscribed_to(
    autojump_clock: MockClock, desk: Desk
) -> None:
    desk.connection.failure = failure = QueryError("no such table")
    failure.sqlstate = "42P01"
    for _ in range(2):
        with pytest.raises(QueryError, match="no such table") as caught:
            async with desk.client():
                pytest.fail("it has subscribed")
        assert caught.value.sqlstate == "42P01"
        assert caught.value is not failure
    await wait_all_tasks_blocked()
    assert len(desk.watch) == 0


async def test_a_statement_without_rows_is_refused(autojump_clock: MockClock, desk: Desk) -> None:
    desk.connection.columns = []
    with pytest.raises(QueryError, match="only a query"):
        async with desk.client():
            pytest.fail("it has subscribed")
    assert desk.connection.results[0].closed


async def test_an_unknown_database_is_refused(autojump_clock: MockClock, desk: Desk) -> None:
    for last_id in (None, "1.1"):
        with pytest.raises(UnknownConnection):
            async with desk.client(connection="nowhere", last_id=last_id):
                pytest.fail("it has subscribed")


async def test_a_failure_is_told_once_and_the_subscription_lives_on(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.connection.failure = QueryError("dropped")
        desk.watch.wrote("main", None)
        await client.hears("error")
        desk.watch.wrote("main", None)
        await client.silence()
        desk.connection.failure = QueryError("something else")
        desk.watch.wrote("main", None)
        await client.hears("error")
        assert client.errors == ["dropped", "something else"]
        desk.connection.failure = None
        desk.watch.wrote("main", None)
        await client.hears("update")  # though it is the same: who showed an error can go on
        assert client.rows == [[1, "x"]]
        desk.connection.failure = QueryError("something else")
        desk.watch.wrote("main", None)
        await client.hears("error")


async def test_after_an_error_comes_the_whole_result(autojump_clock: MockClock, desk: Desk) -> None:
    rows: Rows = [(number, "a text") for number in range(20)]
    desk.connection.rows = rows
    async with desk.client() as client:
        await client.hears("initial")
        desk.write(*rows, (50, "new"))
        await client.hears("delta")
        desk.connection.failure = QueryError("dropped")
        desk.write()
        await client.hears("error")
        desk.connection.failure = None
        desk.write(*rows, (100, "new"))
        await client.hears("update")
        desk.write(*rows)
        await client.hears("delta")
        assert client.rows == [list(row) for row in rows]


async def test_a_bug_is_told_as_one_and_nothing_of_it(
    autojump_clock: MockClock, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.connection.failure = ZeroDivisionError("a secret")
        desk.write()
        await client.hears("error")
        assert client.errors == ["internal error; the server's log has the details"]
        assert "a live query failed" in caplog.messages
        desk.connection.failure = None
        desk.write((5, "y"))
        await client.hears("update")


async def test_an_unreachable_database_is_tried_again(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.connection.failure = DatabaseUnavailable("gone")
        desk.write((2, "y"))
        await client.hears("error")
        desk.connection.failure = None
        began = trio.current_time()
        await client.hears("update")
        assert trio.current_time() - began == pytest.approx(RETRY)
        assert client.rows == [[2, "y"]]


async def test_a_value_that_is_not_text_is_an_error(autojump_clock: MockClock, desk: Desk) -> None:
    desk.connection.rows = [("\ud800", "")]
    with pytest.raises(QueryError, match="not valid Unicode"):
        async with desk.client():
            pytest.fail("it has subscribed")


async def test_nor_where_the_database_writes_the_rows_itself(
    autojump_clock: MockClock, desk: Desk
) -> None:
    class Writing(Connection):
        def execute_json(self, sql: str, _: Parameters | None, /, *, arrays: bool = False) -> Any:
            assert arrays
            result: Any = self.execute(sql)
            result.fetch = lambda limit, fetch=result.fetch: ['["\ud800"]' for _ in fetch(limit)]
            return result

    desk.connection = Writing()
    with pytest.raises(QueryError, match="not text that UTF-8 can carry"):
        async with desk.client():
            pytest.fail("it has subscribed")


# When there is a look


async def test_only_a_write_to_what_it_reads_causes_a_look(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.write((2, "y"), touched=frozenset({"u"}))
        desk.watch.wrote("other", None)
        await client.silence()
        assert len(desk.begun) == 1
        desk.write((2, "y"), touched=frozenset({"u", "t"}))
        await client.hears("update")


async def test_what_may_be_the_same_database_by_another_name_counts(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.connection.rows = [(2, "y")]
        desk.watch.wrote("twin", frozenset({"u"}))
        await client.hears("update")


async def test_what_a_query_reads_is_asked_again_when_anything_may_have_changed(
    autojump_clock: MockClock,
    desk: Desk,
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.write((2, "y"))
        await client.hears("update")
        assert desk.connection.reads_asked == 1
        desk.connection.read = frozenset({"u"})  # a view has become another
        desk.write((3, "y"), touched=None)
        await client.hears("update")
        assert desk.connection.reads_asked == 2
        desk.write((4, "y"))
        await client.silence()
        desk.write((4, "y"), touched=frozenset({"u"}))
        await client.hears("update")


@pytest.mark.parametrize("told", [None, QueryError("it is two statements")])
async def test_where_nobody_can_tell_what_it_reads_every_write_counts(
    autojump_clock: MockClock, desk: Desk, told: QueryError | None
) -> None:
    desk.connection.read = told
    async with desk.client() as client:
        await client.hears("initial")
        desk.write((2, "y"), touched=frozenset({"u"}))
        await client.hears("update")


async def test_a_write_while_it_looks_causes_another_look(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.go = trio.Event()
        desk.write((2, "y"))
        await trio.sleep(PAUSE)
        await wait_all_tasks_blocked()
        desk.watch.wrote("main", frozenset({"t"}))  # seen by the look that goes on, or not
        desk.go.set()
        await client.hears("update")
        await client.silence()
        assert len(desk.begun) == 3


async def test_another_shape_while_it_looks_is_not_forgotten(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.go = trio.Event()
        desk.write((2, "y"), touched=None)  # the look that follows asks what is read
        await trio.sleep(PAUSE)
        await wait_all_tasks_blocked()
        desk.watch.wrote("main", None)
        before, desk.go = desk.go, trio.Event()
        before.set()
        await client.hears("update")
        await trio.sleep(PAUSE)
        await wait_all_tasks_blocked()
        desk.connection.read = frozenset({"u"})
        desk.watch.wrote("main", frozenset({"u"}))  # while it looks once more, and asks
        desk.go.set()
        await client.silence()
        assert desk.connection.reads_asked == 3
        assert len(desk.begun) == 4


async def test_until_it_is_known_what_a_query_reads_every_write_counts(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        desk.go = trio.Event()
        desk.connection.read = frozenset({"u"})
        desk.write((2, "y"), touched=None)
        await trio.sleep(PAUSE)
        await wait_all_tasks_blocked()
        desk.watch.wrote("main", frozenset({"u"}))
        desk.go.set()
        await client.hears("update")
        await client.silence()
        assert len(desk.begun) == 3


async def test_the_first_look_is_at_once_and_the_next_ones_take_their_time(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        await trio.sleep(10)
        began = trio.current_time()
        for number in range(100):
            desk.write((number, "y"))
            await trio.sleep(PAUSE / 10)
        desk.write((100, "last"))
        while client.rows != [[100, "last"]]:
            await client.next()
        looks = [at - began for at in desk.begun[1:]]
        assert looks[0] == 0
        gaps = [after - before for before, after in pairwise(looks)]
        assert gaps == pytest.approx([PAUSE] * 10)


async def test_a_slow_query_is_looked_at_half_the_time_at_most(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        await trio.sleep(10)
        desk.go = trio.Event()
        desk.write((2, "y"))
        await trio.sleep(3)
        desk.write((3, "y"))
        desk.go.set()
        await client.hears("update")
        ended = trio.current_time()
        desk.write((4, "y"))
        await client.hears("update")
        assert trio.current_time() - ended == pytest.approx(3)


async def test_who_polls_gets_what_nobody_has_told(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client(every=7) as client, desk.client(every=math.inf) as other:
        await client.hears("initial")
        await other.hears("initial")
        desk.connection.rows = [(2, "y")]
        await client.hears("update")
        await other.hears("update")
        assert trio.current_time() == pytest.approx(7)
        await trio.sleep(71)
        assert len(desk.begun) == 12


async def test_a_shorter_poll_counts_at_once(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client(every=1000) as client:
        await client.hears("initial")
        async with desk.client(every=2):
            desk.connection.rows = [(2, "y")]
            await client.hears("update")
            assert trio.current_time() == pytest.approx(2)
        looks = len(desk.begun)
        await trio.sleep(500)
        assert len(desk.begun) == looks


# Several subscribers


async def test_the_same_subscriptions_share_their_looks(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as one, desk.client() as two:
        await one.hears("initial")
        await two.hears("initial")
        assert len(desk.begun) == 1
        desk.write((2, "y"))
        await one.hears("update")
        await two.hears("update")
        assert (len(desk.begun), len(desk.watch)) == (2, 1)


@pytest.mark.parametrize(
    "other",
    [{"sql": "p"}, {"parameters": [1]}, {"key": ["a"]}, {"connection": "twin"}],
    ids=lambda other: next(iter(other)),
)
async def test_different_ones_do_not(
    autojump_clock: MockClock, desk: Desk, other: dict[str, Any]
) -> None:
    async with desk.client() as one, desk.client(**other) as two:
        await one.hears("initial")
        await two.hears("initial")
        assert (len(desk.begun), len(desk.watch)) == (2, 2)


async def test_parameters_reach_the_query(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client(parameters=[1, "a", None, 1.5, [True], 2**70]):
        assert desk.connection.asked == [("q", [1, "a", None, 1.5, [True], 2**70])]


async def test_who_subscribes_after_a_write_sees_it(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client() as one:
        await one.hears("initial")
        desk.write((2, "y"))
        async with desk.client() as two:
            await two.hears("initial")
            assert two.rows == [[2, "y"]]
        await one.hears("update")


async def test_what_others_wrote_is_seen_by_who_subscribes_a_second_later(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as one:
        await one.hears("initial")
        desk.connection.rows = [(2, "y")]
        async with desk.client() as two:
            await two.hears("initial")
            assert two.rows == [[1, "x"]]
        await trio.sleep(FRESH + 0.1)
        async with desk.client() as three:
            await three.hears("initial")
            assert three.rows == [[2, "y"]]
        await one.hears("update")


async def test_one_that_fails_is_tried_again_for_who_subscribes(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as one:
        await one.hears("initial")
        desk.connection.failure = QueryError("dropped")
        desk.write()
        await one.hears("error")
        desk.connection.failure = None
        async with desk.client() as two:
            await two.hears("initial")


async def test_a_slow_reader_is_told_where_things_stand_and_no_more(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as slow, desk.client() as quick:
        await slow.hears("initial")
        await quick.hears("initial")
        for number in range(2, 10):
            desk.write((number, "y"))
            await quick.hears("update")
        await slow.hears("update")
        assert slow.rows == [[9, "y"]]
        await slow.silence()


async def test_or_the_differences_that_are_less_than_that(
    autojump_clock: MockClock, desk: Desk
) -> None:
    rows: Rows = [(number, "a text") for number in range(30)]
    desk.connection.rows = rows
    async with desk.client() as slow, desk.client() as quick:
        await slow.hears("initial")
        await quick.hears("initial")
        for number in range(3):
            desk.write(*rows, *((100, "new"),) * (number + 1))
            await quick.hears("delta")
        await slow.hears("delta", "delta", "delta")
        assert slow.rows == [*map(list, rows), *[[100, "new"]] * 3]
        for number in range(30):
            desk.write(*rows, (number, "other"))
            await quick.hears("delta")
        await slow.hears("update")
        assert slow.rows == quick.rows


async def test_what_is_kept_of_differences_is_less_than_the_result(
    autojump_clock: MockClock, desk: Desk
) -> None:
    rows: Rows = [(number, "a text") for number in range(30)]
    desk.connection.rows = rows
    async with desk.client() as client:
        await client.hears("initial")
        (query,) = desk.watch._live.values()  # noqa: SLF001  # what it holds is the point
        for number in range(50):
            desk.write(*rows, (number, "other"))
            await client.hears("delta")
            kept = query._differences  # noqa: SLF001
            assert query.snapshot is not None
            assert 0 < sum(map(len, kept)) <= len(query.snapshot.data)


async def test_a_slow_reader_is_not_given_many_differences_at_a_time(
    autojump_clock: MockClock, desk: Desk
) -> None:
    text = "t" * (JOINED // 3)
    rows: Rows = [(number, text) for number in range(10)]
    desk.connection.rows = rows
    async with desk.client() as slow, desk.client() as quick:
        await slow.hears("initial")
        await quick.hears("initial")
        for number in range(5):
            desk.write(*rows, *((100, text),) * (number + 1))
            await quick.hears("delta")
        await slow.hears("delta", "delta")
        await slow.hears("delta", "delta")
        await slow.hears("delta")
        assert slow.rows == quick.rows


async def test_one_that_slept_through_a_reload_is_told_of_it(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as slow:
        await slow.hears("initial")
        desk.connection.columns = ["a", "c"]
        desk.write((1, "x"), touched=None)
        await trio.sleep(1)
        desk.write((2, "x"))
        await trio.sleep(1)
        await slow.hears("reload", "initial")
        assert (slow.columns, slow.rows) == (["a", "c"], [[2, "x"]])


# Coming back


async def test_who_comes_back_is_told_what_it_missed(autojump_clock: MockClock, desk: Desk) -> None:
    rows: Rows = [(number, "a text") for number in range(20)]
    desk.connection.rows = rows
    async with desk.client() as client:
        await client.hears("initial")
    desk.write(*rows, (100, "new"))
    async with desk.client(last_id=client.last_id) as again:
        again.rows = client.rows
        await again.hears("delta")
        assert again.rows == [*map(list, rows), [100, "new"]]


async def test_who_missed_nothing_is_told_nothing(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client() as client:
        await client.hears("initial")
    async with desk.client(last_id=client.last_id) as again:
        await again.silence()
        desk.write((2, "y"))
        await again.hears("update")


async def test_who_missed_too_much_begins_anew(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client() as client, desk.client() as other:
        await client.hears("initial")
        await other.hears("initial")
        desk.write((2, "y"))
        await other.hears("update")
        async with desk.client(last_id=client.last_id) as again:
            await again.hears("initial")


@pytest.mark.parametrize(
    "id_", ["", "x", "0.1", ".1", "{name}.", "{name}.9", "{name}.-1", "9" * 99]
)
async def test_an_id_that_is_not_known_begins_anew(
    autojump_clock: MockClock, desk: Desk, id_: str
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        name = client.last_id.partition(".")[0]
        async with desk.client(last_id=id_.format(name=name)) as again:
            await again.hears("initial")


async def test_ids_of_another_run_of_the_server_are_not_known(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with a_desk() as former, former.client() as client:
        await client.hears("initial")
    async with desk.client(last_id=client.last_id) as again:
        await again.hears("initial")


async def test_after_a_while_nobody_waits_for_who_might_come_back(
    autojump_clock: MockClock, desk: Desk
) -> None:
    async with desk.client() as client:
        await client.hears("initial")
    await trio.sleep(LINGER - 1)
    assert len(desk.watch) == 1
    await trio.sleep(2)
    assert len(desk.watch) == 0
    async with desk.client(last_id=client.last_id) as again:
        await again.hears("initial")


async def test_who_comes_back_in_time_keeps_it(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client() as client:
        await client.hears("initial")
    await trio.sleep(LINGER - 1)
    async with desk.client(last_id=client.last_id) as again:
        await trio.sleep(LINGER)
        await again.silence()
        assert len(desk.watch) == 1


async def test_while_nobody_is_there_nothing_is_done(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client(every=1) as client:
        await client.hears("initial")
    desk.write((2, "y"))
    await trio.sleep(LINGER / 2)
    assert len(desk.begun) == 1


async def test_who_comes_back_to_a_failure_is_told_of_it_and_waits(
    autojump_clock: MockClock, desk: Desk
) -> None:
    desk.connection.failure = QueryError("not yet")
    async with desk.client(last_id="of another run") as client:
        await client.hears("error")
        desk.connection.failure = None
        desk.write((2, "y"))
        await client.hears("initial")


# Limits


async def test_so_many_may_subscribe(autojump_clock: MockClock) -> None:
    async with a_desk(subscriptions=2) as desk:
        async with desk.client(), desk.client():
            with pytest.raises(Busy, match="2 subscriptions"):
                async with desk.client():
                    pytest.fail("it has subscribed")
        async with desk.client() as client:
            await client.hears("initial")


async def test_a_result_may_be_so_large(autojump_clock: MockClock) -> None:
    async with a_desk(result_bytes=1000) as desk:
        lines = 'data: {"columns":["a","b"],"rows":[[1,"x"]]}\n'
        desk.connection.rows = [(1, "x" * (1001 - len(lines)))]
        async with desk.client() as client:
            await client.hears("initial")
            desk.write((1, "x" * (1002 - len(lines))))
            await client.hears("error")
            assert client.errors == ["the result is larger than 1000 bytes, and cannot be watched"]
            desk.write(*[(1, "x")] * 10_000)
            await client.silence()
            assert all(result.closed for result in desk.connection.results)
            assert desk.connection.results[-1].fetched < 500


async def test_all_results_together_may_be_so_large(autojump_clock: MockClock) -> None:
    async with a_desk(result_bytes=1000) as desk:
        desk.connection.rows = [(1, "x" * 900)]
        async with trio.open_nursery() as nursery:
            failures: list[NotebookError] = []

            async def subscribe(number: int) -> None:
                try:
                    async with desk.client(f"q{number}"):
                        await trio.sleep_forever()
                except NotebookError as exc:
                    failures.append(exc)

            for number in range(RESULTS):
                nursery.start_soon(subscribe, number)
            await trio.sleep(1)
            assert {type(failure) for failure in failures} == {Busy}
            # Each takes its text twice, and a little more.
            assert desk.watch.subscriptions == RESULTS - len(failures) == 1000 * RESULTS // 1954
            nursery.cancel_scope.cancel()


async def test_what_may_linger_is_bounded(autojump_clock: MockClock) -> None:
    async with a_desk(result_bytes=1000) as desk:
        desk.connection.rows = [(1, "x" * 900)]
        for number in range(10):
            async with desk.client(f"q{number}") as client:
                await client.hears("initial")
        await wait_all_tasks_blocked()
        assert [asked.sql for asked in desk.watch._live] == ["q8", "q9"]  # noqa: SLF001
        for sql in ("q10", "q8"):  # which was let go of just now, and had not gone yet
            async with desk.client(sql) as client:
                await client.hears("initial")
        await wait_all_tasks_blocked()
        assert [asked.sql for asked in desk.watch._live] == ["q10", "q8"]  # noqa: SLF001
    assert LINGERING == 4


async def test_and_so_is_how_many_do(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_LINGERING", 3)
    async with a_desk() as desk:
        for number in range(10):
            async with desk.client(f"q{number}") as client:
                await client.hears("initial")
        await wait_all_tasks_blocked()
        assert [asked.sql for asked in desk.watch._live] == ["q7", "q8", "q9"]  # noqa: SLF001


async def test_slow_readers_hold_no_more_than_may_be_held(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    size = 2 * JOINED
    left: list[int] = []

    async def read_slowly(desk: Desk, number: int) -> None:
        """Takes one event, and is then so slow as never to ask for another."""
        async with desk.client() as client:
            await client.hears("initial")
            await trio.sleep_forever()
        left.append(number)

    async with a_desk(result_bytes=size) as desk, trio.open_nursery() as nursery:
        for number in range(2 * RESULTS):
            desk.connection.rows = [(number, "x" * (size - 100))]
            desk.watch.wrote("main", None)
            for _ in range(2):  # these two share it
                nursery.start_soon(read_slowly, desk, number)
            await trio.sleep(1)
            held = desk.watch._held  # noqa: SLF001
            assert 0 < held.size <= RESULTS * size
        await wait_all_tasks_blocked()
        assert left == sorted([*range(RESULTS), *range(RESULTS)])
        assert desk.watch.subscriptions == 2 * RESULTS
        assert "a subscription is cut off: its client reads too slowly" in caplog.messages
        nursery.cancel_scope.cancel()
    assert held.size == 0


async def test_a_large_difference_is_held_as_a_result_is(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RESULTS", 2)
    size = 8 * JOINED
    rows: Rows = [(0, "x" * 4 * JOINED)]
    async with a_desk(result_bytes=size) as desk, trio.open_nursery() as nursery:
        desk.connection.rows = rows
        left: list[int] = []
        held = desk.watch._held  # noqa: SLF001

        async def read_slowly(number: int) -> None:
            async with desk.client() as client:
                await client.hears("initial")
                await client.hears("delta")
                await trio.sleep_forever()
            left.append(number)

        for number in range(1, 10):
            for _ in range(2):  # these two share it
                nursery.start_soon(read_slowly, number)
            await wait_all_tasks_blocked()
            desk.write(*rows, (number, "y" * 3 * JOINED))
            await trio.sleep(1)
            assert 3 * JOINED < held.size <= 2 * size
        # A difference takes 6 * JOINED, as a row came and one went; a result, while it is sent to
        # those who come, 7; and 16 may be held.
        assert left == [number for number in range(1, 8) for _ in range(2)]
        nursery.cancel_scope.cancel()
    assert held.size == 0


async def test_who_goes_on_reading_is_never_cut_off(autojump_clock: MockClock) -> None:
    size = 2 * JOINED
    async with a_desk(result_bytes=size) as desk, desk.client() as client:
        for number in range(2 * RESULTS):
            desk.write((number, "x" * (size - 100)))
            await client.next()
            assert desk.watch._held.size < size  # noqa: SLF001


# Leaving


async def test_the_last_one_to_leave_stops_the_look(autojump_clock: MockClock, desk: Desk) -> None:
    async with desk.client() as client:
        await client.hears("initial")
        async with desk.client() as other:
            await other.hears("initial")
            desk.go = trio.Event()
            desk.write((2, "y"))
            await trio.sleep(1)
        await trio.sleep(1)
        assert desk.cancelled == 0
    await wait_all_tasks_blocked()
    assert desk.cancelled == 1
    desk.go.set()
    async with desk.client(last_id=client.last_id) as again:
        await again.hears("initial")
        assert again.rows == [[2, "y"]]


async def test_who_leaves_before_the_first_look_stops_it_too(
    autojump_clock: MockClock, desk: Desk
) -> None:
    desk.go = trio.Event()
    with trio.move_on_after(1):
        async with desk.client():
            pytest.fail("nothing was seen yet")
    await wait_all_tasks_blocked()
    assert (desk.cancelled, len(desk.watch), desk.watch.subscriptions) == (1, 0, 0)


async def test_a_look_that_could_not_be_stopped_does_no_harm(
    autojump_clock: MockClock, desk: Desk
) -> None:
    rows: Rows = [(number, "a text") for number in range(20)]
    desk.connection.rows = rows
    async with desk.client() as client:
        await client.hears("initial")
        run = desk.run

        async def stubborn(name: str, work: Callable[[Any], T], sql: str) -> T:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
                seen = await run(name, work, sql)
            return seen  # noqa: RET504  # mypy holds that the scope may swallow an exception

        desk.run = stubborn  # type: ignore[method-assign, assignment]
        desk.write(*rows, (100, "new"))
        await trio.sleep(1)
    desk.run = run  # type: ignore[method-assign]
    async with desk.client(last_id=client.last_id) as again:
        again.rows = client.rows
        await again.hears("delta")
        assert again.rows == [list(row) for row in desk.connection.rows]


def test_the_numbers_are_those_of_the_docs() -> None:
    assert (PAUSE, FRESH, LINGER, RETRY) == (0.1, 1, 60, 5)
    assert _watch_query.JOINED < 1 << 20
