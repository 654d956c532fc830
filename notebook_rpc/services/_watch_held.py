"""Results, and large differences of them, that are on their way to slow readers, when newer ones
have come already.

Those who are sent the same share its memory, however many they are. But each that reads slowly may
hold on to another one. So there is a bound, and beyond it the one that was begun first is cut off:
its reader comes back, and begins anew.
"""

from __future__ import annotations

from typing import Protocol


class Reader(Protocol):
    def cut_off(self) -> None: ...


class Held:
    def __init__(self, limit: int) -> None:
        """*limit* is the number of bytes of different results together, and more than one has."""
        self._limit = limit
        self._of: dict[Reader, bytes] = {}  # who began first comes first
        self._readers: dict[int, int] = {}  # of each result, by its identity
        self.size = 0

    def take(self, reader: Reader, result: bytes) -> None:
        """*reader* is going to be sent *result*, until it gives it back."""
        self._of[reader] = result
        known = self._readers.get(id(result), 0)
        self._readers[id(result)] = known + 1
        if known:
            return
        self.size += len(result)
        while self.size > self._limit:
            first = next(iter(self._of))
            self.give_back(first)
            first.cut_off()

    def give_back(self, reader: Reader) -> None:
        """Nothing happens if it has none."""
        result = self._of.pop(reader, None)
        if result is None:
            return
        self._readers[id(result)] -= 1
        if not self._readers[id(result)]:
            del self._readers[id(result)]
            self.size -= len(result)
