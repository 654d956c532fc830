"""Which request a line of the log belongs to."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

REQUEST: Final[ContextVar[str]] = ContextVar("REQUEST", default="")
"""The id of the request that this task is answering, or has answered last."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def trace_id(traceparent: str | None) -> str | None:
    """The trace that a request belongs to by its header (W3C Trace Context, 3.2); None if it has
    none, or one that is invalid and must be ignored."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match is None:
        return None
    version, trace, parent, more = match.groups()
    known = version == "00"
    if version == "ff" or (known and more) or not trace.strip("0") or not parent.strip("0"):
        return None
    return trace
