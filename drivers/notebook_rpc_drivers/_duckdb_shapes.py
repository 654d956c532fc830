"""What DuckDB's queries looked like when they last ran, by their text.

A query is bound before it runs, to learn what its columns are, and then bound again by what runs
it. Whoever knows the columns from before can save the first, and a tenth of a millisecond: two
fifths of a small query. What is known is believed of nothing but a query, which may run twice, and
only if what it gives looks the same again; a table may have been altered meanwhile.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from notebook_rpc.model import Stability

if TYPE_CHECKING:
    from collections.abc import Hashable

    from notebook_rpc_drivers._duckdb_connection import Connection

MOST: Final = 2048  # of all kinds together
LONGEST: Final = 4096  # characters of one that is worth it: a long one takes its time anyway
WORTH: Final = 32
"""Runs of a query after which it is found out whether it leaves nothing behind. That takes 1 to 23
ms, and saves a third of a millisecond each time where the query is brief."""
BRIEF: Final = 0.002  # seconds; twice what is promised, for machines with other work
SMOOTH: Final = 16  # runs


class Shapes:
    """Of one database, for all its connections and their threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[Hashable, str], object] = {}
        self.cleared = 0  # times

    def get(self, kind: Hashable, sql: str) -> object | None:
        """What was kept; *kind* says what that is."""
        return self._known.get((kind, sql))

    def keep(self, kind: Hashable, sql: str, shape: object, since: int | None = None) -> None:
        """Unless it was found out when they had been ``cleared`` less often: *since*."""
        if len(sql) > LONGEST:
            return
        with self._lock:
            if since is not None and since != self.cleared:
                return
            self._known.pop((kind, sql), None)
            self._known[kind, sql] = shape
            if len(self._known) > MOST:
                del self._known[next(iter(self._known))]

    def proven(self, sql: str) -> bool:
        """Whether it is a query that reads tables of the database alone, and leaves nothing."""
        return (Tempo, sql) in self._known

    def brief(self, sql: str) -> bool:
        """As of ``driver.SupportsBrief``, but for what is left on a connection."""
        tempo = self._known.get((Tempo, sql))
        return isinstance(tempo, Tempo) and tempo.is_brief()

    def took(self, sql: str, seconds: float) -> None:
        tempo = self._known.get((Tempo, sql))
        if isinstance(tempo, Tempo):
            tempo.took(seconds)

    def forget(self, kind: Hashable, sql: str) -> None:
        with self._lock:
            self._known.pop((kind, sql), None)

    def clear(self) -> None:
        """What tables, views and macros are called may mean something else from now on."""
        with self._lock:
            self.cleared += 1
            self._known.clear()


class Tempo:
    """Whether a query, proven to leave nothing, is over at once: on the average of the last runs
    that were told of. One that was not is left alone for some runs, twice as many each time, and
    each run that was brief makes up for one of them."""

    def __init__(self, *, steady: bool) -> None:
        """*steady*: it can be interrupted at any time. Else it is never brief."""
        self._steady = steady
        self._average = 0.0
        self._pause = 0
        self._next_pause = WORTH

    def is_brief(self) -> bool:
        """To be asked before each run: so its pause ends."""
        if self._pause:
            self._pause -= 1
            if self._pause == 0:
                self._average = 0.0
        return self._steady and not self._pause

    def took(self, seconds: float) -> None:
        self._average += (seconds - self._average) / SMOOTH
        if self._average > BRIEF:
            self._pause = self._next_pause
            self._next_pause *= 2
        else:
            self._next_pause = max(WORTH, self._next_pause - 1)


class Runs:
    """How often a query has run in one form, and whether anything of it may stay on the cursor."""

    def __init__(self) -> None:
        self._count = 0
        self._lasting: bool | None = None

    def leave_nothing(self, connection: Connection, sql: str) -> bool:
        """To be asked after each run. True if it is proven: what a query leaves, say the rejects of
        ``read_csv``, it leaves by functions and sources that give other rows another time."""
        if self._lasting is None:
            self._count += 1
            shapes = connection.shapes
            if shapes.proven(sql):  # in another form
                self._lasting = True
                return True
            if self._count < WORTH:
                return False
            since = shapes.cleared
            self._lasting = connection.stability(sql) is Stability.LASTING
            if self._lasting:
                shapes.keep(Tempo, sql, Tempo(steady=connection.is_steady(sql)), since)
        return self._lasting
