"""What tables a database has, and what they are made of, for clients that have no session: asked
of the database each time, on a connection lent for it.

What it refuses: to remember anything. A table that somebody has just altered is what it is now.
"""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from notebook_rpc.driver import SupportsDescribe
from notebook_rpc.errors import DatabaseError, DatabaseUnavailable, NotSupported, UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.schema import ColumnFacts, TableFacts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.driver import Connection
    from notebook_rpc.services.lanes import Lane

T = TypeVar("T")

logger = logging.getLogger(__name__)

_COUNTED: Final = 50  # tables that a worker counts before it looks whether anybody still waits


class Catalog:
    """Of one database. Every method may raise ``NotebookError``; to cancel its caller interrupts
    the database."""

    def __init__(
        self,
        lend: Callable[[Catalog], AbstractAsyncContextManager[Lane]],
        max_seconds: float = math.inf,
    ) -> None:
        """*lend* gives a lane for a call. *max_seconds* is how long one may take."""
        self._lend = lend
        self._seconds = max_seconds

    async def tables(self, *, counts: bool = False) -> list[tuple[Table, int | None]]:
        """Tables without views, sorted; with *counts*, each with the number of its rows. None is
        the number of one that cannot be counted: this user may not, or it has just gone."""
        async with self._calling("tables") as lane:
            tables = await lane.work(lambda connection: sorted(connection.tables()))
            numbers: list[int | None] = []
            while counts and len(numbers) < len(tables):
                some = tables[len(numbers) : len(numbers) + _COUNTED]
                numbers += await lane.work(partial(_counts, some))
        return list(zip(tables, numbers if counts else [None] * len(tables), strict=True))

    async def describe(self, name: str) -> TableFacts:
        """A table or a view by its *name*, or by its schema and its name with a dot between them.
        A table that is spelt so comes before one that SQL would find, and that before one that is
        somewhere else.

        Raises:
            UnknownTable: there is none.
        """
        return await self._ask("describe", partial(_describe, name))

    async def schemas(self) -> list[str]:
        return await self._ask("schemas", _schemas)

    async def databases(self) -> list[str]:
        return await self._ask("databases", _databases)

    async def _ask(self, name: str, work: Callable[[Connection], T]) -> T:
        async with self._calling(name) as lane:
            return await lane.work(work)

    @asynccontextmanager
    async def _calling(self, name: str) -> AsyncIterator[Lane]:
        async with (
            self._lend(self) as lane,
            lane.undone_if_interrupted(),
            lane.call(name, self._seconds),
        ):
            yield lane


# On a worker.


def _counts(tables: Sequence[Table], connection: Connection) -> list[int | None]:
    return [_count(table, connection) for table in tables]


def _count(table: Table, connection: Connection) -> int | None:
    if not isinstance(connection, SupportsDescribe):
        return None  # nobody knows how its name is written
    try:
        result = connection.execute(f"SELECT count(*) FROM {connection.written(table)}")  # noqa: S608
        try:
            ((number,),) = result.fetch(2)
        finally:
            result.close()
    except DatabaseUnavailable:
        raise
    except DatabaseError:
        logger.debug("cannot count %s", table, exc_info=True)
        return None
    return int(str(number))


def _describe(name: str, connection: Connection) -> TableFacts:
    unknown = UnknownTable(f"there is no table {name!r}")
    if not name or not _can_be_sent(name):
        raise unknown
    if isinstance(connection, SupportsDescribe):
        for table in _readings(name):
            try:
                return connection.describe(table)
            except UnknownTable:
                continue
    listed = _listed(name, connection)
    if listed is None:
        raise unknown
    table, is_view = listed
    if isinstance(connection, SupportsDescribe):
        return connection.describe(table)
    columns = connection.columns(table.catalog, table.schema, table.table)
    facts = [ColumnFacts(column.column, column.datatype) for column in columns]
    return TableFacts(table, facts, is_view=is_view)


def _can_be_sent(name: str) -> bool:
    """Whether every database can be asked for it."""
    try:
        return b"\0" not in name.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _readings(name: str) -> Iterator[Table]:
    """What *name* may mean: any of its dots may be part of a name, too."""
    yield Table("", "", name)
    parts = name.split(".")
    if not (parts[0] and parts[-1]):
        return  # "" as a schema would be any
    for at in sorted({1, len(parts) - 1}) if len(parts) > 1 else ():
        yield Table("", ".".join(parts[:at]), ".".join(parts[at:]))
    if len(parts) == 3:
        yield Table(*parts)


def _listed(name: str, connection: Connection) -> tuple[Table, bool] | None:
    """The first table that can be meant, wherever it is, and whether it is a view."""
    found = [(table, False) for table in connection.tables()]
    found += [(view, True) for view in connection.views()]
    for spelt in (str, str.casefold):
        for table, is_view in found:
            whole = [table.catalog, table.schema, table.table]
            if spelt(name) in {spelt(".".join(whole[at:])) for at in range(3)}:
                return table, is_view
    return None


def _schemas(connection: Connection) -> list[str]:
    if isinstance(connection, SupportsDescribe):
        return list(connection.schemas())
    owned = [*connection.tables(), *connection.views()]
    return sorted({table.schema for table in owned} - {""})


def _databases(connection: Connection) -> list[str]:
    if isinstance(connection, SupportsDescribe):
        return list(connection.databases())
    found = {table.catalog for table in [*connection.tables(), *connection.views()]} - {""}
    if not found:
        raise NotSupported("it is not known which databases there are")
    return sorted(found)
