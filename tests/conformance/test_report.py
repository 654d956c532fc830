"""A run, told to people, to machines and in the docs."""

from __future__ import annotations

import json

from notebook_rpc.conformance import report
from notebook_rpc.conformance.drivers import CHECKS, Finding, Verdict

FIRST, SECOND = CHECKS[:2]


def test_a_line_says_why_and_a_failure_what_was_promised() -> None:
    assert report.line(Finding(FIRST, Verdict.OK)) == "ok"
    assert report.line(Finding(FIRST, Verdict.QUIRK, "it never could")) == "quirk: it never could"
    assert report.line(Finding(FIRST, Verdict.FAILED, "expected 1, found 2")) == (
        f"FAILED: expected 1, found 2\n    promised: {FIRST.sentence}"
    )


def test_the_summary_counts() -> None:
    findings = [Finding(FIRST, Verdict.OK, seconds=1.0), Finding(SECOND, Verdict.OK, seconds=0.5)]
    assert (
        report.summary(findings)
        == "2 checks in 1.5 s: 2 ok, 0 quirk, 0 skipped, 0 unchecked, 0 FAILED"
    )


def test_json_has_everything() -> None:
    finding = Finding(FIRST, Verdict.SKIPPED, "there is none", 0.12345)
    assert json.loads(report.as_json("a database", "mine", [finding])) == {
        "database": "a database",
        "dialect": "mine",
        "counts": {"ok": 0, "quirk": 0, "skipped": 1, "unchecked": 0, "FAILED": 0},
        "checks": [
            {
                "name": FIRST.name,
                "capability": FIRST.capability,
                "promise": FIRST.sentence,
                "verdict": "skipped",
                "message": "there is none",
                "seconds": 0.123,
            }
        ],
    }


def column(*verdicts: tuple[Verdict, str]) -> dict[str, report.Cell]:
    """All checks well, but for the first ones."""
    told = [Finding(check, *each) for check, each in zip(CHECKS, verdicts, strict=False)]
    return report.cells([*told, *(Finding(each, Verdict.OK) for each in CHECKS[len(told) :])])


def test_cells_say_how_far() -> None:
    capability = FIRST.capability
    size = sum(check.capability == capability for check in CHECKS)
    ok, skipped, unchecked, failed = (
        (Verdict.OK, ""),
        (Verdict.SKIPPED, "there is none"),
        (Verdict.UNCHECKED, "nobody knows"),
        (Verdict.FAILED, "expected 1, found 2"),
    )
    assert column(ok)[capability] == report.Cell("yes")
    assert column(skipped)[capability] == report.Cell("in part", ("There is none.",))
    assert column(*[skipped] * size)[capability] == report.Cell("no", ("There is none.",))
    assert column(*[unchecked] * size)[capability] == report.Cell("?", ("Nobody knows.",))
    assert column(skipped, failed)[capability] == report.Cell("FAILED")


def test_the_matrix_gives_a_reason_one_number() -> None:
    none, never = (Verdict.SKIPPED, "there is none"), (Verdict.QUIRK, "it never could.")
    lines = report.matrix({"a": column(none, never), "b": column(never), "c": column()})
    assert lines[:3] == [
        "| | `a` | `b` | `c` |",
        "| --- | --- | --- | --- |",
        f"| {FIRST.capability} | in part [1] [2] | in part [2] | yes |",
    ]
    assert lines[-3:] == ["", "1. There is none.", "2. It never could."]


def test_the_listing_has_every_check() -> None:
    lines = report.listing().split("\n")
    assert [line.split()[0] for line in lines] == [check.name for check in CHECKS]
    assert lines[0].endswith(FIRST.sentence)
