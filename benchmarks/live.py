"""A thousand subscribers of ten live queries, twenty writes a second: who hears when, at what cost?

Each write changes one row, of which one of the queries tells; the subscribers of that query must
hear of it. Its delay is the time from the write's answer to the event that has it. Every subscriber
applies what it is told, and when the last write has been answered all must have, within a second,
what a SELECT returns. The server runs on one core, writer and subscribers on another.

    python -m benchmarks.live [--subscribers N] [--queries N] [--rate N] [--seconds N]
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import selectors
import socket
import statistics
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from benchmarks.common import CLIENT_CPU, cpu_seconds, memory, ours, pin, report

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = 100  # of each query
FIRST = 1_000_000  # the number of the first write, which no other number in a row reaches
PATIENCE = 30.0  # seconds for what should have come within one
WRITTEN = re.compile(rb"\b1\d{6}\b")
SQL = "SELECT id, amount FROM orders WHERE region = {}"


class Subscriber:
    """One connection, and what it has made of what it was told."""

    def __init__(self, port: int, region: int) -> None:
        self.region = region
        self.rows: list[Any] = []
        self.newest = FIRST - 1
        self.events = 0
        self._unread = b""
        self._events = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        path = "/api/subscribe?key=id&query=" + quote(SQL.format(region))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        while b"\r\n\r\n" not in self._unread:
            self._unread += self.socket.recv(1 << 16)
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        self._read_on()
        while not self.events:
            self.readable()

    def readable(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, "the server has gone"
        self._unread += data
        self._read_on()

    def _read_on(self) -> None:
        while b"\r\n" in self._unread:
            size, _, rest = self._unread.partition(b"\r\n")
            if len(rest) < int(size, 16) + 2:
                break
            self._events += rest[: int(size, 16)]
            self._unread = rest[int(size, 16) + 2 :]
        while b"\n\n" in self._events:
            event, _, self._events = self._events.partition(b"\n\n")
            self.take(event)

    def take(self, event: bytes) -> None:
        self.events += 1
        lines = dict(line.split(b": ", 1) for line in event.split(b"\n"))
        data = json.loads(lines[b"data"])
        if lines[b"event"] == b"delta":
            for row in data["deletes"]:
                self.rows.remove(row)
            for update in data["updates"]:
                self.rows[self.rows.index(update["before"])] = update["after"]
            self.rows += data["inserts"]
        else:
            self.rows = data["rows"]
        self.newest = max(self.newest, *map(int, WRITTEN.findall(event)), 0)


class Writer:
    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self.answered: dict[int, tuple[int, float]] = {}
        """By number, the query that has it, and when it was."""

    def execute(self, sql: str) -> bytes:
        body = json.dumps({"type": "exec" if not sql.startswith("SELECT") else "json", "sql": sql})
        self._connection.request("POST", "/mosaic", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return answer

    def write(self, number: int, regions: int) -> None:
        region, row = number % regions, number // regions % ROWS
        where = f"region = {region} AND id = {row}"
        self.execute(f"UPDATE orders SET amount = {number} WHERE {where}")
        self.answered[number] = region, time.perf_counter()


class Hall:
    """All subscribers, and when they have heard of what."""

    def __init__(self, port: int, subscribers: int, regions: int) -> None:
        self._selector = selectors.DefaultSelector()
        self.subscribers = [Subscriber(port, number % regions) for number in range(subscribers)]
        for each in self.subscribers:
            self._selector.register(each.socket, selectors.EVENT_READ, each)
        self.heard: list[tuple[int, int, int, float]] = []
        """Of a query, the writes after the first number up to the second were here, and when."""

    def listen(self, until: float) -> None:
        while (left := until - time.perf_counter()) > 0:
            for key, _ in self._selector.select(left):
                subscriber: Subscriber = key.data
                before = subscriber.newest
                subscriber.readable()
                if subscriber.newest > before:
                    now = time.perf_counter()
                    self.heard.append((subscriber.region, before, subscriber.newest, now))

    def wait_for(self, newest: dict[int, int]) -> None:
        deadline = time.perf_counter() + PATIENCE
        while any(each.newest < newest[each.region] for each in self.subscribers):
            assert time.perf_counter() < deadline, "somebody does not converge"
            self.listen(time.perf_counter() + 0.01)

    def delays(self, answered: dict[int, tuple[int, float]]) -> list[float]:
        """Milliseconds, one for each write and each who had to hear of it."""
        of: dict[int, list[tuple[int, float]]] = {}
        for number, (region, at) in answered.items():
            of.setdefault(region, []).append((number, at))
        return [
            (when - at) * 1000
            for region, after, upto, when in self.heard
            for number, at in of[region]
            if after < number <= upto
        ]

    def leave(self) -> None:
        for each in self.subscribers:
            each.socket.close()


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with ours("--max-connections", "8192", pinned=True) as (port, server):
        writer = Writer(port)
        regions = arguments.queries
        writer.execute(
            "CREATE TABLE orders AS SELECT r.range AS region, i.range AS id, 0 AS amount "
            f"FROM range({regions}) r, range({ROWS}) i"
        )
        rss = {"before": memory(server)}
        hall = Hall(port, arguments.subscribers, regions)
        rss["subscribed"] = memory(server)
        events = sum(each.events for each in hall.subscribers)
        began, busy = time.perf_counter(), cpu_seconds(server.pid)
        number = FIRST
        while (at := began + (number - FIRST) / arguments.rate) < began + arguments.seconds:
            hall.listen(at)
            writer.write(number, regions)
            number += 1
        ended = time.perf_counter()
        newest = {region: each for each, (region, _) in writer.answered.items()}
        hall.wait_for({region: newest[region] for region in range(regions)})
        converged = max(when for *_, when in hall.heard) - ended
        took, busy = time.perf_counter() - began, cpu_seconds(server.pid) - busy
        rss["written"] = memory(server)
        check(hall.subscribers, writer, regions)
        events = sum(each.events for each in hall.subscribers) - events
        hall.leave()
        time.sleep(2)  # for the server to see them go
        rss["left"] = memory(server)
        delays = hall.delays(writer.answered)
    return {
        "subscribers": arguments.subscribers,
        "queries": regions,
        "sql": SQL,
        "writes": len(writer.answered),
        "events": events,
        "delay_ms": percentiles(delays),
        "all_have_the_last_write_after_ms": round(converged * 1000, 1),
        "server_cpu_share": round(busy / took, 3),
        "rss_mb": {when: round(size / 1e6, 1) for when, size in rss.items()},
    }


def check(subscribers: Sequence[Subscriber], writer: Writer, regions: int) -> None:
    """Everybody has what a SELECT returns."""
    for region in range(regions):
        selected = json.loads(writer.execute(SQL.format(region)))
        rows = sorted([row["id"], row["amount"]] for row in selected)
        assert len(rows) == ROWS
        for each in subscribers:
            assert each.region != region or sorted(each.rows) == rows


def percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {
        "p50": round(cuts[49], 1),
        "p99": round(cuts[98], 1),
        "max": round(max(values), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    pin(CLIENT_CPU)
    report("live queries", run(arguments), ["trio", "duckdb"])


if __name__ == "__main__":
    main()
