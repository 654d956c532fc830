"""``notebook-rpc check-driver``: run the checks on a database, and tell what came of each."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from notebook_rpc import plugins
from notebook_rpc.conformance import dialects, report
from notebook_rpc.conformance.drivers import CHECKS, TIME_LIMIT, Verdict, run
from notebook_rpc.errors import InvalidParams

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from notebook_rpc.conformance.dialect import Dialect
    from notebook_rpc.conformance.drivers import Check


def check_driver(
    arguments: argparse.Namespace, driver_name: str, properties: Mapping[str, str]
) -> int:
    """Run what *arguments* ask for, or list it; 1 if a check failed, else 0.

    Raises:
        InvalidParams: there is no such driver, dialect or check, or a property is wrong.
        DatabaseError: the database cannot be opened at all.
    """
    checks = _chosen(arguments.only)
    if arguments.list:
        print(report.listing(checks))  # noqa: T201  # what was asked for
        return 0
    seconds = TIME_LIMIT if arguments.timeout is None else arguments.timeout
    if not seconds > 0:
        raise InvalidParams(f"--timeout must be a number of seconds above 0, not {seconds:g}")
    driver = plugins.load_driver(driver_name)
    name, dialect = _dialect(arguments.dialect, driver_name, properties)
    database = driver.open(properties)  # what is wrong with it, sixty checks need not tell
    try:
        database.connect().close()
        description = database.description
    finally:
        database.close()
    progress = sys.stderr if arguments.json else sys.stdout
    print(f"{description}, as {name}: {len(checks)} checks", file=progress)
    findings = []
    for check in checks:
        print(f"{check.name:<{report.WIDTH}}", end="", file=progress, flush=True)
        findings.append(run(check, driver, properties, dialect, seconds))
        print(report.line(findings[-1]), file=progress, flush=True)
    print(report.summary(findings), file=progress)
    if arguments.json:
        print(report.as_json(description, name, findings).decode())  # noqa: T201
    return int(any(finding.verdict is Verdict.FAILED for finding in findings))


def _chosen(names: Sequence[str]) -> Sequence[Check]:
    known = {check.name: check for check in CHECKS}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "--list has them all"
            raise InvalidParams(f"there is no check {name!r}; {hint}")
    return [known[name] for name in names] or CHECKS


def _dialect(given: str | None, driver: str, properties: Mapping[str, str]) -> tuple[str, Dialect]:
    name = given or dialects.guess(driver, properties)
    if name in dialects.DIALECTS:
        return name, dialects.DIALECTS[name]
    if name.endswith(".toml"):
        return name, dialects.read(Path(name))
    near = difflib.get_close_matches(name, dialects.DIALECTS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(dialects.DIALECTS)}"
    raise InvalidParams(f"there is no dialect {name!r}; {hint}")
