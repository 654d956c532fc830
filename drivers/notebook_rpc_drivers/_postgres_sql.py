"""What the driver knows of PostgreSQL's SQL: statements, parameters, the catalog's queries.

It refuses to send anything, and to tell from a statement's text what the server can tell better.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import psycopg

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.placeholders import bind
from notebook_rpc.sansio.sqltext import POSTGRES, Kind, Statement, tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    psycopg.adapters.types[name].oid for name in ("json", "jsonb", "text", "varchar")
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
        ORDER BY 1, relation.relname"""
    return query, names


def columns_query(schema: str, table: str) -> tuple[str, list[str]]:
    """Schemas, tables, columns and types, sorted by schema and table; "" is any."""
    condition, names = _wanted(TABLES + VIEWS, schema, table)
    query = f"""SELECT {_SCHEMA}, relation.relname, attribute.attname,
            pg_catalog.format_type(attribute.atttypid, attribute.atttypmod)
        {_FROM} JOIN pg_catalog.pg_attribute AS attribute
            ON attribute.attrelid = relation.oid AND attribute.attnum > 0
            AND NOT attribute.attisdropped
        WHERE {condition} ORDER BY 1, relation.relname, attribute.attnum"""
    return query, names
