"""Lanes lent for a moment, to surfaces whose requests know no session."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from notebook_rpc.errors import NotebookError
from notebook_rpc.model import Transaction
from notebook_rpc.services.lanes import Lane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from notebook_rpc.driver import Connection
    from notebook_rpc.services.workers import Workers

logger = logging.getLogger(__name__)


class Pool:
    """Up to *limit* lanes to one database; beyond it borrowers wait in order of arrival.

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
    ) -> None:
        self._connect = connect
        self._workers = workers
        self._places = trio.Semaphore(limit, max_value=limit)
        self._idle_seconds = idle_seconds
        self._idle: deque[tuple[float, Lane]] = deque()  # since when; the oldest first
        self._returned = trio.Event()
        self._closed = False

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        """A lane of the borrower's own during the block. A transaction left open is undone."""
        async with self._places:
            _, lane = self._idle.pop() if self._idle else (0.0, self._make())
            try:
                yield lane
            finally:
                with trio.CancelScope(shield=True):
                    await self._take_back(lane)

    async def expire(self) -> None:
        """Close lanes as they become idle for too long. Runs until it is cancelled."""
        while True:
            while not self._idle:  # what came back may have been lent again by now
                self._returned = trio.Event()
                await self._returned.wait()
            since, lane = self._idle[0]
            await trio.sleep_until(since + self._idle_seconds)
            if self._idle and self._idle[0][1] is lane and self._idle[0][0] == since:
                self._idle.popleft()
                await self._close(lane)

    async def close(self) -> None:
        """Close the idle lanes; those that are lent are closed when they come back."""
        self._closed = True
        while self._idle:
            _, lane = self._idle.pop()
            await self._close(lane)

    def _make(self) -> Lane:
        return Lane(self._connect, self._workers, lose=lambda: None)

    async def _take_back(self, lane: Lane) -> None:
        try:
            if lane.transaction is not Transaction.NONE:
                await lane.work(lambda connection: connection.rollback())
        except NotebookError:
            logger.warning("a lane is not worth keeping", exc_info=True)
            await self._close(lane)
            return
        if self._closed:
            await self._close(lane)
            return
        self._idle.append((trio.current_time(), lane))
        self._returned.set()

    async def _close(self, lane: Lane) -> None:
        try:
            await lane.close()
        except NotebookError:
            logger.warning("closing a pooled connection failed", exc_info=True)
