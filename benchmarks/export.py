"""How fast does a large result leave as CSV, lines of JSON, JSON, Arrow and Parquet, in how much
memory, and how soon does its query end when the client leaves?

python -m benchmarks.export [MILLIONS_OF_ROWS]        default 20

Beside it, what the engine's own COPY of the same rows sends through a pipe, from Python, in the
same run.
"""

from __future__ import annotations

import http.client
import json
import resource
import socket
import subprocess
import sys
import time
from typing import Any, Final

from benchmarks.common import cpu_seconds, memory, ours, report, summary

FORMATS: Final = ("csv", "ndjson", "json", "arrow", "parquet")
ROWS: Final = (
    "SELECT i AS id, 'name ' || (i % 1000) AS name, i * 0.5 AS price,"
    " DATE '2026-01-01' + (i % 1000)::INTEGER AS day, i % 7 = 0 AS odd FROM range({rows}) r(i)"
)
ENDLESS: Final = "SELECT count(*) FROM range(100000000000) a, range(100000000000) b"
ROUNDS: Final = 3
PIECE: Final = 1 << 20

COPY: Final = """
import duckdb, sys
duckdb.execute(f"COPY ({sys.argv[1]}) TO '/dev/fd/1' (FORMAT csv, HEADER)")
"""


def main() -> None:
    rows = int(sys.argv[1] if len(sys.argv) > 1 else 20) * 1_000_000
    results: dict[str, Any] = {"rows": rows}
    with ours("--max-pool", "1") as (port, server):
        for form in FORMATS:
            ask(port, ROWS.format(rows=1000), form)
        results["rss_before_mb"] = round(memory(server) / 1e6)
        rates: dict[str, list[float]] = {form: [] for form in (*FORMATS, "copy")}
        work: dict[str, list[float]] = {form: [] for form in (*FORMATS, "copy")}
        results["megabytes"] = {}
        for _ in range(ROUNDS):
            for form in (*FORMATS, "copy"):
                own = form != "copy"
                before = cpu_seconds(server.pid) if own else cpu_of_children()
                sql = ROWS.format(rows=rows)
                size, seconds = ask(port, sql, form) if own else copy(sql)
                after = cpu_seconds(server.pid) if own else cpu_of_children()
                rates[form].append(rows / seconds / 1e6)
                work[form].append((after - before) / rows * 1e6)
                results["megabytes"][form] = round(size / 1e6)
        results["cpu_seconds_for_a_million_rows"] = {form: summary(work[form]) for form in work}
        results["million_rows_per_second"] = {form: summary(rates[form]) for form in rates}
        results["megabytes_per_second"] = {
            form: round(results["megabytes"][form] * summary(rates[form])["median"] * 1e6 / rows)
            for form in rates
        }
        results["csv_against_copy"] = summary(
            [own / theirs for own, theirs in zip(rates["csv"], rates["copy"], strict=True)]
        )
        results["rss_peak_mb"] = round(memory(server, "VmHWM") / 1e6)
        results["ms_until_an_abandoned_query_has_ended"] = summary(
            [abandoned(port) for _ in range(9)]
        )
        results["ms_until_an_abandoned_download_is_over"] = summary(
            [abandoned_download(port) for _ in range(9)]
        )
    report("exports", results, ["duckdb", "nanoarrow", "trio"])


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def asked(port: int, sql: str, form: str) -> socket.socket:
    body = json.dumps({"sql": sql, "format": form}).encode()
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(
        b"POST /api/query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    return client


def ask(port: int, sql: str, form: str) -> tuple[int, float]:
    """Bytes and seconds of a whole answer, which is not looked at: the client is not measured."""
    began = time.perf_counter()
    room = bytearray(PIECE)
    size, last = 0, b""
    with asked(port, sql, form) as client:
        while got := client.recv_into(room):
            if not size:
                assert room.startswith(b"HTTP/1.1 200"), bytes(room[:500])
            size += got
            last = (last + bytes(room[max(0, got - 5) : got]))[-5:]
    assert last == b"0\r\n\r\n" or size < PIECE, last
    return size, time.perf_counter() - began


def copy(sql: str) -> tuple[int, float]:
    began = time.perf_counter()
    size = 0
    room = bytearray(PIECE)
    command = [sys.executable, "-c", COPY, sql]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        while got := process.stdout.readinto(room):  # type: ignore[attr-defined]  # it is raw
            size += got
    assert process.returncode == 0
    return size, time.perf_counter() - began


def abandoned(port: int) -> float:
    """Milliseconds from the client's leave until no call runs."""
    witness = http.client.HTTPConnection("127.0.0.1", port)

    def running() -> int:
        witness.request("GET", "/readyz?verbose")
        calls: int = json.loads(witness.getresponse().read())["calls"]["running"]
        return calls

    client = asked(port, ENDLESS, "json")
    while not running():
        continue
    left = time.perf_counter()
    client.close()
    while running():
        continue
    took = time.perf_counter() - left
    witness.close()
    return took * 1000


def abandoned_download(port: int) -> float:
    """Milliseconds from the client's leave in mid-answer until another has had its own, for which
    there is no other connection to the database."""
    client = asked(port, ROWS.format(rows=1_000_000_000), "csv")
    for _ in range(10):
        client.recv(PIECE)
    left = time.perf_counter()
    client.close()
    ask(port, "SELECT 42", "json")
    return (time.perf_counter() - left) * 1000


if __name__ == "__main__":
    main()
