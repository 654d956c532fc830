"""Bodies that are compressed beside the event loop."""

from __future__ import annotations

import gzip
import importlib
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.services.compression import Compression
from notebook_rpc.services.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

zstd: Any = pytest.importorskip("backports.zstd")


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(limit=1, spare=1, max_waiting=0)
    yield workers
    workers.close()


TEXT = b"all work and no play " * 20_000


@pytest.mark.parametrize(
    ("coding", "decode"), [("gzip", gzip.decompress), ("zstd", zstd.decompress)]
)
async def test_pieces_together_are_the_body(workers: Workers, coding: str, decode: Any) -> None:
    coder = Compression(workers).begin(coding)
    coded = b""
    for at in range(0, len(TEXT), 100_000):
        coded += await coder.write([TEXT[at : at + 1], memoryview(TEXT)[at + 1 : at + 100_000]])
    assert decode(coded + await coder.end([b"the end"])) == TEXT + b"the end"
    assert len(coded) < len(TEXT) / 20


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_without_its_end_it_is_not_whole(workers: Workers, coding: str) -> None:
    coded = await Compression(workers).begin(coding).write([TEXT])
    with pytest.raises(EOFError if coding == "gzip" else zstd.ZstdError):
        gzip.decompress(coded) if coding == "gzip" else zstd.decompress(coded)


async def test_zstd_comes_first_where_it_is_installed(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Compression(workers).codings == ["zstd", "gzip"]

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert Compression(workers).codings == ["gzip"]


async def test_it_happens_on_a_worker_and_so_many_at_a_time(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the queue for workers is: an answer that has begun must come to its end."""
    go, both = threading.Event(), threading.Semaphore(0)
    at_work: list[str] = []

    class Slow:
        def compress(self, data: bytes) -> bytes:
            at_work.append(threading.current_thread().name)
            both.release()
            go.wait(5)
            return data

        def flush(self) -> bytes:
            return b""

    monkeypatch.setattr(zlib, "compressobj", lambda *_: Slow())
    codings = Compression(workers, threads=2)
    busy = threading.Event()
    done: list[bytes] = []

    async def code() -> None:
        done.append(await codings.begin("gzip").end([b"x"]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run, lambda: busy.wait(5))  # the one that there may be
        for _ in range(5):
            nursery.start_soon(code)
        await wait_all_tasks_blocked()
        with trio.fail_after(5):
            await trio.to_thread.run_sync(both.acquire)
            await trio.to_thread.run_sync(both.acquire)
        assert len(at_work) == 2
        go.set()
        busy.set()
    assert done == [b"x"] * 5
    assert all(name.startswith("notebook-rpc-worker") for name in at_work)
