"""``notebook-rpc check-driver`` as its user sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import pytest

from notebook_rpc import cli, plugins
from notebook_rpc.conformance.drivers import CHECKS
from tests.conformance.broken import Driver

if TYPE_CHECKING:
    from pathlib import Path

ONLY = ("--only", "rows-come-in-pages", "--only", "decimals")


BROKEN = Driver(tables=lambda _: [])


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is installed that has a driver, "mydb"."""
    entry = EntryPoint("mydb", f"{__name__}:BROKEN", plugins.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda _: BROKEN)
    monkeypatch.setattr(plugins, "entry_points", lambda **_: [entry])


def test_each_check_has_a_line_and_there_is_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-driver", "fake://", *ONLY]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == "a fake, as fake: 2 checks"
    assert [line.split() for line in lines] == [
        ["rows-come-in-pages", "ok"],
        ["decimals", "skipped:", "the", "database", "has", "no", "INSERT"],
    ]
    assert last.startswith("2 checks in ")
    assert last.endswith(" s: 1 ok, 0 quirk, 1 skipped, 0 unchecked, 0 FAILED")


def test_all_checks_are_run_unless_some_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-driver", "fake://", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in report["checks"]] == [check.name for check in CHECKS]


def test_json_alone_is_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-driver", "fake://", "--json", *ONLY]) == 0
    captured = capsys.readouterr()
    counts = json.loads(captured.out)["counts"]
    assert counts == {"ok": 1, "quirk": 0, "skipped": 1, "unchecked": 0, "FAILED": 0}
    assert captured.err.startswith("a fake, as fake: 2 checks\n")


@pytest.mark.usefixtures("third_party")
def test_a_failure_of_anybodys_driver_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dialect = tmp_path / "my.toml"
    dialect.write_text('like = "sqlite"\ndriver = "mydb"')
    arguments = ["mydb://", "-P", "database", str(tmp_path / "a"), "--dialect", str(dialect)]
    only = [*ONLY, "--only", "others-tables-are-seen"]  # one failure among others is enough
    assert cli.main(["check-driver", *arguments, *only]) == 1
    assert "FAILED: tables: expected ['made'], found []\n" in capsys.readouterr().out


@pytest.mark.usefixtures("third_party")
def test_a_database_we_do_not_know_needs_a_dialect(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-driver", "mydb://"]) == 2
    assert "no dialect for the driver 'mydb'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nix://"], "there is no driver 'nix'"),
        (
            ["fake://", "--dialect", "duckbd"],
            "there is no dialect 'duckbd'; did you mean 'duckdb'?",
        ),
        (["fake://", "--dialect", "colours"], "there is no dialect 'colours'; there are: duckdb,"),
        (["fake://", "--only", "decimal"], "no check 'decimal'; did you mean 'decimals'?"),
        (["fake://", "--only", "qqq"], "there is no check 'qqq'; --list has them all"),
        (["fake://", "--timeout", "0"], "--timeout must be a number of seconds above 0, not 0"),
        (["fake://?colour=red"], "property colour"),
        (["fake://?database=${NO_SUCH_VARIABLE}"], "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_what_is_wrong_with_the_command_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert cli.main(["check-driver", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("notebook-rpc: ")
    assert complaint in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("call", ["connect", "database.close"])
def test_a_database_that_does_not_open_is_exit_code_4(
    capsys: pytest.CaptureFixture[str], call: str
) -> None:
    assert cli.main(["check-driver", f"fake://?fail={call}"]) == 4
    # Without the call's name, which was given as a property: any of these may be a secret.
    assert capsys.readouterr() == ("", "notebook-rpc: ... fails, as it was told\n")


def test_the_checks_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-driver", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CHECKS)


def test_the_time_for_a_check_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check-driver", "fake://", "--only", "large-results-are-whole"]
    assert cli.main([*arguments, "--timeout", "0.001"]) == 1
    assert "FAILED: it had not ended after 0.001 s" in capsys.readouterr().out


def test_the_server_does_not_load_the_checks() -> None:
    """They are a tenth of the time to start."""
    program = "import sys, notebook_rpc.cli; print('notebook_rpc.conformance' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
