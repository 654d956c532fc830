"""What a database tells of a table over ODBC: those we know by their own catalogs, others by
SQLColumns, SQLPrimaryKeys, SQLForeignKeys and SQLStatistics, as far as their drivers have these.

ODBC knows no checks and no CREATE statements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyodbc

from notebook_rpc.errors import UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.sansio.sqltext import MYSQL, POSTGRES, SQLITE
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts
from notebook_rpc_drivers import (
    _mysql_describe,
    _odbc_catalog,
    _postgres_describe,
    _sqlite_describe,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notebook_rpc_drivers._odbc_kinds import Dbms

Row = Any  # pyodbc's, whose columns have names that drivers differ in

_WITH_LENGTH = {pyodbc.SQL_CHAR, pyodbc.SQL_VARCHAR, pyodbc.SQL_WCHAR, pyodbc.SQL_WVARCHAR}
_WITH_LENGTH |= {pyodbc.SQL_BINARY, pyodbc.SQL_VARBINARY}
_WITH_DIGITS: Final = {pyodbc.SQL_DECIMAL, pyodbc.SQL_NUMERIC}
_NO_NULLS: Final = 0  # SQL_NO_NULLS
_TABLE_STATISTICS: Final = 0  # SQL_TABLE_STAT, a row that is of no index


def describe(db: pyodbc.Connection, dbms: Dbms, wanted: Table) -> TableFacts:
    """
    Raises:
        UnknownTable: there is none.
    """
    ask = _asker(db, dbms)
    if dbms.catalog is None:
        return _described(db, dbms, wanted)
    if dbms.dialect == POSTGRES:
        return _postgres_describe.describe(ask, wanted)
    if dbms.dialect == SQLITE:
        return _sqlite_describe.describe(ask, wanted)
    place = wanted.catalog or wanted.schema
    if wanted.catalog and wanted.schema:
        raise UnknownTable("there are no schemas in a catalog")
    return _mysql_describe.describe(
        ask, place, wanted.table, lambda place, name: Table(place, "", name)
    )


def schemas(db: pyodbc.Connection, dbms: Dbms) -> list[str]:
    ask = _asker(db, dbms)
    if dbms.catalog is None:
        return _enumerated(db, 1, schema="%", table="", catalog="")
    if dbms.dialect == POSTGRES:
        return _postgres_describe.schemas(ask)
    return _sqlite_describe.places(ask) if dbms.dialect == SQLITE else _mysql_describe.schemas(ask)


def databases(db: pyodbc.Connection, dbms: Dbms) -> list[str]:
    ask = _asker(db, dbms)
    if dbms.catalog is None:
        return _enumerated(db, 0, catalog="%", schema="", table="")
    if dbms.dialect == POSTGRES:
        return _postgres_describe.databases(ask)
    if dbms.dialect == SQLITE:
        return _sqlite_describe.places(ask)
    return _mysql_describe.databases(ask)


def written(dbms: Dbms, table: Table) -> str:
    if dbms.dialect == MYSQL:
        return _mysql_describe.written(table)
    parts = (table.catalog, table.schema, table.table)
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts if part)


def _asker(db: pyodbc.Connection, dbms: Dbms) -> Callable[[str, Sequence[str]], list[Row]]:
    return lambda query, values: _odbc_catalog.select(db, dbms, query, values)


def _enumerated(db: pyodbc.Connection, column: int, **patterns: str) -> list[str]:
    """What SQLTables lists if asked in the way that ODBC has for it; nothing if it does not."""
    try:
        rows = _rows(db, lambda cursor: cursor.tables(**patterns))
    except pyodbc.Error:
        return []
    return sorted({row[column] for row in rows if row[column]})


def _rows(db: pyodbc.Connection, ask: Callable[[pyodbc.Cursor], object]) -> list[Row]:
    cursor = db.cursor()
    try:
        ask(cursor)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def _described(db: pyodbc.Connection, dbms: Dbms, wanted: Table) -> TableFacts:
    for is_view in (False, True):
        listed = _odbc_catalog.tables(db, dbms, views=is_view)
        fitting = [
            table
            for table in listed
            if wanted.catalog in ("", table.catalog)
            and wanted.schema.lower() in ("", table.schema.lower())
            and wanted.table.lower() == table.table.lower()
        ]
        if fitting:
            table = min(fitting, key=lambda each: (each.table != wanted.table, each))
            break
    else:
        raise UnknownTable(f"there is no table {wanted.table!r}")
    name, schema = (_odbc_catalog.pattern(db, each) for each in (table.table, table.schema))
    rows = [
        row  # without a schema, some look along the search path only
        for row in _rows(db, lambda cursor: cursor.columns(name, schema=schema))
        if Table(row[0] or "", row[1] or "", row[2]) == table
    ]
    place = (table.table, table.catalog or None, table.schema or None)
    constraints = [] if is_view else [*_keys(db, place), *_foreign(db, place)]
    return TableFacts(table, list(map(_column, rows)), constraints, is_view=is_view)


def _column(row: Row) -> ColumnFacts:
    name, code, kind, size, digits, nullable, default = (row[at] for at in (3, 4, 5, 6, 8, 10, 12))
    if "(" not in kind and size:
        if code in _WITH_LENGTH:
            kind += f"({size})"
        elif code in _WITH_DIGITS:
            kind += f"({size},{digits or 0})"
    # ODBC has the word NULL for a default that is NULL, and nothing for none.
    return ColumnFacts(name, kind, nullable != _NO_NULLS, None if default == "NULL" else default)


Place = tuple[str, "str | None", "str | None"]


def _keys(db: pyodbc.Connection, place: Place) -> list[Constraint]:
    found, primary = [], _known(db, lambda cursor: cursor.primaryKeys(*place))
    if primary:
        own = [row[3] for row in sorted(primary, key=lambda row: row[4])]
        found.append(Constraint(ConstraintKind.PRIMARY_KEY, primary[0][5] or "", own))
    indexes: dict[str, list[Row]] = {}
    for row in _known(db, lambda cursor: cursor.statistics(*place, True)):
        if row[6] != _TABLE_STATISTICS and row[8]:
            indexes.setdefault(row[5], []).append(row)
    for name, rows in indexes.items():
        own = [row[8] for row in sorted(rows, key=lambda row: row[7])]
        if not found or (own != found[0].columns and name != found[0].name):
            found.append(Constraint(ConstraintKind.UNIQUE, name, own))
    return found


def _foreign(db: pyodbc.Connection, place: Place) -> list[Constraint]:
    name, catalog, schema = place
    asked = {"foreignTable": name, "foreignCatalog": catalog, "foreignSchema": schema}
    keys: dict[tuple[str, Table], list[Row]] = {}
    for row in _known(db, lambda cursor: cursor.foreignKeys(**asked)):
        other = Table(row[0] or "", row[1] or "", row[2])
        keys.setdefault((row[11] or "", other), []).append(row)
    found = []
    for (key, other), unsorted in keys.items():
        rows = sorted(unsorted, key=lambda row: row[8])
        own, referenced = [row[7] for row in rows], [row[3] for row in rows]
        found.append(Constraint(ConstraintKind.FOREIGN_KEY, key, own, "", other, referenced))
    return found


def _known(db: pyodbc.Connection, ask: Callable[[pyodbc.Cursor], object]) -> list[Row]:
    """Nothing if the driver has no such function."""
    try:
        return _rows(db, ask)
    except pyodbc.Error:
        return []
