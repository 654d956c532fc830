"""The table of limits has every setting that is one, and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from notebook_rpc import config

ROOT = Path(__file__).parent.parent.parent
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
LIMIT = re.compile(r"max-.*|.*-(timeout|rate|interval)|grace")


def rows() -> list[list[str]]:
    """The cells of each row, without the table's head."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    (table,) = re.findall(r"^\| limit \|.*?(?=\n\n)", page, re.MULTILINE | re.DOTALL)
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


def test_every_limit_that_can_be_set_is_in_the_table() -> None:
    known = config._SETTINGS  # noqa: SLF001  # the table itself
    listed = {cells[1].strip("`").removeprefix("--") for cells in rows()} - {"none"}
    assert listed == {name for name in known if LIMIT.fullmatch(name)}


def test_every_limit_is_held_by_a_test_that_exists() -> None:
    for *_, beyond, held_by in rows():
        assert beyond
        file, _, name = held_by.strip("`").partition("::")
        trees = [ast.parse(path.read_text()) for path in (ROOT / "tests").rglob(file)]
        found = [each for tree in trees for each in tree.body if isinstance(each, FUNCTIONS)]
        assert name in {each.name for each in found}, held_by
