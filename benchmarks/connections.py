"""What does an idle connection cost, and whom does a slow one delay?

A thousand idle keep-alive connections, one request each; then three hundred that send one
byte of a head a second, until the server has dropped them all. Meanwhile a good client asks
on and on: its latencies are what the others cost it.

    python -m benchmarks.connections
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any

from benchmarks.common import memory, ours, report
from benchmarks.http import REQUEST

IDLE, SLOW = 1000, 300


def ask(client: socket.socket) -> float:
    """Milliseconds until a trivial call is answered."""
    began = time.perf_counter()
    client.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"}"):
        answer += client.recv(4096)
    return (time.perf_counter() - began) * 1000


def latencies(client: socket.socket, count: int = 500) -> dict[str, float]:
    taken = sorted(ask(client) for _ in range(count))
    return {"p50": taken[count // 2], "p99": taken[count * 99 // 100], "max": taken[-1]}


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def main() -> None:
    results: dict[str, Any] = {}
    with ours() as (port, server):
        good = connect(port)
        results["latency_ms_alone"] = latencies(good)
        before = memory(server)
        idle = [connect(port) for _ in range(IDLE)]
        for client in idle:
            ask(client)
        results["kib_per_idle_connection"] = (memory(server) - before) / IDLE / 1024
        results[f"latency_ms_with_{IDLE}_idle"] = latencies(good)
        for client in idle:
            client.close()
        slow = {connect(port) for _ in range(SLOW)}
        began = time.perf_counter()
        head = iter(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Slow: yes\r\n" * 100)
        worst = 0.0
        while slow:
            byte = bytes([next(head)])
            for client in slow:
                client.send(byte)
            due = time.perf_counter() + 1
            while time.perf_counter() < due:
                worst = max(worst, ask(good))
            answered, _, _ = select.select(slow, [], [], 0)
            slow -= set(answered)
        results[f"seconds_until_{SLOW}_slow_were_dropped"] = time.perf_counter() - began
        results[f"latency_ms_with_{SLOW}_slow_worst"] = worst
    report("idle and slow connections", results, ["trio", "h11"])


if __name__ == "__main__":
    main()
