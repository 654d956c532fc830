"""Files that are opened: which there are, and that reading them waits for nobody else's work."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.services.files import Files
from notebook_rpc.services.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE = 1 << 20


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(limit=1, spare=1, max_waiting=0)
    yield workers
    workers.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small").write_text("all of it")
    (tmp_path / "large").write_bytes(bytes(LARGE))
    (tmp_path / "empty").mkdir()
    return tmp_path


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def settled(workers: Workers) -> int:
    """Descriptors, once whatever stays open is."""
    await workers.run(lambda: None)
    return descriptors()


async def test_what_is_little_is_read_at_once_and_what_is_large_in_parts(
    workers: Workers, folder: Path
) -> None:
    before = await settled(workers)
    files = Files(workers)
    small = await files.open(folder, ("small",))
    assert small is not None
    assert (small.name, small.size, small.content) == ("small", 9, b"all of it")
    assert descriptors() == before
    large = await files.open(folder, ("large",))
    assert large is not None
    assert (large.size, large.content, descriptors()) == (LARGE, None, before + 1)
    assert await large.read(LARGE - 2, 100) == bytes(2)
    for _ in range(2):
        large.close()
        assert descriptors() == before


async def test_a_folder_is_told_from_a_file(workers: Workers, folder: Path) -> None:
    found = await Files(workers).open(folder, ("empty",))
    assert found is not None
    assert (found.is_folder, found.content) == (True, None)


async def test_what_is_neither_file_nor_folder_is_not_there(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await settled(workers)
    os.mkfifo(tmp_path / "pipe")  # which would keep whoever opens it waiting
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    for name in ("pipe", "socket", "none", "x" * 300):
        assert await Files(workers).open(tmp_path, (name,)) is None
    assert descriptors() == before


OUT = [
    ("..",),
    ("empty", "..", "small"),
    ("empty/../small",),
    ("",),
    (".",),
    ("sm\0all",),
    ("a:b",),
]


@pytest.mark.parametrize("segments", [*OUT, (".hidden",), ("a\\b",)])
async def test_there_is_no_way_out_and_nothing_hidden(
    workers: Workers, folder: Path, segments: tuple[str, ...]
) -> None:
    for name in (".hidden", "a:b", "a\\b"):
        (folder / name).write_text("secret")
    assert await Files(workers).open(folder, segments) is None


@pytest.mark.parametrize("by_descriptors", [True, False])
async def test_links_are_refused(
    workers: Workers, folder: Path, monkeypatch: pytest.MonkeyPatch, *, by_descriptors: bool
) -> None:
    if not by_descriptors:  # as on Windows
        monkeypatch.setattr(os, "supports_dir_fd", set())
    files = Files(workers)
    (folder / "link").symlink_to(folder / "small")
    (folder / "way").symlink_to(folder / "empty")
    (folder / "empty" / "file").touch()
    assert await files.open(folder, ("empty", "file")) is not None
    for segments in (("link",), ("way", "file"), ("none",), ("small", "none")):
        assert await files.open(folder, segments) is None


async def test_a_file_is_read_though_all_workers_are_taken(workers: Workers, folder: Path) -> None:
    go = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run, go.wait)
        await wait_all_tasks_blocked()
        file = await Files(workers).open(folder, ("large",))
        assert file is not None
        assert await file.read(0, 1) == b"\0"
        file.close()
        go.set()


async def test_only_so_many_are_read_at_a_time(workers: Workers, folder: Path) -> None:
    files = Files(workers, limit=1)
    file = await files.open(folder, ("large",))
    assert file is not None
    go, at = threading.Event(), list[int]()

    def slow() -> None:
        at.append(1)
        assert go.wait(10)
        at.append(2)

    async def read() -> None:
        await file.read(0, 1)
        at.append(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run, slow)
        await wait_all_tasks_blocked()
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        go.set()
    assert at == [1, 2, 3]
    file.close()
