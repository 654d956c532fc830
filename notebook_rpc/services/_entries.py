"""The files of the cache: one for each result, whole or not there at all.

A file is written under another name and renamed when it is complete. It ends with its length, a
checksum over all of it and a mark, and before its first byte is served all three must be right.
Whoever reads a file that is being removed reads on.

Several processes share a folder and its bound, and nothing else: each finds only what it has
stored itself, because what it knows of the versions of its databases ends with it. So there is
no lock between them, and no ``fsync``: after a crash nobody asks for these files again.

Layout, sizes in bytes::

    the result, then the note about it, then
    8   when it expires, a float; infinity for never
    8   the length of the result
    4   the length of the note
    4   CRC-32 of all of the above
    8   the mark
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

PIECE: Final = 1 << 20  # bytes that are read or written at a time
_MARK: Final = b"NBRPC\r\n1"
_FACTS: Final = struct.Struct(">dQI")
_END: Final = struct.Struct(">I8s")
_TAIL: Final = _FACTS.size + _END.size
_PART: Final = ".part"
_BLOCK: Final = 4096  # what the smallest file takes from a disk
_ORPHANED: Final = 3600.0  # seconds since anybody wrote to a file that was never completed


class Damaged(Exception):
    """The file is not what was stored."""


class Found(NamedTuple):
    """A whole result. Its file is open, and to be closed by whoever has it."""

    file: BinaryIO
    length: int
    note: bytes


class Part:
    """A file that is being written. Every method may raise ``OSError``."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.{os.urandom(8).hex()}{_PART}")
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._crc = 0
        self._length = 0

    def write(self, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            self._write(piece)
            self._length += len(piece)

    def complete(self, note: bytes, expires: float) -> Path:
        """End the file, and return where it is."""
        self._write(note + _FACTS.pack(expires, self._length, len(note)))
        self._write(_END.pack(self._crc, _MARK))
        self._file.close()
        return self._path

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _write(self, data: bytes | memoryview) -> None:
        self._crc = zlib.crc32(data, self._crc)
        left = memoryview(data).cast("B")
        while left:  # a disk that is nearly full takes a part
            left = left[self._file.write(left) :]


class Entries:
    """The files of one folder, which other processes may use as well."""

    def __init__(self, folder: Path, max_bytes: int, owner: str | None = None) -> None:
        """Make *folder* if there is none. *owner* is in the names of the files; if None, it is
        one that nobody else has.

        Raises:
            OSError: it cannot be made, or others could write to it or read it.
        """
        _make(folder)
        self._folder = folder
        self._owner = owner or os.urandom(8).hex()
        self._max_bytes = max_bytes
        self._room = 0  # bytes that may come before somebody has to look how full it is
        self._storing = threading.Lock()

    def part(self, name: str) -> Part:
        try:
            return Part(self._path(name))
        except FileNotFoundError:  # somebody has emptied his caches, folders and all
            _make(self._folder)
            return Part(self._path(name))

    def find(self, name: str, now: float) -> Found | None:
        """Open the file, if there is one that is whole and has not expired."""
        try:
            file = self._path(name).open("rb", buffering=0)
        except FileNotFoundError:
            return None
        try:
            length, note, expires = _verified(file)
            if expires > now:
                os.utime(file.fileno())  # used last
                file.seek(0)
                return Found(file, length, note)
        except (OSError, Damaged) as exc:
            logger.warning("a damaged file of the cache is removed: %s", exc)
        file.close()
        self._path(name).unlink(missing_ok=True)
        return None

    def store(self, part: Path, name: str) -> None:
        """Let a complete file be found, and remove others for it.

        Raises:
            OSError: that cannot be done; *part* may still be there.
        """
        size = _cost(part.stat())
        with self._storing:
            if size > self._room:
                self._make_room(size)
            self._room -= size
            part.replace(self._path(name))

    def clear(self) -> None:
        """Remove what this one has stored."""
        for path in self._folder.glob(f"{self._owner}-*"):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._owner}-{name}"

    def _make_room(self, size: int) -> None:
        """Remove what was not used for longest; and what nobody will complete any more."""
        files = []
        total = 0
        orphaned = time.time() - _ORPHANED
        with os.scandir(self._folder) as listed:
            for each in listed:
                try:
                    status = each.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not each.name.endswith(_PART):
                    files.append((status.st_mtime_ns, each.path, _cost(status)))
                    total += _cost(status)
                elif status.st_mtime < orphaned:
                    Path(each.path).unlink(missing_ok=True)
        # To look costs time for every file: not each time, and never more than this goes unseen
        # of what other processes store.
        step = self._max_bytes // 8
        if total + size > self._max_bytes:
            for _, path, cost in sorted(files):
                if total + size <= self._max_bytes - step:
                    break
                Path(path).unlink(missing_ok=True)
                total -= cost
        self._room = min(self._max_bytes - total, size + step)


def _make(folder: Path) -> None:
    """Raises as ``Entries``."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not a folder of our own")
    folder.chmod(0o700)


def _cost(status: os.stat_result) -> int:
    return max(status.st_size, _BLOCK)


def _verified(file: BinaryIO) -> tuple[int, bytes, float]:
    """The length of the result, the note, and when it expires."""
    size = file.seek(0, os.SEEK_END)
    if size < _TAIL:
        raise Damaged(f"{size} bytes")
    file.seek(size - _TAIL)
    tail = _exactly(file, _TAIL)
    expires, length, noted = _FACTS.unpack_from(tail)
    crc, mark = _END.unpack_from(tail, _FACTS.size)
    if mark != _MARK or length + noted + _TAIL != size:
        raise Damaged("its end is missing")
    file.seek(0)
    found = 0
    left = length
    while left:
        piece = _exactly(file, min(left, PIECE))
        found = zlib.crc32(piece, found)
        left -= len(piece)
    note = _exactly(file, noted)
    if zlib.crc32(tail[: _FACTS.size], zlib.crc32(note, found)) != crc:
        raise Damaged("its checksum is wrong")
    return length, note, expires


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise Damaged("it ends early")
        data += more
    return data
