"""What a URL of a client may tell a driver: these properties, and no others.

A list of what is dangerous would never be complete: of libpq ``passfile`` and ``service`` read
secrets of this server's user, of DuckDB ``enable_external_access`` undoes ``--read-only``, and each
ODBC driver has keywords of its own that load libraries or write files. So the few are named that
say where a database is and who wants in. Who needs more has ``--connection``.

What it refuses: to judge what values mean, but for those of ODBC that are no mere values, because
drivers do not agree where one ends. Drivers that it does not know are not bounded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from notebook_rpc.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PERMITTED: Final = {
    "duckdb": {"database", "access_mode", "async_threads", "memory_limit", "threads"},
    "sqlite": {"database", "mode", "timeout"},
    "postgres": {
        *("host", "port", "username", "user", "password", "database", "dbname"),
        *("sslmode", "connect_timeout", "application_name", "target_session_attrs"),
    },
    # As keywords of a connection string, whatever their case; with them, names of our own.
    "odbc": {
        *("driver", "host", "server", "servername", "port", "database", "db"),
        *("username", "uid", "user", "password", "pwd"),
        *("sslmode", "encrypt", "trustservercertificate", "tds_version", "login_timeout"),
    },
}
_STRING: Final = "odbc_connect"
_PASSWORDS: Final = {"password", "pwd"}

# Drivers of SQLite know no braces, and end a value at any semicolon; so there is none in a value.
_VALUE: Final = r"(?:\{[^{};]*\}|[^{};]*)"
_PAIR: Final = re.compile(rf"([^=;{{}}]*)=\s*({_VALUE})\s*")
_NAME: Final = re.compile(r"\{?[A-Za-z][\w .()+-]*\}?", re.ASCII)
_LIBRARY: Final = re.compile(r"\.(so|dll|dylib|sl|la|bundle)\b", re.IGNORECASE)


def check(engine: str, properties: Mapping[str, str]) -> None:
    """Of the driver *engine*, ``urls.read`` having read the URL, without its references.

    Raises:
        Forbidden: it has a property that no client may give; the message names it.
    """
    if engine == "odbc":
        _check_odbc(properties)
        return
    permitted = _PERMITTED.get(engine)
    if permitted is None:
        return
    for name in properties:
        if name not in permitted:
            raise _refused(name, permitted)


def _check_odbc(properties: Mapping[str, str]) -> None:
    permitted, passwords, drivers = _PERMITTED["odbc"], [], list[str]()
    for name, value in _pairs(properties):
        keyword = name.lower()  # with blanks around it, some drivers would not know it
        if not keyword.isascii() or keyword not in permitted:
            raise _refused(name, permitted)
        # PostgreSQL's driver takes passwords for percent-encoded, and "%00" for none.
        if not re.fullmatch(_VALUE, value) or "%" in value or not value.isprintable():
            raise Forbidden(f"property {name}: with ODBC, a client's has none of ; {{ }} and %")
        if keyword == "driver":
            drivers.append(value.lower())
            if not _NAME.fullmatch(value) or _LIBRARY.search(value):
                raise Forbidden("an ODBC driver must be given by its name, not as a file")
        if keyword in _PASSWORDS:
            passwords.append(value.strip(" {}"))
    # PostgreSQL's driver has libpq find one, and would tell it to any host.
    if not all(passwords) or not (passwords or all("sqlite" in each for each in drivers)):
        raise Forbidden(
            "an ODBC database of a client needs a password of its own, as this server's user may"
            " have one that its driver finds"
        )


def _pairs(properties: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The keywords and values of a connection string, those in ``odbc_connect`` among them."""
    for name, value in properties.items():
        if name != _STRING:
            yield name, value
            continue
        for piece in filter(str.strip, value.split(";")):
            match = _PAIR.fullmatch(piece)
            if match is None:
                raise Forbidden(f"property {_STRING}: not a plain list of KEYWORD=VALUE")
            yield match[1], match[2].strip()


def _refused(name: str, permitted: set[str]) -> Forbidden:
    few = ", ".join(sorted(permitted))
    return Forbidden(f"property {name[:40]!r}: not in a URL of a client, which may have {few}")
