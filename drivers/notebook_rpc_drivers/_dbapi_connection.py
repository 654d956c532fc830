"""A connection of a module of PEP 249, as ``notebook_rpc.driver`` has it.

It refuses to trust a module: whatever one raises is an error of the database, not of ours, and
whether a connection is lost is found out and not believed.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from notebook_rpc.errors import (
    Cancelled,
    DatabaseUnavailable,
    NotebookError,
    NotSupported,
    QueryError,
)
from notebook_rpc.model import ResultColumn, Transaction, unique_names
from notebook_rpc.sansio.placeholders import bind
from notebook_rpc.sansio.sqltext import POSTGRES, SQLITE, statements, transaction_control
from notebook_rpc_drivers import _dbapi_catalog, _dbapi_describe, _dbapi_errors
from notebook_rpc_drivers import _dbapi_words as words
from notebook_rpc_drivers._dbapi_facts import Begin, Catalog
from notebook_rpc_drivers._dbapi_result import AT_ONCE, Result
from notebook_rpc_drivers._dbapi_types import type_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from notebook_rpc.model import Column, Parameters, Table
    from notebook_rpc.sansio.sqltext import Control
    from notebook_rpc.schema import TableFacts
    from notebook_rpc_drivers._dbapi_catalog import Ask
    from notebook_rpc_drivers.dbapi import Database

logger = logging.getLogger(__name__)

_COUNTED: Final = {"INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"}


class Connection:
    """One connection of the module's. It cannot be interrupted; its subclass can."""

    def __init__(self, database: Database, raw: Any) -> None:
        self.facts = database.facts
        self.transaction = Transaction.NONE
        self._database = database
        self._raw = raw
        self._running: Any = None  # the cursor that executes or fetches
        self._result: Result | None = None
        self._broken = self._closed = False
        self._translated = False  # the statement was sent in other words than the client's
        self._guard = threading.Lock()  # held while a statement is stopped, or begins or ends
        self._stoppable = self._interrupted = False
        self._begin = self.facts.begin or Begin.HELD_BACK
        with self.calling():
            if self.facts.begin in (None, Begin.SENT) and words.set_autocommit(raw, on=True):
                self._begin = self.facts.begin or Begin.SWITCHED

    @property
    def usable(self) -> bool:
        return not self._broken and not self._closed

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> Result:
        self._finish()
        words.check_sql(sql)
        found = statements(sql, self.facts.dialect)
        if not found:
            raise QueryError("no statement")
        for number, (text, start) in enumerate(found, 1):
            before = after = ""
            if len(found) > 1:
                before = f"statement {number} of {len(found)}: "
                after = f" (after {number - 1} that ran)" if number > 1 else " (nothing ran)"
            try:
                with self.calling(before, after, offset=start, stoppable=True):
                    if number < len(found):
                        self._run(text, None).exhaust()
                    else:
                        self._result = self._run(text, parameters)
            except Cancelled:
                self._finish()  # what has come before the interrupt did
                raise
        assert self._result is not None  # noqa: S101  # there was a last statement
        return self._result

    def tables(self) -> list[Table]:
        with self._catalog() as (catalog, ask):
            return _dbapi_catalog.tables(catalog, ask, views=False)

    def views(self) -> list[Table]:
        with self._catalog() as (catalog, ask):
            return _dbapi_catalog.tables(catalog, ask, views=True)

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        with self._catalog() as (kind, ask):
            return _dbapi_catalog.columns(kind, ask, catalog, schema, table)

    def describe(self, table: Table, /) -> TableFacts:
        with self._catalog() as (kind, ask):
            # Of the client's own connection, a query may not fail a transaction.
            free = self.transaction is not Transaction.OPEN
            return _dbapi_describe.describe(kind, ask, table, may_fail=free)

    def schemas(self) -> list[str]:
        with self._catalog() as (kind, ask):
            return _dbapi_describe.schemas(kind, ask)

    def databases(self) -> list[str]:
        with self._catalog() as (kind, ask):
            return _dbapi_describe.databases(kind, ask)

    def written(self, table: Table, /) -> str:
        return _dbapi_describe.written(self.facts.dialect, table)

    def rollback(self) -> bool:
        self._finish()
        if self.transaction is Transaction.NONE:
            return False
        with self.calling():
            self._end("rollback")
        return True

    def close(self) -> None:
        if self._closed:
            return
        try:
            self.rollback()
        except NotebookError:
            logger.debug("cannot roll back a connection that is closed", exc_info=True)
        with self._guard:
            self._closed = True
            self.transaction = Transaction.NONE
        with self._database.turn(), suppress(Exception):  # it is given up, whatever it says
            self._raw.close()

    @contextmanager
    def calling(
        self, before: str = "", after: str = "", *, offset: int = 0, stoppable: bool = False
    ) -> Iterator[None]:
        """Wrap calls of the module: an interrupt can stop them, and their errors are ours.

        *offset* is where in the SQL the statement began.
        """
        if not self.usable:
            raise DatabaseUnavailable(
                "the connection is broken" if self._broken else "it is closed"
            )
        self._translated = True
        with self._database.turn():
            with self._guard:
                self._interrupted = False
                self._stoppable = stoppable
            try:
                yield
                self._end_call()
                if self._interrupted and self._result is not None and self._result.streaming:
                    raise self._result.spoil()
            except NotebookError as exc:
                raise type(exc)(f"{before}{exc}{after}") from exc.__cause__
            except Exception as exc:  # a module of which we know nothing may raise anything
                self._end_call()
                error = self._error(exc, before, after)
                found = _dbapi_errors.position(exc)
                if found is not None and not self._translated:
                    error.position = found + offset
                raise error from exc
            finally:
                self._end_call()
                self._look()

    def done(self) -> None:
        """Nothing of the statement is open any more."""
        if self._begin is Begin.HELD_BACK and self.transaction is Transaction.NONE:
            try:
                self._raw.commit()
            except Exception as exc:  # of the module's own classes, which we cannot name
                if type(exc).__name__ != "NotSupportedError":
                    raise
                self._begin = Begin.NOTHING

    def abandon(self, cursor: Any, *, ended: bool) -> None:
        """Close *cursor*. Rows nobody wants are not waited for, if they can be stopped."""
        if not ended and self.facts.busy:
            self._stop(cursor)
        try:
            cursor.close()
        except Exception:  # what we have just stopped says so, and nobody wants to know
            if ended:
                raise
            logger.debug("a result was given up", exc_info=True)

    def _finish(self) -> None:
        result, self._result = self._result, None
        if result is not None:
            result.close()

    def _run(self, text: str, parameters: Parameters | None) -> Result:
        """Execute one statement, and open its result."""
        facts = self.facts
        if self._interrupted:
            raise Cancelled("interrupted before the statement began")
        if facts.dialect == POSTGRES and words.copies(text, facts):
            raise NotSupported("COPY from and to the client is not for SQL sessions")
        control = transaction_control(text, facts.dialect)
        if control is not None and self._begin is not Begin.SENT:
            self._control(control)
            return Result(self, None, [], 0)
        had_failed = self.transaction is Transaction.FAILED
        cursor = self._execute(self._cursor(), text, parameters)
        try:
            if control is not None:
                opens = control.verb == "BEGIN" or control.chain
                self.transaction = Transaction.OPEN if opens else Transaction.NONE
                if control.verb == "COMMIT" and had_failed:
                    raise QueryError("the transaction had failed and was rolled back")
            elif had_failed:
                self.transaction = Transaction.OPEN  # by ROLLBACK TO, or it would have failed
            if not cursor.description:
                count = max(self._count(cursor, text), 0)
                self.abandon(cursor, ended=True)
                self.done()
                return Result(self, None, [], count)
            names = unique_names(words.name(column[0]) for column in cursor.description)
            types = [type_name(self._database.module, facts, each) for each in cursor.description]
            columns = [ResultColumn(*pair) for pair in zip(names, types, strict=True)]
            mysql = facts.catalog is Catalog.MYSQL
            clocks = [each for each, kind in enumerate(types) if mysql and kind == "time"]
            result = Result(self, cursor, columns, -1, clocks)
            # An INSERT ... RETURNING of SQLite's holds its lock until the last row has been read.
            if facts.dialect == SQLITE and "RETURNING" in words.of(text, facts):
                result.hold()
        except BaseException:
            with suppress(Exception):  # the first error counts
                cursor.close()
            raise
        return result

    def _cursor(self) -> Any:
        if self.facts.adbc:
            return self._database.arrow_cursor(self._raw)
        if self.facts.cursor is not None:
            return self.facts.cursor(self._database.module, self._raw)
        return self._raw.cursor()

    def _execute(self, cursor: Any, text: str, parameters: Parameters | None) -> Any:
        module, facts = self._database.module, self.facts
        words.check_text(parameters)
        sql, values = bind(text, parameters, facts.style or module.paramstyle, facts.dialect)
        self._translated = values is not None
        self._running = cursor
        try:
            if values is None:
                cursor.execute(sql)
            elif facts.doubles_percents:
                cursor.execute(words.percents_doubled(sql, facts), values)
            else:
                cursor.execute(sql, values)
        except BaseException:
            with suppress(Exception):  # the first error counts
                cursor.close()
            raise
        return cursor

    def _count(self, cursor: Any, text: str) -> int:
        count = cursor.rowcount
        if not isinstance(count, int):
            return 0
        if (
            count < 0
            and self.facts.dialect == SQLITE
            and _COUNTED & set(words.of(text, self.facts)[:1])
        ):
            ((count,),) = self._rows_of("select changes()")
        return int(count)

    def _rows_of(self, sql: str, parameters: Sequence[str] = ()) -> list[Any]:
        """All rows of a query of our own."""
        cursor = self._database.arrow_cursor(self._raw) if self.facts.adbc else self._raw.cursor()
        self._execute(cursor, sql, parameters)
        self._translated = True
        rows: list[Any] = []
        while page := cursor.fetchmany(AT_ONCE):
            rows += page
        cursor.close()
        return rows

    def _control(self, control: Control) -> None:
        if self._begin is Begin.NOTHING:
            raise NotSupported("the database or its module has no transactions")
        if control.verb == "BEGIN":
            if self.transaction is not Transaction.NONE:
                raise QueryError("there is a transaction already")
            self._start()
            if control.modes:
                self._execute(self._raw.cursor(), f"SET TRANSACTION {control.modes}", None).close()
        else:
            self._end(control.verb.lower())
            if control.chain:
                self._start()

    def _start(self) -> None:
        if self._begin is Begin.SWITCHED:
            words.set_autocommit(self._raw, on=False)
        else:
            self._raw.rollback()  # says so if there are no transactions
        self.transaction = Transaction.OPEN

    def _end(self, verb: str) -> None:
        """COMMIT or ROLLBACK, whoever begins."""
        if self._begin is Begin.SENT:
            self._execute(self._raw.cursor(), verb, None).close()
        else:
            getattr(self._raw, verb)()
            if self._begin is Begin.SWITCHED:
                words.set_autocommit(self._raw, on=True)
        self.transaction = Transaction.NONE

    @contextmanager
    def _catalog(self) -> Iterator[tuple[Catalog, Ask]]:
        """The kind of catalog, and how to ask it: over another connection, if this one cannot."""
        open_result = self._result is not None and self._result.streaming
        failed = self.transaction is Transaction.FAILED
        unknown = self._database.catalog is Catalog.UNKNOWN
        free = not open_result and self.transaction is Transaction.NONE
        if (self.facts.busy and open_result) or failed or (unknown and not free):
            other = self._database.connect()
            try:
                yield self._database.find_catalog(other.ask), other.ask
            finally:
                other.close()
        else:
            yield self._database.find_catalog(self.ask), self.ask

    def ask(self, sql: str, parameters: Sequence[str]) -> list[Any]:
        """For the catalog. An interrupt that would hurt a transaction or a result is not for it."""
        open_result = self._result is not None and self._result.streaming
        free = not open_result and self.transaction is Transaction.NONE
        with self.calling(stoppable=free):
            rows = self._rows_of(sql, parameters)
            if not open_result:
                self.done()
            return rows

    def _end_call(self) -> None:
        """Wait for an interrupt that is under way: a later one comes too late."""
        with self._guard:
            self._stoppable = False

    def _look(self) -> None:
        """Record the state of the transaction."""
        if self._broken:
            self.transaction = Transaction.NONE
        elif self.facts.state is not None:
            self.transaction = self.facts.state(self._raw)
        elif self._interrupted and self._tracks_failure and self._probed():
            self.transaction = Transaction.FAILED

    def _error(self, exc: Exception, before: str, after: str) -> NotebookError:
        self._broken = _dbapi_errors.may_be_lost(exc) and self._is_dead()
        if self._tracks_failure:
            self.transaction = Transaction.FAILED
        if self._begin is Begin.HELD_BACK and self.transaction is Transaction.NONE:
            with suppress(Exception):  # the first error counts
                self._raw.rollback()
        return _dbapi_errors.translated(
            exc, interrupted=self._interrupted, lost=self._broken, before=before, after=after
        )

    @property
    def _tracks_failure(self) -> bool:
        """PostgreSQL gives a transaction up at its first error, and this module does not tell."""
        untold = self.facts.state is None and self.facts.dialect == POSTGRES
        return untold and self.transaction is Transaction.OPEN

    def _is_dead(self) -> bool:
        """Ask: a module may call anything an OperationalError."""
        if self.facts.is_dead is not None:
            return self.facts.is_dead(self._raw)
        said = self._probed()
        return said is not None and _dbapi_errors.may_be_lost(said)

    def _probed(self) -> Exception | None:
        """What is said to a statement that nothing is wrong with."""
        try:
            self._rows_of("select 1")
        except Exception as exc:  # noqa: BLE001  # of a class that only the module knows
            return exc
        return None

    def _stop(self, cursor: Any) -> None:
        """Make the database stop what runs on this connection, if it can. Raises nothing."""
