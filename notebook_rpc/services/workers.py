"""Threads for calls that block, and the hand-over to them and back.

Why not ``trio.to_thread``: a hand-over here costs two thirds of one there and much less
under load, and a cancelled call is interrupted instead of waited for. What ``to_thread``
promises holds here too: a call runs in the caller's context variables, nothing is ever
abandoned half-way, and what it raises is what the caller sees.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from notebook_rpc.errors import Busy
from notebook_rpc.services.doorbell import Doorbell
from notebook_rpc.services.here import Here
from notebook_rpc.services.worker import Job, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Seconds between two interrupts: the first may come before the call has really begun and
# be lost, so they go on, ever slower, until the call has ended.
FIRST_RETRY: Final = 0.001
LAST_RETRY: Final = 0.05

# Calls that may be young at a time. While one has Python's lock another keeps the engine busy; a
# third would only compete for the lock: eight small queries at a time are a third slower than two.
TOGETHER: Final = 2
YOUNG: Final = 0.002  # seconds; who is older does not keep others waiting, as it may be for long


@dataclass(frozen=True, slots=True)
class Load:
    """Calls that run now, calls that wait for a thread, how many may run, how many threads
    there are, idle ones included, and calls that wait behind another of their session. What runs
    beyond the limit is not counted."""

    running: int
    waiting: int
    limit: int
    threads: int
    queued: int = 0


class Workers:
    """Up to *limit* threads, started when needed; *spare* of them stay when idle.

    The last one that became idle is used first: its stack and caches are warm. Beyond the
    limit callers wait in order of arrival, at most *max_waiting* of them for any one place.
    No more than ``TOGETHER`` calls are begun before those begun last have ended, or are no longer
    young: the next wait in a line, of which a thread takes the first when it has done its own.
    """

    def __init__(self, limit: int, spare: int, max_waiting: float = math.inf) -> None:
        self._slots = trio.Semaphore(limit, max_value=limit)
        self._spare = spare
        self._limit = limit
        self._max_waiting = max_waiting
        self._waiting = 0  # for a place, of whatever kind
        self._line: deque[Job[Any]] = deque()  # workers take from it, at any time
        self._young: list[Worker] = []
        self._idle: list[Worker] = []
        self._started = 0
        self._at_work = 0  # of those started
        self._closed = False
        self._doorbell = Doorbell()
        self._holding = 0  # calls, those in line too, that may hold what brief ones would wait for
        self._here = Here(lambda: not (self._holding or self._closed))

    def load(self) -> Load:
        waiting = self._slots.statistics().tasks_waiting
        in_line = len(self._line)
        running = self._limit - self._slots.value - in_line
        threads = running + len(self._idle)
        return Load(running, waiting + in_line, self._limit, threads, self._waiting - waiting)

    async def wait_for(self, place: trio.Lock | trio.Semaphore) -> None:
        """Acquire a place where calls wait their turn; no checkpoint if it is free.

        Raises:
            Busy: as many wait for it as may.
        """
        try:
            place.acquire_nowait()
        except trio.WouldBlock:
            if place.statistics().tasks_waiting >= self._max_waiting:
                raise self._busy() from None
            self._waiting += 1
            try:
                await place.acquire()
            finally:
                self._waiting -= 1

    def _busy(self) -> Busy:
        return Busy(f"{self._max_waiting} calls wait already, and no more may")

    async def run(
        self,
        work: Callable[[], T],
        interrupt: Callable[[], None] | None = None,
        *,
        waits: bool = False,
        holds: bool = True,
    ) -> T:
        """Call *work* in a worker thread and return what it returns. One that *waits*, for another
        process or machine, computes little here, and need not stand in the line. One that
        *holds* nothing in the database for which others would wait does not keep them from
        ``run_here``.

        When the caller is cancelled, *interrupt* is called, on a thread beyond the limit,
        again and again until *work* has ended; without one, *work* is waited for. If it then
        fails, ``trio.Cancelled`` is raised; if it succeeds all the same, its value is
        returned, and the caller meets the cancellation at its next checkpoint. Cancelled while
        it still waits for its turn, *work* is never called.

        Raises:
            Busy: as many calls wait for a thread as may; *work* was not called.
            RuntimeError: the system gives no thread; *work* was not called.
        """
        await self.wait_for(self._slots)
        holds = holds and not waits
        self._holding += holds
        try:
            job = self._job(work)
            if waits:
                self._hand_over(job, self._hire())
            else:
                await self._stand_in_line(job)
            return await self._outcome(job, interrupt)
        finally:
            self._holding -= holds
            self._slots.release()

    async def run_here(self, work: Callable[[], T], interrupt: Callable[[], None]) -> T:
        """Call *work*, which is brief, on the event loop itself, while no call on a thread may hold
        what *work* would wait for.

        Raises:
            NotHere: one may, or the threads are closed; *work* was not called.
            Overdue: *work* was not brief, and so was interrupted; it has ended, in whatever way.
            Busy: as of ``run``.
        """
        if self._here.waiting >= self._max_waiting:
            raise self._busy()
        return await self._here.run(work, interrupt)

    async def run_beyond(
        self, work: Callable[[], T], interrupt: Callable[[], None] | None = None
    ) -> T:
        """As ``run``, but at once, without waiting for a place or in the line: for what ends calls,
        and makes room."""
        job = self._job(work)
        self._holding += 1
        try:
            self._hand_over(job, self._hire())
            return await self._outcome(job, interrupt)
        finally:
            self._holding -= 1

    def _job(self, work: Callable[[], T]) -> Job[T]:
        self._doorbell.expect()
        return Job(work, self._doorbell)

    def _admit(self) -> None:
        """Let as many begin as may, of those in line. Afterwards the line is empty, or ``TOGETHER``
        workers are young, or no thread was to be had: each call in line has somebody before it who
        runs, and who either takes it or calls this when at rest."""
        if len(self._young) == TOGETHER:
            born = time.perf_counter() - YOUNG
            for worker in [each for each in self._young if each.since < born]:
                self._grow_up(worker)
        while len(self._young) < TOGETHER:
            try:
                job = self._line.popleft()
            except IndexError:
                return
            try:
                worker = self._hire()
            except RuntimeError as exc:  # the system gives us no thread
                job.fail(exc)
                return  # it may give the next one a little later
            worker.young = True
            self._young.append(worker)
            self._hand_over(job, worker)

    async def _stand_in_line(self, job: Job[Any]) -> None:
        """Until *job* has been begun or has ended. Cancelled only if it is never to be."""
        before = len(self._line)
        self._line.append(job)
        self._admit()
        try:
            await self._begun(job, before)
        except trio.Cancelled:
            if self._withdraw(job):
                raise

    async def _begun(self, job: Job[Any], before: int) -> None:
        """Wait in the line, with so many *before*, until *job* has been begun or has ended.

        A worker that takes it from the line tells nobody, as most have ended before it could be of
        use. So who waits looks again after a while, and lets others begin if those who are young
        are so no longer: nothing else does while they are slow.
        """
        patience = YOUNG * (1 + before // TOGETHER)  # as if all before were slow
        while not job.begun:
            with trio.move_on_after(patience):
                await job.finished()
                return
            self._admit()
            patience = YOUNG

    def _withdraw(self, job: Job[Any]) -> bool:
        """Take *job* from the line; whether it stood there, and so will never run."""
        try:
            self._line.remove(job)
        except ValueError:
            return False
        return True

    def _grow_up(self, worker: Worker) -> None:
        """It no longer keeps others waiting, nor goes on with the line when it has done its job."""
        if worker.young:
            worker.young = False
            self._young.remove(worker)

    async def _outcome(self, job: Job[T], interrupt: Callable[[], None] | None) -> T:
        try:
            await job.finished()
        except trio.Cancelled as cancelled:
            with trio.CancelScope(shield=True):
                await self._until_stopped(job, interrupt)
            if job.error is not None:
                raise cancelled from job.error
        return job.outcome()

    async def _until_stopped(self, job: Job[Any], interrupt: Callable[[], None] | None) -> None:
        if interrupt is None:
            await job.finished()
            return
        delay = FIRST_RETRY
        while not job.done:
            try:
                await self.run_beyond(interrupt)
            except Exception:  # a bug in the driver; the call is to be waited for all the same
                logger.exception("an interrupt failed")
            with trio.move_on_after(delay):
                await job.finished()
            delay = min(2 * delay, LAST_RETRY)

    def _hire(self) -> Worker:
        if self._idle:
            return self._idle.pop()
        self._started += 1
        return Worker(f"notebook-rpc-worker-{self._started}", self._line, self._rest)

    def _hand_over(self, job: Job[Any], worker: Worker) -> None:
        job.begun = True
        self._at_work += 1
        worker.since = time.perf_counter()
        worker.jobs.put(job)

    def _rest(self, worker: Worker) -> None:
        """It has done its job, and found none in the line or was no longer to look for one. Told
        once for each job that ``_hand_over`` gave it."""
        self._at_work -= 1
        self._grow_up(worker)
        self._idle.append(worker)
        self._admit()  # who came into the line meanwhile
        if len(self._idle) > (0 if self._closed else self._spare):
            self._idle.pop().stop()
        self._end()

    def close(self) -> None:
        """Stop the threads: those that are at work when they have done it."""
        self._closed = True
        self._here.close()
        while self._idle:
            self._idle.pop().stop()
        self._end()

    def _end(self) -> None:
        if self._closed and not self._at_work:
            self._doorbell.close()
