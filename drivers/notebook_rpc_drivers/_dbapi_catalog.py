"""Tables, views and columns, asked for in SQL: PEP 249 has no word for them.

A database is asked as its facts say, or in the way that it answers: the information schema of
the SQL standard, then SQLite's own tables. One that knows neither has no catalog here.
"""

# ruff: noqa: S608  # every piece of SQL is our own, but for one name, which is quoted

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from notebook_rpc.errors import NotSupported, QueryError
from notebook_rpc.model import Column, Table
from notebook_rpc_drivers._dbapi_facts import Catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Ask: TypeAlias = Callable[[str, Sequence[str]], list[Any]]
    """Runs a query with parameters for its question marks; all its rows."""

_POSTGRES_OWN = """
    n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_toast%'
    and (n.nspname not like 'pg\\_temp%' or n.oid = pg_catalog.pg_my_temp_schema())"""
_POSTGRES_TABLES = f"""
    select current_database()::text, n.nspname::text, c.relname::text
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ({{kinds}}) and {_POSTGRES_OWN}"""
_MYSQL_OWN = "table_schema not in ('information_schema', 'mysql', 'performance_schema', 'sys')"
_STANDARD_OWN = "lower(table_schema) not in ('information_schema', 'pg_catalog')"

# For each: tables, views, and columns, where a filter follows. Queries for tables have three
# columns, that for columns five and the order.
_QUERIES: Final[Mapping[Catalog, tuple[str, str, str, str]]] = {
    Catalog.POSTGRES: (
        _POSTGRES_TABLES.format(kinds="'r', 'p', 'f'"),
        _POSTGRES_TABLES.format(kinds="'v', 'm'"),
        f"""select current_database()::text, n.nspname::text, c.relname::text, a.attname::text,
            pg_catalog.format_type(a.atttypid, a.atttypmod)
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        join pg_catalog.pg_attribute a on a.attrelid = c.oid
        where c.relkind in ('r', 'p', 'f', 'v', 'm') and a.attnum > 0 and not a.attisdropped
        and {_POSTGRES_OWN}
        order by n.nspname, c.relname, a.attnum""",
        "current_database()::text|n.nspname|c.relname",
    ),
    Catalog.MYSQL: (
        f"""select '', table_schema, table_name from information_schema.tables
        where table_type not like '%VIEW%' and {_MYSQL_OWN}""",
        f"""select '', table_schema, table_name from information_schema.tables
        where table_type like '%VIEW%' and {_MYSQL_OWN}""",
        f"""select '', table_schema, table_name, column_name, column_type
        from information_schema.columns where {_MYSQL_OWN}
        order by table_schema, table_name, ordinal_position""",
        "''|table_schema|table_name",
    ),
    Catalog.STANDARD: (
        f"""select table_catalog, table_schema, table_name from information_schema.tables
        where table_type not like '%VIEW%' and {_STANDARD_OWN}""",
        f"""select table_catalog, table_schema, table_name from information_schema.tables
        where table_type like '%VIEW%' and {_STANDARD_OWN}""",
        f"""select table_catalog, table_schema, table_name, column_name, data_type
        from information_schema.columns where {_STANDARD_OWN}
        order by table_catalog, table_schema, table_name, ordinal_position""",
        "table_catalog|table_schema|table_name",
    ),
}


def find(ask: Ask) -> Catalog:
    """Which catalog answers.

    Raises:
        NotSupported: none does.
    """
    for catalog, query in (
        (Catalog.STANDARD, "select table_name from information_schema.tables where 1 = 0"),
        (Catalog.SQLITE, "select name from sqlite_master where 1 = 0"),
    ):
        try:
            ask(query, ())
        except QueryError:
            continue
        return catalog
    raise NotSupported("the database has no information schema, so its tables are not known")


def tables(catalog: Catalog, ask: Ask, *, views: bool) -> list[Table]:
    """Sorted."""
    if catalog is Catalog.SQLITE:
        return _sqlite_tables(ask, "view" if views else "table")
    query = _QUERIES[catalog][1 if views else 0]
    return sorted(Table(*map(_text, row)) for row in ask(query, ()))


def columns(catalog: Catalog, ask: Ask, *names: str) -> list[Column]:
    """Of the catalog, schema and table of these *names*, where they are not ""."""
    if catalog is Catalog.SQLITE:
        return _sqlite_columns(ask, *names)
    _, _, query, keys = _QUERIES[catalog]
    given = [(key, name) for key, name in zip(keys.split("|"), names, strict=True) if name]
    head, order, tail = query.rpartition("order by")
    conditions = "".join(f"and {key} = ? " for key, _ in given)
    found = ask(f"{head}{conditions}{order}{tail}", [name for _, name in given])
    return [Column(*map(_text, row)) for row in found]


def _text(value: object) -> str:
    """MySQL has bytes in places, and catalogs may be NULL."""
    return value.decode() if isinstance(value, bytes) else "" if value is None else str(value)


def _sqlite_tables(ask: Ask, kind: str) -> list[Table]:
    found = []
    for _, schema, _ in ask("pragma database_list", ()):
        quoted = schema.replace('"', '""')
        query = rf"""select name from "{quoted}".sqlite_master
            where type = ? and name not like 'sqlite\_%' escape '\'"""
        found += [Table("", schema, name) for (name,) in ask(query, [kind])]
    return sorted(found)


def _sqlite_columns(ask: Ask, catalog: str, schema: str, table: str) -> list[Column]:
    query = "select name, type from pragma_table_xinfo(?, ?) where hidden <> 1 order by cid"
    found = []
    owners = _sqlite_tables(ask, "table") + _sqlite_tables(ask, "view") if not catalog else []
    for owner in sorted(owners):
        if schema in ("", owner.schema) and table in ("", owner.table):
            try:
                rows = ask(query, [owner.table, owner.schema])
            except QueryError:
                continue  # a view of a table that is gone must not hide all the others
            found += [Column("", owner.schema, owner.table, *map(_text, row)) for row in rows]
    return found
