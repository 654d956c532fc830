"""What every layer calls a table, a column and a result's column.

The field names are those of the ADONotebook protocol, so these encode as they stand.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT: Final = "default"
"""The name of the database that the server was started with."""

Parameters: TypeAlias = Sequence[object] | Mapping[str, object]
"""Values bound to a statement, by position or by name, as JSON has them: None, bool, int,
float, str, and lists and dicts of these, which a driver may refuse."""


class Stability(enum.Enum):
    """How long the rows of a query stay what they are.

    LASTING: until a statement of this server writes. SHARED: others may change what it reads:
    another process, a file, a foreign database. VOLATILE: not even twice.
    """

    LASTING, SHARED, VOLATILE = "lasting", "shared", "volatile"


Touched: TypeAlias = frozenset[str] | None
"""Tables that a statement reads or writes, by names that mean the same wherever the same driver
gives them for the same database; None: it may be any, or all of them have changed their shape."""


class Table(msgspec.Struct, frozen=True, order=True):
    """A table or a view. A database without catalogs or schemas has "" there."""

    catalog: str
    schema: str
    table: str


class Column(msgspec.Struct, frozen=True, order=True):
    """A column of a table or a view; ``datatype`` is the database's own name of the type."""

    catalog: str
    schema: str
    table: str
    column: str
    datatype: str


class ResultColumn(msgspec.Struct, frozen=True):
    """A column of a result; ``datatype`` is "" where the database does not tell."""

    column: str
    datatype: str


class Transaction(enum.Enum):
    """Of a connection. One that has FAILED can only be rolled back; not every database has it."""

    NONE, OPEN, FAILED = "autocommit", "in transaction", "failed transaction"


Row_co = TypeVar("Row_co", covariant=True)


class Result(Protocol[Row_co]):
    """What one statement returned. Its methods may block, and run on a worker thread.

    ``columns`` is empty for a statement without rows; its names are distinct
    (``unique_names``). ``count`` is the number of rows touched by a statement without rows
    (0 for DDL), and -1 for one with rows. ``streaming`` says that rows still have to come
    from the database: interrupting the connection spoils such a result.
    """

    @property
    def columns(self) -> Sequence[ResultColumn]: ...
    @property
    def count(self) -> int: ...
    @property
    def streaming(self) -> bool: ...

    def fetch(self, limit: int, /) -> Sequence[Row_co]:
        """The next rows, at most *limit* (positive) of them; none at the end only."""
        ...

    def close(self) -> None:
        """Free what the database holds for this result. May be called again."""
        ...


class CountedResult(Result[str], Protocol):
    """A part of a query's rows. Until it is closed, the database may keep all of them as they
    were."""

    def total(self) -> int:
        """How many rows the whole has, of which these are a part; to be asked at their end."""
        ...


class ArrowResult(Protocol):
    """What one statement returned, as the parts of an Arrow IPC stream: a schema, then record
    batches; whoever sends it adds ``END_OF_STREAM``. Threads, ``columns``, ``count`` and
    ``streaming`` are as of ``Result``.

    Source: Arrow columnar format, "IPC Streaming Format".
    """

    @property
    def columns(self) -> Sequence[ResultColumn]: ...
    @property
    def count(self) -> int: ...
    @property
    def streaming(self) -> bool: ...
    @property
    def schema(self) -> bytes:
        """The stream's first message; b"" for a statement without rows."""
        ...

    def fetch(self) -> bytes | memoryview:
        """The next record batch, as one message of a size that memory need not notice; b"" at
        the end. An empty result has none."""
        ...

    def close(self) -> None:
        """Free what the database holds for this result. May be called again."""
        ...


class Line(enum.Enum):
    """What a row is as text: a JSON object from column name to value, a JSON array of the values,
    or a record of CSV. ``sansio/values.py`` has the tables that the values follow, and
    ``sansio/csv.py`` the rules of CSV."""

    OBJECT, ARRAY, CSV = "object", "array", "csv"


class Lines(Protocol):
    """What one statement returned, as text in UTF-8. Threads, ``columns``, ``count`` and
    ``streaming`` are as of ``Result``."""

    @property
    def columns(self) -> Sequence[ResultColumn]: ...
    @property
    def count(self) -> int: ...
    @property
    def streaming(self) -> bool: ...

    def fetch(self, limit: int, /) -> tuple[bytes, int]:
        """The text of the next rows, and how many they are: at most *limit* (positive), and none
        at the end only."""
        ...

    def close(self) -> None:
        """Free what the database holds for this result. May be called again."""
        ...


class ParquetResult(Protocol):
    """What one statement returned, with its ``rows`` in a file; the rest as of ``Result``."""

    @property
    def columns(self) -> Sequence[ResultColumn]: ...
    @property
    def count(self) -> int: ...
    @property
    def rows(self) -> int: ...


END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""What an Arrow IPC stream ends with."""

BROKEN_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x01\x00" + b"\xff" * 8
"""Ends an Arrow IPC stream, after any of its messages, so that no reader takes it for whole: the
beginning of a message whose metadata are longer than what follows.

pyarrow, nanoarrow, polars and apache-arrow for JavaScript raise. Less would not do: to end without
``END_OF_STREAM`` is an end to all of them, and to JavaScript so is a negative length, or one that
nothing follows. A length of gigabytes would be allocated by some.
"""


def unique_names(names: Iterable[str]) -> list[str]:
    """Make duplicate column names distinct: ``a, a, a_1`` becomes ``a, a_2, a_1``.

    A row is a JSON object, where a second ``a`` would hide the first. Names that were
    already distinct stay as they are; case counts, as it does in JSON.
    """
    wanted = list(names)
    taken = set(wanted)
    if len(taken) == len(wanted):
        return wanted
    seen: set[str] = set()
    next_number: dict[str, int] = {}
    unique: list[str] = []
    for name in wanted:
        result = name
        while result in seen or (result != name and result in taken):
            next_number[name] = next_number.get(name, 0) + 1
            result = f"{name}_{next_number[name]}"
        seen.add(result)
        unique.append(result)
    return unique
