"""The SQLRooms protocol: queries, notifications and shared documents over one WebSocket.

docs/protocols/sqlrooms.md says what a client can rely on. A query has exactly one outcome: its
result, or an error, and a cancelled one an error too. What is too much to be taken in is not
read from the socket, and so is never refused.

What it refuses: to find one client's query by another's id, and to send a part of a result that
looks whole.
"""

from __future__ import annotations

import logging
import math
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from notebook_rpc.errors import InvalidRequest, NotebookError
from notebook_rpc.model import DEFAULT
from notebook_rpc.sansio import sqlrooms
from notebook_rpc.sansio.tokens import NOBODY
from notebook_rpc.surfaces._sqlrooms_queries import Load, Running, UnderWay
from notebook_rpc.surfaces._sqlrooms_rooms import Rooms
from notebook_rpc.web import WEBSOCKET, Response, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from msgspec import Raw, UnsetType

    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.surfaces._sqlrooms_queries import Queries
    from notebook_rpc.surfaces._sqlrooms_rooms import Said, Sync
    from notebook_rpc.web import Request, WebSocket

logger = logging.getLogger(__name__)


POLICY: Final = 1008  # RFC 6455, 7.4.1
UNAUTHORIZED: Final = "unauthorized"
MAX_REPLIES: Final = 1 << 20  # characters of acknowledgements that wait for a slow reader


class Listener(Protocol):
    """A client on the channels; ``services.channels.Listener`` explains each."""

    def subscribe(self, channel: str, /) -> None: ...
    def notify(self, channel: str, message: str, /) -> None: ...


class Channels(Protocol):
    def listening(self, deliver: Callable[[str], None], /) -> AbstractContextManager[Listener]: ...


@dataclass(frozen=True, slots=True)
class Options:
    """``max_queries`` of one socket are carried out at a time, and ``max_unsent`` is how many bytes
    of results may wait for a slow reader before no more are. ``max_bytes`` is what a socket may
    have under way, those that wait included, before no more is received from it.
    ``auth_seconds`` is how long a client may take to show its token. ``client_snapshots``: an
    empty room takes its first state from a client. ``on_error`` hears the slug of each error that
    a client is told; ``new_id`` makes an id for a query without."""

    max_queries: int = 256
    max_bytes: int = 64 << 20
    max_unsent: int = 8 << 20
    auth_seconds: float = 10
    client_snapshots: bool = True
    on_error: Callable[[str], None] = lambda _: None
    new_id: Callable[[], uuid.UUID] = uuid.uuid4


class SQLRooms:
    def __init__(
        self,
        queries: Callable[[str, User], Queries],
        authenticate: Callable[[str], User | None],
        channels: Channels,
        options: Options,
        sync: Sync | None = None,
    ) -> None:
        """*queries* gives a user those on a connection, or raises ``UnknownConnection``;
        *authenticate* says whose token a text is, and takes any where none are asked for."""
        self._queries = queries
        self._authenticate = authenticate
        self._channels = channels
        self._options = options
        self._sync = sync

    def routes(self) -> Iterable[Route]:
        yield Route(WEBSOCKET, "/", self.open, asks_for_token=True)

    async def open(self, request: Request) -> Response:
        connection = request.argument("connection") or DEFAULT
        if request.user is NOBODY:  # who learns nothing, not even which connections there are
            return Response(101, conversation=partial(self._admit, connection))
        try:
            queries = self._queries(connection, request.user)
        except NotebookError as exc:
            return Response(exc.http_status)
        return Response(101, conversation=partial(self._converse, queries, request.user))

    async def _admit(self, connection: str, socket: WebSocket) -> None:
        user: User | None = None
        with trio.move_on_after(self._options.auth_seconds):
            user = self._shown(await socket.receive())
        if user is None:
            await _refuse(socket)
            return
        try:
            queries = self._queries(connection, user)
        except NotebookError as exc:
            await socket.send(_told(self._options, exc))
            await socket.close(POLICY, exc.slug)
            return
        await socket.send(sqlrooms.AUTH_ACK)
        await self._converse(queries, user, socket)

    def _shown(self, message: str | bytes) -> User | None:
        """Whose token *message* shows, which is the first."""
        try:
            shown = sqlrooms.parse(message) if isinstance(message, str) else None
        except NotebookError:
            return None
        return self._authenticate(shown.token or "") if isinstance(shown, sqlrooms.Auth) else None

    async def _converse(self, queries: Queries, user: User, socket: WebSocket) -> None:
        options = self._options
        rooms = None
        if self._sync is not None:
            rooms = Rooms(
                *(socket, self._sync, partial(_told, options)),
                client_snapshots=options.client_snapshots,
                read_only=user.read_only,
            )
        with self._channels.listening(socket.post) as listener:
            client = _Client(socket, queries, listener, self._authenticate, options, rooms)
            await client.run()


async def _refuse(socket: WebSocket) -> None:
    logger.warning("closed a socket that showed no valid token")
    await socket.send(sqlrooms.error(UNAUTHORIZED))
    await socket.close(POLICY, UNAUTHORIZED)


def _told(options: Options, exc: NotebookError, id_: str | None = None) -> str:
    options.on_error(exc.slug)
    return sqlrooms.error(str(exc), id_)


class _Client:
    """One socket whose user is known.

    The task that receives only receives: what it starts, others finish, and what is to be sent
    others send. It may wait for room, never for a query that a message behind could cancel.
    """

    def __init__(
        self,
        socket: WebSocket,
        queries: Queries,
        listener: Listener,
        authenticate: Callable[[str], User | None],
        options: Options,
        rooms: Rooms | None,
    ) -> None:
        self._socket = socket
        self._queries = queries
        self._listener = listener
        self._authenticate = authenticate
        self._options = options
        self._rooms = rooms
        self._load = Load(socket, options.max_bytes)
        self._unsaid = Load(socket, MAX_REPLIES, besides=0)
        self._replies, self._to_send = trio.open_memory_channel[tuple[str, UnderWay]](math.inf)
        self._running: Running

    async def run(self) -> None:
        told, options = partial(_told, self._options), self._options
        async with trio.open_nursery() as nursery:
            self._running = Running(
                *(self._socket, self._queries, nursery, self._load, told),
                turns=trio.Semaphore(options.max_queries),
                max_unsent=options.max_unsent,
            )
            nursery.start_soon(self._send_replies)
            if self._rooms is not None:
                nursery.start_soon(self._rooms.run)
            while True:
                try:
                    # No name for it here: what was taken would be kept until the next has come.
                    await self._take(await self._socket.receive())
                except NotebookError as exc:
                    await self._reply(told(exc))

    async def _take(self, message: str | bytes) -> None:
        if isinstance(message, str):
            try:
                parsed = sqlrooms.parse(message)
            except InvalidRequest as exc:
                await self._reply(_told(self._options, exc, sqlrooms.id_in(message)))
                return
            await HANDLERS[type(parsed)](self, parsed, len(message))
        elif found := sqlrooms.split(message):
            asked, begin = found
            # A copy, as a driver takes bytes: some milliseconds for the largest message.
            stream = message[begin:]
            await self._begin(asked.query_id, lambda id_: self._running.upload(id_, asked, stream))
        elif self._rooms is not None:
            await self._say(self._rooms, message, len(message))
        else:
            raise InvalidRequest("binary not supported")

    async def _reply(self, text: str) -> None:
        self._replies.send_nowait((text, await self._unsaid.enter(len(text))))

    async def _send_replies(self) -> None:
        async for text, under_way in self._to_send:
            with under_way:
                await self._socket.send(text)

    async def statement(self, asked: sqlrooms.Statement, size: int) -> None:
        await self._begin(asked.query_id, lambda id_: self._running.statement(id_, asked, size))

    async def _begin(self, given: Raw | UnsetType, begin: Callable[[str], Awaitable[None]]) -> None:
        id_ = sqlrooms.query_id(given) or f'"{self._options.new_id()}"'
        try:
            await begin(id_)
        except NotebookError as exc:
            await self._reply(_told(self._options, exc, id_))

    async def cancel(self, asked: sqlrooms.Cancel, _: int) -> None:
        id_ = sqlrooms.query_id(asked.query_id)
        await self._reply(sqlrooms.cancel_ack(id_, cancelled=self._running.cancel(id_)))

    async def subscribe(self, asked: sqlrooms.Subscribe, _: int) -> None:
        channel = sqlrooms.channel(asked.channel)
        self._listener.subscribe(channel)
        await self._reply(sqlrooms.subscribed(channel))

    async def notify(self, asked: sqlrooms.Notify, _: int) -> None:
        channel = sqlrooms.channel(asked.channel)
        notification = sqlrooms.notification(channel, asked.payload)
        self._listener.notify(channel, notification)
        await self._reply(notification)
        await self._reply(sqlrooms.notify_ack(channel))

    # Rooms

    async def say(self, said: sqlrooms.Join | sqlrooms.Seed, size: int) -> None:
        if self._rooms is None:
            raise InvalidRequest("invalid message")
        await self._say(self._rooms, said, size)

    async def _say(self, rooms: Rooms, said: Said, size: int) -> None:
        rooms.say(said, await self._load.enter(size))

    # A token, where none was asked for any more. Whose the socket is has been decided.

    async def auth(self, asked: sqlrooms.Auth, _: int) -> None:
        if self._authenticate(asked.token or "") is None:
            await _refuse(self._socket)
        await self._reply(sqlrooms.AUTH_ACK)


HANDLERS: Final[Mapping[type, Callable[[_Client, Any, int], Awaitable[None]]]] = {
    sqlrooms.Arrow: _Client.statement,
    sqlrooms.Json: _Client.statement,
    sqlrooms.Exec: _Client.statement,
    sqlrooms.Cancel: _Client.cancel,
    sqlrooms.Subscribe: _Client.subscribe,
    sqlrooms.Notify: _Client.notify,
    sqlrooms.Join: _Client.say,
    sqlrooms.Seed: _Client.say,
    sqlrooms.Auth: _Client.auth,
}
