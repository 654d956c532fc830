"""What systemd offers a service: sockets that are open before it starts, and somebody to tell how
it is. Everywhere else none of this happens.

Source: sd_listen_fds(3) and sd_notify(3).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc.settings import ConfigError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

logger = logging.getLogger(__name__)

FIRST: Final = 3  # SD_LISTEN_FDS_START


def inherited(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that were handed to this process, if any. They are handed over once:
    the variables that told of them are removed.

    Raises:
        ConfigError: there are not as many, or one of them is something else.
    """
    meant_for = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(os.getpid()) or not count.isdecimal():
        return []
    sockets: list[socket.socket] = []
    number = FIRST
    try:
        for number in range(FIRST, FIRST + int(count)):
            sockets.append(socket.socket(fileno=number))
            if not sockets[-1].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "not a socket that listens")
    except (OSError, ValueError) as exc:  # the latter of more digits than int() takes
        for sock in sockets:
            sock.detach()  # and not closed: it may be somebody else's in this process
        reason = getattr(exc, "strerror", None) or "no number"
        raise ConfigError(f"LISTEN_FDS is wrong: descriptor {number}: {reason}") from exc
    for sock in sockets:
        os.set_inheritable(sock.fileno(), False)
    return sockets


class Notifier:
    """Tells the service manager how we are; where there is none, nobody."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """The variables are removed: they are not meant for processes we might start."""
        self._address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        meant_for = environ.pop("WATCHDOG_PID", str(os.getpid()))
        wanted = microseconds.isdecimal() and meant_for == str(os.getpid())
        self._interval = int(microseconds) / 2e6 if wanted else None

    def tell(self, state: str) -> None:
        """Such as ``READY=1``. What cannot be told is logged: we are none the worse for it."""
        if not self._address:
            return
        abstract = self._address.startswith("@")
        address = "\0" + self._address[1:] if abstract else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), address)
        except OSError as exc:
            logger.warning("cannot tell the service manager %s: %s", state, exc)

    async def watchdog(self) -> None:
        """Say that the event loop turns, as often as is wanted, until cancelled."""
        if self._interval is None:
            return
        while True:
            self.tell("WATCHDOG=1")
            await trio.sleep(self._interval)
