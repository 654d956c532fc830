"""Which handler answers a method on a path.

Paths match to the letter. A clash is found when the table is made, not when a request
happens to meet it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


class RouteConflict(ValueError):
    """Two routes answer the same method on the same path."""


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """The path exists, but not for this method; ``allow`` is the Allow header's value."""

    allow: str


class RoutingTable(Generic[T]):
    """What every method on every path leads to."""

    def __init__(self, routes: Iterable[tuple[str, str, T]]) -> None:
        """*routes* are method, path and where they lead.

        Raises:
            RouteConflict: the message names the method and the path.
        """
        self._paths: dict[str, dict[str, T]] = {}
        for method, path, target in routes:
            methods = self._paths.setdefault(path, {})
            if method in methods:
                raise RouteConflict(f"two routes answer {method} {path}")
            methods[method] = target

    def find(self, method: str, path: str) -> T | NotAllowed | None:
        """The target, or why there is none: None means that the path does not exist.

        HEAD is answered wherever GET is (RFC 9110, 9.3.2); OPTIONS is not looked up here.
        """
        methods = self._paths.get(path)
        if methods is None:
            return None
        target = methods.get(method)
        if target is None and method == "HEAD":
            target = methods.get("GET")
        return NotAllowed(self.allow(path)) if target is None else target

    def allow(self, path: str) -> str:
        """The Allow header's value for a path: every method it answers, OPTIONS included."""
        methods = {*self._paths.get(path, ()), "OPTIONS"}
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods))
