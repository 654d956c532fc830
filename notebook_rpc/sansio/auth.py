"""Who may talk to the server, judged by the Host and Origin of a request.

A page in the user's own browser can reach a loopback server. Two checks keep it out:
Host must be a name that is ours, which stops DNS rebinding, where an attacker's name
resolves to 127.0.0.1; and Origin, which browsers add and pages cannot forge, must be ours,
loopback, or allowed. Neither says who the user is: that is what tokens are for.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Access:
    """The rules of one server. Host names are compared without port and case.

    ``hosts`` are names besides loopback, the bound address among them; ``origins`` are
    exactly as browsers send them (``https://app.example:8443``), or "null".
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def refusal(self, host: str | None, origin: str | None) -> str | None:
        """Why a request is refused, in words for the log, or None when it may pass.

        A request without Host can only be HTTP/1.0, which no browser speaks.
        """
        if host is not None and not self._is_ours(host):
            name = _hostname(host) or host
            return f"Host {host!r} is not ours (if it should be: --allowed-host {name!r})"
        if origin is not None and not self.allows_origin(origin, host):
            return f"Origin {origin!r} is not allowed (if it should be: --cors-origin {origin!r})"
        return None

    def allows_origin(self, origin: str, host: str | None) -> bool:
        """Whether pages of *origin* may use a server that was addressed as *host*."""
        if origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False
        return _is_loopback(parts.hostname) or (host is not None and parts.netloc == host.lower())

    def _is_ours(self, host: str) -> bool:
        name = _hostname(host)
        return name is not None and (name in self.hosts or _is_loopback(name))


def _hostname(authority: str) -> str | None:
    """The name in a Host header, lower case and without port and brackets; None if malformed."""
    try:
        parts = urlsplit(f"//{authority}")
        parts.port  # noqa: B018  # raises if it is no number
    except ValueError:
        return None
    if parts.netloc != authority or parts.username is not None:
        return None
    return parts.hostname


def _is_loopback(name: str | None) -> bool:
    """127.0.0.0/8, ::1, localhost, and names below localhost (RFC 6761, 6.3)."""
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
