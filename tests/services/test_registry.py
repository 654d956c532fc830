"""Sessions by their id: made, used, expired, ended."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from notebook_rpc.errors import (
    Cancelled,
    DatabaseUnavailable,
    NotebookError,
    QueryError,
    TooManySessions,
    UnknownSession,
    WrongState,
)
from notebook_rpc.sansio.tokens import User
from notebook_rpc.services.registry import Sessions
from notebook_rpc.services.sessions import Session
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeDatabase, Gate
from tests.waiting import until

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Awaitable, Callable

    from notebook_rpc.driver import Connection

IDLE = 1800.0
ADA, BOB = User("ada"), User("bob")


class House:
    def __init__(self, workers: Workers) -> None:
        self.database = FakeDatabase()
        ids = count(1)
        self.asked_for: list[str] = []
        self.read_only: list[bool] = []

        async def connect(name: str) -> Connection:
            self.asked_for.append(name)
            return await workers.run(self.database.connect)

        def make(name: str, read_only: bool) -> Session:
            self.read_only.append(read_only)
            return Session(partial(connect, name), workers, 1 << 20)

        self.sessions = Sessions(
            make,
            lambda: f"id{next(ids)}",
            limit=3,
            idle_seconds=IDLE,
        )

    def has(self, id_: str) -> bool:
        try:
            with self.sessions.using(id_, ADA):
                return True
        except UnknownSession:
            return False


@pytest.fixture
async def house() -> AsyncIterator[House]:
    workers = Workers(limit=4, spare=2)
    house = House(workers)
    yield house
    await house.sessions.close()
    workers.close()


async def happens(event: threading.Event) -> None:
    with trio.fail_after(5):
        await trio.to_thread.run_sync(event.wait, 5)
    assert event.is_set()


async def outcome(work: Callable[[], Awaitable[object]], into: list[object]) -> None:
    try:
        into.append(await work())
    except NotebookError as exc:
        into.append(exc)


async def test_each_session_has_a_connection_of_its_own(house: House) -> None:
    first, second = (
        await house.sessions.create("default", ADA),
        await house.sessions.create("default", ADA),
    )
    assert first != second
    with house.sessions.using(first, ADA) as one, house.sessions.using(second, ADA) as two:
        await one.execute("rows 1")
        assert one.progress().state == "Active"
        assert two.progress().state == "NoActive"
    assert len(house.database.connections) == 2


async def test_an_unknown_session_is_refused(house: House) -> None:
    with pytest.raises(UnknownSession), house.sessions.using("nobody", ADA):
        pass
    with pytest.raises(UnknownSession):
        await house.sessions.end("nobody", ADA)


async def test_there_are_only_so_many(house: House) -> None:
    ids = [await house.sessions.create("default", ADA) for _ in range(3)]
    with pytest.raises(TooManySessions):
        await house.sessions.create("default", ADA)
    await house.sessions.end(ids[0], ADA)
    await house.sessions.create("default", ADA)


async def test_the_limit_counts_those_that_are_being_opened(house: House) -> None:
    gate = house.database.gates["connect"] = Gate()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(house.sessions.create, "default", ADA)
        await happens(gate.reached)
        with pytest.raises(TooManySessions):
            await house.sessions.create("default", ADA)
        gate.opened.set()
    assert len(house.sessions) == 3


async def test_a_connection_that_fails_leaves_no_session(house: House) -> None:
    house.database.failures["connect"] = DatabaseUnavailable("gone")
    for _ in range(4):
        with pytest.raises(DatabaseUnavailable):
            await house.sessions.create("default", ADA)
    assert len(house.sessions) == 0


async def test_to_end_a_session_interrupts_it_and_closes_its_connection(house: House) -> None:
    id_ = await house.sessions.create("default", ADA)
    outcomes: list[object] = []
    with house.sessions.using(id_, ADA) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome, lambda: session.execute("wait"), outcomes)
            await happens(house.database.waiting)
            nursery.start_soon(outcome, lambda: session.execute("rows 1"), outcomes)
            await trio.testing.wait_all_tasks_blocked()
            await house.sessions.end(id_, ADA)
    assert isinstance(outcomes[0], Cancelled)
    assert isinstance(outcomes[1], WrongState)  # it was waiting for its turn
    assert house.database.connections[0].closed
    with pytest.raises(UnknownSession), house.sessions.using(id_, ADA):
        pass


async def test_a_connection_that_fails_to_close_is_only_logged(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    id_ = await house.sessions.create("default", ADA)
    house.database.failures["close"] = QueryError("stuck")
    await house.sessions.end(id_, ADA)
    house.database.failures.clear()
    assert "stuck" in caplog.text
    assert id_ not in caplog.text.replace(id_[:6] + "...", "")


async def test_so_is_a_driver_that_fails_as_none_may_and_others_end_too(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        await house.sessions.create("default", ADA)
    house.database.failures["close"] = RuntimeError("a bug")  # type: ignore[assignment]
    await house.sessions.close()
    assert len(house.sessions) == 0
    assert caplog.text.count("RuntimeError: a bug") == 2


# Expiry. The clock is moved by hand: it must not jump while a worker is at work.


async def test_a_session_that_nobody_uses_ends(
    house: House, mock_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.sessions.expire)
        await house.sessions.create("default", ADA)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(IDLE / 2)
        await house.sessions.create("default", ADA)
        await trio.testing.wait_all_tasks_blocked()
        assert len(house.sessions) == 2
        mock_clock.jump(IDLE / 2)
        await until(lambda: len(house.sessions) == 1)
        mock_clock.jump(IDLE / 2)
        await until(lambda: len(house.sessions) == 0)
        await until(lambda: all(each.closed for each in house.database.connections))
        nursery.cancel_scope.cancel()


async def test_each_session_ends_at_its_own_time_also_after_the_last_one_has(
    house: House, mock_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await house.sessions.create("default", ADA)
        mock_clock.jump(IDLE / 2)
        await house.sessions.create("default", ADA)
        nursery.start_soon(house.sessions.expire)
        for left in (1, 0):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(IDLE / 2)
            await trio.testing.wait_all_tasks_blocked()
            assert len(house.sessions) == left
            await until(lambda: sum(c.closed for c in house.database.connections) == 2 - left)  # noqa: B023  # called at once
        await trio.testing.wait_all_tasks_blocked()
        await house.sessions.create("default", ADA)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(IDLE)
        await trio.testing.wait_all_tasks_blocked()
        assert len(house.sessions) == 0
        nursery.cancel_scope.cancel()


async def test_a_session_in_use_never_expires(
    house: House, mock_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.sessions.expire)
        id_ = await house.sessions.create("default", ADA)
        with house.sessions.using(id_, ADA):
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(IDLE)
            await trio.testing.wait_all_tasks_blocked()
            assert len(house.sessions) == 1
        mock_clock.jump(IDLE)
        await until(lambda: len(house.sessions) == 0)
        nursery.cancel_scope.cancel()


async def test_use_begins_the_time_anew(house: House, mock_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.sessions.expire)
        id_ = await house.sessions.create("default", ADA)
        for _ in range(4):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(IDLE * 0.6)
            await trio.testing.wait_all_tasks_blocked()
            with house.sessions.using(id_, ADA):
                pass
        nursery.cancel_scope.cancel()
    assert len(house.sessions) == 1


async def test_a_session_is_its_makers_and_for_all_others_there_is_none(house: House) -> None:
    id_ = await house.sessions.create("default", ADA)
    with pytest.raises(UnknownSession), house.sessions.using(id_, BOB):
        raise AssertionError
    with pytest.raises(UnknownSession):
        await house.sessions.end(id_, BOB)
    with house.sessions.using(id_, ADA) as session:
        await session.execute("rows 1")


async def test_the_sessions_of_a_read_only_user_are_read_only_and_look_like_any(
    house: House,
) -> None:
    reader = User("cy", read_only=True)
    assert [await house.sessions.create("sales", user) for user in (ADA, reader)] == ["id1", "id2"]
    assert house.read_only == [False, True]
    with pytest.raises(UnknownSession), house.sessions.using("id2", User("cy")):
        raise AssertionError


async def test_a_session_that_is_ended_while_others_expire_hurts_nobody(
    house: House, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    gate = house.database.gates["close"] = Gate()
    ids = [await house.sessions.create("default", ADA) for _ in range(2)]
    nursery.start_soon(house.sessions.expire)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(IDLE + 1)
    await happens(gate.reached)  # the first one is slow to close
    house.database.gates.clear()
    (left,) = [id_ for id_ in ids if len(house.sessions) == 1 and house.has(id_)]
    await house.sessions.end(left, ADA)
    gate.opened.set()
    await until(lambda: all(connection.closed for connection in house.database.connections))
    await house.sessions.create("default", ADA)  # and the sessions are still looked after
    nursery.cancel_scope.cancel()


async def test_a_session_for_somebody_who_has_left_is_closed_again(house: House) -> None:
    gate = house.database.gates["connect"] = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.sessions.create, "default", ADA)
        await happens(gate.reached)
        nursery.cancel_scope.cancel()
        gate.opened.set()
    assert len(house.sessions) == 0
    assert [connection.closed for connection in house.database.connections] == [True]


async def test_a_session_may_end_before_anybody_looked_at_it(
    house: House, nursery: trio.Nursery
) -> None:
    nursery.start_soon(house.sessions.expire)
    for _ in range(20):
        await trio.testing.wait_all_tasks_blocked()
        await house.sessions.end(await house.sessions.create("default", ADA), ADA)
    nursery.cancel_scope.cancel()
