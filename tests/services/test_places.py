"""Places: a share for each client, and turns among those who wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.errors import Busy
from notebook_rpc.services import places
from notebook_rpc.services.places import SHARE, Places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.services.places import Place


class Crowd:
    """Callers who take a place and keep it until they are told to go."""

    def __init__(self, limit: int, nursery: trio.Nursery) -> None:
        self.places = Places(limit)
        self.inside: list[str] = []
        self._nursery = nursery
        self._go: dict[str, trio.Event] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._clients: dict[str, object] = {}
        self._places: dict[str, Place] = {}

    async def set_aside(self, *names: str) -> None:
        for name in names:
            self._places[name].set_aside()
            await wait_all_tasks_blocked()

    def is_aside(self, name: str) -> bool:
        return self._places[name].aside

    async def come(self, *names: str) -> None:
        """A name is a client's letter and a number."""
        for name in names:
            self._nursery.start_soon(self._take, name)
            await wait_all_tasks_blocked()

    async def go(self, *names: str) -> None:
        for name in names:
            self.go_at_once(name)
            await wait_all_tasks_blocked()

    def go_at_once(self, name: str) -> None:
        self._go[name].set()

    async def give_up(self, *names: str) -> None:
        for name in names:
            self._scopes[name].cancel()
        await wait_all_tasks_blocked()

    async def _take(self, name: str) -> None:
        self._go[name] = trio.Event()
        client = self._clients.setdefault(name[0], object())
        with trio.CancelScope() as self._scopes[name]:
            async with self.places.place(client) as self._places[name]:
                self.inside.append(name)
                try:
                    await self._go[name].wait()
                finally:
                    self.inside.remove(name)


@pytest.fixture
async def crowd(nursery: trio.Nursery) -> Crowd:
    return Crowd(8, nursery)


async def test_one_client_has_a_share_at_most(crowd: Crowd) -> None:
    await crowd.come("a1", "a2", "a3", "b1")
    assert crowd.inside == ["a1", "a2", "b1"]
    await crowd.go("a1")
    assert crowd.inside == ["a2", "b1", "a3"]


async def test_there_are_no_more_places_than_places(crowd: Crowd) -> None:
    names = [f"{client}{number}" for number in (1, 2) for client in "abcde"]
    await crowd.come(*names)
    assert len(crowd.inside) == 8
    assert crowd.places.waiting == 2


async def test_who_waits_gets_in_in_turn_by_client(crowd: Crowd) -> None:
    await crowd.come("a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2")
    await crowd.come("a3", "a4", "a5", "e1", "e2", "f1")
    for leaving, entering in [("c1", "e1"), ("c2", "f1"), ("d1", "e2")]:
        await crowd.go(leaving)
        assert crowd.inside[-1] == entering
    await crowd.go("d2")
    assert len(crowd.inside) == 7  # client a has its share
    await crowd.go("a1")
    assert crowd.inside[-1] == "a3"


async def test_who_gives_up_leaves_his_turn_to_others(crowd: Crowd) -> None:
    await crowd.come("a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2", "e1", "f1")
    await crowd.give_up("e1")
    await crowd.go("a1")
    assert crowd.inside[-1] == "f1"
    assert crowd.places.waiting == 0


async def test_who_is_cancelled_with_his_turn_in_hand_gives_it_back(crowd: Crowd) -> None:
    await crowd.come("a1", "a2", "a3", "a4")
    crowd.go_at_once("a1")
    await crowd.give_up("a3")
    assert crowd.inside == ["a2", "a4"]


async def test_not_everybody_may_wait(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_WAITING", 1)
    await crowd.come("a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2", "e1")
    with pytest.raises(Busy, match="1 requests wait"):
        async with crowd.places.place("f"):
            pytest.fail("there was no room")
    assert crowd.places.clients == 5


async def test_what_is_set_aside_is_in_nobody_s_way_but_its_client_s(crowd: Crowd) -> None:
    await crowd.come("a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2", "a3", "e1", "e2", "f1")
    await crowd.set_aside("a1", "a1")
    assert crowd.inside[8:] == ["e1"]
    await crowd.set_aside("a2")
    assert crowd.inside[8:] == ["e1", "f1"]
    await crowd.go("a1")
    assert crowd.inside[7:] == ["e1", "f1"]  # its place was given away before
    await crowd.go("f1")
    assert crowd.inside[7:] == ["e1", "a3"]


async def test_no_more_are_aside_than_there_are_places(nursery: trio.Nursery) -> None:
    crowd = Crowd(2, nursery)
    await crowd.come("a1", "b1", "c1", "d1", "e1")
    await crowd.set_aside("a1", "b1", "c1", "d1")
    assert crowd.inside == ["a1", "b1", "c1", "d1"]
    await crowd.go("a1")
    assert crowd.inside == ["b1", "c1", "d1"]
    await crowd.set_aside("d1")
    assert crowd.inside == ["b1", "c1", "d1", "e1"]


async def test_who_waits_is_not_forgotten_when_his_client_has_nothing(
    nursery: trio.Nursery,
) -> None:
    crowd = Crowd(1, nursery)
    await crowd.come("a1", "b1", "a2", "a3")
    await crowd.go("a1")
    await crowd.go("a2")
    assert crowd.inside == ["b1"]
    await crowd.go("b1")
    assert crowd.inside == ["a3"]


def moves() -> st.SearchStrategy[list[tuple[str, int]]]:
    return st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), max_size=40)


@given(limit=st.integers(1, 9), moves=moves())
def test_whatever_happens_all_places_are_used_and_come_back(
    limit: int, moves: list[tuple[str, int]]
) -> None:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            crowd = Crowd(limit, nursery)
            numbers: Iterator[int] = iter(range(1000))
            present: list[str] = []
            for client, what in moves:
                mine = [name for name in present if name[0] == client]
                if what > 4 and mine and mine[0] in crowd.inside:
                    await crowd.set_aside(mine[0])
                elif what > 1 or not mine:
                    name = f"{client}{next(numbers)}"
                    present.append(name)
                    await crowd.come(name)
                else:
                    present.remove(mine[0])
                    await (crowd.go if what else crowd.give_up)(mine[0])
                share = max(1, limit // SHARE)
                inside = {each: [n for n in crowd.inside if n[0] == each] for each in "abc"}
                assert all(len(names) <= share for names in inside.values())
                aside = [name for name in crowd.inside if crowd.is_aside(name)]
                assert len(aside) <= limit
                assert len(crowd.inside) - len(aside) <= limit
                for each in "abc":  # nobody waits without a reason
                    waits = len([n for n in present if n[0] == each]) - len(inside[each])
                    taken = len(crowd.inside) - len(aside)
                    full = taken == limit or len(inside[each]) == share
                    assert not waits or full
            await crowd.give_up(*present)
            assert crowd.places.waiting == 0
            assert crowd.places.free == crowd.places.may_be_aside == limit
            assert crowd.places.clients == 0
            nursery.cancel_scope.cancel()

    trio.run(run)
