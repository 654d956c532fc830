"""What other clients of a database announce: that they have written.

The server listens to a database for as long as somebody wants to know of it. What was written
before it listened, or while it did not because the connection was lost, it cannot know; so each
time it begins to listen, anything may have been written.

What it refuses: to believe what it hears. A notice makes somebody look again, and does no more.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc.driver import SupportsNotices
from notebook_rpc.errors import NotebookError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from notebook_rpc.driver import Database, Listener
    from notebook_rpc.model import Touched
    from notebook_rpc.services.workers import Workers

logger = logging.getLogger(__name__)

CHANNEL: Final = "notebook_rpc"
SOONEST, LATEST = 1.0, 30.0  # seconds until a connection that was lost is tried again


class _Ear:
    """At one database."""

    def __init__(self) -> None:
        self.wanted = 0
        self.scope = trio.CancelScope()
        self.hearing = trio.CancelScope()


class Notices:
    """``run`` must be running while anything is to be heard."""

    def __init__(
        self,
        database: Callable[[str], Awaitable[Database]],
        workers: Workers,
        wrote: Callable[[str, Touched], None],
    ) -> None:
        """*database* opens one by its name; *wrote* is told of what was heard there."""
        self._database = database
        self._workers = workers
        self._wrote = wrote
        self._ears: dict[str, _Ear] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until it is cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    @contextmanager
    def wanted(self, name: str) -> Iterator[None]:
        """Listen to the database of that name, if it announces anything, during the block."""
        assert self._nursery is not None  # noqa: S101  # ``run`` is running
        ear = self._ears.get(name)
        if ear is None:
            self._ears[name] = ear = _Ear()
            self._nursery.start_soon(self._listen, name, ear)
        ear.wanted += 1
        try:
            yield
        finally:
            ear.wanted -= 1
            if not ear.wanted:
                ear.scope.cancel()
                del self._ears[name]

    def renew(self, name: str) -> None:
        """Another database has that name now: listen to it instead."""
        if name in self._ears:
            self._ears[name].hearing.cancel()

    async def _listen(self, name: str, ear: _Ear) -> None:
        pause = SOONEST
        with ear.scope:
            while True:
                with trio.CancelScope() as ear.hearing:
                    try:
                        async with self._listener(name) as listener:
                            if listener is None:  # it announces nothing
                                await trio.sleep_forever()
                            pause = SOONEST
                            self._wrote(name, None)
                            await self._hear(name, listener)
                    except NotebookError as exc:
                        logger.warning("cannot listen to %s, and try again: %s", name, exc)
                    except Exception:  # a task's top: whatever it is, this database alone is mute
                        logger.exception("cannot listen to %s, and try again", name)
                    await trio.sleep(pause)
                    pause = min(2 * pause, LATEST)

    async def _hear(self, name: str, listener: Listener) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener.fileno())
            heard = await self._workers.run(listener.take)
            if heard:
                self._wrote(name, None if "" in heard else frozenset(heard))

    @asynccontextmanager
    async def _listener(self, name: str) -> AsyncIterator[Listener | None]:
        database = await self._database(name)
        if not isinstance(database, SupportsNotices):
            yield None
            return
        listener = await self._workers.run(partial(database.listen, CHANNEL))
        try:
            yield listener
        finally:
            with trio.CancelScope(shield=True):
                await self._workers.run_beyond(listener.close)
