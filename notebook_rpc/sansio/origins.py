"""Where the columns of a result come from: which of them are columns of tables, as they stand.

It works on the outline of a SELECT, which ``sqledit.py`` draws, and on what the database tells of
the tables. What it refuses is to guess: where a name could mean two columns, or the result is not
what the outline has led to expect, nothing is said at all. No answer costs the reader an icon; a
wrong one has them write into the wrong column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.schema import ColumnFacts, TableFacts

MOST_SOURCES: Final = 16
"""Tables of one SELECT that are asked about."""


@dataclass(frozen=True)
class Source:
    """What stands in FROM. ``table`` is its name, with dots; "" for what is no table of the
    database: a subquery, a function. ``alias`` is what its columns may be qualified with, and
    ``is_renamed`` whether the statement gave it that."""

    table: str
    alias: str
    is_renamed: bool = False


@dataclass(frozen=True)
class Item:
    """What stands between SELECT and FROM. ``column`` is "" for an expression, and "*" for all.
    ``name`` is what the result calls it; "" if that is the database's to say."""

    column: str = ""
    qualifier: str = ""
    name: str = ""


@dataclass(frozen=True)
class Outline:
    """A SELECT. ``merges`` says that a join makes one column of two (USING, NATURAL), so that its
    ``*`` is not the columns of its tables."""

    items: Sequence[Item]
    sources: Sequence[Source]
    merges: bool = False


@dataclass(frozen=True)
class Origin:
    """A column of a table."""

    facts: TableFacts
    column: ColumnFacts


Facts: TypeAlias = Mapping[str, "TableFacts | None"]
"""Of tables by their names, as far as the database knows them."""


@dataclass(frozen=True)
class Origins:
    """What is known of a statement before it has run. Without an ``outline``, that is nothing."""

    outline: Outline | None
    facts: Facts

    @property
    def tables(self) -> list[TableFacts]:
        """That columns may come from."""
        return [facts for facts in self.facts.values() if facts is not None]

    def of(self, names: Sequence[str]) -> list[Origin | None]:
        """Of each column of the result, whose columns are called *names*."""
        nothing: list[Origin | None] = [None] * len(names)
        if self.outline is None:
            return nothing
        found: list[tuple[str, Origin | None]] = []
        for item in self.outline.items:
            if item.column != "*":
                found.append((item.name, _origin(item, self.outline, self.facts)))
                continue
            expanded = all_columns(item, self.outline, self.facts)
            if expanded is None:
                return nothing
            found += [(origin.column.name, origin) for _, origin in expanded]
        expected = [name for name, _ in found]
        if len(found) != len(names) or not all(map(_may_be_called, names, expected)):
            return nothing
        return [origin for _, origin in found]


def all_columns(star: Item, outline: Outline, facts: Facts) -> list[tuple[Source, Origin]] | None:
    """What ``*``, or ``alias.*``, stands for; None if that is not known for certain."""
    sources = [
        each for each in outline.sources if not star.qualifier or _same(each.alias, star.qualifier)
    ]
    if not sources or (star.qualifier and len(sources) > 1):
        return None
    if outline.merges and not star.qualifier:
        return None
    columns: list[tuple[Source, Origin]] = []
    for source in sources:
        table = facts.get(source.table)
        if table is None or not table.columns:
            return None
        columns += [(source, Origin(table, column)) for column in table.columns]
    return columns


def _origin(item: Item, outline: Outline, facts: Facts) -> Origin | None:
    if not item.column:
        return None
    if item.qualifier:
        sources = [each for each in outline.sources if _same(each.alias, item.qualifier)]
    else:
        sources = list(outline.sources)
        if any(facts.get(each.table) is None for each in sources):
            return None  # it may come from what we know nothing of
        if outline.merges:
            return None  # or be one made of two
    found = [origin for source in sources for origin in _of(source, item.column, facts)]
    return found[0] if len(found) == 1 else None


def _of(source: Source, column: str, facts: Facts) -> Iterator[Origin]:
    table = facts.get(source.table)
    for each in () if table is None else table.columns:
        if table is not None and _same(each.name, column):
            yield Origin(table, each)


def _same(one: str, other: str) -> bool:
    """As every database has it that knows no quotes. Where one has two names that differ in this
    only, they are taken for the same, and so for none."""
    return one.casefold() == other.casefold()


def _may_be_called(name: str, expected: str) -> bool:
    """Whether a column that should be called *expected* may be *name* in a result, where names are
    made distinct (``model.unique_names``)."""
    if not expected or _same(name, expected):
        return True
    return re.fullmatch(re.escape(expected.casefold()) + r"_\d+", name.casefold()) is not None
