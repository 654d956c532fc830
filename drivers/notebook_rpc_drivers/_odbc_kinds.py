"""What is special about the ODBC drivers we know: PostgreSQL's, MariaDB's and SQLite's.

ODBC promises more than its drivers keep. What follows was found by trying psqlODBC 13.02,
MariaDB Connector/ODBC 3.1.15 and SQLite ODBC 0.9998; any other driver is taken at its word.

It refuses statements that would kill or block the process: these drivers crash on some rows they
did not expect, and spin for ever on a COPY through the connection.
"""

from __future__ import annotations

import datetime
import re
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pyodbc

from notebook_rpc.errors import NotSupported
from notebook_rpc.sansio.sqltext import (
    MYSQL,
    POSTGRES,
    SQLITE,
    STANDARD,
    TSQL,
    Dialect,
    Kind,
    tokens,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_USE_DECLARE_FETCH: Final = 65539  # psqlODBC's own attribute, pgapifunc.h
_MANY_WORDS: Final = 10_000


def _nothing(_connection: pyodbc.Connection) -> None:
    pass


def _anything(_connection: pyodbc.Connection, _statement: str) -> None:
    pass


@dataclass(frozen=True)
class Dbms:
    """``settings`` are keywords to connect with, unless the user gives others. ``session`` asks
    for the connection's number, and ``stop``, said on another connection, stops what runs there.
    ``aborts``: an error fails the whole transaction, and has to be rolled back. ``system`` are
    catalogs and schemas that hold none of the user's tables."""

    dialect: Dialect = STANDARD
    settings: Mapping[str, str] = field(default_factory=dict)
    streams: bool = True
    aborts: bool = False
    session: str = ""
    stop: str = ""
    system: frozenset[str] = frozenset({"information_schema"})
    catalog: Catalog | None = None
    prepare: Callable[[pyodbc.Connection], None] = _nothing
    before: Callable[[pyodbc.Connection, str], None] = _anything
    """Called with each statement; may refuse it."""
    repair: Callable[[str], str] = str
    """For names and messages that arrive garbled."""
    unsigned: frozenset[str] = frozenset()
    """Types of results that have no sign, although the driver gives them one."""


@dataclass(frozen=True)
class Catalog:
    """Queries to use in place of SQLTables and SQLColumns. Each has a WHERE; ``names`` are what
    to compare with a catalog, a schema and a table, "" for what the database does not have."""

    tables: str
    views: str
    columns: str
    names: tuple[str, str, str]
    order: str


def known(connection: pyodbc.Connection) -> Dbms:
    """What is known of the database behind a fresh *connection*."""
    try:
        name = str(connection.getinfo(pyodbc.SQL_DBMS_NAME)).lower()
        driver = str(connection.getinfo(pyodbc.SQL_DRIVER_NAME)).lower()
    except pyodbc.Error:
        return Dbms()  # it does not say who it is
    if "psqlodbc" in driver:
        return POSTGRES_DBMS
    if "maodbc" in driver:
        return MARIADB_DBMS
    if name == "sqlite":
        return SQLITE_DBMS
    if "sql server" in name:
        return Dbms(TSQL, system=frozenset({"information_schema", "sys"}))
    if name in ("mysql", "mariadb"):
        return Dbms(MYSQL, session=_MYSQL_SESSION, stop=_MYSQL_STOP, system=_MYSQL_SYSTEM)
    return Dbms()


def _words(statement: str, dialect: Dialect, limit: int = _MANY_WORDS) -> list[str]:
    """Words of a statement in capitals, outside of strings and comments; of what is no word, only
    the first, as it stands."""
    found: list[str] = []
    for kind, start, end in tokens(statement, dialect):
        if kind is Kind.WORD or (not found and kind not in (Kind.BLANK, Kind.COMMENT)):
            found.append(statement[start:end].upper())
            if len(found) == limit:
                break
    return found


# PostgreSQL


def _prepare_postgres(connection: pyodbc.Connection) -> None:
    # A GUID comes as text in capitals, unless pyodbc is told otherwise for the whole process.
    connection.add_output_converter(pyodbc.SQL_GUID, lambda raw: uuid.UUID(bytes_le=raw))


def _before_postgres(connection: pyodbc.Connection, statement: str) -> None:
    words = _words(statement, POSTGRES)
    first, rest = words[0], set(words[1:])
    if first == "COPY" and rest & {"STDIN", "STDOUT"}:
        raise NotSupported(
            "PostgreSQL's ODBC driver never comes back from COPY to or from a client"
        )
    # What the driver takes for a SELECT it puts behind DECLARE CURSOR, where PostgreSQL wants
    # nothing that writes.
    streamed = not (first in ("WITH", "SELECT") and rest & _WRITING)
    connection.set_attr(_USE_DECLARE_FETCH, int(streamed))


_WRITING: Final = {"INSERT", "UPDATE", "DELETE", "MERGE", "INTO"}

# Not information_schema: it has no materialized views, and leaves out the numbers in
# numeric(10,2). The driver's SQLTables has no temporary tables.
_PG_FROM: Final = """from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace"""
_PG_WHERE: Final = """where (n.oid = pg_catalog.pg_my_temp_schema()
        or n.nspname not like 'pg\\_%' or n.nspname = 'pg_catalog')"""
_PG_TABLES: Final = (
    f"select pg_catalog.current_database(), n.nspname, c.relname {_PG_FROM} {_PG_WHERE}"
)

POSTGRES_DBMS: Final = Dbms(
    dialect=POSTGRES,
    settings={
        "UseDeclareFetch": "1",  # else a result is read whole, at four times its size
        "Fetch": "1000",  # rows at a time; with the driver's 100 it takes half as long again
        "BoolsAsChar": "0",
        # No savepoint before each statement: a transaction is what it is in PostgreSQL.
        "Protocol": "7.4-0",
    },
    aborts=True,
    session="select pg_catalog.pg_backend_pid()",
    stop="select pg_catalog.pg_cancel_backend({})",
    system=frozenset({"information_schema", "pg_catalog"}),
    catalog=Catalog(
        tables=f"{_PG_TABLES} and c.relkind in ('r', 'p', 'f')",
        views=f"{_PG_TABLES} and c.relkind in ('v', 'm')",
        columns=f"""select pg_catalog.current_database(), n.nspname, c.relname, a.attname,
            pg_catalog.format_type(a.atttypid, a.atttypmod)
            {_PG_FROM} join pg_catalog.pg_attribute a on a.attrelid = c.oid
            {_PG_WHERE} and c.relkind in ('r', 'p', 'f', 'v', 'm')
            and a.attnum > 0 and not a.attisdropped""",
        names=("pg_catalog.current_database()", "n.nspname", "c.relname"),
        order="n.nspname, c.relname, a.attnum",
    ),
    prepare=_prepare_postgres,
    before=_before_postgres,
    unsigned=frozenset({"oid", "xid", "cid"}),
)


# MariaDB and SQLite give any value as it stands in the database, if it is asked for as bytes.
# What their drivers make of it themselves is worse: an INT UNSIGNED of 4294967295 is -1, a time
# loses its fraction, a zero date is NULL.


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _or_text(make: Callable[[str], Any]) -> Callable[[bytes], Any]:
    def convert(raw: bytes) -> Any:
        try:
            return make(raw.decode())
        except (ValueError, ArithmeticError):  # Decimal's error is the latter
            return _text(raw)

    return convert


def _bit(raw: bytes) -> bool:
    return raw not in (b"\0", b"0", b"")


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


_TEXTS: Final = (
    *(pyodbc.SQL_CHAR, pyodbc.SQL_VARCHAR, pyodbc.SQL_LONGVARCHAR),
    *(pyodbc.SQL_WCHAR, pyodbc.SQL_WVARCHAR, pyodbc.SQL_WLONGVARCHAR),
)
_INTEGERS: Final = (
    *(pyodbc.SQL_TINYINT, pyodbc.SQL_SMALLINT, pyodbc.SQL_INTEGER, pyodbc.SQL_BIGINT),
)
_FLOATS: Final = (pyodbc.SQL_REAL, pyodbc.SQL_FLOAT, pyodbc.SQL_DOUBLE)
_DECIMALS: Final = (pyodbc.SQL_DECIMAL, pyodbc.SQL_NUMERIC)
_TIMES: Final = (pyodbc.SQL_TYPE_DATE, pyodbc.SQL_TYPE_TIME, pyodbc.SQL_TYPE_TIMESTAMP)


# MariaDB

_MYSQL_SESSION: Final = "select connection_id()"
_MYSQL_STOP: Final = "kill query {}"
_MYSQL_SYSTEM: Final = frozenset({"information_schema", "mysql", "performance_schema", "sys"})

# The driver decides by the first word whether there will be rows. Where it is wrong, closing the
# statement is a segmentation fault. So these are the ones that it was seen to be right about.
# LOAD is not among them although it has no rows: LOAD DATA LOCAL has the driver send any file
# that our process may read.
_MARIADB_WORDS: Final = frozenset(
    {
        *("ALTER", "ANALYZE", "BEGIN", "CALL", "CHANGE", "CHECK", "CHECKSUM"),
        *("COMMIT", "CREATE", "DEALLOCATE", "DELETE", "DESC", "DESCRIBE", "DO"),
        *("DROP", "EXECUTE", "EXPLAIN", "FLUSH", "GET", "GRANT", "INSERT"),
        *("INSTALL", "KILL", "LOCK", "PREPARE", "PURGE", "RELEASE", "RENAME"),
        *("REPLACE", "RESET", "RESIGNAL", "REVOKE", "ROLLBACK", "SAVEPOINT", "SELECT"),
        *("SET", "SHOW", "SIGNAL", "START", "STOP", "TRUNCATE", "UNINSTALL"),
        *("UNLOCK", "UPDATE", "USE", "WITH"),
    }
)
_PARTITION_ROWS: Final = re.compile(r"\b(?:ANALYZE|CHECK|OPTIMIZE|REPAIR) PARTITION\b")


def _before_mariadb(_connection: pyodbc.Connection, statement: str) -> None:
    words = [word for word in _words(statement.lstrip("( \t\r\n"), MYSQL) if word != "("]
    first = words[0] if words else ""
    if (
        first not in _MARIADB_WORDS
        or words[:2] == ["SET", "STATEMENT"]
        or (first == "ALTER" and _PARTITION_ROWS.search(" ".join(words)))
    ):
        raise NotSupported(
            f"MariaDB's ODBC driver cannot be trusted with {first[:20]!r}: where it is wrong"
            " about there being rows it crashes. a procedure or another driver"
            " may do it"
        )


def _prepare_mariadb(connection: pyodbc.Connection) -> None:
    for kinds, convert in (
        (_TEXTS, _text),
        (_INTEGERS, int),
        (_FLOATS, float),
        (_DECIMALS, _or_text(Decimal)),
        ((pyodbc.SQL_TYPE_DATE,), _or_text(datetime.date.fromisoformat)),
        ((pyodbc.SQL_TYPE_TIME,), _or_text(datetime.time.fromisoformat)),
        ((pyodbc.SQL_TYPE_TIMESTAMP,), _or_text(datetime.datetime.fromisoformat)),
        ((pyodbc.SQL_BIT,), _bit),
    ):
        for kind in kinds:
            connection.add_output_converter(kind, convert)


_MARIADB_TABLES: Final = """select table_schema, '', table_name from information_schema.tables
    where table_type in"""

MARIADB_DBMS: Final = Dbms(
    dialect=MYSQL,
    streams=False,
    session=_MYSQL_SESSION,
    stop=_MYSQL_STOP,
    system=_MYSQL_SYSTEM,
    catalog=Catalog(  # the driver's SQLColumns asks the same, in twice the time
        tables=f"{_MARIADB_TABLES} ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE')",
        views=f"{_MARIADB_TABLES} ('VIEW', 'SYSTEM VIEW')",
        columns="""select table_schema, '', table_name, column_name, column_type
            from information_schema.columns where true""",
        names=("table_schema", "", "table_name"),
        order="table_schema, table_name, ordinal_position",
    ),
    prepare=_prepare_mariadb,
    before=_before_mariadb,
)


# SQLite


def _prepare_sqlite(connection: pyodbc.Connection) -> None:
    # As wide characters, the driver spoils those beyond the Basic Multilingual Plane.
    connection.setencoding("utf-8", pyodbc.SQL_CHAR)
    connection.setdecoding(pyodbc.SQL_CHAR, "utf-8", pyodbc.SQL_CHAR)
    connection.setdecoding(pyodbc.SQL_WCHAR, "utf-8", pyodbc.SQL_CHAR)
    # A column's type is that of its first value, and no other value need have it.
    for kinds, convert in (
        ((*_TEXTS, *_DECIMALS, *_TIMES), _text),
        ((*_INTEGERS, *_FLOATS, pyodbc.SQL_BIT), _or_text(_number)),
    ):
        for kind in kinds:
            connection.add_output_converter(kind, convert)


def _before_sqlite(_connection: pyodbc.Connection, statement: str) -> None:
    words = _words(statement, SQLITE)
    if words[0] == "VALUES" or (words[0] != "CREATE" and "RETURNING" in words):
        raise NotSupported(
            "SQLite's ODBC driver would drop the rows of VALUES and RETURNING; SELECT * FROM"
            " (VALUES ...), or the driver sqlite, has them"
        )


def _repair_sqlite(text: str) -> str:
    """The driver widens each byte of UTF-8 to a character, and puts some more behind the end."""
    text, _, _ = text.partition("\0")
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


_SQLITE_FROM: Final = """from (
        select 'main' as owner, name, type from sqlite_master
        union all select 'temp', name, type from sqlite_temp_master) as m"""
_SQLITE_WHERE: Final = r"where m.name not like 'sqlite\_%' escape '\' and m.type in"
_SQLITE_TABLES: Final = f"select '', m.owner, m.name {_SQLITE_FROM} {_SQLITE_WHERE}"

SQLITE_DBMS: Final = Dbms(
    dialect=SQLITE,
    settings={
        "Timeout": "5000",  # milliseconds to wait for a lock, which cannot be interrupted
    },
    # With StepAPI=1 it would, but then all that is no column of a table comes as text.
    streams=False,
    system=frozenset(),
    catalog=Catalog(  # the driver's own has no temporary tables, and takes three times as long
        tables=f"{_SQLITE_TABLES} ('table')",
        views=f"{_SQLITE_TABLES} ('view')",
        columns=f"""select '', m.owner, m.name, x.name, x.type
            {_SQLITE_FROM}, pragma_table_xinfo(m.name, m.owner) as x
            {_SQLITE_WHERE} ('table', 'view') and x.hidden <> 1""",
        names=("", "m.owner", "m.name"),
        order="m.owner, m.name, x.cid",
    ),
    prepare=_prepare_sqlite,
    before=_before_sqlite,
    repair=_repair_sqlite,
)
