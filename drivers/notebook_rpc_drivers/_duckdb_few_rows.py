"""The JSON of a few rows, by Python: to compile SQL that writes it takes longer than to read them.

Each value is written as ``_duckdb_json`` has it, or not at all. Arrow's are in
``_duckdb_few_arrow.py``.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from notebook_rpc.model import ResultColumn, unique_names
from notebook_rpc.sansio import values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from duckdb import Statement

    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers._duckdb_result import Row

MOST: Final = 128
"""Rows. More than about three hundred take the engine's own writer less time, compiled or not."""

Write: TypeAlias = "Callable[[list[Row]], list[str]]"


class Misfit(Exception):
    """A value that means two things in Python, and two others in DuckDB."""


def is_an_edge(value: datetime.date) -> bool:
    """Whether it may stand for infinity as well."""
    return value.year in (datetime.MINYEAR, datetime.MAXYEAR)


def read(
    connection: Connection, query: Statement, columns: Sequence[ResultColumn]
) -> list[Row] | None:
    """All rows of a query, to be called within ``calling``; None if they are not few, or not of
    *columns*. Then it is to be run another way."""
    cursor = connection.cursor
    cursor.execute(query)
    rows = cursor.fetchmany(MOST + 1)
    if len(rows) > MOST:
        connection.abandon()
        return None
    return rows if columns_of(cursor.description) == columns else None


def columns_of(description: Sequence[tuple[Any, ...]]) -> list[ResultColumn]:
    """What the engine, in the words of PEP 249, says that it gives."""
    names = unique_names(column[0] for column in description)
    return [ResultColumn(name, str(each[1])) for name, each in zip(names, description, strict=True)]


def _moment(value: datetime.date | str) -> str:
    if isinstance(value, str):  # out of Python's range; DuckDB's own text then
        return value.replace(" ", "T").replace("T(BC)", " (BC)")
    if is_an_edge(value):
        raise Misfit
    return _shortest(value.isoformat())


def _time(value: datetime.time | str) -> str:
    return value if isinstance(value, str) else _shortest(value.isoformat())


def _shortest(text: str) -> str:
    """Without the zeros at the end of a fraction of a second."""
    return text.rstrip("0") if "." in text else text


def _decimal(value: object) -> msgspec.Raw:
    return msgspec.Raw(str(values.text(value)).encode())


_AS_THEY_ARE: Final = {
    *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "double", "varchar"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint", "uuid"),
}
_CONVERTED: Final[dict[str, Callable[[Any], object]]] = {
    "date": _moment,
    "timestamp": _moment,
    "time": _time,
    "decimal": _decimal,
}


def objects(names: Sequence[str], types: Sequence[Any]) -> Write | None:
    """What writes rows of these columns as JSON objects; None if there are values among them that
    Python does not have."""
    convert = _converter(types)
    if convert is None:
        return None
    encode = msgspec.json.encode
    return lambda rows: [
        encode(dict(zip(names, row, strict=True))).decode() for row in convert(rows)
    ]


def arrays(_: Sequence[str], types: Sequence[Any]) -> Write | None:
    """As ``objects``, but as JSON arrays."""
    convert = _converter(types)
    if convert is None:
        return None
    encode = msgspec.json.encode
    return lambda rows: [encode(row).decode() for row in convert(rows)]


def _converter(types: Sequence[Any]) -> Callable[[list[Row]], Sequence[Sequence[object]]] | None:
    if any(kind.id not in _AS_THEY_ARE | _CONVERTED.keys() or _is_json(kind) for kind in types):
        return None
    converted = [(n, _CONVERTED[kind.id]) for n, kind in enumerate(types) if kind.id in _CONVERTED]

    def convert(rows: list[Row]) -> Sequence[Sequence[object]]:
        if not converted:
            return rows
        changed = [list(row) for row in rows]
        for number, conversion in converted:
            for row in changed:
                if row[number] is not None:
                    row[number] = conversion(row[number])
        return changed

    return convert


def _is_json(kind: Any) -> bool:
    return str(kind) == "JSON"
