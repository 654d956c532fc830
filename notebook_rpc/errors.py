"""Every failure that reaches a client: its slug, its JSON-RPC code, its HTTP status.

Raise a leaf; catch the root at a surface's edge. Slugs are stable: clients match on
them, and docs/errors.md lists them all.
"""

from __future__ import annotations

from typing import ClassVar, Self


class NotebookError(Exception):
    """Something went wrong that the client should hear about.

    ``sqlstate`` and ``position`` (in characters, from 1, into the SQL as it was sent)
    are set where the database tells them.
    """

    slug: ClassVar[str] = "internal-error"
    rpc_code: ClassVar[int] = -32603  # JSON-RPC 2.0, section 5.1
    http_status: ClassVar[int] = 500

    sqlstate: str | None = None
    position: int | None = None

    def again(self, message: str | None = None) -> Self:
        """The same failure for one more who is told of it, as an exception is raised once; or in
        other words, with all else that is known of it."""
        again = type(self)(str(self) if message is None else message)
        again.__dict__.update(self.__dict__)
        again.__cause__ = self
        return again


class ParseError(NotebookError):
    """The request is not JSON."""

    slug, rpc_code, http_status = "parse-error", -32700, 400


class InvalidRequest(NotebookError):
    """The request is JSON, but not a request of its protocol."""

    slug, rpc_code, http_status = "invalid-request", -32600, 400


class MethodNotFound(NotebookError):
    slug, rpc_code, http_status = "method-not-found", -32601, 404


class InvalidParams(NotebookError):
    """The method exists; its parameters do not fit it."""

    slug, rpc_code, http_status = "invalid-params", -32602, 400


class WrongState(NotebookError):
    """The call is legal, but not in the session's present state."""

    slug, rpc_code, http_status = "wrong-state", -32001, 409


class UnknownSession(NotebookError):
    """There is no such session, or it has ended."""

    slug, rpc_code, http_status = "unknown-session", -32002, 404


class TooManySessions(NotebookError):
    """No more sessions can be made until others end."""

    slug, rpc_code, http_status = "too-many-sessions", -32003, 503


class UnknownConnection(NotebookError):
    """The server has no database of this name."""

    slug, rpc_code, http_status = "unknown-connection", -32004, 404


class Forbidden(NotebookError):
    """The user's token does not allow it, or no client may: to name it so, or to reach it."""

    slug, rpc_code, http_status = "forbidden", -32005, 403


class Busy(NotebookError):
    """As many calls wait as may; this one was not begun."""

    slug, rpc_code, http_status = "busy", -32006, 503


class TooManyConnections(NotebookError):
    """Clients have registered as many databases as they may."""

    slug, rpc_code, http_status = "too-many-connections", -32007, 503


class DatabaseError(NotebookError):
    """The database refused or failed. ``__cause__`` is the driver's own exception."""

    slug, rpc_code, http_status = "database-error", -32010, 500


class QueryError(DatabaseError):
    """The statement or its data are at fault: syntax, names, types, constraints."""

    slug, rpc_code, http_status = "query-error", -32011, 400


class UnknownTable(QueryError):
    """There is no table or view of this name."""

    slug, rpc_code, http_status = "unknown-table", -32016, 404


class Conflict(QueryError):
    """Another transaction got in the way; to run it again may succeed.

    ``alone`` says that nothing else would be repeated: no transaction was open, and no
    statement of the same text had run before.
    """

    slug, rpc_code, http_status = "conflict", -32015, 409

    alone: bool = False


class DatabaseUnavailable(DatabaseError):
    """The database cannot be opened or reached, or the connection to it broke."""

    slug, rpc_code, http_status = "database-unavailable", -32012, 503


class MissingDriver(DatabaseUnavailable):
    """A driver is known, and what it needs is not installed; ``module`` is what it lacks."""

    slug, rpc_code, http_status = "missing-driver", -32018, 501

    module: str = ""


class NotSupported(DatabaseError):
    """The driver or its database has no such thing."""

    slug, rpc_code, http_status = "not-supported", -32013, 501


class QueryTimeout(NotebookError):
    """The call took longer than it may, and was interrupted."""

    slug, rpc_code, http_status = "query-timeout", -32014, 504


class HandlerTimeout(NotebookError):
    """A handler of the user's took longer than it may."""

    slug, rpc_code, http_status = "handler-timeout", -32017, 504


class NotKept(NotebookError):
    """The file of connections that are to be kept cannot be read or written."""

    slug, rpc_code, http_status = "not-kept", -32019, 500


class NotAcceptable(NotebookError):
    """The answer cannot be what the client accepts."""

    slug, rpc_code, http_status = "not-acceptable", -32020, 406


class Cancelled(NotebookError):
    """The call was stopped before its end, by request or because the server stops."""

    slug, rpc_code, http_status = "cancelled", -32800, 499


# PEP 249 fixes these names, so no driver module needs importing to recognise them.
# OperationalError is absent on purpose: sqlite3 raises it for a syntax error.
_FROM_PEP249: dict[str, type[DatabaseError]] = {
    "InterfaceError": DatabaseUnavailable,
    "InternalError": DatabaseError,
    "NotSupportedError": NotSupported,
    "Error": QueryError,
}


def from_dbapi(exc: Exception) -> DatabaseError:
    """Translate a driver's exception: the nearest known name in its MRO decides.

    The caller raises the result ``from`` *exc*.
    """
    names = (base.__name__ for base in type(exc).__mro__)
    found = next((_FROM_PEP249[name] for name in names if name in _FROM_PEP249), DatabaseError)
    return found(str(exc))
