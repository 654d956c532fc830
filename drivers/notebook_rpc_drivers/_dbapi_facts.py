"""What PEP 249 leaves open, module by module: a table, and the few words it needs.

A module that is not in the table is asked for what it has (an ``autocommit``, a ``cancel``), and
treated with caution otherwise. Nothing here imports a module or touches a connection by itself.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from notebook_rpc.model import Transaction
from notebook_rpc.sansio.sqltext import (
    BLOCK,
    MYSQL,
    ORACLE,
    POSTGRES,
    SQLITE,
    STANDARD,
    TSQL,
    Dialect,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from notebook_rpc.sansio.placeholders import Paramstyle


class Begin(enum.Enum):
    """What BEGIN, COMMIT and ROLLBACK are to a module."""

    SENT = "sent to the database: the module is in autocommit mode and stays there"
    SWITCHED = "the module's autocommit, off and on again, and its commit() and rollback()"
    HELD_BACK = "commit() is called behind every statement, except between them"
    NOTHING = "the database has no transactions, or the module does not let us have them"


class Catalog(enum.Enum):
    """Where tables and columns are written down. UNKNOWN: find out by asking."""

    POSTGRES, MYSQL, SQLITE, STANDARD = "pg_catalog", "mysql", "sqlite_master", "standard"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Kill:
    """Another connection stops a statement: *sql*, with the number that *identify* gave."""

    identify: str
    sql: str


@dataclass(frozen=True)
class Facts:
    """About one module; ``connection`` is always the module's own."""

    package: str = ""
    """What pip installs to have it."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """What connect() calls our username, password, host, port or database, where its signature
    does not tell."""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """For connect(), unless they are given."""
    dialect: Dialect = STANDARD
    style: Paramstyle | None = None
    """Of placeholders, where the module's own word is not true."""
    doubles_percents: bool = False
    """With parameters, "%" outside of quotes has to be "%%", whatever the style."""
    begin: Begin | None = None
    """None: SWITCHED if there is an autocommit to set, else HELD_BACK."""
    catalog: Catalog = Catalog.UNKNOWN
    reads_all: bool = False
    """Executing reads the whole result: nothing is to come from the database after."""
    busy: bool = False
    """While rows are to come, the connection can do nothing else."""
    cursor: Callable[[Any, Any], Any] | None = None
    """From module and connection to a cursor that streams, where the usual one does not."""
    stop: str | Kill | None = None
    """The connection's method that stops its statement from another thread, or "cursor." and the
    cursor's. "": there is none. None: take the connection's interrupt or cancel, if it has one.
    A cursor's cancel is not taken unasked: it may talk over the socket that is in use."""
    state: Callable[[Any], Transaction] | None = None
    """None: it is what our own BEGIN and COMMIT have left."""
    is_dead: Callable[[Any], bool] | None = None
    """Whether the connection is lost, after an error. None: try a statement."""
    adbc: bool = False
    """Its rows are Arrow."""


def _psycopg_state(connection: Any) -> Transaction:
    # libpq's numbers: 0 idle, 1 active, 2 in a transaction, 3 in a failed one, 4 unknown.
    return {1: Transaction.OPEN, 2: Transaction.OPEN, 3: Transaction.FAILED}.get(
        int(connection.info.transaction_status), Transaction.NONE
    )


def _pg8000_state(connection: Any) -> Transaction:
    # It keeps the letter of ReadyForQuery to itself.
    status = getattr(connection, "_transaction_status", b"I")
    return {b"T": Transaction.OPEN, b"E": Transaction.FAILED}.get(status, Transaction.NONE)


def _mysql_state(connection: Any) -> Transaction:
    # SERVER_STATUS_IN_TRANS, which also tells of DDL that has committed.
    return Transaction.OPEN if connection.server_status & 1 else Transaction.NONE


def _in_transaction(connection: Any) -> Transaction:
    return Transaction.OPEN if connection.in_transaction else Transaction.NONE


def _streaming_mysql(module: Any, connection: Any) -> Any:
    return connection.cursor(module.cursors.SSCursor)


_KILL: Final = Kill("select connection_id()", "kill query {}")
_CANCEL: Final = Kill("select pg_backend_pid()", "select pg_cancel_backend({})")
_MYSQL: Final = Facts(dialect=MYSQL, begin=Begin.SENT, catalog=Catalog.MYSQL, busy=True, stop=_KILL)
_POSTGRES: Final = Facts(
    dialect=POSTGRES, begin=Begin.SENT, catalog=Catalog.POSTGRES, reads_all=True
)
_SQLITE: Final = Facts(dialect=SQLITE, begin=Begin.SENT, catalog=Catalog.SQLITE)
# Their strings have backslashes, their names backticks; "#" is no comment and "--" always is.
_HIVE: Final = Dialect(backslashes=True, backticks=True)
_SCRIPTED: Final = Dialect(backslashes=True, dollar_quotes=True, wholes=f"DECLARE|{BLOCK}")

FACTS: Final[Mapping[str, Facts]] = {
    "sqlite3": replace(
        _SQLITE,
        arguments={"check_same_thread": False, "isolation_level": None},
        stop="interrupt",
        state=_in_transaction,
        is_dead=lambda _: False,
    ),
    "pymysql": replace(
        _MYSQL,
        package="PyMySQL",
        cursor=_streaming_mysql,
        state=_mysql_state,
        is_dead=lambda connection: not connection.open,
    ),
    "MySQLdb": replace(_MYSQL, package="mysqlclient", cursor=_streaming_mysql),
    "mysql.connector": replace(
        _MYSQL,
        package="mysql-connector-python",
        state=_in_transaction,
        is_dead=lambda connection: not connection.is_connected(),
    ),
    "mariadb": replace(_MYSQL, package="mariadb", arguments={"autocommit": True}),
    "psycopg": replace(
        _POSTGRES,
        package="psycopg[binary]",
        renamed={"username": "user", "database": "dbname"},
        # A statement that it has prepared breaks when its tables change.
        arguments={"prepare_threshold": None, "connect_timeout": 10},
        stop="cancel_safe",
        state=_psycopg_state,
        is_dead=lambda connection: bool(connection.closed),
    ),
    "psycopg2": replace(
        _POSTGRES,
        package="psycopg2-binary",
        renamed={"username": "user", "database": "dbname"},
        arguments={"connect_timeout": 10},
        stop="cancel",
        state=_psycopg_state,
        is_dead=lambda connection: bool(connection.closed),
    ),
    "pg8000.dbapi": replace(
        _POSTGRES,
        package="pg8000",
        style="dollar",
        doubles_percents=True,
        stop=_CANCEL,
        state=_pg8000_state,
    ),
    "redshift_connector": replace(
        _POSTGRES, package="redshift-connector", catalog=Catalog.STANDARD, stop=_CANCEL
    ),
    "adbc_driver_sqlite.dbapi": replace(
        _SQLITE,
        package="adbc-driver-sqlite nanoarrow",
        renamed={"database": "uri"},
        arguments={"autocommit": True},
        adbc=True,
        is_dead=lambda _: False,
    ),
    "adbc_driver_postgresql.dbapi": replace(
        _POSTGRES,
        package="adbc-driver-postgresql nanoarrow",
        arguments={"autocommit": True},
        adbc=True,
        style="dollar",
        reads_all=False,
        busy=True,
        stop="adbc_cancel",
    ),
    "duckdb": Facts(package="duckdb", dialect=POSTGRES, begin=Begin.SENT, stop="interrupt"),
    "oracledb": Facts(
        package="oracledb",
        dialect=ORACLE,
        renamed={"username": "user", "database": "service_name"},
        stop="cancel",
    ),
    "pymssql": Facts(package="pymssql", dialect=TSQL, renamed={"host": "server"}, busy=True),
    "trino.dbapi": Facts(
        package="trino",
        begin=Begin.NOTHING,
        renamed={"username": "user", "database": "catalog"},
        stop="cursor.cancel",
    ),
    "pyhive.hive": Facts(
        package="PyHive[hive-pure-sasl]", dialect=_HIVE, begin=Begin.NOTHING, stop=""
    ),
    "pyhive.presto": Facts(
        package="PyHive[presto]", begin=Begin.NOTHING, renamed={"database": "catalog"}
    ),
    "impala.dbapi": Facts(package="impyla", dialect=_HIVE, begin=Begin.NOTHING),
    "databricks.sql": Facts(
        package="databricks-sql-connector",
        stop="cursor.cancel",
        dialect=_HIVE,
        begin=Begin.NOTHING,
        renamed={
            "host": "server_hostname",
            "password": "access_token",
            "database": "catalog",
        },
    ),
    "snowflake.connector": Facts(
        package="snowflake-connector-python",
        dialect=_SCRIPTED,
        renamed={"username": "user", "host": "account"},
        begin=Begin.SENT,
        catalog=Catalog.STANDARD,
    ),
    "clickhouse_connect.dbapi": Facts(
        package="clickhouse-connect", dialect=_HIVE, begin=Begin.NOTHING, reads_all=True
    ),
    "clickhouse_driver.dbapi": Facts(
        package="clickhouse-driver", dialect=_HIVE, begin=Begin.NOTHING
    ),
    "google.cloud.bigquery.dbapi": Facts(
        package="google-cloud-bigquery", dialect=_HIVE, begin=Begin.NOTHING
    ),
}
