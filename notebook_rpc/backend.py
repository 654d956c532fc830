"""What stands behind the surfaces of one server: sessions and pools over its databases, what they
share, and how they all end."""

from __future__ import annotations

import logging
import math
import os
import secrets
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from notebook_rpc.errors import UnknownConnection
from notebook_rpc.meters import Meters
from notebook_rpc.model import DEFAULT
from notebook_rpc.sansio.budget import Budget
from notebook_rpc.services.cache import Cache
from notebook_rpc.services.catalog import Catalog
from notebook_rpc.services.channels import Channels
from notebook_rpc.services.notices import Notices
from notebook_rpc.services.pool import Pool, Pools
from notebook_rpc.services.probe import Probe
from notebook_rpc.services.queries import Keeping, Queries
from notebook_rpc.services.registry import Sessions
from notebook_rpc.services.sessions import Session
from notebook_rpc.services.versions import Versions
from notebook_rpc.services.watch import Limits, Watch
from notebook_rpc.settings import ConfigError
from notebook_rpc.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from notebook_rpc.model import Touched
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.services.connections import Connections, Opener
    from notebook_rpc.services.workers import Workers
    from notebook_rpc.settings import Settings

logger = logging.getLogger(__name__)

PATIENCE: Final = 1.0  # seconds in which the database has to answer for the server to be ready
IDLE: Final = 60.0  # seconds until a connection that nobody borrows is closed


class Right(NamedTuple):
    """What a connection is for."""

    connection: str
    read_only: bool


class Backend:
    """Made before it is opened; ``run`` must be running while it serves."""

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        engines: Mapping[str, str],
        workers: Workers,
    ) -> None:
        """*engines* has the name of each database's driver."""
        self.meters = Meters()
        self.budget = Budget(settings.max_unsent)
        self.channels = Channels()
        self.workers = workers
        self._settings = settings
        self._connections = connections
        self._seconds = settings.query_timeout or math.inf
        self._engines = dict(engines)  # others may come
        self._versions = Versions(self._engines.__getitem__)
        self._kept = Kept(settings, workers)
        self.notices = Notices(connections.open, workers, self.wrote)
        self.watch = Watch(
            self._lookers,
            self._engines.__getitem__,
            Limits(settings.max_subscriptions, settings.max_live),
            self.notices.wanted,
        )
        self.default = self._session(DEFAULT, False)
        self.readers = self._session(DEFAULT, True)  # connects when the first of them comes
        self.sessions = Sessions(
            self._session,
            partial(secrets.token_hex, 16),  # 128 bits are beyond guessing
            limit=settings.max_sessions,
            idle_seconds=settings.session_timeout,
        )
        self.probe = Probe(partial(connections.open, DEFAULT), PATIENCE)
        self._pools = Pools(self._pool)
        self.sharing = Sharing(
            settings,
            partial(connections.connect, DEFAULT),
            workers,
            partial(self.wrote, DEFAULT),
        )
        self._measure()

    def queries(self, connection: str, user: User, *, read_only: bool = False) -> Queries:
        """Statements of *user*, who may do with them what the token says, or only read.

        Raises:
            UnknownConnection: there is no such database.
        """
        pool = self._lender(connection, read_only=read_only or user.read_only)
        keeping = self._keeping(connection)
        return Queries(
            *(lambda client: pool().lane(client), lambda: pool().make(), self._seconds, keeping),
            set_aside=self._pools.set_aside,
            max_sql=self._settings.max_sql,
        )

    def catalog(self, connection: str, user: User) -> Catalog:
        """The tables as *user* may see them.

        Raises:
            UnknownConnection: there is no such database.
        """
        pool = self._lender(connection, read_only=user.read_only)
        return Catalog(lambda client: pool().lane(client), self._seconds)

    async def put(self, connection: str, opener: Opener, engine: str) -> None:
        """Have what *opener* opens be the database *connection*; *engine* is its driver's name.
        Whoever uses the one before may finish.

        Raises:
            NotebookError: it cannot be opened, and nothing has changed.
        """
        await self._connections.put(connection, opener)
        self._engines[connection] = engine
        self.notices.renew(connection)
        await self._pools.retire(lambda right: right.connection == connection)
        self.wrote(connection, None)

    def is_open(self, connection: str) -> bool:
        return self._connections.is_open(connection)

    def _lender(self, connection: str, *, read_only: bool) -> Callable[[], Pool]:
        """To be asked for each statement, as another database may get the name meanwhile."""
        if connection not in self._connections:  # before a pool is made for any word
            raise UnknownConnection(f"there is no connection {connection!r}")
        return partial(self._pools.pool, Right(connection, read_only))

    def wrote(self, connection: str, touched: Touched) -> None:
        """These tables may have changed, before anybody is told that they have."""
        self._versions.wrote(connection)
        self.watch.wrote(connection, touched)

    def _lookers(self, connection: str) -> Queries:
        """For live queries, which cannot write. All of a database are one client of its pool."""
        pool = self._lender(connection, read_only=True)
        max_sql = self._settings.max_sql
        return Queries(
            *(lambda _: pool().lane(self.watch), lambda: pool().make(), self._seconds),
            max_sql=max_sql,
        )

    def _changed(self, connection: str, *, read_only: bool) -> Callable[[Touched], None]:
        """What lanes report to. Those that cannot write have nothing to report, though some
        drivers count every statement as a write."""
        return (lambda _: None) if read_only else partial(self.wrote, connection)

    def _keeping(self, connection: str) -> Keeping:
        version = partial(self._versions.of, connection)
        return Keeping(self._kept.cache, connection, version, self._settings.cache_ttl)

    async def open(self) -> None:
        await self.default.open()
        await self.sharing.open()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """What goes on beside the requests, until cancelled. It has started when these may come."""
        async with trio.open_nursery() as nursery:
            for needed in (self.notices, self.watch):
                await nursery.start(needed.run)
            for each in (self.sessions, self._pools):
                nursery.start_soon(each.expire)
            for one in (self._connections, self.probe, self.sharing):
                nursery.start_soon(one.run)
            task_status.started()

    def interrupt(self) -> None:
        """Stop whatever is being done; no more calls are taken."""
        self.default.stop()
        self.readers.stop()
        self.sessions.stop()
        self._pools.stop()

    async def close(self) -> None:
        """Close all connections. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            async with AsyncExitStack() as stack:
                stack.push_async_callback(self._kept.close)
                for each in (self._pools, self.default, self.readers, self.sessions, self.sharing):
                    stack.push_async_callback(each.close)

    def _session(self, connection: str, read_only: bool) -> Session:
        return Session(
            partial(self._connections.connect, connection, read_only=read_only),
            self.workers,
            self._settings.max_page,
            self._seconds,
            self.meters,
            self.budget,
            self._changed(connection, read_only=read_only),
            self._settings.max_sql,
        )

    def _pool(self, right: Right) -> Pool:
        return Pool(
            partial(self._connections.connect, right.connection, read_only=right.read_only),
            self.workers,
            limit=self._settings.max_pool,
            idle_seconds=IDLE,
            observe=self.meters.call,
            changed=self._changed(right.connection, read_only=right.read_only),
        )

    def _measure(self) -> None:
        gauge, load = self.meters.gauge, self.workers.load
        gauge("sessions", "Sessions besides the default one.", lambda: len(self.sessions))
        gauge("calls_running", "Calls that a thread is at work on.", lambda: load().running)
        gauge("calls_waiting", "Calls that wait for a thread.", lambda: load().waiting)
        gauge("calls_queued", "Calls that wait for their session.", lambda: load().queued)
        gauge("threads", "Threads that there are.", lambda: load().threads)
        gauge("subscriptions", "Subscriptions to queries.", lambda: self.watch.subscriptions)
        gauge("live_queries", "Different queries that these are to.", lambda: len(self.watch))


class Kept:
    """The cache, made when somebody first wants something to be kept: who never does shall not
    find a folder of ours."""

    def __init__(self, settings: Settings, workers: Workers) -> None:
        """
        Raises:
            ConfigError: the folder that is asked for cannot be used.
        """
        self._folder = Path(settings.cache_dir)
        self._size = settings.cache_size
        self._workers = workers
        self._cache: Cache | None = None
        if not settings.cache_dir:
            home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
            self._folder = Path(home, "notebook-rpc")
        elif self._size:
            try:
                self._cache = Cache(self._folder, self._size, workers)
            except OSError as exc:
                reason = exc.strerror or exc
                raise ConfigError(f"cannot keep results in {self._folder}: {reason}") from exc

    def cache(self) -> Cache | None:
        """None if nothing is to be kept, or cannot be."""
        if self._cache is None and self._size:
            try:
                self._cache = Cache(self._folder, self._size, self._workers)
            except OSError as exc:
                logger.warning("no results are kept: %s", exc)
                self._size = 0
        return self._cache

    async def close(self) -> None:
        if self._cache is not None:
            await self._cache.close()
