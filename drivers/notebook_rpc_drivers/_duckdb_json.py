"""SQL that makes DuckDB write a row as typed JSON, by the JSON table of ``sansio/values.py``.

The engine's own writer is used for rows of plain values, and for what is nested deep. It takes
decimals and the numbers in JSON for doubles, writes NaN as a bare word, and a BLOB with escapes of
its own. Other rows are put together value by value.

What it refuses: to trust a JSON column. DuckDB takes NaN, Infinity and a comma behind the last
element for JSON; ``tidied`` is for rows that may hold such.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from notebook_rpc_drivers._duckdb_sql import literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_NUMBERS: Final = {
    *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "decimal", "bignum"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"),
}
DEEP: Final = 4
"""Levels of nesting beyond which the engine's own writer has to do: what is put together here takes
twice the time to compile for each level, and hours for twenty."""

_PLAIN: Final = {
    *("boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint"),
    *("uinteger", "ubigint", "varchar", "uuid", "date", "time"),
}
_TIMESTAMPS: Final = {"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"}
_ZONED: Final = {"timestamp with time zone", "timestamptz_ns"}

# All that a row can hold that is not JSON, and strings, so that what is in them is let alone.
_ODD: Final = re.compile(
    r'"(?:[^"\\]|\\.)*"|-?(?:nan|inf(?:inity)?)|,(?=\s*[\]}])|[\r\n]', re.IGNORECASE
)
_SUSPECT: Final = re.compile(r"nan|inf|,\s*[\]}]|[\r\n]", re.IGNORECASE)


def json_of(names: Sequence[str], types: Sequence[Any]) -> str:
    """SQL for a row of the columns c0, c1... as a JSON object; *names* are distinct."""
    columns = _columns(types)
    plain = _all_plain(columns)
    if plain is not None:  # compiled in half the time, and run in less
        pairs = (f"{literal(name)}, {sql}" for name, sql in zip(names, plain, strict=True))
        return f"system.main.json_object({', '.join(pairs)})::VARCHAR"
    values = [_value(kind, sql, 0) for kind, sql in columns]
    return _object(zip(names, values, strict=True))


def array_of(types: Sequence[Any]) -> str:
    """SQL for a row of the columns c0, c1... as a JSON array."""
    columns = _columns(types)
    plain = _all_plain(columns)
    if plain is not None:
        return f"system.main.json_array({', '.join(plain)})::VARCHAR"
    return _array(_value(kind, sql, 0) for kind, sql in columns)


def _columns(types: Sequence[Any]) -> list[tuple[Any, str]]:
    return [(kind, f"c{number}") for number, kind in enumerate(types)]


def _all_plain(columns: Sequence[tuple[Any, str]]) -> list[str] | None:
    """SQL for values that the engine's own writer gets right; None if it does not all of them."""
    plain = [sql for kind, name in columns if (sql := _plain(kind, name)) is not None]
    return plain if plain and len(plain) == len(columns) else None


def _plain(kind: Any, sql: str) -> str | None:
    """SQL for the value *sql* that the engine's own writer gets right; None if there is none."""
    if kind.id == "double":
        return f"CASE WHEN system.main.isfinite({sql}) THEN {sql} END"
    return sql if kind.id in _PLAIN and str(kind) != "JSON" else None


def is_suspect(datatype: str) -> bool:
    """Whether a column of this type may hold what DuckDB takes for JSON, and nobody else."""
    deep = datatype.count("[") + datatype.count("(") > DEEP  # or more than that
    return deep or "JSON" in datatype or "VARIANT" in datatype


def tidied(row: str) -> str:
    """*row* as JSON in one line."""
    return _ODD.sub(_tidy, row) if _SUSPECT.search(row) else row


def _tidy(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] == '"':
        return text
    if text == ",":
        return ""
    return " " if text.isspace() else "null"


def _value(kind: Any, sql: str, depth: int) -> str:
    """SQL for the JSON of the value *sql*, as a VARCHAR; NULL, if it is, or has no number."""
    name = kind.id
    if name == "decimal" and dict(kind.children)["precision"] == dict(kind.children)["scale"]:
        return rf"system.main.regexp_replace({sql}::VARCHAR, '^(-?)\.', '\10.')"  # not .5, but 0.5
    if name in _NUMBERS:
        return f"{sql}::VARCHAR"
    if name in ("float", "double"):
        return f"CASE WHEN system.main.isfinite({sql}) THEN {sql}::VARCHAR END"
    if name == "varchar" and str(kind) == "JSON":  # what came as Arrow or Parquet, nobody checked
        text = f"{sql}::VARCHAR"
        return f"CASE WHEN system.main.json_valid({text}) THEN {text} ELSE {_quoted(text)} END"
    if name == "variant":
        return f"{sql}::JSON::VARCHAR"
    nested = _NESTED.get(name)
    if nested is not None and depth >= DEEP:
        return f"system.main.to_json({sql})::VARCHAR"
    if nested is not None:
        return f"CASE WHEN {sql} IS NOT NULL THEN {nested(kind, sql, depth)} END"
    return _quoted(_text(name, sql))


def _text(name: str, sql: str) -> str:
    if name in _TIMESTAMPS:
        return _with_t(sql)
    if name in _ZONED:
        return _with_minutes(_with_t(sql))
    if name == "time with time zone":
        return _with_minutes(f"{sql}::VARCHAR")
    if name == "interval":
        return _duration(sql)
    if name == "blob":
        return f"system.main.to_base64({sql})"
    return f"{sql}::VARCHAR"


def _with_t(sql: str) -> str:
    """Before Christ the year is followed by " (BC)", which stays DuckDB's own."""
    replace = f"system.main.replace({sql}::VARCHAR, ' ', 'T')"
    return f"system.main.replace({replace}, 'T(BC)', ' (BC)')"


def _with_minutes(sql: str) -> str:
    """An offset of whole hours has no minutes in DuckDB, and JavaScript wants them."""
    return rf"system.main.regexp_replace({sql}, '([+-]\d\d)$', '\1:00')"


def _duration(sql: str) -> str:
    """ISO 8601, from ``-1 year 2 months 3 days -04:05:06.7``: without parts that are zero, and with
    one sign in front of all where they share it, as ISO 8601-2 and ``Temporal`` want it."""
    text = f"{sql}::VARCHAR"
    for word, letter in (("years?", "Y"), ("months?", "M"), ("days?", "D")):
        text = rf"system.main.regexp_replace({text}, '(-?\d+) {word} ?', '\1{letter}')"
    clock = r"'(-?)0*(\d+):0?(\d+):0?([\d.]+)$', 'T \1\2H \1\3M \1\4S'"
    text = f"system.main.regexp_replace({text}, {clock})"
    text = f"system.main.regexp_replace({text}, ' -?0[HMS]', '', 'g')"
    text = f"system.main.regexp_replace({text}, '^T$', 'T0S')"
    text = f"system.main.replace({text}, ' ', '')"
    negative = f"system.main.regexp_full_match({text}, '(-[0-9.]+[YMD])*T?(-[0-9.]+[HMS])*')"
    unsigned = f"system.main.replace({text}, '-', '')"
    return (
        f"CASE WHEN {negative} THEN system.main.concat('-P', {unsigned})"
        f" WHEN {sql} IS NOT NULL THEN system.main.concat('P', {text}) END"
    )


def _quoted(sql: str) -> str:
    return f"system.main.to_json({sql})::VARCHAR"


def _list(kind: Any, sql: str, depth: int) -> str:
    item = f"x{depth}"
    ((_, child), *_) = kind.children  # of an ARRAY the second is its size
    return _joined("[", f"{sql}", item, _or_null(_value(child, item, depth + 1)), "]")


def _map(kind: Any, sql: str, depth: int) -> str:
    item = f"x{depth}"
    (_, key), (_, value) = kind.children
    name = _value(key, _field(item, "key"), depth + 1)
    if not name.startswith("system.main.to_json("):  # it is no string yet, and must be
        name = _quoted(_or_null(name))
    entry = _or_null(_value(value, _field(item, "value"), depth + 1))
    entries = f"system.main.map_entries({sql})"
    return _joined("{", entries, item, f"system.main.concat({name}, ':', {entry})", "}")


def _struct(kind: Any, sql: str, depth: int) -> str:
    return _object(
        (name, _value(child, _field(sql, name), depth + 1)) for name, child in kind.children
    )


def _tuple(kind: Any, sql: str, depth: int) -> str:
    return _array(
        _value(child, f"system.main.struct_extract({sql}, {number})", depth + 1)
        for number, (_, child) in enumerate(kind.children, 1)
    )


def _union(kind: Any, sql: str, depth: int) -> str:
    """An object with the one member that the value has."""
    cases = []
    for name, child in kind.children[1:]:  # the first is the tag
        member = _value(child, f"system.main.union_extract({sql}, {literal(name)})", depth + 1)
        cases.append(f"WHEN {literal(name)} THEN {_object([(name, member)])}")
    return f"CASE system.main.union_tag({sql}) {' '.join(cases)} END"


_NESTED: Final[dict[str, Callable[[Any, str, int], str]]] = {
    "list": _list,
    "array": _list,
    "map": _map,
    "struct": _struct,
    "tuple": _tuple,
    "union": _union,
}


def _object(members: Iterable[tuple[str, str]]) -> str:
    parts: list[str] = []
    for name, value in members:
        before = "," if parts else "{"
        key = json.dumps(name, ensure_ascii=False)
        parts += [literal(f"{before}{key}:"), _or_null(value)]
    return f"system.main.concat({', '.join(parts)}, '}}')" if parts else "'{}'"


def _array(values: Iterable[str]) -> str:
    items = ", ',', ".join(map(_or_null, values))
    return f"system.main.concat('[', {items}, ']')" if items else "'[]'"


def _joined(before: str, items: str, item: str, text: str, after: str) -> str:
    texts = f"system.main.list_transform({items}, lambda {item}: {text})"
    joined = f"system.main.list_aggregate({texts}, 'string_agg', ',')"  # NULL for no items
    return f"system.main.concat('{before}', {joined}, '{after}')"


def _field(sql: str, name: str) -> str:
    return f"system.main.struct_extract({sql}, {literal(name)})"


def _or_null(sql: str) -> str:
    return f"coalesce({sql}, 'null')"
