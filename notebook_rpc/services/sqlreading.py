"""Statements that are read, and not run: changed as a client asks for it, and asked where the
columns of their results come from.

Reading takes time for each character and is done on workers. It needs sqlglot, an extra: without it
no statement can be changed, and nothing is known of where columns come from; all else works.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from notebook_rpc.errors import DatabaseError, NotSupported
from notebook_rpc.sansio.origins import MOST_SOURCES, Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from notebook_rpc.sansio.changes import Change
    from notebook_rpc.sansio.origins import Facts, Outline
    from notebook_rpc.schema import TableFacts
    from notebook_rpc.services.workers import Workers

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Describes(Protocol):
    """What tells of a table; ``services.catalog.Catalog`` explains it."""

    async def describe(self, name: str) -> TableFacts: ...


class Statements:
    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def changed(self, sql: str, change: Change, dialect: str, catalog: Describes) -> str:
        """*sql* after *change*; *dialect* is the database's name in SQLAlchemy, "" if not known.

        Raises:
            InvalidParams: a condition or a column is none, or not there.
            NotSupported: *sql* cannot be changed, or sqlglot is not installed.
        """
        facts: Facts = {}
        if change.target == "SELECT":
            outline = await self._outline(sql, dialect)
            facts = {} if outline is None else await _facts(outline, catalog)
        return await self._read(partial(_changed, sql, change, dialect, facts))

    async def origins(self, sql: str, dialect: str, catalog: Describes) -> Origins:
        """Where the columns of its result will come from, as far as that can be told."""
        try:
            outline = await self._outline(sql, dialect)
        except NotSupported as exc:
            logger.debug("where columns come from is not known: %s", exc)
            outline = None
        return Origins(outline, {} if outline is None else await _facts(outline, catalog))

    async def table(self, sql: str, dialect: str) -> TableFacts:
        """What a CREATE TABLE would make.

        Raises:
            InvalidParams: it is none.
            NotSupported: sqlglot is not installed.
        """
        return await self._read(partial(_table, sql, dialect))

    async def conditions(self, texts: Sequence[str], dialect: str) -> list[Mapping[str, object]]:
        """Of checks, as ``sqltables.condition`` has them."""
        if not texts:
            return []
        try:
            return await self._read(partial(_conditions, texts, dialect))
        except NotSupported:
            return [{"sql": text} for text in texts]

    async def _outline(self, sql: str, dialect: str) -> Outline | None:
        return await self._read(partial(_outline, sql, dialect))

    async def _read(self, read: Callable[[], T]) -> T:
        try:
            return await self._workers.run(read)
        except ImportError as exc:
            if exc.name != "sqlglot":
                raise
            raise NotSupported(
                "reading SQL needs sqlglot; pip install 'notebook_rpc[scoot]' brings it"
            ) from exc


async def _facts(outline: Outline, catalog: Describes) -> Facts:
    facts: dict[str, TableFacts | None] = {}
    for name in dict.fromkeys(source.table for source in outline.sources if source.table):
        if len(facts) == MOST_SOURCES:
            break
        try:
            facts[name] = await catalog.describe(name)
        except DatabaseError as exc:  # the statement itself will tell what is wrong
            logger.debug("cannot describe %s: %s", name, exc)
    return facts


# On a worker, where the first one imports sqlglot.


def _outline(sql: str, dialect: str) -> Outline | None:
    from notebook_rpc.sansio import sqledit  # noqa: PLC0415  # as above

    return sqledit.outline(sql, dialect)


def _changed(sql: str, change: Change, dialect: str, facts: Facts) -> str:
    from notebook_rpc.sansio import sqledit  # noqa: PLC0415  # as above

    return sqledit.changed(sql, change, dialect, facts)


def _table(sql: str, dialect: str) -> TableFacts:
    from notebook_rpc.sansio import sqltables  # noqa: PLC0415  # as above

    return sqltables.table(sql, dialect)


def _conditions(texts: Sequence[str], dialect: str) -> list[Mapping[str, object]]:
    from notebook_rpc.sansio import sqltables  # noqa: PLC0415  # as above

    return [sqltables.condition(text, dialect) for text in texts]
