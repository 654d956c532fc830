"""A call, between the task that asks for it and the place where it is made."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Call(Generic[T]):
    """Of *work*, in the context variables of the task that asked for it. One task waits for it."""

    __slots__ = ("_context", "_task", "_value", "_work", "done", "error")

    def __init__(self, work: Callable[[], T]) -> None:
        self.done = False
        self.error: BaseException | None = None
        self._value: T
        self._work = work
        self._context = contextvars.copy_context()
        self._task: trio.lowlevel.Task | None = None  # while it waits

    def make(self) -> None:
        """On any thread. Whatever *work* raises belongs to who asked."""
        try:
            self._value = self._context.run(self._work)
        except BaseException as exc:  # noqa: BLE001  # carried to the caller, not swallowed
            self.error = exc

    def end(self) -> None:
        """On the event loop: it has been made."""
        self.done = True
        self.wake()

    def fail(self, exc: BaseException) -> None:
        """On the event loop: nobody makes it, and this is why."""
        self.error = exc
        self.end()

    def wake(self) -> None:
        """On the event loop. Nothing if nobody waits."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def woken(self, given_up: Callable[[], None] | None = None) -> None:
        """Wait for ``wake``. Cancelled, *given_up* is called before anything else is done."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            if given_up is not None:
                given_up()
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def outcome(self) -> T:
        """Of one that is ``done``; to be asked for once."""
        if self.error is None:
            return self._value
        try:
            raise self.error
        finally:
            self.error = None  # the traceback holds this frame, and this frame the error
