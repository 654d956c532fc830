"""Which target answers a method on a path.

A path is segments between slashes. A segment of a route matches to the letter, or, written
``{name}``, any one segment that is not empty, or, written ``{name...}`` at the route's end, all
that is left of the path, slashes included, be it empty; where several would, the first of these
wins. A clash is found when the table is made, not when a request happens to meet it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

WEBSOCKET: Final = "WEBSOCKET"
"""The method of a request that asks for a WebSocket (a GET, on the wire) and of its routes."""


class RouteConflict(ValueError):
    """Two routes answer the same method on the same path, or one is malformed."""


@dataclass(slots=True)
class Found(Generic[T]):  # made for every request: frozen, it would take three times as long
    """Where a request leads, and what the named segments of its path were."""

    target: T
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """The path exists, but not for this method; ``allow`` is the Allow header's value, and
    ``upgrade`` says that there is nothing but a WebSocket."""

    allow: str
    upgrade: bool = False


@dataclass(slots=True)
class _Node(Generic[T]):
    """A place in the tree of segments: what comes after it, and what ends here."""

    literal: dict[str, _Node[T]] = field(default_factory=dict)
    named: _Node[T] | None = None
    rest: _Node[T] | None = None
    methods: dict[str, T] = field(default_factory=dict)
    names: tuple[str, ...] = ()


class RoutingTable(Generic[T]):
    """What every method on every path leads to. A look-up takes time for the segments of its
    path, not for the routes of the table."""

    def __init__(self, routes: Iterable[tuple[str, str, T]]) -> None:
        """*routes* are method, path and where they lead.

        Raises:
            RouteConflict: the message names the method and the path.
        """
        self._root: _Node[T] = _Node()
        self._literal: dict[str, _Node[T]] = {}  # paths without names: no need to descend
        for method, path, target in routes:
            self._add(method, path, target)

    def _add(self, method: str, path: str, target: T) -> None:
        if not path.startswith("/"):
            raise RouteConflict(f"the path of {method} {path} does not begin with a slash")
        node = self._root
        names: list[str] = []
        segments = path.split("/")
        for number, segment in enumerate(segments, 1):
            if segment.startswith("{") and segment.endswith("...}"):
                if number < len(segments):
                    raise RouteConflict(f"{method} {path} goes on behind {segment}")
                names.append(segment[1:-4])
                node.rest = node.rest or _Node()
                node = node.rest
            elif segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                node.named = node.named or _Node()
                node = node.named
            else:
                node = node.literal.setdefault(segment, _Node())
        if method in node.methods:
            raise RouteConflict(f"two routes answer {method} {path}")
        if node.methods and node.names != tuple(names):
            raise RouteConflict(f"{method} {path} names its segments unlike another route")
        node.names = tuple(names)
        node.methods[method] = target
        if not names:
            self._literal[path] = node

    def find(self, method: str, path: str) -> Found[T] | NotAllowed | None:
        """The target, or why there is none: None means that the path does not exist.

        HEAD is answered wherever GET is (RFC 9110, 9.3.2); OPTIONS is not looked up here.
        """
        found = self._node(path)
        if found is None:
            return None
        node, values = found
        target = node.methods.get(method)
        if target is None and method == "HEAD":
            target = node.methods.get("GET")
        if target is None:
            return NotAllowed(_allow(node.methods), node.methods.keys() == {WEBSOCKET})
        return Found(target, dict(zip(node.names, values, strict=True)) if values else {})

    def allow(self, path: str) -> str | None:
        """The Allow header's value for a path, OPTIONS included; None if it does not exist."""
        found = self._node(path)
        return None if found is None else _allow(found[0].methods)

    def _node(self, path: str) -> tuple[_Node[T], tuple[str, ...]] | None:
        node = self._literal.get(path)
        return _descend(self._root, path.split("/"), ()) if node is None else (node, ())


def _descend(
    node: _Node[T], segments: list[str], values: tuple[str, ...]
) -> tuple[_Node[T], tuple[str, ...]] | None:
    """The node that *segments* lead to, and what the named ones were. As deep as a route."""
    if not segments:
        return (node, values) if node.methods else None
    first, *rest = segments
    if first in node.literal:
        found = _descend(node.literal[first], rest, values)
        if found is not None:
            return found
    if node.named is not None and first:
        found = _descend(node.named, rest, (*values, first))
        if found is not None:
            return found
    if node.rest is not None:
        return node.rest, (*values, "/".join(segments))
    return None


def _allow(methods: Iterable[str]) -> str:
    allowed = {*methods, "OPTIONS"} - {WEBSOCKET}
    if "GET" in allowed:
        allowed.add("HEAD")
    return ", ".join(sorted(allowed))
