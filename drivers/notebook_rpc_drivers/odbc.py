"""Any database behind an ODBC driver, through pyodbc; tried with PostgreSQL, MariaDB and SQLite.

Catalogs, schemas and the names of types are those that the driver reports. Results stream where
the driver can do that: PostgreSQL's can, those of MariaDB and SQLite read a result whole before
the first row. A statement can be interrupted on PostgreSQL, MariaDB and MySQL, from a second
connection as the same user: SQLCancel, which ODBC has for it, crashes two of the three drivers
tried when it comes at the wrong moment, and takes the process with it.

What the drivers get wrong beyond repair: PostgreSQL's gives ``infinity`` and dates beyond the
years 1 to 9999 as other dates, and timestamps without their offset (cast them to text); SQLite's
rounds floats to 15 digits and counts nothing for WITH ... INSERT.

What it refuses: ``read_only``, because SQL_ATTR_ACCESS_MODE is a hint that none of the drivers
obeys (a login without rights does it); and a few statements that ``_odbc_kinds.py`` names.

Properties: ``odbc_connect``, a whole connection string; ``driver``, ``host``, ``port``,
``username``, ``password``, ``database``; ``login_timeout`` in seconds, 10 if not given; all others
are keywords of the connection string (DSN, Encrypt, ...) as they stand.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pyodbc

from notebook_rpc.errors import (
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    NotSupported,
    QueryError,
    UnknownTable,
)
from notebook_rpc.model import ResultColumn, Transaction, unique_names
from notebook_rpc.sansio.placeholders import bind
from notebook_rpc.sansio.sqltext import Kind, statements, tokens, transaction_control
from notebook_rpc_drivers import _odbc_catalog, _odbc_describe
from notebook_rpc_drivers._odbc_errors import state_of, translated
from notebook_rpc_drivers._odbc_kinds import known
from notebook_rpc_drivers._odbc_results import Result, type_names
from notebook_rpc_drivers._odbc_strings import connection_string

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from notebook_rpc.model import Column, Parameters, Table
    from notebook_rpc.sansio.sqltext import Control
    from notebook_rpc.schema import TableFacts
    from notebook_rpc_drivers._odbc_kinds import Dbms
    from notebook_rpc_drivers._odbc_strings import ConnectionString

_INT64: Final = range(-(2**63), 2**63)
_FAILED_TRANSACTION: Final = "25P02"
# Besides pyodbc's own: Python's, about a value on its way in or out.
_FAILURES: Final = (pyodbc.Error, OverflowError, ValueError, TypeError)


class _Connection:
    def __init__(self, database: _Database) -> None:
        self.dbms = database.dbms
        self.transaction = Transaction.NONE
        self._database = database
        self._result: Result | None = None
        self._guard = threading.Lock()  # held while an interrupt is on its way
        self._busy = False
        self._interrupted = False
        self._db = database.dial()
        with self.calling(interruptible=False):
            self.dbms.prepare(self._db)

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> Result:
        self._finish()
        try:
            sql.encode()
        except UnicodeEncodeError as exc:
            raise QueryError(f"the statement is not valid Unicode: {exc}") from exc
        if "\0" in sql:
            raise QueryError("the statement contains a null character")
        found = statements(sql, self.dbms.dialect)
        if not found:
            raise QueryError("no statement")
        for number, statement in enumerate(found, 1):
            before = after = ""
            if len(found) > 1:
                before = f"statement {number} of {len(found)}: "
                after = f" (after {number - 1} that ran)" if number > 1 else " (nothing ran)"
            last = number == len(found)
            self._result = self._run(statement.text, parameters if last else None, before, after)
            if not last:
                self._finish()
        assert self._result is not None  # noqa: S101  # there was a last statement
        return self._result

    def tables(self) -> list[Table]:
        with self.calling(interruptible=self._catalog_may_fail):
            return _odbc_catalog.tables(self._db, self.dbms, views=False)

    def views(self) -> list[Table]:
        with self.calling(interruptible=self._catalog_may_fail):
            return _odbc_catalog.tables(self._db, self.dbms, views=True)

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        if any("\0" in name for name in (catalog, schema, table)):
            return []
        with self.calling(interruptible=self._catalog_may_fail):
            return _odbc_catalog.columns(self._db, self.dbms, catalog, schema, table)

    def describe(self, table: Table, /) -> TableFacts:
        if any("\0" in name for name in (table.catalog, table.schema, table.table)):
            raise UnknownTable("no name has a null character")
        with self.calling(interruptible=self._catalog_may_fail):
            return _odbc_describe.describe(self._db, self.dbms, table)

    def schemas(self) -> list[str]:
        with self.calling(interruptible=self._catalog_may_fail):
            return _odbc_describe.schemas(self._db, self.dbms)

    def databases(self) -> list[str]:
        with self.calling(interruptible=self._catalog_may_fail):
            return _odbc_describe.databases(self._db, self.dbms)

    def written(self, table: Table, /) -> str:
        return _odbc_describe.written(self.dbms, table)

    def rollback(self) -> bool:
        had = self.transaction is not Transaction.NONE
        try:
            self._finish()
        finally:
            if had:
                with self.calling(interruptible=False):
                    self._end(commit=False)
        return had

    def close(self) -> None:
        try:
            self._finish()
        finally:
            with self.calling(interruptible=False):
                self._db.close()  # which rolls back

    @contextmanager
    def calling(
        self, before: str = "", after: str = "", *, interruptible: bool = True
    ) -> Iterator[None]:
        """Wrap a call of pyodbc: it can be interrupted, and its errors are ours."""
        self._interrupted = False
        self._busy = interruptible
        try:
            try:
                yield
            finally:
                self._busy = False  # from now on no interrupt begins...
                with self._guard:  # ...and one that has begun, ends before the next call
                    pass
        except _FAILURES as exc:
            self._recover()
            repair, redacted = self.dbms.repair, self._database.string.redacted
            failure = translated(exc, interrupted=self._interrupted, before=before, after=after)
            failure.args = (redacted(repair(str(failure))),)
            raise failure from exc

    def _recover(self) -> None:
        """After an error: whatever the driver has left half done is undone."""
        if not self.dbms.aborts:
            return
        with suppress(pyodbc.Error):  # broken: the error in hand says so
            if self.transaction is Transaction.NONE:
                # In a transaction of the driver's own, for a cursor, which it does not end.
                self._db.autocommit = False
                self._db.rollback()
                self._db.autocommit = True
            else:
                try:  # not every error is the server's
                    self._db.execute("select 1").close()
                except pyodbc.Error as exc:
                    if state_of(exc) == _FAILED_TRANSACTION:
                        self.transaction = Transaction.FAILED

    def _finish(self) -> None:
        result, self._result = self._result, None
        if result is not None:
            result.close()

    def _run(
        self, statement: str, parameters: Parameters | None, before: str, after: str
    ) -> Result:
        control = transaction_control(statement, self.dbms.dialect)
        with self.calling(before, after):
            if control is not None:
                self._control(control)
                return Result(self.dbms, self.calling, count=0)
            if not parameters:
                self._refuse_marks(statement)
            bound = bind(statement, parameters, "qmark", self.dbms.dialect)
            values = [_parameter(value) for value in bound.parameters or ()]
            self.dbms.before(self._db, bound.sql)
            cursor = self._db.cursor()
            try:
                cursor.execute(bound.sql, *values)
                description = cursor.description
                if description is None:
                    count = cursor.rowcount  # -1 for some DDL
                    cursor.close()
                    self._revive()
                    return Result(self.dbms, self.calling, count=max(0, count))
                names = unique_names(self.dbms.repair(name) for name, *_ in description)
                types = type_names(cursor, len(names))
            except BaseException:
                with suppress(pyodbc.Error):  # the first error counts
                    cursor.close()
                raise
        columns = [ResultColumn(*pair) for pair in zip(names, types, strict=True)]
        return Result(self.dbms, self.calling, cursor, columns)

    def _refuse_marks(self, statement: str) -> None:
        """Any question mark is a parameter to ODBC. MariaDB's driver, without one, sends what
        the server cannot read, and PostgreSQL's leaves the transaction failed."""
        for kind, start, end in tokens(statement, self.dbms.dialect):
            if kind is Kind.PLACEHOLDER and statement[start:end] == "?":
                raise QueryError("the statement asks for parameters, but none were given")

    def _revive(self) -> None:
        """Notice a ROLLBACK TO, which makes a failed transaction an open one."""
        if self.transaction is Transaction.FAILED:
            self.transaction = Transaction.OPEN  # a failed one would have refused the statement

    def _control(self, control: Control) -> None:
        """pyodbc's own way, not the statement's: a plain BEGIN is no statement everywhere, and a
        driver that does not see it does not know that there is a transaction."""
        if control.verb != "BEGIN":
            failed, commit = self.transaction is Transaction.FAILED, control.verb == "COMMIT"
            if self.transaction is not Transaction.NONE:
                self._end(commit=commit and not failed, chain=control.chain)
            if failed and commit:
                raise QueryError("the transaction had failed and was rolled back")
            return
        if self.transaction is not Transaction.NONE:
            raise QueryError("there is a transaction already")
        self._db.autocommit = False
        self.transaction = Transaction.OPEN
        if control.modes:
            try:
                self._db.execute(f"SET TRANSACTION {control.modes}").close()
            except pyodbc.Error:
                self._end(commit=False)
                raise

    def _end(self, *, commit: bool, chain: bool = False) -> None:
        self.transaction = Transaction.NONE
        try:
            if commit:
                self._db.commit()
            else:
                self._db.rollback()
        except pyodbc.Error:
            with suppress(pyodbc.Error):  # the first error counts
                self._db.rollback()
                self._db.autocommit = True
            raise
        if chain:
            self.transaction = Transaction.OPEN
        else:
            self._db.autocommit = True

    @property
    def _catalog_may_fail(self) -> bool:
        """Whether nothing is lost if a call for the catalog is interrupted."""
        idle = self.transaction is Transaction.NONE and self._result is None
        return idle or not self.dbms.aborts


class _Interruptible(_Connection):
    """One whose statements another connection can stop."""

    def __init__(self, database: _Database) -> None:
        super().__init__(database)
        with self.calling(interruptible=False):
            ((self._session,),) = _odbc_catalog.select(self._db, self.dbms, self.dbms.session)

    def interrupt(self) -> None:
        with self._guard:
            if self._busy:
                self._interrupted = True
                self._database.say(self.dbms.stop.format(int(self._session)))


def _parameter(value: object) -> object:
    """A parameter as pyodbc takes it."""
    if isinstance(value, str) and "\0" in value:
        raise QueryError("a parameter contains a null character, where drivers would cut it off")
    if isinstance(value, int) and value not in _INT64:
        return Decimal(value)
    if isinstance(value, list | tuple | dict):
        raise QueryError(f"a parameter is a {type(value).__name__}, which ODBC cannot carry")
    return value


class _Database:
    def __init__(self, string: ConnectionString, login_timeout: int) -> None:
        self.string = string
        self._text = string.text
        self._login_timeout = login_timeout
        first = self.dial()  # also to find out at once whether there is anything
        try:
            self.dbms: Dbms = known(first)
        finally:
            first.close()
        self._text = string.with_defaults(self.dbms.settings)

    @property
    def description(self) -> str:
        return self.string.description

    def connect(self) -> _Connection:
        return _Interruptible(self) if self.dbms.stop else _Connection(self)

    def close(self) -> None:
        """There is nothing but connections."""

    def dial(self) -> pyodbc.Connection:
        # pyodbc reads this once, when it first connects. With pooling, a connection that was
        # closed would live on, with its temporary tables, and be given to somebody else.
        pyodbc.pooling = False
        try:
            return pyodbc.connect(self._text, autocommit=True, timeout=self._login_timeout)
        except pyodbc.Error as exc:
            failure = translated(exc)
            text = f"{self.description}: {failure}"
            if state_of(exc) in ("IM002", "IM003", "01000"):
                text += (
                    f"; the ODBC drivers installed are: {', '.join(pyodbc.drivers()) or 'none'}."
                    " Others come with the database or the system (Debian: odbc-postgresql,"
                    " odbc-mariadb, libsqliteodbc) and are listed in odbcinst.ini"
                )
            unavailable = DatabaseUnavailable(self.string.redacted(text))
            unavailable.sqlstate = failure.sqlstate
            raise unavailable from None  # pyodbc's may repeat the connection string
        except _FAILURES as exc:
            raise InvalidParams(f"not a connection string: {type(exc).__name__}") from None

    def say(self, order: str) -> None:
        """Say something to the database that has no answer, on a connection of its own."""
        # An interrupt is repeated: one that fails because there are too many connections, say, may
        # not raise and loses nothing.
        with suppress(pyodbc.Error, NotebookError):
            aside = self.dial()
            try:
                aside.execute(order).close()
            finally:
                aside.close()


class _Driver:
    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> _Database:
        given = dict(properties)
        timeout = given.pop("login_timeout", "10")
        if not (timeout.isascii() and timeout.isdecimal() and len(timeout) < 7):
            raise InvalidParams(f"property login_timeout: {timeout!r} is no number of seconds")
        string = connection_string(given)
        if not any(string.get(keyword) for keyword in ("driver", "dsn", "filedsn")):
            installed = ", ".join(pyodbc.drivers()) or "none"
            raise InvalidParams(
                f"property driver: name an ODBC driver (installed: {installed}), or a DSN,"
                " or give a whole string as odbc_connect"
            )
        if read_only:
            raise NotSupported(
                "no ODBC driver is known to enforce read-only; use a login that may not write"
            )
        return _Database(string, int(timeout))


DRIVER = _Driver()
