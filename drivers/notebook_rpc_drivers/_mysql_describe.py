"""What MySQL and MariaDB tell of a table, whichever driver asks them.

What they call a database, one driver calls a catalog and another a schema; here it is a place.
Temporary tables are in no view of theirs that has columns, and so not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from notebook_rpc.errors import QueryError, UnknownTable
from notebook_rpc.sansio.sqltext import MYSQL
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts
from notebook_rpc_drivers._sql_names import columns_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notebook_rpc.model import Table

    Row = Sequence[Any]
    Ask = Callable[[str, Sequence[str]], Sequence[Row]]
    """Runs a query with values for its question marks."""
    Named = Callable[[str, str], Table]
    """A table by its place and its name."""

_TABLES: Final = """
    select table_schema, table_name, table_type, version() from information_schema.tables
    where table_schema = coalesce(nullif(?, ''), database()) and table_name = ?"""
_COLUMNS: Final = """
    select table_name, column_name, column_type, is_nullable, column_default, extra,
        generation_expression
    from information_schema.columns where table_schema = ? and table_name = ?
    order by ordinal_position"""
_KEYS: Final = """
    select c.table_name, c.constraint_type, c.constraint_name, k.column_name,
        k.referenced_table_schema, k.referenced_table_name, k.referenced_column_name
    from information_schema.table_constraints c
    join information_schema.key_column_usage k on k.constraint_name = c.constraint_name
        and k.table_schema = c.table_schema and k.table_name = c.table_name
    where c.table_schema = ? and c.table_name = ?
    order by c.constraint_type <> 'PRIMARY KEY', c.constraint_type, c.constraint_name,
        k.ordinal_position"""
_CHECKS: Final = """
    select c.table_name, k.constraint_name, k.check_clause
    from information_schema.table_constraints c
    join information_schema.check_constraints k on k.constraint_name = c.constraint_name
        and k.constraint_schema = c.constraint_schema {where}
    where c.table_schema = ? and c.table_name = ? and c.constraint_type = 'CHECK'
    order by k.constraint_name"""
# Names of checks are MariaDB's for each table, MySQL's for each database.
_MARIADB_CHECKS: Final = _CHECKS.format(where="and k.table_name = c.table_name")
_MYSQL_CHECKS: Final = _CHECKS.format(where="")

_SCHEMAS: Final = "select schema_name from information_schema.schemata order by schema_name"
_SYSTEM: Final = {"information_schema", "mysql", "performance_schema", "sys"}
_KINDS: Final = {
    "PRIMARY KEY": ConstraintKind.PRIMARY_KEY,
    "UNIQUE": ConstraintKind.UNIQUE,
    "FOREIGN KEY": ConstraintKind.FOREIGN_KEY,
}


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def written(table: Table) -> str:
    return ".".join(quoted(part) for part in (table.catalog, table.schema, table.table) if part)


def schemas(ask: Ask) -> list[str]:
    return sorted(str(name) for (name,) in ask(_SCHEMAS, ()))


def databases(ask: Ask) -> list[str]:
    return [name for name in schemas(ask) if name not in _SYSTEM]


def describe(ask: Ask, place: str, name: str, named: Named) -> TableFacts:
    """*place* is "" for the one in use.

    Raises:
        UnknownTable: there is none.
    """
    found = ask(_TABLES, (place, name))
    if not found:
        raise UnknownTable(f"there is no table {name!r}")
    place, name, kind, version = next((row for row in found if row[1] == name), found[0])
    is_mariadb = "mariadb" in str(version).lower()

    def rows_of(query: str) -> list[Row]:
        # Names may be compared in any case, where two tables differ in nothing else.
        return [row[1:] for row in ask(query, (place, name)) if row[0] == name]

    columns = [_column(row, is_mariadb=is_mariadb) for row in rows_of(_COLUMNS)]
    is_view = "VIEW" in kind
    constraints: list[Constraint] = []
    if not is_view:
        constraints = [*_keys(rows_of(_KEYS), named)]
        for check, condition in rows_of(_MARIADB_CHECKS if is_mariadb else _MYSQL_CHECKS):
            about = columns_in(condition, [column.name for column in columns], MYSQL)
            constraints.append(Constraint(ConstraintKind.CHECK, check, about, condition))
    create = _create(ask, named(place, name), "VIEW" if is_view else "TABLE")
    return TableFacts(named(place, name), columns, constraints, create, is_view)


def _column(row: Row, *, is_mariadb: bool) -> ColumnFacts:
    name, kind, nullable, default, extra, expression = row
    if default is not None and not is_mariadb and "DEFAULT_GENERATED" not in extra:
        default = "'{}'".format(default.replace("\\", "\\\\").replace("'", "''"))  # a value
    if default == "NULL" or expression:
        default = None
    return ColumnFacts(name, kind, nullable == "YES", default, expression or None)


def _keys(rows: Sequence[Row], named: Named) -> list[Constraint]:
    grouped: dict[tuple[str, str], list[Row]] = {}
    for kind, name, *rest in rows:
        grouped.setdefault((kind, name), []).append(rest)
    found = []
    for (kind, name), parts in grouped.items():
        _, other_place, other, _ = parts[0]
        references = named(other_place, other) if other is not None else None
        referenced = [part[3] for part in parts] if other is not None else []
        own = [part[0] for part in parts]
        found.append(Constraint(_KINDS[kind], name, own, "", references, referenced))
    return found


def _create(ask: Ask, table: Table, kind: str) -> str:
    try:
        ((_, sql, *_),) = ask(f"show create {kind} {written(table)}", ())
    except QueryError:
        return ""  # not everybody may see what a view selects
    return str(sql)
