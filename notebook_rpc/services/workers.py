"""Threads for calls that block, and the hand-over to them and back.

Why not ``trio.to_thread``: a hand-over here costs two thirds of one there and much less
under load, and a cancelled call is interrupted instead of waited for. What ``to_thread``
promises holds here too: a call runs in the caller's context variables, nothing is ever
abandoned half-way, and what it raises is what the caller sees.
"""

from __future__ import annotations

import contextvars
import logging
import math
import os
import queue
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from notebook_rpc.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Seconds between two interrupts: the first may come before the call has really begun and
# be lost, so they go on, ever slower, until the call has ended.
FIRST_RETRY: Final = 0.001
LAST_RETRY: Final = 0.05
NICENESS: Final = 5  # of our threads, above the event loop's: a third of its weight


@dataclass(frozen=True, slots=True)
class Load:
    """Calls that run now, calls that wait for a thread, how many may run, how many threads
    there are, idle ones included, and calls that wait behind another of their session."""

    running: int
    waiting: int
    limit: int
    threads: int
    queued: int = 0


class Workers:
    """Up to *limit* threads, started when needed; *spare* of them stay when idle.

    The last one that became idle is used first: its stack and caches are warm. Beyond the
    limit callers wait in order of arrival, at most *max_waiting* of them for any one place.
    """

    def __init__(self, limit: int, spare: int, max_waiting: float = math.inf) -> None:
        self._slots = trio.Semaphore(limit, max_value=limit)
        self._spare = spare
        self._limit = limit
        self._max_waiting = max_waiting
        self._waiting = 0  # for a place, of whatever kind
        self._idle: list[_Worker] = []
        self._started = 0

    def load(self) -> Load:
        waiting = self._slots.statistics().tasks_waiting
        running = self._limit - self._slots.value
        threads = running + len(self._idle)
        return Load(running, waiting, self._limit, threads, self._waiting - waiting)

    async def wait_for(self, place: trio.Lock | trio.Semaphore) -> None:
        """Acquire a place where calls wait their turn; no checkpoint if it is free.

        Raises:
            Busy: as many wait for it as may.
        """
        try:
            place.acquire_nowait()
        except trio.WouldBlock:
            if place.statistics().tasks_waiting >= self._max_waiting:
                raise Busy(f"{self._max_waiting} calls wait already, and no more may") from None
            self._waiting += 1
            try:
                await place.acquire()
            finally:
                self._waiting -= 1

    async def run(self, work: Callable[[], T], interrupt: Callable[[], None] | None = None) -> T:
        """Call *work* in a worker thread and return what it returns.

        When the caller is cancelled, *interrupt* is called, on a thread beyond the limit,
        again and again until *work* has ended; without one, *work* is waited for. If it then
        fails, ``trio.Cancelled`` is raised; if it succeeds all the same, its value is
        returned, and the caller meets the cancellation at its next checkpoint.

        Raises:
            Busy: as many calls wait for a thread as may; *work* was not called.
        """
        await self.wait_for(self._slots)
        try:
            return await self.run_beyond(work, interrupt)
        finally:
            self._slots.release()

    async def run_beyond(
        self, work: Callable[[], T], interrupt: Callable[[], None] | None = None
    ) -> T:
        """As ``run``, but without waiting for a place: for what ends calls, and makes room."""
        worker = self._idle.pop() if self._idle else self._start()
        try:
            return await self._hand_over(worker, work, interrupt)
        finally:
            self._rest(worker)

    async def _hand_over(
        self, worker: _Worker, work: Callable[[], T], interrupt: Callable[[], None] | None
    ) -> T:
        job = _Job(work)
        worker.jobs.put(job)
        try:
            await job.finished()
        except trio.Cancelled as cancelled:
            with trio.CancelScope(shield=True):
                await self._until_stopped(job, interrupt)
            if job.error is not None:
                raise cancelled from job.error
        return job.outcome()

    async def _until_stopped(self, job: _Job[Any], interrupt: Callable[[], None] | None) -> None:
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

    def _start(self) -> _Worker:
        self._started += 1
        return _Worker(f"notebook-rpc-worker-{self._started}")

    def _rest(self, worker: _Worker) -> None:
        if len(self._idle) < self._spare:
            self._idle.append(worker)
        else:
            worker.stop()

    def close(self) -> None:
        """Stop the threads. No call may be running: whoever made one waits for it."""
        while self._idle:
            self._idle.pop().stop()


class _Job(Generic[T]):
    """One call: made and awaited on the event loop, run by a worker."""

    __slots__ = ("_context", "_token", "_value", "_waiter", "_work", "done", "error")

    def __init__(self, work: Callable[[], T]) -> None:
        self.done = False
        self.error: BaseException | None = None
        self._value: T
        self._work = work
        self._context = contextvars.copy_context()
        self._token = trio.lowlevel.current_trio_token()
        self._waiter: trio.lowlevel.Task | None = None

    def run(self) -> None:
        """In the worker. Whatever *work* raises belongs to the caller."""
        try:
            self._value = self._context.run(self._work)
        except BaseException as exc:  # noqa: BLE001  # carried to the caller, not swallowed
            self.error = exc
        # RunFinishedError cannot happen: run() above is shielded until this arrives.
        self._token.run_sync_soon(self._finish)

    def _finish(self) -> None:
        self.done = True
        if self._waiter is not None:
            trio.lowlevel.reschedule(self._waiter)
            self._waiter = None

    async def finished(self) -> None:
        """Wait until the worker is done; may be cancelled and called again."""
        if self.done:
            return

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def outcome(self) -> T:
        if self.error is None:
            return self._value
        try:
            raise self.error
        finally:
            self.error = None  # the traceback holds this frame, and this frame the error


class _Worker:
    """A thread and the queue it serves. One job at a time; None ends it."""

    def __init__(self, name: str) -> None:
        self.jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        _give_way()
        while (job := self.jobs.get()) is not None:
            job.run()
            del job  # an idle worker must not keep the last result alive

    def stop(self) -> None:
        """Called when the worker is idle, so the join is a matter of microseconds."""
        self.jobs.put(None)
        self._thread.join()


def _give_way() -> None:
    """Let the event loop go first where there are fewer cores than threads: with thirty slow
    queries on two cores it was late by 9 ms in the median, and so it is by 1 to 4.

    On Linux, where each thread has a niceness of its own; those that a database starts from it
    have it too. To take it back takes privileges, as it does to lift the event loop instead.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        try:
            niceness = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, niceness + NICENESS)
        except OSError as exc:  # sandboxes may forbid whatever they like
            logger.debug("a thread keeps its priority: %s", exc)
