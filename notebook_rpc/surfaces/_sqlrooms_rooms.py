"""What a SQLRooms client says to its room, carried out in order by one task of its own.

A room is a document that clients share; what is in it is ``Sync``'s business, and the bytes of
an update or a snapshot mean nothing here. A client is in one room at a time: a binary update
does not say which room it is for.
"""

from __future__ import annotations

import binascii
import logging
import math
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio

from notebook_rpc.errors import Forbidden, InvalidParams, InvalidRequest, NotebookError
from notebook_rpc.sansio import sqlrooms
from notebook_rpc.surfaces._sqlrooms_queries import UnderWay

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.web import WebSocket

Said: TypeAlias = "sqlrooms.Join | sqlrooms.Seed | bytes"

logger = logging.getLogger(__name__)

BASE64: Final = 192 * 1024  # bytes that are encoded at a time; a multiple of 3


class Room(Protocol):
    """``services.rooms.Room`` explains each."""

    @property
    def snapshot(self) -> bytes: ...
    async def update(self, data: bytes, /) -> None: ...
    async def seed(self, snapshot: bytes, /) -> bool: ...


class Sync(Protocol):
    """Where the rooms are; *deliver* is given the others' updates, and never waits."""

    def join(
        self, room_id: str, deliver: Callable[[bytes], None], /
    ) -> AbstractAsyncContextManager[Room]: ...


class Rooms:
    """One client's way in and out of its rooms."""

    def __init__(
        self,
        socket: WebSocket,
        sync: Sync,
        told: Callable[[NotebookError], str],
        *,
        client_snapshots: bool,
        read_only: bool,
    ) -> None:
        """*told* makes an error's message."""
        self._socket = socket
        self._sync = sync
        self._told = told
        self._client_snapshots = client_snapshots
        self._read_only = read_only
        # Without a bound of its own: whoever says something has found room for it before.
        self._say, self._hear = trio.open_memory_channel[tuple[Said, UnderWay]](math.inf)
        self._id = ""
        self._room: Room | None = None

    def say(self, said: Said, under_way: UnderWay) -> None:
        """Have *said* carried out after all that was said before; then *under_way* ends."""
        self._say.send_nowait((said, under_way))

    async def run(self) -> None:
        async with AsyncExitStack() as membership:
            async for said, under_way in self._hear:
                with under_way:
                    await self._answer(said, membership)

    async def _answer(self, said: Said, membership: AsyncExitStack) -> None:
        try:
            await self._carry_out(said, membership)
        except NotebookError as exc:
            await self._socket.send(self._told(exc))
        except Exception:  # a bug of ours: the client must get its answer, and go on
            logger.exception("a room failed")
            bug = NotebookError("internal error; the server's log has the details")
            await self._socket.send(self._told(bug))

    async def _carry_out(self, said: Said, membership: AsyncExitStack) -> None:
        if isinstance(said, sqlrooms.Join):
            await self._join(_named(said.room_id), membership)
        elif self._room is None:
            raise InvalidRequest("join a room first")
        elif self._read_only:
            raise Forbidden("a read-only user changes no room")
        elif isinstance(said, sqlrooms.Seed):
            await self._seed(said, self._room)
        else:
            await self._room.update(said)
            # The protocol has everyone in the room hear it, and its sender is.
            await self._socket.send(said)
            await self._socket.send(sqlrooms.update_ack(self._id))

    async def _join(self, room_id: str, membership: AsyncExitStack) -> None:
        self._room = None
        await membership.aclose()
        joining = self._sync.join(room_id, self._socket.post)
        self._id, self._room = room_id, await membership.enter_async_context(joining)
        await self._socket.send(sqlrooms.joined(room_id))
        await self._send_snapshot(self._room.snapshot)

    async def _send_snapshot(self, snapshot: bytes) -> None:
        begins = range(0, max(len(snapshot), 1), BASE64)
        parts = (
            binascii.b2a_base64(snapshot[begin : begin + BASE64], newline=False) for begin in begins
        )
        opening = sqlrooms.snapshot_opening(self._id)
        if len(begins) == 1:
            whole = opening + next(parts) + sqlrooms.CLOSING
            await self._socket.send(whole.decode())
            return
        async with self._socket.sending(text=True) as send:
            await send([opening])
            for part in parts:
                await send([part])
            await send([sqlrooms.CLOSING])

    async def _seed(self, said: sqlrooms.Seed, room: Room) -> None:
        if _named(said.room_id) != self._id:
            raise InvalidRequest("join the room first")
        if not self._client_snapshots:
            raise InvalidRequest("client snapshots disabled")
        if not await room.seed(await _decoded(said.data)):
            raise InvalidRequest("room already has state; snapshot rejected")
        await self._socket.send(sqlrooms.snapshot_ack(self._id))


def _named(room_id: str | None) -> str:
    name = (room_id or "").strip()
    if not name:
        raise InvalidParams("missing roomId")
    return name


async def _decoded(data: str | None) -> bytes:
    """The bytes of base64, decoded without holding up the event loop.

    Raises:
        InvalidParams: there is none, or it is something else.
    """
    if data is None:
        raise InvalidParams("missing data")
    step = BASE64 // 3 * 4
    decoded = bytearray()
    for begin in range(0, len(data), step):
        try:
            decoded += binascii.a2b_base64(data[begin : begin + step], strict_mode=True)
        except ValueError as exc:
            raise InvalidParams(f"invalid snapshot: {exc}") from None
        if len(decoded) % BASE64 and begin + step < len(data):  # it has an end in its middle
            raise InvalidParams("invalid snapshot: Excess data after padding")
        await trio.lowlevel.checkpoint()
    return bytes(decoded)
