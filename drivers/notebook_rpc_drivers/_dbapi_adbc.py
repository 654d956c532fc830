"""ADBC's modules as PEP 249 has them, without pyarrow.

Their own cursors turn Arrow into Python with pyarrow, 170 MB of it; nanoarrow, which we have for
Arrow anyway, does the same. One batch is in memory at a time.
"""

from __future__ import annotations

import uuid
from itertools import islice
from typing import TYPE_CHECKING, Any

import nanoarrow
from nanoarrow.c_schema import c_schema_view
from nanoarrow.iterator import PyIterator, RowTupleIterator

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.sqltext import Kind, tokens
from notebook_rpc_drivers._arrow_stream import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# PostgreSQL's ADBC driver reads through COPY, which takes these and no others.
_COPIED = {"SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE"}


_BATCH = "65536"  # bytes; PostgreSQL's driver would wait for 16 MB before it gives a row


class _Quiet:
    """nanoarrow warns about types that it does not know: their storage is what we want."""

    def _warn(self, message: str, category: type[Warning]) -> None:
        pass


class _Values(_Quiet, PyIterator):  # type: ignore[misc]  # it has no types
    pass


class _Rows(_Quiet, RowTupleIterator):  # type: ignore[misc]  # it has no types
    def _make_child(self, schema: Any, array_view: Any) -> _Values:
        return _Values(schema, array_view=array_view)


class Cursor:
    """One statement. ``rowcount`` is -1 where the driver does not count."""

    def __init__(self, connection: Any, *, copies: bool) -> None:
        self._connection = connection
        self._copies = copies
        self._cursor: Any = None
        self._rows: Iterator[Any] = iter(())
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1

    def execute(self, sql: str, parameters: Sequence[object] = (), /) -> None:
        options = {"adbc.postgresql.batch_size_hint_bytes": _BATCH} if self._copies else {}
        if self._copies and _first_word(sql) not in _COPIED:
            options["adbc.postgresql.use_copy"] = "false"
        self._cursor = self._connection.cursor(adbc_stmt_kwargs=options)
        self._cursor.execute(sql, _row(parameters) if parameters else None)
        self.rowcount = self._cursor.rowcount
        stream = nanoarrow.c_array_stream(self._cursor.fetch_arrow())
        schema = stream.get_schema()
        fields = [schema.child(number) for number in range(schema.n_children)]
        if not fields:
            for _ in batches(stream, schema):  # no rows, but read: with it the statement ends
                pass
            return
        views = [c_schema_view(field) for field in fields]
        self.description = [
            (field.name or "", _type_name(view), None, None, None, None, None)
            for field, view in zip(fields, views, strict=True)
        ]
        self._rows = _read(stream, schema, [_conversion(view) for view in views])

    def fetchmany(self, limit: int) -> list[Any]:
        return list(islice(self._rows, limit))

    def close(self) -> None:
        self._rows = iter(())
        if self._cursor is not None:
            self._cursor.close()


def _read(
    stream: Any, schema: Any, conversions: Sequence[Callable[[Any], object] | None]
) -> Iterator[Any]:
    rows = _Rows(schema)
    for batch in batches(stream, schema):
        found = rows._set_array(batch)  # noqa: SLF001  # a base class's, of nanoarrow
        if not any(conversions):
            yield from found
            continue
        for row in found:
            yield tuple(
                value if convert is None or value is None else convert(value)
                for value, convert in zip(row, conversions, strict=True)
            )


def _conversion(view: Any) -> Callable[[Any], object] | None:
    if view.extension_name == "arrow.uuid":
        return lambda value: uuid.UUID(bytes=value)
    return _duration if view.type == "interval_month_day_nano" else None


def _duration(value: tuple[int, int, int]) -> str:
    months, days, nanoseconds = value
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"P{months}M{days}DT{sign}{seconds}{fraction}S"


def _type_name(view: Any) -> str:
    """The database's own name where the driver hands it on, else Arrow's."""
    name = view.extension_name or ""
    return name.removeprefix("arrow.") if name and name != "arrow.opaque" else str(view.type)


def _row(parameters: Sequence[object]) -> Any:
    """The parameters as one row of Arrow, which ADBC binds."""
    columns = [_column(value) for value in parameters]
    types = {str(number): kind for number, (kind, _) in enumerate(columns)}
    children = [nanoarrow.c_array([value], kind) for kind, value in columns]
    return nanoarrow.c_array_from_buffers(
        nanoarrow.struct(types), 1, buffers=[None], children=children
    )


def _column(value: object) -> tuple[Any, object]:
    if value is None or isinstance(value, str):
        return nanoarrow.string(), value
    if isinstance(value, bool):
        return nanoarrow.bool_(), value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return nanoarrow.int64(), value
    if isinstance(value, float):
        return nanoarrow.float64(), value
    raise QueryError(f"a parameter cannot be bound: {type(value).__name__}")


def _first_word(sql: str) -> str:
    words = (sql[start:end] for kind, start, end in tokens(sql) if kind is Kind.WORD)
    return next(words, "").upper()
