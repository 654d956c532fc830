"""How much memory the answers may take that wait for slow readers, all of them together."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEAST: Final = 64 * 1024  # bytes; what anybody may have, so that everybody gets on
SHARE: Final = 4  # what is left, divided by this, is one page's part of it


def _nothing() -> None:
    """What there is to be given back for a small answer."""


class Budget:
    """A page may take a share of what is left, so that pages shrink as memory gets scarce and
    nobody has to wait. Beyond *total* a page has ``LEAST``."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.held = 0

    @contextmanager
    def making(self, at_most: int) -> Iterator[int]:
        """How large an answer may become that is made in the block; so much is set aside."""
        granted = min(at_most, max(LEAST, (self._total - self.held) // SHARE))
        self.held += granted
        try:
            yield granted
        finally:
            self.held -= granted

    def hold(self, size: int) -> Callable[[], None]:
        """Count an answer of *size* bytes until what is returned is called, which must be once."""
        if size <= LEAST:
            return _nothing
        self.held += size

        def release() -> None:
            self.held -= size

        return release
