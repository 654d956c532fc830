"""Real database servers for the tests: started in a folder of their own, ended with the run.

They listen on loopback at a free port and on a socket in their folder, let everybody in, and
run as an ordinary user even where the tests are root's, because they refuse to be root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_SECONDS = 60
STOP_SECONDS = 30
USER = 65534 if os.geteuid() == 0 else None
"""Whose the processes are: nobody's by convention, if they would be root's."""


class DatabaseServer:
    """A server process that can be stopped and started again, on the same data and port."""

    user = "notebook"
    database = "notebook"
    package: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.make()
        self.start()

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def properties(self) -> dict[str, str]:
        """What a driver is told to reach it."""
        return {
            "host": self.host,
            "port": str(self.port),
            "username": self.user,
            "database": self.database,
        }

    def make(self) -> None:
        """Make the data folder."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """What runs the server."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it can be used now."""
        raise NotImplementedError

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, user=USER, group=USER
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command()[0]} does not start: {self.log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """At once: its clients lose their connections."""
        assert self._process is not None
        self._process.send_signal(self.stop_signal)
        self._process.wait(STOP_SECONDS)
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def run(self, *command: str) -> bool:
        """Run a program as the server's user; whether it did well."""
        with self.log.open("ab") as log:
            done = subprocess.run(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                check=False,
                user=USER,
                group=USER,
            )
        return done.returncode == 0

    stop_signal: int


class Postgres(DatabaseServer):
    package = "postgresql"
    stop_signal = 2  # SIGINT: "fast shutdown"

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"

    def make(self) -> None:
        initdb = _find("initdb", self.package, "/usr/lib/postgresql/*/bin", "/opt/homebrew/bin")
        data = str(self.folder / "data")
        options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        if not self.run(initdb, "-D", data, "-U", self.user, *options):
            raise RuntimeError(f"initdb failed: {self.log.read_text()}")
        self._bin = Path(initdb).resolve().parent

    def command(self) -> Sequence[str]:
        options = {"port": self.port, "listen_addresses": self.host, "max_connections": 200}
        options |= {"unix_socket_directories": str(self.folder), "fsync": "off"}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        return [str(self._bin / "postgres"), "-D", str(self.folder / "data"), *arguments]

    def answers(self) -> bool:
        at = ("-h", str(self.folder), "-p", str(self.port), "-U", self.user)
        psql = str(self._bin / "psql")
        if self.run(psql, *at, "-d", self.database, "-c", "select 1"):
            return True
        return self.run(str(self._bin / "createdb"), *at, self.database)


class MariaDB(DatabaseServer):
    package = "mariadb-server"
    stop_signal = 15

    @property
    def socket(self) -> str:
        return str(self.folder / "socket")

    @property
    def url(self) -> str:
        return f"mysql+pymysql://{self.user}@{self.host}:{self.port}/{self.database}"

    def make(self) -> None:
        install = _find("mariadb-install-db", self.package, "/usr/bin")
        data = str(self.folder / "data")
        options = ("--no-defaults", f"--datadir={data}", "--skip-test-db", "--skip-log-bin")
        if not self.run(install, *options, "--auth-root-authentication-method=normal"):
            raise RuntimeError(f"mariadb-install-db failed: {self.log.read_text()}")

    def command(self) -> Sequence[str]:
        return [
            _find("mariadbd", self.package, "/usr/sbin", "/usr/local/sbin"),
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--socket={self.socket}",
            f"--pid-file={self.folder / 'pid'}",
            f"--tmpdir={self.folder}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-name-resolve",
        ]

    def answers(self) -> bool:
        client = _find("mariadb", self.package, "/usr/bin")
        make = f"""create database if not exists {self.database};
            create or replace user {self.user}@'%' identified by '';
            grant all on *.* to {self.user}@'%';"""
        return self.run(
            client, "--no-defaults", f"--socket={self.socket}", "-u", "root", "-e", make
        )


@contextmanager
def running(kind: type[DatabaseServer]) -> Iterator[DatabaseServer]:
    """A new, empty server during the block."""
    folder = Path(tempfile.mkdtemp(prefix="notebook-rpc-"))
    try:
        if USER is not None:
            os.chown(folder, USER, USER)
        server = kind(folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _find(program: str, package: str, *folders: str) -> str:
    """Where *program* is; the test is skipped, or under CI fails, if it is nowhere."""
    places = [path for folder in folders for path in Path("/").glob(f"{folder[1:]}/{program}")]
    found = shutil.which(program) or max(map(str, places), default="")
    return found or missing(f"{program}, as in Debian's package {package}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
