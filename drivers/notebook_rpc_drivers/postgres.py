"""PostgreSQL, through psycopg and libpq: a connection of its own for each session.

What can be read through a cursor (SELECT, VALUES, TABLE, WITH) is, so that a result of any size
streams at flat memory and the catalog can be asked in between. In autocommit mode the cursor
lives in a transaction that nobody sees, and that is committed as soon as the rows have been read
or the result is closed: until then, as with every cursor, functions with side effects have run
for the rows read so far only. No plan of a cursor is parallel. Everything else (INSERT ...
RETURNING, SHOW, EXPLAIN, EXECUTE, CALL, ...) runs as it stands, and what it returns is held here.
PostgreSQL decides which is which; no statement is ever run twice.

Parameters: ``$1`` or ``?`` by position, ``:name`` by name (see ``sansio/placeholders.py``). They
are sent without a type, as the quoted literals of psql are, so that ``id = $1`` takes 5 and "5".
A list is an array, or JSON where JSON or text is wanted; an object is JSON.

Values: text is PostgreSQL's own, of a session that begins with ISO dates, ISO 8601 intervals,
exact floats and hexadecimal bytes; who sets these otherwise sees them otherwise. Timestamps get
the T of ISO 8601, arrays are JSON, composites and ranges keep PostgreSQL's form.

Read-only: PostgreSQL's settings can be undone by any session, its transactions cannot, once they
have a snapshot. So every statement runs in a READ ONLY transaction that has one, the user's or
a hidden one; isolation levels must come with BEGIN, and VACUUM and the like cannot run. What
PostgreSQL does not call writing stays possible: locks, ANALYZE, REINDEX, NOTIFY, dblink, files
and large objects (before version 16). A role without those rights is the answer to that.

Which tables a statement writes is not told: its triggers, its rules and the functions it calls may
write any, and so may what these call, in a language of their own.

A read-only connection beside others goes further: each of its statements is a transaction, and
rolled back, with settings and large objects; a role that may write files of the server or run
programs there gets none. Advisory locks, dblink, pg_terminate_backend() of the same role and, where
they are switched on, prepared transactions are left to the role's rights.

It refuses COPY from and to a client, which it does not have.

Properties: ``host``, ``port``, ``username``, ``password``, ``database``, and libpq's parameters
by their names. A server that vanishes is noticed after about a minute, and one that does not
answer at all when connecting after 10 seconds (``connect_timeout``).
"""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import Conninfo

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams
from notebook_rpc_drivers._postgres_connection import Connection
from notebook_rpc_drivers._postgres_notices import Listener
from notebook_rpc_drivers._postgres_read_only import Reader
from notebook_rpc_drivers._postgres_rows import adapters

if TYPE_CHECKING:
    from collections.abc import Mapping

# The session's settings, unless the user's own options say otherwise. A cursor is planned for
# its first rows; ours is most often read to the end, and small.
_OPTIONS: Final = (
    "-c datestyle=ISO -c intervalstyle=iso_8601 -c extra_float_digits=1 -c bytea_output=hex"
    " -c cursor_tuple_fraction=1"
)
_READ_ONLY: Final = " -c default_transaction_read_only=on"
_KEYWORDS: Final = {"username": "user", "database": "dbname"}
_REFUSED: Final = {"replication"}  # another protocol
_DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "fallback_application_name": "notebook_rpc",
}


class Database:
    def __init__(self, parameters: Mapping[str, str], *, read_only: bool) -> None:
        self._read_only = read_only
        self._parameters = parameters
        self._adapters = adapters()
        with closing(self.open(read_only=read_only)) as connection:
            info = connection.info
            self._description = f"PostgreSQL {info.dbname} at {info.host}:{info.port}"

    @property
    def description(self) -> str:
        return self._description

    def open(self, *, read_only: bool) -> psycopg.Connection[Any]:
        given: dict[str, Any] = dict(self._parameters)
        if read_only:
            given["options"] += _READ_ONLY
        try:
            return psycopg.connect(**given, autocommit=True, context=self._adapters)
        except psycopg.ProgrammingError as exc:
            raise InvalidParams(f"the properties are malformed: {exc}") from exc
        except psycopg.Error as exc:
            for name in given:  # libpq's words; it reads them when it connects
                if f"invalid {name} value" in str(exc):
                    raise InvalidParams(f"property {name}: {exc}") from exc
            raise DatabaseUnavailable(str(exc).strip()) from exc

    def connect(self) -> Connection:
        return Connection(self, read_only=self._read_only)

    def connect_read_only(self) -> Connection:
        return Reader(self)

    def listen(self, channel: str, /) -> Listener:
        return Listener(self.open(read_only=self._read_only), channel)

    def close(self) -> None:
        """Nothing is shared by the connections."""


class _Driver:
    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> Database:
        known = {option.keyword.decode(): option for option in Conninfo.get_defaults()}
        given = {_KEYWORDS.get(name, name): value for name, value in properties.items()}
        for name in sorted(given.keys() - known.keys() | given.keys() & _REFUSED):
            raise InvalidParams(f"property {name}: libpq has no such parameter for us")
        for name, value in given.items():
            if "\0" in value or not value.isprintable():
                raise InvalidParams(f"property {name} has a character that is not printable")
        if not re.fullmatch(r"(\d{1,5}(,\d{1,5})*)?", given.get("port", ""), re.ASCII):
            raise InvalidParams(f"property port: {given['port']!r} is no port")
        options = given.get("options") or (known["options"].val or b"").decode()
        given["options"] = f"{_OPTIONS} {options}"
        return Database(_DEFAULTS | given, read_only=read_only)


DRIVER = _Driver()
