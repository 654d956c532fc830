"""What a subscriber to a live query is told, as server-sent events.

The words are those of docs/protocols/live.md. An event's data are made once, its name and id for
those who need it so: where there are pieces, joining them would copy a whole result.

It refuses to decide who is told what.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

from notebook_rpc.sansio import sse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from notebook_rpc.sansio.delta import Delta

Pieces: TypeAlias = "tuple[bytes, bytes, bytes]"


def of_result(columns: Sequence[str], rows: Iterable[str]) -> bytes:
    """The data of an event with all of a result. *rows* are JSON.

    Raises:
        UnicodeEncodeError: UTF-8 cannot carry a value; so does ``of_delta``.
    """
    return sse.lines(f'{{"columns":{_json(list(columns))},"rows":[{",".join(rows)}]}}')


def of_delta(delta: Delta) -> bytes:
    """The data of an event with a difference."""
    return sse.lines(delta.json())


def initial(id_: str, data: bytes) -> Pieces:
    """All of the result, to who has none."""
    return sse.opening("initial", id_), data, b"\n"


def update(id_: str, data: bytes) -> Pieces:
    """All of the result, to who has another."""
    return sse.opening("update", id_), data, b"\n"


def reload(id_: str, data: bytes) -> Pieces:
    """All of the result, to who has one with other columns: two events."""
    return sse.event("{}", name="reload") + sse.opening("initial", id_), data, b"\n"


def delta(id_: str, data: bytes) -> bytes:
    """What leads to the result from the one before."""
    return sse.opening("delta", id_) + data + b"\n"


def error(message: str) -> bytes:
    """It has no id: who comes back wants the result."""
    return sse.event(_json({"error": message}), name="error")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
