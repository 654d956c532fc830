"""Does memory stay flat while a huge result is paged, and how soon is its first page there?

python -m benchmarks.memory [MILLIONS_OF_ROWS] [--postgres]        default 100

With --postgres on a PostgreSQL server that is started for the purpose, else on DuckDB.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from typing import Any, cast

from benchmarks.common import memory, ours, report, summary
from tests.servers import Postgres, running

PAGE = 100_000
COUNTED = {
    "duckdb": "select range as n, 'row ' || range as t from range({rows})",
    "postgres": "select n, 'row ' || n as t from (select generate_series(1, {rows}) as n) as s",
}


class Client:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def call(self, method: str, *params: object) -> bytes:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        self.connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse().read()
        assert b'"result"' in answer[:40], answer[:200]
        return answer


def main() -> None:
    numbers = [argument for argument in sys.argv[1:] if argument.isdecimal()]
    rows = int(numbers[0] if numbers else 100) * 1_000_000
    if "--postgres" in sys.argv:
        with running(Postgres) as database:
            measure("postgres", rows, cast("Postgres", database).url)
    else:
        measure("duckdb", rows)


def measure(kind: str, rows: int, *url: str) -> None:
    results: dict[str, Any] = {"database": kind, "rows": rows}
    with ours(*url) as (port, server):
        client = Client(port)
        firsts = []
        for _ in range(9):
            began = time.perf_counter()
            client.call("execute", COUNTED[kind].format(rows=2_000_000_000))
            client.call("page", 100)
            firsts.append((time.perf_counter() - began) * 1000)
            client.call("finish")
        results["first_page_of_2_billion_rows_ms"] = summary(firsts)
        results["rss_before_mb"] = memory(server) / 1e6
        began = time.perf_counter()
        client.call("execute", COUNTED[kind].format(rows=rows))
        read = 0
        while found := client.call("page", PAGE).count(b'{"n":'):
            read += found
        assert read == rows, (read, rows)
        client.call("finish")
        results["rows_per_second"] = round(rows / (time.perf_counter() - began))
        results["rss_peak_mb"] = memory(server, "VmHWM") / 1e6
    report("memory while paging", results, ["duckdb", "psycopg", "trio"])


if __name__ == "__main__":
    main()
