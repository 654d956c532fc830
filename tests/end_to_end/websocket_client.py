"""A WebSocket client for the end-to-end tests: wsproto over a Trio stream, and nothing more.

It answers pings, puts fragments together and says how the socket was closed. It keeps nothing
back: what is not received stays in the socket, so that a test can be a slow reader.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

CHUNK = 256 * 1024  # bytes


class Refused(Exception):
    """The server answered with an ordinary response instead of opening the socket."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Closed(Exception):
    """The server has closed the socket; ``code`` is None if it did so without a word."""

    def __init__(self, code: int | None, reason: str | None = None) -> None:
        super().__init__(f"closed with {code}: {reason}")
        self.code = code
        self.reason = reason


class WebSocketClient:
    """One open socket, which one task may receive from and one send to at a time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.subprotocol: str | None = None
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: deque[Event] = deque()

    async def open(
        self,
        host: str,
        target: str,
        headers: Sequence[tuple[bytes, bytes]],
        subprotocols: Sequence[str],
    ) -> None:
        """Raises ``Refused``."""
        asked = Request(host, target, extra_headers=list(headers), subprotocols=list(subprotocols))
        await self._send_event(asked)
        answer = await self._next()
        if isinstance(answer, RejectConnection):
            raise Refused(answer.status_code)
        assert isinstance(answer, AcceptConnection), answer
        self.subprotocol = answer.subprotocol

    async def send(self, message: str | bytes) -> None:
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        await self._send_event(event)

    async def send_json(self, message: object) -> None:
        await self.send(json.dumps(message))

    async def receive(self) -> str | bytes:
        """The next message, whole. Raises ``Closed``."""
        pieces: list[str | bytes] = []
        while True:
            event = await self._next()
            if isinstance(event, Ping):
                await self._send_event(event.response())
            elif isinstance(event, CloseConnection):
                with suppress(trio.BrokenResourceError, LocalProtocolError):
                    await self._send_event(event.response())
                raise Closed(event.code, event.reason)
            elif isinstance(event, TextMessage | BytesMessage):
                pieces.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
                if event.message_finished:
                    return pieces[0][:0].join(pieces)  # type: ignore[arg-type]  # all of one kind

    async def begins(self) -> None:
        """Wait until there is something of the next message, and leave it where it is."""
        if not self._events:
            self._events.appendleft(await self._next())

    async def receive_json(self) -> Any:
        message = await self.receive()
        assert isinstance(message, str), message[:100]
        return json.loads(message)

    async def close(self, code: int = 1000) -> int | None:
        """Close the socket as one should; the code of the answer."""
        await self._send_event(CloseConnection(code))
        while True:
            try:
                await self.receive()
            except Closed as closed:
                return closed.code

    async def _send_event(self, event: Event) -> None:
        await self.stream.send_all(self._protocol.send(event))

    async def _next(self) -> Event:
        while not self._events:
            data = await self.stream.receive_some(CHUNK)
            if not data:
                raise Closed(None)
            self._protocol.receive_data(bytes(data))
            self._events.extend(self._protocol.events())
        return self._events.popleft()


@asynccontextmanager
async def connected(
    port: int,
    target: str = "/",
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    subprotocols: Sequence[str] = (),
) -> AsyncIterator[WebSocketClient]:
    """An open socket to the server on *port*. It is cut at the end of the block, without a word,
    unless the block has closed it. Raises ``Refused``."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        client = WebSocketClient(stream)
        await client.open(f"127.0.0.1:{port}", target, headers, subprotocols)
        yield client
