"""A connection of a module of PEP 249 that can stop a statement.

It refuses to raise, whatever the module does, and to stop a statement that was not meant.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from notebook_rpc_drivers._dbapi_connection import Connection
from notebook_rpc_drivers._dbapi_facts import Kill

if TYPE_CHECKING:
    from notebook_rpc_drivers.dbapi import Database

logger = logging.getLogger(__name__)


class Stoppable(Connection):
    """A connection whose module can stop a statement."""

    def __init__(self, database: Database, raw: Any) -> None:
        super().__init__(database, raw)
        self._number: object = None
        if isinstance(database.stop, Kill):
            with self.calling():
                ((self._number,),) = self._rows_of(database.stop.identify)

    def interrupt(self) -> None:
        # Held so long, no statement can begin or end: none is hit that was not meant.
        with self._guard:
            if self._stoppable and not self._closed:
                self._interrupted = True
                self._stop(self._running)

    def _stop(self, cursor: Any) -> None:
        """Make the database stop what runs on this connection. Raises nothing."""
        stop = self._database.stop
        try:
            if isinstance(stop, Kill):
                self._database.tell(stop.sql.format(self._number))
            elif stop is not None:
                owner, _, method = stop.rpartition(".")
                getattr(cursor if owner == "cursor" else self._raw, method)()
        except Exception:  # a module of which we know nothing; the caller tries again
            logger.debug("cannot interrupt a statement", exc_info=True)
