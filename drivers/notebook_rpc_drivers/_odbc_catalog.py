"""Tables and columns over ODBC: by SQLTables and SQLColumns, or by queries where those fall short.

It compares names itself: in ODBC they are patterns, and not every driver looks at all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from notebook_rpc.model import Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyodbc

    from notebook_rpc_drivers._odbc_kinds import Dbms


def tables(db: pyodbc.Connection, dbms: Dbms, *, views: bool) -> list[Table]:
    """Sorted, without those of the system."""
    if dbms.catalog is None:
        found = _sql_tables(db, views=views)
    else:
        query = dbms.catalog.views if views else dbms.catalog.tables
        found = [Table(*row) for row in select(db, dbms, query)]
    return sorted(table for table in found if not _is_systems(dbms, table))


def columns(db: pyodbc.Connection, dbms: Dbms, *wanted: str) -> list[Column]:
    """In table order; *wanted* are a catalog, a schema and a table, each "" for any. The system's
    own only where the catalog or the schema is named."""
    if dbms.catalog is None:
        found = _sql_columns(db, wanted[-1])
    else:
        query, values = dbms.catalog.columns, []
        for name, value in zip(dbms.catalog.names, wanted, strict=True):
            if name and value:
                query += f" and {name} = ?"
                values.append(value)
        rows = select(db, dbms, f"{query} order by {dbms.catalog.order}", values)
        found = [Column(*row) for row in rows]
    asked = any(wanted[:2])
    return [
        column
        for column in found
        if (asked or not _is_systems(dbms, column))
        and all(
            want in ("", has)
            for want, has in zip(wanted, (column.catalog, column.schema, column.table), strict=True)
        )
    ]


def select(
    db: pyodbc.Connection, dbms: Dbms, query: str, values: Sequence[str] = ()
) -> list[tuple[Any, ...]]:
    """All rows of a query of ours."""
    dbms.before(db, query)
    cursor = db.cursor()
    try:
        cursor.execute(query, *values)
        return list(map(tuple, cursor.fetchall()))
    finally:
        cursor.close()


def _sql_tables(db: pyodbc.Connection, *, views: bool) -> list[Table]:
    cursor = db.cursor()
    try:
        return [
            Table(catalog or "", schema or "", name)
            for catalog, schema, name, kind, *_ in cursor.tables()
            if ("VIEW" in kind.upper()) == views and "SYSTEM" not in kind.upper()
        ]
    finally:
        cursor.close()


def _sql_columns(db: pyodbc.Connection, table: str) -> list[Column]:
    cursor = db.cursor()
    try:
        return [
            Column(catalog or "", schema or "", name, column, kind or "")
            for catalog, schema, name, column, _, kind, *_ in cursor.columns(pattern(db, table))
        ]
    finally:
        cursor.close()


def pattern(db: pyodbc.Connection, table: str) -> str | None:
    """For SQLColumns; it may fit other tables, too. None is any."""
    # Not every driver can be given a name that is not ASCII.
    found, escape = table if table.isascii() else "", db.searchescape
    for special in (escape, "%", "_") if escape else ():
        found = found.replace(special, escape + special)
    return found or None


def _is_systems(dbms: Dbms, owner: Table | Column) -> bool:
    return bool({owner.catalog.lower(), owner.schema.lower()} & dbms.system)
