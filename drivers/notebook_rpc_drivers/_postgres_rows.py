"""The rows of a statement: how PostgreSQL's text becomes values, or stays what it is.

psycopg's loaders do it, except where Python has no such value or would lose some of it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import psycopg
from psycopg.adapt import AdaptersMap, Loader, Transformer
from psycopg.pq import Format

from notebook_rpc.errors import NotebookError, QueryError
from notebook_rpc.model import ResultColumn, unique_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import abc
    from psycopg.abc import AdaptContext, Buffer
    from psycopg.pq.abc import PGresult

Row: TypeAlias = tuple[Any, ...]

# One FETCH, if the rows before are any guide.
_MOST_ROWS: Final = 8192
_MOST_BYTES: Final = 16 * 1024 * 1024

_TYPES: Final = psycopg.adapters.types
_TEXT: Final = _TYPES["text"].oid
TEXTS: Final = _TYPES["text"].array_oid

# What becomes a Python value of its own; all else stays the text that PostgreSQL writes. Not
# intervals: a timedelta has no months, and a day of 25 hours is not one of 24.
_JSON: Final = {"json", "jsonb"}
_TIMES: Final = {"date", "time", "timetz", "timestamp", "timestamptz"}
_TEXT_DIFFERS: Final = {"timetz", "timestamp", "timestamptz"}  # PostgreSQL's, from ISO 8601
_NUMBERS: Final = {"int2", "int4", "int8", "oid", "float4", "float8", "numeric"}
_AS_PSYCOPG: Final = _NUMBERS | {"bool", "bytea", "uuid"}

# An OID that PostgreSQL never gives out, for a loader that we choose ourselves.
_TIMESTAMP_TEXT: Final = 0xFFFF_FF01


def _lenient(loader: type[abc.Loader], text: type[abc.Loader]) -> type[Loader]:
    """Infinity, the year 10000 and BC are no Python values: they are what *text* makes of them."""

    class LenientLoader(Loader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._load: Callable[[Buffer], object] = loader(oid, context).load
            self._text: Callable[[Buffer], object] = text(oid, context).load

        def load(self, data: Buffer) -> object:
            try:
                return self._load(data)
            except (psycopg.DataError, psycopg.NotSupportedError, NotImplementedError):
                return self._text(data)

    return LenientLoader


class _JsonLoader(Loader):
    """With exact numbers."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._encoding = self.connection.info.encoding if self.connection else "utf-8"

    def load(self, data: Buffer) -> object:
        return json.loads(str(data, self._encoding), parse_float=Decimal)


class _TimestampTextLoader(Loader):
    """As ISO 8601 has it: a T between date and time, and minutes in the offset."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        style = self.connection.info.parameter_status("DateStyle") if self.connection else None
        self._iso = (style or "").startswith("ISO")

    def load(self, data: Buffer) -> str:
        text = str(data, "utf-8")
        if not self._iso:  # the user wants it otherwise
            return text
        moment = text.removesuffix(" BC")
        era = text[len(moment) :]
        if moment[-3:-2] in ("+", "-"):
            moment += ":00"
        return (moment if moment[2:3] == ":" else moment.replace(" ", "T", 1)) + era


def adapters() -> AdaptersMap:
    """What loads values. Arrays become lists of whatever their elements become."""
    found = AdaptersMap(psycopg.adapters)
    text = found.get_loader(_TEXT, Format.TEXT)
    assert text is not None  # noqa: S101  # psycopg has always had it
    for info in _TYPES:
        loader = found.get_loader(info.oid, Format.TEXT)
        if info.name in _JSON:
            found.register_loader(info.oid, _JsonLoader)
        elif info.name in _TIMES and loader is not None:
            found.register_loader(
                info.oid,
                _lenient(loader, _TimestampTextLoader if info.name in _TEXT_DIFFERS else text),
            )
        elif info.name not in _AS_PSYCOPG:
            found.register_loader(info.oid, text)
    found.register_loader(_TIMESTAMP_TEXT, _TimestampTextLoader)
    return found


_ARRAYS: Final = {info.array_oid for info in _TYPES if info.array_oid}
_SEEN_AS: Final[dict[int, int]] = {
    **{oid: oid for oid in _ARRAYS},
    **{_TYPES[name].oid: _TYPES[name].oid for name in ("bool", "bytea")},
    **{_TYPES[name].oid: _TIMESTAMP_TEXT for name in _TEXT_DIFFERS},
}


def text_type(oid: int) -> int:
    """The type to load a value of type *oid* as when only its text is wanted: what the table
    of ``sansio/values.py`` and PostgreSQL write alike is not looked at."""
    return _SEEN_AS.get(oid, _TEXT)


def type_name(oid: int, modifier: int) -> str | None:
    """As ``format_type`` would say it; None if only the server knows."""
    info = _TYPES.get(oid)
    if info is None or (modifier >= 0 and oid == info.array_oid):
        return None
    name = f"{info.regtype}[]" if oid == info.array_oid else info.regtype
    if modifier < 0:
        return name
    if info.name not in ("numeric", "varchar", "bpchar"):
        return None
    return f"{name}({','.join(map(str, info.typemod.get_modifier(modifier) or ()))})"


def is_unknown(oid: int) -> bool:
    return _TYPES.get(oid) is None


TYPE_NAMES: Final = b"""
    SELECT pg_catalog.format_type(asked.oid, asked.modifier), type.typcategory = 'A'
    FROM ROWS FROM (
            pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.int4[])
        ) WITH ORDINALITY AS asked(oid, modifier, number)
    LEFT JOIN pg_catalog.pg_type AS type ON type.oid = asked.oid
    ORDER BY asked.number"""


class Source(Protocol):
    """The connection that a result comes from."""

    @property
    def adapt(self) -> psycopg.Connection[Any]: ...
    def fetch_more(self, wanted: int) -> tuple[PGresult, bool]: ...
    def end_stream(self) -> None: ...
    def type_names(self, oids: list[int], modifiers: list[int]) -> list[Row]: ...


class Rows:
    """The rows of an open cursor, or all there are."""

    def __init__(
        self, source: Source, got: PGresult, *, text: bool, streaming: bool, count: int
    ) -> None:
        self.columns: list[ResultColumn] = []
        self.count = count
        self.streaming = streaming
        self._source = source
        self._failure: NotebookError | None = None
        self._closed = False
        self._loader = Transformer(source.adapt)
        self._got = got
        self._at = 0  # rows of _got that have been handed out
        self._step = _MOST_ROWS
        if got.nfields:
            self._describe(got, text=text)
        self._take(got)

    def fetch(self, limit: int, /) -> list[Row]:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise QueryError("the result is closed")
        try:
            return self._fetch(limit)
        except NotebookError as failure:
            self._failure = failure
            if self.streaming:
                self.streaming = False
                with suppress(NotebookError):  # of two failures the first one counts
                    self._source.end_stream()
            raise

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._got.clear()
            if self.streaming:
                self.streaming = False
                self._source.end_stream()

    def _fetch(self, limit: int) -> list[Row]:
        rows = self._load(limit)
        while self.streaming and len(rows) < limit:
            # One more, to see the end with the last row and not after it.
            wanted = min(limit - len(rows) + 1, self._step)
            got, self.streaming = self._source.fetch_more(wanted)
            self._take(got)
            rows += self._load(limit - len(rows))
        return rows

    def _take(self, got: PGresult) -> None:
        self._got = got
        self._at = 0
        self._loader.set_pgresult(got, set_loaders=False)
        sample = range(0, got.ntuples, 1 + got.ntuples // 8)
        sizes = [len(got.get_value(n, k) or b"") for n in sample for k in range(got.nfields)]
        if sample:
            self._step = max(1, min(_MOST_ROWS, _MOST_BYTES * len(sample) // (1 + sum(sizes))))

    def _load(self, limit: int) -> list[Row]:
        until = min(self._at + limit, self._got.ntuples) if self.columns else self._at
        try:
            rows = self._loader.load_rows(self._at, until, tuple)
        except (psycopg.Error, ValueError, RecursionError) as exc:
            raise QueryError(f"a value cannot be read: {exc}") from exc
        self._at = until
        return rows

    def _describe(self, got: PGresult, *, text: bool) -> None:
        oids = [got.ftype(number) for number in range(got.nfields)]
        modifiers = [got.fmod(number) for number in range(got.nfields)]
        kinds = [type_name(*pair) for pair in zip(oids, modifiers, strict=True)]
        if None in kinds:
            told = self._source.type_names(oids, modifiers)
            kinds = [kind or name for kind, (name, _) in zip(kinds, told, strict=True)]
            # Of one's own types, too, an array is a list.
            oids = [
                TEXTS if array == "t" and is_unknown(oid) else oid
                for oid, (_, array) in zip(oids, told, strict=True)
            ]
        encoding = self._source.adapt.info.encoding
        names = unique_names(
            (got.fname(number) or b"").decode(encoding, "replace") for number in range(got.nfields)
        )
        self.columns = [
            ResultColumn(name, kind or "") for name, kind in zip(names, kinds, strict=True)
        ]
        seen = [text_type(oid) for oid in oids] if text else oids
        self._loader.set_loader_types(seen, Format.TEXT)


def texts(got: PGresult, context: AdaptContext) -> list[Row]:
    """All rows, as PostgreSQL wrote them."""
    loader = Transformer(context)
    loader.set_pgresult(got, set_loaders=False)
    loader.set_loader_types([_TEXT] * got.nfields, Format.TEXT)
    return loader.load_rows(0, got.ntuples, tuple)
