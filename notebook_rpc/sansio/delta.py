"""What became of a result: the difference of two lists of rows, and what a client makes of it.

Rows are texts, each the JSON of an array, and are the same if their texts are. The difference is
one of multisets: it says how many of each row came and went. ``applied`` is what a client does with
it, and where the order of rows matters, whoever sends a difference compares first.

It refuses to guess which row became which: a change is two of them, unless *key* says what makes a
row the same one.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Delta:
    """``inserts`` come in the order they have in the new rows, ``deletes`` in that of the old;
    ``updates`` are rows before and after."""

    inserts: Sequence[str]
    updates: Sequence[tuple[str, str]]
    deletes: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.inserts or self.updates or self.deletes)

    def json(self) -> str:
        updates = ",".join(
            f'{{"before":{before},"after":{after}}}' for before, after in self.updates
        )
        inserts, deletes = ",".join(self.inserts), ",".join(self.deletes)
        return f'{{"inserts":[{inserts}],"updates":[{updates}],"deletes":[{deletes}]}}'


def difference(before: Sequence[str], after: Sequence[str], key: Sequence[int] = ()) -> Delta:
    """What turns *before* into *after*, but for the order. With *key*, the places of some columns,
    a row that went and one that came with the same values there are an update."""
    gone = Counter(before)
    gone.subtract(after)
    # Of rows that are there several times those that stay come first, as ``applied`` has it.
    deletes = _taken(before, lambda row: gone[row] > 0, gone, by=-1)
    inserts = _taken(reversed(after), lambda row: gone[row] < 0, gone, by=1)[::-1]
    if not key:
        return Delta(inserts, (), deletes)
    return _paired(inserts, deletes, key)


def _taken(
    rows: Iterable[str], wanted: Callable[[str], bool], counts: Counter[str], by: int
) -> list[str]:
    taken = []
    for row in rows:
        if wanted(row):
            counts[row] += by
            taken.append(row)
    return taken


def _paired(inserts: Sequence[str], deletes: Sequence[str], key: Sequence[int]) -> Delta:
    came: defaultdict[tuple[bytes, ...], deque[int]] = defaultdict(deque)
    for place, row in enumerate(inserts):
        came[_key(row, key)].append(place)
    updates, went, used = [], [], set()
    for row in deletes:
        places = came.get(_key(row, key))
        if places:
            place = places.popleft()
            used.add(place)
            updates.append((row, inserts[place]))
        else:
            went.append(row)
    left = [row for place, row in enumerate(inserts) if place not in used]
    return Delta(left, updates, went)


def _key(row: str, key: Sequence[int]) -> tuple[bytes, ...]:
    values = msgspec.json.decode(row, type=list[msgspec.Raw])
    return tuple(bytes(values[place]) for place in key)


def applied(rows: Sequence[str], delta: Delta) -> list[str]:
    """What a client has that had *rows*. Each delete takes away the first row that is equal, then
    each update replaces the first one that is, where it stands, then the inserts go to the end."""
    gone = Counter(delta.deletes)
    changed: defaultdict[str, deque[str]] = defaultdict(deque)
    for old, new in delta.updates:
        changed[old].append(new)
    result = []
    for row in rows:
        if gone.get(row):
            gone[row] -= 1
        elif changed.get(row):
            result.append(changed[row].popleft())
        else:
            result.append(row)
    result.extend(delta.inserts)
    return result
