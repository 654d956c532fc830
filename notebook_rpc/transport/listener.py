"""Listening sockets, the connections that come in by them, and how they all end.

Refuses to know HTTP beyond one canned 503, and to die: whatever ``accept`` says, the loop
waits a moment and goes on.
"""

from __future__ import annotations

import errno
import logging
import operator
import os
import select
import socket
import stat
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from notebook_rpc.transport.http11 import App, Connection, Limits
from notebook_rpc.transport.responses import HeadWriter
from notebook_rpc.transport.tls import TlsStream, secured

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

BACKLOG = 1024  # connections the kernel holds for us; it lowers this to its own limit
RECEIVE = 64 * 1024  # bytes
MAX_GATHERED = 1024  # pieces sent at once; the kernel's own limit (IOV_MAX) where it has one
LOCK_SECONDS = 10  # a server that starts holds the lock for one at most
TURNED_AWAY = 64  # connections over the limit that may wait for their 503 to be read
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"retry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


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


async def open_tcp(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of *host*; with port 0, all on one free port.

    "localhost" is 127.0.0.1 and ::1, whatever a resolver may say (RFC 6761, 6.3): browsers
    do the same, and no name server can make us listen elsewhere.

    Raises:
        OSError: there is no such host, or the address is taken or not ours.
    """
    addresses: list[tuple[int, tuple[object, ...]]] = []
    try:
        for name in ("127.0.0.1", "::1") if host == "localhost" else (host,):
            found = await trio.socket.getaddrinfo(
                name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            addresses += [(family, address) for family, _, _, _, address in found]
    except (OSError, UnicodeError) as exc:  # a name too odd for IDNA is a UnicodeError
        number = exc.errno if isinstance(exc, OSError) else errno.EINVAL
        raise OSError(number, f"cannot listen on {host}: {exc}") from exc
    attempts = 8 if port == 0 else 1  # a port that is free for IPv4 may be taken for IPv6
    while True:
        attempts -= 1
        try:
            return _bind_all(dict.fromkeys(addresses))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or attempts == 0:
                reason = os.strerror(exc.errno) if exc.errno else str(exc)
                message = f"cannot listen on {host} port {port}: {reason}"
                raise OSError(exc.errno, message) from exc


def _bind_all(addresses: Iterable[tuple[int, tuple[object, ...]]]) -> list[socket.socket]:
    bound: list[socket.socket] = []
    missing: OSError | None = None
    port: object = 0
    try:
        for family, address in addresses:
            chosen = (address[0], address[1] or port, *address[2:])
            try:
                bound.append(_bind(family, chosen))
            except OSError as exc:
                # "localhost" is ::1 too, also where IPv6 is switched off.
                if exc.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                missing = exc
            else:
                port = bound[-1].getsockname()[1]
        if not bound and missing is not None:
            raise missing
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def _bind(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # there it would let others bind the same port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def open_unix(path: Path) -> socket.socket:
    """A listening socket at *path* that this user alone may connect to (mode 0600).

    One that a server has left behind is replaced; one that is listened on is not.

    Raises:
        OSError: it is in use, something else is there, or the folder is not ours to write.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under another name until its mode is right: nobody connects before.
    fresh = path.parent / f".{path.name}.{os.getpid()}"
    try:
        with locked(path.parent):
            if _is_listened_on(path):
                raise OSError(errno.EADDRINUSE, f"cannot listen on {path}: somebody does already")
            fresh.unlink(missing_ok=True)
            sock.bind(str(fresh))
            fresh.chmod(0o600)
            sock.listen(BACKLOG)
            fresh.rename(path)
    except (OSError, ValueError) as exc:  # the latter of names that are none
        sock.close()
        fresh.unlink(missing_ok=True)
        number = exc.errno if isinstance(exc, OSError) else errno.EINVAL
        reason = getattr(exc, "strerror", None) or str(exc)  # "AF_UNIX path too long" has no number
        if not reason.startswith("cannot"):
            reason = f"cannot listen on {path}: {reason}"
        raise OSError(number, reason) from exc
    return sock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other servers from putting their sockets into *folder*, or removing them, meanwhile.

    Of two that start at once, each would find that nobody listens, and replace the other's. The
    folder itself is locked, which leaves no file behind.

    Raises:
        OSError: it is not there, or somebody holds the lock for very long.
    """
    import fcntl  # noqa: PLC0415  # POSIX only, as Unix sockets are to Python

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # nothing is served yet, or no more
            except OSError as exc:  # NFS, for one, locks no folders
                logger.debug("cannot lock %s: %s", folder, exc)
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _is_listened_on(path: Path) -> bool:
    """Raises ``OSError`` if what is there is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f"cannot listen on {path}: it exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except (BlockingIOError, TimeoutError):  # its backlog is full: somebody is there, and busy
            return True
    return True
