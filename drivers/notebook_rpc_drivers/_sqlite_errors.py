"""SQLite's exceptions as ours, by the codes that SQLite gives them.

What it refuses: to call a file that is damaged, or a disk that is full, a fault of the statement.
"""

from __future__ import annotations

import sqlite3

from notebook_rpc.errors import (
    Cancelled,
    Conflict,
    DatabaseError,
    NotebookError,
    QueryError,
    UnknownTable,
)

LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NOT_THE_STATEMENT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}


def result_code(exc: Exception) -> int:
    """SQLite's primary result code; 0 if the error is Python's."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def translated(exc: Exception, before: str = "", after: str = "") -> NotebookError:
    message = f"{before}{exc}{after}"
    code = result_code(exc)
    if code == sqlite3.SQLITE_INTERRUPT:
        return Cancelled(message)
    if code in LOCKED:
        return Conflict(message)  # not ``alone``: it has been tried for as long as it may
    if code in _NOT_THE_STATEMENT:
        return DatabaseError(message)
    if str(exc).startswith("no such table: "):
        return UnknownTable(message)
    return QueryError(message)
