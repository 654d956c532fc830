"""Who a request is from: bearer tokens (RFC 6750), each with a name, and perhaps an end.

Only their digests are kept, so that no stack trace, log or memory dump of ours has a token.
"""

from __future__ import annotations

import base64
import datetime
import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOKEN68 = r"[A-Za-z0-9._~+/-]+=*"  # RFC 7235, 2.1


@dataclass(frozen=True, slots=True)
class User:
    """Whoever sent a request. One who is ``read_only`` gets connections that cannot write."""

    name: str
    read_only: bool = False


ANYBODY: Final = User("anybody")
"""Without tokens all are the same user."""

NOBODY: Final = User("nobody")
"""Who has not shown a token yet."""


@dataclass(frozen=True, slots=True)
class Token:
    """``expires`` is in seconds since 1970, None for never."""

    user: User
    digest: bytes
    expires: float | None = None

    @classmethod
    def of(cls, text: str, user: User, expires: float | None = None) -> Token:
        """The token that is sent as *text*.

        Raises:
            ValueError: HTTP cannot carry it. The message does not repeat it.
        """
        if not re.fullmatch(_TOKEN68, text):
            raise ValueError("a token consists of letters, digits and -._~+/, with = at its end")
        return cls(user, sha256(text.encode()).digest(), expires)


def bearer(authorization: str | None) -> str | None:
    """The token in an Authorization header; None where there is none."""
    match = re.fullmatch(rf"(?i:bearer) +({_TOKEN68})", authorization or "")
    return match[1] if match else None


def of_browser(protocols: str | None, query: str) -> str | None:
    """The token that comes with a WebSocket of a browser, which cannot set headers: in a
    subprotocol, ``bearer.`` and the token in base64url, or as ``token`` in the query."""
    for protocol in (protocols or "").split(","):
        name, _, encoded = protocol.strip().partition(".")
        if name == "bearer":
            padded = encoded + "=" * (-len(encoded) % 4)
            try:
                return base64.b64decode(padded, b"-_", validate=True).decode()
            except ValueError:
                return ""
    return next(iter(parse_qs(query).get("token", ())), None)


def parse(text: str) -> list[Token]:
    """The tokens of a file: a line each, and behind the token what is said of it.

    ``name=NAME``, which logs and sessions go by, ``expires=2027-01-31T00:00:00Z``, and
    ``read-only``. Lines that begin with # are comments.

    Raises:
        ValueError: a line is malformed. The message has its number, and nothing of it.
    """
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            tokens.append(_token(words[0], words[1:], f"token {number}"))
        except ValueError as exc:
            raise ValueError(f"line {number}: {exc}") from None
    names = [token.user.name for token in tokens]
    if len(set(names)) < len(names):
        raise ValueError("two tokens have the same name")
    return tokens


def _token(text: str, said: list[str], name: str) -> Token:
    expires: float | None = None
    read_only = False
    for word in said:
        key, _, value = word.partition("=")
        if key == "name" and value:
            name = value
        elif key == "expires":
            expires = _instant(value)
        elif word == "read-only":
            read_only = True
        else:
            raise ValueError("behind a token may be name=NAME, expires=TIME and read-only")
    return Token.of(text, User(name, read_only), expires)


def _instant(text: str) -> float:
    try:
        instant = datetime.datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError("expires must be a time with an offset, as 2027-01-31T00:00:00Z")
    return instant.timestamp()


class Tokens:
    """The tokens of a server. With none of them everybody may come in."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = tuple(tokens)

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def user(self, token: str | None, now: float) -> User | None:
        """Whose *token* it is; None if nobody's, or if there is none.

        It takes the same time whichever token it is, or nearly is. *now* is in seconds since
        1970.
        """
        if not self._tokens:
            return ANYBODY
        digest = sha256((token or "").encode("utf-8", "replace")).digest()
        found: User | None = None
        for each in self._tokens:
            same = hmac.compare_digest(each.digest, digest)
            if same and (each.expires is None or now < each.expires):
                found = each.user
        return found
