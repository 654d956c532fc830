"""The probe: whether a database answers, whatever else goes on. Real threads, a real clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from notebook_rpc.errors import DatabaseError, DatabaseUnavailable
from notebook_rpc.services.probe import QUESTION, Probe
from notebook_rpc_drivers.fake import FakeDatabase, Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.driver import Database


@asynccontextmanager
async def probing(database: FakeDatabase, seconds: float = 5) -> AsyncIterator[Probe]:
    async def opened() -> Database:
        return database

    probe = Probe(opened, seconds)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(probe.run)
            yield probe
            nursery.cancel_scope.cancel()
    assert all(connection.closed for connection in database.connections)


def asked(database: FakeDatabase) -> int:
    return sum(f"execute {QUESTION}" in each.calls for each in database.connections)


async def test_nothing_is_asked_before_somebody_wants_to_know() -> None:
    database = FakeDatabase({QUESTION: "rows 1"})
    async with probing(database):
        await trio.testing.wait_all_tasks_blocked()
    assert database.connections == []


async def test_a_database_that_answers_is_asked_each_time_on_one_connection() -> None:
    database = FakeDatabase({QUESTION: "rows 1"})
    async with probing(database) as probe:
        assert [await probe.complaint() for _ in range(3)] == [None, None, None]
    (connection,) = database.connections
    assert connection.calls.count(f"execute {QUESTION}") == 3


async def test_an_error_of_the_statement_is_an_answer() -> None:
    async with probing(FakeDatabase({QUESTION: "error FROM DUAL is missing"})) as probe:
        assert await probe.complaint() is None


@pytest.mark.parametrize("call", ["connect", "execute"])
async def test_a_database_that_is_gone_is_complained_of_until_it_is_back(call: str) -> None:
    database = FakeDatabase({QUESTION: "rows 1"})
    async with probing(database) as probe:
        assert await probe.complaint() is None
        database.failures |= {
            "execute": DatabaseUnavailable("nobody\nlistens"),
            call: DatabaseUnavailable("nobody\nlistens"),
        }
        for _ in range(2):
            complaint = await probe.complaint()
            assert complaint is not None
            assert complaint.startswith("nobody listens")
        database.failures.clear()
        assert await probe.complaint() is None


async def test_a_connection_that_was_cut_while_nobody_used_it_is_no_complaint() -> None:
    database = FakeDatabase({QUESTION: "rows 1"})
    async with probing(database) as probe:
        assert await probe.complaint() is None
        with pytest.raises(DatabaseUnavailable):
            database.connections[0].execute("leave")
        assert await probe.complaint() is None
    assert [connection.closed for connection in database.connections] == [True, True]


async def test_a_database_that_hangs_is_complained_of_in_time_and_costs_one_call() -> None:
    database = FakeDatabase({QUESTION: "rows 1"})
    gate = database.gates["execute"] = Gate()
    async with probing(database, seconds=0.05) as probe:
        for _ in range(3):
            assert await probe.complaint() == "the database has not answered for 0.05 s"
        assert asked(database) == 1
        database.gates.clear()
        gate.opened.set()
        while await probe.complaint():
            continue


async def test_an_interrupt_is_no_answer() -> None:
    database = FakeDatabase({QUESTION: "wait"})
    async with probing(database, seconds=0.05) as probe:
        assert await probe.complaint() == "the database has not answered for 0.05 s"
        assert await probe.complaint() == "the database has not answered for 0.05 s"
        database.script[QUESTION] = "rows 1"
        while await probe.complaint():
            continue


async def test_many_who_want_to_know_at_once_cost_one_question() -> None:
    database = FakeDatabase({QUESTION: "rows 1"})
    gate = database.gates["execute"] = Gate()
    complaints: list[str | None] = []
    async with probing(database) as probe, trio.open_nursery() as nursery:

        async def want_to_know() -> None:
            complaints.append(await probe.complaint())

        for _ in range(50):
            nursery.start_soon(want_to_know)
        assert await trio.to_thread.run_sync(gate.reached.wait, 5)
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert complaints == [None] * 50
    assert asked(database) == 1


async def test_a_connection_that_does_not_close_well_is_no_ones_trouble() -> None:
    database = FakeDatabase({QUESTION: "rows 1"})
    async with probing(database) as probe:
        assert await probe.complaint() is None
        database.failures["close"] = DatabaseError("no")
        database.connections[0].closed = True  # as far as ``probing`` is concerned


async def test_a_driver_that_fails_as_none_may_is_complained_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = FakeDatabase({QUESTION: "rows 1"})
    async with probing(database) as probe:
        for call in ("execute", "close"):
            database.failures[call] = RuntimeError("a bug")  # type: ignore[assignment]
        complaint = "internal error; the server's log has the details"
        assert [await probe.complaint() for _ in range(2)] == [complaint] * 2
        database.connections[0].closed = True  # as far as ``probing`` is concerned
    assert "RuntimeError: a bug" in caplog.text
