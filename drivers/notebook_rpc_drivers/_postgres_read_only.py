"""A read-only connection to PostgreSQL, beside others that may write.

What it refuses: roles that may do what no transaction takes back, and transactions of the user's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg.pq import TransactionStatus

from notebook_rpc.errors import NotSupported, QueryError
from notebook_rpc_drivers._postgres_connection import Connection

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from notebook_rpc_drivers._postgres_sql import Prepared
    from notebook_rpc_drivers._postgres_wire import Values
    from notebook_rpc_drivers.postgres import Database

_TRANSACTIONS = {b"BEGIN", b"START TRANSACTION", b"COMMIT", b"ROLLBACK", b"SAVEPOINT"}
_TRANSACTIONS |= {b"RELEASE", b"PREPARE TRANSACTION"}
# By these a role does more than a transaction can bound. Superusers are members of every role.
_WRITERS: Final = """SELECT rolname FROM pg_catalog.pg_roles
    WHERE rolname IN ('pg_write_server_files', 'pg_execute_server_program')
        AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER') ORDER BY 1"""


class Reader(Connection):
    """One beside others that write. Each statement is a READ ONLY transaction, and undone."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, read_only=True)
        try:
            if roles := [str(name) for (name,) in self.ask(_WRITERS, [])]:
                raise NotSupported(
                    f"the role that logs in may do what {' and '.join(roles)} may, which no"
                    " transaction prevents: read-only users need a role without these rights"
                )
        except BaseException:
            self._wire.close()
            raise

    def _direct(self, prepared: Prepared, values: Values, *, streaming: bool = False) -> PGresult:
        run = self._wire.run_through if streaming else self._wire.run
        self._hidden = True
        self._all(*self._opening(hidden=True))
        got = run(self._wire.encoded(prepared.sql), values)
        self._end_cursor()
        if got.command_status in _TRANSACTIONS:
            raise QueryError("each statement of a read-only user is a transaction of its own")
        return got

    def _end_cursor(self) -> None:
        if self._wire.status != TransactionStatus.IDLE:
            self._wire.run(b"ROLLBACK")
        self._hidden = False
