"""The clients that people have, unmodified, from npm: SQLRooms' two connectors, and Mosaic's.

What each must find is told by the scripts in ``tests/clients``, which run against other servers
too. Here they are bundled, as their packages ask for, and pointed at ours. They need node and npm.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import Server, missing

SOURCES = Path(__file__).parent.parent / "clients"
INSTALL_SECONDS = 300
RUN_SECONDS = 120  # for a whole script; each fact in it has a limit of its own
TOKEN = "a-token-of-the-tests"


class Clients:
    """A folder with the clients installed, and the scripts ready to run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = shutil.which("node") or missing("node, as in Debian's package nodejs")
        self.npm = shutil.which("npm") or missing("npm, as in Debian's package npm")
        shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
        # Theirs are peers of React, which no connector uses: hence the option. The only script
        # of an installation, esbuild's, makes it start a little faster.
        options = ("--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund")
        installed = self._npm("ci", *options)
        if installed.returncode:
            missing(f"what npm installs by tests/clients/package.json: {installed.stderr}")
        built = self._npm("run", "build")
        assert built.returncode == 0, built.stdout + built.stderr

    def _npm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.npm, "--no-update-notifier", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
        )

    def run(self, script: str, *arguments: str) -> str:
        """What *script* printed, if every fact in it held."""
        done = subprocess.run(
            [self.node, self.folder / "built" / f"{script}.mjs", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(tmp_path_factory.mktemp("clients"))


def websocket(server: Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


def test_sqlrooms(clients: Clients) -> None:
    with Server() as server:
        clients.run("sqlrooms", websocket(server))


def test_sqlrooms_with_a_token(clients: Clients) -> None:
    with Server("--bearer-token", TOKEN) as server:
        clients.run("sqlrooms", websocket(server), TOKEN)


def test_crdt_rooms_outlive_the_server(clients: Clients, tmp_path: Path) -> None:
    url = f"duckdb:///{tmp_path / 'rooms.duckdb'}"
    known = []
    for _ in range(3):
        with Server(url, "--sync") as server:
            output = clients.run("crdt", websocket(server), "a room")
        known += re.findall(r"runs known to the room: (\d+)", output)
    assert known == ["0", "1", "2"]


def test_crdt_with_a_token(clients: Clients) -> None:
    with Server("--sync", "--bearer-token", TOKEN) as server:
        clients.run("crdt", websocket(server), "a room", TOKEN)


def test_mosaic(clients: Clients) -> None:
    with Server() as server:
        rest = f"http://127.0.0.1:{server.port}/mosaic"
        clients.run("mosaic", websocket(server, "/mosaic"), rest)
