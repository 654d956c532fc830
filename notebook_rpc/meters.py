"""What a server counts and measures of itself, for Prometheus and for nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notebook_rpc.sansio.metrics import Counter, Gauge, Histogram, exposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_rpc.sansio.metrics import Metric

# Seconds: a row from memory, a query one waits for, a report.
BOUNDS: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300)


class Meters:
    """One server's. The methods are called on the event loop."""

    def __init__(self) -> None:
        self._requests = Counter(
            "notebook_rpc_requests_total",
            "HTTP requests, by the route that they took.",
            ("method", "route", "status"),
        )
        self._errors = Counter(
            "notebook_rpc_errors_total", "Errors that clients were told, by slug.", ("slug",)
        )
        self._calls = Histogram(
            "notebook_rpc_call_seconds", "Time of calls in the database.", "call", BOUNDS
        )
        self._rows = Counter("notebook_rpc_rows_total", "Rows handed out.")
        self._bytes = Counter("notebook_rpc_row_bytes_total", "Bytes of these rows as text.")
        self._metrics: list[Metric] = [
            *(self._requests, self._errors, self._calls, self._rows, self._bytes)
        ]

    def request(self, method: str, route: str, status: int) -> None:
        """*route* is a path as it was registered, or "" for what took none."""
        self._requests.add(method, route, str(status))

    def error(self, slug: str) -> None:
        self._errors.add(slug)

    def call(self, name: str, seconds: float) -> None:
        self._calls.observe(name, seconds)

    def page(self, rows: int, size: int) -> None:
        self._rows.add(by=rows)
        self._bytes.add(by=size)

    def gauge(self, name: str, explanation: str, value: Callable[[], float]) -> None:
        self._metrics.append(Gauge(f"notebook_rpc_{name}", explanation, value))

    def counter(self, name: str, explanation: str, value: Callable[[], int]) -> None:
        """Of something that is counted elsewhere."""
        name = f"notebook_rpc_{name}_total"
        self._metrics.append(Gauge(name, explanation, value, "counter"))

    def exposition(self) -> bytes:
        return exposition(self._metrics)
