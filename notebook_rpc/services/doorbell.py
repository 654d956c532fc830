"""How threads call the event loop: they leave what is to be called, and the first rings for all.

Why not ``TrioToken.run_sync_soon``: it wakes the loop for each call, and each time the loop reads
until nothing is left. While many small queries run, one ring for several of them and one read for
each ring are a tenth more queries a second.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class _Bell(Protocol):
    """What can be waited for with ``trio.lowlevel.wait_readable`` once somebody has rung."""

    def fileno(self) -> int: ...
    def ring(self) -> None: ...
    def silence(self) -> None: ...
    def close(self) -> None: ...


class _EventFd:
    """Where there is one: on Linux."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def ring(self) -> None:
        os.eventfd_write(self._fd, 1)

    def silence(self) -> None:
        os.eventfd_read(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class _SocketPair:
    """Elsewhere."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def fileno(self) -> int:
        return self._inside.fileno()

    def ring(self) -> None:
        self._outside.send(b"\x00")  # never full: nobody rings twice before it is silenced

    def silence(self) -> None:
        self._inside.recv(4096)

    def close(self) -> None:
        self._inside.close()
        self._outside.close()


class Doorbell:
    """Lives as long as a ``trio.run`` in which somebody expects a call, or until it is closed.
    After either it may be expected again, in the same ``trio.run`` or in another."""

    def __init__(self, bell: Callable[[], _Bell] | None = None) -> None:
        self._make = bell or (_EventFd if hasattr(os, "eventfd") else _SocketPair)
        self._left: deque[Callable[[], None]] = deque()
        self._rung = False
        self._bell: _Bell | None = None
        self._scope = trio.CancelScope()
        self._ringing = threading.Lock()  # no bell is closed meanwhile: its number may be reused

    def expect(self) -> None:
        """On the event loop, before a thread is asked to ``leave`` something.

        Raises:
            OSError: the system gives no bell, as when too many files are open.
            RuntimeError: this ``trio.run`` is about to end.
        """
        if self._bell is not None:
            return
        bell, scope = self._make(), trio.CancelScope()
        try:
            # Of the system, as trio's own that does the same: it is nobody's child, and outlives
            # whoever waits for a call.
            trio.lowlevel.spawn_system_task(self._attend, bell, scope)
        except RuntimeError:
            bell.close()
            raise
        self._bell, self._scope, self._rung = bell, scope, False

    def leave(self, call: Callable[[], None]) -> None:
        """In any thread: have *call* called on the event loop, soon, and in order. It must not
        raise. Somebody who waits for it must keep ``trio.run`` from ending meanwhile, and the bell
        from being closed: else it may be called only when somebody expects a call again."""
        self._left.append(call)
        if self._rung:
            return  # whoever has rung is not heard yet, and this will be found
        with self._ringing:
            # Another's ring may have been heard by now, this call have been found, and all be over.
            if self._bell is not None and not self._rung:
                self._rung = True
                self._bell.ring()

    def close(self) -> None:
        """On the event loop, or after it: nothing is expected any more."""
        self._scope.cancel()
        with self._ringing:
            self._bell = None

    async def _attend(self, bell: _Bell, scope: trio.CancelScope) -> None:
        try:
            with scope:
                while True:
                    await trio.lowlevel.wait_readable(bell.fileno())
                    with suppress(BlockingIOError):  # woken for nothing
                        bell.silence()
                    self._rung = False  # before looking: who comes now rings again
                    for _ in range(len(self._left)):  # who comes meanwhile, the next time
                        self._left.popleft()()
        finally:
            with self._ringing:
                if self._bell is bell:
                    self._bell = None
                bell.close()
