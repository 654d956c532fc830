"""A DuckDB cursor as a session's connection. What its rows come as is a ``Form``.

What it refuses: to run a statement twice, and to decide by reading the SQL what a statement
does: the binder says that.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

import duckdb
from duckdb import DuckDBPyConnection, DuckDBPyRelation, Statement, StatementType

from notebook_rpc.errors import NotebookError, QueryError
from notebook_rpc.model import Column, ResultColumn, Stability, Table, Transaction, unique_names
from notebook_rpc_drivers import _duckdb_describe, _duckdb_stability, _duckdb_touched
from notebook_rpc_drivers._duckdb_calls import Call, Calls
from notebook_rpc_drivers._duckdb_catalog import Catalog
from notebook_rpc_drivers._duckdb_notes import Notes
from notebook_rpc_drivers._duckdb_page import Page, part_of
from notebook_rpc_drivers._duckdb_parse import statements_of
from notebook_rpc_drivers._duckdb_result import (
    TEXT,
    VALUES,
    Json,
    Reading,
    Result,
    aliases,
    result_of,
)
from notebook_rpc_drivers._duckdb_sql import (
    COLUMNS,
    TABLES,
    TAKEN_BACK,
    VIEWS,
    bindable,
    commits,
    own_sql_hidden,
    quoted,
    type_of,
    without_semicolon,
)

if TYPE_CHECKING:
    from notebook_rpc.model import Line, Parameters, Touched
    from notebook_rpc.schema import TableFacts
    from notebook_rpc_drivers._duckdb_arrow import ArrowResult
    from notebook_rpc_drivers._duckdb_lines import LinesResult
    from notebook_rpc_drivers._duckdb_parquet import ParquetResult
    from notebook_rpc_drivers._duckdb_result import Form, Row
    from notebook_rpc_drivers._duckdb_shapes import Shapes
    from notebook_rpc_drivers._duckdb_sql import Bound

R = TypeVar("R", bound=Reading)


class Connection:
    """A session's cursor, its catalog, and notes of what has been done with it."""

    computes_here: Final = True

    def __init__(self, root: DuckDBPyConnection, shapes: Shapes) -> None:
        self.shapes = shapes
        self._notes = Notes()
        self._root = root
        self._catalog = Catalog(self, root, self._notes)
        self._result: Reading | Page | None = None
        self._calls = Calls()
        self._begin()

    def _begin(self, *, counting: bool = True) -> None:
        """With a cursor that nobody has used; *counting*, if its progress is to be told."""
        self._own = self._root.cursor()
        self._calls.interrupted = False
        self._catalog.begin()
        self._notes.begin()
        self._counts_progress = False
        if not counting:
            return
        try:  # the engine counts its progress only for a progress bar, drawn or not
            self._own.execute("SET enable_progress_bar = true")
            self._own.execute("SET enable_progress_bar_print = false")
        except duckdb.InvalidInputException:
            return  # lock_configuration
        self._counts_progress = True

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> Result:
        return self._run_noting(sql, parameters, VALUES)

    def execute_text(self, sql: str, parameters: Parameters | None = None, /) -> Result:
        return self._run_noting(sql, parameters, TEXT)

    def execute_json(
        self, sql: str, parameters: Parameters | None = None, /, *, arrays: bool = False
    ) -> Result:
        return self._run_noting(sql, parameters, Json(arrays=arrays))

    def execute_lines(
        self,
        sql: str,
        parameters: Parameters | None = None,
        /,
        *,
        line: Line,
        before: str = "",
        after: str = "",
    ) -> LinesResult:
        from notebook_rpc_drivers import _duckdb_lines  # noqa: PLC0415  # not at start-up

        return self._run_noting(sql, parameters, _duckdb_lines.Lines(line, before, after))

    def execute_parquet(
        self, sql: str, parameters: Parameters | None, path: str, /
    ) -> ParquetResult:
        from notebook_rpc_drivers import _duckdb_parquet  # noqa: PLC0415  # not at start-up

        return self._run_noting(sql, parameters, _duckdb_parquet.Parquet(path))

    def execute_page(
        self, sql: str, parameters: Parameters | None, offset: int, limit: int | None, /
    ) -> Page | None:
        self._finish()
        if self.stability(sql) is not Stability.LASTING:
            return None
        page = Page(self, sql, parameters, offset, limit)
        self.begin_snapshot()
        try:
            page.begin()
        except BaseException as exc:
            page.close()
            if isinstance(exc, QueryError):
                return None  # who runs the client's own text will hear what is wrong with that
            raise
        self._result = page
        return page

    def part(self, sql: str, offset: int, limit: int | None, /) -> str | None:
        volatile = self.stability(sql) is Stability.VOLATILE
        return None if volatile else part_of(sql, offset, limit)

    def execute_arrow(self, sql: str, parameters: Parameters | None = None, /) -> ArrowResult:
        from notebook_rpc_drivers import _duckdb_arrow  # noqa: PLC0415  # not at start-up

        return self._run_noting(sql, parameters, _duckdb_arrow.Arrow())

    def upload(self, schema: str, table: str, stream: bytes, /) -> int:
        from notebook_rpc_drivers import _duckdb_arrow  # noqa: PLC0415  # not at start-up

        self._finish()
        with _duckdb_arrow.named(self, stream) as name:
            target = ".".join(quoted(part) for part in (schema, table) if part)
            sql = f"CREATE OR REPLACE TABLE {target} AS FROM {name}"
            return self._run_noting(sql, None, VALUES).count

    def tables(self) -> list[Table]:
        return [Table(*row) for row in self._catalog.rows(TABLES)]

    def views(self) -> list[Table]:
        return [Table(*row) for row in self._catalog.rows(VIEWS)]

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        return [Column(*row) for row in self._catalog.rows(COLUMNS, catalog, schema, table)]

    def describe(self, table: Table, /) -> TableFacts:
        return _duckdb_describe.describe(self._catalog.described, table)

    def schemas(self) -> list[str]:
        return _duckdb_describe.schemas(self._catalog.described)

    def databases(self) -> list[str]:
        return [name for (name,) in self._catalog.beside(_duckdb_describe.DATABASES, [])]

    def written(self, table: Table, /) -> str:
        return ".".join(quoted(part) for part in (table.catalog, table.schema, table.table) if part)

    @property
    def cursor(self) -> DuckDBPyConnection:
        """The engine's, which runs one statement at a time; use it within ``calling``."""
        return self._own

    @property
    def transaction(self) -> Transaction:
        if not self._notes.in_transaction:
            return Transaction.NONE
        return Transaction.FAILED if self._notes.failed else Transaction.OPEN

    def rollback(self) -> bool:
        self._finish()
        with self.calling():
            try:
                self._own.rollback()
            except duckdb.TransactionException:
                return False  # the engine knows better than our bookkeeping
            finally:
                self._notes.transaction_ended()
        return True

    def reset(self) -> None:
        self._finish()
        if not self._notes.used and not self._calls.interrupted:
            return
        # A new cursor takes 4 us, and it is the only thing to be sure of: what a SELECT leaves
        # behind (read_csv's table of rejects, for one) no kind of statement tells.
        with self.calling(undisturbed=True):  # an interrupt would find a closed cursor
            self._own.close()
            self._begin(counting=False)

    def stability(self, sql: str, /) -> Stability:
        if self._notes.apart:
            return Stability.VOLATILE  # the sibling, which is asked, does not see what is meant
        try:
            return _duckdb_stability.stability(self._catalog.beside, sql)
        except QueryError:
            return Stability.VOLATILE

    def reads(self, sql: str, /) -> Touched:
        if self._notes.apart:
            return None  # as with ``stability``
        try:
            return _duckdb_touched.reads(self._catalog.beside, sql)
        except QueryError:
            return None

    @property
    def changes(self) -> int:
        return self._notes.changes

    def take_written(self) -> Touched:
        return self._notes.written.take()

    def close(self) -> None:
        self._finish()
        with self.calling():
            self._own.close()  # and with it goes an open transaction
            self._catalog.close()

    def interrupt(self) -> None:
        self._calls.interrupt()

    def harmless(self, sql: str, /) -> bool:
        disturbed = self._notes.apart or self._calls.interrupted or self.streaming
        return not disturbed and self.shapes.proven(sql)

    def brief(self, sql: str, /) -> bool:
        return self.harmless(sql) and self.shapes.brief(sql)

    def is_steady(self, sql: str) -> bool:
        return _duckdb_stability.is_steady(self._catalog.beside, sql)

    def took(self, sql: str, seconds: float, /) -> None:
        self.shapes.took(sql, seconds)

    def progress(self) -> float | None:
        percent = self._calls.progress(self._own) if self._counts_progress else None
        return None if percent is None else min(percent / 100, 1.0)

    def calling(
        self,
        on: DuckDBPyConnection | None = None,
        before: str = "",
        after: str = "",
        *,
        undisturbed: bool = False,
        alone: bool = False,
    ) -> Call:
        """Wrap a call of the engine; unless *undisturbed* it can be interrupted. The rest is as of
        ``Call``."""
        return Call(
            self._calls, None if undisturbed else on or self._own, before, after, alone=alone
        )

    def note_failure(self) -> None:
        """Find out whether an error has taken the open transaction with it."""
        if self._notes.in_transaction and not self._notes.failed:
            try:
                self._own.execute("SELECT 1").fetchall()  # to its end, or it is in the way
            except duckdb.TransactionException:
                self._notes.failed = True

    def end_stream(self) -> None:
        with self.calling():
            self.abandon(in_transaction=self._notes.in_transaction and not self._notes.failed)

    def abandon(self, *, in_transaction: bool = True) -> None:
        """Stop what runs, and leave the transaction around it as it is."""
        self._own.interrupt()  # or abort() would wait for what the engine is at
        self._own.abort()  # ends the result alone
        if in_transaction:
            # There the interrupt would still be met by what the next statement is bound with.
            self._own.execute("SELECT 1").fetchall()

    # For a page, whose transaction nobody else sees

    def begin_snapshot(self) -> None:
        self._notes.used = True
        with self.calling():
            self._own.begin()

    def run_in_snapshot(self, sql: str, parameters: Parameters | None, form: Form[R]) -> R:
        return self._run(sql, parameters, form)

    def ask_in_snapshot(self, sql: str, parameters: Parameters | None) -> list[Row]:
        with self.calling(), own_sql_hidden():
            return self._own.execute(sql, bindable(parameters)).fetchall()

    def end_snapshot(self) -> None:
        with self.calling(undisturbed=True), suppress(duckdb.TransactionException):
            self._own.rollback()

    def _finish(self) -> None:
        if self._result is not None:
            self._result.close()
            self._result = None

    def _run_noting(self, sql: str, parameters: Parameters | None, form: Form[R]) -> R:
        try:
            return self._run(sql, parameters, form)
        except NotebookError:
            self.note_failure()
            raise

    def _run(self, sql: str, parameters: Parameters | None, form: Form[R]) -> R:
        self._finish()
        statements = statements_of(self, sql, settled=not self._notes.left)
        used, self._notes.used = self._notes.used, True
        for number, statement in enumerate(statements, 1):
            had_failed = self._notes.failed
            atomic = type_of(statement) in TAKEN_BACK | {StatementType.SELECT}
            alone = atomic and not self._notes.in_transaction and number == 1
            unsettles = self._notes.note(statement)
            if unsettles:
                self.shapes.clear()
            before = after = ""
            if len(statements) > 1:
                before = f"statement {number} of {len(statements)}: "
                after = f" (after {number - 1} that ran)" if number > 1 else " (nothing ran)"
            try:
                with self.calling(before=before, after=after, alone=alone):
                    if number < len(statements):
                        self._notes.note_write(statement)
                        self._own.execute(statement)
                        self._own.complete()  # to its last row: nextval() counts them all
                    else:
                        result = self._last(statement, bindable(parameters), form)
            finally:
                if unsettles:  # again: what others have learned meanwhile may be of before
                    self.shapes.clear()
            if (
                had_failed
                and type_of(statement) == StatementType.TRANSACTION
                and commits(statement)
            ):
                # Without a word, the engine has undone it.
                raise QueryError(f"{before}the transaction had failed and was rolled back{after}")
        self._result = result
        # It tells of the last statement alone.
        self._notes.used = used or len(statements) > 1 or not result.leaves_nothing
        return result

    def _last(self, statement: Statement, bound: Bound, form: Form[R]) -> R:
        if type_of(statement) != StatementType.SELECT:
            self._notes.note_write(statement)
        elif not bound:
            self.ready_to_stream()
            if (again := form.again(self, statement)) is not None:
                return again
        relation: DuckDBPyRelation | None = self._own.sql(statement, params=bound)
        if relation is None:
            return form.counted(self, 0)
        names, types = unique_names(relation.columns), relation.types
        columns = [ResultColumn(name, str(kind)) for name, kind in zip(names, types, strict=True)]
        selected = form.select(names, types)
        if relation.type == "QUERY_RELATION":  # bound, but not run
            self.ready_to_stream()
            if selected is None:
                return form.running(self, columns, statement, bound)
            query = without_semicolon(relation.sql_query())
            wrapped = f"SELECT {selected} FROM ({query}\n) AS r({aliases(columns)})"  # noqa: S608
            with own_sql_hidden():
                return form.running(self, columns, wrapped, bound)
        if type_of(statement) == StatementType.SELECT:
            self._notes.note_write(statement)  # WITH ... INSERT, or it would not have run
        return result_of(self, columns, relation, selected, form)

    def ready_to_stream(self) -> None:
        """To be called before a stream takes the cursor."""
        if self._notes.stale:
            self._catalog.capture()

    def make_little_ahead(self) -> None:
        """Of the results to come, unless the session has settings of its own."""
        if not self._notes.apart:
            with suppress(duckdb.InvalidInputException):  # lock_configuration
                self._own.execute("SET streaming_buffer_size = '256KB'")

    @property
    def streaming(self) -> bool:
        """Whether a result has the cursor, which can do nothing else before its end."""
        return self._result is not None and self._result.streaming
