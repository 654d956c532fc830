"""Counters, gauges and histograms, read as Prometheus reads them."""

from __future__ import annotations

from notebook_rpc.sansio.metrics import Counter, Gauge, Histogram, exposition


def test_a_counter_counts_by_its_labels() -> None:
    counter = Counter("requests_total", "Requests.", ["method", "status"])
    counter.add("POST", "200")
    counter.add("GET", "404")
    counter.add("POST", "200", by=2)
    assert exposition([counter]) == (
        b"# HELP requests_total Requests.\n"
        b"# TYPE requests_total counter\n"
        b'requests_total{method="GET",status="404"} 1\n'
        b'requests_total{method="POST",status="200"} 3\n'
    )


def test_a_counter_without_labels_begins_at_0() -> None:
    counter = Counter("bytes_total", "Bytes.")
    assert exposition([counter]).endswith(b"\nbytes_total 0\n")
    counter.add(by=7)
    assert exposition([counter]).endswith(b"\nbytes_total 7\n")


def test_a_gauge_is_asked_when_it_is_read() -> None:
    values = [1.0, 2.5]
    gauge = Gauge("sessions", "Sessions.", lambda: values[-1])
    assert b"# TYPE sessions gauge\nsessions 2.5\n" in exposition([gauge])
    values.append(0)
    assert exposition([gauge]).endswith(b"\nsessions 0\n")


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    histogram = Histogram("seconds", "Seconds.", "call", [0.1, 1])
    for seconds in (0.05, 0.1, 0.5, 3):
        histogram.observe("page", seconds)
    histogram.observe("execute", 1)
    assert exposition([histogram]).decode().splitlines() == [
        "# HELP seconds Seconds.",
        "# TYPE seconds histogram",
        'seconds_bucket{call="execute",le="0.1"} 0',
        'seconds_bucket{call="execute",le="1"} 1',
        'seconds_bucket{call="execute",le="+Inf"} 1',
        'seconds_sum{call="execute"} 1.000000',
        'seconds_count{call="execute"} 1',
        'seconds_bucket{call="page",le="0.1"} 2',
        'seconds_bucket{call="page",le="1"} 3',
        'seconds_bucket{call="page",le="+Inf"} 4',
        'seconds_sum{call="page"} 3.650000',
        'seconds_count{call="page"} 4',
    ]


def test_what_would_end_a_label_is_escaped() -> None:
    counter = Counter("x_total", "X.", ["name"])
    counter.add('a"b\\c\nd')
    assert exposition([counter]).splitlines()[-1] == rb'x_total{name="a\"b\\c\nd"} 1'
