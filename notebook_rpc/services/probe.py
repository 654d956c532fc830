"""Whether a database answers: asked when somebody wants to know, on a connection of its own.

However many want to know, one question is under way at most, so that a database which hangs
costs one thread. Busy is not dead: the question waits for no place among the calls, and any
answer will do, also that the statement is wrong.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc.errors import DatabaseUnavailable, NotebookError, QueryTimeout
from notebook_rpc.services.lanes import Lane
from notebook_rpc.services.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from notebook_rpc.driver import Connection, Database

logger = logging.getLogger(__name__)

QUESTION: Final = "SELECT 1"


class Probe:
    """``run`` has to be running for ``complaint`` to find anything out."""

    def __init__(self, database: Callable[[], Awaitable[Database]], seconds: float) -> None:
        """*seconds* is how long the database may think, and anybody wait for what it says."""
        self._database = database
        self._seconds = seconds
        self._workers = Workers(limit=1, spare=0)
        self._lane = Lane(self._connect, self._workers, lose=lambda: None)
        self._wanted = trio.Event()  # both are replaced by new ones when they have been set
        self._told = trio.Event()
        self._complaint: str | None = None
        self._silence = f"the database has not answered for {seconds:g} s"

    async def complaint(self) -> str | None:
        """Why the database cannot be used now, in one line; None if it can."""
        self._wanted.set()
        with trio.move_on_after(self._seconds):
            await self._told.wait()
            return self._complaint
        return self._silence

    async def run(self) -> None:
        """Ask whenever somebody wants to know, until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                self._complaint = await self._asked()
                # Whoever came while it was asked is content with the same answer.
                self._wanted = trio.Event()
                self._told.set()
                self._told = trio.Event()
        finally:
            await self._close()

    async def _asked(self) -> str | None:
        try:
            try:
                await self._ask()
            except DatabaseUnavailable:
                if self._complaint is not None:
                    raise
                await self._ask()  # what nobody has used for long may have been cut on the way
        except QueryTimeout:
            return self._silence
        except NotebookError as exc:
            return " ".join(str(exc).split())
        except Exception:  # a task's top: whatever the driver raises, the server is to go on
            logger.exception("a probe failed")
            return "internal error; the server's log has the details"
        return None

    async def _ask(self) -> None:
        async with self._lane.undone_if_interrupted(), self._lane.call("a probe", self._seconds):
            await self._lane.work(_answered)
            await trio.lowlevel.checkpoint_if_cancelled()  # that it was interrupted is no answer

    async def _connect(self) -> Connection:
        database = await self._database()
        return await self._workers.run(database.connect)

    async def _close(self) -> None:
        try:
            await self._lane.close()
        except Exception:  # as above
            logger.debug("cannot close the connection of the probe", exc_info=True)
        self._workers.close()


def _answered(connection: Connection) -> None:
    """On a worker."""
    try:
        connection.execute(QUESTION).close()
    except DatabaseUnavailable:
        raise
    except NotebookError as exc:  # Oracle, say, would have it FROM DUAL
        logger.debug("the database answers, if only with an error: %s", exc)
