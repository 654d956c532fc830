"""How a value reads as text, and as JSON: the two tables behind ``page`` and the other surfaces,
and what applies them to rows.

Nothing is rounded, and no value can make a row that is not JSON. What cannot be written,
such as half of a surrogate pair, is a ``QueryError`` of the call that met it.

The tables, by Python type:

=================== ================================================ =======================
type                text                                             JSON
=================== ================================================ =======================
None                null                                             null
int, Decimal        all digits, without an exponent                  the same, as a number
float               the shortest text that reads back the same;      a number; null for NaN
                    NaN, Infinity, -Infinity                         and the infinities
bool                true, false                                      true, false
date, time, ...     ISO 8601, with the offset where there is one     the same, as a string
timedelta           an ISO 8601 duration: P1DT7203.5S                the same, as a string
bytes               two hexadecimal digits a byte: \\x00ff           base64
UUID                8-4-4-4-12                                       the same, as a string
list, tuple, dict   JSON, with the numbers above as numbers and all  an array, an object
                    else as strings: NaN and the infinities too,
                    for which JSON has no numbers
anything else       str()                                            the same, as a string
=================== ================================================ =======================

It refuses to guess: numeric text stays text, bytes are never decoded.
"""

from __future__ import annotations

import base64
import datetime
import uuid
from decimal import Decimal
from itertools import starmap
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio import csv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from notebook_rpc.model import Result, ResultColumn

Cell: TypeAlias = str | None
_Write: TypeAlias = "Callable[[Iterable[Sequence[Any]]], list[str]]"


def text(value: object) -> Cell:
    """The text of one value."""
    if value is None:
        return None
    return _converter(type(value))(value)


def _float(value: float) -> str:
    # inf and nan are Python's spelling; the table's is JavaScript's and Java's.
    return _WORDS.get(found := float.__repr__(value), found)


def _decimal(value: Decimal) -> str:
    return "NaN" if value.is_nan() else format(value, "f")


def _bytes(value: bytes | bytearray | memoryview) -> str:
    return "\\x" + value.hex()


def _duration(value: datetime.timedelta) -> str:
    return str(msgspec.to_builtins(value))


def _json(value: object) -> str:
    # Not msgspec: it would write nan as null, which is something else.
    if value is None:
        return "null"
    if isinstance(value, bool | int | float | Decimal):
        found = _converter(type(value))(value)
        return _quoted(found) if found in _NOT_NUMBERS else found
    if isinstance(value, dict):
        members = (f"{_key(key)}:{_json(of)}" for key, of in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_json, value)) + "]"
    return _quoted(_converter(type(value))(value))


def _key(value: object) -> str:
    return _quoted("null" if value is None else _converter(type(value))(value))


def _quoted(value: str) -> str:
    return msgspec.json.encode(value).decode()


_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_NOT_NUMBERS = {*_WORDS.values()}

_CONVERTERS: dict[type, Callable[..., str]] = {
    str: str.__str__,
    bool: lambda value: "true" if value else "false",
    int: int.__repr__,
    float: _float,
    Decimal: _decimal,
    datetime.datetime: datetime.datetime.isoformat,
    datetime.date: datetime.date.isoformat,
    datetime.time: datetime.time.isoformat,
    datetime.timedelta: _duration,
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    uuid.UUID: str,
    list: _json,
    tuple: _json,
    dict: _json,
}


def _converter(kind: type) -> Callable[..., str]:
    """What writes a *kind* that is not None's; a subclass is written as its nearest base."""
    return next((_CONVERTERS[base] for base in kind.__mro__ if base in _CONVERTERS), str)


def _plain(value: object) -> object:
    """*value* as msgspec writes it by the JSON table."""
    if value is None:
        return None
    return _plainer(type(value))(value)


def _plain_decimal(value: Decimal) -> msgspec.Raw | None:
    return msgspec.Raw(format(value, "f").encode()) if value.is_finite() else None


def _plain_dict(value: dict[object, object]) -> dict[str, object]:
    return {
        "null" if key is None else _converter(type(key))(key): _plain(of)
        for key, of in value.items()
    }


# The types without a subclass: msgspec refuses those of str, int and float.
_PLAIN: dict[type, Callable[..., object]] = {
    **_CONVERTERS,
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    Decimal: _plain_decimal,
    bytes: lambda value: base64.b64encode(value).decode(),
    bytearray: lambda value: base64.b64encode(value).decode(),
    memoryview: lambda value: base64.b64encode(value.tobytes()).decode(),
    list: lambda value: list(map(_plain, value)),
    tuple: lambda value: list(map(_plain, value)),
    dict: _plain_dict,
}
_PLAIN_ALREADY = {str, bool, int, float}


def _plainer(kind: type) -> Callable[..., object]:
    return next((_PLAIN[base] for base in kind.__mro__ if base in _PLAIN), str)


def _column(values: Sequence[object], table: _Table) -> Sequence[object]:
    """Every value as *table* has it, asking once and not for every value what is to be done."""
    kinds = set(map(type, values))
    has_none = type(None) in kinds
    kinds.discard(type(None))
    if kinds <= table.ready:
        return values
    if len(kinds) > 1:
        return [None if value is None else table.converter(type(value))(value) for value in values]
    convert = table.converter(kinds.pop())
    if has_none:
        return [None if value is None else convert(value) for value in values]
    return list(map(convert, values))


class _Table(NamedTuple):
    """One of the two."""

    converter: Callable[[type], Callable[..., object]]
    """What writes a type that is not None's."""
    ready: set[type]
    """What needs no writing."""
    field: Any
    """The type of what is written."""


_ENCODER = msgspec.json.Encoder()
_TEXT = _Table(_converter, {str}, Cell)
_JSON = _Table(_plainer, _PLAIN_ALREADY, Any)


class _Rows:
    """A result whose rows are text, over one whose rows are values."""

    def __init__(
        self,
        rows: Result[Sequence[object]],
        table: _Table,
        writer: Callable[[list[str], Any], _Write],
    ) -> None:
        """*writer* makes what writes rows, for the names of columns and the type of their
        values."""
        self._rows = rows
        self._table = table
        self._writer = writer
        self._failure: QueryError | None = None
        self._write: _Write | None = None

    @property
    def columns(self) -> Sequence[ResultColumn]:
        return self._rows.columns

    @property
    def count(self) -> int:
        return self._rows.count

    @property
    def streaming(self) -> bool:
        return self._rows.streaming

    def fetch(self, limit: int, /) -> list[str]:
        """As ``model.Result.fetch``.

        Raises:
            QueryError: a value or a column's name has no text. So does every later call:
                to go on behind the failed rows would be to lose them quietly.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._fetch(limit)
        except UnicodeEncodeError as exc:
            self._failure = QueryError(f"a value is not valid Unicode: {exc}")
            raise self._failure from exc
        except RecursionError as exc:
            self._failure = QueryError("a value is nested too deep to be written")
            raise self._failure from exc
        except ValueError as exc:  # an int beyond sys.set_int_max_str_digits
            self._failure = QueryError(f"a value cannot be written: {exc}")
            raise self._failure from exc

    def close(self) -> None:
        self._rows.close()

    def _fetch(self, limit: int) -> list[str]:
        rows = self._rows.fetch(limit)
        if not rows:
            return []
        if self._write is None:
            names = [column.column for column in self._rows.columns]
            self._write = self._writer(names, self._table.field)
        if not self._rows.columns:
            return self._write(rows)
        columns = [_column(values, self._table) for values in zip(*rows, strict=True)]
        return self._write(zip(*columns, strict=True))


class TextRows(_Rows):
    """Each row one JSON object from column to text."""

    def __init__(self, rows: Result[Sequence[object]]) -> None:
        super().__init__(rows, _TEXT, _object_writer)


class JsonRows(_Rows):
    """Each row one JSON object from column to value, or with *arrays* an array of the values."""

    def __init__(self, rows: Result[Sequence[object]], *, arrays: bool = False) -> None:
        super().__init__(rows, _JSON, _array_writer if arrays else _object_writer)


class CsvRows(_Rows):
    """Each row one record of CSV, without the end of its line."""

    def __init__(self, rows: Result[Sequence[object]]) -> None:
        super().__init__(rows, _TEXT, lambda _, __: csv.records)


def _array_writer(_: list[str], __: Any) -> _Write:
    return _lines


def _object_writer(names: list[str], kind: Any) -> _Write:
    """What writes rows as JSON objects, at about 40 ns a cell of text.

    A struct type made for the columns costs 16 us for ten of them and pays from the tenth row
    on: it is encoded more than twice as fast as dicts or as text joined in Python.
    """
    fields = [f"f{number}" for number in range(len(names))]
    try:
        row = msgspec.defstruct(
            "Row",
            [(field, kind) for field in fields],
            rename=dict(zip(fields, names, strict=True)),
            gc=False,
        )
    except ValueError:  # msgspec does not escape the names of fields, and refuses those it should
        return lambda rows: _lines([dict(zip(names, row, strict=True)) for row in rows])
    return lambda rows: _lines(list(starmap(row, rows)))


def _lines(rows: Iterable[object]) -> list[str]:
    # JSON escapes line breaks, so the only ones are those between rows.
    return _ENCODER.encode_lines(rows).decode().split("\n")[:-1]
