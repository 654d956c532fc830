"""Calls that run beside the check, on threads of their own, because they may hang."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from notebook_rpc.conformance.outcomes import Failed, Skipped
from notebook_rpc.driver import SupportsInterrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_rpc.driver import Connection

T = TypeVar("T")

STUBBORN: Final = 10.0  # seconds of interrupts after which a call counts as not to be stopped
BETWEEN: Final = 0.005  # seconds between two interrupts


class Call(Generic[T]):
    """A call on another thread. The thread is a daemon: one that hangs must not keep us here."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or does within so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def outcome(self) -> T:
        """What it returned or raised, once it has ended."""
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _run(self) -> None:
        try:
            self._value.append(self._work())
        except BaseException as exc:  # noqa: BLE001  # raised by outcome()
            self._error = exc


class Turns:
    """Calls on one connection and interrupts of them, by the rule of the port: a call does not
    begin while an interrupt runs."""

    def __init__(self, connection: Connection) -> None:
        self._interrupt = interrupt_of(connection)
        self._lock = threading.Lock()
        self._running = False

    def call(self, work: Callable[[], T]) -> T:
        with self._lock:
            self._running = True
        try:
            return work()
        finally:
            with self._lock:
                self._running = False

    def interrupt(self) -> None:
        """Interrupt the call that runs, if one does."""
        with self._lock:
            if self._running:
                self._interrupt()

    def interrupt_until(self, call: Call[T]) -> bool:
        """Interrupt again and again until *call* has ended; False if it never does."""
        deadline = time.monotonic() + STUBBORN
        while not call.ended(BETWEEN):
            if time.monotonic() > deadline:
                return False
            self.interrupt()
        return True


def interrupt_of(connection: Connection) -> Callable[[], None]:
    """What interrupts *connection*, and fails the check if it raises."""
    if not isinstance(connection, SupportsInterrupt):
        raise Skipped("the driver cannot interrupt a call")
    own = connection.interrupt

    def interrupt() -> None:
        try:
            own()
        except Exception as exc:
            raise Failed(f"interrupt() must not raise, but did: {exc!r}") from exc

    return interrupt
