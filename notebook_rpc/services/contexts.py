"""The connections of a server, by context and name: those it was started with, those that were
kept, and those that clients register while it runs.

Those it was started with are its own: no client replaces them. What a URL of a client may be is
decided elsewhere (``Prepare``), and so is how it is kept (``Keep``).
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

import trio

from notebook_rpc.errors import Forbidden, TooManyConnections, UnknownConnection
from notebook_rpc.sansio.addresses import Address, check_name, context_and_name, key

if TYPE_CHECKING:
    from notebook_rpc.driver import Database
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.services.workers import Workers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What was found out of a URL before anything is opened: where it leads, what opens it, and
    the name of its driver."""

    address: Address
    open: Callable[[], Database]
    engine: str


Prepare: TypeAlias = Callable[[str], Prepared]
"""Of a URL. Blocks; raises ``NotebookError`` for what a client may not open."""

Keep: TypeAlias = Callable[[str, str, str], None]
"""Keep the connection of that context and name with that URL. Blocks; raises ``NotKept``."""


class Databases(Protocol):
    """``backend.Backend`` explains each."""

    async def put(self, key: str, opener: Callable[[], Database], engine: str, /) -> None: ...
    def is_open(self, key: str, /) -> bool: ...


class Contexts:
    def __init__(
        self,
        own: Mapping[str, Address],
        kept: Mapping[str, Address],
        databases: Databases,
        workers: Workers,
        prepare: Prepare,
        keep: Keep,
        limit: int,
    ) -> None:
        """*own* and *kept* are by their keys. *limit* is how many there may be besides the server's
        own."""
        self._own = own
        self._others = dict(kept)
        self._kept = set(kept)
        self._urls: dict[str, str] = {}  # of those that were registered, to know them again
        self._databases = databases
        self._workers = workers
        self._prepare = prepare
        self._keep = keep
        self._limit = limit
        self._opening: set[str] = set()
        # One at a time for each name, and none in the way of others: to open may take long.
        self._turns: weakref.WeakValueDictionary[str, trio.Lock] = weakref.WeakValueDictionary()

    def key(self, context: str, name: str) -> str:
        """What the connection is called where there are no contexts.

        Raises:
            UnknownConnection: there is none.
        """
        found = key(context, name)
        if found not in self._own and found not in self._others:
            raise UnknownConnection(f"Unknown connection: {name!r}")
        return found

    def dialect(self, key: str) -> str:
        """The database's name in SQLAlchemy; that of the driver if it has none."""
        return (self._own.get(key) or self._others[key]).dialect

    def lasting(self) -> dict[str, list[str]]:
        """The names in each context, of those that a server started anew would have."""
        found: dict[str, list[str]] = {}
        for each in [*self._own, *(each for each in self._others if each in self._kept)]:
            context, name = context_and_name(each)
            found.setdefault(context, []).append(name)
        return found

    def all(self) -> dict[str, dict[str, Address | None]]:
        """Where each of them is, by context and name; None for one that is not open."""
        found: dict[str, dict[str, Address | None]] = {}
        for each, address in [*self._own.items(), *self._others.items()]:
            context, name = context_and_name(each)
            shown = address if self._databases.is_open(each) else None
            found.setdefault(context, {})[name] = shown
        return found

    async def register(
        self, context: str, name: str, url: str, user: User, *, persist: bool = False
    ) -> Address:
        """Open the database of *url*, as this connection from now on. To register what is so
        already changes nothing.

        Raises:
            Forbidden: *user* may only read, the name is one of the server's own, or *url* leads
                where clients may not go.
            InvalidParams: a name or *url* is malformed.
            TooManyConnections: there are as many as there may be.
            MissingDriver: what the driver needs is not installed.
            DatabaseError: the database cannot be opened; what was so before still is.
            NotKept: it is registered, but could not be kept.
        """
        if user.read_only:
            raise Forbidden("who may only read cannot register connections")
        check_name(context, "context")
        check_name(name, "name")
        found = key(context, name)
        if found in self._own:
            raise Forbidden(f"{found} is the server's own; register under another name")
        turn = self._turns.setdefault(found, trio.Lock())
        async with turn:
            taken = self._others.keys() | self._opening
            if found not in taken and len(taken) >= self._limit:
                raise TooManyConnections(
                    f"there are {self._limit} registered connections, and no more may be"
                )
            self._opening.add(found)
            try:
                return await self._register(context, name, url, persist=persist)
            finally:
                self._opening.discard(found)

    async def _register(self, context: str, name: str, url: str, *, persist: bool) -> Address:
        found = key(context, name)
        prepared = await self._workers.run(partial(self._prepare, url))
        if self._urls.get(found) != url or not self._databases.is_open(found):
            with trio.CancelScope(shield=True):  # nobody can interrupt what opens a database
                await self._databases.put(found, prepared.open, prepared.engine)
            self._others[found] = prepared.address
            self._urls[found] = url
            logger.info("%s was registered", found)
        if persist:
            await self._workers.run(partial(self._keep, context, name, url))
            self._kept.add(found)
        return prepared.address
