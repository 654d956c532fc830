"""SQLite, inside this process: a connection of its own for each session.

SQLite has no catalogs, so ``catalog`` is always ""; ``schema`` is the name a file is attached
under: main, temp, or what ATTACH said. Results have no column types, because the module
does not tell them and SQLite's values carry their own. Text that is not UTF-8, which SQLite
stores without a word, comes as bytes.

What it refuses: to change the journal mode of somebody's file, and to let SQLite sleep while
the file is locked, because that sleep cannot be interrupted.

Read-only: SQLite opens the file, or the database in memory, with ``mode=ro``; what would get around
that, or change what all connections of the process share, ``_sqlite_limits.py`` forbids.

Properties: ``database``, a path; none or ":memory:" is a database in memory, shared by the
sessions. ``mode``: ro, rw or rwc (the default, which creates the file). ``timeout``: how many
seconds to wait for a lock; 5 if not given.
"""

from __future__ import annotations

import re
import stat
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams, NotebookError
from notebook_rpc_drivers._sqlite_connection import Connection
from notebook_rpc_drivers._sqlite_limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class _Database:
    def __init__(self, path: str, mode: str, patience: float, limits: Limits) -> None:
        self._path = path
        self._patience = patience
        self._mode = mode
        self._limits = limits
        if path == ":memory:":
            self._uri = f"file:/{uuid.uuid4().hex}?vfs=memdb&mode="
        else:
            self._uri = f"{_regular(path).as_uri()}?mode="
        # In memory, a database lives as long as a connection to it. Elsewhere this one finds
        # out at once what SQLite would notice with the first statement.
        self._first = self.connect()
        try:
            self._first.execute("PRAGMA schema_version").close()
        except NotebookError as exc:
            self._first.close()
            raise DatabaseUnavailable(f"{path}: {exc}") from exc.__cause__

    @property
    def description(self) -> str:
        return "SQLite in memory" if self._path == ":memory:" else f"SQLite {self._path}"

    def connect(self) -> Connection:
        return self._connected(self._mode, self._limits)

    def connect_read_only(self) -> Connection:
        return self._connected("ro", replace(self._limits, read_only=True))

    def _connected(self, mode: str, limits: Limits) -> Connection:
        shared = self._path != ":memory:"
        try:
            return Connection(self._uri + mode, self._patience, limits, shared=shared)
        except NotebookError as exc:
            raise DatabaseUnavailable(f"{self._path}: {exc}") from exc.__cause__

    def close(self) -> None:
        self._first.close()  # the last to close a file in WAL mode checkpoints it


def _regular(path: str) -> Path:
    """The absolute path; SQLite would wait for somebody to write into a pipe."""
    try:
        mode = Path(path).stat().st_mode
    except ValueError as exc:  # not in the file system's encoding, or a null character
        raise InvalidParams(f"property database: {exc}") from exc
    except OSError:
        mode = stat.S_IFREG  # SQLite makes it, or says why not
    if not stat.S_ISREG(mode):
        raise DatabaseUnavailable(f"{path} is not a regular file")
    return Path(path).absolute()


class _Driver:
    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        self._folders = folders

    def within(self, folders: Sequence[Path], /) -> _Driver:
        return _Driver(folders)

    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> _Database:
        given = dict(properties)
        path = given.pop("database", "") or ":memory:"
        if read_only and path == ":memory:":
            raise InvalidParams("a database in memory cannot be read-only: it would stay empty")
        mode = given.pop("mode", "ro" if read_only else "rwc")
        timeout = given.pop("timeout", "5")
        if given:
            raise InvalidParams(f"property {min(given)}: SQLite takes database, mode and timeout")
        if mode not in ("ro", "rw", "rwc"):
            raise InvalidParams(f"property mode: {mode!r} is none of ro, rw, rwc")
        if read_only and mode != "ro":
            raise InvalidParams(f"property mode: {mode} is not read-only")
        if not re.fullmatch(r"\d{1,9}(\.\d*)?", timeout, re.ASCII):
            raise InvalidParams(f"property timeout: {timeout!r} is no number of seconds")
        return _Database(path, mode, float(timeout), Limits(read_only, self._folders))


DRIVER = _Driver()
