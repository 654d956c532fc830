"""Which state of a database an answer belongs to, as far as this server has written.

A version is read before the query begins, so that an answer that is newer than its version is
possible, and one that is older is not. What others write, other processes above all, it knows
nothing of: it begins anew, with a number nobody has had, whenever a server starts.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _all_the_same(_: str) -> str:
    return ""


class Versions:
    """By name of the database."""

    def __init__(self, engine: Callable[[str], str] = _all_the_same) -> None:
        """*engine* says by what means a name is reached, the driver's name for instance. Within
        one engine, two names may be the same file, and a statement may write into a database that
        it has attached: a write through one of them counts for all."""
        self._engine = engine
        self._start = secrets.randbits(64)
        self._writes: dict[str, int] = {}

    def of(self, name: str) -> str:
        """Equal as long as nothing was written."""
        engine = self._engine(name)
        return f"{self._start:x}.{engine}.{self._writes.get(engine, 0)}"

    def wrote(self, name: str) -> None:
        """Before anybody is told that the write is done."""
        engine = self._engine(name)
        self._writes[engine] = self._writes.get(engine, 0) + 1
