"""What the settings refer to, found: drivers, databases' URLs, secrets, tokens, folders.

Whatever can be wrong without asking a database is found out here, before anything is opened.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from notebook_rpc import config, plugins, sharing
from notebook_rpc.driver import SupportsFolders
from notebook_rpc.model import DEFAULT
from notebook_rpc.sansio import urls
from notebook_rpc.sansio.addresses import address
from notebook_rpc.sansio.discretion import discreet
from notebook_rpc.sansio.tokens import Token, Tokens, User
from notebook_rpc.sansio.tokens import parse as parse_tokens
from notebook_rpc.settings import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from notebook_rpc.driver import Database
    from notebook_rpc.sansio.addresses import Address
    from notebook_rpc.settings import Settings

logger = logging.getLogger(__name__)


def tokens(settings: Settings) -> Tokens:
    """The tokens that were given as they are, and those of the file.

    Raises:
        ConfigError: the file cannot be read or understood; the message has no token.
    """
    numbered = enumerate(settings.bearer_token, 1)
    found = [Token.of(text, User(f"bearer token {number}")) for number, text in numbered]
    if settings.bearer_token_file:
        path = Path(settings.bearer_token_file)
        try:
            found += parse_tokens(_read_text(str(path)))
            if path.stat().st_mode & 0o077:
                logger.warning("others can read the tokens in %s; chmod 600 it", path)
        except OSError as exc:
            raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise ConfigError(f"{path}: {exc}") from None
        if not found:
            raise ConfigError(f"there is no token in {path}")
    return Tokens(found)


def openers(settings: Settings) -> dict[str, Callable[[], Database]]:
    """What opens each database, by its name. Whatever can be wrong without asking a database,
    is found out here; what is referred to is read with each try, as it may change.

    Raises:
        ConfigError: a URL, a reference, a driver's name or a folder is wrong.
        DatabaseUnavailable: what a driver needs is not installed.
    """
    named = _named(settings)
    within = folders(settings)
    return {name: _opener(*about, settings.read_only, within) for name, about in named.items()}


def opener(settings: Settings, url: str, more: Mapping[str, str]) -> Callable[[], Database]:
    """What opens the database of *url* with the properties *more*, as ``openers`` does."""
    return _opener(url, more, settings.read_only, folders(settings))


def addresses(settings: Settings) -> dict[str, Address]:
    """Where each database is, by its name. Raises as above."""
    found = {}
    for name, (url, more) in _named(settings).items():
        engine, properties = config.read_url(url)
        scheme = url.partition(":")[0] if urls.is_url(url) else engine
        found[name] = address(scheme, properties | dict(more))
    return found


def engines(settings: Settings) -> dict[str, str]:
    """By what means each database is reached, by its name: that of the driver. Raises as above."""
    return {name: config.read_url(url)[0] for name, (url, _) in _named(settings).items()}


def _named(settings: Settings) -> dict[str, tuple[str, Mapping[str, str]]]:
    """URL and properties of each database."""
    properties = {**settings.properties, **sharing.properties(settings)}
    named: dict[str, tuple[str, Mapping[str, str]]] = {DEFAULT: (settings.url, properties)}
    for each in settings.connection:
        name, _, url = each.partition("=")
        name = name.removeprefix(f"{DEFAULT}/")
        if name in named:
            raise ConfigError(f"there are two connections called {name!r}")
        named[name] = (url, {})
    return named


def folders(settings: Settings) -> list[Path] | None:
    """In which SQL may reach files, without links; None for anywhere."""
    if not settings.allowed_paths:
        return None
    folders = []
    for name in filter(None, settings.allowed_paths):
        try:
            folder = Path(name).expanduser().resolve(strict=True)
        except (OSError, RuntimeError) as exc:
            raise ConfigError(f"--allowed-paths: cannot use {name}: {exc}") from exc
        if not folder.is_dir():
            raise ConfigError(f"--allowed-paths: {name} is no folder")
        folders.append(folder)
    return folders


def _opener(
    url: str, more: Mapping[str, str], read_only: bool, folders: Sequence[Path] | None
) -> Callable[[], Database]:
    scheme, properties = config.read_url(url)
    driver = plugins.load_driver(scheme)
    if folders is not None:
        if not isinstance(driver, SupportsFolders):
            raise ConfigError(
                f"--allowed-paths: nothing would bound what {scheme} reaches; bound it where that"
                " database runs, and leave this out"
            )
        driver = driver.within(folders)

    def opened() -> Database:
        given = properties | dict(more)
        found = urls.resolve(given, os.environ, lambda path: Path(path).read_text())
        with discreet(found):
            return driver.open(found, read_only=read_only)

    return opened


def _read_text(path: str) -> str:
    """Of a file. A pipe would keep us waiting for somebody to write into it."""
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(errno.EINVAL, "not a file")
    return Path(path).read_text("utf-8")
