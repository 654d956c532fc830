"""Compressing what is sent, beside the event loop: a megabyte takes milliseconds.

The threads that do it are of a number of their own: a worker that waits for the database must not
keep an answer that is ready from going out, and no answer that has begun may fail for want of one.

zstd comes with Python 3.14, or with the extra ``zstd``; without either there is gzip alone
(docs/decisions/0011-zstd-is-an-extra.md).
"""

from __future__ import annotations

import importlib
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import trio

if TYPE_CHECKING:
    from notebook_rpc.services.workers import Workers

Pieces: TypeAlias = Sequence[bytes | memoryview]

# A level higher takes twice the time and saves some percent: on a network of today that is slower.
_GZIP_LEVEL: Final = 1
_ZSTD_LEVEL: Final = 1
_GZIP: Final = 16 + zlib.MAX_WBITS  # zlib's way to say: with the head and the tail of gzip


class _Compressor(Protocol):
    def compress(self, data: bytes | memoryview, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Compression:
    """What bodies can be coded with."""

    def __init__(self, workers: Workers, threads: int | None = None) -> None:
        """*threads* compress at a time: as many as there are cores, unless it is said."""
        self._workers = workers
        self._slots = trio.Semaphore(threads or os.cpu_count() or 1)
        self._makers: Mapping[str, Callable[[], _Compressor]] = _makers()

    @property
    def codings(self) -> Sequence[str]:
        """As Accept-Encoding names them, the best first."""
        return list(self._makers)

    def begin(self, coding: str) -> Coder:
        """Begin a body; *coding* is one of ``codings``."""
        return Coder(self._makers[coding](), self._run)

    async def _run(self, work: Callable[[], bytes]) -> bytes:
        async with self._slots:
            return await self._workers.run_beyond(work)


class Coder:
    """One body on its way. Its memory does not depend on the body's size."""

    def __init__(self, compressor: _Compressor, run: Callable[[Callable[[], bytes]], Any]) -> None:
        self._compressor = compressor
        self._run = run

    async def write(self, pieces: Pieces) -> bytes:
        """What is ready to be sent, which may be nothing."""
        coded: bytes = await self._run(partial(self._compress, pieces))
        return coded

    async def end(self, pieces: Pieces = ()) -> bytes:
        """The rest, with what makes the body whole."""
        rest: bytes = await self._run(lambda: self._compress(pieces) + self._compressor.flush())
        return rest

    def _compress(self, pieces: Pieces) -> bytes:
        return b"".join(map(self._compressor.compress, pieces))


def _makers() -> dict[str, Callable[[], _Compressor]]:
    makers: dict[str, Callable[[], _Compressor]] = {}
    for name in ("compression.zstd", "backports.zstd"):
        try:
            zstd: Any = importlib.import_module(name)
        except ImportError:
            continue
        makers["zstd"] = partial(zstd.ZstdCompressor, _ZSTD_LEVEL)
        break
    makers["gzip"] = partial(zlib.compressobj, _GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    return makers
