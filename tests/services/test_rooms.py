"""Rooms: everyone in one ends with the same document, and nothing that was taken is lost."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notebook_rpc.errors import Busy, DatabaseError, DatabaseUnavailable, InvalidParams
from notebook_rpc.sansio.documents import Ask
from notebook_rpc.services.rooms import LAST_RETRY, LAST_TRIES, LATEST, QUIET, Limits, Rooms
from tests.peers import Inline, Peer, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.services.rooms import Room

UNLIMITED = Limits()


class Shelf(dict[str, bytes]):
    """A store, and the time of each save."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.saves: list[tuple[float, str]] = []
        self.broken = False
        self.open = trio.Event()
        self.open.set()

    async def load(self, room_id: str, /) -> bytes | None:
        self.loads.append(room_id)
        await self._wait()
        return self.get(room_id)

    async def save(self, room_id: str, snapshot: bytes, /) -> None:
        self.saves.append((trio.current_time(), room_id))
        await self._wait()
        self[room_id] = snapshot

    async def _wait(self) -> None:
        await self.open.wait()
        if self.broken:
            raise DatabaseUnavailable("on a bad day")


class House:
    """Rooms, what is in store, and the engine."""

    def __init__(self, limits: Limits = UNLIMITED, store: Shelf | None = None) -> None:
        self.store = Shelf() if store is None else store
        self.engine = Inline()
        self.rooms = Rooms(self.store, self.engine, limits)

    def stored(self, room_id: str = "r") -> object:
        return value(self.store[room_id])["entries"]


@asynccontextmanager
async def house(limits: Limits = UNLIMITED, store: Shelf | None = None) -> AsyncIterator[House]:
    opened = House(limits, store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened.rooms.run)
        yield opened
        nursery.cancel_scope.cancel()
    await opened.rooms.close()
    assert opened.engine.closed


class Client(Peer):
    """A peer in a room."""

    def __init__(self, number: int, room: Room, heard: list[bytes]) -> None:
        super().__init__(number, room.snapshot)
        self.room = room
        self.heard = heard

    async def say(self, **entries: int | str) -> None:
        self.write(**entries)
        await self.room.update(self.update())

    def listen(self) -> None:
        while self.heard:
            self.hear(self.heard.pop(0))
        self.update()  # what was heard is not ours to tell


@asynccontextmanager
async def joined(rooms: Rooms, number: int = 1, room_id: str = "r") -> AsyncIterator[Client]:
    heard: list[bytes] = []
    async with rooms.join(room_id, heard.append) as room:
        yield Client(number, room, heard)


# Those in a room


async def test_a_change_goes_to_all_others_in_the_room_as_it_was_sent() -> None:
    async with (
        house() as own,
        joined(own.rooms, 1) as anna,
        joined(own.rooms, 2) as bert,
        joined(own.rooms, 3) as carl,
        joined(own.rooms, 4, "elsewhere") as dora,
    ):
        anna.write(a=1)
        update = anna.update()
        await anna.room.update(update)
        assert bert.heard == carl.heard == [update]
        assert anna.heard == dora.heard == []
        await anna.room.update(update)  # again: there is nothing new in it
        assert bert.heard == [update]


async def test_who_comes_late_gets_all_there_was() -> None:
    async with house() as own, joined(own.rooms, 1) as anna:
        await anna.say(a=1)
        async with joined(own.rooms, 2) as bert:
            assert bert.value["entries"] == {"a": 1}
            await bert.say(b=2)
        anna.listen()
        assert anna.value["entries"] == {"a": 1, "b": 2}
        async with joined(own.rooms, 3) as carl:
            assert carl.value == anna.value


async def test_what_is_refused_reaches_nobody() -> None:
    async with (
        house() as own,
        joined(own.rooms, 1) as anna,
        joined(own.rooms, 2) as bert,
    ):
        await anna.say(a=1)
        bert.listen()
        for bad in (b"", b"garbage", anna.snapshot[:-1]):
            with pytest.raises(InvalidParams):
                await anna.room.update(bad)
            with pytest.raises(InvalidParams):
                await anna.room.seed(bad)
        anna.write(a=2)
        anna.update()  # lost
        anna.write(a=3)
        with pytest.raises(InvalidParams, match="not in this room"):
            await anna.room.update(anna.update())
        assert bert.heard == []
        await bert.say(b=1)
        async with joined(own.rooms, 3) as carl:
            assert carl.value["entries"] == {"a": 1, "b": 1}
    assert own.stored() == {"a": 1, "b": 1}


async def test_an_empty_room_is_seeded_by_the_first_to_do_so() -> None:
    async with (
        house() as own,
        joined(own.rooms, 1) as anna,
        joined(own.rooms, 2) as bert,
    ):
        anna.write(a=1)
        bert.write(b=1)
        assert await anna.room.seed(anna.snapshot)
        assert not await bert.room.seed(bert.snapshot)
        bert.listen()
        assert bert.value["entries"] == {"a": 1, "b": 1}  # his own is his alone
        async with joined(own.rooms, 3) as carl:
            assert carl.value["entries"] == {"a": 1}
        assert anna.heard == []


async def test_who_changed_the_document_elsewhere_brings_it_along() -> None:
    async with house() as own:
        async with joined(own.rooms, 1) as anna:
            await anna.say(a=1)
        async with joined(own.rooms, 2) as bert:
            await bert.say(b=1)
            anna.write(a=2)  # offline
            async with joined(own.rooms, 3) as again:
                assert await again.room.seed(anna.snapshot)
            bert.listen()
            assert bert.value["entries"] == {"a": 2, "b": 1}


async def test_whoever_has_left_hears_nothing_more() -> None:
    async with house() as own, joined(own.rooms, 1) as anna:
        async with joined(own.rooms, 2) as bert:
            pass
        await anna.say(a=1)
        assert bert.heard == []


async def test_one_load_for_all_who_come_at_once() -> None:
    store = Shelf()
    store["r"] = Peer(9).snapshot
    store.open = trio.Event()
    came: list[bytes] = []

    async def come(rooms: Rooms, leave: trio.Event) -> None:
        async with rooms.join("r", lambda _: None) as room:
            came.append(room.snapshot)
            await leave.wait()

    async with house(store=store) as own, trio.open_nursery() as nursery:
        leave = trio.Event()
        for _ in range(5):
            nursery.start_soon(come, own.rooms, leave)
        await trio.testing.wait_all_tasks_blocked()
        assert came == []
        store.open.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(came) == 5
        assert store.loads == ["r"]
        leave.set()


async def test_who_leaves_while_the_room_is_loaded_leaves_it_to_the_others() -> None:
    store = Shelf()
    anna = Peer(1)
    anna.write(a=1)
    store["r"] = anna.snapshot
    store.open = trio.Event()
    async with house(store=store) as own:
        with trio.move_on_after(0) as left:
            async with joined(own.rooms):
                pass
        assert left.cancelled_caught
        store.open.set()
        async with joined(own.rooms, 2) as bert:
            assert bert.value == anna.value
    assert len(own.rooms) == 0


async def test_a_room_that_cannot_be_loaded_can_be_when_the_database_is_back() -> None:
    store = Shelf()
    async with house(store=store) as own:
        store.broken = True
        with pytest.raises(DatabaseUnavailable):
            async with joined(own.rooms):
                pass
        store.broken = False
        async with joined(own.rooms) as anna:
            await anna.say(a=1)
        await trio.testing.wait_all_tasks_blocked()
        assert len(own.rooms) == 0


async def test_a_stored_state_that_cannot_be_read_is_not_overwritten() -> None:
    store = Shelf()
    store["r"] = b"of the next version"
    async with house(store=store) as own:
        with pytest.raises(DatabaseError, match="the stored state of the room cannot be read"):
            async with joined(own.rooms):
                pass
        async with joined(own.rooms, room_id="other") as anna:
            await anna.say(a=1)
    assert store["r"] == b"of the next version"
    assert own.stored("other") == {"a": 1}


# Saving


async def test_a_room_is_saved_when_it_has_been_quiet(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with house() as own, joined(own.rooms) as anna:
        await trio.sleep(100)
        assert own.store.saves == []
        begun = trio.current_time()
        for number in range(4):
            await anna.say(a=number)
            await trio.sleep(QUIET / 2)
        await trio.sleep(100)
        assert own.store.saves == [(begun + 1.5 * QUIET + QUIET, "r")]
        assert own.stored() == {"a": 3}
    assert len(own.store.saves) == 1  # and not again at the end


async def test_a_room_that_is_never_quiet_is_saved_all_the_same(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with house() as own, joined(own.rooms) as anna:
        begun = trio.current_time()
        for number in range(50):
            await anna.say(a=number)
            await trio.sleep(QUIET / 2)
        times = [time - begun for time, _ in own.store.saves]
        assert len(times) == 2
        assert times[0] == LATEST
        assert times[1] <= 2 * LATEST + QUIET


async def test_no_room_waits_for_another_to_be_quiet(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with (
        house() as own,
        joined(own.rooms, 1, "busy") as anna,
        joined(own.rooms, 2, "calm") as bert,
    ):
        begun = trio.current_time()
        await bert.say(b=1)
        for number in range(4):
            await anna.say(a=number)
            await trio.sleep(QUIET / 2)
        assert own.store.saves == [(begun + QUIET, "calm")]


async def test_a_room_is_saved_and_freed_when_the_last_has_left(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with house() as own:
        async with joined(own.rooms, 1) as anna:
            async with joined(own.rooms, 2):
                await anna.say(a=1)
            await trio.testing.wait_all_tasks_blocked()
            assert own.store.saves == []
        left = trio.current_time()
        await trio.testing.wait_all_tasks_blocked()
        assert own.store.saves == [(left, "r")]
        assert own.stored() == {"a": 1}
        assert len(own.rooms) == 0
        assert own.engine.asked[-1] is Ask.CLOSE


async def test_who_comes_back_during_that_save_finds_the_room(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with house() as own:
        async with joined(own.rooms, 1) as anna:
            await anna.say(a=1)
        own.store.open = trio.Event()
        await trio.testing.wait_all_tasks_blocked()
        async with joined(own.rooms, 2) as bert:
            await bert.say(b=1)
            own.store.open.set()
            await trio.testing.wait_all_tasks_blocked()
            assert own.stored() == {"a": 1}
            assert len(own.rooms) == 1
            await trio.sleep(2 * QUIET)
            assert own.stored() == {"a": 1, "b": 1}
    assert own.store.loads == ["r"]


async def test_a_save_that_fails_is_tried_again_ever_more_slowly(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with house() as own:
        async with joined(own.rooms) as anna:
            own.store.broken = True
            await anna.say(a=1)
        await trio.sleep(1000)
        assert len(own.rooms) == 1  # nobody else has what is in it
        times = [time for time, _ in own.store.saves]
        pauses = [later - time for time, later in pairwise(times)]
        assert pauses[:3] == [1, 2, 4]
        assert set(pauses[6:]) == {LAST_RETRY}
        own.store.broken = False
        await trio.sleep(LAST_RETRY)
        assert own.stored() == {"a": 1}
        assert len(own.rooms) == 0
    assert "cannot save room 'r' now: on a bad day" in caplog.text


async def test_after_a_save_that_works_the_next_is_tried_as_if_none_had_failed(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with house() as own, joined(own.rooms) as anna:
        own.store.broken = True
        await anna.say(a=1)
        await trio.sleep(100)
        own.store.broken = False
        await trio.sleep(LAST_RETRY)
        own.store.saves.clear()
        own.store.broken = True
        begun = trio.current_time() + QUIET
        await anna.say(a=2)
        await trio.sleep(5)
        assert own.store.saves == [(begun, "r"), (begun + 1, "r"), (begun + 3, "r")]
        own.store.broken = False


async def test_the_end_saves_what_has_changed_and_only_that(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with AsyncExitStack() as stack, house() as own:  # they leave after the end only
        clients = {
            name: await stack.enter_async_context(joined(own.rooms, number, name))
            for number, name in enumerate(["a", "b", "c"], 1)
        }
        await clients["a"].say(x=1)
        await clients["b"].say(x=2)
        ended = trio.current_time()
    assert own.store.saves == [(ended, "a"), (ended, "b")]
    assert own.stored("a") == {"x": 1}


async def test_a_save_that_the_end_interrupts_is_made_again(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with house() as own:
        async with joined(own.rooms) as anna:
            await anna.say(a=1)
        own.store.open = trio.Event()  # of which this save will never hear
        await trio.testing.wait_all_tasks_blocked()
        assert len(own.store.saves) == 1
        own.store.open = trio.Event()
        own.store.open.set()
    assert own.stored() == {"a": 1}


async def test_the_end_tries_again_and_says_what_is_lost(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with house() as own:
        async with joined(own.rooms) as anna:
            await anna.say(a=1)
        own.store.broken = True
    assert len(own.store.saves) == LAST_TRIES
    assert "room 'r' is not saved" in caplog.text


# Limits


async def test_a_room_that_is_full_takes_no_more_but_keeps_what_it_has() -> None:
    async with house(Limits(room_bytes=2000)) as own, joined(own.rooms) as anna:
        for number in range(40):
            anna.write(**{f"key{number}": secrets.token_hex(25)})
            try:
                await anna.room.update(anna.update())
            except InvalidParams as exc:
                assert str(exc) == "the room is full: its history may have 2000 bytes"  # noqa: PT017
                break
        assert 10 < number < 39
        with pytest.raises(InvalidParams, match="full"):
            await anna.room.seed(anna.snapshot + bytes(2000))
        async with joined(own.rooms, 2) as bert:
            assert set(bert.value["entries"]) == {f"key{each}" for each in range(number)}
            assert 1000 < len(bert.room.snapshot) < 2500


async def test_what_counts_is_the_room_as_it_is_stored() -> None:
    async with house(Limits(room_bytes=2000)) as own, joined(own.rooms) as anna:
        for number in range(30):
            await anna.say(**{f"key{number}": "x" * 100})  # which is stored in less
        async with joined(own.rooms, 2) as bert:
            assert len(bert.room.snapshot) < 2000


async def test_a_stored_room_has_to_find_a_place_too() -> None:
    store, anna = Shelf(), Peer(1)
    anna.write(a=secrets.token_hex(500))
    store["a"] = store["b"] = anna.snapshot
    async with house(Limits(all_bytes=len(anna.snapshot) * 3 // 2), store) as own:
        async with joined(own.rooms, 1, "a"):
            with pytest.raises(Busy, match="all rooms together"):
                async with joined(own.rooms, 2, "b"):
                    pass
        await trio.testing.wait_all_tasks_blocked()
        async with joined(own.rooms, 2, "b") as bert:
            assert bert.value == anna.value


async def test_all_rooms_together_may_be_so_large() -> None:
    async with house(Limits(all_bytes=3000)) as own, joined(own.rooms, 1, "a") as anna:
        await anna.say(a="x" * 1000)
        async with joined(own.rooms, 2, "b") as bert:
            await bert.say(b=1)
            with pytest.raises(Busy, match="all rooms together"):
                await bert.say(b="y" * 2000)
        await trio.testing.wait_all_tasks_blocked()
        await anna.say(a="z" * 1000)  # there is room again


async def test_so_many_rooms_may_be_in_use_and_no_more() -> None:
    async with house(Limits(rooms=2)) as own, joined(own.rooms, 1, "a"):
        async with joined(own.rooms, 2, "b"):
            with pytest.raises(Busy, match="2 rooms"):
                async with joined(own.rooms, 3, "c"):
                    pass
            async with joined(own.rooms, 3, "b"):
                pass
        await trio.testing.wait_all_tasks_blocked()
        async with joined(own.rooms, 3, "c"):
            pass


async def test_an_id_may_be_so_long_and_no_longer() -> None:
    async with house() as own:
        async with joined(own.rooms, room_id="x" * 256):
            pass
        with pytest.raises(InvalidParams, match="256 characters"):
            async with joined(own.rooms, room_id="x" * 257):
                pass


# Whatever happens, in whatever order

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["join", "leave", "listen", "offline"]), st.integers(0, 3)),
        st.tuples(st.just("write"), st.integers(0, 3)),
        st.tuples(st.just("type"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["restart", "kill", "crash", "garbage", "pause"]), st.just(0)),
    ),
    max_size=40,
)


class Story:
    """Four people, one room, and a server that is not always well."""

    def __init__(self) -> None:
        self.store = Shelf()
        self.people = [Peer(number) for number in range(1, 5)]
        self.inside: dict[int, tuple[AsyncExitStack, Room, list[bytes]]] = {}
        self.written: dict[str, int] = {}
        self.count = 0
        self.server: AsyncExitStack
        self.house: House

    async def start(self) -> None:
        self.server = AsyncExitStack()
        self.house = await self.server.enter_async_context(house(store=self.store))

    async def stop(self) -> None:
        for who in list(self.inside):
            await self.leave(who)
        await self.server.aclose()

    async def kill(self) -> None:
        """What was not saved is gone; but those who were there have it, and come back."""
        if not self.inside:
            await trio.testing.wait_all_tasks_blocked()  # it is saved
        survivors, saved = list(self.inside), dict(self.store)
        await self.stop()
        self.store.clear()
        self.store.update(saved)
        await self.start()
        for who in survivors:
            await self.join(who)

    async def join(self, who: int) -> None:
        if who not in self.inside:
            stack, heard = AsyncExitStack(), []  # type: ignore[var-annotated]
            room = await stack.enter_async_context(self.house.rooms.join("r", heard.append))
            self.inside[who] = stack, room, heard
            # As the client does: it offers what it has, and takes what there is.
            await room.seed(self.people[who].snapshot)
            self.people[who].hear(room.snapshot)
            self.people[who].update()

    async def leave(self, who: int) -> None:
        if who in self.inside:
            self.listen(who)
            stack, _, _ = self.inside.pop(who)
            await stack.aclose()

    def listen(self, who: int) -> None:
        if who in self.inside:
            for data in self.inside[who][2]:
                self.people[who].hear(data)
            self.inside[who][2].clear()

    async def write(self, who: int, *, type_: bool = False) -> None:
        if who not in self.inside:
            return
        self.listen(who)
        person = self.people[who]
        person.update()
        self.count += 1
        if type_:
            person.type(0, chr(ord("a") + who))
        else:
            person.write(**{f"{who}.{self.count}": self.count})
            self.written[f"{who}.{self.count}"] = self.count
        await self.inside[who][1].update(person.update())

    async def tell(self, what: str, who: int) -> None:
        match what:
            case "join":
                await self.join(who)
            case "leave":
                await self.leave(who)
            case "listen":
                self.listen(who)
            case "write":
                await self.write(who)
            case "type":
                await self.write(who, type_=True)
            case "offline":
                # Only of a document that is the room's: a stranger's is refused.
                if who not in self.inside and self.people[who].value["entries"]:
                    self.count += 1
                    self.people[who].write(**{f"{who}.{self.count}": self.count})
                    self.written[f"{who}.{self.count}"] = self.count
            case "restart":
                await self.stop()
                await self.start()
            case "crash":  # of the process for documents
                self.house.engine.lose()
            case "kill":
                await self.kill()
            case "garbage":
                for _, room, _ in self.inside.values():
                    with pytest.raises(InvalidParams):
                        await room.update(b"garbage")
            case "pause":
                await trio.sleep(QUIET * 1.5)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_all_end_with_the_same_document_and_nothing_is_lost(steps: list[tuple[str, int]]) -> None:
    async def tell() -> None:
        story = Story()
        await story.start()
        for what, who in steps:
            await story.tell(what, who)
        for who in range(4):
            await story.join(who)  # with what was done offline
        for who in range(4):
            story.listen(who)
        values = [person.value for person in story.people]
        await story.stop()
        assert all(each == values[0] for each in values)
        assert values[0]["entries"] == story.written
        if steps and story.count:
            assert value(story.store["r"]) == values[0]

    trio.run(tell, clock=trio.testing.MockClock(autojump_threshold=0))
