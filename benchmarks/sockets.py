"""Do five hundred sockets lose anything, and does the server grow under them?

Each has a subscription and asks a query a second; once a second one of them notifies all. After a
minute every query must have been answered once and every notification have reached everybody
once. The server's memory is read every second: its trend is the slope of a line through the
readings, the first ten seconds apart.

    python -m benchmarks.sockets [--sockets N] [--seconds N]
"""

from __future__ import annotations

import argparse
import json
import selectors
import statistics
import time
from collections import Counter
from typing import Any

from benchmarks.common import memory, ours, report
from benchmarks.socket_client import Client, frame

WARM_UP = 10  # seconds that the trend leaves out
PATIENCE = 120.0  # seconds for the last answers, where the machine is slower than we ask
SQL = "select {n} as n"


class Member:
    """One socket, what it has asked and what it was told."""

    def __init__(self, port: int) -> None:
        self.client = Client(port, "/")
        self.asked: dict[str, float] = {}
        self.latencies: list[float] = []
        self.heard: Counter[int] = Counter()
        self.acknowledged = 0
        self.surprises: list[bytes] = []
        self.client.socket.sendall(frame(b'{"type":"subscribe","channel":"all"}'))
        assert self.client.message() == b'{"type":"subscribed","channel":"all"}'

    def ask(self, number: int) -> None:
        query = {"type": "json", "sql": SQL.format(n=number), "queryId": f"q{number}"}
        self.asked[f"q{number}"] = time.perf_counter()
        self.client.socket.sendall(frame(json.dumps(query).encode()))

    def notify(self, number: int) -> None:
        message = {"type": "notify", "channel": "all", "payload": number}
        self.client.socket.sendall(frame(json.dumps(message).encode()))

    def readable(self) -> None:
        self.client.receive()
        while self.client.unread:
            self.take(self.client.message())

    def take(self, message: bytes) -> None:
        answer = json.loads(message)
        asked = self.asked.pop(answer.get("queryId"), None)
        if asked is not None and json.loads(answer["data"])[0]["n"] == int(answer["queryId"][1:]):
            self.latencies.append((time.perf_counter() - asked) * 1000)
        elif answer["type"] == "notify":
            self.heard[answer["payload"]] += 1
        elif answer["type"] == "notifyAck":
            self.acknowledged += 1
        else:
            self.surprises.append(message)


def slope(values: list[float]) -> float:
    """Of the line through *values*, a second apart: so much a second."""
    return statistics.linear_regression(range(len(values)), values).slope if values[1:] else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with ours() as (port, server):
        before = memory(server) / 1e6
        members = [Member(port) for _ in range(options.sockets)]
        connected = memory(server) / 1e6
        selector = selectors.DefaultSelector()
        for member in members:
            selector.register(member.client.socket, selectors.EVENT_READ, member)
        readings: list[float] = []
        total = options.sockets * options.seconds
        began = time.perf_counter()

        def serve(until: float) -> None:
            """Take what comes, until then."""
            while (left := until - time.perf_counter()) > 0:
                for key, _ in selector.select(left):
                    key.data.readable()

        for number in range(total):
            serve(began + number / options.sockets)
            member = members[number % len(members)]
            member.ask(number)
            if number % len(members) == 0:
                second = number // len(members)
                members[second % len(members)].notify(second)
                readings.append(memory(server) / 1e6)
        deadline = time.perf_counter() + PATIENCE
        while time.perf_counter() < deadline and not complete(members, options.seconds):
            serve(time.perf_counter() + 0.01)
        latencies = sorted(each for member in members for each in member.latencies)
        results: dict[str, Any] = {
            "sockets": options.sockets,
            "sql": SQL,
            "queries": total,
            "answered_once": len(latencies),
            "unanswered": sum(len(member.asked) for member in members),
            "notifications_expected": options.seconds * options.sockets,
            "notifications_heard": sum(member.heard.total() for member in members),
            "notifications_heard_twice": sum(
                times > 1 for member in members for times in member.heard.values()
            ),
            "surprises": [repr(each) for member in members for each in member.surprises][:10],
            "latency_ms": {
                "p50": latencies[len(latencies) // 2],
                "p99": latencies[len(latencies) * 99 // 100],
                "max": latencies[-1],
            },
            "rss_mb": {
                "before": before,
                "connected": connected,
                "last": readings[-1],
                "trend_per_minute": slope(readings[WARM_UP:]) * 60,
            },
            "kib_per_socket": (connected - before) * 1e6 / 1024 / options.sockets,
        }
        for member in members:
            member.client.socket.close()
        with Client(port, "/") as last:  # its answer comes when the others' ends have been seen
            last.socket.sendall(frame(b'{"type":"json","sql":"select 1","queryId":"q"}'))
            last.message()
        results["rss_mb"]["closed"] = memory(server) / 1e6
    report("many sockets for a while", results, ["trio", "wsproto", "duckdb"])
    assert results["answered_once"] == total, "queries were lost"
    assert complete(members, options.seconds), "notifications were lost, or came twice"


def complete(members: list[Member], notifications: int) -> bool:
    """Whether everybody has heard everything, once."""
    return all(
        not member.asked
        and not member.surprises
        and len(member.heard) == member.heard.total() == notifications
        for member in members
    )


if __name__ == "__main__":
    main()
