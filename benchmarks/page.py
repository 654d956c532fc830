"""How fast does ``page`` read rows, against the way one would write it first?

The table has a million rows of ten mixed columns; the slow way reads one of 200 000, whole like
the other, so that a round ends. "ours" is what the server does on its worker
thread: the driver's text rows cut into pages. "naive" is fetchmany + str + json.dumps. Both
in one process, in turn, on the same connection. "lag" is how long the event loop was kept
waiting while a session paged the whole table on a worker, with the command line's switch
interval.

    python -m benchmarks.page
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import duckdb
import trio

from benchmarks.common import report, summary
from notebook_rpc.cli import SWITCH_INTERVAL
from notebook_rpc.services.paging import Pages
from notebook_rpc.services.sessions import Session
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.duckdb import DRIVER

ROUNDS = 5
TABLE = """
    create table mixed as select
        range::int as a, range as b, range * 1.5::double as c, (range / 3)::decimal(18, 3) as d,
        'x' || range as e, 'name' || (range % 100) as f,
        timestamp '2020-01-01' + to_seconds(range) as g,
        date '2020-01-01' + (range % 1000)::int as h, range % 2 = 0 as i,
        case when range % 3 = 0 then null else 'v' || range end as j
    from range({rows})"""
CAP = 64 * 1024 * 1024


def ours(connection: Any, rows: int, size: int) -> float:
    began = time.perf_counter()
    pages = Pages(connection.execute_text("select * from mixed"), CAP)
    read = 0
    while len(page := pages.page(size)) > 1:
        b"".join(page)  # as sending it would touch every byte
        read = pages.rows_read
    assert read == rows
    return rows / (time.perf_counter() - began)


def naive(connection: duckdb.DuckDBPyConnection, rows: int, size: int) -> float:
    began = time.perf_counter()
    connection.execute("select * from mixed")
    names = [column[0] for column in connection.description or ()]
    read = 0
    while page := connection.fetchmany(size):
        texts = [
            {
                name: None if value is None else str(value)
                for name, value in zip(names, row, strict=True)
            }
            for row in page
        ]
        json.dumps(texts).encode()
        read += len(page)
    assert read == rows
    return rows / (time.perf_counter() - began)


async def lag(connection: Any, size: int) -> dict[str, float]:
    """Milliseconds the event loop was late, while a session pages."""
    late: list[float] = []
    workers = Workers(limit=4, spare=2)

    async def connect() -> Any:
        return connection

    session = Session(connect, workers, CAP)

    async def heartbeat() -> None:
        while True:
            due = trio.current_time() + 0.001
            await trio.sleep_until(due)
            late.append((trio.current_time() - due) * 1000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat)
        await session.execute("select * from mixed")
        while len(await session.page(size)) > 1:
            continue
        await session.finish()
        nursery.cancel_scope.cancel()
    workers.close()
    return {"p50": round(sorted(late)[len(late) // 2], 3), "max": round(max(late), 3)}


def main() -> None:
    connection: Any = DRIVER.open({}).connect()
    connection.execute_text(TABLE.format(rows=1_000_000))
    plain = duckdb.connect()
    plain.execute(TABLE.format(rows=200_000))
    results: dict[str, Any] = {}
    for size in (100, 1_000, 10_000):
        fast, slow = [], []
        for _ in range(ROUNDS):
            fast.append(ours(connection, 1_000_000, size))
            slow.append(naive(plain, 200_000, size))
        ratios = [a / b for a, b in zip(fast, slow, strict=True)]
        results[f"page({size})"] = {
            "ours_rows_per_second": summary(fast),
            "naive_rows_per_second": summary(slow),
            "ratio": summary(ratios),
        }
    sys.setswitchinterval(SWITCH_INTERVAL)
    lags = [trio.run(lag, connection, 1_000) for _ in range(3)]
    results["event_loop_lag_ms_page(1000)"] = {
        "p50": summary([each["p50"] for each in lags]),
        "max": summary([each["max"] for each in lags]),
    }
    report("rows per second of page", results, ["duckdb", "msgspec", "trio"])


if __name__ == "__main__":
    main()
