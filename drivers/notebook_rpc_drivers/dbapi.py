"""Any database module of PEP 249, by its name.

PEP 249 leaves much to the modules: what autocommit is, how a statement is stopped, which
connection is dead. What we know of the well-known ones is in ``_dbapi_facts.py``; an unknown one
works too, by the letter of PEP 249. Results stream where the module lets them.

What it refuses: to guess. A module that cannot stop a statement has connections without
``interrupt``; a database whose catalog we cannot ask for says so.

Properties: ``module``, what Python imports; the rest are the arguments of its ``connect()``, with
the words of a URL (username, password, host, port, database) in the module's own. Values are
text, or what ``connect()``'s signature says; ``timeout:int=5`` says it aloud (int, float, bool,
str, json). Whoever names a module may run any that is installed: see ``_dbapi_open.py``.
"""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams, NotebookError
from notebook_rpc.sansio.sqltext import POSTGRES
from notebook_rpc_drivers import _dbapi_catalog, _dbapi_open
from notebook_rpc_drivers import _dbapi_words as words
from notebook_rpc_drivers._dbapi_connection import Connection
from notebook_rpc_drivers._dbapi_facts import FACTS, Catalog, Facts, Kill
from notebook_rpc_drivers._dbapi_stop import Stoppable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notebook_rpc_drivers._dbapi_catalog import Ask

logger = logging.getLogger(__name__)


class Database:
    def __init__(
        self,
        name: str,
        arguments: Mapping[str, object],
        secrets: set[str],
        lock: threading.Lock | None,
        module: Any,
    ) -> None:
        self.module = module
        self.facts = FACTS.get(name, Facts())
        self.catalog = self.facts.catalog
        self._name = name
        self._arguments = arguments
        self._secrets = secrets
        self._lock = lock
        self._telling = threading.Lock()
        self._teller: Any = None
        self._spare = self._open()  # so that a wrong address shows at once
        self.stop = _way_to_stop(self._spare, self.facts) if lock is None else None

    @property
    def description(self) -> str:
        shown = [str(self._arguments[key]) for key in _SHOWN if self._arguments.get(key)]
        visible = [each for each in shown if not any(secret in each for secret in self._secrets)]
        return " ".join([self._name, *visible])

    def connect(self) -> Connection:
        raw, self._spare = self._spare, None
        if raw is None:
            raw = self._open()
        try:
            return (Stoppable if self.stop is not None else Connection)(self, raw)
        except NotebookError as exc:
            raw.close()
            raise DatabaseUnavailable(f"{self._name} cannot connect: {exc}") from exc.__cause__

    def close(self) -> None:
        for raw in filter(None, (self._spare, self._teller)):
            with self.turn():
                raw.close()
        self._spare = self._teller = None

    def turn(self) -> AbstractContextManager[object]:
        """A module of threadsafety 0 is called by one thread at a time."""
        return self._lock if self._lock is not None else nullcontext()

    def tell(self, sql: str) -> None:
        """Run *sql* beside all connections, over one that is kept for this. May raise anything."""
        with self._telling:
            raw, self._teller = self._teller, None
            if raw is None or not self._told(raw, sql):
                raw = self._open()
                words.set_autocommit(raw, on=True)
                if not self._told(raw, sql):
                    return
            self._teller = raw

    def _told(self, raw: Any, sql: str) -> bool:
        try:
            cursor = raw.cursor()
            cursor.execute(sql)
            if cursor.description:
                cursor.fetchall()
            cursor.close()
        except Exception:  # it has been idle for too long, or there is nothing to stop
            logger.debug("cannot tell the database %s", sql, exc_info=True)
            with suppress(Exception):  # it is given up
                raw.close()
            return False
        return True

    def find_catalog(self, ask: Ask) -> Catalog:
        if self.catalog is Catalog.UNKNOWN:
            self.catalog = _dbapi_catalog.find(ask)
        return self.catalog

    def arrow_cursor(self, raw: Any) -> Any:
        # Only here, because it needs nanoarrow.
        from notebook_rpc_drivers import _dbapi_adbc  # noqa: PLC0415

        return _dbapi_adbc.Cursor(raw, copies=self.facts.dialect == POSTGRES)

    def _open(self) -> Any:
        with self.turn():
            return _dbapi_open.opened(self.module, self._name, self._arguments, self._secrets)


_SHOWN = ("host", "server", "server_hostname", "account", "port", "database", "dbname", "catalog")


def _way_to_stop(raw: Any, facts: Facts) -> str | Kill | None:
    if facts.stop is not None:
        return facts.stop or None
    found = (name for name in ("interrupt", "cancel") if callable(getattr(raw, name, None)))
    return next(found, None)


class _Driver:
    def __init__(self) -> None:
        # What threadsafety 0 forbids, it forbids in all of the process: two databases of such a
        # module share a lock, and nothing else.
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> Database:
        given = dict(properties)
        name = given.pop("module", "")
        if not name:
            raise InvalidParams("property module is missing: the name of a database module")
        module = _dbapi_open.load(name)
        facts = FACTS.get(name, Facts())
        arguments = _dbapi_open.arguments(module, name, facts, given, read_only=read_only)
        lock = None
        if getattr(module, "threadsafety", 1) == 0:
            lock = self._locks.setdefault(name, threading.Lock())
        return Database(name, arguments, _dbapi_open.secrets_of(given), lock, module)


DRIVER = _Driver()
