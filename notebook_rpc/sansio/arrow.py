"""Arrow IPC messages, and Arrow arrays of Python's values, by nanoarrow.

Import it where Arrow is first asked for, and not at start-up: nanoarrow takes 20 ms and 5 MB.

What it refuses: to round. A value that its column cannot hold exactly is a ``Misfit``; whoever
chose the column's kind decides what then. Dictionaries cannot be written (by nanoarrow 0.9).
"""

from __future__ import annotations

import datetime
import io
import math
import re
from array import array
from dataclasses import dataclass
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import nanoarrow
from nanoarrow.c_array_stream import CArrayStream
from nanoarrow.ipc import StreamWriter

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.arrow_batch import Column
from notebook_rpc.sansio.values import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


_COPIED: Final = 1 << 18  # bytes at a time


class Messages:
    """The messages of one stream: ``schema``, then one for each batch."""

    def __init__(self, schema: Any) -> None:
        """*schema* is a struct's, with a child for each column."""
        self._sink = _Sink()
        self._writer = StreamWriter.from_writable(self._sink)
        self.schema = bytes(self._written(CArrayStream.from_c_arrays([], schema), with_schema=True))

    def batch(self, rows: Any) -> memoryview:
        """*rows*, an array of the schema, as a message of their own."""
        return self._written(CArrayStream.from_c_arrays([rows], rows.schema), with_schema=False)

    def _written(self, stream: Any, *, with_schema: bool) -> memoryview:
        try:
            self._writer.write_stream(stream, write_schema=with_schema)
        except RuntimeError as exc:  # NanoarrowException, which is not public
            raise QueryError(f"the result cannot be written as Arrow: {exc}") from exc
        return self._sink.taken()


class _Sink:
    """Where the writer writes, a buffer at a time; nothing is copied on the way out.

    A buffer may have megabytes, and to copy them takes Python's lock: a little at a time, so that
    the event loop can have it in between.
    """

    def __init__(self) -> None:
        self._bytes = io.BytesIO()

    def write(self, data: Any) -> int:
        given = memoryview(data)
        for start in range(0, len(given), _COPIED):
            self._bytes.write(given[start : start + _COPIED])
        return len(given)

    def taken(self) -> memoryview:
        written, self._bytes = self._bytes, io.BytesIO()
        return written.getbuffer()


class Misfit(Exception):
    """A value is not of the column's kind, or not exactly. The message is the value's type."""


@dataclass(frozen=True)
class Kind:
    """A column's kind: its Arrow type, and how values, None among them, become its buffers."""

    name: str
    type: Any
    buffers: Callable[[Sequence[object]], list[bytes]]

    def column(self, values: Sequence[object]) -> Column:
        """
        Raises:
            Misfit: a value does not fit.
            QueryError: it has no text.
        """
        nulls = values.count(None)
        valid = _bits(value is not None for value in values) if nulls else b""
        return Column(nulls, [valid, *self.buffers(values)])


def schema_of(columns: Iterable[tuple[str, Kind]]) -> Any:
    return nanoarrow.c_schema(nanoarrow.struct({name: kind.type for name, kind in columns}))


def _bits(flags: Iterable[object]) -> bytes:
    """One bit each, the lowest first."""
    digits = "".join("1" if flag else "0" for flag in flags)[::-1]
    return int(digits or "0", 2).to_bytes((len(digits) + 7) // 8, "little")


def _only(values: Sequence[object], *wanted: type) -> None:
    """Refuse values whose nearest known type is not *wanted*: a bool is an int to Python."""
    for kind in set(map(type, values)):
        if kind not in wanted and kind is not type(None) and nearest(kind) not in wanted:
            raise Misfit(kind.__name__)


_KNOWN: Final = {
    *(bool, int, float, Decimal, str, bytes, bytearray, memoryview),
    *(datetime.datetime, datetime.date, datetime.time),
}


def nearest(kind: type) -> type:
    """The type that values of *kind* are taken for; ``object`` if for none in particular."""
    return next((base for base in kind.__mro__ if base in _KNOWN), object)


def _filled(values: Sequence[Any], with_: object) -> Sequence[Any]:
    """*values* with something in the place of each None."""
    if None not in values:
        return values
    return [with_ if value is None else value for value in values]


def _integers(code: str) -> Callable[[Sequence[object]], list[bytes]]:
    def buffers(values: Sequence[Any]) -> list[bytes]:
        _only(values, int)
        try:
            return [array(code, _filled(values, 0)).tobytes()]
        except OverflowError as exc:
            raise Misfit("a larger int") from exc

    return buffers


def _floats(values: Sequence[Any]) -> list[bytes]:
    _only(values, float, int)
    try:
        floats = array("d", _filled(values, 0))
    except OverflowError as exc:
        raise Misfit("a larger int") from exc
    if int in {nearest(kind) for kind in set(map(type, values))}:
        for value, found in zip(values, floats, strict=True):
            if value is not None and found != value and not math.isnan(found):
                raise Misfit("an int of more than 53 bits")
    return [floats.tobytes()]


def _short_floats(values: Sequence[Any]) -> list[bytes]:
    _only(values, float)
    filled = _filled(values, 0.0)
    floats = array("f", filled)
    for value, found in zip(filled, floats, strict=True):
        if found != value and not math.isnan(value):
            raise Misfit("a float of more than 24 bits")
    return [floats.tobytes()]


def _booleans(values: Sequence[object]) -> list[bytes]:
    _only(values, bool)
    return [_bits(values)]


def _dates(values: Sequence[Any]) -> list[bytes]:
    _only(values, datetime.date)
    first = datetime.date(1970, 1, 1).toordinal()
    return [array("i", [0 if v is None else v.toordinal() - first for v in values]).tobytes()]


def _timestamps(zone: datetime.tzinfo | None) -> Callable[[Sequence[object]], list[bytes]]:
    first = datetime.datetime(1970, 1, 1, tzinfo=zone)

    def buffers(values: Sequence[Any]) -> list[bytes]:
        _only(values, datetime.datetime)
        try:
            since = [datetime.timedelta() if v is None else v - first for v in values]
        except TypeError as exc:  # one has a zone and the other has not
            raise Misfit("a datetime with another idea of zones") from exc
        micros = [(each.days * 86400 + each.seconds) * 10**6 + each.microseconds for each in since]
        return [array("q", micros).tobytes()]

    return buffers


def _times(values: Sequence[Any]) -> list[bytes]:
    _only(values, datetime.time)
    if any(value is not None and value.tzinfo is not None for value in values):
        raise Misfit("a time with a zone")
    micros = [
        0 if v is None else ((v.hour * 60 + v.minute) * 60 + v.second) * 10**6 + v.microsecond
        for v in values
    ]
    return [array("q", micros).tobytes()]


def _pieces(pieces: Sequence[bytes]) -> list[bytes]:
    try:
        offsets = array("i", accumulate(map(len, pieces), initial=0))
    except OverflowError as exc:
        raise QueryError("a few rows have more than 2 GiB of one column") from exc
    return [offsets.tobytes(), b"".join(pieces)]


def _bytes(values: Sequence[Any]) -> list[bytes]:
    _only(values, bytes, bytearray, memoryview)
    return _pieces([b"" if value is None else bytes(value) for value in values])


def _texts(values: Sequence[Any]) -> list[bytes]:
    try:
        if set(map(type, values)) == {str}:
            return _pieces([value.encode() for value in values])
        return _pieces([(text(value) or "").encode() for value in values])
    except (ValueError, RecursionError) as exc:  # half a surrogate pair; an endless int; depth
        raise QueryError(f"a value cannot be written: {exc}") from exc


def _decimals(precision: int, scale: int) -> Callable[[Sequence[object]], list[bytes]]:
    exact = Context(prec=precision, traps=[Inexact, InvalidOperation, Overflow])
    unit = Decimal(1)

    def buffers(values: Sequence[Any]) -> list[bytes]:
        _only(values, Decimal, int)
        try:
            units = [
                0 if v is None else int(exact.quantize(exact.scaleb(Decimal(v), scale), unit))
                for v in values
            ]
        except (DecimalException, ValueError) as exc:  # the latter for NaN
            raise Misfit("a Decimal of other digits") from exc
        return [b"".join(each.to_bytes(16, "little", signed=True) for each in units)]

    return buffers


_DIGITS: Final = 38  # of the largest Arrow decimal that all readers have


def decimal(precision: int, scale: int) -> Kind:
    return Kind(
        f"decimal({precision}, {scale})",
        nanoarrow.decimal128(precision, scale),
        _decimals(precision, scale),
    )


INT8: Final = Kind("int8", nanoarrow.int8(), _integers("b"))
UINT8: Final = Kind("uint8", nanoarrow.uint8(), _integers("B"))
UINT16: Final = Kind("uint16", nanoarrow.uint16(), _integers("H"))
UINT32: Final = Kind("uint32", nanoarrow.uint32(), _integers("I"))
UINT64: Final = Kind("uint64", nanoarrow.uint64(), _integers("Q"))
INT16: Final = Kind("int16", nanoarrow.int16(), _integers("h"))
INT32: Final = Kind("int32", nanoarrow.int32(), _integers("i"))
INT64: Final = Kind("int64", nanoarrow.int64(), _integers("q"))
FLOAT32: Final = Kind("float32", nanoarrow.float32(), _short_floats)
FLOAT64: Final = Kind("float64", nanoarrow.float64(), _floats)
BOOLEAN: Final = Kind("boolean", nanoarrow.bool_(), _booleans)
DATE: Final = Kind("date", nanoarrow.date32(), _dates)
TIME: Final = Kind("time", nanoarrow.time64("us"), _times)
TIMESTAMP: Final = Kind("timestamp", nanoarrow.timestamp("us"), _timestamps(None))
INSTANT: Final = Kind(
    "timestamp with time zone",
    nanoarrow.timestamp("us", timezone="UTC"),
    _timestamps(datetime.UTC),
)
BINARY: Final = Kind("bytes", nanoarrow.binary(), _bytes)
TEXT: Final = Kind("text", nanoarrow.string(), _texts)

_BY_FORMAT: Final = {
    nanoarrow.c_schema(kind.type).format: kind
    for kind in (
        *(INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT32, FLOAT64),
        *(BOOLEAN, DATE, TIME, TIMESTAMP, BINARY, TEXT),
    )
}
_DECIMAL_FORMAT: Final = re.compile(r"d:(\d+),(\d+)")


def kind_of_format(format_: str) -> Kind | None:
    """The kind that a format string of the Arrow C data interface means; None if there is none."""
    decimals = _DECIMAL_FORMAT.fullmatch(format_)
    if decimals is not None:
        return decimal(*map(int, decimals.groups()))
    return _BY_FORMAT.get(format_)


# Names of types that say how wide a number is, or how exact. They are PostgreSQL's own: other
# databases call a bigint an integer, or a double a real. A column that says nothing is judged by
# its values, and so is one whose first values do not fit what it says.
_DECLARED: Final = {
    "smallint": INT16,
    "integer": INT32,
    "bigint": INT64,
    "real": FLOAT64,
    "double precision": FLOAT64,
    "boolean": BOOLEAN,
    "date": DATE,
    "time without time zone": TIME,
    "timestamp without time zone": TIMESTAMP,
    "timestamp with time zone": INSTANT,
    "bytea": BINARY,
}
_NUMERIC: Final = re.compile(r"numeric\((\d+),(\d+)\)")

_BY_VALUES: Final[dict[frozenset[type], Sequence[Kind]]] = {
    frozenset({int}): [INT64],
    frozenset({float}): [FLOAT64],
    frozenset({int, float}): [FLOAT64],
    frozenset({bool}): [BOOLEAN],
    frozenset({datetime.date}): [DATE],
    frozenset({datetime.time}): [TIME],
    frozenset({datetime.datetime}): [TIMESTAMP, INSTANT],
    frozenset({bytes}): [BINARY],
    frozenset({bytearray}): [BINARY],
    frozenset({memoryview}): [BINARY],
}


def kind_of(datatype: str, values: Sequence[object], *, all_of_them: bool) -> Kind:
    """The kind of a column, from the name of its type and its first values.

    ``TEXT``, which takes any value, if they have none in common. So are decimals that are not
    declared, unless these are *all_of_them*: nobody knows how many digits the next will have.
    """
    kinds = frozenset(nearest(kind) for kind in set(map(type, values)) if kind is not type(None))
    wanted = [*_declared(datatype), *_BY_VALUES.get(kinds, ())]
    if kinds == {Decimal} and all_of_them:
        exponents = [v.as_tuple().exponent for v in values if isinstance(v, Decimal)]
        scale = -min(0, *(each for each in exponents if isinstance(each, int)), 0)
        wanted += [decimal(_DIGITS, scale)] if scale <= _DIGITS else []
    return next((kind for kind in wanted if _fits(kind, values)), TEXT)


def _declared(datatype: str) -> Iterable[Kind]:
    numeric = _NUMERIC.fullmatch(datatype)
    if numeric is not None:
        precision, scale = map(int, numeric.groups())
        return [decimal(precision, scale)] if scale <= precision <= _DIGITS else []
    return [_DECLARED[datatype]] if datatype in _DECLARED else []


def _fits(kind: Kind, values: Sequence[object]) -> bool:
    try:
        kind.buffers(values)
    except Misfit:
        return False
    return True
