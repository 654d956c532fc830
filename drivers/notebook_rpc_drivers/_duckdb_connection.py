"""A DuckDB cursor as a session's connection, and the results of its statements.

Rows as text are written by the engine (``execute_text``), because Python's ``str`` is slow
and, for nanoseconds, infinities, nested values and half the other types, wrong.

What it refuses: to run a statement twice, and to decide by reading the SQL what a statement
does: the binder says that.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import duckdb
from duckdb import DuckDBPyConnection, DuckDBPyRelation, Statement, StatementType

from notebook_rpc.errors import NotebookError, QueryError
from notebook_rpc.model import Column, ResultColumn, Table, Transaction, unique_names
from notebook_rpc_drivers._duckdb_sql import (
    COLUMNS,
    KEEPS_CATALOG,
    SAYS_TEMPORARY,
    TABLES,
    VIEWS,
    begins,
    commits,
    own_sql_hidden,
    position_in,
    text_of,
    translated,
    type_of,
    values_of,
    which_statement,
    without_semicolon,
)

if TYPE_CHECKING:
    from notebook_rpc.model import Parameters

Row = tuple[Any, ...]
Bound = list[object] | dict[str, object] | None


class Result:
    """Rows to come: from the engine as they are asked for, or from what it has kept."""

    def __init__(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        fetch: Callable[[int], list[Row]],
        *,
        text: bool = False,
        count: int = -1,
        streaming: bool = False,
    ) -> None:
        self.columns = columns
        self.count = count
        self.streaming = streaming
        self._connection = connection
        self._fetch: Callable[[int], list[Row]] | None = fetch
        self._text = text
        self._ended = False
        self._failure: NotebookError | None = None

    def fetch(self, limit: int, /) -> list[Any]:
        if self._failure is not None:
            raise self._failure  # a second try could look like the end
        if self._fetch is None:
            raise QueryError("the result is closed")
        if self._ended:
            return []
        try:
            with self._connection.calling(), own_sql_hidden():
                rows = self._fetch(limit)
        except NotebookError as failure:
            self._failure = failure
            self._connection.note_failure()
            raise
        if len(rows) < limit:
            self._ended = True
            self._release()
        return [line for (line,) in rows] if self._text else rows

    def close(self) -> None:
        self._fetch = None
        self._release()

    def _release(self) -> None:
        if self.streaming:
            self.streaming = False
            self._connection.end_stream()


class Connection:
    """A session's cursor, and a sibling that is asked for the catalog while a result streams.

    Until a streaming result has ended its connection can do nothing else, and the sibling
    cannot see temporary or uncommitted objects. So what only the session sees is read just
    before a stream begins: no statement can change it before the stream has ended.
    """

    def __init__(self, root: DuckDBPyConnection) -> None:
        self._root = root
        self._own = root.cursor()
        self._sibling: DuckDBPyConnection | None = None
        self._result: Result | None = None
        self._captured: dict[str, list[Row]] = {TABLES: [], VIEWS: [], COLUMNS: []}
        self._whole = False  # _captured is all there is to see
        self._stale = False  # _captured is older than the last statement that may have changed it
        self._in_transaction = False
        self._failed = False  # and with it everything but its end
        self._temporary = False  # it may have had a temporary object
        self._changed = False  # the transaction has run such a statement
        self._guard = threading.Lock()  # held for an instant only: interrupt() must not block
        self._busy: DuckDBPyConnection | None = None
        try:  # the engine counts its progress only for a progress bar, drawn or not
            self._own.execute("SET enable_progress_bar = true")
            self._own.execute("SET enable_progress_bar_print = false")
        except duckdb.InvalidInputException:
            self._counts_progress = False  # lock_configuration
        else:
            self._counts_progress = True

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> Result:
        return self._run_noting(sql, parameters, text=False)

    def execute_text(self, sql: str, parameters: Parameters | None = None, /) -> Result:
        return self._run_noting(sql, parameters, text=True)

    def tables(self) -> list[Table]:
        return [Table(*row) for row in self._catalog(TABLES)]

    def views(self) -> list[Table]:
        return [Table(*row) for row in self._catalog(VIEWS)]

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        return [Column(*row) for row in self._catalog(COLUMNS, catalog, schema, table)]

    @property
    def transaction(self) -> Transaction:
        if not self._in_transaction:
            return Transaction.NONE
        return Transaction.FAILED if self._failed else Transaction.OPEN

    def rollback(self) -> bool:
        self._finish()
        with self.calling():
            try:
                self._own.rollback()
            except duckdb.TransactionException:
                return False  # the engine knows better than our bookkeeping
            finally:
                self._transaction_ended()
        return True

    def close(self) -> None:
        self._finish()
        with self.calling():
            self._own.close()  # and with it goes an open transaction
            if self._sibling is not None:
                self._sibling.close()

    def interrupt(self) -> None:
        # Only who is busy: an interrupt that finds a stream between two fetches spoils it.
        with self._guard:
            if self._busy is not None:
                self._busy.interrupt()

    def progress(self) -> float | None:
        with self._guard:
            if not self._counts_progress or self._busy is not self._own:
                return None
            percent = self._own.query_progress()
        return None if percent < 0 else min(percent / 100, 1.0)

    @contextmanager
    def calling(
        self,
        on: DuckDBPyConnection | None = None,
        before: str = "",
        after: str = "",
        *,
        undisturbed: bool = False,
    ) -> Iterator[None]:
        """Wrap a call of the engine: its errors are ours, and unless *undisturbed* it can be
        interrupted."""
        with self._guard:
            self._busy = None if undisturbed else on or self._own
        try:
            yield
        except NotebookError:
            raise
        # Whatever its class: std::bad_cast comes as a RuntimeError.
        except Exception as exc:
            raise translated(exc, before, after) from exc
        finally:
            with self._guard:
                self._busy = None

    def note_failure(self) -> None:
        """Find out whether an error has taken the open transaction with it."""
        if self._in_transaction and not self._failed:
            try:
                self._own.execute("SELECT 1").fetchall()  # to its end, or it is in the way
            except duckdb.TransactionException:
                self._failed = True

    def end_stream(self) -> None:
        with self.calling():
            self._own.interrupt()  # or abort() would wait for what the engine is at
            self._own.abort()  # ends the result alone, not a transaction around it

    def _finish(self) -> None:
        if self._result is not None:
            self._result.close()
            self._result = None

    def _parse(self, sql: str) -> list[Statement]:
        try:
            sql.encode()
        except UnicodeEncodeError as exc:
            raise QueryError(f"the statement is not valid Unicode: {exc}") from exc
        try:
            with self.calling():
                # Running a statement with a very long tail of these takes quadratic time.
                statements = self._own.extract_statements(sql.rstrip("; \t\r\n"))
        except QueryError as exc:
            position = position_in(sql, str(exc))
            number, total = which_statement(sql, position)
            failure = exc
            if total > 1:
                before = f"statement {number} of {total}: " if number else ""
                failure = QueryError(f"{before}{exc} (nothing ran)")
            failure.position = position
            raise failure from exc.__cause__
        if not statements:
            raise QueryError("no statement")
        return statements

    def _run_noting(self, sql: str, parameters: Parameters | None, *, text: bool) -> Result:
        try:
            return self._run(sql, parameters, text=text)
        except NotebookError:
            self.note_failure()
            raise

    def _run(self, sql: str, parameters: Parameters | None, *, text: bool) -> Result:
        self._finish()
        statements = self._parse(sql)
        for number, statement in enumerate(statements, 1):
            had_failed = self._failed
            self._note(statement)
            before = after = ""
            if len(statements) > 1:
                before = f"statement {number} of {len(statements)}: "
                after = f" (after {number - 1} that ran)" if number > 1 else " (nothing ran)"
            with self.calling(before=before, after=after):
                if number < len(statements):
                    self._own.execute(statement)
                    self._own.complete()  # to its last row: nextval() counts them all
                else:
                    result = self._last(statement, _bindable(parameters), text=text)
            if (
                had_failed
                and type_of(statement) == StatementType.TRANSACTION
                and commits(statement)
            ):
                # Without a word, the engine has undone it.
                raise QueryError(f"{before}the transaction had failed and was rolled back{after}")
        self._result = result
        return result

    def _last(self, statement: Statement, bound: Bound, *, text: bool) -> Result:
        relation: DuckDBPyRelation | None = self._own.sql(statement, params=bound)
        if relation is None:
            return Result(self, [], _none, count=0)
        names, types = unique_names(relation.columns), relation.types
        columns = [ResultColumn(name, str(kind)) for name, kind in zip(names, types, strict=True)]
        selected = text_of(names, types) if text else values_of(types)
        aliases = ", ".join(f"c{number}" for number in range(len(names)))
        if relation.type == "QUERY_RELATION":  # bound, but not run
            if self._stale:
                self._capture()
            if selected is None:
                self._own.execute(statement, bound)
            else:
                query = without_semicolon(relation.sql_query())
                wrapped = f"SELECT {selected} FROM ({query}\n) AS r({aliases})"  # noqa: S608
                with own_sql_hidden():
                    self._own.execute(wrapped, bound)
            return Result(self, columns, self._own.fetchmany, text=text, streaming=True)
        # It has run, and must not run again. What it returned is known to this private name
        # alone: RETURNING x AS "Count" and EXECUTE of a SELECT look just like a count.
        returned = relation._return_type  # noqa: SLF001
        if returned != "query_result":
            counted = relation.fetchall() if returned == "changed_rows" else []
            return Result(self, [], _none, count=int(counted[0][0]) if counted else 0)
        if selected is not None:
            name = f"kept_{uuid.uuid4().hex}"  # a user's table of that name would be read instead
            relation = relation.query(name, f"SELECT {selected} FROM {name} AS r({aliases})")  # noqa: S608
            assert relation is not None  # noqa: S101  # only what returns no rows gives None
        rows = relation.iter_rows()
        first = list(islice(rows, 1))  # from here on they lie in memory and the cursor is free
        if not first and [(c.column, c.datatype) for c in columns] == [("Success", "BOOLEAN")]:
            return Result(self, [], _none, count=0)  # CHECKPOINT
        rows = chain(first, rows)
        return Result(self, columns, lambda limit: list(islice(rows, limit)), text=text)

    def _note(self, statement: Statement) -> None:
        """Remember what *statement*, which is about to run, may do to the catalog."""
        kind = type_of(statement)
        if kind == StatementType.TRANSACTION:
            if begins(statement):
                self._in_transaction = True
            else:
                self._transaction_ended()
        elif kind not in KEEPS_CATALOG:
            self._stale = True
            if kind not in SAYS_TEMPORARY or "temp" in statement.query.lower():
                self._temporary = True
            self._changed = self._in_transaction

    def _transaction_ended(self) -> None:
        self._stale |= self._changed
        self._in_transaction = self._changed = self._failed = False

    def _capture(self) -> None:
        # A transaction sees what was committed when it began, so its own view is all of it.
        kept = "" if self._changed else "WHERE database_name = 'temp'"
        some = self._changed or self._temporary
        # The engine lists every database before it leaves out all but one, columns above all:
        # 100 ms for 100 000 of them. So what cannot be there is not asked for.
        for query in (TABLES, VIEWS, COLUMNS):
            if query == COLUMNS:
                some = bool(self._captured[TABLES] or self._captured[VIEWS])
            every = [""] * query.count("?")
            self._captured[query] = (
                self._own.execute(f"FROM ({query}) {kept}", every).fetchall() if some else []
            )
        self._whole = self._changed
        self._stale = False

    def _catalog(self, query: str, *names: str) -> list[Row]:
        if self._result is None or not self._result.streaming:
            try:
                # An interrupt would undo the transaction that is open, to save milliseconds.
                with self.calling(undisturbed=self._in_transaction):
                    return self._own.execute(query, names).fetchall()
            except QueryError as exc:
                if not isinstance(exc.__cause__, duckdb.TransactionException):
                    raise
            # The transaction has failed and can only be rolled back: to what others see.
            return self._committed(query, names)
        captured = [
            row
            for row in self._captured[query]
            if all(name in ("", own) for name, own in zip(names, row, strict=False))
        ]
        if self._whole:
            return captured
        return sorted(self._committed(query, names) + captured, key=lambda row: row[:3])

    def _committed(self, query: str, names: tuple[str, ...]) -> list[Row]:
        if self._sibling is None:
            self._sibling = self._root.cursor()
        with self.calling(self._sibling):
            return self._sibling.execute(query, names).fetchall()


def _none(_: int) -> list[Row]:
    return []


def _bindable(parameters: Parameters | None) -> Bound:
    if isinstance(parameters, Mapping):
        return dict(parameters)
    return None if parameters is None else list(parameters)
