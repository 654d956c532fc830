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
import sqlite3
import stat
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from notebook_rpc.errors import (
    Cancelled,
    Conflict,
    DatabaseError,
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    QueryError,
    UnknownTable,
)
from notebook_rpc.model import (
    Column,
    ResultColumn,
    Stability,
    Table,
    Transaction,
    unique_names,
)
from notebook_rpc.sansio.sqltext import SQLITE, Kind, tokens
from notebook_rpc_drivers import _sqlite_describe
from notebook_rpc_drivers._sqlite_acts import LASTING_FUNCTIONS, PLAIN, ROOTS, STORED, Acts
from notebook_rpc_drivers._sqlite_limits import Limits
from notebook_rpc_drivers._touched import Written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from notebook_rpc.model import Parameters, Touched
    from notebook_rpc.schema import TableFacts

Row = tuple[Any, ...]

_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NOT_THE_STATEMENT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
_LONGEST_NAP = 0.05  # seconds between two tries for a lock

# How many of SQLite's instructions pass between two looks at an interrupt, where it looks itself:
# a tenth of a millisecond.
_INSTRUCTIONS = 5000

# One match is a string, a quoted name or a comment, or a semicolon. As in SQLite, a comment may
# stay open, but "/*" as the very last thing is none.
_SKIPPED_OR_END = re.compile(
    r"""'[^']*(?:'|\Z) | "[^"]*(?:"|\Z) | `[^`]*(?:`|\Z) | \[[^\]]*(?:\]|\Z)
    | --[^\n]* | /\*(?!\Z).*?(?:\*/|\Z) | ;""",
    re.DOTALL | re.VERBOSE,
)
_BLANK = r"(?:\s|--[^\n]*+|/\*(?!\Z).*?(?:\*/|\Z))"
_NOTHING = re.compile(rf"(?:;|{_BLANK})*+", re.DOTALL)
_TRIGGER = re.compile(
    rf"{_BLANK}*+(?:explain{_BLANK}++(?:query{_BLANK}++plan{_BLANK}++)?)?"
    rf"create{_BLANK}++(?:temp(?:orary)?{_BLANK}++)?trigger\b",
    re.DOTALL | re.IGNORECASE,
)
_END = re.compile(rf"{_BLANK}*+end{_BLANK}*+", re.DOTALL | re.IGNORECASE)
_RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)

# What the module says of a statement that wants parameters, and got none.
_WANTED = re.compile(r"Incorrect number of bindings supplied. The current statement uses (\d+)")


def _numbered(statement: str) -> str:
    """With ?1 for $1: to SQLite the latter is a name, and means the first of what is bound only if
    it is the first that is mentioned."""
    pieces = (
        f"?{statement[start + 1 : end]}"
        if kind is Kind.PLACEHOLDER and statement[start] == "$"
        else statement[start:end]
        for kind, start, end in tokens(statement, SQLITE)
    )
    return "".join(pieces)


def split(sql: str) -> list[str]:
    """The statements of *sql*. A trigger holds semicolons, up to the one after a lone END.

    Not by ``sqlite3.complete_statement``, which knows the same rule: asked at each semicolon
    of a long trigger, it would take quadratic time, and cannot be interrupted.
    """
    statements = []
    start = piece = 0
    in_trigger = False
    for match in _SKIPPED_OR_END.finditer(sql):
        if match[0] != ";":
            continue
        at = match.start()
        if piece == start:
            in_trigger = _TRIGGER.match(sql, start, at) is not None
        if not in_trigger or (piece > start and _END.fullmatch(sql, piece, at)):
            statements.append(sql[start : at + 1])
            start = at + 1
        piece = at + 1
    statements.append(sql[start:])
    return [statement for statement in statements if not _NOTHING.fullmatch(statement)]


def _decoded(text: bytes) -> str | bytes:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


def _code(exc: Exception) -> int:
    """SQLite's primary result code; 0 if the error is Python's."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def _translated(exc: Exception, before: str = "", after: str = "") -> NotebookError:
    message = f"{before}{exc}{after}"
    code = _code(exc)
    if code == sqlite3.SQLITE_INTERRUPT:
        return Cancelled(message)
    if code in _LOCKED:
        return Conflict(message)  # not ``alone``: it has been tried for as long as it may
    if code in _NOT_THE_STATEMENT:
        return DatabaseError(message)
    if str(exc).startswith("no such table: "):
        return UnknownTable(message)
    return QueryError(message)


class _Nulls(dict[str, None]):
    """A value for every name."""

    def __missing__(self, _: str) -> None:
        return None


class _Result:
    """A cursor with rows to come, or the rows themselves."""

    def __init__(
        self,
        connection: _Connection,
        columns: list[ResultColumn],
        cursor: sqlite3.Cursor,
        *,
        count: int = -1,
        held: list[Row] | None = None,
    ) -> None:
        self.columns = columns
        self.count = count
        self._connection = connection
        self._cursor = cursor
        self._held = deque(held) if held is not None else None
        self._ended = not columns
        self._closed = False
        self._failure: NotebookError | None = None

    @property
    def streaming(self) -> bool:
        return not self._ended and self._held is None

    def fetch(self, limit: int, /) -> list[Row]:
        if self._failure is not None:
            raise self._failure  # SQLite would begin again, or say "no more rows"
        if self._closed:
            raise QueryError("the result is closed")
        if self._held is not None:
            return [self._held.popleft() for _ in range(min(limit, len(self._held)))]
        if self._ended:
            return []
        try:
            with self._connection.calling():
                rows: list[Row] = self._cursor.fetchmany(limit)
        except NotebookError as failure:
            self._failure = failure
            raise
        self._ended = len(rows) < limit
        return rows

    def close(self) -> None:
        if not self._closed:
            self._closed = self._ended = True
            self._held = None
            self._cursor.close()


class _Connection:
    computes_here: Literal[True] = True

    def __init__(self, uri: str, patience: float, limits: Limits, *, shared: bool = True) -> None:
        """*shared*: other processes may write to the database, too."""
        self.changes = 0
        self._written = Written()
        self._uri = uri
        self._limits = limits
        self._shared = shared
        self._patience = patience
        self._result: _Result | None = None
        self._guard = threading.Lock()  # held for an instant only: interrupt() must not block
        self._busy = False
        self._beside = False  # what is busy runs beside a result that may be open
        self._interrupted = threading.Event()
        self._acts = Acts()  # of the statement that runs
        self._wrote = False  # the transaction did
        self._left = False  # a statement has left something that the next client would notice
        with self.calling():
            self._db = self._opened()

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> _Result:
        self._finish()
        try:
            sql.encode()
        except UnicodeEncodeError as exc:
            raise QueryError(f"the statement is not valid Unicode: {exc}") from exc
        if "\0" in sql:
            raise QueryError("the statement contains a null character")
        statements = split(sql)
        if not statements:
            raise QueryError("no statement")
        for number, statement in enumerate(statements, 1):
            before = after = ""
            if len(statements) > 1:
                before = f"statement {number} of {len(statements)}: "
                after = f" (after {number - 1} that ran)" if number > 1 else " (nothing ran)"
            with self.calling(before, after):
                self._acts = Acts()
                try:
                    if number < len(statements):
                        deque(self._patiently(statement), maxlen=0)  # to its last row
                    else:
                        self._result = self._last(statement, parameters)
                finally:
                    self._note_acts()
        assert self._result is not None  # noqa: S101  # there was a last statement
        return self._result

    def tables(self) -> list[Table]:
        return self._objects("table")

    def views(self) -> list[Table]:
        return self._objects("view")

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        if catalog:
            return []
        found = []
        for owner in sorted(self.tables() + self.views()):
            if schema in ("", owner.schema) and table in ("", owner.table):
                found += self._columns_of(owner)
        return found

    @property
    def transaction(self) -> Transaction:
        try:
            return Transaction.OPEN if self._db.in_transaction else Transaction.NONE
        except sqlite3.ProgrammingError:
            return Transaction.NONE  # it is closed

    def describe(self, table: Table, /) -> TableFacts:
        return _sqlite_describe.describe(self._asked, table)

    def schemas(self) -> list[str]:
        return _sqlite_describe.places(self._asked)

    def databases(self) -> list[str]:
        return _sqlite_describe.places(self._asked)

    def written(self, table: Table, /) -> str:
        return _sqlite_describe.written(table)

    def rollback(self) -> bool:
        self._finish()
        if not self._db.in_transaction:
            return False
        with self.calling():
            self._db.execute("ROLLBACK")
            self._wrote = False
            self._written.roll_back()
        return True

    def reset(self) -> None:
        self._finish()
        if self._left:
            with self.calling():
                former, self._db = self._db, self._opened()
                former.close()
            self._left = False

    def stability(self, sql: str, /) -> Stability:
        if self._left or self._db.in_transaction or "\0" in sql:
            return Stability.VOLATILE
        try:
            acts = self._acts_of(sql)
            if acts is None:
                return Stability.VOLATILE
            functions = {name for (name,) in self._ask(LASTING_FUNCTIONS)}
            stored = {name for (name,) in self._ask(STORED)}
        except QueryError:
            return Stability.VOLATILE
        if not acts.last(functions, stored):
            return Stability.VOLATILE
        return Stability.SHARED if self._shared and acts.relations else Stability.LASTING

    def reads(self, sql: str, /) -> Touched:
        if self._left or self._db.in_transaction or "\0" in sql:
            return None  # as with ``stability``
        try:
            acts = self._acts_of(sql)
            if acts is None:
                return None
            plain = {name for (name,) in self._ask(PLAIN)}
            return acts.read(plain, dict(self._ask(ROOTS)))
        except QueryError:
            return None

    def take_written(self) -> Touched:
        return self._written.take()

    def close(self) -> None:
        self._finish()
        with self.calling():
            self._db.close()  # and with it goes an open transaction

    def interrupt(self) -> None:
        # Only who is busy: an interrupt that finds a result between two fetches spoils it.
        with self._guard:
            if self._busy:
                self._interrupted.set()
                # It stops everything that has begun and not ended, now and until nothing is left.
                if not self._beside:
                    self._db.interrupt()

    @contextmanager
    def calling(self, before: str = "", after: str = "", *, beside: bool = False) -> Iterator[None]:
        """Wrap a call of SQLite: it can be interrupted, and its errors are ours.

        With *beside*, an interrupt leaves an open result alone.
        """
        with self._guard:
            self._interrupted.clear()
            self._busy = True
            self._beside = beside
        try:
            yield
        # The last two are about parameters: an int of more than 64 bits, half a surrogate pair.
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:
            raise _translated(exc, before, after) from exc
        finally:
            with self._guard:
                self._busy = False

    def _opened(self) -> sqlite3.Connection:
        # timeout=0: SQLite's own waiting for a lock cannot be interrupted. And a statement that
        # the module had kept would not be prepared again, which the authorizer lives on.
        opened = sqlite3.connect(
            self._uri,
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=0,
        )
        opened.text_factory = _decoded
        opened.set_authorizer(self._authorize)
        return opened

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, _: str | None
    ) -> int:
        if not self._limits.allow(action, first, second):
            return sqlite3.SQLITE_DENY
        self._acts.note(action, first, second, schema)
        return sqlite3.SQLITE_OK

    def _note_acts(self) -> None:
        self._left |= self._acts.leaves
        if self._acts.rolls_back:
            self._wrote = False
            self._written.roll_back()
        if self._acts.writes:
            self._wrote = True
            self._written.note(self._acts.written)
        if self._wrote and not self._db.in_transaction:
            self._wrote = False
            self._written.commit()
            self.changes += 1

    def _acts_of(self, sql: str) -> Acts | None:
        """What a statement would do; None if it is not one, or SQLite does not take it."""
        if len(split(sql)) != 1:
            return None
        with self.calling(beside=True):
            self._acts = acts = Acts()
            try:
                acts.note_program(self._explained(sql))
            # The former is the module's word for several statements, before 3.12.
            except (sqlite3.Warning, sqlite3.ProgrammingError):
                return None
            finally:
                self._acts = Acts()  # what comes next is no part of it
            return acts

    def _explained(self, sql: str) -> list[Row]:
        """The program of a statement, whatever parameters it wants."""
        explain = f"EXPLAIN {sql}"
        try:
            return self._db.execute(explain, _Nulls()).fetchall()
        except sqlite3.ProgrammingError as exc:
            if not str(exc).startswith("Binding "):
                raise
        try:  # they are without names, and have to be counted
            return self._db.execute(explain).fetchall()
        except sqlite3.ProgrammingError as exc:
            wanted = _WANTED.search(str(exc))
            if wanted is None:
                raise
        return self._db.execute(explain, [None] * int(wanted[1])).fetchall()

    def _finish(self) -> None:
        if self._result is not None:
            self._result.close()
            self._result = None

    def _patiently(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        """Run *statement*, trying again while what it needs is locked by somebody else."""
        started = time.monotonic()
        nap = 0.001
        while True:
            try:
                return self._db.execute(statement, parameters)
            except sqlite3.OperationalError as exc:
                waited = time.monotonic() - started
                # A transaction's snapshot that is too old stays too old, whatever the others do.
                hopeless = (
                    exc.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT and self._db.in_transaction
                )
                if _code(exc) not in _LOCKED or hopeless or waited >= self._patience:
                    raise
                if self._interrupted.wait(min(nap, self._patience - waited)):
                    raise Cancelled("interrupted while waiting for a lock") from exc
                nap = min(2 * nap, _LONGEST_NAP)

    def _last(self, statement: str, parameters: Parameters | None) -> _Result:
        changes = self._db.total_changes
        bound = () if parameters is None else parameters
        if isinstance(bound, Mapping):
            for name in bound:  # the module ignores what nobody asks for
                if not any(f"{mark}{name}" in statement for mark in ":@$?"):
                    raise QueryError(f"the statement has no parameter {name!r}")
        elif "$" in statement:
            statement = _numbered(statement)
        cursor = self._patiently(statement, bound)
        if cursor.description is None:
            count = cursor.rowcount  # -1 for DDL, but also for WITH ... INSERT
            if count < 0:
                touched = self._db.total_changes != changes
                count = self._db.execute("SELECT changes()").fetchone()[0] if touched else 0
            return _Result(self, [], cursor, count=count)
        names = unique_names(name for name, *_ in cursor.description)
        # An INSERT ... RETURNING is committed when its last row has been read, and holds the
        # lock until then. The word elsewhere in a statement costs no more than memory.
        held = cursor.fetchall() if _RETURNING.search(statement) else None
        return _Result(self, [ResultColumn(name, "") for name in names], cursor, held=held)

    def _ask(self, query: str, *parameters: str) -> list[Row]:
        with self.calling(beside=True):
            # Not for statements too: it is Python that looks, and the GIL may be long in coming.
            self._db.set_progress_handler(self._interrupted.is_set, _INSTRUCTIONS)
            try:
                return self._patiently(query, parameters).fetchall()
            finally:
                self._db.set_progress_handler(None, 0)

    def _asked(self, query: str, values: Sequence[str]) -> list[Row]:
        return self._ask(query, *values)

    def _objects(self, kind: str) -> list[Table]:
        found = []
        for _, schema, _ in self._ask("PRAGMA database_list"):
            quoted = schema.replace('"', '""')
            query = rf"""SELECT name FROM "{quoted}".sqlite_master
                WHERE type = ? AND name NOT LIKE 'sqlite\_%' ESCAPE '\'"""  # noqa: S608
            found += [Table("", schema, name) for (name,) in self._ask(query, kind)]
        return sorted(found)

    def _columns_of(self, owner: Table) -> list[Column]:
        query = "SELECT name, type FROM pragma_table_xinfo(?, ?) WHERE hidden <> 1 ORDER BY cid"
        try:
            rows = self._ask(query, owner.table, owner.schema)
        except QueryError:
            return []  # a view of a table that is gone must not hide all the others
        return [Column("", owner.schema, owner.table, name, kind) for name, kind in rows]


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

    def connect(self) -> _Connection:
        return self._connected(self._mode, self._limits)

    def connect_read_only(self) -> _Connection:
        return self._connected("ro", replace(self._limits, read_only=True))

    def _connected(self, mode: str, limits: Limits) -> _Connection:
        shared = self._path != ":memory:"
        try:
            return _Connection(self._uri + mode, self._patience, limits, shared=shared)
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
