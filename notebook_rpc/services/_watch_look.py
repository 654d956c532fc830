"""A look at a live query's result, and what has become of it since the last one.

Everything here may block or take long, and runs on a worker in one hop. It refuses results that
are larger than may be kept, and statements without rows.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from notebook_rpc.driver import SupportsTouched
from notebook_rpc.errors import InvalidParams, QueryError
from notebook_rpc.sansio import live_events
from notebook_rpc.sansio.delta import applied, difference
from notebook_rpc.services.answers import array_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Result, ResultColumn, Touched

_CHUNK: Final = 2048  # rows of one read at most
_ROW: Final = 64  # bytes that a row takes besides its text
# Where the word stands for something else, too much is sent, and nothing wrong. A comment may
# stand between it and BY.
_ORDER: Final = re.compile(r"\border\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is subscribed to. Equal ones share their looks."""

    connection: str
    sql: str
    parameters: tuple[str, ...] = ()
    """Each as JSON, as this has to be hashed."""
    key: tuple[str, ...] = ()
    """Columns that say which row is which."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A result as it was at one time. ``data`` are those of an event that has all of it."""

    columns: Sequence[ResultColumn]
    rows: Sequence[str]
    data: bytes

    @property
    def cost(self) -> int:
        """Bytes of memory, more or less."""
        return 2 * len(self.data) + _ROW * len(self.rows)


class Change(enum.Enum):
    """Since the last look. To a client SAME is nothing, DELTA a difference, ALL the whole result,
    and RELOAD the whole of a result that has other columns."""

    SAME, DELTA, ALL, RELOAD = range(4)


class Seen(NamedTuple):
    change: Change
    snapshot: Snapshot
    data: bytes
    """The data of an event: of DELTA, the difference."""
    reads: Touched


def look(
    asked: Asked, last: Snapshot | None, max_bytes: int, connection: Connection, *, learn: bool
) -> Seen:
    """Run the query and compare. *learn* asks which tables it reads.

    Raises:
        InvalidParams: the key names no column.
        QueryError: the statement failed, or its result is not one to be watched.
    """
    parameters = [json.loads(each) for each in asked.parameters] or None
    result = array_rows(asked.sql, parameters, connection)
    try:
        if not result.columns:
            raise QueryError("only a query can be subscribed to; this statement has no rows")
        columns = list(result.columns)
        key = _places(asked.key, columns)
        rows = _read(result, max_bytes)
    finally:
        result.close()
    names = [column.column for column in columns]
    data = _encoded(partial(live_events.of_result, names, rows))
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    reads = _reads(asked.sql, connection) if learn else None
    ordered = _ORDER.search(asked.sql) is not None
    change, difference = _change(last, columns, rows, key, ordered=ordered)
    if last is not None and change is Change.SAME:
        return Seen(change, last, b"", reads)
    return Seen(change, Snapshot(columns, rows, data), difference, reads)


def _places(names: Sequence[str], columns: Sequence[ResultColumn]) -> list[int]:
    known = [column.column for column in columns]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise InvalidParams(f"key: the result has no column {unknown!r}")
    return [known.index(name) for name in names]


def _read(result: Result[str], max_bytes: int) -> list[str]:
    rows: list[str] = []
    size, step = 0, 1  # no size is known at first
    while more := result.fetch(step):
        rows += more
        size += sum(map(len, more)) + len(more)
        if size > max_bytes:
            raise _too_large(max_bytes)
        room = (max_bytes - size) // (1 + size // len(rows))
        step = min(2 * step, _CHUNK, room + 1)
    return rows


def _too_large(max_bytes: int) -> QueryError:
    return QueryError(f"the result is larger than {max_bytes} bytes, and cannot be watched")


def _encoded(event: Callable[[], bytes]) -> bytes:
    try:
        return event()
    except UnicodeEncodeError as exc:
        raise QueryError(f"a value is not text that UTF-8 can carry: {exc.reason}") from exc


def _reads(sql: str, connection: Connection) -> Touched:
    if not isinstance(connection, SupportsTouched):
        return None
    try:
        return connection.reads(sql)
    except QueryError:  # it has run, but may be more than a query
        return None


def _change(
    last: Snapshot | None,
    columns: Sequence[ResultColumn],
    rows: Sequence[str],
    key: Sequence[int],
    *,
    ordered: bool,
) -> tuple[Change, bytes]:
    """What has become of *last*. Where rows have an order, a difference is worth sending if who
    applies it gets them in this order."""
    if last is None:
        return Change.ALL, b""
    if columns != last.columns:
        return Change.RELOAD, b""
    if rows == last.rows:
        return Change.SAME, b""
    delta = difference(last.rows, rows, key)
    if not delta:
        return Change.ALL if ordered else Change.SAME, b""
    if ordered and applied(last.rows, delta) != rows:
        return Change.ALL, b""
    return Change.DELTA, _encoded(partial(live_events.of_delta, delta))
