"""Documents that clients share, as the settings want them: what is asked of the database for it,
and how its parts are joined.

``--meta-db`` alone makes the tables too, for the state that clients keep in ``ui_state`` by SQL.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from notebook_rpc.config import read_url
from notebook_rpc.services.documents import Process
from notebook_rpc.services.lanes import Lane
from notebook_rpc.services.room_store import RoomStore
from notebook_rpc.services.rooms import Limits, Rooms
from notebook_rpc.settings import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Touched
    from notebook_rpc.services.workers import Workers
    from notebook_rpc.settings import Settings


def properties(settings: Settings) -> dict[str, str]:
    """What the default database is opened with, for these settings.

    Raises:
        ConfigError: they do not go with the others, or what they need is not installed.
    """
    found = {}
    if settings.extensions:
        found["extensions"] = ",".join(settings.extensions)
    if settings.meta_db:
        found[f"attach.{settings.meta_namespace}"] = settings.meta_db
    asked = {"extensions": settings.extensions, "meta-db": settings.meta_db, "sync": settings.sync}
    flags = [f"--{name}" for name, value in asked.items() if value]
    if flags and read_url(settings.url)[0] != "duckdb":
        raise ConfigError(f"{flags[0]} needs a DuckDB database")
    if (settings.sync or settings.meta_db) and settings.read_only:
        raise ConfigError(f"{flags[-1]} writes into the database, and --read-only forbids that")
    if settings.sync and find_spec("loro") is None:
        raise ConfigError("--sync needs Loro; pip install 'notebook_rpc[sync]' brings it")
    return found


class Sharing:
    """``run`` must be running while it serves, and is over when it is closed."""

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[], Awaitable[Connection]],
        workers: Workers,
        changed: Callable[[Touched], None],
    ) -> None:
        """*connect* is to the default database, opened with ``properties``; *changed* is as of
        ``Lane``."""
        self.rooms: Rooms | None = None
        self._store: RoomStore | None = None
        if settings.sync or settings.meta_db:
            lane = Lane(connect, workers, lambda: None, changed=changed)
            attached = bool(settings.meta_db)
            self._store = RoomStore(lane, settings.meta_namespace, attached=attached)
            if settings.sync:
                self.rooms = Rooms(self._store, Process(), Limits())

    async def open(self) -> None:
        """Raises DatabaseError: the tables cannot be made."""
        if self._store is not None:
            await self._store.prepare()

    async def run(self) -> None:
        if self.rooms is not None:
            await self.rooms.run()

    async def close(self) -> None:
        """Save what is not saved. Cannot be cancelled."""
        if self.rooms is not None:
            await self.rooms.close()
        if self._store is not None:
            await self._store.close()
