"""A connection to SQLite as a session's own: what it runs, waits for, and is interrupted in.

What it refuses: to let SQLite sleep while the file is locked, because that sleep cannot be
interrupted; it tries again itself.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from notebook_rpc.errors import Cancelled, QueryError
from notebook_rpc.model import (
    Column,
    ResultColumn,
    Stability,
    Table,
    Transaction,
    unique_names,
)
from notebook_rpc_drivers import _sqlite_describe
from notebook_rpc_drivers._sqlite_acts import (
    LASTING_FUNCTIONS,
    PLAIN,
    ROOTS,
    STORED,
    Acts,
    program_of,
)
from notebook_rpc_drivers._sqlite_errors import LOCKED, result_code, translated
from notebook_rpc_drivers._sqlite_result import Result, decoded
from notebook_rpc_drivers._sqlite_text import numbered, split
from notebook_rpc_drivers._touched import Written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from notebook_rpc.model import Parameters, Touched
    from notebook_rpc.schema import TableFacts
    from notebook_rpc_drivers._sqlite_limits import Limits
    from notebook_rpc_drivers._sqlite_result import Row

_LONGEST_NAP = 0.05  # seconds between two tries for a lock

# How many of SQLite's instructions pass between two looks at an interrupt, where it looks itself:
# a tenth of a millisecond.
_INSTRUCTIONS = 5000

_RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)


class Connection:
    computes_here: Final = True

    def __init__(self, uri: str, patience: float, limits: Limits, *, shared: bool = True) -> None:
        """*shared*: other processes may write to the database, too."""
        self.changes = 0
        self._written = Written()
        self._uri = uri
        self._limits = limits
        self._shared = shared
        self._patience = patience
        self._result: Result | None = None
        self._guard = threading.Lock()  # held for an instant only: interrupt() must not block
        self._busy = False
        self._beside = False  # what is busy runs beside a result that may be open
        self._interrupted = threading.Event()
        self._acts = Acts()  # of the statement that runs
        self._wrote = False  # the transaction did
        self._left = False  # a statement has left something that the next client would notice
        with self.calling():
            self._db = self._opened()

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> Result:
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
            raise translated(exc, before, after) from exc
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
        opened.text_factory = decoded
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
                acts.note_program(program_of(self._db, sql))
            # The former is the module's word for several statements, before 3.12.
            except (sqlite3.Warning, sqlite3.ProgrammingError):
                return None
            finally:
                self._acts = Acts()  # what comes next is no part of it
            return acts

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
                if result_code(exc) not in LOCKED or hopeless or waited >= self._patience:
                    raise
                if self._interrupted.wait(min(nap, self._patience - waited)):
                    raise Cancelled("interrupted while waiting for a lock") from exc
                nap = min(2 * nap, _LONGEST_NAP)

    def _last(self, statement: str, parameters: Parameters | None) -> Result:
        changes = self._db.total_changes
        bound = () if parameters is None else parameters
        if isinstance(bound, Mapping):
            for name in bound:  # the module ignores what nobody asks for
                if not any(f"{mark}{name}" in statement for mark in ":@$?"):
                    raise QueryError(f"the statement has no parameter {name!r}")
        elif "$" in statement:
            statement = numbered(statement)
        cursor = self._patiently(statement, bound)
        if cursor.description is None:
            count = cursor.rowcount  # -1 for DDL, but also for WITH ... INSERT
            if count < 0:
                touched = self._db.total_changes != changes
                count = self._db.execute("SELECT changes()").fetchone()[0] if touched else 0
            return Result(self, [], cursor, count=count)
        names = unique_names(name for name, *_ in cursor.description)
        # An INSERT ... RETURNING is committed when its last row has been read, and holds the
        # lock until then. The word elsewhere in a statement costs no more than memory.
        held = cursor.fetchall() if _RETURNING.search(statement) else None
        return Result(self, [ResultColumn(name, "") for name in names], cursor, held=held)

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
