"""The connections that come in by listening sockets, and how they all end.

Refuses to know HTTP beyond one canned 503, and to die: whatever ``accept`` says, the loop
waits a moment and goes on.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import trio

from notebook_rpc.transport.http11 import App, Connection, Limits
from notebook_rpc.transport.responses import HeadWriter
from notebook_rpc.transport.sockets import SocketStream
from notebook_rpc.transport.tls import TlsStream, secured

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

TURNED_AWAY = 64  # connections over the limit that may wait for their 503 to be read
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"retry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


class Listener:
    """Accepts connections and serves them all with one app, under one set of limits.

    ``serve`` may be called once.
    """

    def __init__(
        self,
        app: App,
        limits: Limits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._limits = limits or Limits()
        self._tls = tls
        self._heads = HeadWriter(wall_clock)
        self._accepting = trio.CancelScope()
        self._streams: set[SocketStream] = set()  # those that are being served
        self._sent = 0  # by those that were
        self._served = 0
        self._connections: set[Connection] = set()  # those past their handshake
        self._handshakes: set[trio.CancelScope] = set()
        self._turned_away = 0
        self._gone = trio.Event()  # replaced by a new one whenever a connection has ended

    @property
    def connections(self) -> int:
        """How many are being served."""
        return self._served

    @property
    def sent(self) -> int:
        """Bytes sent by all connections, open and closed; what TLS adds is among them."""
        return self._sent + sum(stream.sent for stream in self._streams)

    async def serve(
        self,
        sockets: Sequence[socket.socket],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on listening *sockets*, which are closed when accepting ends.

        Returns after ``drain``, once the last connection has ended. Cancel it to cut the
        connections off.
        """
        async with trio.open_nursery() as connections:
            try:
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        for sock in sockets:
                            sock.setblocking(False)
                            accepting.start_soon(self._accept, sock, connections)
                        task_status.started()
            finally:
                for sock in sockets:
                    sock.close()

    def drain(self) -> None:
        """Accept no more; let every connection answer what it has begun, then end."""
        self._accepting.cancel()
        for handshake in self._handshakes:
            handshake.cancel()
        for connection in self._connections:
            connection.drain()

    async def _accept(self, sock: socket.socket, connections: trio.Nursery) -> None:
        well = True
        while True:
            try:
                accepted, address = sock.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock)
            except ConnectionAbortedError:  # it left while it was waiting for us
                await trio.lowlevel.checkpoint()
            except OSError as exc:
                # Out of descriptors or memory, nearly always (EMFILE, ENFILE, ENOBUFS,
                # ENOMEM). The socket stays readable, so waiting on it would be spinning.
                if well:
                    logger.error("cannot accept connections: %s", exc)
                well = False
                with trio.move_on_after(1):
                    await self._gone.wait()
            else:
                well = True
                self._begin(accepted, address, connections)
                await trio.lowlevel.checkpoint()

    def _begin(self, accepted: socket.socket, address: object, connections: trio.Nursery) -> None:
        try:
            # Of IPv4 and IPv6 it begins with the host; a Unix socket's has no name.
            stream = SocketStream(accepted, address[0] if isinstance(address, tuple) else "")
        except OSError:  # reset before we looked: some systems refuse setsockopt then
            accepted.close()
            return
        if self._served < self._limits.connections:
            self._served += 1
            connections.start_soon(self._serve, stream)
        elif self._turned_away < TURNED_AWAY:
            self._turned_away += 1
            connections.start_soon(self._turn_away, stream)
        else:
            stream.abort()

    async def _serve(self, accepted: SocketStream) -> None:
        self._streams.add(accepted)
        try:
            stream = accepted if self._tls is None else await self._secured(accepted, self._tls)
            if stream is not None:
                await self._serve_on(stream, accepted.remote)
        except Exception:  # a task's top: a bug here must not end the other connections
            logger.exception("a connection failed")
        finally:
            self._served -= 1
            self._streams.discard(accepted)
            self._sent += accepted.sent
            self._gone.set()
            self._gone = trio.Event()

    async def _secured(self, accepted: SocketStream, context: ssl.SSLContext) -> TlsStream | None:
        with trio.CancelScope() as handshake:
            self._handshakes.add(handshake)
            if self._accepting.cancel_called:  # since it was accepted
                handshake.cancel()
            try:
                return await secured(accepted, context, self._limits.header_seconds)
            finally:
                self._handshakes.discard(handshake)
        await trio.aclose_forcefully(accepted)
        return None

    async def _serve_on(self, stream: SocketStream | TlsStream, remote: str) -> None:
        connection = Connection(stream, self._app, self._limits, self._heads, remote)
        self._connections.add(connection)
        if self._accepting.cancel_called:  # since it was accepted
            connection.drain()
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    async def _turn_away(self, stream: SocketStream) -> None:
        try:
            with trio.move_on_after(1):
                stream.send_now(BUSY)
                await stream.send_eof()
                while await stream.receive_some():  # closing before it has been read resets it
                    continue
        except trio.BrokenResourceError:
            logger.debug("a connection over the limit left by itself")
        finally:
            self._turned_away -= 1
            await trio.aclose_forcefully(stream)
