"""A lane: one connection to a database, and the calls that are made on it.

Calls run one at a time, each on a worker thread, each bounded in time and open to ``cancel``.
What an interrupted call has begun is undone. A connection that broke is given up, and the
next call gets a new one. Whoever wants to know what others may now see hears of every change.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from notebook_rpc.driver import (
    ComputesHere,
    SupportsBrief,
    SupportsChanges,
    SupportsInterrupt,
    SupportsProgress,
    SupportsReset,
    SupportsTouched,
)
from notebook_rpc.errors import Cancelled, DatabaseUnavailable, NotebookError, QueryTimeout
from notebook_rpc.model import Transaction
from notebook_rpc.services.alarm import Overdue
from notebook_rpc.services.here import NotHere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Touched
    from notebook_rpc.services.workers import Workers

T = TypeVar("T")

logger = logging.getLogger(__name__)


CLOSING: Final = 5.0  # seconds until a connection is interrupted that does not close


class _Abilities:
    """What a connection can do. To ask it takes microseconds, so it is asked once."""

    __slots__ = ("_changes", "_told", "_touched", "brief", "interrupt", "reset", "waits")

    def __init__(self, connection: Connection) -> None:
        self._changes = connection if isinstance(connection, SupportsChanges) else None
        self._touched = connection if isinstance(connection, SupportsTouched) else None
        self._told = 0 if self._changes is None else self._changes.changes
        self.waits = not isinstance(connection, ComputesHere)
        self.interrupt = connection.interrupt if isinstance(connection, SupportsInterrupt) else None
        self.brief = connection if isinstance(connection, SupportsBrief) else None
        self.reset = connection.reset if isinstance(connection, SupportsReset) else None

    def tell(self, changed: Callable[[Touched], None]) -> None:
        """Call *changed* if anything may have been committed since this was called last."""
        if self._changes is not None:
            changes = self._changes.changes
            if changes == self._told:
                return
            self._told = changes
        changed(None if self._touched is None else self._touched.take_written())


@dataclass(slots=True)
class Running:
    """The call that runs: its name, and since when on Trio's clock."""

    call: str
    since: float
    scope: trio.CancelScope
    cancelled: bool = False  # by request; else the scope's own deadline did it


# Two context managers, as classes: there is one of each around every statement, and an
# asynccontextmanager takes ten times as long.


class _Call:
    """``Lane.call``."""

    def __init__(self, lane: Lane, name: str, seconds: float) -> None:
        self._lane = lane
        self._name = name
        self._seconds = seconds
        self._scope = trio.CancelScope(deadline=trio.current_time() + seconds)

    async def __aenter__(self) -> None:
        self._scope.__enter__()
        self._running = self._lane.begin(self._name, self._scope)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._lane.end(self._running)
        handled = self._scope.__exit__(kind, exc, traceback)
        if not self._scope.cancelled_caught:
            return handled
        if self._running.cancelled:
            raise Cancelled(f"{self._name} was cancelled") from None
        raise QueryTimeout(f"{self._name} took longer than {self._seconds:g} seconds") from None


class _Undoing:
    """``Lane.undone_if_interrupted``."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self,
        _: type[BaseException] | None,
        exc: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        if not isinstance(exc, trio.Cancelled | Cancelled | QueryTimeout):
            return
        if await self._lane.undo() and isinstance(exc, NotebookError):
            raise exc.again(f"{exc}; its transaction was rolled back")


class Lane:
    """Nothing is connected before ``open`` or the first ``work``."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        workers: Workers,
        lose: Callable[[], None],
        observe: Callable[[str, float], None] = lambda *_: None,
        changed: Callable[[Touched], None] = lambda _: None,
    ) -> None:
        """*lose* is called on a worker when an open result of the connection is no more: its
        statement was undone, or the connection is gone. *observe* hears the name of each call
        that has ended, and how many seconds it took. *changed* is called when what others see
        of the database may have changed by this lane, with the tables that may have, before
        anybody is told that it has."""
        self._connect = connect
        self._workers = workers
        self._lose = lose
        self._observe = observe
        self._changed = changed
        self._connection: Connection | None = None
        self._abilities: _Abilities
        self._used = False  # by somebody else, who may have left something behind
        self._turn = trio.Lock()  # fair: first come, first served
        self.running: Running | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection; with one that was given up, its result has gone too."""
        return self._connection is not None

    @property
    def waiting(self) -> int:
        """Calls behind the one that runs."""
        return self._turn.statistics().tasks_waiting

    @property
    def transaction(self) -> Transaction:
        return Transaction.NONE if self._connection is None else self._connection.transaction

    @property
    def fraction(self) -> float | None:
        """How far the running statement is, from 0 to 1; None if nobody knows."""
        if self.running is None or not isinstance(self._connection, SupportsProgress):
            return None
        return self._connection.progress()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until the calls that came before have ended. Raises ``Busy`` if too many have."""
        await self._workers.wait_for(self._turn)  # a call that needs no thread never waits
        try:
            yield
        finally:
            self._turn.release()

    def call(self, name: str, seconds: float = math.inf) -> AbstractAsyncContextManager[None]:
        """Wrap one call, which may take so long and can be cancelled.

        Raises:
            QueryTimeout: it took longer.
            Cancelled: ``cancel`` was called meanwhile.
        """
        return _Call(self, name, seconds)

    def undone_if_interrupted(self) -> AbstractAsyncContextManager[None]:
        """Give up the result and the transaction of a statement that was interrupted.

        Half a transaction must not stay open for the next statement to commit, and nobody
        may be left who would roll it back.
        """
        return _Undoing(self)

    def begin(self, name: str, scope: trio.CancelScope) -> Running:
        self.running = running = Running(name, trio.current_time(), scope)
        return running

    def end(self, running: Running) -> None:
        self.running = None
        self._observe(running.call, trio.current_time() - running.since)

    async def undo(self) -> bool:
        """Whether there was a transaction to undo. Cannot be cancelled."""
        undone = False
        with trio.CancelScope(shield=True):
            if self._connection is not None:
                undone = await self._undone(self._connection)
        return undone

    async def work(self, work: Callable[[Connection], T], *, holds: bool = True) -> T:
        """Run *work* on a worker thread; whoever cancels it interrupts the connection. *holds* is
        as of ``Workers.run``.

        Raises:
            DatabaseUnavailable: there is no connection to be had, or it has just broken.
        """
        connection = await self.open()
        abilities = self._abilities
        in_transaction = connection.transaction is not Transaction.NONE
        try:
            return await self._workers.run(
                partial(self._begin, work, connection),
                abilities.interrupt,
                waits=abilities.waits,
                holds=holds,
            )
        except DatabaseUnavailable as exc:
            await self._give_up()
            what = "the connection is"
            if in_transaction:
                what = "the connection and its transaction are"
            raise exc.again(f"{exc} ({what} lost; the next call gets a new one)") from exc
        finally:
            abilities.tell(self._changed)

    async def work_here(self, name: str, work: Callable[[Connection], T], query: str) -> T:
        """The call *name*, which does no more than to begin *query*: on the event loop, if that is
        known to be brief. It needs neither ``call`` nor ``undone_if_interrupted``.

        Raises:
            NotHere: it is to be made with ``work``.
        """
        connection = self._connection
        if connection is None or (knowing := self._abilities.brief) is None:
            raise NotHere
        if not knowing.harmless(query):
            raise NotHere
        if not knowing.brief(query):
            raise NotHere(holds=False)

        def brief() -> tuple[T, float]:
            if not knowing.brief(query):  # not any more: while it waited, words got a new meaning
                raise NotHere
            began = time.perf_counter()
            return self._begin(work, connection), time.perf_counter() - began

        asked = trio.current_time()
        try:
            done, seconds = await self._workers.run_here(brief, knowing.interrupt)
        except NotHere:
            raise
        except Overdue as exc:
            knowing.took(query, math.inf)
            self._used = True  # the interrupt may have come too late, and wait for the next call
            raise NotHere(holds=False) from exc
        except DatabaseUnavailable as exc:
            raise NotHere from exc  # there it will be met again, and the connection given up
        except BaseException:
            self._observe(name, trio.current_time() - asked)
            raise
        knowing.took(query, seconds)
        self._observe(name, trio.current_time() - asked)
        return done

    def pass_on(self) -> bool:
        """Let the next call be somebody else's, who meets nothing of those before. False: the
        connection cannot do that, and the lane is to be closed."""
        self._used = True
        return self._connection is None or self._abilities.reset is not None

    async def open(self) -> Connection:
        """Connect, if there is no connection.

        Raises:
            DatabaseError: that cannot be done now.
        """
        if self._connection is None:
            self._connection = connection = await self._connect()
            self._abilities = _Abilities(connection)
        return self._connection

    def cancel(self) -> bool:
        """Interrupt the call that runs now, if one does. Its caller gets ``Cancelled``."""
        if self.running is None:
            return False
        self.running.cancelled = True
        self.running.scope.cancel()
        return True

    async def close(self) -> None:
        """Close the connection once the running call has ended. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                connection, self._connection = self._connection, None
                if connection is not None:
                    # An open result may commit what its query did, as it is closed.
                    try:
                        with trio.move_on_after(CLOSING):
                            closing = connection.close
                            await self._workers.run_beyond(closing, self._abilities.interrupt)
                    finally:
                        self._abilities.tell(self._changed)

    async def _undone(self, connection: Connection) -> bool:
        """Whether there was a transaction to undo."""
        try:
            return await self._workers.run_beyond(partial(self._undo, connection))
        except DatabaseUnavailable as exc:
            logger.warning("a connection did not survive an interrupt: %s", exc)
            await self._give_up()
            return False
        finally:
            self._abilities.tell(self._changed)  # as with ``close``

    async def _give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with trio.CancelScope(shield=True):
                await self._workers.run_beyond(partial(self._abandon, connection))

    def _begin(self, work: Callable[[Connection], T], connection: Connection) -> T:
        """On a worker, so that to clean up after others costs no hop of its own."""
        if self._used:
            self._used = False
            if self._abilities.reset is not None:  # else it is new: the used one was given up
                self._abilities.reset()
        return work(connection)

    # On a worker. Whatever fails here is logged: the caller is to hear of what came before.

    def _undo(self, connection: Connection) -> bool:
        self._lose_result()
        try:
            return connection.rollback()
        except DatabaseUnavailable:
            raise
        except NotebookError:
            logger.warning("cannot roll back after an interrupt", exc_info=True)
            return False

    def _abandon(self, connection: Connection) -> None:
        self._lose_result()
        try:
            connection.close()
        except NotebookError:
            logger.debug("cannot close a connection that is broken", exc_info=True)

    def _lose_result(self) -> None:
        try:
            self._lose()
        except NotebookError:
            logger.warning("cannot close a result that is lost", exc_info=True)
