"""Server-sent events as bytes.

It only writes; to read them is a browser's work. It refuses to send what a reader would take for
something else: a line break in a name or an id, or an id that readers throw away.

Source: WHATWG HTML, 9.2, "Server-sent events".
"""

from __future__ import annotations

import re
from typing import Final

CONTENT_TYPE: Final = b"text/event-stream"  # UTF-8 always; the format knows no other charset
KEEPALIVE: Final = b": keepalive\n"
"""A comment, which no reader tells anybody of. An empty line behind it is not needed, and some
readers (httpx-sse 0.4) would take that for an event."""

_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")


def event(data: str, *, name: str = "", id_: str | None = None) -> bytes:
    """One event. Without *name* it is a "message". *id_* is what a reader that comes back shows as
    ``Last-Event-ID``; None leaves it as it was, "" forgets it.

    Each kind of line break in *data* is the same to the format: readers get a line feed.
    """
    return opening(name, id_) + lines(data) + b"\n"


def opening(name: str = "", id_: str | None = None) -> bytes:
    """What comes before an event's data: its name and its id, each on a line of its own.

    Raises:
        ValueError: they cannot be written.
    """
    if _LINE_BREAK.search(name) or _LINE_BREAK.search(id_ or ""):
        raise ValueError("the name and the id of an event are one line each")
    if "\0" in (id_ or ""):
        raise ValueError("an id with a NULL in it is ignored by whoever reads it")
    fields = f"event: {name}\n" if name else ""
    if id_ is not None:
        fields += f"id: {id_}\n"
    return fields.encode()


def lines(data: str) -> bytes:
    """An event's data, as lines. Only an empty line behind them makes it an event."""
    if "\n" in data or "\r" in data:
        data = "\ndata: ".join(_LINE_BREAK.split(data))
    return f"data: {data}\n".encode()


def retry(milliseconds: int) -> bytes:
    """How long readers wait before they come back: a line that goes with the next event, for the
    same reason."""
    return b"retry: %d\n" % milliseconds
