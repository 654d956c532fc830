"""Connections that clients want to be kept: a file for each configuration, beside the settings.

    {"version": 1, "contexts": {"default": {"sales": {"url": "postgresql://..."}}}}

Only this user can read it, as URLs may have passwords; what a URL refers to is kept as a reference.
It is replaced as a whole, so that whoever reads it, or meets it after a crash, finds the one or the
other. Servers that share a file write one after the other, each what it has read and its own.

What it refuses: to write over a file that it cannot read.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from notebook_rpc.errors import InvalidParams, NotKept
from notebook_rpc.sansio import urls
from notebook_rpc.sansio.addresses import check_name, key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

logger = logging.getLogger(__name__)

VERSION: Final = 1
TRIES: Final = 100  # to get the lock, which is held for the time of a small write
PAUSE: Final = 0.05  # seconds between them
LARGEST: Final = 16 * 1024 * 1024  # bytes; of a file that is ours


class _Connection(msgspec.Struct, forbid_unknown_fields=True):
    url: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int = VERSION
    contexts: dict[str, dict[str, _Connection]] = {}


@dataclass(frozen=True)
class Persisted:
    """Those of one configuration. Its methods block."""

    path: Path

    @classmethod
    def of(cls, configuration: str, environ: Mapping[str, str]) -> Persisted:
        """In the user's configuration folder (XDG Base Directory Specification)."""
        home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
        return cls(Path(home, "notebook-rpc", "connections", f"{configuration}.json"))

    def load(self) -> dict[str, str]:
        """The URL of each connection, by its key (``addresses.key``).

        Raises:
            NotKept: the file cannot be read, or is damaged; the message has no URL.
        """
        self._tidy()
        kept = self._read()
        return {
            key(context, name): connection.url
            for context, connections in kept.contexts.items()
            for name, connection in connections.items()
        }

    def add(self, context: str, name: str, url: str) -> None:
        """Keep it, in the place of one of the same name. When this returns, it is on the disk.

        Raises:
            NotKept: that cannot be done.
        """
        try:
            _make(self.path.parent)
            with self._alone():
                kept = self._read()
                kept.contexts.setdefault(context, {})[name] = _Connection(url)
                self._write(kept)
        except OSError as exc:
            raise NotKept(f"cannot write {self.path}: {exc.strerror or exc}") from exc

    def _read(self) -> _File:
        try:
            with self.path.open("rb") as file:
                if os.name != "nt" and os.fstat(file.fileno()).st_mode & 0o077:
                    logger.warning("others can read the URLs in %s; chmod 600 it", self.path)
                text = file.read(LARGEST + 1)
        except (FileNotFoundError, NotADirectoryError):
            return _File()
        except OSError as exc:
            raise NotKept(f"cannot read {self.path}: {exc.strerror or exc}") from exc
        if len(text) > LARGEST:
            raise NotKept(f"{self.path} is too large to be ours")
        try:
            kept = msgspec.json.decode(text, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            # Its words may be the file's own; where it is wrong, is not.
            where = exc if isinstance(exc, msgspec.ValidationError) else "not JSON"
            raise NotKept(f"{self.path} is damaged: {where}") from None
        if kept.version != VERSION:
            raise NotKept(f"{self.path} is of version {kept.version}; this server knows {VERSION}")
        self._check(kept)
        return kept

    def _check(self, kept: _File) -> None:
        for context, connections in kept.contexts.items():
            for name, connection in connections.items():
                try:
                    check_name(context, "context")
                    check_name(name, "name")
                    if not urls.is_url(connection.url):
                        raise InvalidParams("there is no ://")
                    urls.read(connection.url)
                except InvalidParams as exc:
                    where = f"{context[:40]!r}, {name[:40]!r}"
                    raise NotKept(f"{self.path} is damaged: {where}: {exc}") from None

    def _alone(self) -> AbstractContextManager[None]:
        return _alone(self.path.with_suffix(".lock"))

    def _parts(self) -> list[Path]:
        """What is being written, or was when its server was killed."""
        pattern = re.compile(rf"{re.escape(self.path.stem)}\.[^.]+\.part")
        try:
            return [each for each in self.path.parent.iterdir() if pattern.fullmatch(each.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _tidy(self) -> None:
        """Remove what nobody is writing any more: it may have URLs with passwords."""
        try:
            if self._parts():
                with self._alone():
                    self._remove_parts()
        except OSError as exc:
            logger.warning("cannot remove what is left in %s: %s", self.path.parent, exc.strerror)

    def _remove_parts(self) -> None:
        """Only who has the lock writes, and so nobody else does."""
        for each in self._parts():
            each.unlink(missing_ok=True)

    def _write(self, kept: _File) -> None:
        folder = self.path.parent
        self._remove_parts()
        # A name that nobody else has, and readable by this user only, from the beginning.
        number, name = tempfile.mkstemp(".part", f"{self.path.stem}.", folder)
        try:
            with open(number, "wb") as file:  # noqa: PTH123  # a descriptor has no path
                file.write(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        with suppress(OSError):  # where a folder cannot be opened, it needs no more than this
            _sync(folder)


def _make(folder: Path) -> None:
    """For this user only, as are those above it that are not there yet: ``mkdir(parents=True)``
    would make them for everybody."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While nobody else is who asks for the same. The lock is a file of its own, and stays: one
    that is replaced or removed would be locked by two."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        _lock(number)
        yield
    finally:
        os.close(number)  # which unlocks it


def _lock(number: int) -> None:
    try:
        import fcntl  # noqa: PLC0415  # POSIX only
    except ImportError:
        import msvcrt  # noqa: PLC0415  # Windows only

        # It tries ten times, a second apart.
        getattr(msvcrt, "locking")(number, getattr(msvcrt, "LK_LOCK"), 1)  # noqa: B009
        return
    for tries in range(TRIES):
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # to wait could not be interrupted
        except BlockingIOError:
            if tries == TRIES - 1:
                raise
            time.sleep(PAUSE)
        except OSError as exc:
            if exc.errno != errno.ENOLCK:  # some network file systems have no locks
                raise
            logger.warning("this file system has no locks; let one server use it at a time")
            return
        else:
            return
