"""All sessions of a server by their id, and the end of those that nobody uses any more."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc.errors import TooManySessions, UnknownSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.services.sessions import Session

logger = logging.getLogger(__name__)

SHOWN: Final = 6  # characters of an id in the log: enough to follow it, too few to use it


@dataclass(slots=True)
class _Entry:
    session: Session
    user: User  # whose it is
    users: int  # requests that are being answered with it
    used: float  # when the last of them ended, on Trio's clock


class Sessions:
    """The sessions that clients made for themselves. The server's default one is not here.

    A session belongs to the user who made it; for all others there is none of that id. Where
    nobody needs a token, whoever knows an id may use it, so ids must be beyond guessing.
    """

    def __init__(
        self,
        make: Callable[[str, bool], Session],
        new_id: Callable[[], str],
        *,
        limit: int,
        idle_seconds: float,
    ) -> None:
        """*make* gets the name of the connection the session shall have, and whether it shall be
        read-only."""
        self._make = make
        self._new_id = new_id
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._entries: dict[str, _Entry] = {}
        self._opening = 0
        self._created = trio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    async def create(self, connection: str, user: User) -> str:
        """Open a session with a connection of its own and return its id.

        Raises:
            TooManySessions: there are as many as there may be.
            UnknownConnection: no database is called *connection*.
            DatabaseError: the connection cannot be made, or not a read-only one.
        """
        if len(self._entries) + self._opening >= self._limit:
            raise TooManySessions(f"there are {self._limit} sessions, and no more may be")
        session = self._make(connection, user.read_only)
        self._opening += 1
        try:
            await session.open()
            # Whoever asked may have left meanwhile, and nobody else would know of it.
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            await session.close()
            raise
        finally:
            self._opening -= 1
        id_ = self._new_id()
        self._entries[id_] = _Entry(session, user, 0, trio.current_time())
        self._created.set()
        logger.info("session %s... of %s begins, on %s", id_[:SHOWN], user.name, connection)
        return id_

    @contextmanager
    def using(self, id_: str, user: User) -> Iterator[Session]:
        """The session, which does not expire during the block.

        Raises:
            UnknownSession: *user* has none of this id.
        """
        entry = self._entry(id_, user)
        entry.users += 1
        try:
            yield entry.session
        finally:
            entry.users -= 1
            entry.used = trio.current_time()

    async def end(self, id_: str, user: User) -> None:
        """Take the session away, interrupt what it is doing, and close its connection.

        Raises:
            UnknownSession: *user* has none of this id.
        """
        await self._end(id_, self._entry(id_, user))

    async def _end(self, id_: str, entry: _Entry) -> None:
        self._entries.pop(id_, None)
        logger.info("session %s... ends", id_[:SHOWN])
        entry.session.stop()
        try:
            await entry.session.close()
        except Exception:  # a task's top, of ``expire``: whatever the driver raises, others go on
            logger.warning("closing session %s... failed", id_[:SHOWN], exc_info=True)

    async def expire(self) -> None:
        """End sessions as they become idle for too long. Runs until it is cancelled."""
        while True:
            while not self._entries:  # what was made may have ended by now
                self._created = trio.Event()
                await self._created.wait()
            now = trio.current_time()
            # One that is in use is looked at again when it could be idle at the earliest.
            ends = {
                id_: (now if entry.users else entry.used) + self._idle_seconds
                for id_, entry in self._entries.items()
            }
            await trio.sleep_until(min(ends.values()))
            now = trio.current_time()
            for id_, entry in list(self._entries.items()):
                idle = not entry.users and entry.used + self._idle_seconds <= now
                if idle and self._entries.get(id_) is entry:  # nobody has ended it meanwhile
                    logger.info("session %s... has been idle too long", id_[:SHOWN])
                    await self._end(id_, entry)

    def stop(self) -> None:
        """Interrupt whatever they are doing; no more calls are taken."""
        for entry in self._entries.values():
            entry.session.stop()

    async def close(self) -> None:
        """End them all. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for id_, entry in list(self._entries.items()):
                    nursery.start_soon(self._end, id_, entry)

    def _entry(self, id_: str, user: User) -> _Entry:
        entry = self._entries.get(id_)
        if entry is None or entry.user != user:
            raise UnknownSession("there is no such session; it may have ended")
        return entry
