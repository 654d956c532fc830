"""A connected socket as a stream of Trio's.

Refuses to ask the kernel twice where once is enough, and to know what the bytes mean.
"""

from __future__ import annotations

import operator
import os
import select
import socket
import struct
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

RECEIVE = 64 * 1024  # bytes
MAX_GATHERED = 1024  # pieces sent at once; the kernel's own limit (IOV_MAX) where it has one


class SocketStream(trio.abc.HalfCloseableStream):
    """A connected socket. Unlike Trio's own it asks the kernel once where once is enough.

    ``send_now`` is no checkpoint; ``receive_some`` always is one. ``sent`` is how many bytes
    were sent so far, ``remote`` the address of the peer, "" where there are none.
    """

    __slots__ = ("_sent_eof", "_socket", "remote", "sent")

    def __init__(self, sock: socket.socket, remote: str = "") -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._sent_eof = False
        self.remote = remote
        self.sent = 0

    def send_now(self, data: bytes | memoryview) -> int:
        if self._sent_eof:
            raise trio.ClosedResourceError("the end was already sent")
        try:
            count = self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self._broken() from exc
        self.sent += count
        return count

    def gather_now(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Send of *pieces*, without joining them, what goes at once; the number of bytes."""
        if self._sent_eof:
            raise trio.ClosedResourceError("the end was already sent")
        try:
            if len(pieces) == 1 or not hasattr(self._socket, "sendmsg"):  # Windows has none
                count = self._socket.send(pieces[0])
            else:
                count = self._socket.sendmsg(pieces[:MAX_GATHERED])
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self._broken() from exc
        self.sent += count
        return count

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_open()
        if not data:
            await trio.lowlevel.checkpoint()
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):  # waits first: ``send_now`` is for those who would rather not
                await trio.lowlevel.wait_writable(self._socket)
                sent += self.send_now(view[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        self._check_open()
        await trio.lowlevel.wait_writable(self._socket)

    async def send_eof(self) -> None:
        self._check_open()
        await trio.lowlevel.checkpoint()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise self._broken() from exc
        self._sent_eof = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self._check_open()
        size = RECEIVE if max_bytes is None else operator.index(max_bytes)
        if size < 1:
            raise ValueError("max_bytes must be positive")
        # While the others have their turn, the next request of a busy client arrives: to look
        # first costs less than to tell the kernel to wait (8 to 18 % of all requests a second).
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self._socket.recv(size)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as exc:
                raise self._broken() from exc

    def hung_up(self) -> bool:
        """Whether the peer has closed or shut down its side (where poll tells: on Linux)."""
        if not hasattr(select, "poll"):
            return False
        poller = select.poll()
        poller.register(self._socket, getattr(select, "POLLRDHUP", 0))
        return bool(poller.poll(0))

    def abort(self) -> None:
        """Close with a reset; bytes still unsent are thrown away."""
        if self._socket.fileno() != -1:
            on, seconds = 1, 0
            linger = struct.pack("ii" if os.name != "nt" else "hh", on, seconds)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._close()

    async def aclose(self) -> None:
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _check_open(self) -> None:
        if self._socket.fileno() == -1:
            raise trio.ClosedResourceError("this socket was already closed")

    def _broken(self) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if self._socket.fileno() == -1:
            return trio.ClosedResourceError("this socket was already closed")
        return trio.BrokenResourceError("the connection broke")
