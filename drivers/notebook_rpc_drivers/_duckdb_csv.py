"""SQL that makes DuckDB write a row as a record of CSV, by the rules of ``sansio/csv.py`` and the
text table of ``sansio/values.py``.

It refuses to quote what cannot need it: to look for quotes and commas in numbers takes longer than
to write them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from notebook_rpc_drivers._duckdb_sql import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEVER_ODD: Final = {
    *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "decimal", "bignum"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint", "float", "double"),
    *("date", "time", "time_ns", "time with time zone", "timestamp", "timestamp_s"),
    *("timestamp_ms", "timestamp_ns", "timestamp with time zone", "timestamptz_ns"),
    *("uuid", "blob"),
}
_ODD: Final = ("'\"'", "','", "system.main.chr(10)", "system.main.chr(13)")


def record_of(types: Sequence[Any]) -> str:
    """SQL for the columns c0, c1... as a record, without the end of its line."""
    fields = [_field(kind.id, f"c{number}") for number, kind in enumerate(types)]
    if len(fields) == 1:
        return f"coalesce({fields[0]}, '\"\"')"
    between = ", ',', "
    return f"system.main.concat({between.join(fields)})"  # which takes NULL for nothing


def _field(kind: str, column: str) -> str:
    """NULL for NULL."""
    text = as_text(kind, column)
    if kind in _NEVER_ODD:
        return text
    odd = " OR ".join(f"system.main.contains({text}, {each})" for each in _ODD)
    quoted = f"""system.main.concat('"', system.main.replace({text}, '"', '""'), '"')"""
    return f"CASE WHEN {text} = '' OR {odd} THEN {quoted} ELSE {text} END"
