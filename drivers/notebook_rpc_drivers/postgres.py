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
have a snapshot. So every statement runs in a READ ONLY transaction that has one, be it the
user's or a hidden one. PostgreSQL does not count as writing what leaves its tables alone: files
written by COPY ... TO and lo_export, functions that stop other sessions, connections of dblink to
elsewhere. Those need rights that a user for reading should not have. What cannot run in
a transaction, such as VACUUM, cannot run at all; isolation levels belong to BEGIN.

It refuses COPY from and to a client, which it does not have.

Properties: ``host``, ``port``, ``username``, ``password``, ``database``, and libpq's parameters
by their names. A server that vanishes is noticed after about a minute, and one that does not
answer at all when connecting after 10 seconds (``connect_timeout``).
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq import Conninfo, ExecStatus, Format, TransactionStatus

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams, NotebookError, QueryError
from notebook_rpc.model import Column, ResultColumn, Table, Transaction, unique_names
from notebook_rpc.sansio.sqltext import POSTGRES, statements
from notebook_rpc.sansio.values import TextRows
from notebook_rpc_drivers import _postgres_sql as rules
from notebook_rpc_drivers._postgres_sql import Prepared
from notebook_rpc_drivers._postgres_wire import Wire, failed, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psycopg.pq.abc import PGresult

    from notebook_rpc.model import Parameters
    from notebook_rpc.sansio.sqltext import Statement
    from notebook_rpc_drivers._postgres_wire import Query

Row = tuple[Any, ...]

# A hint and no more: with it wrong, a statement would run in the other way, which is right, too.
_WITH_ROWS: Final = {"SELECT", "VALUES", "TABLE", "WITH"}
# What PostgreSQL says of a statement that has no cursor, before it runs any of it:
# syntax_error, feature_not_supported (WITH ... that writes), invalid_cursor_definition.
_NO_CURSOR: Final = {"42601", "0A000", "42P11"}

_DECLARE: Final = b"DECLARE notebook_rpc NO SCROLL CURSOR FOR "
_FETCH: Final = b"FETCH FORWARD %d FROM notebook_rpc"
_SAVE: Final = b"SAVEPOINT notebook_rpc"
_RELEASE: Final = b"RELEASE SAVEPOINT notebook_rpc"
_UNDO: Final = b"ROLLBACK TO SAVEPOINT notebook_rpc"

# Rows that come with the first trip to the server: one more than the services read ahead, so
# that the end of a small result is seen at once.
_FIRST: Final = 101
_MOST_ROWS: Final = 8192
_MOST_BYTES: Final = 16 * 1024 * 1024  # of one FETCH, if the rows before are any guide

# The session's settings, unless the user's own options say otherwise. A cursor is planned for
# its first rows; ours is most often read to the end, and small.
_OPTIONS: Final = (
    "-c datestyle=ISO -c intervalstyle=iso_8601 -c extra_float_digits=1 -c bytea_output=hex"
    " -c cursor_tuple_fraction=1"
)
_READ_ONLY: Final = " -c default_transaction_read_only=on"
_DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "fallback_application_name": "notebook_rpc",
}


class _Result:
    """The rows of an open cursor, or all there are."""

    def __init__(
        self, connection: _Connection, got: PGresult, *, text: bool, streaming: bool, count: int
    ) -> None:
        self.columns: list[ResultColumn] = []
        self.count = count
        self.streaming = streaming
        self._connection = connection
        self._failure: NotebookError | None = None
        self._closed = False
        self._loader = Transformer(connection.adapt)
        self._got = got
        self._at = 0  # rows of _got that have been handed out
        self._step = _MOST_ROWS
        if got.nfields:
            self._describe(got, text=text)
        self._take(got)

    def fetch(self, limit: int, /) -> list[Row]:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise QueryError("the result is closed")
        try:
            return self._fetch(limit)
        except NotebookError as failure:
            self._failure = failure
            self.streaming = False
            raise

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._got.clear()
            if self.streaming:
                self.streaming = False
                self._connection.end_stream()

    def _fetch(self, limit: int) -> list[Row]:
        rows = self._load(limit)
        while self.streaming and len(rows) < limit:
            # One more, to see the end with the last row and not after it.
            wanted = min(limit - len(rows) + 1, self._step)
            got, self.streaming = self._connection.fetch_more(wanted)
            self._take(got)
            rows += self._load(limit - len(rows))
        return rows

    def _take(self, got: PGresult) -> None:
        self._got = got
        self._at = 0
        self._loader.set_pgresult(got, set_loaders=False)
        sample = range(0, got.ntuples, 1 + got.ntuples // 8)
        sizes = [len(got.get_value(n, k) or b"") for n in sample for k in range(got.nfields)]
        if sample:
            self._step = max(1, min(_MOST_ROWS, _MOST_BYTES * len(sample) // (1 + sum(sizes))))

    def _load(self, limit: int) -> list[Row]:
        until = min(self._at + limit, self._got.ntuples)
        try:
            rows = self._loader.load_rows(self._at, until, tuple)
        except (psycopg.Error, ValueError, RecursionError) as exc:
            raise QueryError(f"a value cannot be read: {exc}") from exc
        self._at = until
        return rows

    def _describe(self, got: PGresult, *, text: bool) -> None:
        oids = [got.ftype(number) for number in range(got.nfields)]
        modifiers = [got.fmod(number) for number in range(got.nfields)]
        kinds = [rules.type_name(*pair) for pair in zip(oids, modifiers, strict=True)]
        if None in kinds:
            told = self._connection.type_names(oids, modifiers)
            kinds = [kind or name for kind, (name, _) in zip(kinds, told, strict=True)]
            # Of one's own types, too, an array is a list.
            oids = [
                rules.TEXTS if array == "t" and rules.is_unknown(oid) else oid
                for oid, (_, array) in zip(oids, told, strict=True)
            ]
        encoding = self._connection.encoding
        names = unique_names(
            (got.fname(number) or b"").decode(encoding, "replace") for number in range(got.nfields)
        )
        self.columns = [
            ResultColumn(name, kind or "") for name, kind in zip(names, kinds, strict=True)
        ]
        seen = [rules.text_type(oid) for oid in oids] if text else oids
        self._loader.set_loader_types(seen, Format.TEXT)
