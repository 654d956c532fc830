"""Arrow for databases that give values: their results, as ``model.ArrowResult``.

A column's kind is chosen once, from the first rows, because a stream's schema comes first. What
does not fit it later is an error that names the column; it refuses to round it or to leave it
out. Everything here blocks or may take long, and is called on a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notebook_rpc.errors import NotebookError, QueryError
from notebook_rpc.sansio.arrow_batch import message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.model import Result, ResultColumn
    from notebook_rpc.sansio.arrow import Kind

_ROWS: Final = 2048  # of a batch at most, and those the kinds are chosen from
_BYTES: Final = 1 << 20  # of a batch, if the rows before are any guide
_FIRST: Final = 16  # rows of the first read: doubled each time, as no size is known


class ArrowRows:
    """A result in Arrow, over one whose rows are values."""

    def __init__(self, rows: Result[Sequence[object]]) -> None:
        self._rows = rows
        self._first: list[Sequence[object]] = []
        self._kinds: list[Kind] = []
        self._begun = b""  # the message of the schema
        self._step = _ROWS
        self._failure: NotebookError | None = None

    @property
    def columns(self) -> Sequence[ResultColumn]:
        return self._rows.columns

    @property
    def count(self) -> int:
        return self._rows.count

    @property
    def streaming(self) -> bool:
        return self._rows.streaming

    @property
    def schema(self) -> bytes:
        return self._begin() if self.columns else b""

    def fetch(self) -> bytes:
        """As ``model.ArrowResult.fetch``.

        Raises:
            QueryError: a value has no text, or is not what its column has had so far. So does
                every later call: to go on behind the failed rows would be to lose them quietly.
        """
        if self._failure is not None:
            raise self._failure
        if not self.columns:
            return b""
        try:
            self._begin()
            rows, self._first = self._first, []
            return self._written(rows or self._rows.fetch(self._step))
        except NotebookError as failure:
            self._failure = failure
            raise

    def close(self) -> None:
        self._first = []
        self._rows.close()

    def _begin(self) -> bytes:
        """Read the first rows, choose the columns' kinds, and say them."""
        if self._begun:
            return self._begun
        from notebook_rpc.sansio import arrow  # noqa: PLC0415  # not before Arrow is asked for

        rows, ended = self._read_first()
        values = list(zip(*rows, strict=True)) or [()] * len(self.columns)
        self._kinds = [
            arrow.kind_of(column.datatype, column_values, all_of_them=ended)
            for column, column_values in zip(self.columns, values, strict=True)
        ]
        names = [column.column for column in self.columns]
        schema = arrow.schema_of(zip(names, self._kinds, strict=True))
        self._begun = arrow.Messages(schema).schema
        self._first = rows
        return self._begun

    def _read_first(self) -> tuple[list[Sequence[object]], bool]:
        """Rows for the first batch, and whether they are all."""
        rows: list[Sequence[object]] = []
        size, step = 0, _FIRST
        while len(rows) < _ROWS and size < _BYTES:
            read = self._rows.fetch(min(step, _ROWS - len(rows)))
            if not read:
                return rows, True
            size += sum(_size(value) for row in read for value in row)
            rows += read
            step *= 2
        return rows, False

    def _written(self, rows: Sequence[Sequence[object]]) -> bytes:
        from notebook_rpc.sansio import arrow  # noqa: PLC0415  # not before Arrow is asked for

        if not rows:
            return b""
        columns = []
        for column, kind, values in zip(
            self.columns, self._kinds, zip(*rows, strict=True), strict=True
        ):
            try:
                columns.append(kind.column(values))
            except arrow.Misfit as exc:
                raise QueryError(
                    f'column "{column.column}" began as {kind.name} and then has {exc}:'
                    " cast it to what holds both"
                ) from exc
        batch = message(len(rows), columns)
        self._step = max(1, min(_ROWS, _BYTES * len(rows) // len(batch)))
        return batch


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | bytes | bytearray) else 8
