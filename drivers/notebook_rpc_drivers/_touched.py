"""What a connection has written, gathered from statement to commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from notebook_rpc.model import Touched


class Written:
    """Of a statement it is noted before or after it runs, but before its transaction ends."""

    def __init__(self) -> None:
        self._open: Touched = frozenset()
        self._committed: Touched = frozenset()

    def note(self, tables: Touched, *, at_once: bool = False) -> None:
        """A statement of the transaction that is open, or is one itself, writes these; *at_once*
        if others may see it before the transaction ends."""
        self._open = _both(self._open, tables)
        if at_once:
            self._committed = _both(self._committed, tables)

    def commit(self) -> None:
        """Others see, from now on, what was noted since the last commit or rollback."""
        self._committed = _both(self._committed, self._open)
        self._open = frozenset()

    def roll_back(self) -> None:
        """They never will."""
        self._open = frozenset()

    def take(self) -> Touched:
        """What was committed since this was called last."""
        taken, self._committed = self._committed, frozenset()
        return taken


def _both(some: Touched, others: Touched) -> Touched:
    return None if some is None or others is None else some | others
