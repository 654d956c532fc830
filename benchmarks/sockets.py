"""Do five hundred sockets lose anything, and does the server grow under them?

Each has a subscription and asks a query a second; once a second one of them notifies all. After a
minute every query must have been answered once and every notification have reached everybody
once. Then all leave, and as many others come: what a crowd takes, the next one must find again.
The server's memory is read every second. Within a round its trend is the slope of a line through
the readings, the first ten seconds apart; from round to round it is what stays when all have left.

    python -m benchmarks.sockets [--sockets N] [--seconds N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import selectors
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import cpu_seconds, memory, ours, report
from benchmarks.socket_client import Client, frame

if TYPE_CHECKING:
    import subprocess

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
        for message in self.client.arrived():
            self.take(message)

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


class Crowd:
    """Members that come and leave together."""

    def __init__(self, port: int, size: int, stack: ExitStack) -> None:
        self.members = []
        self.selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(size):
            member = Member(port)
            stack.enter_context(member.client)
            self.members.append(member)
            self.selector.register(member.client.socket, selectors.EVENT_READ, member)

    def serve(self, until: float) -> None:
        """Take what comes, until then; what is there by now even if it is late."""
        while True:
            for key, _ in self.selector.select(max(0, until - time.perf_counter())):
                key.data.readable()
            if time.perf_counter() >= until:
                return

    def live(self, seconds: int, server: subprocess.Popen[bytes]) -> list[float]:
        """For so long; the server's memory at each second."""
        readings: list[float] = []
        members = self.members
        began = time.perf_counter()
        for number in range(len(members) * seconds):
            self.serve(began + number / len(members))
            members[number % len(members)].ask(number)
            if number % len(members) == 0:
                second = number // len(members)
                members[second % len(members)].notify(second)
                readings.append(memory(server) / 1e6)
        deadline = time.perf_counter() + PATIENCE
        while time.perf_counter() < deadline and not self.complete(seconds):
            self.serve(time.perf_counter() + 0.01)
        return readings

    def complete(self, notifications: int) -> bool:
        """Whether everybody has heard everything, once."""
        return all(
            not member.asked
            and not member.surprises
            and len(member.heard) == member.heard.total() == notifications
            for member in self.members
        )

    def found(self, seconds: int) -> dict[str, Any]:
        members = self.members
        latencies = sorted(each for member in members for each in member.latencies)
        return {
            "queries": len(members) * seconds,
            "answered_once": len(latencies),
            "unanswered": sum(len(member.asked) for member in members),
            "notifications_expected": seconds * len(members),
            "notifications_heard": sum(member.heard.total() for member in members),
            "notifications_heard_twice": sum(
                times > 1 for member in members for times in member.heard.values()
            ),
            "surprises": [repr(each) for member in members for each in member.surprises][:10],
            "complete": self.complete(seconds) and len(latencies) == len(members) * seconds,
            "latency_ms": {
                "p50": latencies[len(latencies) // 2],
                "p99": latencies[len(latencies) * 99 // 100],
                "max": latencies[-1],
            },
        }


def slope(values: list[float]) -> float:
    """Of the line through *values*, a second apart: so much a second."""
    return statistics.linear_regression(range(len(values)), values).slope if values[1:] else 0.0


def descriptors(server: subprocess.Popen[bytes]) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def one_round(
    port: int, server: subprocess.Popen[bytes], sockets: int, seconds: int
) -> dict[str, Any]:
    alone = descriptors(server)
    with ExitStack() as stack:
        crowd = Crowd(port, sockets, stack)
        connected = memory(server) / 1e6
        ours_before, theirs_before = cpu_seconds(server.pid), time.process_time()
        readings = crowd.live(seconds, server)
        ours_since, theirs_since = cpu_seconds(server.pid), time.process_time()
        found = crowd.found(seconds)
    while descriptors(server) > alone:  # it has not seen all of them leave
        time.sleep(0.01)
    found["cpu_seconds"] = {
        "server": ours_since - ours_before,
        "client": theirs_since - theirs_before,
    }
    found["rss_mb"] = {
        "connected": connected,
        "most": max(readings),
        "last": readings[-1],
        "trend_per_minute": slope(readings[WARM_UP:]) * 60,
        "all_gone": memory(server) / 1e6,
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with ours() as (port, server):
        before = memory(server) / 1e6
        rounds = [
            one_round(port, server, options.sockets, options.seconds) for _ in range(options.rounds)
        ]
    connected = rounds[0]["rss_mb"]["connected"]
    results = {
        "sockets": options.sockets,
        "sql": SQL,
        "rss_mb_before": before,
        "kib_per_socket": (connected - before) * 1e6 / 1024 / options.sockets,
        "rss_mb_all_gone": [each["rss_mb"]["all_gone"] for each in rounds],
        "rounds": rounds,
    }
    report("many sockets for a while", results, ["trio", "wsproto", "duckdb"])
    assert all(each["complete"] for each in rounds), "something was lost, or came twice"


if __name__ == "__main__":
    main()
