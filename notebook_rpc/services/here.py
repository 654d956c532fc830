"""Calls made on the event loop itself: brief ones, for which the way to a thread and back would
take longer than what they do there.

What it refuses: to keep all else waiting for long. Between a few of them whatever is ready gets its
turn, and one that is not brief after all is interrupted.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from notebook_rpc.services.alarm import Alarm
from notebook_rpc.services.call import Call

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

SLICE: Final = 0.001  # seconds after which no other is begun before whatever else is ready


class NotHere(Exception):
    """A call is to be made on a worker thread. *holds* is as of ``Workers.run``."""

    def __init__(self, *, holds: bool = True) -> None:
        super().__init__()
        self.holds = holds


class Here:
    """They wait in order of arrival. The task of the first leads: it makes its call, and those of
    the next, until its time is over, and has the task of whoever is first then lead."""

    def __init__(self, may: Callable[[], bool]) -> None:
        """*may*: whether any of them may be begun now."""
        self._may = may
        self._waiting: deque[Call[Any]] = deque()
        self._led = False
        self._alarm = Alarm()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self, work: Callable[[], T], interrupt: Callable[[], None]) -> T:
        """Call *work*, after whatever is ready now has had its turn. In its way it is as
        ``Workers.run_here``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        call = Call(partial(self._alarm.around, work, interrupt))
        self._waiting.append(call)
        if self._led:
            await call.woken(partial(self._waiting.remove, call))
        else:
            self._led = True
            await trio.lowlevel.cancel_shielded_checkpoint()
        if not call.done:
            self._lead()
        return call.outcome()

    def close(self) -> None:
        self._alarm.close()

    def _lead(self) -> None:
        end = time.perf_counter() + SLICE
        while self._waiting:
            call = self._waiting.popleft()
            if self._may():
                call.make()
                call.end()
            else:
                call.fail(NotHere(holds=False))
            if time.perf_counter() > end:
                break
        self._led = bool(self._waiting)
        if self._led:
            self._waiting[0].wake()
