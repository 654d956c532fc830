"""What a server counts: the names that dashboards are built on, and what each of them counts."""

from __future__ import annotations

from notebook_rpc.meters import Meters

NOTHING_YET = """\
# HELP notebook_rpc_requests_total HTTP requests, by the route that they took.
# TYPE notebook_rpc_requests_total counter
# HELP notebook_rpc_errors_total Errors that clients were told, by slug.
# TYPE notebook_rpc_errors_total counter
# HELP notebook_rpc_call_seconds Time of calls in the database.
# TYPE notebook_rpc_call_seconds histogram
# HELP notebook_rpc_rows_total Rows handed out.
# TYPE notebook_rpc_rows_total counter
notebook_rpc_rows_total 0
# HELP notebook_rpc_row_bytes_total Bytes of these rows as text.
# TYPE notebook_rpc_row_bytes_total counter
notebook_rpc_row_bytes_total 0
"""
BOUNDS = ["0.001", "0.005", "0.02", "0.1", "0.5", "2", "10", "60", "300", "+Inf"]


def samples(meters: Meters) -> list[str]:
    return [line for line in meters.exposition().decode().splitlines() if line[0] != "#"]


def test_whoever_looks_sees_what_there_is_to_count() -> None:
    assert Meters().exposition().decode() == NOTHING_YET


def test_everything_is_counted_under_its_name() -> None:
    meters = Meters()
    meters.request("POST", "/sessions/{id}", 200)
    meters.request("GET", "", 404)
    meters.error("query-error")
    meters.page(1000, 123456)
    meters.page(1, 7)
    assert samples(meters) == [
        'notebook_rpc_requests_total{method="GET",route="",status="404"} 1',
        'notebook_rpc_requests_total{method="POST",route="/sessions/{id}",status="200"} 1',
        'notebook_rpc_errors_total{slug="query-error"} 1',
        "notebook_rpc_rows_total 1001",
        "notebook_rpc_row_bytes_total 123463",
    ]


def test_calls_are_counted_by_how_long_they_took() -> None:
    meters = Meters()
    meters.call("page", 0.002)
    meters.call("page", 301)
    counts = [0, 1, 1, 1, 1, 1, 1, 1, 1, 2]
    assert samples(meters)[:-2] == [
        *(
            f'notebook_rpc_call_seconds_bucket{{call="page",le="{bound}"}} {count}'
            for bound, count in zip(BOUNDS, counts, strict=True)
        ),
        'notebook_rpc_call_seconds_sum{call="page"} 301.002000',
        'notebook_rpc_call_seconds_count{call="page"} 2',
    ]


def test_a_gauge_is_asked_when_it_is_read() -> None:
    meters = Meters()
    sessions = [3]
    meters.gauge("sessions", "Sessions.", lambda: len(sessions))
    sessions.append(4)
    assert meters.exposition().decode() == (
        NOTHING_YET + "# HELP notebook_rpc_sessions Sessions.\n"
        "# TYPE notebook_rpc_sessions gauge\nnotebook_rpc_sessions 2\n"
    )


def test_what_is_counted_elsewhere_has_all_its_digits() -> None:
    meters = Meters()
    meters.counter("sent_bytes", "Bytes.", lambda: 2**53 + 1)
    assert meters.exposition().decode() == (
        NOTHING_YET + "# HELP notebook_rpc_sent_bytes_total Bytes.\n"
        "# TYPE notebook_rpc_sent_bytes_total counter\n"
        "notebook_rpc_sent_bytes_total 9007199254740993\n"
    )
