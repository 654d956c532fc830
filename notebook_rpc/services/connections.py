"""The databases a server knows, by name: opened when first asked for, closed in order.

A database that cannot be opened now is tried again by whoever asks next. One that another is put in
the place of stays open for those who use it, and is closed when the last of them is done.
"""

from __future__ import annotations

import logging
import math
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import trio

from notebook_rpc.driver import SupportsReadOnly
from notebook_rpc.errors import DatabaseError, NotebookError, NotSupported, UnknownConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from notebook_rpc.driver import Connection, Database
    from notebook_rpc.services.workers import Workers

logger = logging.getLogger(__name__)

Opener: TypeAlias = "Callable[[], Database]"
"""It may block, and is called on a worker."""


class _Held:
    """An open database, and how many hold it: connections, and whoever is just getting one.

    A connection that nobody refers to any more is closed: lanes close what they let go of. So it is
    counted by references, and nobody who passes connections on need know of it.
    """

    def __init__(self, name: str, database: Database, let_go: Callable[[], None]) -> None:
        """*let_go* is called, on the event loop, when nobody holds it."""
        self.name = name
        self.database = database
        self.holders = 0
        self._let_go = let_go
        self._token = trio.lowlevel.current_trio_token()

    async def connect(self, connect: Callable[[], Connection], workers: Workers) -> Connection:
        self.holders += 1
        try:
            connection = await workers.run(connect)
        except BaseException:
            self._release()
            raise
        # It may be called on any thread, and in the middle of anything. A class whose instances
        # know no such references has its database kept open until the server ends.
        with suppress(TypeError):
            weakref.finalize(connection, self._release_from_anywhere).atexit = False
        return connection

    def _release_from_anywhere(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._release)

    def _release(self) -> None:
        self.holders -= 1
        if not self.holders:
            self._let_go()


class Connections:
    """Where connections come from. A name is "NAME", or "CONTEXT/NAME" outside the default
    context."""

    def __init__(
        self,
        openers: Mapping[str, Opener],
        workers: Workers,
        *,
        read_only: bool = False,
    ) -> None:
        """*read_only* is how they open."""
        self._openers = dict(openers)
        self._read_only = read_only
        self._workers = workers
        self._opening = {name: trio.Lock() for name in openers}
        self._failed: dict[str, tuple[float, NotebookError]] = {}  # the last try: when, and how
        self._open: dict[str, _Held] = {}  # in the order in which they were opened
        self._replaced: list[_Held] = []
        self._changed = trio.Event()  # among these

    def __contains__(self, name: str) -> bool:
        return name in self._openers

    async def open(self, name: str) -> Database:
        """The database of that name, opened if it was not.

        Raises:
            UnknownConnection: there is none.
            DatabaseError: it cannot be opened now.
        """
        return (await self._held(name)).database

    async def put(self, name: str, opener: Opener) -> None:
        """Have what *opener* opens stand for *name* from now on. If it cannot be opened, nothing
        changes.

        Raises:
            NotebookError: it cannot be opened.
        """
        database = await self._workers.run(opener)
        logger.info("opened %s: %s", name, database.description)
        self._openers[name] = opener
        self._opening.setdefault(name, trio.Lock())
        before = self._open.pop(name, None)
        self._open[name] = _Held(name, database, self._look)
        if before is not None:
            self._replaced.append(before)
            self._look()

    def is_open(self, name: str) -> bool:
        return name in self._open

    async def run(self) -> None:
        """Close those that were replaced, as their users are done. Runs until it is cancelled."""
        while True:
            self._changed = trio.Event()
            for held in [each for each in self._replaced if not each.holders]:
                self._replaced.remove(held)
                with trio.CancelScope(shield=True):
                    await self._close(held)
            await self._changed.wait()

    async def _held(self, name: str) -> _Held:
        if name in self._open:
            return self._open[name]
        if name not in self._openers:
            raise UnknownConnection(f"there is no connection {name!r}")
        asked = trio.current_time()
        async with self._opening[name]:
            when, failure = self._failed.get(name, (-math.inf, None))
            if failure is not None and when >= asked:  # whoever has waited does not try again
                raise failure.again()
            if name not in self._open:
                opener = self._openers[name]
                database = await self._opened(name, opener)
                held = _Held(name, database, self._look)
                if name in self._open:  # another was put there meanwhile
                    self._replaced.append(held)
                    self._look()
                else:
                    self._open[name] = held
            return self._open[name]

    def _look(self) -> None:
        self._changed.set()

    async def _opened(self, name: str, opener: Opener) -> Database:
        try:
            database = await self._workers.run(opener)
        except NotebookError as exc:
            self._failed[name] = trio.current_time(), exc
            raise
        logger.info("opened %s: %s", name, database.description)
        return database

    async def connect(self, name: str, *, read_only: bool = False) -> Connection:
        """A new connection to the database of that name, which cannot write if *read_only*;
        raises as ``open`` does, and:

        Raises:
            NotSupported: *read_only*, and nothing in the engine would enforce it.
        """
        held = await self._held(name)
        database, connect = held.database, held.database.connect
        if read_only and isinstance(database, SupportsReadOnly):
            connect = database.connect_read_only
        elif read_only and not self._read_only:
            raise NotSupported(f"the driver of {name} has no read-only connections")
        return await held.connect(connect, self._workers)

    async def close(self) -> dict[str, NotebookError]:
        """Close all, the last opened first; returns those that failed. Cannot be cancelled. The
        connections must have been closed."""
        failures = {}
        with trio.CancelScope(shield=True):
            for held in reversed([*self._open.values(), *self._replaced]):
                failure = await self._close(held)
                if failure is not None:
                    failures[held.name] = failure
            self._open.clear()
            self._replaced.clear()
        return failures

    async def _close(self, held: _Held) -> NotebookError | None:
        try:
            await self._workers.run_beyond(held.database.close)  # nobody will try again
        except NotebookError as exc:
            logger.error("closing %s failed: %s", held.name, exc)
            return exc
        except Exception as exc:  # a task's top: a bug of one driver is no other database's end
            logger.exception("closing %s failed", held.name)
            failure = DatabaseError(f"{type(exc).__name__}: {exc}")
            failure.__cause__ = exc
            return failure
        logger.info("closed %s: %s", held.name, held.database.description)
        return None
