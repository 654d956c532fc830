"""What DuckDB tells of a table: the queries, and what is made of their rows.

The engine has no way to ask for one table: its catalog functions list all there are before
anything is left out. One of them is asked, once, for the statement that would make the table. Its
constraints are read from there, as to ask for those would take twice as long again.

What it refuses: names of constraints. The engine keeps none that it is given.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from notebook_rpc.errors import UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.sansio.sqltext import STANDARD
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts
from notebook_rpc_drivers._declared import Declared, declared_in
from notebook_rpc_drivers._sql_names import columns_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from notebook_rpc_drivers._declared import Declaration

Row = tuple[Any, ...]

# Of a catalog, a schema and a table, "" for any; names are the same in any case.
_WANTED: Final = """
    WHERE system.main.lower(?) IN ('', system.main.lower(database_name))
      AND system.main.lower(?) IN ('', system.main.lower(schema_name))
      AND system.main.lower(?) IN ('', system.main.lower(table_name))"""
RELATIONS: Final = f"""
    SELECT database_name, schema_name, table_name, is_view, sql FROM (
        SELECT database_name, schema_name, table_name, false AS is_view, sql
        FROM system.main.duckdb_tables() WHERE NOT internal
        UNION ALL
        SELECT database_name, schema_name, view_name, true, sql
        FROM system.main.duckdb_views() WHERE NOT internal
    ) {_WANTED}"""  # noqa: S608
FACTS: Final = f"""
    SELECT database_name, schema_name, table_name, column_name, data_type, NOT is_nullable,
        column_default
    FROM system.main.duckdb_columns() {_WANTED} AND NOT internal
    ORDER BY database_name, schema_name, table_name, column_index"""  # noqa: S608
TABLE_FACTS: Final = """
    SELECT $1, $2, $3, name, type, "notnull", dflt_value
    FROM system.main.pragma_table_info(system.main.concat(
        '"', system.main.replace($1, '"', '""'), '"."', system.main.replace($2, '"', '""'),
        '"."', system.main.replace($3, '"', '""'), '"'))"""
"""``FACTS`` of a table that is there: an error would end a transaction."""
SCHEMAS: Final = """
    SELECT database_name, schema_name FROM system.main.duckdb_schemas()
    WHERE database_name NOT IN ('system', 'temp') ORDER BY ALL"""
DATABASES: Final = """
    SELECT database_name FROM system.main.duckdb_databases() WHERE NOT internal ORDER BY ALL"""
PLACE: Final = """
    SELECT system.main.current_setting('search_path'), system.main.current_database(),
        system.main.current_schema()"""
"""Where names without a catalog or a schema are looked for."""

_ENTRY: Final = re.compile(r'(?:"(?:[^"]|"")*"|[^",])+')
_PART: Final = re.compile(r'"((?:[^"]|"")*)"|([^".]+)')


class Ask(Protocol):
    def __call__(self, query: str, *names: str) -> Sequence[Row]: ...


def describe(ask: Ask, wanted: Table) -> TableFacts:
    """
    Raises:
        UnknownTable: there is none that SQL would find.
    """
    ((path, *here),) = ask(PLACE)
    catalog, schema = (each.lower() for each in here)
    named = list(_places(path.lower())) or [(schema,)]
    places = [each if len(each) > 1 else (catalog, *each) for each in named]
    ranked = [(_rank(wanted, places, row), row) for row in ask(RELATIONS, "", "", wanted.table)]
    found = [(rank, row) for rank, row in ranked if rank is not None]
    if not found or not wanted.table:  # "" is any name, to the queries
        raise UnknownTable(f"there is no table {wanted.table!r}")
    _, (*place, is_view, sql) = min(found, key=lambda each: each[0])
    rows = ask(FACTS if is_view else TABLE_FACTS, *place)
    declared = Declared() if is_view else declared_in(sql or "", STANDARD)
    columns = [_column(row, declared) for row in rows]
    names = [column.name for column in columns]
    table = Table(*place)
    constraints = [_constraint(each, table, names) for each in declared.constraints]
    return TableFacts(table, columns, constraints, sql or "", is_view)


def schemas(ask: Ask) -> list[str]:
    """Of the database in use."""
    ((_, here, _),) = ask(PLACE)
    return sorted({schema for database, schema in ask(SCHEMAS) if database == here})


def matches(names: Sequence[str], row: Row) -> bool:
    """Whether ``_WANTED`` would keep a row that was asked for without names."""
    return all(name.lower() in ("", own.lower()) for name, own in zip(names, row, strict=False))


def _rank(wanted: Table, places: Sequence[Row], row: Row) -> int | None:
    """When SQL comes to a table, if it looks for *wanted*; None if it does not. Temporary ones
    are the first, then those along the search path."""
    catalog, schema = row[0].lower(), row[1].lower()
    asked = wanted.schema.lower()
    if wanted.catalog:
        fits = wanted.catalog.lower() == catalog and asked in ("", schema)
        return int(schema != "main") if fits else None
    if asked in ("", schema):
        for at, place in enumerate((("temp", "main"), *places)):
            if catalog == place[0] and schema in (asked, place[1]):
                return at
    # In front of a table, one name may be a catalog's, too.
    return len(places) + 1 if (asked, "main") == (catalog, schema) else None


def _places(path: str) -> Iterator[Row]:
    """Of a search path: each a catalog and a schema, or a schema alone."""
    for entry in _ENTRY.findall(path):
        yield tuple(quoted.replace('""', '"') or plain for quoted, plain in _PART.findall(entry))


def _column(row: Row, declared: Declared) -> ColumnFacts:
    _, _, _, name, kind, required, default = row
    generated = declared.generated.get(name)
    default = None if generated is not None else default
    return ColumnFacts(name, kind, not required, default, generated)


def _constraint(said: Declaration, table: Table, columns: list[str]) -> Constraint:
    references, own = None, list(said.columns)
    if said.kind is ConstraintKind.FOREIGN_KEY:  # no other schema can be on the other side of it
        references = Table(table.catalog, table.schema, said.references[-1])
    elif said.kind is ConstraintKind.CHECK:
        own = columns_in(said.condition, columns, STANDARD)
    return Constraint(said.kind, "", own, said.condition, references, list(said.referenced))
