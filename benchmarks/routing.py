"""Does a server with thousands of routes take longer to find one than a server with tens?

Run as ``python -m benchmarks.routing``. Each table has half of its paths with a name in them. What
is measured is the look-up alone, of paths that are there, in turn, and of one that is not.
"""

from __future__ import annotations

import time
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

from benchmarks.common import report, summary
from notebook_rpc.sansio.routing import RoutingTable

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES: Final = (10, 100, 1_000, 10_000)
LOOKUPS: Final = 50_000
ROUNDS: Final = 7


def table(size: int) -> tuple[RoutingTable[int], list[str]]:
    """A table of *size* routes, and a path for each."""
    routes, paths = [], []
    for number in range(size):
        if number % 2:
            routes.append(("GET", f"/api/things{number}", number))
            paths.append(f"/api/things{number}")
        else:
            routes.append(("GET", f"/api/things{number}/{{id}}/parts", number))
            paths.append(f"/api/things{number}/42/parts")
    return RoutingTable(routes), paths


def nanoseconds(routes: RoutingTable[int], paths: Sequence[str]) -> float:
    asked = list(islice(cycle(paths), LOOKUPS))
    begun = time.perf_counter_ns()
    for path in asked:
        routes.find("GET", path)
    return (time.perf_counter_ns() - begun) / LOOKUPS


def main() -> None:
    tables = {size: table(size) for size in SIZES}
    found: dict[int, list[float]] = {size: [] for size in SIZES}
    missed: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(ROUNDS):
        for size, (routes, paths) in tables.items():
            found[size].append(nanoseconds(routes, paths))
            missed[size].append(nanoseconds(routes, ["/api/other/42/parts"]))
    result = {
        str(size): {"found_ns": summary(found[size]), "missed_ns": summary(missed[size])}
        for size in SIZES
    }
    report("finding a route", {"routes": result}, [])


if __name__ == "__main__":
    main()
