"""A WebSocket client that does as little as it can, so that a server is measured and not it.

It makes frames beforehand where it is asked to, and of an answer that is skipped it looks at the
frames' heads alone. It believes what a server sends, and offers no compression.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x5a\xc3\x17\x2e"


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A whole message as a client sends it, masked."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    masked = bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))
    return bytes([0x80 | opcode]) + length + MASK + masked


class Client:
    """One WebSocket on a blocking socket."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        self.unread = bytearray()
        while b"\r\n\r\n" not in self.unread:
            self.receive()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), bytes(head)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def receive(self) -> None:
        segment = self.socket.recv(1 << 16)
        if not segment:
            raise ConnectionResetError("the server has gone")
        self.unread += segment

    def need(self, size: int) -> None:
        while len(self.unread) < size:
            self.receive()

    def head(self) -> tuple[bool, int, int]:
        """The next frame's: whether it is the message's last, its opcode, its size."""
        self.need(2)
        first, size = self.unread[:2]
        more = {126: 2, 127: 8}.get(size, 0)
        self.need(2 + more)
        if more:
            size = int.from_bytes(self.unread[2 : 2 + more], "big")
        del self.unread[: 2 + more]
        return first & 0x80 != 0, first & 0x0F, size

    def message(self) -> bytes:
        """The next message, text or binary."""
        whole = b""
        while True:
            last, opcode, size = self.head()
            self.need(size)
            payload = self.take(opcode, size)
            if payload is not None:
                whole += payload
                if last:
                    return whole

    def take(self, opcode: int, size: int) -> bytes | None:
        """The payload of the frame at hand; None if it is no part of a message, and was seen to."""
        payload = bytes(self.unread[:size])
        del self.unread[:size]
        if opcode == PING:
            self.socket.sendall(frame(payload, PONG))
        elif opcode == CLOSE:
            raise ConnectionResetError(f"closed: {payload!r}")
        return None if opcode in (PING, PONG) else payload

    def arrived(self) -> Iterator[bytes]:
        """The messages that are here by now, each of one short frame. Waits for nothing, so that
        one task can serve many sockets: behind a ping there may be no message for long."""
        while len(self.unread) >= 2:
            _, size = self.unread[:2]
            assert size <= 126, "a large one"
            need = 2 if size < 126 else 4
            if size == 126 and len(self.unread) >= need:
                size = int.from_bytes(self.unread[2:4], "big")
            if len(self.unread) < need + size:
                return
            _, opcode, size = self.head()
            payload = self.take(opcode, size)
            if payload is not None:
                yield payload

    def skip_message(self, into: memoryview) -> tuple[float, float, int]:
        """When the first byte of the next message and its first megabyte came, and its size."""
        self.need(1)
        first = time.perf_counter()
        megabyte = 0.0
        total = 0
        last = False
        while not last:
            last, _, size = self.head()
            left = size - len(self.unread)
            del self.unread[:size]
            while left > 0:
                received = self.socket.recv_into(into[: min(left, len(into))])
                if not received:
                    raise ConnectionResetError("the server has gone")
                left -= received
                if not megabyte and total + size - left > 1_000_000:
                    megabyte = time.perf_counter()
            total += size
        return first, megabyte, total
