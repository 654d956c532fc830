"""Calls that have just begun, and how many of them may be at work side by side.

An engine inside this process computes on its cores. Most calls are over in less than a millisecond,
and more of them at a time than there are cores get nothing done but in each other's way: a third of
the time goes to handing the interpreter round. A call that goes on for longer does not count any
more, so that slow ones never keep quick ones from their turn.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

YOUNG: Final = 0.001  # seconds
AT_A_TIME: Final = max(1, (os.cpu_count() or 1) - 1)  # one core is for the event loop


class Crowd:
    """Who comes first begins first."""

    def __init__(
        self,
        acquire: Callable[[trio.Lock], Awaitable[None]],
        limit: int = AT_A_TIME,
        seconds: float = YOUNG,
    ) -> None:
        """*acquire* takes the lock where calls wait, or raises."""
        self._acquire = acquire
        self._limit = limit
        self._seconds = seconds
        self._door = trio.Lock()  # fair
        self._left = trio.Event()
        self._young: dict[object, float] = {}  # when they began, the oldest first

    async def begin(self) -> object:
        """Wait until a call may begin; it must be followed by ``end``, with what this gives."""
        call = object()
        await self._acquire(self._door)
        try:
            while not self._has_room():
                self._left = trio.Event()
                with trio.move_on_at(next(iter(self._young.values())) + self._seconds):
                    await self._left.wait()
            self._young[call] = trio.current_time()
        finally:
            self._door.release()
        return call

    def end(self, call: object) -> None:
        if self._young.pop(call, None) is not None:
            self._left.set()

    def _has_room(self) -> bool:
        grown_up = trio.current_time() - self._seconds
        while self._young:
            call, began = next(iter(self._young.items()))
            if began > grown_up:
                break
            del self._young[call]
        return len(self._young) < self._limit
