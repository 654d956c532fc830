"""Connections by context and name: whose they are, who may register them, and what is kept."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import (
    DatabaseUnavailable,
    Forbidden,
    InvalidParams,
    NotKept,
    TooManyConnections,
    UnknownConnection,
)
from notebook_rpc.sansio.addresses import Address
from notebook_rpc.sansio.tokens import ANYBODY, User
from notebook_rpc.services.contexts import Contexts, Prepared
from notebook_rpc.services.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

OWN, KEPT = Address("duckdb", driver="duckdb"), Address("sqlite", database="k.db", driver="sqlite")


class House:
    """Contexts over databases that only remember what was put."""

    def __init__(self, workers: Workers) -> None:
        self.opened: set[str] = {"default"}
        self.put_: list[tuple[str, str]] = []
        self.kept: list[tuple[str, str, str]] = []
        self.failure: Exception | None = None
        self.contexts = Contexts(
            {"default": OWN, "team/plans": OWN},
            {"old": KEPT},
            *(self, workers, self.prepare, self.keep),
            limit=3,
        )
        self.register = partial(self.contexts.register, user=ANYBODY)

    async def put(self, key: str, opener: Callable[[], Any], engine: str, /) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        opener()
        self.opened.add(key)
        self.put_.append((key, engine))

    def is_open(self, key: str, /) -> bool:
        return key in self.opened

    def prepare(self, url: str) -> Prepared:
        if url == "bad":
            raise InvalidParams("malformed")
        return Prepared(Address("sqlite", database=url, driver="sqlite"), lambda: None, "sqlite")  # type: ignore[arg-type, return-value]

    def keep(self, context: str, name: str, url: str) -> None:
        if url == "full":
            raise NotKept("the disk is full")
        self.kept.append((context, name, url))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    workers = Workers(limit=2, spare=2)
    yield House(workers)
    workers.close()


async def test_the_servers_own_and_kept_ones_are_there_from_the_start(house: House) -> None:
    assert house.contexts.lasting() == {"default": ["default", "old"], "team": ["plans"]}
    assert house.contexts.all() == {
        "default": {"default": OWN, "old": None},
        "team": {"plans": None},
    }
    assert house.contexts.key("default", "default") == "default"
    assert house.contexts.key("team", "plans") == "team/plans"
    assert house.contexts.dialect("old") == "sqlite"


@pytest.mark.parametrize("place", [("default", "new"), ("team", "default"), ("old", "old")])
async def test_what_is_not_there_is_unknown(house: House, place: tuple[str, str]) -> None:
    with pytest.raises(UnknownConnection, match=f"Unknown connection: '{place[1]}'"):
        house.contexts.key(*place)


async def test_what_was_registered_is_there_and_where_it_was_asked_for(house: House) -> None:
    address = await house.register("__session__", "el", "a.db")
    assert address.database == "a.db"
    assert house.put_ == [("__session__/el", "sqlite")]
    assert house.contexts.key("__session__", "el") == "__session__/el"
    assert house.contexts.all()["__session__"] == {"el": address}
    assert "__session__" not in house.contexts.lasting()
    assert house.kept == []


async def test_what_shall_be_kept_is_kept_in_its_own_context(house: House) -> None:
    await house.register("team", "el", "a.db", persist=True)
    assert house.kept == [("team", "el", "a.db")]
    assert house.contexts.lasting()["team"] == ["plans", "el"]


async def test_to_register_the_same_again_opens_nothing(house: House) -> None:
    """scoot.el does it each time it starts."""
    for _ in range(2):
        assert (await house.register("default", "a", "a.db")).database == "a.db"
    assert len(house.put_) == 1
    await house.register("default", "a", "b.db")
    assert len(house.put_) == 2
    assert house.contexts.all()["default"]["a"] == Address(
        "sqlite", database="b.db", driver="sqlite"
    )


async def test_a_kept_one_may_be_replaced(house: House) -> None:
    await house.register("default", "old", "a.db")
    assert house.put_ == [("old", "sqlite")]


async def test_one_that_was_not_opened_is_not_there(house: House) -> None:
    house.failure = DatabaseUnavailable("gone")
    for name in ("new", "old"):
        with pytest.raises(DatabaseUnavailable, match="gone"):
            await house.register("default", name, "a.db", persist=True)
    with pytest.raises(UnknownConnection):
        house.contexts.key("default", "new")
    assert house.contexts.dialect("old") == "sqlite"
    assert house.kept == []


async def test_one_that_could_not_be_kept_is_there_until_the_end(house: House) -> None:
    with pytest.raises(NotKept, match="the disk is full"):
        await house.register("default", "new", "full", persist=True)
    assert house.contexts.key("default", "new") == "new"
    assert "new" not in house.contexts.lasting()["default"]


@pytest.mark.parametrize("place", [("default", "default"), ("team", "plans")])
async def test_nobody_replaces_the_servers_own(house: House, place: tuple[str, str]) -> None:
    with pytest.raises(Forbidden, match="the server's own"):
        await house.register(*place, "a.db")
    assert house.put_ == []


async def test_who_may_only_read_registers_nothing(house: House) -> None:
    with pytest.raises(Forbidden, match="only read"):
        await house.register("default", "a", "a.db", user=User("ada", read_only=True))
    assert house.put_ == []


async def test_there_may_be_so_many_and_no_more(house: House) -> None:
    for name in ("a", "b"):
        await house.register("default", name, "a.db")
    with pytest.raises(TooManyConnections, match="there are 3 registered"):
        await house.register("default", "c", "a.db")
    await house.register("default", "a", "b.db")  # in the place of one


@pytest.mark.parametrize(
    "place", [("default", "a/b"), ("a b", "a"), ("default", ""), ("", "a"), ("default", "..")]
)
async def test_names_must_be_names(house: House, place: tuple[str, str]) -> None:
    with pytest.raises(InvalidParams, match="must be letters"):
        await house.register(*place, "a.db")


async def test_a_url_that_is_refused_opens_nothing(house: House) -> None:
    with pytest.raises(InvalidParams, match="malformed"):
        await house.register("default", "a", "bad")
    assert house.put_ == []


async def test_of_many_who_register_at_once_each_is_judged_by_those_before(house: House) -> None:
    refused = []

    async def register(name: str) -> None:
        try:
            await house.register("default", name, "a.db")
        except TooManyConnections:
            refused.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(register, f"n{number}")
    assert len(refused) == 3
    assert len(house.put_) == 2


async def test_one_that_takes_long_to_open_holds_up_only_those_of_its_name(house: House) -> None:
    before, opens = house.put, trio.Event()

    async def put(key: str, *about: Any) -> None:
        if key == "slow":
            await opens.wait()
        await before(key, *about)

    house.put = put  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.register, "default", "slow", "a.db")
        await wait_all_tasks_blocked()
        nursery.start_soon(house.register, "default", "slow", "b.db")
        await wait_all_tasks_blocked()
        with trio.fail_after(5):
            await house.register("default", "a", "a.db")
            with pytest.raises(TooManyConnections):  # one is on its way
                await house.register("default", "b", "a.db")
        assert "slow" not in house.opened
        opens.set()
    assert house.contexts.all()["default"]["slow"] == Address(
        "sqlite", database="b.db", driver="sqlite"
    )


async def test_who_leaves_meanwhile_leaves_it_whole(house: House) -> None:
    with trio.CancelScope() as scope:
        before = house.put

        async def put(*about: Any) -> None:
            scope.cancel()
            await before(*about)

        house.put = put  # type: ignore[method-assign]
        await house.register("default", "a", "a.db")
    assert house.contexts.key("default", "a") == "a"
    assert house.contexts.all()["default"]["a"] is not None
