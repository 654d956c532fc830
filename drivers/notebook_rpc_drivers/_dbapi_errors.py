"""What a module's exception means: whose fault, which SQLSTATE, where in the statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from notebook_rpc.errors import (
    Cancelled,
    DatabaseError,
    DatabaseUnavailable,
    NotebookError,
    NotSupported,
    QueryError,
    from_dbapi,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# The first two characters of an SQLSTATE, where they are not the statement's fault.
_CLASSES: Mapping[str, type[DatabaseError]] = {
    "08": DatabaseUnavailable,
    "0A": NotSupported,
    "53": DatabaseError,
    "54": DatabaseError,
    "57": DatabaseError,
    "58": DatabaseError,
    "F0": DatabaseError,
    "XX": DatabaseError,
}
# A server that goes down, and one that comes up.
_GOING = {"57P01", "57P02", "57P03", "57P05"}
# SQLite's result codes: busy, locked, input and output, corrupt, full.
_NOT_THE_STATEMENT = {5, 6, 10, 11, 13}
# What a module says when it has no connection any more, or what Python says in its place.
_ABOUT_CONNECTIONS = ("OperationalError", "InterfaceError", "InternalError", "OSError", "EOFError")


def sqlstate(exc: BaseException) -> str | None:
    for name in ("sqlstate", "pgcode"):
        found = getattr(exc, name, None)
        if isinstance(found, str) and len(found) == 5:
            return found
    found = _fields(exc).get("C")
    return found if isinstance(found, str) else None


def position(exc: BaseException) -> int | None:
    """In characters, from 1, in the statement as the module sent it."""
    found = _fields(exc).get("P") or getattr(getattr(exc, "diag", None), "statement_position", None)
    return int(found) if found is not None and str(found).isdecimal() else None


def may_be_lost(exc: BaseException) -> bool:
    """Whether *exc* may come from a connection that is gone: worth to find out."""
    if sqlstate(exc) is not None:
        return exc_class(exc) is DatabaseUnavailable
    names = {base.__name__ for base in type(exc).__mro__}
    # Of the modules' own classes, all are Errors; what is none is a socket's or a parser's.
    return bool(names & set(_ABOUT_CONNECTIONS)) or "Error" not in names


def exc_class(exc: BaseException) -> type[DatabaseError]:
    """The class of ours for an exception that came over a connection that still works."""
    state = sqlstate(exc)
    if state in _GOING:
        return DatabaseUnavailable
    if state is not None:
        return _CLASSES.get(state[:2], QueryError)
    if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _NOT_THE_STATEMENT:
        return DatabaseError
    # To PEP 249, an InterfaceError is the module's own, such as a parameter it cannot bind.
    found = type(from_dbapi(exc)) if isinstance(exc, Exception) else DatabaseError
    named = any(base.__name__ == "Error" for base in type(exc).__mro__)
    return QueryError if found is DatabaseUnavailable or not named else found


def translated(
    exc: Exception,
    *,
    interrupted: bool,
    lost: bool,
    before: str = "",
    after: str = "",
) -> NotebookError:
    """Ours for *exc*, which becomes its cause."""
    kind: type[NotebookError]
    if interrupted:
        kind = Cancelled
    elif lost:
        kind = DatabaseUnavailable
    else:
        kind = exc_class(exc)
        # Only a connection that is gone says so: the caller gives it up.
        kind = DatabaseError if kind is DatabaseUnavailable else kind
    error = kind(f"{before}{_message(exc)}{after}")
    error.sqlstate = sqlstate(exc)
    return error


def _fields(exc: BaseException) -> Mapping[str, Any]:
    """PostgreSQL's fields of an error, as pg8000 has them."""
    first = exc.args[0] if exc.args else None
    return first if isinstance(first, dict) else {}


def _message(exc: BaseException) -> str:
    fields = _fields(exc)
    if "M" in fields:
        return "\n".join(str(fields[key]) for key in "MDH" if key in fields)
    match exc.args:
        case (int(number), str(message)):  # MySQL's
            return f"{message} ({number})"
    return str(exc).strip() or type(exc).__name__
