"""The reference pages say what the code says. A failing test shows the table as it should be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from notebook_rpc import config, errors

if TYPE_CHECKING:
    from dataclasses import Field

DOCS = Path(__file__).parent.parent.parent / "docs"


def table(page: str) -> list[str]:
    return [line for line in (DOCS / page).read_text().splitlines() if line.startswith("| `")]


def default(setting: Field[Any]) -> str:
    if setting.default in ((), ""):
        return "none"
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    return f"`{config.shown_default(setting)}`"


def test_every_setting_is_listed_with_its_default() -> None:
    expected = [
        f"| `{'URL' if name == 'url' else '--' + name}` | {default(setting)} "
        f"| {setting.metadata['help']} |"
        for name, setting in config._SETTINGS.items()  # noqa: SLF001  # the table itself
    ]
    assert table("configuration.md") == expected, "\n".join(expected)


def kinds(root: type[errors.NotebookError]) -> list[type[errors.NotebookError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


def test_every_error_is_listed_with_its_codes() -> None:
    rows = [
        f"| `{kind.slug}` | {kind.rpc_code} | {kind.http_status} |"
        for kind in kinds(errors.NotebookError)
        if kind.__module__ == errors.__name__
    ]
    listed = [line.rsplit("|", 2)[0] + "|" for line in table("errors.md")]
    assert sorted(listed) == sorted(rows), "\n".join(rows)


def test_our_own_errors_are_listed_by_their_codes() -> None:
    codes = [int(line.split("|")[2]) for line in table("errors.md")]
    ours = [code for code in codes if -32100 < code <= -32000]  # the others are JSON-RPC's
    assert ours == sorted(ours, reverse=True)


def test_slugs_are_distinct() -> None:
    slugs = [kind.slug for kind in kinds(errors.NotebookError)]
    assert len(set(slugs)) == len(slugs)
