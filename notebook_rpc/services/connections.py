"""The databases a server knows, by name: opened when first asked for, closed in order.

A database that cannot be opened now is tried again by whoever asks next.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from notebook_rpc.driver import SupportsReadOnly
from notebook_rpc.errors import NotebookError, NotSupported, UnknownConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from notebook_rpc.driver import Connection, Database
    from notebook_rpc.services.workers import Workers

logger = logging.getLogger(__name__)


class Connections:
    """Where connections come from. A name is "NAME", or "CONTEXT/NAME" outside the default
    context."""

    def __init__(
        self,
        openers: Mapping[str, Callable[[], Database]],
        workers: Workers,
        *,
        read_only: bool = False,
    ) -> None:
        """*openers* may block, and are called on a worker. *read_only* is how they open."""
        self._openers = openers
        self._read_only = read_only
        self._workers = workers
        self._opening = {name: trio.Lock() for name in openers}
        self._failed: dict[str, tuple[float, NotebookError]] = {}  # the last try: when, and how
        self._open: dict[str, Database] = {}  # in the order in which they were opened

    def __contains__(self, name: str) -> bool:
        return name in self._openers

    async def open(self, name: str) -> Database:
        """The database of that name, opened if it was not.

        Raises:
            UnknownConnection: there is none.
            DatabaseError: it cannot be opened now.
        """
        if name in self._open:
            return self._open[name]
        if name not in self._openers:
            raise UnknownConnection(f"there is no connection {name!r}")
        asked = trio.current_time()
        async with self._opening[name]:
            when, failure = self._failed.get(name, (-math.inf, None))
            if failure is not None and when >= asked:  # whoever has waited does not try again
                raise type(failure)(str(failure)) from failure
            if name not in self._open:
                self._open[name] = await self._opened(name)
            return self._open[name]

    async def _opened(self, name: str) -> Database:
        try:
            database = await self._workers.run(self._openers[name])
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
        database = await self.open(name)
        connect = database.connect
        if read_only and isinstance(database, SupportsReadOnly):
            connect = database.connect_read_only
        elif read_only and not self._read_only:
            raise NotSupported(f"the driver of {name} has no read-only connections")
        return await self._workers.run(connect)

    async def close(self) -> dict[str, NotebookError]:
        """Close all, the last opened first; returns those that failed. Cannot be cancelled. The
        connections must have been closed."""
        failures = {}
        with trio.CancelScope(shield=True):
            for name, database in reversed(self._open.items()):
                try:
                    await self._workers.run(database.close)
                except NotebookError as exc:
                    logger.error("closing %s failed: %s", name, exc)
                    failures[name] = exc
                else:
                    logger.info("closed %s: %s", name, database.description)
            self._open.clear()
        return failures
