"""Hostile clients, as a program of their own: ``python attackers.py PORT SECONDS NAME...``.

Apart from the test, so that they take neither its time nor its descriptors. Each goes on for so
many seconds, whatever the server says, and then leaves.
"""

from __future__ import annotations

import random
import resource
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GARBAGE = random.Random(1995).randbytes(5_000_000)  # noqa: S311  # nothing secret
ZEROS = bytes(1 << 20)


class Attack:
    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._end = time.monotonic() + seconds

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self._end

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=5)

    def crowd(self) -> None:
        """900 connections that have asked once, and stay."""
        self._hold(900, HEAD + b"Content-Length: 2\r\n\r\n{}")

    def slow(self) -> None:
        """300 connections that send a head, a byte at a time."""
        self._hold(300, b"P", drip=HEAD[1:])

    def _hold(self, count: int, data: bytes, drip: bytes = b"") -> None:
        with ExitStack() as stack:
            held = []
            for _ in range(count):
                with suppress(OSError):
                    client = stack.enter_context(self.connect())
                    held.append(client)
                    client.sendall(data)
            at = 0
            while self.goes_on:
                for client in held:
                    with suppress(OSError):
                        client.send(drip[at : at + 1])
                at += 1
                time.sleep(0.05)

    def counted(self) -> None:
        """Bodies of 3 GB, announced."""
        self._pour(HEAD + b"Content-Length: 3000000000\r\n\r\n", ZEROS, 3000)

    def chunked(self) -> None:
        """Bodies of 3 GB, not announced."""
        chunk = b"100000\r\n%b\r\n" % ZEROS
        self._pour(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, 3000)

    def headers(self) -> None:
        """Heads of 100 000 lines."""
        self._pour(HEAD, b"X-Header: value\r\n" * 1000, 100)

    def garbage(self) -> None:
        """5 MB of random bytes; once as they are, once for JSON."""
        self._pour(b"", GARBAGE, 1)
        self._pour(HEAD + b"Content-Length: 5000000\r\n\r\n", GARBAGE, 1)

    def nested(self) -> None:
        """5 MB of brackets."""
        self._pour(HEAD + b"Content-Length: 5000000\r\n\r\n", b"[" * 5_000_000, 1)

    def _pour(self, head: bytes, piece: bytes, times: int) -> None:
        """As fast as the server takes it, again and again."""
        while self.goes_on:
            with suppress(OSError), self.connect() as client:
                client.sendall(head)
                for _ in range(times):
                    if not self.goes_on:
                        break
                    client.sendall(piece)
                client.recv(100)


def main(port: str, seconds: str, *names: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    attack = Attack(int(port), float(seconds))
    threads = [threading.Thread(target=getattr(attack, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
