"""The name of a result column's type, from the ``type_code`` that PEP 249 leaves to the modules."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from notebook_rpc_drivers._dbapi_facts import Catalog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc_drivers._dbapi_facts import Facts

# PostgreSQL's oids, from its catalog pg_type.
_POSTGRES = {
    16: "boolean", 17: "bytea", 18: '"char"', 19: "name", 20: "bigint", 21: "smallint",
    23: "integer", 25: "text", 26: "oid", 114: "json", 142: "xml", 600: "point", 650: "cidr",
    700: "real", 701: "double precision", 790: "money", 829: "macaddr", 869: "inet",
    1000: "boolean[]", 1005: "smallint[]", 1007: "integer[]", 1009: "text[]", 1015:
    "character varying[]", 1016: "bigint[]", 1021: "real[]", 1022: "double precision[]",
    1042: "character", 1043: "character varying", 1082: "date", 1083: "time without time zone",
    1114: "timestamp without time zone", 1184: "timestamp with time zone", 1186: "interval",
    1231: "numeric[]", 1266: "time with time zone", 1560: "bit", 1562: "bit varying",
    1700: "numeric", 2950: "uuid", 3614: "tsvector", 3802: "jsonb", 3904: "int4range",
}  # fmt: skip
# MySQL's enum_field_types.
_MYSQL = {
    0: "decimal", 1: "tinyint", 2: "smallint", 3: "int", 4: "float", 5: "double",
    7: "timestamp", 8: "bigint", 9: "mediumint", 10: "date", 11: "time", 12: "datetime",
    13: "year", 15: "varchar", 16: "bit", 245: "json", 246: "decimal", 247: "enum", 248: "set",
    249: "blob", 250: "blob", 251: "blob", 252: "blob", 253: "varchar", 254: "char",
    255: "geometry",
}  # fmt: skip
# The numbers in Snowflake's results.
_SNOWFLAKE = (
    *("FIXED", "REAL", "TEXT", "DATE", "TIMESTAMP", "VARIANT", "TIMESTAMP_LTZ", "TIMESTAMP_TZ"),
    *("TIMESTAMP_NTZ", "OBJECT", "ARRAY", "BINARY", "TIME", "BOOLEAN", "GEOGRAPHY", "GEOMETRY"),
)
_OF_PEP249 = ("STRING", "BINARY", "NUMBER", "DATETIME", "ROWID")


def type_name(module: Any, facts: Facts, column: Sequence[Any]) -> str:
    """ "" if the module does not tell."""
    shown = getattr(column, "type_display", None)  # psycopg's own
    if isinstance(shown, str):
        return shown
    code = column[1]
    if isinstance(code, int) and not isinstance(code, bool):
        if facts.package.startswith("snowflake"):
            return _SNOWFLAKE[code] if 0 <= code < len(_SNOWFLAKE) else ""
        if facts.catalog is Catalog.POSTGRES or "redshift" in facts.package:
            return _POSTGRES.get(code, "")
        if facts.catalog is Catalog.MYSQL:
            return _MYSQL.get(code, "")
    if code is None or isinstance(code, type):
        return ""
    name = code if isinstance(code, str) else getattr(code, "name", None)
    if isinstance(name, str):
        return name.removeprefix("DB_TYPE_").removesuffix("_TYPE")  # Oracle's and Hive's
    return next((each for each in _OF_PEP249 if getattr(module, each, None) == code), "")


def clock(value: object) -> object:
    """MySQL's TIME, which its modules give as a duration; it goes from -838 to 838 hours."""
    if not isinstance(value, datetime.timedelta):
        return value
    seconds, micros = divmod(abs(value) // datetime.timedelta(microseconds=1), 10**6)
    minutes, second = divmod(seconds, 60)
    sign = "-" if value.days < 0 else ""
    shown = f"{sign}{minutes // 60:02}:{minutes % 60:02}:{second:02}"
    return f"{shown}.{micros:06}" if micros else shown
