"""What a database behind a module of PEP 249 tells of a table: each known one in its own way,
others by the information schema of the SQL standard.

Of that, many have a part only. Columns are all that is needed; what else an engine does not know
is left out, and is not asked for where a refusal would fail the client's transaction.
"""

# ruff: noqa: S608  # every piece of SQL is our own

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from notebook_rpc.errors import QueryError, UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.sansio.sqltext import SQLITE, STANDARD
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts
from notebook_rpc_drivers import _mysql_describe, _postgres_describe, _sqlite_describe
from notebook_rpc_drivers._dbapi_facts import Catalog
from notebook_rpc_drivers._sql_names import columns_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notebook_rpc.sansio.sqltext import Dialect

    Row = Sequence[Any]
    Ask = Callable[[str, Sequence[str]], Sequence[Row]]

_OWN: Final = "table_schema not in ('information_schema', 'INFORMATION_SCHEMA', 'pg_catalog')"
_TABLES: Final = f"""
    select table_catalog, table_schema, table_name, table_type from information_schema.tables
    where {_OWN} and lower(table_name) = lower(?)"""
_COLUMNS: Final = """
    select column_name, data_type, is_nullable, column_default, character_maximum_length,
        numeric_precision, numeric_scale
    from information_schema.columns
    where table_catalog = ? and table_schema = ? and table_name = ? order by ordinal_position"""
_KEYS: Final = """
    select c.constraint_type, c.constraint_name, k.column_name
    from information_schema.table_constraints c
    join information_schema.key_column_usage k on k.constraint_catalog = c.constraint_catalog
        and k.constraint_schema = c.constraint_schema and k.constraint_name = c.constraint_name
        and k.table_name = c.table_name
    where c.table_catalog = ? and c.table_schema = ? and c.table_name = ?
        and c.constraint_type in ('PRIMARY KEY', 'UNIQUE')
    order by c.constraint_type, c.constraint_name, k.ordinal_position"""
_FOREIGN: Final = """
    select r.constraint_name, k.column_name, o.table_catalog, o.table_schema, o.table_name,
        o.column_name
    from information_schema.key_column_usage k
    join information_schema.referential_constraints r
        on r.constraint_catalog = k.constraint_catalog
        and r.constraint_schema = k.constraint_schema and r.constraint_name = k.constraint_name
    join information_schema.key_column_usage o
        on o.constraint_catalog = r.unique_constraint_catalog
        and o.constraint_schema = r.unique_constraint_schema
        and o.constraint_name = r.unique_constraint_name
        and o.ordinal_position = coalesce(k.position_in_unique_constraint, k.ordinal_position)
    where k.table_catalog = ? and k.table_schema = ? and k.table_name = ?
    order by r.constraint_name, k.ordinal_position"""
_CHECKS: Final = """
    select k.constraint_name, k.check_clause from information_schema.check_constraints k
    join information_schema.table_constraints c on c.constraint_catalog = k.constraint_catalog
        and c.constraint_schema = k.constraint_schema and c.constraint_name = k.constraint_name
    where c.table_catalog = ? and c.table_schema = ? and c.table_name = ?
    order by k.constraint_name"""
_SCHEMAS: Final = "select distinct schema_name from information_schema.schemata"
_DATABASES: Final = f"select distinct table_catalog from information_schema.tables where {_OWN}"

_INNER: Final = re.compile(r"(?si)\A\s*check\s*\((.*)\)\s*\Z")  # some repeat the word
_WITH_DIGITS: Final = {"numeric", "decimal", "number"}
_KINDS: Final = {
    "PRIMARY KEY": ConstraintKind.PRIMARY_KEY,
    "UNIQUE": ConstraintKind.UNIQUE,
}


def describe(catalog: Catalog, ask: Ask, wanted: Table, *, may_fail: bool) -> TableFacts:
    """*may_fail* says that a query which the database does not know does no harm.

    Raises:
        UnknownTable: there is none.
    """
    match catalog:
        case Catalog.POSTGRES:
            return _postgres_describe.describe(ask, wanted)
        case Catalog.SQLITE:
            return _sqlite_describe.describe(ask, wanted)
        case Catalog.MYSQL:
            if wanted.catalog:
                raise UnknownTable("there are no catalogs")
            return _mysql_describe.describe(
                _decoding(ask),
                wanted.schema,
                wanted.table,
                lambda place, name: Table("", place, name),
            )
    return _Standard(ask, may_fail=may_fail).describe(wanted)


def schemas(catalog: Catalog, ask: Ask) -> list[str]:
    match catalog:
        case Catalog.POSTGRES:
            return _postgres_describe.schemas(ask)
        case Catalog.SQLITE:
            return _sqlite_describe.places(ask)
        case Catalog.MYSQL:
            return _mysql_describe.schemas(_decoding(ask))
    return sorted(str(name) for (name,) in ask(_SCHEMAS, ()))


def databases(catalog: Catalog, ask: Ask) -> list[str]:
    match catalog:
        case Catalog.POSTGRES:
            return _postgres_describe.databases(ask)
        case Catalog.SQLITE:
            return _sqlite_describe.places(ask)
        case Catalog.MYSQL:
            return _mysql_describe.databases(_decoding(ask))
    return sorted(str(name) for (name,) in ask(_DATABASES, ()) if name)


def written(dialect: Dialect, table: Table) -> str:
    if dialect.backticks and dialect != SQLITE:
        return _mysql_describe.written(table)
    parts = (table.catalog, table.schema, table.table)
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts if part)


def _decoding(ask: Ask) -> Ask:
    """As *ask*; MySQL has bytes in places."""
    return lambda query, values: [
        [each.decode() if isinstance(each, bytes | bytearray) else each for each in row]
        for row in ask(query, values)
    ]


class _Standard:
    def __init__(self, ask: Ask, *, may_fail: bool) -> None:
        self._ask = ask
        self._may_fail = may_fail

    def describe(self, wanted: Table) -> TableFacts:
        found = [
            (Table(*("" if part is None else str(part) for part in place)), str(kind))
            for *place, kind in self._ask(_TABLES, (wanted.table,))
        ]
        found = [
            (table, kind)
            for table, kind in found
            if wanted.catalog in ("", table.catalog)
            and wanted.schema.lower() in ("", table.schema.lower())
        ]
        if not found:
            raise UnknownTable(f"there is no table {wanted.table!r}")
        # Which of several SQL would find, the standard has no way to ask.
        table, kind = min(found, key=lambda each: (each[0].table != wanted.table, each[0]))
        place = (table.catalog, table.schema, table.table)
        columns = [_column(row) for row in self._ask(_COLUMNS, place)]
        is_view = "VIEW" in kind.upper()
        constraints = [] if is_view else self._constraints(place, columns)
        return TableFacts(table, columns, constraints, "", is_view)

    def _constraints(
        self, place: tuple[str, str, str], columns: list[ColumnFacts]
    ) -> list[Constraint]:
        keys: dict[tuple[str, str], list[str]] = {}
        for kind, name, column in self._if_known(_KEYS, place):
            keys.setdefault((kind, name), []).append(column)
        found = [Constraint(_KINDS[kind], name, own) for (kind, name), own in keys.items()]
        foreign: dict[str, list[Row]] = {}
        for name, *row in self._if_known(_FOREIGN, place):
            foreign.setdefault(name, []).append(row)
        for name, rows in foreign.items():
            own, referenced = [row[0] for row in rows], [row[4] for row in rows]
            other = Table(*map(str, rows[0][1:4]))
            found.append(Constraint(ConstraintKind.FOREIGN_KEY, name, own, "", other, referenced))
        names = [column.name for column in columns]
        for name, clause in self._if_known(_CHECKS, place):
            condition = _INNER.sub(r"\1", clause)
            if not _is_not_null(condition, names):
                about = columns_in(condition, names, STANDARD)
                found.append(Constraint(ConstraintKind.CHECK, name, about, condition))
        return found

    def _if_known(self, query: str, place: Sequence[str]) -> Sequence[Row]:
        if not self._may_fail:
            return ()
        try:
            return self._ask(query, place)
        except QueryError:
            return ()


def _is_not_null(condition: str, columns: Sequence[str]) -> bool:
    """To the standard, NOT NULL is a check; but it is told of the column already."""
    plain = condition.strip("() ").upper()
    return any(
        plain in (f"{name.upper()} IS NOT NULL", f'"{name.upper()}" IS NOT NULL')
        for name in columns
    )


def _column(row: Row) -> ColumnFacts:
    name, kind, nullable, default, length, precision, scale = row
    whole = str(kind)
    if "(" not in whole:
        if length is not None:
            whole += f"({length})"
        elif whole.lower() in _WITH_DIGITS and precision is not None:
            whole += f"({precision},{scale or 0})"
    return ColumnFacts(
        str(name),
        whole,
        nullable=str(nullable).upper() != "NO",
        default=None if default is None else str(default),
    )
