"""What is said of drivers for their authors: every capability, and how many checks there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import pytest

from notebook_rpc import driver
from notebook_rpc.conformance.report import listing

ROOT = Path(__file__).parent.parent.parent


def test_every_capability_is_listed_once() -> None:
    page = (ROOT / "docs" / "drivers.md").read_text()
    (section,) = re.findall(r"^## Writing one\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    asked_for = {
        name
        for name, found in vars(driver).items()
        if isinstance(found, type) and found is not Protocol
        if getattr(found, "_is_runtime_protocol", False)
    }
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == sorted(asked_for)


@pytest.mark.parametrize("page", ["README.md", "docs/drivers.md"])
def test_the_number_of_checks_is_right(page: str) -> None:
    told = re.findall(r"check-driver .*?(\d+)\s+checks", (ROOT / page).read_text(), re.DOTALL)
    assert told == [str(len(listing().splitlines()))]
