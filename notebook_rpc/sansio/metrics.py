"""Counters and histograms, and how Prometheus reads them (text exposition format 0.0.4).

Label values must come from a small set that we choose: each combination of them is kept for ever.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metric(Protocol):
    """Something that has lines."""

    def lines(self) -> Iterator[str]: ...


class Counter:
    """How often something has happened, by its labels."""

    def __init__(self, name: str, explanation: str, labels: Sequence[str] = ()) -> None:
        """*name* ends in ``_total``, as Prometheus has it."""
        self._name = name
        self._explanation = explanation
        self._labels = labels
        self._counts: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, *values: str, by: int = 1) -> None:
        self._counts[values] = self._counts.get(values, 0) + by

    def lines(self) -> Iterator[str]:
        yield from _head(self._name, self._explanation, "counter")
        for values, count in sorted(self._counts.items()):
            yield f"{self._name}{_labels(zip(self._labels, values, strict=True))} {count}"


class Gauge:
    """Something that goes up and down, asked for when it is read; or, as *kind* says, a "counter"
    that somebody else keeps, and that only goes up."""

    def __init__(
        self, name: str, explanation: str, value: Callable[[], float], kind: str = "gauge"
    ) -> None:
        self._name = name
        self._explanation = explanation
        self._value = value
        self._kind = kind

    def lines(self) -> Iterator[str]:
        yield from _head(self._name, self._explanation, self._kind)
        yield f"{self._name} {self._value()}"  # all digits: a counter of bytes has many


class Histogram:
    """How long something took, by one label: how many times at most each of *bounds*."""

    def __init__(self, name: str, explanation: str, label: str, bounds: Sequence[float]) -> None:
        """*bounds* are ascending; above the last one everything counts as infinite."""
        self._name = name
        self._explanation = explanation
        self._label = label
        self._bounds = bounds
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, value: str, amount: float) -> None:
        counts = self._counts.setdefault(value, [0] * (len(self._bounds) + 1))
        counts[bisect_left(self._bounds, amount)] += 1
        self._sums[value] = self._sums.get(value, 0.0) + amount

    def lines(self) -> Iterator[str]:
        yield from _head(self._name, self._explanation, "histogram")
        shown = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        for value, counts in sorted(self._counts.items()):
            for bound, count in zip(shown, accumulate(counts), strict=True):
                labels = _labels([(self._label, value), ("le", bound)])
                yield f"{self._name}_bucket{labels} {count}"
            labels = _labels([(self._label, value)])
            yield f"{self._name}_sum{labels} {self._sums[value]:.6f}"
            yield f"{self._name}_count{labels} {sum(counts)}"


def exposition(metrics: Iterable[Metric]) -> bytes:
    """All of *metrics* as Prometheus reads them."""
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines()).encode()


def _head(name: str, explanation: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {explanation}"
    yield f"# TYPE {name} {kind}"


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    text = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{{{text}}}" if text else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
