"""What others announce: heard while it is wanted, and never without a look at what came before."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from notebook_rpc.errors import DatabaseUnavailable
from notebook_rpc.services import notices
from notebook_rpc.services.notices import Notices
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.fake import FakeDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.driver import Database
    from notebook_rpc.model import Touched


class Listener:
    def __init__(self) -> None:
        self.lost = self.closed = False
        self.failure: Exception = DatabaseUnavailable("the server has gone")
        self._texts: list[str] = []
        self._ours, self._theirs = socket.socketpair()

    def say(self, *texts: str) -> None:
        self._texts += texts
        self._theirs.send(b".")

    def lose(self) -> None:
        self.lost = True
        self._theirs.close()

    def fail(self, failure: Exception) -> None:
        self.failure = failure
        self.lose()

    def fileno(self) -> int:
        return self._ours.fileno()

    def take(self) -> list[str]:
        if self.lost:
            raise self.failure
        self._ours.recv(100)
        texts, self._texts = self._texts, []
        return texts

    def close(self) -> None:
        self.closed = True
        self._ours.close()
        self._theirs.close()


class Announcing(FakeDatabase):
    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Listener] = []
        self.tries = 0

    def listen(self, channel: str, /) -> Listener:
        self.tries += 1
        self.arrive("listen")
        assert channel == "notebook_rpc"
        self.listeners.append(Listener())
        return self.listeners[-1]


class Room:
    """Two databases, and whatever is told of them."""

    def __init__(self, workers: Workers) -> None:
        self.mute, self.announcing = FakeDatabase(), Announcing()
        self.told: list[tuple[str, Touched]] = []
        self._tell, self._heard = trio.open_memory_channel[None](100)
        self.notices = Notices(self.open, workers, self.wrote)

    async def open(self, name: str) -> Database:
        await trio.lowlevel.checkpoint()
        return self.mute if name == "mute" else self.announcing

    def wrote(self, name: str, touched: Touched) -> None:
        self.told.append((name, touched))
        self._tell.send_nowait(None)

    async def hear(self) -> tuple[str, set[str] | None]:
        """What is told next."""
        with trio.fail_after(5):
            await self._heard.receive()
        name, touched = self.told[-1]
        return name, None if touched is None else set(touched)


@pytest.fixture
async def room(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setattr(notices, "SOONEST", 0.001)
    workers = Workers(limit=4, spare=2)
    room = Room(workers)
    await nursery.start(room.notices.run)
    yield room
    nursery.cancel_scope.cancel()
    for listener in room.announcing.listeners:
        if not listener.closed:
            listener.close()
    workers.close()


@asynccontextmanager
async def listening(room: Room) -> AsyncIterator[Listener]:
    """What came before is told of, once."""
    with room.notices.wanted("loud"):
        assert await room.hear() == ("loud", None)
        yield room.announcing.listeners[-1]


async def closed(listener: Listener) -> None:
    with trio.fail_after(5):
        while not listener.closed:
            await trio.lowlevel.checkpoint()


async def test_what_is_announced_is_told(room: Room) -> None:
    async with listening(room) as listener:
        listener.say("public.t", "public.u")
        assert await room.hear() == ("loud", {"public.t", "public.u"})
        listener.say("public.t")
        assert await room.hear() == ("loud", {"public.t"})


async def test_without_a_text_it_may_be_any_table(room: Room) -> None:
    async with listening(room) as listener:
        listener.say("public.t", "")
        assert await room.hear() == ("loud", None)


async def test_nothing_new_is_not_told(room: Room) -> None:
    async with listening(room) as listener:
        listener.say()
        listener.say("after that")
        assert await room.hear() == ("loud", {"after that"})
    assert len(room.told) == 2


async def test_a_database_that_announces_nothing_is_left_alone(room: Room) -> None:
    with room.notices.wanted("mute"):
        async with listening(room):
            pass
    assert room.told == [("loud", None)]
    assert room.mute.connections == []


async def test_it_listens_once_for_all_and_as_long_as_anybody_wants_it(room: Room) -> None:
    async with listening(room) as listener:
        with room.notices.wanted("loud"):
            pass
        listener.say("still")
        assert await room.hear() == ("loud", {"still"})
    await closed(listener)
    assert len(room.announcing.listeners) == 1
    async with listening(room) as another:
        assert another is not listener


async def test_what_was_lost_is_listened_to_again(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(room) as listener:
        listener.lose()
        assert await room.hear() == ("loud", None)
        assert listener.closed
        room.announcing.listeners[-1].say("here again")
        assert await room.hear() == ("loud", {"here again"})
    assert "cannot listen to loud, and try again: the server has gone" in caplog.text


async def test_so_is_what_was_not_there_at_first(room: Room) -> None:
    room.announcing.failures["listen"] = DatabaseUnavailable("not yet")
    with room.notices.wanted("loud"):
        with trio.fail_after(5):
            while room.announcing.tries < 2:
                await trio.lowlevel.checkpoint()
        assert room.told == []
        room.announcing.failures.clear()
        assert await room.hear() == ("loud", None)


async def test_another_database_of_the_name_is_listened_to_instead(room: Room) -> None:
    room.notices.renew("loud")  # to which nobody listens
    async with listening(room) as listener:
        room.announcing = Announcing()
        room.notices.renew("loud")
        assert await room.hear() == ("loud", None)
        assert listener.closed
        room.announcing.listeners[-1].say("new")
        assert await room.hear() == ("loud", {"new"})


async def test_a_driver_that_fails_as_none_may_is_tried_again(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(room) as listener:
        listener.fail(RuntimeError("a bug"))
        assert await room.hear() == ("loud", None)
        assert listener.closed
    assert "RuntimeError: a bug" in caplog.text
