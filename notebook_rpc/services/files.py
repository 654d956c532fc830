"""Files of a folder, opened and read on threads.

A path is taken apart and opened folder by folder, so that there is no way out of the folder: no
segment may be ``..`` or have a separator in it, and no symbolic link is followed. Hidden files,
whose names begin with a dot, are not there, but for ``.well-known`` (RFC 8615).

The threads are of a number of their own, as those that compress are: to look at a file must not
wait for a database, and no download that has begun may fail for want of a worker. It refuses to
open anything but files, pipes and devices above all.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from notebook_rpc.services.workers import Workers

T = TypeVar("T")

SMALL: Final = 64 * 1024  # bytes that are read with the file's opening
READERS: Final = 8  # at a time; a disk is not faster for more, and one that hangs takes no more
_MISSING: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG, errno.EMLINK}
    | {errno.ENXIO}  # a Unix socket, or a device that nobody has
)
_FLAGS: Final = (  # O_NONBLOCK: to open a pipe must not wait for who writes into it
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip


class Run(Protocol):
    """Has work done on a thread."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


class Files:
    def __init__(self, workers: Workers, limit: int = READERS) -> None:
        """*limit* are opened or read at a time."""
        self._workers = workers
        self._slots = trio.Semaphore(limit)

    async def open(self, folder: Path, segments: Sequence[str]) -> File | None:
        """What is at *segments* below *folder*, to be closed by the caller. None if it is neither
        a file nor a folder, or not to be reached.

        Raises:
            OSError: the system fails.
        """
        if not all(map(_is_plain, segments)):
            return None
        return await self._run(partial(_opened, folder, segments, self._run))

    async def _run(self, work: Callable[[], T], /) -> T:
        async with self._slots:
            return await self._workers.run_beyond(work)


@dataclass(slots=True)
class File:
    """One that has been opened. ``changed`` is in seconds; ``version`` is another one when the
    file is."""

    name: str
    size: int
    changed: int
    version: str
    is_folder: bool
    run: Run
    content: bytes | None = None
    """All of it, if that is little."""
    descriptor: int = -1

    async def read(self, start: int, size: int) -> bytes:
        """At most so many bytes from there; by one task at a time.

        Raises:
            OSError: the system fails.
        """
        return await self.run(partial(self._read, start, size))

    def close(self) -> None:
        """May be called again; not while it is being read."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    def _read(self, start: int, size: int) -> bytes:
        os.lseek(self.descriptor, start, os.SEEK_SET)
        return os.read(self.descriptor, size)


def _is_plain(segment: str) -> bool:
    if segment.startswith(".") and segment != ".well-known":
        return False
    return bool(segment) and not set("\0/\\:") & set(segment)


def _opened(folder: Path, segments: Sequence[str], run: Run) -> File | None:
    """On a thread."""
    try:
        descriptor = _descend(folder, segments)
    except OSError as exc:
        if exc.errno in _MISSING:
            return None
        raise
    kept = False
    try:
        status = os.fstat(descriptor)
        version = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
        is_folder = stat.S_ISDIR(status.st_mode)
        changed = int(status.st_mtime)
        file = File(segments[-1], status.st_size, changed, version, is_folder, run)
        if is_folder:
            return file
        if not stat.S_ISREG(status.st_mode):
            return None
        if file.size <= SMALL:
            file.content = os.read(descriptor, SMALL)
            file.size = len(file.content)
        else:
            file.descriptor = descriptor
            kept = True
        return file
    finally:
        if not kept:
            os.close(descriptor)


def _descend(folder: Path, segments: Sequence[str]) -> int:
    if os.open not in os.supports_dir_fd:  # Windows: between the two somebody could make a link
        path = folder.joinpath(*segments)
        if path.resolve(strict=True) != path:
            raise FileNotFoundError(errno.ENOENT, "a link", str(path))
        return os.open(path, _FLAGS)
    at = os.open(folder, _FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for segment in segments:
            above, at = at, os.open(segment, _FLAGS, dir_fd=at)
            os.close(above)
    except BaseException:
        os.close(at)
        raise
    return at
