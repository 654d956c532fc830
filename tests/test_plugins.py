"""Finding drivers, ours and those of packages that others install."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams
from notebook_rpc.plugins import load_driver
from notebook_rpc_drivers import fake

if TYPE_CHECKING:
    from pathlib import Path

ENTRY_POINTS = """\
[notebook_rpc.drivers]
theirs = their_driver:DRIVER
halfway = their_driver:MISSING
broken = their_broken_driver:DRIVER
newer = their_newer_driver:DRIVER

[other.drivers]
foreign = their_driver:DRIVER
"""


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as pip would leave it."""
    information = tmp_path / "their_package-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: their_package\nVersion: 1\nProvides-Extra: broken\n"
    )
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    without_extras = tmp_path / "their_other_package-1.0.dist-info"
    without_extras.mkdir()
    (without_extras / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: their_other_package\nVersion: 1\n"
    )
    (without_extras / "entry_points.txt").write_text(
        "[notebook_rpc.drivers]\nlacking = their_broken_driver:DRIVER\n"
    )
    (tmp_path / "their_driver.py").write_text("DRIVER = 'theirs'\n")
    (tmp_path / "their_broken_driver.py").write_text("import their_missing_library\n")
    (tmp_path / "their_newer_driver.py").write_text("from os import no_such_function\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_our_drivers_are_found_by_their_names() -> None:
    assert load_driver("fake") is fake.DRIVER


@pytest.mark.usefixtures("_installed")
def test_an_installed_driver_is_found_by_its_name() -> None:
    assert load_driver("theirs") == "theirs"  # type: ignore[comparison-overlap]  # a stand-in


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "their_missing_library"),
        ("newer", "no_such_function"),
        ("lacking", "their_missing_library"),
    ],
)
def test_a_driver_that_cannot_be_imported_says_what_it_misses(name: str, reason: str) -> None:
    with pytest.raises(
        DatabaseUnavailable, match=f"'{name}' cannot be loaded: .*{reason}"
    ) as raised:
        load_driver(name)
    assert isinstance(raised.value.__cause__, ImportError)
    # By convention, an extra of the driver's name brings what it needs; only one has such.
    _, _, remedy = str(raised.value).partition("; pip install ")
    assert remedy == ("'their_package[broken]' brings it" if name == "broken" else "")


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidParams) as raised:
        load_driver("duckbd")
    assert str(raised.value) == "there is no driver 'duckbd'; did you mean 'duckdb'?"


@pytest.mark.usefixtures("_installed")
def test_a_name_near_none_is_answered_with_all_in_order() -> None:
    with pytest.raises(InvalidParams) as raised:
        load_driver("xyz")
    listed = str(raised.value).removeprefix("there is no driver 'xyz'; there are: ").split(", ")
    assert listed == sorted(listed)
    assert {"duckdb", "fake", "sqlite", "theirs"} <= set(listed)
    assert "foreign" not in listed
