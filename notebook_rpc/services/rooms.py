"""Rooms: documents that clients share, each kept in memory while somebody is in it.

A change goes to all others in the room at once, and into storage a moment later. What it means
is ``documents.py``'s business, what is stored and where ``room_store.py``'s.

What it refuses: to begin anew where the stored state of a room cannot be read, as the next save
would be its end.
"""

from __future__ import annotations

import itertools
import logging
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import trio

from notebook_rpc.errors import Busy, DatabaseError, InvalidParams, NotebookError
from notebook_rpc.services.documents import Document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from notebook_rpc.services.documents import Engine

logger = logging.getLogger(__name__)

QUIET: Final = 1.0  # seconds without a change after which a room is saved
LATEST: Final = 10.0  # seconds after which it is saved all the same
FIRST_RETRY: Final = 1.0  # seconds until a save that failed is tried again; then twice as many
LAST_RETRY: Final = 60.0
LAST_TRIES: Final = 3  # of a save, when the server ends
LAST_PAUSE: Final = 0.2  # seconds between these


class Snapshots(Protocol):
    """Where rooms are stored."""

    async def load(self, room_id: str, /) -> bytes | None: ...
    async def save(self, room_id: str, snapshot: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """``room_bytes`` and ``all_bytes`` are of snapshots, whose documents take several times as
    much in the process that has them. ``rooms`` is how many may be in memory."""

    room_bytes: int = 16 << 20
    all_bytes: int = 256 << 20
    rooms: int = 1000
    id_length: int = 256


@dataclass(eq=False, slots=True)
class _Shared:
    """What all in a room have in common."""

    id: str
    document: Document
    lock: trio.Lock = field(default_factory=trio.Lock)
    members: dict[Room, Callable[[bytes], None]] = field(default_factory=dict)
    users: int = 0  # members, and those who wait to be
    loaded: bool = False
    unsaved_since: float = math.inf
    changed: float = -math.inf
    retry: float = -math.inf  # not before
    pause: float = FIRST_RETRY

    @property
    def unsaved(self) -> bool:
        return self.unsaved_since < math.inf

    @property
    def due(self) -> float:
        """When it wants to be saved or, where nobody is left in it, to go."""
        if not self.users:
            return self.retry
        if not self.unsaved:
            return math.inf
        return max(min(self.changed + QUIET, self.unsaved_since + LATEST), self.retry)


class Room:
    """A room as one of those in it sees it."""

    def __init__(self, rooms: Rooms, shared: _Shared) -> None:
        self._rooms = rooms
        self._shared = shared

    @property
    def snapshot(self) -> bytes:
        """All there was when we came, at least; whatever is not in it is delivered."""
        return self._shared.document.snapshot

    async def update(self, data: bytes, /) -> None:
        """Take a change, and have the others take it.

        Raises:
            InvalidParams: it is none, it builds on changes that the room does not have, or the
                room is full. Nothing has changed.
            Busy: all rooms together are.
        """
        async with self._shared.lock:
            await self._rooms.make_place(self._shared, len(data))
            if await self._shared.document.update(data):
                self._tell(data)

    async def seed(self, snapshot: bytes, /) -> bool:
        """Begin an empty room with *snapshot*. False: it has a state already, and *snapshot* is
        not a later one of the same document. Raises as ``update`` does."""
        async with self._shared.lock:
            # Of the same document, we have most of it.
            more = max(0, len(snapshot) - self._shared.document.size)
            await self._rooms.make_place(self._shared, more)
            news = await self._shared.document.seed(snapshot)
            if news:
                self._tell(news)
            return news is not None

    def _tell(self, data: bytes) -> None:
        for member, deliver in self._shared.members.items():
            if member is not self:
                deliver(data)
        self._rooms.note_change(self._shared)


class Rooms:
    """``run`` has to be running for rooms to be saved and freed; after it comes ``close``."""

    def __init__(self, snapshots: Snapshots, engine: Engine, limits: Limits) -> None:
        self._snapshots = snapshots
        self._engine = engine
        self._limits = limits
        self._rooms: dict[str, _Shared] = {}
        self._numbers = itertools.count()
        self._woken = trio.Event()

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._rooms)

    @asynccontextmanager
    async def join(self, room_id: str, deliver: Callable[[bytes], None], /) -> AsyncIterator[Room]:
        """Be in a room during the block. *deliver* is given the changes of all others, in the
        order in which the room has taken them; it neither waits nor raises.

        Raises:
            InvalidParams: the id is too long.
            Busy: there are as many rooms as there may be.
            DatabaseError: its state cannot be loaded.
        """
        shared = self._known(room_id)
        room = Room(self, shared)
        shared.users += 1
        try:
            async with shared.lock:
                if not shared.loaded:
                    await self._load(shared)
                await shared.document.settle()
                shared.members[room] = deliver
            yield room
        finally:
            shared.members.pop(room, None)
            shared.users -= 1
            if not shared.users:
                self._woken.set()

    async def run(self) -> None:
        """Save rooms when they have changed, and free those that are left. Runs until it is
        cancelled."""
        while True:
            self._woken = trio.Event()
            now = trio.current_time()
            due = [shared for shared in self._rooms.values() if shared.due <= now]
            for shared in due:
                await self._tend(shared)
            if not due:
                next_due = min((shared.due for shared in self._rooms.values()), default=math.inf)
                with trio.move_on_at(next_due):
                    await self._woken.wait()

    async def close(self) -> None:
        """Save what has changed, and end the engine. Nobody is in a room any more. Cannot be
        cancelled."""
        with trio.CancelScope(shield=True):
            for shared in list(self._rooms.values()):
                for attempt in range(LAST_TRIES):
                    if attempt and shared.unsaved:
                        await trio.sleep(LAST_PAUSE)
                    if shared.unsaved:
                        await self._save(shared)
                if shared.unsaved:
                    logger.error("room %r is not saved; its last changes are lost", shared.id)
            self._rooms.clear()
            await self._engine.close()

    async def make_place(self, shared: _Shared, size: int) -> None:
        """See that a change of *size* bytes may be taken. It may need more than that: how much, is
        known when it is settled, and the next change is refused, if any."""
        most = self._limits.room_bytes
        if shared.document.size + size > most:
            await shared.document.settle()
        if shared.document.size + size > most:
            raise InvalidParams(f"the room is full: its history may have {most} bytes")
        self._keep_within_all(size)

    def note_change(self, shared: _Shared) -> None:
        shared.changed = trio.current_time()
        if not shared.unsaved:
            shared.unsaved_since = shared.changed
            self._woken.set()

    def _keep_within_all(self, size: int) -> None:
        if sum(each.document.size for each in self._rooms.values()) + size > self._limits.all_bytes:
            raise Busy("all rooms together have as many bytes as they may")

    def _known(self, room_id: str) -> _Shared:
        if room_id in self._rooms:
            return self._rooms[room_id]
        if len(room_id) > self._limits.id_length:
            raise InvalidParams(f"a roomId may have {self._limits.id_length} characters")
        if len(self._rooms) >= self._limits.rooms:
            raise Busy(f"there are {len(self._rooms)} rooms in use, and no more may be")
        document = Document(self._engine, next(self._numbers))
        shared = self._rooms[room_id] = _Shared(room_id, document)
        return shared

    async def _load(self, shared: _Shared) -> None:
        stored = await self._snapshots.load(shared.id)
        self._keep_within_all(len(stored or b""))
        try:
            await shared.document.open(stored)
        except InvalidParams as exc:
            raise DatabaseError(f"the stored state of the room cannot be read: {exc}") from exc
        shared.loaded = True

    async def _tend(self, shared: _Shared) -> None:
        if shared.unsaved:
            await self._save(shared)
        if not shared.users and not shared.unsaved:
            del self._rooms[shared.id]
            await shared.document.close()

    async def _save(self, shared: _Shared) -> None:
        since = shared.unsaved_since
        shared.unsaved_since = math.inf  # a change from here on is another
        try:
            async with shared.lock:
                snapshot = await shared.document.settle()
            await self._snapshots.save(shared.id, snapshot)
        except NotebookError as exc:
            shared.unsaved_since = since
            shared.retry = trio.current_time() + shared.pause
            shared.pause = min(2 * shared.pause, LAST_RETRY)
            logger.warning("cannot save room %r now: %s", shared.id, exc)
        except BaseException:
            shared.unsaved_since = since
            raise
        else:
            shared.retry, shared.pause = -math.inf, FIRST_RETRY
