"""Routes of the user's, put together: scripts are loaded, and again when they change, and their
handlers get threads and a desk at the databases."""

from __future__ import annotations

import logging
import math
import re
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import partial
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from notebook_rpc import references, runtime, scripts
from notebook_rpc.audit import Guard, guarded, unguarded
from notebook_rpc.errors import Busy, NotebookError, QueryError
from notebook_rpc.model import DEFAULT
from notebook_rpc.sansio.tokens import ANYBODY
from notebook_rpc.services.files import Files
from notebook_rpc.services.handlers import Handlers
from notebook_rpc.settings import ConfigError
from notebook_rpc.surfaces.routes import Options, Routes, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from notebook_rpc.backend import Backend
    from notebook_rpc.model import Parameters, ResultColumn
    from notebook_rpc.runtime import Ask, Lane, Rows
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.scripts import Modules, Stamp
    from notebook_rpc.services.queries import Queries
    from notebook_rpc.settings import Settings
    from notebook_rpc.web import Surface

logger = logging.getLogger(__name__)

LOOK: Final = 0.3  # seconds between two looks at the files; they are read when two agree
SMALL: Final = 16 * 1024  # bytes of JSON that the event loop may read without being noticed
_EXACT: Final = re.compile(r"(?i)(decimal|numeric|number)(\([0-9, ]*\))?")


class Scripting:
    """The scripts of a server. Its ``surface`` has no routes before ``load``."""

    def __init__(self, settings: Settings, backend: Backend, others: Iterable[Surface]) -> None:
        """*others* are the surfaces whose routes are taken.

        Raises:
            ConfigError: a folder of ``--allowed-paths`` cannot be used.
        """
        self._paths = settings.routes
        self._backend = backend
        self._taken = [(each.method, each.path) for other in others for each in other.routes()]
        self._handlers = Handlers(
            settings.max_handlers, settings.handler_timeout, settings.max_queue
        )
        folders = references.folders(settings)
        self._guard = None if folders is None else Guard(folders)
        self._limit = settings.max_page
        self._seconds = settings.handler_timeout
        self._seats = Seats(settings.max_pool, settings.handler_timeout)
        self._modules: Modules | None = None
        self._watched: Mapping[Path, Stamp] = {}
        self.surface = Routes(
            Site(),
            self._handlers,
            self._desk,
            Files(backend.workers),
            Options(settings.handler_timeout, partial(guarded, self._guard), backend.meters.error),
        )
        gauge, handlers = backend.meters.gauge, self._handlers
        gauge("handlers", "Handlers that run on a thread.", lambda: handlers.running)
        text = "Of these, the ones that nobody waits for any more."
        gauge("handlers_left_behind", text, lambda: handlers.left_behind)

    async def load(self, seconds: float = math.inf) -> None:
        """
        Raises:
            ConfigError: a script cannot be used; the message has its file and line.
            HandlerTimeout: it takes longer than *seconds*.
            Busy: all threads are taken.
        """
        modules = scripts.Modules()
        before = await self._look(self._watched)  # so that what changes meanwhile is seen

        def work(ask: Ask) -> Site:
            runtime.ASK.set(ask)
            return scripts.load(self._paths, self._taken, modules)

        try:
            async with self._desk(ANYBODY) as desk:
                token = runtime.DESK.set(desk)
                try:
                    with guarded(self._guard):
                        site = await self._handlers.run(work, "a setup script", seconds=seconds)
                finally:
                    runtime.DESK.reset(token)
        except BaseException as exc:
            modules.forget()
            if not isinstance(exc, Busy):  # which has read nothing, and is to be tried again
                self._watched = {**before, **modules.files}
            raise
        self._watched = {**before, **modules.files}
        self.surface.site = site
        if self._modules is not None:
            self._modules.forget()
        self._modules = modules

    async def reload(self, refresh: Callable[[], None]) -> None:
        """Load the scripts again whenever they change, until cancelled, and have the routes
        asked for again."""
        seen: Mapping[Path, Stamp] = self._watched
        while True:
            await trio.sleep(LOOK)
            try:
                if self._modules is not None:  # it may have imported more since it was loaded
                    self._watched = {**self._modules.files, **self._watched}
                found = await self._look(self._watched)
                settled, seen = found == seen, found
                if found == self._watched or not settled:
                    continue
                await self.load(self._seconds)
                refresh()
                logger.info("the routes were loaded again")
            except (ConfigError, NotebookError) as exc:
                logger.error("the routes stay as they were: %s", exc)
            except Exception:  # a task's top: whatever a script has done, all else goes on
                logger.exception("the routes stay as they were")

    def close(self) -> None:
        self._handlers.close()
        if self._modules is not None:
            self._modules.forget()

    async def _look(self, files: Iterable[Path]) -> dict[Path, Stamp]:
        """What tells *files* from what they were. It waits for no place among the statements, as
        there is one look at a time."""
        return await self._backend.workers.run_beyond(partial(scripts.stamps, files))

    def _desk(self, user: User) -> _Desk:
        return _Desk(self._backend, user, self._seats, self._limit)


class Seats:
    """For sessions, at most *limit* of all scripts together; *seconds* is how long one waits for
    a place. Without an end to it, those that have one and wait for another could wait for each
    other: not everything that may wait has a time of its own."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._free = trio.Semaphore(limit, max_value=limit)
        self._limit = limit
        self._seconds = seconds

    async def take(self) -> None:
        """
        Raises:
            Busy: there was none in time.
        """
        with trio.move_on_after(self._seconds):
            await self._free.acquire()
            return
        raise Busy(f"all {self._limit} sessions that scripts may have open at a time are")

    def give_back(self) -> None:
        self._free.release()


class _Desk:
    """The databases, as one request's user may use them; ``runtime.Desk``."""

    def __init__(self, backend: Backend, user: User, seats: Seats, limit: int) -> None:
        self._backend = backend
        self._user = user
        self._seats = seats
        self._limit = limit
        self._queries: dict[str, Queries] = {}
        self._open: set[_Session] = set()

    async def __aenter__(self) -> _Desk:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what the handler has left open."""
        async with AsyncExitStack() as stack:  # which closes the others if one does not close
            for session in self._open:
                stack.push_async_callback(session.forgotten)

    async def query(self, sql: str, params: Parameters | None, connection: str | None, /) -> Rows:
        with unguarded():
            return await self.read(self.queries(connection), sql, params)

    def session(self, connection: str | None, /) -> AbstractAsyncContextManager[Lane]:
        return _Session(self, connection, self._seats, self._open)

    def queries(self, connection: str | None) -> Queries:
        """Always the same of one connection: a request is one client."""
        name = DEFAULT if connection is None else connection
        if name not in self._queries:
            self._queries[name] = self._backend.queries(name, self._user)
        return self._queries[name]

    async def read(self, queries: Queries, sql: str, params: Parameters | None) -> Rows:
        pieces: list[bytes | memoryview] = []
        size = 0
        async with queries.rows(sql, params) as answer:
            columns, count = answer.columns, answer.count
            while more := await answer.read():
                pieces += more
                size += sum(map(len, more))
                if size > self._limit:
                    raise QueryError(f"the rows are more than {self._limit} bytes; ask for fewer")
        work = partial(_rows, pieces, columns, count)
        return work() if size <= SMALL else await self._backend.workers.run(work)


class _Session:
    """``runtime.Lane``, while it is open."""

    def __init__(
        self, desk: _Desk, connection: str | None, seats: Seats, among: set[_Session]
    ) -> None:
        self._desk = desk
        self._connection = connection
        self._seats = seats
        self._among = among
        self._stack = AsyncExitStack()
        self._queries: Queries

    async def __aenter__(self) -> _Session:
        if self in self._among:
            raise RuntimeError("the session is open already")
        queries = self._desk.queries(self._connection)
        async with AsyncExitStack() as stack:
            self._among.add(self)
            stack.callback(self._among.discard, self)
            await self._seats.take()
            stack.callback(self._seats.give_back)
            with unguarded():
                self._queries = await stack.enter_async_context(queries.alone())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        with unguarded():
            await self._stack.aclose()

    async def forgotten(self) -> None:
        """Close it behind a handler that has not."""
        try:
            await self.__aexit__()
        except Exception:  # of whatever driver: the handler has ended, and has its answer
            logger.warning("a session that was left open did not close well", exc_info=True)

    async def query(self, sql: str, params: Parameters | None, /) -> Rows:
        with unguarded():
            return await self._desk.read(self._queries, sql, params)


def _rows(
    pieces: Sequence[bytes | memoryview], columns: Sequence[ResultColumn], count: int
) -> Rows:
    names = tuple(column.column for column in columns)
    if not names:
        return runtime.Rows((), names, count)
    kinds = [Decimal | None if _EXACT.fullmatch(each.datatype) else Any for each in columns]
    row = GenericAlias(tuple, tuple(kinds))  # as tuple[...], but of types known only now
    text = b"".join(pieces)
    try:
        decoded = msgspec.json.decode(text, type=GenericAlias(list, (row,)))
    except msgspec.ValidationError:  # SQLite has texts in columns of any type
        decoded = msgspec.json.decode(text)
    return runtime.Rows((dict(zip(names, row, strict=True)) for row in decoded), names, count)
