"""What a database's own name of a type says of its values, in Scoot's words.

What it refuses: to guess. Arrays, structs, floats, intervals and whatever has a name that is not
in the tables below have no spec.

Source: the answers of scoot-server, recorded; where it gives each integer 64 bits and each
timestamp ten digits of a second, these are the real ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

Typespec: TypeAlias = Mapping[str, object]
"""``type`` is INTEGER, DECIMAL, STRING, BINARY, BOOLEAN or TEMPORAL; the rest depends on it."""

_LONGEST: Final = 200  # characters of a type that anybody has given a spec

# A name, numbers that may stand in its middle, the rest of the name: TIMESTAMP(3) WITH TIME ZONE.
_PARTS: Final = re.compile(
    r"([A-Z_][A-Z0-9_ ]*)(?:\( *(?:MAX|([0-9]+)(?: *, *([0-9]+))?) *\))?([A-Z_ ]*)"
)
_NOISE: Final = re.compile(r" (?:CHARACTER SET|CHARSET|COLLATE) \S+| ZEROFILL\b| SIGNED\b")

_BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("TINYINT", "INT1"), 8),
    **dict.fromkeys(("SMALLINT", "INT2", "SHORT", "SMALLSERIAL"), 16),
    "MEDIUMINT": 24,
    **dict.fromkeys(("INTEGER", "INT", "INT4", "SERIAL", "SIGNED"), 32),
    **dict.fromkeys(("BIGINT", "INT8", "LONG", "BIGSERIAL"), 64),
    "HUGEINT": 128,
}
_UNSIGNED_BITS: Final[Mapping[str, int]] = {
    **{f"U{name}": _BITS[name] for name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")},
    **{f"{name} UNSIGNED": bits for name, bits in _BITS.items()},
    **dict.fromkeys(("OID", "XID", "CID", "REGCLASS"), 32),
}
_DECIMALS = {"DECIMAL", "NUMERIC", "DEC", "NUMBER", "FIXED"}
_DECIMALS |= {f"{name} UNSIGNED" for name in _DECIMALS}
_STRINGS = {"VARCHAR", "CHAR", "CHARACTER", "CHARACTER VARYING", "CHAR VARYING", "BPCHAR"}
_STRINGS |= {"NVARCHAR", "NCHAR", "VARCHAR2", "NVARCHAR2", "NATIONAL CHARACTER", "STRING"}
_STRINGS |= {"TEXT", "NTEXT", "TINYTEXT", "MEDIUMTEXT", "LONGTEXT", "CLOB", "NCLOB", "CITEXT"}
_BINARIES = {"BLOB", "BYTEA", "BINARY", "VARBINARY", "LONGVARBINARY", "IMAGE"}
_BINARIES |= {"TINYBLOB", "MEDIUMBLOB", "LONGBLOB", "BINARY VARYING"}
_BOOLEANS = {"BOOLEAN", "BOOL", "LOGICAL"}

# Each with a date, with a time, with a zone, and the digits of a second where it has its own.
_TEMPORALS: Final[Mapping[str, tuple[bool, bool, bool, int | None]]] = {
    "DATE": (True, False, False, None),
    **dict.fromkeys(("TIME", "TIME WITHOUT TIME ZONE"), (False, True, False, None)),
    **dict.fromkeys(("TIMETZ", "TIME WITH TIME ZONE"), (False, True, True, None)),
    "TIME_NS": (False, True, False, 9),
    **dict.fromkeys(("TIMESTAMP", "DATETIME", "TIMESTAMP_US"), (True, True, False, None)),
    "TIMESTAMP WITHOUT TIME ZONE": (True, True, False, None),
    "DATETIME2": (True, True, False, 7),
    "SMALLDATETIME": (True, True, False, 0),
    "TIMESTAMP_S": (True, True, False, 0),
    "TIMESTAMP_MS": (True, True, False, 3),
    "TIMESTAMP_NS": (True, True, False, 9),
    **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"), (True, True, True, None)),
    "TIMESTAMP WITH LOCAL TIME ZONE": (True, True, True, None),
    "DATETIMEOFFSET": (True, True, True, 7),
}
_DIGITS: Final[Mapping[str, int]] = {"mysql": 0, "mariadb": 0}  # of a second, if none are named
_MICROSECONDS: Final = 6
_FIRST_DAY: Final[Mapping[str, tuple[int, int, int]]] = {
    "mysql": (1000, 1, 1),
    "mariadb": (1000, 1, 1),
    "mssql": (1, 1, 1),
}


def typespec(datatype: str, dialect: str = "") -> Typespec | None:
    """What is known of the type *datatype* of the database *dialect*: postgresql, duckdb, sqlite,
    mysql, mariadb or mssql, where it matters. None if nothing is."""
    if len(datatype) > _LONGEST:
        return None
    text = _NOISE.sub("", " ".join(datatype.upper().split()))
    if dialect == "sqlite" and "INT" in text:  # its rule, and its integers have one size
        return {"type": "INTEGER", "bits": 64, "signed": True}
    parts = _PARTS.fullmatch(text)
    if parts is None:
        return None
    name = " ".join(f"{parts[1]} {parts[4]}".split())
    first, second = (None if each is None else int(each) for each in (parts[2], parts[3]))
    if name in _BITS:
        return {"type": "INTEGER", "bits": _BITS[name], "signed": True}
    if name in _UNSIGNED_BITS:
        return {"type": "INTEGER", "bits": _UNSIGNED_BITS[name], "signed": False}
    if name in _DECIMALS:
        scale = 0 if first is not None and second is None else second
        return {"type": "DECIMAL", "precision": first, "scale": scale}
    if name in _STRINGS:
        return {
            "type": "STRING",
            "max-len": first,
            "encoding": "utf-8",
            "collation": None,
            "lob": first is None,
        }
    if name in _BINARIES:
        return {"type": "BINARY", "max-len": first}
    if name in _BOOLEANS:
        return {
            "type": "BOOLEAN",
            "notation": "literal",
            "true-literals": ["true"],
            "false-literals": ["false"],
        }
    if name in _TEMPORALS:
        return _temporal(name, first, dialect)
    return None


def _temporal(name: str, digits: int | None, dialect: str) -> Typespec:
    has_date, has_time, has_zone, own_digits = _TEMPORALS[name]
    if digits is None:
        digits = own_digits
    if digits is None:
        digits = _DIGITS.get(dialect, _MICROSECONDS)
    date = {
        "min": list(_FIRST_DAY.get(dialect, (-4712, 1, 1))),
        "max": [9999, 12, 31],
        "calendar": "proleptic gregorian",
    }
    time = {
        "clock": "24",
        "fsp": digits,
        "precision": None,
        "scale": None,
        "tz": {"offset": "t", "zone": "t"} if has_zone else None,
    }
    return {
        "type": "TEMPORAL",
        "date": date if has_date else None,
        "time": time if has_time else None,
    }
