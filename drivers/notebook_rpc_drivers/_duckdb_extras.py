"""What a DuckDB database gets before anybody may use it: extensions, and other files.

It comes before the engine is told to reach nothing else, as afterwards neither can be had. An
extension that cannot be had is a warning, since what is there works without; a file is an error.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import duckdb

from notebook_rpc.errors import InvalidParams

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

EXTENSIONS: Final = "extensions"
ATTACH: Final = "attach."
# Which of the engine's own settings would be in the way, in the order to set them in.
_LAST: Final[tuple[str, ...]] = ("enable_external_access", "lock_configuration")


@dataclass(frozen=True, slots=True)
class Extras:
    """*attached* has the path of each file by its name, *last* the settings that come after."""

    extensions: tuple[tuple[str, str], ...]
    attached: Mapping[str, str]
    last: Mapping[str, str]

    def add(self, root: duckdb.DuckDBPyConnection) -> None:
        """Raises ``duckdb.Error``."""
        for name, repository in self.extensions:
            _load(root, name, repository)
        for name, path in self.attached.items():
            quoted = path.replace("'", "''"), name.replace('"', '""')
            root.execute("ATTACH '{}' AS \"{}\"".format(*quoted))
        for key, value in self.last.items():
            root.execute(f"SET GLOBAL {key} = '{value.replace(chr(39), chr(39) * 2)}'")


def extras_of(properties: Mapping[str, str]) -> tuple[Extras, dict[str, str]]:
    """What *properties* ask for, and the rest of them, which are the engine's.

    ``extensions`` are names with commas between them, each with the repository it is from, if it
    is not the engine's own: ``httpfs,h3@community``; ``attach.NAME`` is the path of a file.

    Raises:
        InvalidParams: one of them is malformed.
    """
    rest = dict(properties)
    extensions = tuple(map(_extension, filter(None, rest.pop(EXTENSIONS, "").split(","))))
    names = [key for key in rest if key.startswith(ATTACH)]
    attached = {name.removeprefix(ATTACH): rest.pop(name) for name in names}
    if not extensions and not attached:
        return Extras((), {}, {}), rest
    given = {key.lower(): key for key in rest}
    last = {key: rest.pop(given[key]) for key in _LAST if key in given}
    return Extras(extensions, attached, last), rest


def _extension(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*(\w+)(?:@(\S+))?\s*", text, re.ASCII)
    if not match:
        raise InvalidParams(f"property extensions: {text!r} is not NAME or NAME@REPOSITORY")
    return match[1], match[2] or ""


def _load(root: duckdb.DuckDBPyConnection, name: str, repository: str) -> None:
    try:
        try:
            root.load_extension(name)  # without asking anybody, if it is installed
        except duckdb.Error:
            if repository:
                root.install_extension(name, repository=repository)
            else:
                root.install_extension(name)
            root.load_extension(name)
    except duckdb.Error as exc:
        logger.warning("cannot load the extension %s: %s", name, " ".join(str(exc).split()))
    else:
        logger.info("loaded the extension %s", name)
