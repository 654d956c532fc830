"""DuckDB, inside this process: one database, one cursor of it for each session.

What it refuses: to read Python variables from SQL.

The text differs from the table of ``sansio/values.py`` in what DuckDB writes as it is: a
timestamp has a blank for its T, an interval reads ``1 month 2 days``; inside nested values
blobs keep DuckDB's escapes, short decimals lose their trailing zeros, and the decimals of a
VARIANT are doubles. Properties are ``database`` (a path; none or ":memory:" is
a database in memory) and DuckDB's own options: ``threads``, ``memory_limit``, ``access_mode``.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import duckdb

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams
from notebook_rpc_drivers._duckdb_connection import Connection
from notebook_rpc_drivers._duckdb_sql import translated

if TYPE_CHECKING:
    from collections.abc import Mapping


class Database:
    def __init__(self, path: str, config: Mapping[str, str]) -> None:
        self._path = path
        self._read_only = config.get("access_mode", "").lower() == "read_only"
        # A SELECT from a name that is no table would look for a variable of that name in us.
        config = {"python_enable_replacements": "false", **config}
        if not self._in_memory:
            _refuse_what_is_no_file(path)
        try:
            self._root = duckdb.connect(path, config=dict(config))
            ((name,),) = self._root.execute("SELECT system.main.current_database()").fetchall()
            self._name = str(name).replace('"', '""')
        except duckdb.Error as exc:
            _blame_an_option(config)
            raise DatabaseUnavailable(_about_a_lock(str(exc))) from exc

    @property
    def description(self) -> str:
        return "DuckDB in memory" if self._in_memory else f"DuckDB {self._path}"

    @property
    def _in_memory(self) -> bool:
        return self._path.startswith(":memory:")

    def connect(self) -> Connection:
        try:
            return Connection(self._root)
        except duckdb.Error as exc:
            raise DatabaseUnavailable(str(exc)) from exc

    def close(self) -> None:
        try:
            if not self._in_memory and not self._read_only:
                self._root.execute(f'CHECKPOINT "{self._name}"')
        except duckdb.BinderException:
            return  # a session has detached it, which wrote it all
        except duckdb.Error as exc:
            raise translated(exc) from exc
        finally:
            self._root.close()


def _refuse_what_is_no_file(path: str) -> None:
    """Raise for a path that DuckDB cannot take, or would wait for until somebody writes to it."""
    try:
        mode = os.stat(path.encode()).st_mode  # noqa: PTH116  # in UTF-8, as DuckDB has it
    except ValueError as exc:  # half a surrogate pair, or a null character
        raise InvalidParams(f"property database: {exc}") from exc
    except OSError:
        return  # DuckDB makes it, or says it better
    if not stat.S_ISREG(mode):
        raise DatabaseUnavailable(f"{path} is not a regular file")


def _about_a_lock(message: str) -> str:
    """What the engine says of who holds the file, with advice that fits us."""
    what, locked, advice = message.partition(" Conflicting lock is held in ")
    if not locked:
        return message
    holder = advice.partition(". ")[0]
    remedy = "it can be opened read-only meanwhile" if "read-only" in advice else "end it first"
    return f"{what} It is held by {holder}: {remedy}"


def _blame_an_option(config: Mapping[str, str]) -> None:
    """Raise for the first option a database in memory refuses too; some errors do not name it."""
    for key, value in config.items():
        try:
            duckdb.connect(":memory:", config={key: value}).close()
        except duckdb.CatalogException:
            continue  # access_mode=READ_ONLY, which makes no sense in memory
        except duckdb.Error as exc:
            raise InvalidParams(f"property {key}: {exc}") from exc


class _Driver:
    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> Database:
        config = {key: value for key, value in properties.items() if key != "database"}
        path = properties.get("database") or ":memory:"
        if read_only:
            if path.startswith(":memory:"):
                raise InvalidParams("a database in memory cannot be read-only: it would stay empty")
            mode = config.setdefault("access_mode", "READ_ONLY")
            if mode.upper() != "READ_ONLY":
                raise InvalidParams(f"property access_mode: {mode} is not read-only")
            # COPY writes files, the database's own among them, whatever the access mode is.
            config.setdefault("enable_external_access", "false")
        return Database(path, config)


DRIVER = _Driver()
