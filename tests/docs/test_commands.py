"""Every command shown in the docs is run, and prints what the docs say it prints.

What a block installs is already here, or ``.ci/run`` installs it: lines are run from behind
their ``pip install``. A server in the docs listens on port 1995, here on a free one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import Server, environment, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str, str]]:
    """Page, shell commands, and the output shown behind them, if any."""
    for page in PAGES:
        found = FENCE.findall(page.read_text("utf-8"))
        for number, (language, text) in enumerate(found):
            if language == "sh":
                following = found[number + 1] if number + 1 < len(found) else ("", "")
                output = following[1] if following[0] == "json" else ""
                yield page.relative_to(ROOT).as_posix(), text, output


BLOCKS = list(blocks())


def without_installing(text: str) -> str:
    return re.sub(r"^pip install [^&\n]*(\n| && )", "", text, flags=re.MULTILINE).strip()


# The last is what runs these very tests.
RUNNABLE = [block for block in BLOCKS if without_installing(block[1]) not in ("", "pytest")]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def test_the_readme_begins_with_its_two_commands() -> None:
    first, *_, last = [text for page, text, _ in BLOCKS if page == "README.md"]
    assert first == "pip install . && notebook-rpc serve\n"
    assert last == "pip install -e '.[test]' && pytest\n"


@pytest.mark.parametrize(
    ("text", "output"),
    [block[1:] for block in RUNNABLE],
    ids=[page for page, *_ in RUNNABLE],
)
def test_a_block_of_commands(text: str, output: str, server: Server, tmp_path: Path) -> None:
    commands = without_installing(text)
    if "curl" in commands and shutil.which("curl") is None:
        missing("curl")
    if "--seconds" in commands and find_spec("atheris") is None:
        missing("atheris (pip install '.[fuzz]')")
    at_home = any(folder in commands for folder in ("fuzz/", "benchmarks", "examples/"))
    folder = ROOT if at_home else tmp_path
    *before, last = commands.splitlines()
    serves = last.startswith("notebook-rpc serve")
    if serves:
        commands = "\n".join(before)
    done = subprocess.run(
        ["bash", "-euc", commands.replace("1995", str(server.port))],  # noqa: S607
        cwd=folder,
        env=environment() | {"PATH": path()},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done
    if output:
        assert done.stdout.splitlines() == output.splitlines()
    if serves:
        run_server(last, folder)


def run_server(command: str, folder: Path) -> None:
    """Start it, on another port, wait for what it says first, and stop it as Ctrl-C does."""
    if "--port" not in command:
        command += " --port 0"
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],  # noqa: S607
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=environment() | {"PATH": path()},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Awaiting connections on http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def path() -> str:
    """Where this interpreter's commands are found first."""
    return str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
