"""A live query: when it is looked at, and which events lead from one state of its result to the
next. Who subscribes has only to remember which version he has.

It refuses to queue anything for anybody: what is kept is the result, and those of the last
differences that are smaller than it together. Who is farther behind gets the result.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from notebook_rpc.errors import Busy, Conflict, DatabaseUnavailable, NotebookError
from notebook_rpc.sansio import live_events
from notebook_rpc.services._watch_look import Change

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from notebook_rpc.model import Touched
    from notebook_rpc.services._watch_held import Held
    from notebook_rpc.services._watch_look import Seen, Snapshot

logger = logging.getLogger(__name__)

PAUSE: Final = 0.1  # seconds between two looks, at least, and at least as long as the last took
FRESH: Final = 1.0  # seconds for which a look is good for those who subscribe without a write
RETRY: Final = 5.0  # seconds until a look is tried again that failed for no fault of the query
LINGER: Final = 60.0  # seconds for those who lost their connection to come back in
JOINED: Final = 64 * 1024  # bytes of events that are sent as one; it costs a copy

_Event: TypeAlias = "Callable[[str, bytes], live_events.Pieces]"
_TRANSIENT: Final = (DatabaseUnavailable, Busy, Conflict)


class LiveQuery:
    """``live`` must run as long as there are subscribers."""

    def __init__(
        self,
        look: Callable[[Snapshot | None, bool], Awaitable[Seen]],
        held: Held,
        grown: Callable[[int], None],
    ) -> None:
        """*look* is given the last snapshot, and whether to ask what the query reads. *grown* hears
        by how many bytes what is kept of the result has."""
        self._look = look
        self._held = held
        self._grown = grown
        self._name = secrets.token_hex(8)  # nobody else's ids, nor those of another run, are ours
        self._members: dict[Member, float] = {}  # and how often each wants a look, in seconds
        self._joined = trio.Event()
        self._following = trio.CancelScope()
        self._dropped = False
        # Looks that are due, by number: what counts as a write between two looks is one more.
        self._wanted = 1
        self._looked = 0
        self._due = trio.Event()
        self._seen = trio.Event()  # replaced by a new one after each look
        self._begun = -math.inf
        self._rested = -math.inf
        self._reads: Touched = None
        self._learn = True
        # What subscribers are told. A difference leads from the version before it to its own.
        self.snapshot: Snapshot | None = None
        self.failure: NotebookError | None = None
        self._failures = 0
        self._version = 0
        self._since = 0  # the first version that differences lead away from
        self._columns_since = 0
        self._differences: deque[bytes] = deque()
        self._size = 0  # of these
        self._events: dict[_Event, Sequence[bytes]] = {}  # with all of the result, as it is now
        self._news = trio.Event()  # replaced by a new one when there is something to tell

    @property
    def members(self) -> int:
        return len(self._members)

    @property
    def cost(self) -> int:
        return 0 if self.snapshot is None else self.snapshot.cost

    # Looking

    def wrote(self, touched: Touched) -> None:
        """These tables may have changed, and what they are."""
        if touched is None:
            self._learn, self._reads = True, None  # what its names stand for may have changed
        elif self._reads is not None and not touched & self._reads:
            return
        self._want()

    async def live(self) -> None:
        """Look when it is due, until nobody is left, and has not come back either."""
        try:
            while True:
                with trio.CancelScope() as self._following:
                    if self._members:
                        await self._follow()
                with trio.move_on_after(LINGER):
                    while not self._members and self.snapshot is not None and not self._dropped:
                        self._joined = trio.Event()
                        await self._joined.wait()
                if not self._members:
                    return
        finally:
            self._grown(-self.cost)

    def drop(self) -> None:
        """Do not wait for anybody to come back."""
        self._dropped = True
        self._joined.set()

    async def _follow(self) -> None:
        while True:
            await self._wait_until_due()
            wanted, learn = self._wanted, self._learn
            self._learn = False  # unless it is set while we look
            self._begun = trio.current_time()
            try:
                seen = await self._look(self.snapshot, learn)
            except NotebookError as exc:
                self._learn, self._reads = True, None
                self._failed(exc)
            except Exception:  # a task's top: whatever it is, this query alone fails
                logger.exception("a live query failed")
                self._learn = True
                self._failed(NotebookError("internal error; the server's log has the details"))
            except trio.Cancelled:
                self._learn = True
                raise
            else:
                if learn and not self._learn:
                    self._reads = seen.reads
                self._take(seen)
            now = trio.current_time()
            self._rested = now + max(PAUSE, now - self._begun)
            self._looked = wanted
            seen_by, self._seen = self._seen, trio.Event()
            seen_by.set()

    async def _wait_until_due(self) -> None:
        while self._wanted == self._looked:
            self._due = trio.Event()
            with trio.move_on_at(self._begun + self._every()) as waiting:
                await self._due.wait()
            if waiting.cancelled_caught:
                break
        await trio.sleep_until(self._rested)

    def _every(self) -> float:
        often = min(self._members.values(), default=math.inf)
        return min(often, RETRY) if isinstance(self.failure, _TRANSIENT) else often

    def _want(self) -> None:
        self._wanted += 1
        self._due.set()

    # What has been seen

    def _take(self, seen: Seen) -> None:
        recovered, self.failure = self.failure is not None, None
        before, self.snapshot = self.cost, seen.snapshot
        self._grown(self.cost - before)
        if seen.change is Change.SAME and not recovered:
            return
        self._version += 1
        self._events.clear()
        if seen.change is Change.DELTA and not recovered:
            event = live_events.delta(self._id(), seen.data)
            self._differences.append(event)
            self._size += len(event)
            while self._size > len(self.snapshot.data):  # this one included, if it is as large
                self._size -= len(self._differences.popleft())
                self._since += 1
        else:
            self._differences.clear()
            self._since, self._size = self._version, 0
            if seen.change is Change.RELOAD:
                self._columns_since = self._version
        self._tell()

    def _failed(self, failure: NotebookError) -> None:
        if self.failure is None or str(self.failure) != str(failure):
            self._failures += 1
            self._tell()
        self.failure = failure

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    # Subscribers

    def join(self, member: Member, every: float) -> None:
        self._members[member] = every
        self._dropped = False
        self._joined.set()
        if self.failure is not None or trio.current_time() > self._begun + FRESH:
            self._want()
        self._due.set()  # it may want a look sooner than the others

    def leave(self, member: Member) -> None:
        del self._members[member]
        self._held.give_back(member)
        if not self._members:
            self._following.cancel()
        self._due.set()  # it may have been the one that wanted the next look

    async def looked(self) -> None:
        """Wait for a look that began after all that has been written by now."""
        wanted = self._wanted
        while self._looked < wanted:
            await self._seen.wait()

    def version_of(self, id_: str) -> int | None:
        """Which version a client has that saw this id last; None if it is as good as none."""
        found = re.fullmatch(rf"{self._name}\.([0-9]{{1,18}})", id_)
        version = -1 if found is None else int(found[1])
        known = max(self._since, self._columns_since) <= version <= self._version
        return version if known else None

    def events(self, member: Member) -> Sequence[bytes]:
        """What *member* has to be told next, and is told by this; nothing if it knows all."""
        self._held.give_back(member)
        snapshot, has = self.snapshot, member.version
        if snapshot is None or has == self._version:
            if self.failure is None or member.failures == self._failures:
                return ()
            member.failures = self._failures
            return (live_events.error(str(self.failure) or self.failure.slug),)
        if has is not None and has >= self._since:
            return self._next_differences(member, has)
        member.version = self._version
        if len(snapshot.data) > JOINED:
            self._held.take(member, snapshot.data)
        if has is None:
            return self._whole(live_events.initial, snapshot)
        other_columns = has < self._columns_since
        return self._whole(live_events.reload if other_columns else live_events.update, snapshot)

    async def news(self) -> None:
        """Wait until there may be something to be told."""
        await self._news.wait()

    def _next_differences(self, member: Member, has: int) -> Sequence[bytes]:
        """Some of them: who is slow shall not hold on to many."""
        told: list[bytes] = []
        size = 0
        for place in range(has - self._since, len(self._differences)):
            event = self._differences[place]
            size += len(event)
            if told and size > JOINED:
                break
            told.append(event)
        if len(told[0]) > JOINED:  # so it is alone, and shared with whoever is sent it too
            self._held.take(member, told[0])
        member.version = has + len(told)
        return (b"".join(told),)

    def _whole(self, event: _Event, snapshot: Snapshot) -> Sequence[bytes]:
        """All of it, which is the same for all who need it in this way."""
        if event not in self._events:
            pieces = event(self._id(), snapshot.data)
            joined = len(snapshot.data) <= JOINED
            self._events[event] = (b"".join(pieces),) if joined else pieces
        return self._events[event]

    def _id(self) -> str:
        return f"{self._name}.{self._version}"


class Member:
    """One subscriber, and what it has been told. It is cut off by cancelling ``scope``."""

    __slots__ = ("failures", "scope", "version")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.version: int | None = None
        self.failures = 0

    def cut_off(self) -> None:
        logger.info("a subscription is cut off: its client reads too slowly")
        self.scope.cancel()
