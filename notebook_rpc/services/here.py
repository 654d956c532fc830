"""Calls made on the event loop itself: brief ones, for which the way to a thread and back would
take longer than what they do there.

What it refuses: to keep all else waiting for long. Between a few of them whatever is ready gets its
turn, and one that is not brief after all is interrupted.
"""

from __future__ import annotations

import contextvars
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from notebook_rpc.services.alarm import Alarm

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
        self._waiting: deque[_Call[Any]] = deque()
        self._led = False
        self._alarm = Alarm()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self, work: Callable[[], T], interrupt: Callable[[], None]) -> T:
        """Call *work*, after whatever is ready now has had its turn. In its way it is as
        ``Workers.run_here``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        call = _Call(work, interrupt)
        self._waiting.append(call)
        if self._led:
            await call.ended_or_first(self._waiting)
        else:
            self._led = True
            await trio.lowlevel.cancel_shielded_checkpoint()
        if not call.ended:
            self._lead()
        return call.outcome()

    def close(self) -> None:
        self._alarm.close()

    def _lead(self) -> None:
        end = time.perf_counter() + SLICE
        while self._waiting:
            call = self._waiting.popleft()
            call.make(self._alarm, self._may())
            if time.perf_counter() > end:
                break
        self._led = bool(self._waiting)
        if self._led:
            self._waiting[0].wake()


class _Call(Generic[T]):
    __slots__ = ("_context", "_error", "_interrupt", "_task", "_value", "_work", "ended")

    def __init__(self, work: Callable[[], T], interrupt: Callable[[], None]) -> None:
        self.ended = False
        self._value: T
        self._error: BaseException | None = None
        self._work = work
        self._interrupt = interrupt
        self._context = contextvars.copy_context()
        self._task: trio.lowlevel.Task | None = None

    async def ended_or_first(self, waiting: deque[_Call[Any]]) -> None:
        """Wait until it has been made, or its task is to lead. Cancelled only if it is neither, and
        then at once not among those *waiting* any more: one of them is to lead."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            waiting.remove(self)
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def make(self, alarm: Alarm, may: bool) -> None:  # called in one place
        self.ended = True
        if may:
            try:
                work = partial(self._context.run, self._work)
                self._value = alarm.around(work, self._interrupt)
            except BaseException as exc:  # noqa: BLE001  # carried to the caller, not swallowed
                self._error = exc
        else:
            self._error = NotHere(holds=False)
        self.wake()

    def wake(self) -> None:
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    def outcome(self) -> T:
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self._error = None  # the traceback holds this frame, and this frame the error
