"""One of our threads, and the jobs it does."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from notebook_rpc.services.call import Call

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from notebook_rpc.services.doorbell import Doorbell

T = TypeVar("T")

logger = logging.getLogger(__name__)

NICENESS: Final = 5  # of our threads, above the event loop's: a third of its weight


class Job(Call[T]):
    """A call that a worker makes."""

    __slots__ = ("_doorbell", "begun")

    def __init__(self, work: Callable[[], T], doorbell: Doorbell) -> None:
        super().__init__(work)
        self.begun = False
        self._doorbell = doorbell

    def tell(self, rest: Callable[[], None] | None) -> None:
        """In the worker: it has been made. *rest* is called on the event loop, before the caller
        goes on, if the worker has nothing else to do."""
        self._doorbell.leave(self.end if rest is None else partial(self._end_after, rest))

    def _end_after(self, rest: Callable[[], None]) -> None:
        rest()
        self.end()

    async def finished(self) -> None:
        """Wait until the worker is done; may be cancelled and called again."""
        if not self.done:
            await self.woken()


class Worker:
    """A thread and the queue it serves, one job at a time; None ends it. While it is ``young`` it
    goes on with the first in *line*, and calls *rest* on the event loop when there is none."""

    def __init__(self, name: str, line: deque[Job[Any]], rest: Callable[[Worker], None]) -> None:
        self.jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self.young = False  # the event loop decides it
        self.since = 0.0  # when the job at hand was begun, on time.perf_counter
        self._line = line
        self._rest = partial(rest, self)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        _give_way()
        while (job := self.jobs.get()) is not None:
            while job is not None:
                job.make()
                following = self._following()
                job.tell(self._rest if following is None else None)
                job = following  # an idle worker must not keep the last result alive

    def _following(self) -> Job[Any] | None:
        """The first in the line, now this worker's.

        The event loop may decide at any point of this that the worker is no longer young. Then one
        call more than may be young at a time is begun, and after it the worker rests. To prevent it
        would take a lock for each call. What the loop and the workers both take from, the line,
        gives each job to one of them only.
        """
        if not self.young:
            return None
        try:
            job = self._line.popleft()
        except IndexError:
            return None
        job.begun = True
        self.since = time.perf_counter()
        return job

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
