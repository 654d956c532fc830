"""What a run found, for people, for machines, and as the matrix of docs/drivers.md."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from notebook_rpc.conformance.drivers import CHECKS, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from notebook_rpc.conformance.drivers import Check, Finding

WIDTH: Final = max(len(check.name) for check in CHECKS) + 2


def line(finding: Finding) -> str:
    """The verdict, to go behind the check's name. A failure shows what was promised."""
    said = finding.verdict.value
    if finding.message:
        said += f": {finding.message}"
    if finding.verdict is Verdict.FAILED:
        said += f"\n    promised: {finding.check.sentence}"
    return said


def summary(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.verdict for finding in findings)
    parts = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict]
    seconds = sum(finding.seconds for finding in findings)
    return f"{len(findings)} checks in {seconds:.1f} s: {', '.join(parts)}"


def as_json(description: str, dialect: str, findings: Sequence[Finding]) -> bytes:
    """The report as one JSON object: the checks in order, and how many have each verdict."""
    counts = Counter(finding.verdict.value for finding in findings)
    report: dict[str, Any] = {
        "database": description,
        "dialect": dialect,
        "counts": {verdict.value: counts[verdict.value] for verdict in Verdict},
        "checks": [
            {
                "name": finding.check.name,
                "capability": finding.check.capability,
                "promise": finding.check.sentence,
                "verdict": finding.verdict.value,
                "message": finding.message,
                "seconds": round(finding.seconds, 3),
            }
            for finding in findings
        ],
    }
    return msgspec.json.format(msgspec.json.encode(report), indent=2)


@dataclass(frozen=True)
class Cell:
    """How far a driver has a capability: ``yes``, ``no``, ``in part`` or ``?``, and why.

    A failure is not dressed up as any of these: it is ``FAILED``.
    """

    word: str
    reasons: tuple[str, ...] = ()


def cells(findings: Iterable[Finding]) -> dict[str, Cell]:
    """The column of the matrix that the findings of one driver make, by capability."""
    of: dict[str, list[Finding]] = {}
    for finding in findings:
        of.setdefault(finding.check.capability, []).append(finding)
    return {capability: _cell(found) for capability, found in of.items()}


def _cell(findings: Sequence[Finding]) -> Cell:
    verdicts = {finding.verdict for finding in findings}
    if Verdict.FAILED in verdicts:
        return Cell("FAILED")
    if verdicts == {Verdict.OK}:
        return Cell("yes")
    reasons = dict.fromkeys(_sentence(each.message) for each in findings if each.message)
    word = "in part" if Verdict.OK in verdicts else "no"
    return Cell("?" if verdicts == {Verdict.UNCHECKED} else word, tuple(reasons))


def matrix(columns: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Lines of Markdown: a row for each capability, a column for each dialect, and below them
    the reasons, by their numbers in the cells."""
    heads = " | ".join(f"`{name}`" for name in columns)
    lines = [f"| | {heads} |", f"| --- {'| --- ' * len(columns)}|"]
    numbers: dict[str, int] = {}
    for capability in dict.fromkeys(check.capability for check in CHECKS):
        row = []
        for column in columns.values():
            cell = column[capability]
            marks = [numbers.setdefault(reason, len(numbers) + 1) for reason in cell.reasons]
            row.append(" ".join([cell.word, *(f"[{number}]" for number in marks)]))
        lines.append(f"| {capability} | {' | '.join(row)} |")
    return [*lines, "", *(f"{number}. {reason}" for reason, number in numbers.items())]


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."


def listing(checks: Iterable[Check] = CHECKS) -> str:
    """All checks by name, with what they promise."""
    return "\n".join(f"{check.name:<{WIDTH}}{check.sentence}" for check in checks)
