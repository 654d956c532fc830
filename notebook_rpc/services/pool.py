"""Lanes lent for a moment, to surfaces whose requests know no session."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from notebook_rpc.errors import Cancelled
from notebook_rpc.model import Transaction
from notebook_rpc.services.lanes import Lane
from notebook_rpc.services.places import Places

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Touched
    from notebook_rpc.services.places import Place
    from notebook_rpc.services.workers import Workers

K = TypeVar("K", bound="Hashable")

logger = logging.getLogger(__name__)


class Pool:
    """Up to *limit* lanes to one database, shared out among clients as ``Places`` says, and up to
    as many that were set aside.

    The one used last is lent first, and those that were idle for *idle_seconds* are closed, so
    that a pool is as small as its use allows.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        workers: Workers,
        *,
        limit: int,
        idle_seconds: float,
        observe: Callable[[str, float], None] = lambda *_: None,
        changed: Callable[[Touched], None] = lambda _: None,
    ) -> None:
        """*observe* and *changed* are as of ``Lane``."""
        self._connect = connect
        self._workers = workers
        self._observe = observe
        self._changed = changed
        self._places = Places(limit)
        self._lent: dict[Lane, Place] = {}
        self._idle_seconds = idle_seconds
        self._idle: deque[tuple[float, Lane]] = deque()  # since when; the oldest first
        self.made: weakref.WeakSet[Lane] = weakref.WeakSet()  # those of others too
        self._returned = trio.Event()
        self._stopped = self._closed = False
        self._closing = trio.Event()

    def lane(self, client: Hashable | None = None) -> AbstractAsyncContextManager[Lane]:
        """A lane of the borrower's own during the block, with nothing of former borrowers.
        A transaction left open is undone. Without a *client* the borrower is one of its own.

        Raises:
            Busy: too many wait for a lane already.
            Cancelled: after ``stop``.
        """
        return _Loan(self, self._places.place(object() if client is None else client))

    def lend(self, place: Place) -> Lane:
        """For a place that is taken."""
        if self._stopped:
            raise Cancelled("the server is stopping")
        _, lane = self._idle.pop() if self._idle else (0.0, self.make())
        self._lent[lane] = place
        return lane

    async def take_back(self, lane: Lane) -> None:
        """Cannot be cancelled."""
        del self._lent[lane]
        if lane.transaction is Transaction.NONE and not self._closed and lane.pass_on():
            self._rest(lane)
            return
        with trio.CancelScope(shield=True):
            await self._take_back(lane)

    def lends(self, lane: Lane) -> bool:
        return lane in self._lent

    def set_aside(self, lane: Lane) -> bool:
        """*lane*, which is lent, waits for who reads its result: others need not wait for that.
        False: too many do, and they must."""
        return self._lent[lane].set_aside()

    async def expire(self) -> None:
        """Close lanes as they become idle for too long. Runs until it is cancelled, or the pool
        closed."""
        while True:
            while not self._idle:  # what came back may have been lent again by now
                if self._closed:
                    return
                self._returned = trio.Event()
                await self._returned.wait()
            since, lane = self._idle[0]
            with trio.move_on_at(since + self._idle_seconds):
                await self._closing.wait()
            if self._closed:  # who went on would keep its lane from being forgotten
                return
            if self._idle and self._idle[0][1] is lane and self._idle[0][0] == since:
                self._idle.popleft()
                await self._close(lane)

    def stop(self) -> None:
        """Interrupt the calls of all borrowers; nobody gets a lane any more."""
        self._stopped = True
        for lane in self.made:
            lane.cancel()

    async def close(self) -> None:
        """Close the idle lanes; those that are lent are closed when they come back."""
        self._closed = True
        self._returned.set()
        self._closing.set()
        while self._idle:
            _, lane = self._idle.pop()
            await self._close(lane)

    def make(self) -> Lane:
        """A lane like those of the pool, which is whoever's asked for it, and theirs to close."""
        lane = Lane(self._connect, self._workers, lambda: None, self._observe, self._changed)
        self.made.add(lane)
        return lane

    async def _take_back(self, lane: Lane) -> None:
        try:
            if lane.transaction is not Transaction.NONE:
                await lane.work(lambda connection: connection.rollback())
        except Exception:  # as in ``_close``; and its borrower's work is done
            logger.warning("a lane is not worth keeping", exc_info=True)
            await self._close(lane)
            return
        if self._closed or not lane.pass_on():
            await self._close(lane)
            return
        self._rest(lane)

    def _rest(self, lane: Lane) -> None:
        self._idle.append((trio.current_time(), lane))
        self._returned.set()

    async def _close(self, lane: Lane) -> None:
        try:
            await lane.close()
        except Exception:  # a task's top, ``expire``: whatever a driver raises, it goes on
            logger.warning("closing a pooled connection failed", exc_info=True)


class _Loan:
    """``Pool.lane``, as a class: there is one around every statement, and an asynccontextmanager
    takes ten times as long."""

    def __init__(self, pool: Pool, place: Place) -> None:
        self._pool = pool
        self._place = place

    async def __aenter__(self) -> Lane:
        await self._place.__aenter__()
        try:
            self._lane = self._pool.lend(self._place)
        except BaseException:
            await self._place.__aexit__()
            raise
        return self._lane

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._pool.take_back(self._lane)
        finally:
            await self._place.__aexit__()


class Pools(Generic[K]):
    """The pools of a server, by their key: each made when it is first asked for."""

    def __init__(self, make: Callable[[K], Pool]) -> None:
        self._make = make
        self._pools: dict[K, Pool] = {}
        self._retired: weakref.WeakSet[Pool] = weakref.WeakSet()  # as long as lanes are lent
        self._left: weakref.WeakSet[Lane] = weakref.WeakSet()  # of these, and they may outlive them
        self._nursery: trio.Nursery | None = None

    def pool(self, key: K) -> Pool:
        if key not in self._pools:
            self._pools[key] = pool = self._make(key)
            if self._nursery is not None:
                self._nursery.start_soon(pool.expire)
        return self._pools[key]

    def set_aside(self, lane: Lane) -> bool:
        """As of the pool that has lent *lane*, which may have been retired meanwhile."""
        pools = [*self._pools.values(), *self._retired]
        return next(pool for pool in pools if pool.lends(lane)).set_aside(lane)

    async def expire(self) -> None:
        """``Pool.expire`` for all there are and will be. Runs until it is cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for pool in self._pools.values():
                nursery.start_soon(pool.expire)
            await trio.sleep_forever()

    async def retire(self, which: Callable[[K], bool]) -> None:
        """Close those, and forget them: whoever asks next gets a new one."""
        retired = [self._pools.pop(key) for key in list(self._pools) if which(key)]
        self._retired.update(retired)
        for pool in retired:
            self._left.update(pool.made)
            await pool.close()

    def stop(self) -> None:
        for pool in [*self._pools.values(), *self._retired]:
            pool.stop()
        for lane in self._left:
            lane.cancel()

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()
