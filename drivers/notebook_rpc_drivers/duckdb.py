"""DuckDB, inside this process: one database, one cursor of it for each session.

What it refuses: to read Python variables from SQL.

The text differs from the table of ``sansio/values.py`` in what DuckDB writes as it is: a
timestamp has a blank for its T, an interval reads ``1 month 2 days``; inside nested values
blobs keep DuckDB's escapes, short decimals lose their trailing zeros, and the decimals of a
VARIANT are doubles. Properties are ``database`` (a path; none or ":memory:" is
a database in memory), those of ``_duckdb_extras``, and DuckDB's own options: ``threads``,
``memory_limit``, ``access_mode``.

Where files are bounded to some folders, the engine does it, and locks its settings, but for those
of ``_UNLOCKED``. Its own database, that one's log and its folder for what does not fit into
memory stay within reach. It follows links before it compares, but drops ``link/..`` before that, so
that a link to a folder may be a way out: folders with such a link are refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import duckdb

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams
from notebook_rpc_drivers._duckdb_connection import Connection
from notebook_rpc_drivers._duckdb_extras import extras_of
from notebook_rpc_drivers._duckdb_read_only import ReadOnlyConnection
from notebook_rpc_drivers._duckdb_shapes import Shapes
from notebook_rpc_drivers._duckdb_sql import translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

C = TypeVar("C", bound=Connection)

# What bounds files, and so is not for properties where folders are given.
_BOUNDS = {"enable_external_access", "allowed_directories", "allowed_paths"}
_BOUNDS |= {"lock_configuration", "allowed_configs"}
# What a session may set all the same: its own, and of no use to reach files.
_UNLOCKED: Final = ("enable_progress_bar", "enable_progress_bar_print", "TimeZone", "Calendar")


class Database:
    def __init__(
        self, path: str, config: Mapping[str, str], folders: Sequence[Path] | None = None
    ) -> None:
        """Its files are in *folders* only, None for anywhere."""
        self._path = path
        self._folders = folders
        self._shapes = Shapes()
        self._read_only = config.get("access_mode", "").lower() == "read_only"
        # A SELECT from a name that is no table would look for a variable of that name in us.
        extras, config = extras_of({"python_enable_replacements": "false", **config})
        if not self._in_memory:
            _refuse_what_is_no_file(path)
        if folders is not None:
            _refuse_ways_out(folders)
        try:
            self._root = duckdb.connect(path, config=dict(config))
            ((name,),) = self._root.execute("SELECT system.main.current_database()").fetchall()
            self._name = str(name).replace('"', '""')
            extras.add(self._root)
            if folders is not None:
                self._shut(folders)
        except duckdb.Error as exc:
            _blame_an_option({**config, **extras.last})
            raise DatabaseUnavailable(_about_a_lock(str(exc))) from exc

    @property
    def description(self) -> str:
        return "DuckDB in memory" if self._in_memory else f"DuckDB {self._path}"

    @property
    def _in_memory(self) -> bool:
        return self._path.startswith(":memory:")

    def connect(self) -> Connection:
        # The access mode is about databases. COPY would write any file in the folders.
        if self._read_only and self._folders is not None:
            return self.connect_read_only()
        return self._connected(Connection)

    def connect_read_only(self) -> ReadOnlyConnection:
        return self._connected(ReadOnlyConnection)

    def _connected(self, kind: type[C]) -> C:
        try:
            return kind(self._root, self._shapes)
        except duckdb.Error as exc:
            raise DatabaseUnavailable(str(exc)) from exc

    def _shut(self, folders: Sequence[Path]) -> None:
        """Reach no file outside of *folders*, whoever asks for it, for as long as it is open."""
        # Not by the configuration it is opened with: there it takes no lists.
        for setting, value in (
            ("allowed_directories", _listed(map(str, folders))),
            ("enable_external_access", "false"),
            ("allowed_configs", _listed(_UNLOCKED)),
            ("lock_configuration", "true"),
        ):
            self._root.execute(f"SET GLOBAL {setting} = {value}")

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


def _refuse_ways_out(folders: Sequence[Path]) -> None:
    """Raise for a link in *folders* by which the engine could be led outside: what it takes for
    ``a/link/../..`` may climb as far as ``link`` lies below a folder, so that the link must lead
    at least as far below one."""
    for folder in folders:
        for parent, names, _ in os.walk(folder):
            for link in (Path(parent, name) for name in names):
                if not link.is_symlink():
                    continue
                target, depth = link.resolve(), len(link.relative_to(folder).parts)
                ends = (each for each in folders if target.is_relative_to(each))
                if all(len(target.relative_to(each).parts) < depth for each in ends):
                    raise InvalidParams(
                        f"files in {folder} cannot be allowed: its link {link} is a way out of it"
                    )


def _listed(texts: Iterable[str]) -> str:
    quoted = ("'" + text.replace("'", "''") + "'" for text in texts)
    return f"[{', '.join(quoted)}]"


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
        except (duckdb.CatalogException, duckdb.OutOfMemoryException):
            continue  # access_mode=READ_ONLY, which makes no sense in memory; none is left for any
        except duckdb.Error as exc:
            raise InvalidParams(f"property {key}: {exc}") from exc


class _Driver:
    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        self._folders = folders

    def within(self, folders: Sequence[Path], /) -> _Driver:
        return _Driver(folders)

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
            if self._folders is None:
                config.setdefault("enable_external_access", "false")
        if self._folders is not None:
            for key in config:
                if key.lower() in _BOUNDS:
                    raise InvalidParams(f"property {key}: the folders that are allowed decide it")
        return Database(path, config, self._folders)


DRIVER = _Driver()
