"""What is a query over a WebSocket worth, against the servers whose protocols we speak?

Beside ours, at ``/`` and at ``/mosaic``: sqlrooms-server 0.1.2 as it is installed (it brings
DuckDB 1.5), the same on our DuckDB, and Mosaic's duckdb-server 0.31, the last that has WebSockets.
All run at the same time and are measured in turn by one client, which does as little as it can:
its frames are made beforehand, and of a large answer it looks at the frames' heads alone. Nobody
is pinned, as DuckDB uses all cores. Memory and cancelling are measured on servers of their own,
because peaks are remembered and queries that nobody cancelled run on.

    python -m benchmarks.websocket [--rounds N] [--peers FOLDER] [--only small|large|cancel]

The peers are installed into FOLDER, each into a virtual environment of its own, if they are not
there yet; by default that is a folder of your own cache.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import cpu_seconds, free_port, memory, ours, process, report, summary
from benchmarks.socket_client import Client, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Start = Callable[[], AbstractContextManager[tuple[int, subprocess.Popen[bytes]]]]

SECONDS = 0.7
WAIT = 2.0  # for an outcome that may never come
SETUP = (
    "create or replace table ten as select range as id, range * 1.5::double as price, "
    "'name ' || range as name, date '2026-01-01' + range::int as day, range % 2 = 0 as even "
    "from range(10)"
)
SMALL = {"42": "select 42", "10 rows": "from ten"}
LARGE = "select range as a, range * 2 as b, range::double as c from range(4000000)"
LARGE_BYTES = 4_000_000 * 3 * 8
SLOW = "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = 7"


@dataclass
class Peer:
    """A server that can be started, and how it is asked."""

    name: str
    path: str
    start: Start
    ids: bool = True
    """Whether answers say what they answer; else they come in order."""
    cancels: bool = True
    requests: dict[tuple[str, str], list[bytes]] = field(default_factory=dict)

    def request(self, kind: str, sql: str, number: int) -> bytes:
        message: dict[str, object] = {"type": kind, "sql": sql}
        if self.ids:
            message["queryId"] = f"q{number}"
        return frame(json.dumps(message).encode())

    def prepared(self, kind: str, sql: str) -> list[bytes]:
        """Enough requests for a round, made once."""
        key = (kind, sql)
        if key not in self.requests:
            self.requests[key] = [self.request(kind, sql, number) for number in range(4096)]
        return self.requests[key]


class Running:
    """A peer's server, started again where it has died (duckdb-server 0.31 does)."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.restarts = -1
        self.stack = ExitStack()
        self.start()

    def start(self) -> None:
        self.stack.close()
        self.restarts += 1
        self.port, self.server = self.stack.enter_context(self.peer.start())
        with self.client() as client:
            client.socket.sendall(self.peer.request("exec", SETUP, 0))
            answer = client.message()
            assert b"error" not in answer, answer

    def client(self) -> Client:
        return Client(self.port, self.peer.path)

    def measured(self, measure: Callable[[Running], Any]) -> Any:
        for _ in range(3):
            try:
                return measure(self)
            except (ConnectionError, TimeoutError):
                self.start()
        raise RuntimeError(f"{self.peer.name} dies whenever it is asked")


@contextmanager
def all_running(peers: Sequence[Peer]) -> Iterator[list[Running]]:
    with ExitStack() as stack:
        servers = []
        for peer in peers:
            servers.append(Running(peer))
            stack.callback(servers[-1].stack.close)
        yield servers


def rate(kind: str, sql: str, in_flight: int, running: Running) -> tuple[float, float]:
    """Queries a second over one socket with *in_flight* of them at any time, and milliseconds of
    the server's CPU a query, which others on the machine disturb less."""
    requests = running.peer.prepared(kind, sql)
    with running.client() as client:
        for _ in range(3):  # what is asked again may be written in another way than the first time
            client.socket.sendall(requests[0])
            expected = client.message()
        assert b'"error"' not in expected, expected
        client.socket.sendall(b"".join(requests[1 : 1 + in_flight]))
        numbers = count(1 + in_flight)
        done = 0
        used = cpu_seconds(running.server.pid)
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + SECONDS:
            answer = client.message()
            assert abs(len(answer) - len(expected)) < 4, answer  # the id's digits
            done += 1
            client.socket.sendall(requests[next(numbers) % len(requests)])
        for _ in range(in_flight):  # the next server is measured alone
            client.message()
        used = cpu_seconds(running.server.pid) - used
        return done / (now - began), used * 1000 / (done + in_flight)


def small(peers: Sequence[Peer], rounds: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    cases = [("arrow", name, n) for name in SMALL for n in (1, 8, 64)]
    cases += [("json", "10 rows", n) for n in (1, 8, 64)]
    with all_running(peers) as servers:
        for kind, name, in_flight in cases:
            rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
            costs: dict[str, list[float]] = {peer.name: [] for peer in peers}
            measure = partial(rate, kind, SMALL[name], in_flight)
            for _ in range(rounds):
                for running in servers:
                    per_second, cost = running.measured(measure)
                    rates[running.peer.name].append(per_second)
                    costs[running.peer.name].append(cost)
            results[f"{kind}, {name}, {in_flight} in flight"] = {
                "queries_per_second": {name: summary(each) for name, each in rates.items()},
                "cpu_ms_per_query": {name: summary(each) for name, each in costs.items()},
                "ours_against": ratios(rates, lambda a, b: a / b),
            }
        results["restarts"] = {s.peer.name: s.restarts for s in servers if s.restarts}
    return results


def ratios(
    values: dict[str, list[float]], better: Callable[[float, float], float]
) -> dict[str, dict[str, float]]:
    """Ours in each round against the peers' of the same round; above 1 is in our favour."""
    found = {}
    for ours_is in (name for name in values if name.startswith("notebook_rpc")):
        for name, each in values.items():
            if not name.startswith("notebook_rpc"):
                pairs = zip(values[ours_is], each, strict=True)
                found[f"{ours_is} : {name}"] = summary([better(a, b) for a, b in pairs])
    return found


def fetch(running: Running) -> dict[str, float]:
    """One large answer."""
    into = memoryview(bytearray(1 << 20))
    with running.client() as client:
        request = running.peer.request("arrow", LARGE, 1)
        began = time.perf_counter()
        client.socket.sendall(request)
        first, megabyte, size = client.skip_message(into)
        taken = time.perf_counter() - began
    assert size >= LARGE_BYTES, size
    return {
        "ms": taken * 1000,
        "mb_per_second": size / 1e6 / taken,
        "first_byte_ms": (first - began) * 1000,
        "first_megabyte_ms": (megabyte - began) * 1000,
    }


def large(peers: Sequence[Peer], rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
    peaks: dict[str, float] = {}
    with all_running(peers) as servers:
        before = {running.peer.name: memory(running.server) / 1e6 for running in servers}
        for _ in range(rounds):
            for running in servers:
                found[running.peer.name].append(running.measured(fetch))
        for running in servers:
            peaks[running.peer.name] = memory(running.server, "VmHWM") / 1e6
    results: dict[str, Any] = {
        name: {key: summary([each[key] for each in rows]) for key in rows[0]}
        | {"rss_mb_before": before[name], "rss_mb_peak": peaks[name]}
        for name, rows in found.items()
    }
    results["ours_against"] = {
        key: ratios({name: [each[key] for each in rows] for name, rows in found.items()}, better)
        for key, better in (
            ("mb_per_second", lambda a, b: a / b),
            ("first_byte_ms", lambda a, b: b / a),
            ("first_megabyte_ms", lambda a, b: b / a),
        )
    }
    results["ours_against"]["rss_peak"] = ratios(
        {name: [peak] for name, peak in peaks.items()}, lambda a, b: b / a
    )
    return results


def cancel(running: Running) -> tuple[float | None, float | None]:
    """Milliseconds until the acknowledgement, and until the query's outcome; None: never."""
    times: dict[str, float | None] = {"cancelAck": None, "error": None}
    with running.client() as client:
        client.socket.sendall(running.peer.request("arrow", SLOW, 1))
        time.sleep(0.1)  # until it surely runs
        client.socket.settimeout(WAIT)
        began = time.perf_counter()
        client.socket.sendall(frame(b'{"type":"cancel","queryId":"q1"}'))
        while None in times.values():
            try:
                answer = json.loads(client.message())
            except TimeoutError:
                break
            times[answer["type"]] = (time.perf_counter() - began) * 1000
    return times["cancelAck"], times["error"]


def cancels(peers: Sequence[Peer], rounds: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    able = [peer for peer in peers if peer.cancels]
    with all_running(able) as servers:
        found: dict[str, list[tuple[float | None, float | None]]] = {p.name: [] for p in able}
        for _ in range(rounds):
            for running in servers:
                found[running.peer.name].append(cancel(running))
    for name, pairs in found.items():
        columns = zip(*pairs, strict=True)
        for what, column in zip(("acknowledgement_ms", "outcome_ms"), columns, strict=True):
            came = [each for each in column if each is not None]
            results.setdefault(name, {})[what] = {
                "came": f"{len(came)} of {rounds}",
                **(summary(came) if came else {}),
            }
    return results


def installed(folder: Path, name: str, *requirements: Sequence[str]) -> Path:
    """The programs of a virtual environment, made if it is not there."""
    environment = folder / name
    programs = environment / "bin"
    if not (environment / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        for each in requirements:
            subprocess.run([programs / "pip", "install", "--quiet", *each], check=True)
        (environment / "complete").touch()
    return programs


@contextmanager
def theirs(port: int, *command: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with process(*command, port=port) as server:
        yield port, server


def versions(programs: Path, *packages: str) -> str:
    code = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    done = subprocess.run(
        [programs / "python", "-c", code, *packages], check=True, capture_output=True, text=True
    )
    return ", ".join(map(" ".join, zip(packages, done.stdout.split(), strict=True)))


def everybody(folder: Path) -> tuple[list[Peer], dict[str, str]]:
    sqlrooms = ["sqlrooms-server==0.1.2"]
    as_installed = installed(folder, "sqlrooms", sqlrooms)
    same_engine = installed(folder, "sqlrooms-duckdb2", sqlrooms, ["--no-deps", "duckdb==2.0.*"])
    mosaic = installed(folder, "mosaic", ["duckdb-server==0.31.0"])

    def start_sqlrooms(programs: Path) -> Start:
        def start() -> AbstractContextManager[tuple[int, subprocess.Popen[bytes]]]:
            port = free_port()
            return theirs(port, str(programs / "sqlrooms-server"), "--port", str(port))

        return start

    def start_mosaic() -> AbstractContextManager[tuple[int, subprocess.Popen[bytes]]]:
        socket.create_server(("127.0.0.1", 3000)).close()  # it knows no other port: is it free?
        return theirs(3000, str(mosaic / "duckdb-server"))

    peers = [
        Peer("notebook_rpc /", "/", ours),
        Peer("notebook_rpc /mosaic", "/mosaic", ours, ids=False, cancels=False),
        Peer("sqlrooms-server", "/", start_sqlrooms(as_installed)),
        Peer("sqlrooms-server, duckdb 2", "/", start_sqlrooms(same_engine)),
        Peer("duckdb-server", "/", start_mosaic, ids=False, cancels=False),
    ]
    return peers, {
        "sqlrooms-server": versions(as_installed, "sqlrooms-server", "duckdb"),
        "sqlrooms-server, duckdb 2": versions(same_engine, "sqlrooms-server", "duckdb"),
        "duckdb-server": versions(mosaic, "duckdb-server", "duckdb"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    default = Path.home() / ".cache" / "notebook_rpc" / "peers"
    parser.add_argument("--peers", type=Path, default=default, metavar="FOLDER")
    parser.add_argument("--only", choices=("small", "large", "cancel"))
    options = parser.parse_args()
    peers, found = everybody(options.peers)
    results: dict[str, Any] = {
        "peers": found,
        "sql": {"setup": SETUP, **SMALL, "large": LARGE, "cancelled": SLOW},
    }
    for name, measure in (("small", small), ("large", large), ("cancel", cancels)):
        if options.only in (None, name):
            results[name] = measure(peers, options.rounds)
    report("queries over a WebSocket", results, ["trio", "wsproto", "duckdb", "nanoarrow"])


if __name__ == "__main__":
    main()
