"""What others NOTIFY on one channel of PostgreSQL, on a connection of its own.

It refuses to wait: its socket says when there is something to be had. Through a pooler that lends
connections for one transaction only (pgbouncer, in that mode) nothing will come.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from notebook_rpc.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection, Notify

_MOST: Final = 1000  # different texts; beyond these, it is as good as any


class Listener:
    def __init__(self, connection: Connection[Any], channel: str) -> None:
        """*connection* is in autocommit mode, and closed with this."""
        self._connection = connection
        self._heard: dict[str, None] = {}  # in order
        # From now on: with the answer to LISTEN, the first notices may come.
        connection.add_notify_handler(self._hear)
        try:
            with _unavailable():
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        except BaseException:
            connection.close()
            raise

    def fileno(self) -> int:
        with _unavailable():
            return self._connection.pgconn.socket

    def take(self) -> list[str]:
        server = self._connection.pgconn
        with _unavailable():
            server.consume_input()
            while (notice := server.notifies()) is not None:
                self._note(notice.extra.decode(errors="replace"))
        heard, self._heard = list(self._heard), {}
        return heard

    def close(self) -> None:
        self._connection.close()

    def _hear(self, notice: Notify) -> None:
        self._note(notice.payload)

    def _note(self, text: str) -> None:
        self._heard[text if len(self._heard) < _MOST else ""] = None


@contextmanager
def _unavailable() -> Iterator[None]:
    """Whatever fails here, the connection is of no use any more."""
    try:
        yield
    except psycopg.Error as exc:
        raise DatabaseUnavailable(str(exc).strip()) from exc
