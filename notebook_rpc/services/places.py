"""Places that clients take for a while, shared out so that nobody keeps the others from theirs.

No client has more than a share of them, however many it asks for, and of those who wait each client
gets the next free place in turn. A client is whatever the caller says. Where nothing is done but to
wait, a place can be set aside, and somebody else have one instead.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Hashable

SHARE: Final = 4  # one client has at most this part of the places
MAX_WAITING: Final = 16_384  # of all clients: some ten kilobytes each


class _Client:
    """What one client has, and those of its callers who wait."""

    __slots__ = ("held", "waiting")

    def __init__(self) -> None:
        self.held = 0
        self.waiting: deque[trio.Event] = deque()


class Place:
    """One that is taken while a block lasts. (A class, and no generator: there is one around every
    statement.)"""

    __slots__ = ("_client", "_of", "_places", "aside")

    def __init__(self, places: Places, client: Hashable) -> None:
        self._places = places
        self._client = client
        self.aside = False

    async def __aenter__(self) -> Place:
        self._of = await self._places.take(self._client)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._places.give_back(self._client, self._of, aside=self.aside)

    def set_aside(self) -> bool:
        """Let others have one instead, for as long as this one is taken. It counts in its client's
        share all the same. False: as many are aside as there are places, and nothing changes."""
        if not self.aside:
            self.aside = self._places.set_one_aside()
        return self.aside


class Places:
    def __init__(self, limit: int) -> None:
        self.free = limit
        self.may_be_aside = limit
        self._share = max(1, limit // SHARE)
        self._clients: dict[Hashable, _Client] = {}  # the one whose turn is next comes first
        self.waiting = 0

    @property
    def clients(self) -> int:
        """Those who have a place, or wait for one."""
        return len(self._clients)

    def place(self, client: Hashable) -> Place:
        """One of the places, to be entered.

        Raises:
            Busy: too many wait already.
        """
        return Place(self, client)

    # For ``Place``

    async def take(self, client: Hashable) -> _Client:
        of = self._clients.setdefault(client, _Client())
        try:
            await self._take(of)
        except BaseException:
            self._forget(client, of)
            raise
        return of

    def give_back(self, client: Hashable, of: _Client, *, aside: bool) -> None:
        of.held -= 1
        if aside:
            self.may_be_aside += 1
        else:
            self.free += 1
        self._give()
        self._forget(client, of)

    def set_one_aside(self) -> bool:
        """False: too many are."""
        if not self.may_be_aside:
            return False
        self.may_be_aside -= 1
        self.free += 1
        self._give()
        return True

    def _forget(self, client: Hashable, of: _Client) -> None:
        if not of.held and not of.waiting:
            self._clients.pop(client, None)

    async def _take(self, of: _Client) -> None:
        if self.free and of.held < self._share and not of.waiting:
            of.held += 1
            self.free -= 1
            return
        if self.waiting >= MAX_WAITING:
            raise Busy(f"{self.waiting} requests wait for a connection already")
        turn = trio.Event()
        of.waiting.append(turn)
        self.waiting += 1
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # and cancelled at the same moment
                of.held -= 1
                self.free += 1
                self._give()
            else:
                of.waiting.remove(turn)
                self.waiting -= 1
            raise

    def _give(self) -> None:
        """Let those in whose turn it is."""
        share = self._share
        while self.free:
            ready = ((c, of) for c, of in self._clients.items() if of.waiting and of.held < share)
            client, of = next(ready, (None, None))
            if of is None:
                return
            self._clients[client] = self._clients.pop(client)  # the others come first now
            of.held += 1
            self.free -= 1
            self.waiting -= 1
            of.waiting.popleft().set()
