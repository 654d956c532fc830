"""Listening sockets on TCP and Unix addresses.

Refuses to replace a socket that somebody listens on, and to leave one open if another fails.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

BACKLOG = 1024  # connections the kernel holds for us; it lowers this to its own limit
LOCK_SECONDS = 10  # a server that starts holds the lock for one at most


async def open_tcp(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of *host*; with port 0, all on one free port.

    "localhost" is 127.0.0.1 and ::1, whatever a resolver may say (RFC 6761, 6.3): browsers
    do the same, and no name server can make us listen elsewhere.

    Raises:
        OSError: there is no such host, or the address is taken or not ours.
    """
    addresses: list[tuple[int, tuple[object, ...]]] = []
    try:
        for name in ("127.0.0.1", "::1") if host == "localhost" else (host,):
            found = await trio.socket.getaddrinfo(
                name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            addresses += [(family, address) for family, _, _, _, address in found]
    except (OSError, UnicodeError) as exc:  # a name too odd for IDNA is a UnicodeError
        number = exc.errno if isinstance(exc, OSError) else errno.EINVAL
        raise OSError(number, f"cannot listen on {host}: {exc}") from exc
    attempts = 8 if port == 0 else 1  # a port that is free for IPv4 may be taken for IPv6
    while True:
        attempts -= 1
        try:
            return _bind_all(dict.fromkeys(addresses))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or attempts == 0:
                reason = os.strerror(exc.errno) if exc.errno else str(exc)
                message = f"cannot listen on {host} port {port}: {reason}"
                raise OSError(exc.errno, message) from exc


def _bind_all(addresses: Iterable[tuple[int, tuple[object, ...]]]) -> list[socket.socket]:
    bound: list[socket.socket] = []
    missing: OSError | None = None
    port: object = 0
    try:
        for family, address in addresses:
            chosen = (address[0], address[1] or port, *address[2:])
            try:
                bound.append(_bind(family, chosen))
            except OSError as exc:
                # "localhost" is ::1 too, also where IPv6 is switched off.
                if exc.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                missing = exc
            else:
                port = bound[-1].getsockname()[1]
        if not bound and missing is not None:
            raise missing
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def _bind(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # there it would let others bind the same port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def open_unix(path: Path) -> socket.socket:
    """A listening socket at *path* that this user alone may connect to (mode 0600).

    One that a server has left behind is replaced; one that is listened on is not.

    Raises:
        OSError: it is in use, something else is there, or the folder is not ours to write.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under another name until its mode is right: nobody connects before.
    fresh = path.parent / f".{path.name}.{os.getpid()}"
    try:
        with locked(path.parent):
            if _is_listened_on(path):
                raise OSError(errno.EADDRINUSE, f"cannot listen on {path}: somebody does already")
            fresh.unlink(missing_ok=True)
            sock.bind(str(fresh))
            fresh.chmod(0o600)
            sock.listen(BACKLOG)
            fresh.rename(path)
    except (OSError, ValueError) as exc:  # the latter of names that are none
        sock.close()
        fresh.unlink(missing_ok=True)
        number = exc.errno if isinstance(exc, OSError) else errno.EINVAL
        reason = getattr(exc, "strerror", None) or str(exc)  # "AF_UNIX path too long" has no number
        if not reason.startswith("cannot"):
            reason = f"cannot listen on {path}: {reason}"
        raise OSError(number, reason) from exc
    return sock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other servers from putting their sockets into *folder*, or removing them, meanwhile.

    Of two that start at once, each would find that nobody listens, and replace the other's. The
    folder itself is locked, which leaves no file behind.

    Raises:
        OSError: it is not there, or somebody holds the lock for very long.
    """
    import fcntl  # noqa: PLC0415  # POSIX only, as Unix sockets are to Python

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # nothing is served yet, or no more
            except OSError as exc:  # NFS, for one, locks no folders
                logger.debug("cannot lock %s: %s", folder, exc)
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _is_listened_on(path: Path) -> bool:
    """Raises ``OSError`` if what is there is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f"cannot listen on {path}: it exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except (BlockingIOError, TimeoutError):  # its backlog is full: somebody is there, and busy
            return True
    return True
