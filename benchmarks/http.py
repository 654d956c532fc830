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


def load(port: int, connections: int, seconds: float) -> float:
    """Requests a second over keep-alive connections, one request in flight on each."""
    pin(CLIENT_CPU)
    selector = selectors.DefaultSelector()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(each, selectors.EVENT_READ)
        each.send(REQUEST)
    done = 0
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        for key, _ in selector.select(1):
            client: Any = key.fileobj
            answer = b""
            while not answer.endswith(b"}"):  # some send head and body apart
                segment = client.recv(4096)
                assert segment, "the server has closed the connection"
                answer += segment
            assert answer.startswith(b"HTTP/1.1 200"), answer
            client.send(REQUEST)
            done += 1
    for each in sockets:
        each.close()
    return done / (now - began)


def measure(port: int, connections: int) -> float:
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
            for _ in range(ROUNDS):
                for name, port in ports.items():
                    rates[name].append(measure(port, connections))
            results[f"{connections} connections"] = {
                "requests_per_second": {name: summary(each) for name, each in rates.items()},
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
