"""Keeping what a user has told us about a database out of what we tell about its failures.

Drivers and databases like to quote what they do not understand, and what they quote may be a
password. Each driver hides what it knows of; this is the net below them.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from notebook_rpc.errors import NotebookError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HIDDEN: Final = "..."
OPEN: Final = frozenset({"host", "port", "username", "database", "module", "driver", "dsn"})
SHORT: Final = 3  # characters; hiding every "on" and "1" would leave nothing to read


@contextmanager
def discreet(properties: Mapping[str, str]) -> Iterator[None]:
    """Raise the block's errors without the values of *properties*, nor the errors they came from.
    Where a database is, is no secret."""
    try:
        yield
    except NotebookError as exc:
        values = [value for key, value in properties.items() if _may_be_secret(key, value)]
        told = type(exc)(without(str(exc), values))
        told.sqlstate, told.position = exc.sqlstate, exc.position
        # Its causes have the same words, and stack traces show them.
        raise told.with_traceback(exc.__traceback__) from None


def _may_be_secret(key: str, value: str) -> bool:
    # ODBC would read "sales;PWD=..." as a name and more.
    is_open = key.lower() in OPEN and ";" not in value
    return key == "password" or (len(value) > SHORT and not is_open)


def without(text: str, values: list[str]) -> str:
    """*text* with each of *values* hidden, however it is quoted, in small or large letters."""
    for value in sorted(filter(None, values), key=len, reverse=True):
        for spelled in (value, repr(value)[1:-1], value.replace("'", "''"), quote(value, safe="")):
            text = re.sub(re.escape(spelled), HIDDEN, text, flags=re.IGNORECASE)
    return text
