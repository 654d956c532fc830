"""Where a database is, as a client may know it: never with what one needs to get in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from notebook_rpc.errors import InvalidParams
from notebook_rpc.model import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST: Final = 100  # characters of a name that a client gives


class Address(msgspec.Struct, frozen=True):
    """In the words of SQLAlchemy; ``driver`` is what a URL begins with, ``dialect`` that without
    the name of a module."""

    dialect: str
    host: str | None = None
    port: int | None = None
    username: str | None = None
    database: str | None = None
    driver: str = ""


def address(scheme: str, properties: Mapping[str, str]) -> Address:
    """*properties* are those of ``urls.read``."""
    port = properties.get("port", "")
    return Address(
        scheme.partition("+")[0],
        properties.get("host") or properties.get("DSN") or None,
        int(port) if port.isascii() and port.isdecimal() else None,
        properties.get("username") or None,
        properties.get("database") or None,
        scheme,
    )


def key(context: str, name: str) -> str:
    """What ``services.connections.Connections`` calls the connection *name* of *context*."""
    return name if context == DEFAULT else f"{context}/{name}"


def context_and_name(key: str) -> tuple[str, str]:
    """The reverse of ``key``."""
    context, slash, name = key.rpartition("/")
    return (context, name) if slash else (DEFAULT, key)


def check_name(name: str, what: str) -> None:
    """
    Raises:
        InvalidParams: *name* cannot be that of a connection or a context.
    """
    if not re.fullmatch(r"[\w.-]+", name) or len(name) > LONGEST or set(name) == {"."}:
        raise InvalidParams(f"the {what} must be letters, digits, _ . and - (at most {LONGEST})")
