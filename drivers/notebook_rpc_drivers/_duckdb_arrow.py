"""DuckDB's rows as Arrow, and Arrow as a DuckDB table.

The engine makes batches of any number of rows while its query runs; ours are small, so that the
first comes at once, memory stays flat and nobody waits long for Python's lock. Types that readers
of Arrow do not have, or read wrong, are cast to text before (docs/arrow.md).

What it refuses: pyarrow, 170 MB that the engine's own ``to_arrow_reader`` would import.
"""

from __future__ import annotations

import io
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import duckdb
import nanoarrow
from duckdb import Statement
from nanoarrow.ipc import InputStream

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.arrow import Messages, Misfit
from notebook_rpc.sansio.arrow_check import check
from notebook_rpc_drivers import _duckdb_few_arrow, _duckdb_few_rows
from notebook_rpc_drivers._arrow_stream import ArrowError, batches, release
from notebook_rpc_drivers._duckdb_result import Reading
from notebook_rpc_drivers._duckdb_shapes import Runs
from notebook_rpc_drivers._duckdb_sql import quoted, without_excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from duckdb import DuckDBPyRelation

    from notebook_rpc.model import ResultColumn
    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers._duckdb_few_arrow import Write
    from notebook_rpc_drivers._duckdb_sql import Bound

_BYTES: Final = 1 << 20  # of a batch, as far as types tell
_MOST_ROWS: Final = 8192
_ROWS: Final = 2048  # at most, where types do not tell; the engine's own vectors have as many
_FEWEST_ROWS: Final = 64
_LARGE: Final = 1 << 20  # bytes; to make fewer takes no longer than to tell the engine not to

# Types that Arrow has, and its readers in JavaScript too, with the bytes of a value. HUGEINT is
# a decimal of 38 digits, whose 128 bits hold the 39th as well.
_FIXED: Final = {
    **dict.fromkeys(("boolean", "tinyint", "utinyint", "null"), 1),
    **dict.fromkeys(("smallint", "usmallint"), 2),
    **dict.fromkeys(("integer", "uinteger", "float", "date"), 4),
    **dict.fromkeys(("bigint", "ubigint", "double", "time", "time_ns"), 8),
    **dict.fromkeys(("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"), 8),
    **dict.fromkeys(("timestamp with time zone", "timestamptz_ns"), 8),
    **dict.fromkeys(("hugeint", "decimal"), 16),
    "uuid": 40,
}
# The same, but the bytes are a guess: what is often long is taken for longer.
_VARYING: Final = {"varchar": 64, "blob": 4096, "geometry": 4096}
_NESTED: Final = {"list", "array", "struct", "tuple", "map", "union"}
_LONG: Final = 1024  # bytes of a JSON value, or of an array of any length
_SHORT: Final = 40  # of what is cast to text

# What the engine says through a stream has lost its class. Those named here are not the fault
# of the statement.
_CLASSES: Final = {
    "INTERRUPT Error": duckdb.InterruptException,
    "Out of Memory Error": duckdb.OutOfMemoryException,
    "FATAL Error": duckdb.FatalException,
    "INTERNAL Error": duckdb.InternalException,
    "Connection Error": duckdb.ConnectionException,
    "TransactionContext Error": duckdb.TransactionException,
}


class ArrowResult(Reading):
    """Batches to come from a stream that the engine fills."""

    def __init__(
        self, connection: Connection, columns: list[ResultColumn], stream: Any, count: int = -1
    ) -> None:
        super().__init__(connection, columns, count, streaming=stream is not None)
        self.schema = b""
        self.formats: list[str] = []  # of the columns, as the Arrow C data interface has them
        self.ended: Callable[[int, int], None] = lambda *_: None
        """Is told how many rows there were, and how many bytes, when all have come."""
        self._rows = self._bytes = 0
        self._stream = stream
        if stream is not None:
            schema = stream.get_schema()
            children = [schema.child(number) for number in range(schema.n_children)]
            names = [column.column for column in columns]  # which are distinct
            named = schema.modify(children=dict(zip(names, children, strict=True)))
            self._messages = Messages(named)
            self._batches = batches(stream, named)
            self.schema = self._messages.schema
            self.formats = [child.format for child in children]

    def fetch(self) -> bytes | memoryview:
        if self._is_over():
            return b""
        with self._reading():
            batch = next_of(self._batches)
            if batch is not None:
                message = self._messages.batch(batch)
                self._rows += batch.length
                self._bytes += len(message)
                return message
        self._end()
        self.ended(self._rows, self._bytes)
        return b""

    def _let_go(self) -> None:
        stop(self._connection, self._stream)


class FewRows(ArrowResult):
    """A batch that is there already, if there is one."""

    def __init__(
        self, connection: Connection, columns: list[ResultColumn], schema: bytes, batch: bytes
    ) -> None:
        super().__init__(connection, columns, None)
        self.schema = schema
        self._batch = batch

    def fetch(self) -> bytes:
        if self._is_over():
            return b""
        self._ended = not self._batch
        batch, self._batch = self._batch, b""
        return batch


def next_of(batches: Iterator[Any]) -> Any:
    """The next batch, None at the end; an error has its class."""
    try:
        return next(batches, None)
    except ArrowError as exc:
        said = str(exc)
        raise class_of(said)(said) from exc


def class_of(said: str) -> type[duckdb.Error]:
    """The class that an error with this message had before it came through a stream."""
    return _CLASSES.get(said.partition(":")[0], duckdb.Error)


@dataclass(frozen=True)
class _Known:
    """A query that needs no casts: its columns, the rows of a batch as far as types tell, and its
    schema as it is sent, which has all that is to be known of types."""

    columns: list[ResultColumn]
    rows: int
    schema: bytes
    write: Write | None = None
    """What writes the rows, where they were few."""
    always_streams: bool = False
    """Its rows were few, and then more, or such that Python does not have."""
    width: int = 1
    """Bytes of a row, on the average, when they came last."""
    large: bool = False
    """They were many bytes. The engine makes up to 10 MiB before it gives the first batch, and is
    told to make less."""
    runs: Runs = field(default_factory=Runs)

    @property
    def rows_at_once(self) -> int:
        return max(_FEWEST_ROWS, min(self.rows, _BYTES // self.width))


class Arrow:
    """A ``Form``."""

    def __init__(self) -> None:
        self.rows = _ROWS
        self._sql: str | None = None  # if it is worth knowing

    def again(self, connection: Connection, query: Statement, /) -> ArrowResult | None:
        self._sql = sql = query.query
        known = connection.shapes.get(Arrow, sql)
        if not isinstance(known, _Known):
            return None
        if known.write is not None:
            few = self._few(connection, query, known, known.write)
            if few is not None:
                if connection.shapes.get(Arrow, sql) is known:
                    few.leaves_nothing = known.runs.leave_nothing(connection, sql)
                return few
            known = replace(known, write=None, always_streams=True)
            connection.shapes.keep(Arrow, sql, known)
        result = self._streaming(connection, sql, known)
        if result is None:
            connection.shapes.forget(Arrow, sql)
        else:
            self._remember(connection, sql, known, result)
        return result

    def _few(
        self, connection: Connection, query: Statement, known: _Known, write: Write
    ) -> FewRows | None:
        rows = _duckdb_few_rows.read(connection, query, known.columns)
        if rows is None:
            return None
        try:
            batch = write(rows) if rows else b""
        except Misfit:
            return None
        return FewRows(connection, known.columns, known.schema, batch)

    def _streaming(self, connection: Connection, sql: str, known: _Known) -> ArrowResult | None:
        if known.large:
            connection.make_little_ahead()
        submitted = connection.cursor._submit(  # noqa: SLF001
            sql, None, "stream", known.rows_at_once
        )
        # Its schema is not enough: VARCHAR and UUID, say, are one type there.
        columns = _duckdb_few_rows.columns_of(submitted.description)
        stream = nanoarrow.c_array_stream(submitted.arrow_capsule())
        if columns == known.columns:
            result = _read(connection, known.columns, stream)
            if result.schema == known.schema:
                return result
        stop(connection, stream)
        connection.abandon()
        return None

    def _remember(
        self, connection: Connection, sql: str, known: _Known, result: ArrowResult
    ) -> None:
        """What *result* was like, as soon as all of it has come."""

        def ended(rows: int, size: int) -> None:
            write = None
            if rows <= _duckdb_few_rows.MOST and not known.always_streams:
                datatypes = [column.datatype for column in known.columns]
                write = _duckdb_few_arrow.writer(datatypes, result.formats)
            width, large = 1 + size // max(1, rows), size > _LARGE
            seen = replace(known, write=write, width=width, large=large)
            if seen != known:
                connection.shapes.keep(Arrow, sql, seen)

        result.ended = ended

    def select(self, names: list[str], types: list[Any], /) -> str | None:  # noqa: ARG002
        self.rows = rows_at_once(types)
        casts = [cast_for_arrow(kind) for kind in types]
        if not any(casts):
            return None
        self._sql = None
        return ", ".join(
            f"c{number}::{cast}" if cast else f"c{number}" for number, cast in enumerate(casts)
        )

    def running(
        self,
        connection: Connection,
        columns: list[ResultColumn],
        query: Statement | str,
        bound: Bound,
        /,
    ) -> ArrowResult:
        text = query.query if isinstance(query, Statement) else query
        # The public way to a stream, a relation's __arrow_c_stream__, has batches of 131072 rows.
        submitted = connection.cursor._submit(text, bound, "stream", self.rows)  # noqa: SLF001
        result = _opened(connection, columns, submitted)
        if self._sql is not None:
            known = _Known(columns, self.rows, result.schema)
            connection.shapes.keep(Arrow, self._sql, known)
            self._remember(connection, self._sql, known, result)
        return result

    def kept(
        self, connection: Connection, columns: list[ResultColumn], rows: DuckDBPyRelation, /
    ) -> ArrowResult:
        connection.ready_to_stream()
        return _opened(connection, columns, rows._submit("stream", self.rows))  # noqa: SLF001

    def counted(self, connection: Connection, count: int, /) -> ArrowResult:
        return ArrowResult(connection, [], None, count)


def _opened(connection: Connection, columns: list[ResultColumn], submitted: Any) -> ArrowResult:
    return _read(connection, columns, nanoarrow.c_array_stream(submitted.arrow_capsule()))


def _read(connection: Connection, columns: list[ResultColumn], stream: Any) -> ArrowResult:
    try:
        return ArrowResult(connection, columns, stream)
    except BaseException:
        stop(connection, stream)
        raise


def stop(connection: Connection, stream: Any) -> None:
    """Let go of a stream that may not have ended."""
    connection.cursor.interrupt()  # or its release would wait for what the engine is at
    release(stream)


def rows_at_once(types: list[Any]) -> int:
    """How many rows a batch should have."""
    most = _MOST_ROWS if all(kind.id in _FIXED for kind in types) else _ROWS
    return max(_FEWEST_ROWS, min(most, _BYTES // sum(map(_size, types))))


def _size(kind: Any) -> int:
    """The bytes that a value may have."""
    name: str = kind.id
    if name in _FIXED:
        return _FIXED[name]
    if name in ("list", "map", "variant") or str(kind) == "JSON":
        return _LONG
    if name not in _NESTED:
        return _VARYING.get(name, _SHORT)
    times: int = dict(kind.children)["size"] if name == "array" else 1
    return 1 + times * sum(_size(child) for _, child in _children(kind))


def _children(kind: Any) -> list[tuple[str, Any]]:
    """The names and types of what *kind* is made of."""
    if kind.id == "array":
        return list(kind.children[:1])  # the second is its size
    if kind.id == "union":
        return list(kind.children[1:])  # the first is the tag
    return list(kind.children)


def cast_for_arrow(kind: Any) -> str | None:
    """The type to cast *kind* to, as SQL; None if it can stay."""
    name = kind.id
    if name in _FIXED or name in _VARYING:
        return None
    if name == "variant":
        return "JSON"
    if name not in _NESTED:
        return "VARCHAR"
    children = _children(kind)
    # The engine counts no NULLs in the columns of that type that are part of another.
    casts = ["VARCHAR" if child.id == "null" else cast_for_arrow(child) for _, child in children]
    if not any(casts):
        return None
    inner = [cast or str(child) for cast, (_, child) in zip(casts, children, strict=True)]
    if name == "list":
        return f"{inner[0]}[]"
    if name == "array":
        return f"{inner[0]}[{dict(kind.children)['size']}]"
    if name in ("struct", "union"):
        inner = [
            f"{quoted(field)} {each}" for (field, _), each in zip(children, inner, strict=True)
        ]
    return f"{name.upper()}({', '.join(inner)})"


class _Uploaded:
    """What the engine scans: an Arrow IPC stream from its beginning, as often as it likes."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream

    def __arrow_c_schema__(self) -> object:
        return self._opened().get_schema().__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._opened().__arrow_c_stream__(requested_schema)

    def _opened(self) -> Any:
        # Bytes it would wrap and close by itself, and do that while an exception is on its way,
        # which ends the process.
        readable = io.BytesIO(self._stream)
        return nanoarrow.c_array_stream(InputStream.from_readable(readable))


@contextmanager
def named(connection: Connection, stream: bytes) -> Iterator[str]:
    """A name to read *stream* by, in SQL, and on this connection alone."""
    check(stream)
    uploaded = _Uploaded(stream)
    try:
        uploaded.__arrow_c_schema__()
    except RuntimeError as exc:  # NanoarrowException, which is not public
        raise QueryError(f"not an Arrow stream that can be read: {exc}") from exc
    name = f"upload_{uuid.uuid4().hex}"
    try:
        with connection.calling():
            connection.cursor.register(name, uploaded)
        try:
            yield name
        finally:
            with connection.calling(undisturbed=True):
                connection.cursor.unregister(name)
    except QueryError as exc:  # about SQL, and a name, that nobody wrote
        said = without_excerpt(str(exc)).replace(f" registered as '{name}'", "")
        raise type(exc)(said) from exc.__cause__
