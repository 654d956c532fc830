"""Rooms in a DuckDB database, in tables that sqlrooms-server reads and writes too.

They are ``sync_rooms``, and ``ui_state``, which only clients use, by SQL of their own; both in a
namespace that is a schema of the main database, or the name of a file attached to it.

What it refuses: databases other than DuckDB, which have no namespace of either kind.
"""

from __future__ import annotations

from base64 import b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from notebook_rpc.errors import DatabaseError, NotebookError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notebook_rpc.driver import Connection
    from notebook_rpc.services.lanes import Lane

SECONDS: Final = 30.0  # for any one call

# Source: the tables that sqlrooms-server 0.1.2 makes.
TABLES: Final = {
    "ui_state": "key TEXT PRIMARY KEY, payload_json JSON, updated_at TIMESTAMPTZ DEFAULT now()",
    "sync_rooms": "room_id TEXT PRIMARY KEY, snapshot BLOB, updated_at TIMESTAMPTZ DEFAULT now()",
}


class RoomStore:
    """``rooms.Snapshots``. Every method may raise ``NotebookError``."""

    def __init__(self, lane: Lane, namespace: str, *, attached: bool) -> None:
        """*lane* is the store's own, and closed by ``close``. *namespace* is an attached database,
        or else a schema of the main one."""
        self._lane = lane
        self._namespace = _quoted(namespace)
        self._attached = attached
        self._schema = ""  # its full name: another database could have the name of our schema

    async def prepare(self) -> None:
        """Make the tables that are not there.

        Raises:
            DatabaseError: that cannot be done.
        """
        try:
            async with self._calling("prepare rooms"):
                await self._lane.work(self._prepare)
        except NotebookError as exc:
            raise DatabaseError(f"cannot make the tables for rooms: {exc}") from exc

    async def load(self, room_id: str, /) -> bytes | None:
        sql = f"SELECT snapshot FROM {self._schema}.sync_rooms WHERE room_id = ?"  # noqa: S608
        async with self._calling("load a room"):
            rows = await self._lane.work(lambda connection: _run(connection, sql, [room_id]))
        if not rows or rows[0][0] is None:
            return None
        ((snapshot,),) = rows
        if not isinstance(snapshot, bytes):
            raise DatabaseError("the stored state of the room is no BLOB")
        return snapshot

    async def save(self, room_id: str, snapshot: bytes, /) -> None:
        # Parameters are what JSON has, so bytes go as text.
        sql = (
            f"INSERT INTO {self._schema}.sync_rooms (room_id, snapshot, updated_at) "  # noqa: S608
            "VALUES (?, from_base64(?), now()) ON CONFLICT (room_id) DO UPDATE "
            "SET snapshot = excluded.snapshot, updated_at = excluded.updated_at"
        )

        def save(connection: Connection) -> None:
            _run(connection, sql, [room_id, b64encode(snapshot).decode()])

        async with self._calling("save a room"):
            await self._lane.work(save)

    async def close(self) -> None:
        """Close the lane."""
        await self._lane.close()

    @asynccontextmanager
    async def _calling(self, name: str) -> AsyncIterator[None]:
        lane = self._lane
        async with lane.turn(), lane.undone_if_interrupted(), lane.call(name, SECONDS):
            yield

    def _prepare(self, connection: Connection) -> None:
        if self._attached:
            self._schema = f"{self._namespace}.main"
        else:
            ((main,),) = _run(connection, "SELECT system.main.current_database()")
            self._schema = f"{_quoted(str(main))}.{self._namespace}"
            _run(connection, f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        for table, columns in TABLES.items():
            _run(connection, f"CREATE TABLE IF NOT EXISTS {self._schema}.{table} ({columns})")


def _run(
    connection: Connection, sql: str, parameters: list[object] | None = None
) -> Sequence[Sequence[object]]:
    result = connection.execute(sql, parameters)
    try:
        return result.fetch(2) if result.columns else ()
    finally:
        result.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
