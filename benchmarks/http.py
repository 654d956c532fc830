"""How many trivial calls a second, against other HTTP servers under Trio or with h11?

Every server answers the same POST: it decodes the JSON-RPC request with msgspec and answers
``false``. Ours is the real server, all of it: Host and Origin checks, routing, JSON-RPC, session.
"h11 alone" is the least that can be written over a Trio stream. Server on one core, client on
another; the servers run at the same time and are measured in turn.

    python -m benchmarks.http        needs the extra "bench"
"""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import sys
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.common import CLIENT_CPU, free_port, ours, pin, process, report, summary

ROUNDS, SECONDS = 5, 2.0
BODY = b'{"jsonrpc":"2.0","id":1,"method":"cancel","params":[]}'
REQUEST = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Accept: */*\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class Client:
    """One keep-alive connection with one request in flight."""

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self.port, self.selector = port, selector
        self.closed = 0  # how often the server has closed it
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(self.socket, selectors.EVENT_READ, self)
        self.answer = b""
        self.socket.send(REQUEST)

    def readable(self) -> bool:
        """Whether that was the rest of an answer; some send head and body apart."""
        segment = self.socket.recv(4096)
        if not segment:  # hypercorn does, when a client is quicker than its own bookkeeping
            self.close()
            self.closed += 1
            self.connect()
            return False
        self.answer += segment
        if not self.answer.endswith(b"}"):
            return False
        assert self.answer.startswith(b"HTTP/1.1 200"), self.answer
        self.answer = b""
        self.socket.send(REQUEST)
        return True

    def close(self) -> None:
        self.selector.unregister(self.socket)
        self.socket.close()


def load(port: int, connections: int, seconds: float) -> tuple[float, int]:
    """Requests a second, and how many connections the server closed."""
    pin(CLIENT_CPU)
    selector = selectors.DefaultSelector()
    clients = [Client(port, selector) for _ in range(connections)]
    done = 0
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        for key, _ in selector.select(1):
            done += key.data.readable()
    for client in clients:
        client.close()
    return done / (now - began), sum(client.closed for client in clients)


def measure(port: int, connections: int) -> tuple[float, int]:
    """In a process of its own, so that nothing else shares its core's time."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(load, (port, connections, SECONDS))


def main() -> None:
    with ExitStack() as servers:
        ports = {"notebook_rpc": servers.enter_context(ours(pinned=True))[0]}
        for name, command in {
            "h11 alone": ["-m", "benchmarks.peers", "{port}"],
            "hypercorn trio": [
                "-m",
                "hypercorn",
                "-k",
                "trio",
                "-b",
                "127.0.0.1:{port}",
                "benchmarks.peers:asgi",
            ],
            "uvicorn h11": [
                "-m",
                "uvicorn",
                "--http",
                "h11",
                "--loop",
                "asyncio",
                "--port",
                "{port}",
                "--log-level",
                "error",
                "--no-access-log",
                "benchmarks.peers:asgi",
            ],
        }.items():
            ports[name] = port = free_port()
            arguments = [part.format(port=port) for part in command]
            servers.enter_context(process(sys.executable, *arguments, port=port, pinned=True))
        results: dict[str, Any] = {}
        for connections in (1, 8, 64):
            rates: dict[str, list[float]] = {name: [] for name in ports}
            closed = dict.fromkeys(ports, 0)
            for _ in range(ROUNDS):
                for name, port in ports.items():
                    rate, lost = measure(port, connections)
                    rates[name].append(rate)
                    closed[name] += lost
            results[f"{connections} connections"] = {
                "requests_per_second": {name: summary(each) for name, each in rates.items()},
                "connections_closed_by_the_server": closed,
                "ours_against": {
                    name: summary([a / b for a, b in zip(rates["notebook_rpc"], each, strict=True)])
                    for name, each in rates.items()
                    if name != "notebook_rpc"
                },
            }
    packages = ["trio", "h11", "msgspec", "hypercorn", "uvicorn"]
    report("requests per second of a trivial call", results, packages)


if __name__ == "__main__":
    main()
