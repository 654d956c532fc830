"""Connection strings of ODBC: made of properties, shown to people without their secrets.

It knows the few keywords that have other names elsewhere, and refuses none: which keywords there
are, the ODBC driver alone knows, and it ignores those it does not.

Source: the ODBC reference, SQLDriverConnect, "Connection Strings".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from notebook_rpc.errors import InvalidParams

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEYWORDS: Final = {
    "driver": "Driver",
    "host": "Server",
    "port": "Port",
    "username": "UID",
    "password": "PWD",
    "database": "Database",
}
_SHOWN: Final = {"driver", "dsn", "filedsn", "server", "port", "database"}
_SECRET: Final = {"pwd", "password", "accesstoken", "authtoken", "token", "pat"}
_KEYWORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_ .-]*")
_PLAIN: Final = re.compile(r"\w*")
_PAIR: Final = re.compile(r"\s*([^=;]*?)\s*=\s*(\{(?:[^}]|\}\})*+\}|[^;]*)[^;]*(?:;|\Z)")


@dataclass(frozen=True)
class ConnectionString:
    text: str
    pairs: tuple[tuple[str, str], ...]
    """Its keywords, in lower case, and their values."""

    def get(self, keyword: str) -> str | None:
        return next((value for key, value in self.pairs if key == keyword.lower()), None)

    def with_defaults(self, settings: Mapping[str, str]) -> str:
        """The text, and of *settings* those that it does not have itself."""
        missing = {key: value for key, value in settings.items() if self.get(key) is None}
        return _joined(self.text, *(f"{key}={quoted(value)}" for key, value in missing.items()))

    @property
    def description(self) -> str:
        """The keywords that say which database this is. Not "all but the password": a driver may
        call its secrets what it likes."""
        shown = [f"{key}={' '.join(value.split())}" for key, value in self.pairs if key in _SHOWN]
        return self.redacted(f"ODBC {'; '.join(shown)}")

    def redacted(self, text: str) -> str:
        """*text* of somebody else's, who may have repeated a secret."""
        for key, value in self.pairs:
            if key in _SECRET and value:
                text = text.replace(quoted(value), "***").replace(value, "***")
        return text


def connection_string(properties: Mapping[str, str]) -> ConnectionString:
    """Of ``odbc_connect``, a whole connection string, and all others as keywords behind it.

    Raises:
        InvalidParams: a name is no keyword, or given twice.
    """
    text = properties.get("odbc_connect", "")
    given = {key: value for key, value in properties.items() if key != "odbc_connect"}
    for key in _KEYWORDS.keys() & given.keys():
        if not given[key]:
            del given[key]  # a URL without a host, say, and not somebody who wants it empty
    if "\0" in text or any("\0" in value for value in given.values()):
        raise InvalidParams("a property contains a null character")
    if "sql server" in given.get("driver", "").lower() and "port" in given and "host" in given:
        given["host"] += f",{given.pop('port')}"  # SQL Server's own driver knows no Port
    taken = {key for key, _ in _parsed(text)}
    pieces = [text]
    for key, value in given.items():
        keyword = _KEYWORDS.get(key, key)
        if not _KEYWORD.fullmatch(keyword):
            raise InvalidParams(f"property {key}: that is no keyword of a connection string")
        if keyword.lower() in taken:
            raise InvalidParams(f"property {key}: {keyword} is given twice")
        taken.add(keyword.lower())
        # PostgreSQL's driver takes a password that is not in braces for percent-encoded.
        always = keyword == "Driver" or (keyword == "PWD" and not _PLAIN.fullmatch(value))
        pieces.append(f"{keyword}={quoted(value, always=always)}")
    whole = _joined(*pieces)
    return ConnectionString(whole, tuple(_parsed(whole)))


def quoted(value: str, *, always: bool = False) -> str:
    """*value* as it stands behind a keyword. In braces only where it must be: the drivers of
    SQLite take braces for a part of the value."""
    if always or ";" in value or value.startswith("{") or value != value.strip():
        return "{" + value.replace("}", "}}") + "}"
    return value


def _parsed(text: str) -> list[tuple[str, str]]:
    pairs = []
    for key, value in _PAIR.findall(text):
        if value.startswith("{") and value.endswith("}"):
            value = value[1:-1].replace("}}", "}")  # noqa: PLW2901  # that is what it means
        pairs.append((key.lower(), value.strip()))
    return pairs


def _joined(*pieces: str) -> str:
    return ";".join(piece.rstrip("; ") for piece in pieces if piece.rstrip("; "))
