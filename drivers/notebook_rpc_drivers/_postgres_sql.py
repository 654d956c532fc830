"""What the driver knows of PostgreSQL's SQL and values: parameters, loaders, catalog queries.

It refuses to send anything, and to tell from a statement's text what the server can tell better.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.placeholders import bind
from notebook_rpc.sansio.sqltext import POSTGRES, Kind, Statement, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from psycopg.abc import AdaptContext, Buffer

    from notebook_rpc.model import Parameters

# --- Statements -------------------------------------------------------------------------------


def first_word(sql: str) -> str:
    """In capitals; "" if there is none before anything but blanks, comments and parentheses."""
    for kind, start, end in tokens(sql, POSTGRES):
        if kind is Kind.WORD:
            return sql[start:end].upper()
        if kind not in (Kind.BLANK, Kind.COMMENT) and sql[start:end] != "(":
            break
    return ""


@dataclass(frozen=True)
class Prepared:
    """A statement with ``$1`` for every parameter, and the parameters in that order."""

    statement: Statement
    sql: str
    parameters: Sequence[object]

    @classmethod
    def of(cls, statement: Statement, parameters: Parameters | None) -> Prepared:
        bound = bind(statement.text, parameters, "dollar", POSTGRES)
        values = bound.parameters or []
        assert isinstance(values, list)  # noqa: S101  # that style numbers them
        return cls(statement, bound.sql, values)

    def locate(self, position: int | None) -> int | None:
        """Where in what the user sent a character of ``sql`` comes from; both from 1."""
        if position is None:
            return None
        at = position - 1
        if self.parameters:  # token for token the same, but a placeholder has another length
            pairs = zip(tokens(self.sql, POSTGRES), tokens(self.statement.text, POSTGRES))  # noqa: B905
            for ours, theirs in pairs:
                if at < ours.end:
                    at = theirs.start + (0 if ours.kind is Kind.PLACEHOLDER else at - ours.start)
                    break
        return self.statement.start + at + 1


# --- Parameters -------------------------------------------------------------------------------

# Types of parameters that are given a list as JSON; all others want PostgreSQL's own arrays.
_JSON_LIKE: Final = {
    psycopg.adapters.types[name].oid for name in ("json", "jsonb", "text", "varchar", "unknown")
}


def parameter_text(value: object, oid: int = 0) -> str | None:
    """What stands between the quotes of the literal for *value*, in a place of type *oid*.

    Raises:
        QueryError: JSON has no such value.
    """
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case float():
            return repr(value)  # PostgreSQL reads nan and inf, in any case
        case list() | tuple() if oid not in _JSON_LIKE:
            return _array(value)
        case list() | tuple() | dict():
            return _json_text(value)
    raise QueryError(f"a parameter cannot be a {type(value).__name__}")


def _json_text(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise QueryError(f"a parameter has no JSON: {exc}") from exc


def _array(values: Iterable[object]) -> str:
    try:
        return "{" + ",".join(map(_element, values)) + "}"
    except RecursionError as exc:
        raise QueryError("a parameter is nested too deep") from exc


def _element(value: object) -> str:
    if isinstance(value, list | tuple):
        return _array(value)
    text = parameter_text(value)
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- Values -----------------------------------------------------------------------------------

_TYPES: Final = psycopg.adapters.types
_TEXT: Final = _TYPES["text"].oid
TEXTS: Final = _TYPES["text"].array_oid

# What becomes a Python value of its own; all else stays the text that PostgreSQL writes. Not
# intervals: a timedelta has no months, and a day of 25 hours is not one of 24.
_PLAIN: Final = ("bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "bytea")
_PLAIN_TOO: Final = ("uuid", "json", "jsonb")
_TIMES: Final = ("date", "time", "timetz", "timestamp", "timestamptz")

# Oids that PostgreSQL never gives out, for loaders that we choose ourselves.
_TIMESTAMP_TEXT: Final = 0xFFFF_FF01


def _lenient(loader: type[Loader]) -> type[Loader]:
    """Infinity, the year 10000 and BC are no Python values: they stay text."""

    class LenientLoader(Loader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._load: Callable[[Buffer], object] = loader(oid, context).load

        def load(self, data: Buffer) -> object:
            try:
                return self._load(data)
            except (psycopg.DataError, psycopg.NotSupportedError, NotImplementedError):
                return str(data, "utf-8")

    return LenientLoader


class _JsonLoader(Loader):
    def load(self, data: Buffer) -> object:
        return json.loads(bytes(data), parse_float=Decimal)


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
        if text[-3:-2] in ("+", "-"):
            text += ":00"
        return text if text[2:3] == ":" else text.replace(" ", "T", 1)


def adapters() -> AdaptersMap:
    """What loads values. Arrays become lists of whatever their elements become."""
    found = AdaptersMap(psycopg.adapters)
    text = found.get_loader(_TEXT, Format.TEXT)
    assert text is not None  # noqa: S101  # psycopg has always had it
    for info in _TYPES:
        loader = found.get_loader(info.oid, Format.TEXT)
        if info.name in ("json", "jsonb"):
            found.register_loader(info.oid, _JsonLoader)
        elif info.name in _TIMES and loader is not None:
            found.register_loader(info.oid, _lenient(loader))
        elif info.name not in _PLAIN + _PLAIN_TOO:
            found.register_loader(info.oid, text)
    found.register_loader(_TIMESTAMP_TEXT, _TimestampTextLoader)
    return found


_ARRAYS: Final = {info.array_oid for info in _TYPES if info.array_oid}
_SEEN_AS: Final = {
    **{oid: oid for oid in _ARRAYS},
    **{_TYPES[name].oid: _TYPES[name].oid for name in ("bool", "bytea")},
    **{_TYPES[name].oid: _TIMESTAMP_TEXT for name in ("timetz", "timestamp", "timestamptz")},
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


TYPE_NAMES: Final = b"""
    SELECT pg_catalog.format_type(asked.oid, asked.modifier), type.typcategory = 'A'
    FROM pg_catalog.unnest($1::pg_catalog.oid[], $2::pg_catalog.int4[])
        WITH ORDINALITY AS asked(oid, modifier, number)
    LEFT JOIN pg_catalog.pg_type AS type ON type.oid = asked.oid
    ORDER BY asked.number"""

# --- Catalog ----------------------------------------------------------------------------------

TABLES: Final = "r", "p", "f"  # ordinary, partitioned, foreign
VIEWS: Final = "v", "m"  # materialized, too

# pg_temp is what SQL calls the session's own schema of temporary objects, whatever its number.
_SCHEMA: Final = """(CASE WHEN schema.oid = pg_catalog.pg_my_temp_schema()
    THEN 'pg_temp' ELSE schema.nspname END)::pg_catalog.text COLLATE "C" """
_SYSTEM: Final = "'pg_catalog', 'information_schema', 'pg_toast'"


def _wanted(kinds: Sequence[str], schema: str, table: str) -> tuple[str, list[str]]:
    """The condition for the relations of these names, "" for any, and its parameters."""
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    conditions = [f"relation.relkind IN ({listed})"]
    names: list[str] = []
    if table:
        names.append(table)
        conditions.append(f"relation.relname = ${len(names)}")
    if schema == "pg_temp":
        conditions.append("schema.oid = pg_catalog.pg_my_temp_schema()")
    elif schema:
        names.append(schema)
        conditions.append(f"schema.nspname = ${len(names)}")
    else:
        conditions.append(f"schema.nspname NOT IN ({_SYSTEM})")
        conditions.append("NOT pg_catalog.pg_is_other_temp_schema(schema.oid)")
    return " AND ".join(conditions), names


_FROM: Final = """FROM pg_catalog.pg_class AS relation
    JOIN pg_catalog.pg_namespace AS schema ON schema.oid = relation.relnamespace"""


def relations_query(kinds: Sequence[str]) -> tuple[str, list[str]]:
    """Schemas and names, sorted."""
    condition, names = _wanted(kinds, "", "")
    query = f"""SELECT {_SCHEMA}, relation.relname {_FROM} WHERE {condition}
        ORDER BY 1, relation.relname"""  # noqa: S608
    return query, names


def columns_query(schema: str, table: str) -> tuple[str, list[str]]:
    """Schemas, tables, columns and types, sorted by schema and table; "" is any."""
    condition, names = _wanted(TABLES + VIEWS, schema, table)
    query = f"""SELECT {_SCHEMA}, relation.relname, attribute.attname,
            pg_catalog.format_type(attribute.atttypid, attribute.atttypmod)
        {_FROM} JOIN pg_catalog.pg_attribute AS attribute
            ON attribute.attrelid = relation.oid AND attribute.attnum > 0
            AND NOT attribute.attisdropped
        WHERE {condition} ORDER BY 1, relation.relname, attribute.attnum"""  # noqa: S608
    return query, names
