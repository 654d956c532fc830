"""A connection to PostgreSQL as a session's own: its statements, its cursor, its transactions.

Which transactions are the user's and which are hidden, and why a statement runs through a cursor
or as it stands, is told at the top of ``postgres.py``.

What it refuses: to run a statement twice, and to believe that a hidden transaction has ended
before the server has said so.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus

from notebook_rpc.errors import Conflict, NotebookError, QueryError
from notebook_rpc.model import Column, Table, Transaction
from notebook_rpc.sansio.sqltext import POSTGRES, statements
from notebook_rpc.sansio.values import TextRows
from notebook_rpc_drivers import _postgres_describe
from notebook_rpc_drivers import _postgres_sql as rules
from notebook_rpc_drivers._postgres_rows import TYPE_NAMES, Rows, texts
from notebook_rpc_drivers._postgres_sql import Prepared
from notebook_rpc_drivers._postgres_wire import Wire, failed, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg
    from psycopg.pq.abc import PGresult

    from notebook_rpc.model import Parameters
    from notebook_rpc.sansio.sqltext import Statement
    from notebook_rpc.schema import TableFacts
    from notebook_rpc_drivers._postgres_rows import Row
    from notebook_rpc_drivers._postgres_wire import Query, Values
    from notebook_rpc_drivers.postgres import Database

# A hint and no more: with it wrong, a statement would run in the other way, which is right, too.
_WITH_ROWS: Final = {"SELECT", "VALUES", "TABLE", "WITH"}
# What PostgreSQL says of a statement that has no cursor, before it runs any of it:
# syntax_error, feature_not_supported (WITH ... that writes), invalid_cursor_definition.
_NO_CURSOR: Final = {"42601", "0A000", "42P11"}

# Statements that are one transaction, if there is none around them: a CALL or a DO may commit.
_ATOMIC: Final = _WITH_ROWS | {"INSERT", "UPDATE", "DELETE", "MERGE"}
# Command tags of what others see nothing of. Not EXPLAIN, which may run what it explains, and
# not FETCH, which runs functions.
_UNSEEN = {b"SHOW", b"SET", b"RESET", b"BEGIN", b"START TRANSACTION", b"ROLLBACK"}
_UNSEEN |= {b"PREPARE", b"DEALLOCATE", b"DEALLOCATE ALL", b"LISTEN", b"UNLISTEN", b"DISCARD ALL"}
# Whether the transaction has changed anything: only then it has a number of its own.
_UNWRITTEN: Final = b"SELECT pg_catalog.txid_current_if_assigned() IS NULL"

_DECLARE: Final = b"DECLARE notebook_rpc NO SCROLL CURSOR FOR "
_FETCH: Final = b"FETCH FORWARD %d FROM notebook_rpc"
_MOVE: Final = b"MOVE FORWARD ALL IN notebook_rpc"
_SAVE: Final = b"SAVEPOINT notebook_rpc"
_RELEASE: Final = b"RELEASE SAVEPOINT notebook_rpc"
_UNDO: Final = b"ROLLBACK TO SAVEPOINT notebook_rpc"

# Rows that come with the first trip to the server: one more than the services read ahead, so
# that the end of a small result is seen at once. How wide they are is known afterwards only.
_FIRST: Final = 101

_MOST_PARAMETERS: Final = 65535  # the protocol counts them in two bytes


class Connection:
    def __init__(self, database: Database, *, read_only: bool) -> None:
        self.transaction = Transaction.NONE
        self.changes = 0
        self._database = database
        self._read_only = read_only
        self._wire = Wire(database.open(read_only=read_only))
        self._result: Rows | None = None
        self._hidden = False  # the transaction that is open is ours
        self._used = False  # by a statement, which may have left anything

    @property
    def adapt(self) -> psycopg.Connection[Any]:
        """What says how values are loaded."""
        return self._wire.connection

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> Rows:
        return self._run(sql, parameters, text=False)

    def execute_text(self, sql: str, parameters: Parameters | None = None, /) -> TextRows:
        return TextRows(self._run(sql, parameters, text=True))

    def tables(self) -> list[Table]:
        catalog = self._wire.connection.info.dbname
        return [Table(catalog, *row) for row in self.ask(*rules.relations_query(rules.TABLES))]

    def views(self) -> list[Table]:
        catalog = self._wire.connection.info.dbname
        return [Table(catalog, *row) for row in self.ask(*rules.relations_query(rules.VIEWS))]

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        own = self._wire.connection.info.dbname
        if catalog not in ("", own):
            return []
        return [Column(own, *row) for row in self.ask(*rules.columns_query(schema, table))]

    def describe(self, table: Table, /) -> TableFacts:
        return _postgres_describe.describe(self._asked, table)

    def schemas(self) -> list[str]:
        return _postgres_describe.schemas(self._asked)

    def databases(self) -> list[str]:
        return _postgres_describe.databases(self._asked)

    def written(self, table: Table, /) -> str:
        return _postgres_describe.written(table)

    def rollback(self) -> bool:
        self._finish()
        if self._wire.status == TransactionStatus.IDLE:
            return False
        with self._calling():
            self._wire.run(b"ROLLBACK")
        return True

    def reset(self) -> None:
        self._finish()
        if self._used:
            # Even a SELECT may leave something: set_config(), pg_advisory_lock().
            with self._calling():
                self._wire.run(b"DISCARD ALL")
            self._used = False

    def close(self) -> None:
        try:
            with suppress(NotebookError):  # nobody is left to do anything about it
                self._finish()
        finally:
            self._wire.close()  # the server rolls back
            self.transaction = Transaction.NONE

    def interrupt(self) -> None:
        self._wire.interrupt()

    def fetch_more(self, wanted: int) -> tuple[PGresult, bool]:
        """The next *wanted* rows of the cursor, and whether there may be others."""
        with self._calling():
            got = self._wire.run(_FETCH % wanted)
            streaming = got.ntuples == wanted
            if not streaming:
                self._end_cursor()
        return got, streaming

    def end_stream(self) -> None:
        with self._calling():
            self._end_cursor()

    def type_names(self, oids: list[int], modifiers: list[int]) -> list[Row]:
        """For each its name, and "t" if it is an array."""
        listed = [f"{{{','.join(map(str, numbers))}}}".encode() for numbers in (oids, modifiers)]
        return texts(self._wire.run(TYPE_NAMES, listed), self.adapt)

    def ask(self, query: str, names: Sequence[str]) -> list[Row]:
        """Rows of the catalog, whatever else is open on this connection."""
        if self._wire.status == TransactionStatus.INERROR:
            # It takes no query before its end. What it has made is lost anyway.
            beside = self._database.connect()
            try:
                return beside.ask(query, names)
            finally:
                beside.close()
        sql, values = query.encode(), [self._wire.encoded(name) for name in names]
        if self._wire.status == TransactionStatus.IDLE:
            with self._calling():
                return texts(self._wire.run(sql, values), self.adapt)
        # An interrupt might hit the savepoint itself, and the transaction with it, to save
        # milliseconds. The savepoint is for timeouts.
        with self._wire.calling(undisturbed=True):
            results = self._wire.run_all((_SAVE, None), (sql, values), (_RELEASE, None))
            if failed(results[-1]):
                self._all((_UNDO, None), (_RELEASE, None))
                raise self._wire.failure(results[-1])
            return texts(results[1], self.adapt)

    def _asked(self, query: str, values: Sequence[str]) -> list[Row]:
        """As ``ask``, for question marks."""
        for number in range(1, len(values) + 1):
            query = query.replace("?", f"${number}", 1)
        return self.ask(query, values)

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Wrap a call: it can be interrupted, and a transaction of ours ends if it fails."""
        try:
            with self._wire.calling():
                yield
        except NotebookError:
            if self._hidden:
                self._hidden = False
                # What matters is what failed before; and with the connection goes the rest.
                with suppress(NotebookError), self._wire.calling(undisturbed=True):
                    self._wire.run(b"ROLLBACK")
            raise
        finally:
            self.transaction = self._own_transaction()

    def _own_transaction(self) -> Transaction:
        match self._wire.status:
            case TransactionStatus.INERROR:
                return Transaction.FAILED
            case TransactionStatus.INTRANS if not self._hidden:
                return Transaction.OPEN
        return Transaction.NONE

    def _finish(self) -> None:
        if self._result is not None:
            self._result.close()
            self._result = None

    def _run(self, sql: str, parameters: Parameters | None, *, text: bool) -> Rows:
        self._finish()
        self._used = True
        self._wire.encoded(sql)
        found = statements(sql, POSTGRES)
        if not found:
            raise QueryError("no statement")
        for number, statement in enumerate(found, 1):
            before = after = ""
            if len(found) > 1:
                before = f"statement {number} of {len(found)}: "
                after = f" (after {number - 1} that ran)" if number > 1 else " (nothing ran)"
            alone = number == 1 and self.transaction is Transaction.NONE
            try:
                if number < len(found):
                    self._run_through(statement)
                else:
                    self._result = self._last(statement, parameters, text=text)
            except NotebookError as exc:
                exc.args = (f"{before}{exc}{after}",)
                if isinstance(exc, Conflict):
                    exc.alone = alone and rules.first_word(statement.text) in _ATOMIC
                raise
        assert self._result is not None  # noqa: S101  # there was a last statement
        return self._result

    def _run_through(self, statement: Statement) -> None:
        prepared = Prepared.of(statement, None)
        with self._located(prepared), self._calling():
            self._direct(prepared, None, streaming=True)

    def _last(self, statement: Statement, parameters: Parameters | None, *, text: bool) -> Rows:
        prepared = Prepared.of(statement, parameters)
        with self._located(prepared), self._calling():
            values = self._values(prepared)
            got = None
            if rules.first_word(prepared.sql) in _WITH_ROWS:
                got = self._declare(prepared, values)
            if got is None:
                got = self._direct(prepared, values)
                count = -1 if got.nfields else got.command_tuples or 0
                return Rows(self, got, text=text, streaming=False, count=count)
            streaming, count = got.ntuples == _FIRST, -1
            if not got.nfields:  # SELECT of nothing: rows to be counted
                count = got.ntuples + (self._wire.run(_MOVE).command_tuples or 0)
                streaming = False
            if not streaming:
                self._end_cursor()
            return Rows(self, got, text=text, streaming=streaming, count=count)

    @contextmanager
    def _located(self, prepared: Prepared) -> Iterator[None]:
        try:
            yield
        except NotebookError as exc:
            exc.position = prepared.locate(exc.position)
            raise

    def _declare(self, prepared: Prepared, values: Values) -> PGresult | None:
        """The first rows through a cursor; None if PostgreSQL has none for this statement, which
        has not run then."""
        hidden = self._wire.status == TransactionStatus.IDLE
        before = self._opening(hidden=hidden)
        after = [(_FETCH % _FIRST, None)]
        if not hidden:  # a statement without a cursor must not spoil the user's transaction
            before, after = [*before, (_SAVE, None)], [(_RELEASE, None), *after]
        self._hidden = hidden
        declare = (_DECLARE + self._wire.encoded(prepared.sql), values)
        results = self._wire.run_all(*before, declare, *after)
        if not failed(results[-1]):
            return results[-1]
        refused = len(results) == len(before) + 1
        if not refused or sqlstate(results[-1]) not in _NO_CURSOR:
            raise self._wire.failure(results[-1], shift=len(_DECLARE) if refused else 0)
        if hidden:
            self._all((b"ROLLBACK", None))
            self._hidden = False
        else:
            self._all((_UNDO, None), (_RELEASE, None))
        return None

    def _direct(self, prepared: Prepared, values: Values, *, streaming: bool = False) -> PGresult:
        """Run a statement as it stands; with *streaming*, nobody wants its rows."""
        sql = self._wire.encoded(prepared.sql)
        run = self._wire.run_through if streaming else self._wire.run
        if not self._read_only:
            tag = None
            try:
                got = run(sql, values)
                tag = got.command_status
            finally:
                # Of what has failed, a part may have been committed: of a CALL, say.
                if tag not in _UNSEEN and (tag == b"COMMIT" or not self._in_transaction):
                    self.changes += 1
            undone = got.command_status == b"ROLLBACK"
            if undone and rules.first_word(prepared.sql) not in ("ROLLBACK", "ABORT"):
                # COMMIT of a failed transaction, which the server answers without an error.
                raise QueryError("the transaction had failed and was rolled back")
            return got
        hidden = self._wire.status == TransactionStatus.IDLE
        opening = self._opening(hidden=hidden)
        if hidden and rules.first_word(prepared.sql) in ("BEGIN", "START"):
            # Its modes come before the first snapshot. Whatever it says, the next statement is
            # in a transaction that is READ ONLY again before it runs.
            opening = opening[:1]
        self._hidden = hidden
        self._all(*opening)
        got = run(sql, values)
        if got.command_status in (b"BEGIN", b"START TRANSACTION"):
            self._hidden = False  # the user's from now on
        elif hidden:
            if self._wire.status != TransactionStatus.IDLE:
                self._wire.run(b"COMMIT")
            self._hidden = False
        return got

    def _opening(self, *, hidden: bool) -> list[Query]:
        """What comes before a statement: the beginning of a *hidden* transaction, and what makes
        the one around it READ ONLY for good."""
        if not self._read_only:
            return [(b"BEGIN", None)] if hidden else []
        if self._wire.status == TransactionStatus.INERROR:
            return []
        mode = b"BEGIN READ ONLY" if hidden else b"SET TRANSACTION READ ONLY"
        return [(mode, None), (b"SELECT 1", None)]  # the latter takes the snapshot

    @property
    def _in_transaction(self) -> bool:
        return self._wire.status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def _end_cursor(self) -> None:
        if self._hidden:
            unwritten = False  # nor is it known if the connection is lost on the way
            try:
                results = self._wire.run_all((_UNWRITTEN, None), (b"COMMIT", None))
                if failed(results[-1]):
                    raise self._wire.failure(results[-1])
                unwritten = results[0].get_value(0, 0) == b"t"
            finally:
                self.changes += not unwritten
            self._hidden = False
        elif self._wire.status == TransactionStatus.INTRANS:
            self._wire.run(b"CLOSE notebook_rpc")

    def _values(self, prepared: Prepared) -> Values:
        parameters = prepared.parameters
        if len(parameters) > _MOST_PARAMETERS:
            raise QueryError(f"PostgreSQL takes at most {_MOST_PARAMETERS} parameters")
        oids = [0] * len(parameters)
        if any(isinstance(value, list | tuple) for value in parameters):
            oids = self._wire.described(self._wire.encoded(prepared.sql))
        texts = map(rules.parameter_text, parameters, oids)
        return [None if text is None else self._wire.encoded(text) for text in texts]

    def _all(self, *queries: Query) -> None:
        results = self._wire.run_all(*queries)
        if results and failed(results[-1]):
            raise self._wire.failure(results[-1])
