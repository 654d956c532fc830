"""What went wrong, by SQLSTATE, in words that name no part of ODBC.

pyodbc's classes say little: a lost connection is an ``Error`` here and an ``OperationalError``
there. The state says more, and where a driver has but HY000 for everything, its own number does.

Sources: the ODBC reference, appendix A; PostgreSQL's appendix A, "Error Codes"; MariaDB's "Error
Codes"; SQLite's "Result Codes".
"""

from __future__ import annotations

import re
from typing import Final

import pyodbc

from notebook_rpc.errors import (
    Cancelled,
    DatabaseError,
    DatabaseUnavailable,
    NotebookError,
    NotSupported,
    QueryError,
    UnknownTable,
)

_STATE: Final = re.compile(r"[0-9A-Z]{5}")
_PREFIX: Final = re.compile(r"(?:\[[^\]]*\]\s?)+")
_NUMBERS: Final = re.compile(r"(?:\s*\((-?\d+)\))+ \(SQL\w+\)")
_CHATTER: Final = re.compile(
    r";?\s*Error while (?:executing the query|fetching the next result)\s*\Z"
)

_INTERRUPTED: Final = {"57014", "70100", "HY008", "HY018", "HYT00"}
_LOST: Final = {"HYT01", "57P01", "57P02", "57P03", "57P05"}
# MariaDB's client library: gone away, lost, lost with a reason, and a connection that is out of
# step with its server; its server: shutting down, killed.
_LOST_NUMBERS: Final = {2006, 2013, 2014, 2055, 1053, 1927}
_NO_TABLE: Final = {"42S02", "42P01"}  # the latter PostgreSQL's, which its driver passes on
_UNSUPPORTED: Final = {"0A000", "HYC00", "IM001", "0A001"}
# 07 parameters, 21-23 data and constraints, 25 the transaction's state, 3D and 3F names, 42 syntax
# and names, 44 CHECK OPTION, 45 and P0 raised by the statement itself.
_STATEMENT: Final = {
    "07",
    "0L",
    "21",
    "22",
    "23",
    "25",
    "2B",
    "34",
    "3D",
    "3F",
    "42",
    "44",
    "45",
    "P0",
}
_SQLITE_STATEMENT: Final = {1, 18, 19, 20, 25}  # error, too big, constraint, mismatch, range


def state_of(exc: Exception) -> str | None:
    """The SQLSTATE; pyodbc puts it first in the driver's errors and last in its own."""
    return next((arg for arg in exc.args if isinstance(arg, str) and _STATE.fullmatch(arg)), None)


def cleaned(exc: Exception) -> tuple[str, int]:
    """The message without the names of who passed it on, and the database's own number.

    A number of MariaDB's stays in the message: it is what one looks up.
    """
    if not isinstance(exc, pyodbc.Error):
        return str(exc), 0
    texts = [arg for arg in exc.args if isinstance(arg, str) and not _STATE.fullmatch(arg)]
    text = texts[0] if texts else str(exc)
    numbers = [int(found[1]) for found in _NUMBERS.finditer(text)]
    number = numbers[0] if numbers else 0
    text = _NUMBERS.sub(f" ({number})" if number >= 1000 else "", text)
    text = _PREFIX.sub("", text, count=1) if text.startswith("[") else text
    return _CHATTER.sub("", text).strip(), number


def translated(
    exc: Exception, *, interrupted: bool = False, before: str = "", after: str = ""
) -> NotebookError:
    """The error to raise ``from`` *exc*."""
    state = state_of(exc)
    text, number = cleaned(exc)
    found = _kind(exc, state or "", number, interrupted=interrupted)(f"{before}{text}{after}")
    found.sqlstate = state
    return found


def _kind(exc: Exception, state: str, number: int, *, interrupted: bool) -> type[NotebookError]:
    if not isinstance(exc, pyodbc.Error):
        return QueryError  # Python's own, about a parameter or a value: too large, no Unicode
    if interrupted and (state in _INTERRUPTED or number == 1317):
        return Cancelled
    if state.startswith("08") or state in _LOST or number in _LOST_NUMBERS:
        return DatabaseUnavailable
    if state in _UNSUPPORTED:
        return NotSupported
    if state in _NO_TABLE:
        return UnknownTable
    if state[:2] in _STATEMENT or isinstance(
        exc, pyodbc.ProgrammingError | pyodbc.DataError | pyodbc.IntegrityError
    ):
        return QueryError
    if "[SQLite]" in str(exc) and number in _SQLITE_STATEMENT:
        return QueryError
    return DatabaseError
