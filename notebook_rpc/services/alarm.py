"""An alarm for what is done on the event loop itself, where nobody else could say: that is enough.

It is a thread that looks now and then, and is not told of each call: that would take as long as the
calls are meant to.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

logger = logging.getLogger(__name__)

TICK: Final = 0.0025  # seconds; who has begun before the last look, and has not ended, is late
IDLE: Final = 400  # looks that saw nobody, after which it sleeps until somebody begins


class Overdue(Exception):
    """What was called took too long and was interrupted. It has ended, in whatever way."""


class Alarm:
    def __init__(self) -> None:
        self._guard = threading.Lock()  # of all below; held for as long as an interrupt takes
        self._interrupt: Callable[[], None] | None = None  # of the call that runs
        self._calls = 0
        self._rang = False
        self._awake = False
        self._closed = False
        self._wake = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def around(self, work: Callable[[], T], interrupt: Callable[[], None]) -> T:
        """Call *work*; *interrupt* is called, again and again, when it has taken one to two
        ``TICK``s. One call at a time, and none after ``close``.

        Raises:
            Overdue: it was interrupted.
            RuntimeError: the system gives no thread; *work* was not called.
        """
        self._begin(interrupt)
        try:
            done = work()
        except Exception as exc:
            if self._end():
                raise Overdue from exc
            raise
        except BaseException:
            self._end()
            raise
        if self._end():
            raise Overdue
        return done

    def close(self) -> None:
        """End the thread, which takes a ``TICK`` at most."""
        with self._guard:
            self._closed = True
            self._wake_up()
        if self._thread is not None:
            self._thread.join()

    def _begin(self, interrupt: Callable[[], None]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="notebook-rpc-alarm", daemon=True)
            thread.start()
            self._thread = thread
        with self._guard:
            self._interrupt = interrupt
            self._calls += 1
            self._rang = False
            self._wake_up()

    def _end(self) -> bool:
        """Whether it was interrupted; it will not be any more."""
        with self._guard:
            self._interrupt = None
            return self._rang

    def _wake_up(self) -> None:
        if not self._awake:
            self._awake = True
            self._wake.release()

    def _serve(self) -> None:
        while not self._closed:
            self._wake.acquire()
            seen = idle = 0
            while self._awake and not self._closed:
                time.sleep(TICK)
                with self._guard:
                    idle = idle + 1 if self._calls == seen else 0
                    if self._calls == seen and self._interrupt is not None:
                        idle = 0
                        self._ring(self._interrupt)
                    seen = self._calls
                    self._awake = idle < IDLE

    def _ring(self, interrupt: Callable[[], None]) -> None:
        self._rang = True
        try:
            interrupt()
        except Exception:  # a bug in the driver; the call is waited for all the same
            logger.exception("an interrupt failed")
