"""A DuckDB cursor as a session's connection.

What its rows come as is a ``Form``: those of ``_duckdb_result.py``, or Arrow's in
``_duckdb_arrow.py``, which is imported when it is first asked for.

What it refuses: to run a statement twice, and to decide by reading the SQL what a statement
does: the binder says that.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import duckdb
from duckdb import DuckDBPyConnection, DuckDBPyRelation, Statement, StatementType

from notebook_rpc.errors import Conflict, NotebookError, QueryError
from notebook_rpc.model import (
    Column,
    ResultColumn,
    Stability,
    Table,
    Transaction,
    unique_names,
)
from notebook_rpc_drivers import _duckdb_describe, _duckdb_stability, _duckdb_touched
from notebook_rpc_drivers._duckdb_page import Page, part_of
from notebook_rpc_drivers._duckdb_result import TEXT, VALUES, Json, Reading, Result
from notebook_rpc_drivers._duckdb_sql import (
    COLUMNS,
    KEEPS_CATALOG,
    LEAVES_NOTHING,
    SAYS_TEMPORARY,
    TABLES,
    TAKEN_BACK,
    VIEWS,
    begins,
    commits,
    own_sql_hidden,
    position_in,
    quoted,
    translated,
    type_of,
    which_statement,
    without_semicolon,
)
from notebook_rpc_drivers._touched import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notebook_rpc.model import Line, Parameters, Touched
    from notebook_rpc.schema import TableFacts
    from notebook_rpc_drivers._duckdb_arrow import ArrowResult
    from notebook_rpc_drivers._duckdb_lines import LinesResult
    from notebook_rpc_drivers._duckdb_parquet import ParquetResult
    from notebook_rpc_drivers._duckdb_result import Form, Row
    from notebook_rpc_drivers._duckdb_shapes import Shapes

R = TypeVar("R", bound=Reading)
Bound = list[object] | dict[str, object] | None


def _matches(names: Sequence[str], row: Row) -> bool:
    return all(name in ("", own) for name, own in zip(names, row, strict=False))


class Connection:
    """A session's cursor, and a sibling that is asked for the catalog while a result streams.

    Until a streaming result has ended its connection can do nothing else, and the sibling
    cannot see temporary or uncommitted objects. So what only the session sees is read just
    before a stream begins: no statement can change it before the stream has ended.
    """

    computes_here: Literal[True] = True

    def __init__(self, root: DuckDBPyConnection, shapes: Shapes) -> None:
        self.shapes = shapes
        self.changes = 0
        self._written = Written()
        self._root = root
        self._sibling: DuckDBPyConnection | None = None
        self._result: Reading | Page | None = None
        self._guard = threading.Lock()  # held for an instant only: interrupt() must not block
        self._busy: DuckDBPyConnection | None = None
        self._begin()

    def _begin(self, *, counting: bool = True) -> None:
        """With a cursor that nobody has used; *counting*, if its progress is to be told."""
        self._own = self._root.cursor()
        self._captured: dict[str, list[Row]] = {}
        self._place: list[Row] = []  # captured, too
        self._whole = False  # _captured is all there is to see
        self._stale = False  # _captured is older than the last statement that may have changed it
        self._in_transaction = False
        self._failed = False  # and with it everything but its end
        self._temporary = False  # it may have had a temporary object
        self._changed = False  # the transaction has run such a statement
        self._wrote = False  # the transaction has run a statement that is no read
        self._left = False  # a statement may have left something that the next client would notice
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
        return [Table(*row) for row in self._catalog(TABLES)]

    def views(self) -> list[Table]:
        return [Table(*row) for row in self._catalog(VIEWS)]

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        return [Column(*row) for row in self._catalog(COLUMNS, catalog, schema, table)]

    def describe(self, table: Table, /) -> TableFacts:
        return _duckdb_describe.describe(self._described, table)

    def schemas(self) -> list[str]:
        return _duckdb_describe.schemas(self._described)

    def databases(self) -> list[str]:
        return [name for (name,) in self._beside(_duckdb_describe.DATABASES, [])]

    def written(self, table: Table, /) -> str:
        return ".".join(quoted(part) for part in (table.catalog, table.schema, table.table) if part)

    @property
    def cursor(self) -> DuckDBPyConnection:
        """The engine's, which runs one statement at a time; use it within ``calling``."""
        return self._own

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

    def reset(self) -> None:
        self._finish()
        # A new cursor takes 4 us, and it is the only thing to be sure of: what a SELECT leaves
        # behind (read_csv's table of rejects, for one) no kind of statement tells.
        with self.calling(undisturbed=True):  # an interrupt would find a closed cursor
            self._own.close()
            self._begin(counting=False)

    def stability(self, sql: str, /) -> Stability:
        if self._left or self._in_transaction:
            return Stability.VOLATILE  # the sibling, which is asked, does not see what is meant
        try:
            return _duckdb_stability.stability(self._beside, sql)
        except QueryError:
            return Stability.VOLATILE

    def reads(self, sql: str, /) -> Touched:
        if self._left or self._in_transaction:
            return None  # as with ``stability``
        try:
            return _duckdb_touched.reads(self._beside, sql)
        except QueryError:
            return None

    def take_written(self) -> Touched:
        return self._written.take()

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
        alone: bool = False,
    ) -> Iterator[None]:
        """Wrap a call of the engine: its errors are ours, and unless *undisturbed* it can be
        interrupted. *alone* is as of ``Conflict``."""
        with self._guard:
            self._busy = None if undisturbed else on or self._own
        try:
            yield
        except NotebookError:
            raise
        # Whatever its class: std::bad_cast comes as a RuntimeError.
        except Exception as exc:
            failure = translated(exc, before, after)
            if isinstance(failure, Conflict):
                failure.alone = alone
            raise failure from exc
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
            self.abandon(in_transaction=self._in_transaction and not self._failed)

    def abandon(self, *, in_transaction: bool = True) -> None:
        """Stop what runs, and leave the transaction around it as it is."""
        self._own.interrupt()  # or abort() would wait for what the engine is at
        self._own.abort()  # ends the result alone
        if in_transaction:
            # There the interrupt would still be met by what the next statement is bound with.
            self._own.execute("SELECT 1").fetchall()

    # For a page, whose transaction nobody else sees

    def begin_snapshot(self) -> None:
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

    def _run_noting(self, sql: str, parameters: Parameters | None, form: Form[R]) -> R:
        try:
            return self._run(sql, parameters, form)
        except NotebookError:
            self.note_failure()
            raise

    def _run(self, sql: str, parameters: Parameters | None, form: Form[R]) -> R:
        self._finish()
        statements = self._parse(sql)
        for number, statement in enumerate(statements, 1):
            had_failed = self._failed
            atomic = type_of(statement) in TAKEN_BACK | {StatementType.SELECT}
            alone = atomic and not self._in_transaction and number == 1
            self._note(statement)
            before = after = ""
            if len(statements) > 1:
                before = f"statement {number} of {len(statements)}: "
                after = f" (after {number - 1} that ran)" if number > 1 else " (nothing ran)"
            with self.calling(before=before, after=after, alone=alone):
                if number < len(statements):
                    self._note_write(statement)
                    self._own.execute(statement)
                    self._own.complete()  # to its last row: nextval() counts them all
                else:
                    result = self._last(statement, bindable(parameters), form)
            if (
                had_failed
                and type_of(statement) == StatementType.TRANSACTION
                and commits(statement)
            ):
                # Without a word, the engine has undone it.
                raise QueryError(f"{before}the transaction had failed and was rolled back{after}")
        self._result = result
        return result

    def _last(self, statement: Statement, bound: Bound, form: Form[R]) -> R:
        if type_of(statement) != StatementType.SELECT:
            self._note_write(statement)
        elif not bound:
            self.ready_to_stream()
            if (again := form.again(self, statement.query)) is not None:
                return again
        relation: DuckDBPyRelation | None = self._own.sql(statement, params=bound)
        if relation is None:
            return form.counted(self, 0)
        names, types = unique_names(relation.columns), relation.types
        columns = [ResultColumn(name, str(kind)) for name, kind in zip(names, types, strict=True)]
        selected = form.select(names, types)
        aliases = ", ".join(f"c{number}" for number in range(len(names)))
        if relation.type == "QUERY_RELATION":  # bound, but not run
            self.ready_to_stream()
            if selected is None:
                return form.running(self, columns, statement, bound)
            query = without_semicolon(relation.sql_query())
            wrapped = f"SELECT {selected} FROM ({query}\n) AS r({aliases})"  # noqa: S608
            with own_sql_hidden():
                return form.running(self, columns, wrapped, bound)
        if type_of(statement) == StatementType.SELECT:
            self._note_write(statement)  # WITH ... INSERT, or it would not have run
        # It has run, and must not run again. What it returned is known to this private name
        # alone: RETURNING x AS "Count" and EXECUTE of a SELECT look just like a count.
        returned = relation._return_type  # noqa: SLF001
        if returned != "query_result":
            counted = relation.fetchall() if returned == "changed_rows" else []
            return form.counted(self, int(counted[0][0]) if counted else 0)
        if selected is not None:
            name = f"kept_{uuid.uuid4().hex}"  # a user's table of that name would be read instead
            relation = relation.query(name, f"SELECT {selected} FROM {name} AS r({aliases})")  # noqa: S608
            assert relation is not None  # noqa: S101  # only what returns no rows gives None
        shape = [(column.column, column.datatype) for column in columns]
        if shape == [("Success", "BOOLEAN")] and not relation.fetchall():
            return form.counted(self, 0)  # CHECKPOINT
        return form.kept(self, columns, relation)

    def _note(self, statement: Statement) -> None:
        """Remember what *statement*, which is about to run, may do to the catalog, and leave."""
        kind = type_of(statement)
        says_so = kind in SAYS_TEMPORARY and kind != StatementType.EXPLAIN
        if kind not in LEAVES_NOTHING and not (says_so and "temp" not in statement.query.lower()):
            self._left = True
        if kind == StatementType.TRANSACTION:
            if begins(statement):
                self._in_transaction = True
            else:
                if self._wrote and commits(statement):
                    self._written.commit()
                    self.changes += 1
                self._transaction_ended()
        elif kind == StatementType.SET:
            self._stale = True  # where names are looked for, perhaps
        elif kind not in KEEPS_CATALOG:
            self.shapes.clear()
            self._stale = True
            if kind not in SAYS_TEMPORARY or "temp" in statement.query.lower():
                self._temporary = True
            self._changed = self._in_transaction

    def _note_write(self, statement: Statement) -> None:
        """Of a statement that is not proven to be a read. In a transaction it is seen when that
        is committed, unless it does what no ROLLBACK takes back."""
        kind = type_of(statement)
        if kind == StatementType.TRANSACTION:
            return
        tables = _duckdb_touched.written(kind, statement.query)
        at_once = not self._in_transaction or kind not in TAKEN_BACK
        self._written.note(tables, at_once=at_once)
        self._wrote = self._in_transaction
        self.changes += at_once
        if not self._in_transaction:
            self._written.commit()

    def _transaction_ended(self) -> None:
        self._stale |= self._changed
        self._in_transaction = self._changed = self._failed = self._wrote = False
        self._written.roll_back()

    def ready_to_stream(self) -> None:
        """To be called before a stream takes the cursor."""
        if self._stale:
            self._capture()

    def _capture(self) -> None:
        # A transaction sees what was committed when it began, so its own view is all of it.
        kept = "" if self._changed else "WHERE database_name = 'temp'"
        some = self._changed or self._temporary
        # The engine lists every database before it leaves out all but one, columns above all:
        # 100 ms for 100 000 of them. So what cannot be there is not asked for, and nothing twice.
        schemas = self._all(_duckdb_describe.SCHEMAS, kept) if some else []
        relations = self._all(_duckdb_describe.RELATIONS, kept) if some else []
        facts = self._all(_duckdb_describe.FACTS, kept) if relations else []
        self._captured = {
            TABLES: sorted(row[:3] for row in relations if not row[3]),
            VIEWS: sorted(row[:3] for row in relations if row[3]),
            COLUMNS: [row[:5] for row in facts],
            _duckdb_describe.RELATIONS: relations,
            _duckdb_describe.FACTS: facts,
            _duckdb_describe.SCHEMAS: schemas,
        }
        self._place = self._own.execute(_duckdb_describe.PLACE).fetchall()
        self._whole = self._changed
        self._stale = False

    def _all(self, query: str, kept: str) -> list[Row]:
        """All rows of a query of the catalog that are *kept*."""
        every = [""] * query.count("?")
        return self._own.execute(f"FROM ({query}) {kept}", every).fetchall()

    @property
    def _streaming(self) -> bool:
        return self._result is not None and self._result.streaming

    def _described(self, query: str, *names: str) -> list[Row]:
        matches = _duckdb_describe.matches
        if self._streaming and query == _duckdb_describe.PLACE and self._place:
            return self._place  # which the sibling does not know
        if self._streaming and query == _duckdb_describe.TABLE_FACTS:
            facts = self._captured.get(_duckdb_describe.FACTS, [])
            own = [row for row in facts if matches(names, row)]
            if own or self._whole:
                return own
        return self._catalog(query, *names, matches=matches)

    def _catalog(
        self, query: str, *names: str, matches: Callable[[Sequence[str], Row], bool] = _matches
    ) -> list[Row]:
        if not self._streaming:
            try:
                # An interrupt would undo the transaction that is open, to save milliseconds.
                with self.calling(undisturbed=self._in_transaction):
                    return self._own.execute(query, names).fetchall()
            except QueryError as exc:
                if not isinstance(exc.__cause__, duckdb.TransactionException):
                    raise
            # The transaction has failed and can only be rolled back: to what others see.
            return self._committed(query, names)
        captured = [row for row in self._captured.get(query, []) if matches(names, row)]
        if self._whole:
            return captured
        return sorted(self._committed(query, names) + captured, key=lambda row: row[:3])

    def _committed(self, query: str, names: tuple[str, ...]) -> list[Row]:
        return self._beside(query, list(names))

    def _beside(self, query: str, values: list[Any]) -> list[Row]:
        if self._sibling is None:
            self._sibling = self._root.cursor()
        with self.calling(self._sibling):
            return self._sibling.execute(query, values).fetchall()


def bindable(parameters: Parameters | None) -> Bound:
    if isinstance(parameters, Mapping):
        return dict(parameters)
    return None if parameters is None else list(parameters)
