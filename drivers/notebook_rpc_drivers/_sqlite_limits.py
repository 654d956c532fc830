"""What a SQLite connection may not do, where it is read-only or its files are bounded.

SQLite's authorizer asks this before it prepares a statement. That nothing is written to the
database itself is no matter of this file: it is opened with ``mode=ro``.

What it refuses: names of files that are no literals, because they are known too late, and URIs,
which could name another VFS.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Pragmas that only tell, also where they are given something; all others set something then.
_TELLING = {"foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo"}
_TELLING |= {"integrity_check", "quick_check", "table_info", "table_list", "table_xinfo"}
_ACTING = {"incremental_vacuum", "optimize", "wal_checkpoint"}  # given nothing
_FOLDERS = {"data_store_directory", "temp_store_directory"}  # of the whole process
_NO_FILE = ("", ":memory:")


@dataclass(frozen=True)
class Limits:
    """*folders* are the only ones in which other files may be attached; None: they may anywhere."""

    read_only: bool = False
    folders: Sequence[Path] | None = None

    def allow(self, action: int, first: str | None, second: str | None) -> bool:
        """Of an action and its arguments, as the authorizer has them."""
        if action == sqlite3.SQLITE_ATTACH:  # VACUUM INTO attaches its file, too
            # The file is read-only; another one, or this one a second time, would not be.
            return not self.read_only and self._reaches(first)
        if action == sqlite3.SQLITE_PRAGMA:
            name = (first or "").lower()
            sets = name in _ACTING if second is None else name not in _TELLING
            # Some set what all connections of the process share, or keep a lock.
            return not (sets and (self.read_only or self._bounds(name)))
        return True

    def _bounds(self, pragma: str) -> bool:
        return self.folders is not None and pragma in _FOLDERS

    def _reaches(self, name: str | None) -> bool:
        if self.folders is None or name in _NO_FILE:
            return True
        if name is None or name.startswith("file:"):
            return False
        path = Path(name).resolve()
        return any(path.is_relative_to(folder) for folder in self.folders)
