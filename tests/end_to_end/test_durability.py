"""What was acknowledged is there: after SIGTERM, after kill -9, after a full disk."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.support import Client, RpcError, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

WRITERS = 4
KINDS = ["duckdb", "sqlite"]
MANY = {  # 10 to 20 MB
    "duckdb": "insert into t select range, md5(range::varchar) from range(600000)",
    "sqlite": "insert into t with recursive r(n) as "
    "(select 1 union all select n + 1 from r where n < 400000) "
    "select n, hex(randomblob(20)) from r",
}


class Writer(threading.Thread):
    """A client with a session of its own, who inserts rows until the server is gone."""

    def __init__(self, server: Server, name: str, enough: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self.client, self.acknowledged = server.session(), list[str]()
        self._prefix, self._enough = name, enough

    def run(self) -> None:
        with suppress(OSError, http.client.HTTPException, RpcError):
            while True:
                row = f"{self._prefix} {len(self.acknowledged)}"
                self.client.call("execute", f"insert into t values (1, '{row}')")
                self.acknowledged.append(row)
                self._enough.release()
                self.client.call("finish")
        self.client.connection.close()


def written(server: Server, number: int, rows: int) -> list[Writer]:
    """Writers at work, once they have been told of so many rows."""
    enough = threading.Semaphore(0)
    writers = [Writer(server, f"{number}/{each}", enough) for each in range(WRITERS)]
    for writer in writers:
        writer.start()
    for _ in range(rows):
        assert enough.acquire(timeout=30)
    return writers


def heard(writers: list[Writer]) -> set[str]:
    """What they were told had been written, when they have noticed that the server is gone."""
    for writer in writers:
        writer.join(30)
        assert not writer.is_alive()
    return {row for writer in writers for row in writer.acknowledged}


def kept(client: Client) -> set[str]:
    return {str(row["x"]) for row in client.rows("select x from t", page=10_000)}


@pytest.mark.parametrize("kind", KINDS)
def test_no_acknowledged_row_is_lost_by_a_kill(kind: str, tmp_path: Path) -> None:
    url = f"{kind}:///{tmp_path / 'some.db'}"
    expected: set[str] = set()
    for number in range(4):
        server = Server(url)
        with server.client() as client:
            client.rows("create table if not exists t (n integer, x varchar)")
            assert kept(client) >= expected
        writers = written(server, number, rows=60)
        server.process.kill()
        server.wait()
        expected |= heard(writers)
    with Server(url) as server, server.client() as client:
        rows = kept(client)
        assert rows >= expected
        assert len(rows - expected) <= 4 * WRITERS  # each had one on the way
        assert len(expected) >= 4 * 60


@pytest.mark.parametrize("kind", KINDS)
def test_no_acknowledged_row_is_lost_by_a_stop_with_work_running(kind: str, tmp_path: Path) -> None:
    url = f"{kind}:///{tmp_path / 'some.db'}"
    with Server(url, "--grace", "10") as server:
        with server.client() as client:
            client.rows("create table t (n integer, x varchar)")
        writers = written(server, 0, rows=60)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        expected = heard(writers)
    assert [path.name for path in tmp_path.iterdir()] == ["some.db"]  # and no log beside it
    with Server(url) as server, server.client() as client:
        assert kept(client) >= expected


# A disk that is full


@contextmanager
def little_room(server: Server, _: Path) -> Iterator[None]:
    """Files of the server may not grow beyond 2 MB in the block, which needs no disk to be full
    and looks much the same."""
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (2_000_000, unlimited))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))


@contextmanager
def full_disk(_: Server, folder: Path) -> Iterator[None]:
    """The disk has 2 MB left."""
    room = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize - 2_000_000))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB, where that can be had."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "notebook-rpc", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root's right to mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_grow_is_an_error_and_no_end(kind: str, tmp_path: Path) -> None:
    fill(kind, tmp_path, "too large|I/O", little_room)


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_an_error_and_no_end(kind: str, disk: Path) -> None:
    fill(kind, disk, "No space left|is full", full_disk)


def fill(
    kind: str,
    folder: Path,
    complaint: str,
    crowding: Callable[[Server, Path], AbstractContextManager[None]],
) -> None:
    """Write more than there is room for, see what is said, and go on when there is room again."""
    url = f"{kind}:///{folder / 'some.db'}"
    with Server(url) as server, server.client() as client, server.session() as other:
        client.rows("create table t (n integer, x varchar)")
        client.rows("insert into t values (0, 'before')")
        with crowding(server, folder):
            for _ in range(2):
                with pytest.raises(RpcError, match=f"(?i){complaint}") as full:
                    client.rows(MANY[kind])
                assert full.value.data["slug"] == "database-error"
                assert kept(other) == {"before"}  # all of it, or nothing
        client.rows("insert into t values (1, 'after')")
        assert kept(other) == {"before", "after"}
        client.rows(MANY[kind])
        assert len(kept(other)) > 300_000
    with Server(url) as server, server.client() as client:
        assert kept(client) >= {"before", "after"}
