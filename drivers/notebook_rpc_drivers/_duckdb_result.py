"""What the results of DuckDB's statements are: rows of values, of text, or of JSON.

Text and JSON are written by the engine, because Python's ``str`` is slow and, for nanoseconds,
infinities, nested values and half the other types, wrong. Arrow is in ``_duckdb_arrow.py``.

What it refuses: to read on after an error, as if the rows behind it were the next.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from notebook_rpc.errors import NotebookError, QueryError
from notebook_rpc_drivers import _duckdb_few_rows, _duckdb_json
from notebook_rpc_drivers._duckdb_shapes import Runs
from notebook_rpc_drivers._duckdb_sql import own_sql_hidden, text_of, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from duckdb import DuckDBPyRelation, Statement

    from notebook_rpc.model import ResultColumn
    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers._duckdb_sql import Bound

R_co = TypeVar("R_co", bound="Reading", covariant=True)
Row = tuple[Any, ...]
Read = Callable[[list[Row]], list[Any]]


class Reading:
    """What results have in common, whatever their rows come as: an error stays, and with the
    end, or when it is closed, a stream gives the connection back."""

    leaves_nothing = False
    """Whether it is proven that its statement has left nothing on the cursor."""

    def __init__(
        self, connection: Connection, columns: list[ResultColumn], count: int, *, streaming: bool
    ) -> None:
        self.columns = columns
        self.count = count
        self.streaming = streaming
        self._connection = connection
        self._closed = False
        self._ended = not columns
        self._failure: NotebookError | None = None

    def close(self) -> None:
        self._closed = True
        self._release()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Wrap a read of the engine's."""
        try:
            with self._connection.calling(), own_sql_hidden():
                yield
        except NotebookError as failure:
            self._failure = failure
            self._connection.note_failure()
            raise

    def _is_over(self) -> bool:
        if self._failure is not None:
            raise self._failure  # a second try could look like the end
        if self._closed:
            raise QueryError("the result is closed")
        return self._ended

    def _end(self) -> None:
        self._ended = True
        self._release()

    def _release(self) -> None:
        if self.streaming:
            self.streaming = False
            self._let_go()
            self._connection.end_stream()

    def _let_go(self) -> None:
        """Free what the engine would not free by itself. May be called again."""


class Result(Reading):
    """Rows to come: from the engine as they are asked for, or from what it has kept."""

    def __init__(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        fetch: Callable[[int], list[Row]],
        read: Read,
        *,
        count: int = -1,
        streaming: bool = False,
        ended: Callable[[int], None] = lambda _: None,
    ) -> None:
        """*ended* is told how many rows there were, when all have come."""
        super().__init__(connection, columns, count, streaming=streaming)
        self._fetch: Callable[[int], list[Row]] = fetch
        self._read = read
        self._given = 0
        self._told = ended

    def fetch(self, limit: int, /) -> list[Any]:
        if self._is_over():
            return []
        with self._reading():
            rows = self._fetch(limit)
        self._given += len(rows)
        if len(rows) < limit:
            self._end()
            self._told(self._given)
        return self._read(rows)

    def close(self) -> None:
        self._fetch = _none  # with it goes what the engine has kept
        super().close()


class FewRows(Result):
    """Rows that are there already: to read them asks the engine for nothing."""

    def __init__(
        self, connection: Connection, columns: list[ResultColumn], lines: list[str]
    ) -> None:
        super().__init__(connection, columns, _none, _as_they_are)
        self._lines = lines

    def fetch(self, limit: int, /) -> list[Any]:
        if self._is_over():
            return []
        rows = self._lines[self._given : self._given + limit]
        self._given += len(rows)
        self._ended = self._given == len(self._lines)
        return rows


class Form(Protocol[R_co]):
    """What a statement's rows shall come as. One is made for each statement."""

    def again(self, connection: Connection, query: Statement, /) -> R_co | None:
        """Run *query*, which has no parameters, at once, if it is known what it will give. None:
        it is not, or not any more; the query is to be bound first."""
        ...

    def select(self, names: list[str], types: list[Any], /) -> str | None:
        """SQL for the columns c0, c1... of the query; None for them as they are."""
        ...

    def running(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        query: Statement | str,
        bound: Bound,
        /,
    ) -> R_co:
        """Run *query*, and give its rows as they come."""
        ...

    def kept(
        self, connection: Connection, columns: list[ResultColumn], rows: DuckDBPyRelation, /
    ) -> R_co:
        """Of a statement that has run."""
        ...

    def counted(self, connection: Connection, count: int, /) -> R_co:
        """Of a statement that has run, and has no rows."""
        ...


@dataclass(frozen=True)
class Rows:
    """Rows by the number, each of them read by what ``reader`` gives for the columns."""

    select: Callable[[list[str], list[Any]], str | None]
    reader: Callable[[list[ResultColumn]], Read]

    def again(self, _: Connection, __: Statement, /) -> Result | None:
        return None

    def running(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        query: Statement | str,
        bound: Bound,
        /,
    ) -> Result:
        cursor = connection.cursor
        cursor.execute(query, bound)
        return Result(connection, columns, cursor.fetchmany, self.reader(columns), streaming=True)

    def kept(
        self, connection: Connection, columns: list[ResultColumn], rows: DuckDBPyRelation, /
    ) -> Result:
        return _kept(connection, columns, rows, self.reader(columns))

    def counted(self, connection: Connection, count: int, /) -> Result:
        return _counted(connection, count)


@dataclass(frozen=True)
class _Few:
    """A query that gave few rows, of *columns*, and what writes them."""

    columns: list[ResultColumn]
    write: _duckdb_few_rows.Write
    runs: Runs = field(default_factory=Runs)


class Json:
    """Rows as JSON: written by the engine, or by Python where they are few, as far as is known."""

    def __init__(self, *, arrays: bool) -> None:
        self._arrays = arrays
        self._sql: str | None = None  # if it is worth knowing
        self._write: _duckdb_few_rows.Write | None = None

    def again(self, connection: Connection, query: Statement, /) -> Result | None:
        self._sql = query.query
        known = connection.shapes.get(self._key, self._sql)
        if not isinstance(known, _Few):
            return None
        result = self._few(connection, query, known)
        if result is None:
            connection.shapes.forget(self._key, self._sql)
        elif connection.shapes.get(self._key, self._sql) is known:
            result.leaves_nothing = known.runs.leave_nothing(connection, self._sql)
        return result

    def select(self, names: list[str], types: list[Any], /) -> str:
        if self._sql is not None:
            write = _duckdb_few_rows.arrays if self._arrays else _duckdb_few_rows.objects
            self._write = write(names, types)
        if self._arrays:
            return _duckdb_json.array_of(types)
        return _duckdb_json.json_of(names, types)

    def running(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        query: Statement | str,
        bound: Bound,
        /,
    ) -> Result:
        def ended(rows: int) -> None:
            if self._sql is not None and self._write is not None and rows <= _duckdb_few_rows.MOST:
                connection.shapes.keep(self._key, self._sql, _Few(columns, self._write))

        cursor, read = connection.cursor, _json_reader(columns)
        cursor.execute(query, bound)
        return Result(connection, columns, cursor.fetchmany, read, streaming=True, ended=ended)

    def kept(
        self, connection: Connection, columns: list[ResultColumn], rows: DuckDBPyRelation, /
    ) -> Result:
        return _kept(connection, columns, rows, _json_reader(columns))

    def counted(self, connection: Connection, count: int, /) -> Result:
        return _counted(connection, count)

    @property
    def _key(self) -> str:
        return "arrays" if self._arrays else "objects"

    def _few(self, connection: Connection, query: Statement, known: _Few) -> Result | None:
        rows = _duckdb_few_rows.read(connection, query, known.columns)
        if rows is None:
            return None
        try:
            lines = known.write(rows)
        except _duckdb_few_rows.Misfit:
            return None
        return FewRows(connection, known.columns, lines)


def _kept(
    connection: Connection, columns: list[ResultColumn], rows: DuckDBPyRelation, read: Read
) -> Result:
    each = rows.iter_rows()
    first = list(islice(each, 1))  # from here on they lie in memory and the cursor is free
    each = chain(first, each)
    return Result(connection, columns, lambda limit: list(islice(each, limit)), read)


def _counted(connection: Connection, count: int) -> Result:
    return Result(connection, [], _none, _as_they_are, count=count)


def _none(_: int) -> list[Row]:
    return []


def _as_they_are(rows: list[Row]) -> list[Row]:
    return rows


def _lines(rows: list[Row]) -> list[str]:
    return [line for (line,) in rows]


def _json_reader(columns: list[ResultColumn]) -> Read:
    if any(_duckdb_json.is_suspect(column.datatype) for column in columns):
        return lambda rows: [_duckdb_json.tidied(line) for (line,) in rows]
    return _lines


VALUES: Final = Rows(lambda _, types: values_of(types), lambda _: _as_they_are)
TEXT: Final = Rows(text_of, lambda _: _lines)


def aliases(columns: list[ResultColumn]) -> str:
    """By place: names may be anything, and the same twice."""
    return ", ".join(f"c{number}" for number in range(len(columns)))


def result_of(
    connection: Connection,
    columns: list[ResultColumn],
    relation: DuckDBPyRelation,
    selected: str | None,
    form: Form[R_co],
) -> R_co:
    """Of a statement that has run, and must not run again."""
    # What it returned is known to this private name alone: RETURNING x AS "Count" and EXECUTE of
    # a SELECT look just like a count.
    returned = relation._return_type  # noqa: SLF001
    if returned != "query_result":
        counted = relation.fetchall() if returned == "changed_rows" else []
        return form.counted(connection, int(counted[0][0]) if counted else 0)
    if selected is not None:
        name = f"kept_{uuid.uuid4().hex}"  # a user's table of that name would be read instead
        chosen = relation.query(name, f"SELECT {selected} FROM {name} AS r({aliases(columns)})")  # noqa: S608
        assert chosen is not None  # noqa: S101  # only what returns no rows gives None
        relation = chosen
    shape = [(column.column, column.datatype) for column in columns]
    if shape == [("Success", "BOOLEAN")] and not relation.fetchall():
        return form.counted(connection, 0)  # CHECKPOINT
    return form.kept(connection, columns, relation)
