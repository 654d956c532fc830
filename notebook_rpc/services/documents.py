"""Shared documents, worked on in a process of their own; ``loro_process.py`` says why.

A ``Document`` here is the last snapshot and the updates since; the one over there is made of
these, and made again when that process has ended. So nothing that was taken is lost with it.

What it refuses: an update that builds on changes which are missing. To keep it until they come
would be to lose it with the next restart, and to hide it from whoever joins meanwhile.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from notebook_rpc.errors import InvalidParams, NotebookError
from notebook_rpc.sansio.documents import HEAD, Answer, Ask, Taken, packed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

logger = logging.getLogger(__name__)

# That any one thing asked may take, while all others wait. Loro takes these for a text of 900 KiB
# that is pasted in one piece; for all else they are plenty.
SECONDS: Final = 10.0
LEAVE: Final = 1.0  # seconds in which the process has to end when told so
MEMORY: Final = 4 << 30  # bytes of address space, some 0.3 GiB of which are Python's
CHUNK: Final = 1 << 20
# What the process needs of our environment. It works on what strangers send, and shall not have
# the tokens and passwords that are there.
KEPT: Final = ("PATH", "PYTHON", "LD_", "DYLD_", "SYSTEMROOT", "VIRTUAL_ENV")


class Ended(Exception):
    """The process has ended instead of answering."""


class TookTooLong(Ended):
    """And was ended for that."""


class Engine(Protocol):
    """Who works on documents. Whoever asks waits for all before, and must not be cancelled: half
    a question asked would leave nobody knowing where the next one begins."""

    async def ask(self, ask: Ask, number: int, payload: bytes, /) -> tuple[Answer, bytes]:
        """Raises ``Ended``; the next to ask finds a new process, in which all are MISSING."""
        ...

    async def close(self) -> None: ...


class Process:
    """Started when something is first asked, and again when something is after it has ended."""

    def __init__(self, *, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self.seconds = seconds
        self._command = (
            *(sys.executable, "-P", "-m", "notebook_rpc.services.loro_process"),
            str(memory),
        )
        self._turn = trio.Lock()
        self._running: _Running | None = None

    @property
    def pid(self) -> int | None:
        return None if self._running is None else self._running.process.pid

    async def ask(self, ask: Ask, number: int, payload: bytes, /) -> tuple[Answer, bytes]:
        async with self._turn:
            if self._running is None:
                if ask is Ask.CLOSE:
                    return Answer.DONE, b""
                self._running = await _started(self._command)
            try:
                with trio.fail_after(self.seconds):
                    answer = await self._running.asked(ask, number, payload)
            except trio.TooSlowError as exc:
                await self._end()
                raise TookTooLong(f"it took longer than {self.seconds:g} seconds") from exc
            except (trio.BrokenResourceError, _EndOfFile) as exc:
                raise Ended(f"exit status {await self._end()}") from exc
        return answer

    async def close(self) -> None:
        """End the process. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                await self._end()

    async def _end(self) -> int | None:
        running, self._running = self._running, None
        return None if running is None else await running.end()


class _EndOfFile(Exception):
    pass


class _Running:
    def __init__(self, process: trio.Process) -> None:
        assert process.stdio is not None  # noqa: S101  # both are pipes
        self.process = process
        self._stdio = process.stdio

    async def asked(self, ask: Ask, number: int, payload: bytes) -> tuple[Answer, bytes]:
        await self._stdio.send_all(HEAD.pack(ask, number, len(payload)) + payload)
        answer, _, length = HEAD.unpack(await self._read(HEAD.size))
        return Answer(answer), await self._read(length)

    async def end(self) -> int:
        await self._stdio.aclose()
        with trio.move_on_after(LEAVE):
            return await self.process.wait()
        self.process.kill()
        return await self.process.wait()

    async def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = await self._stdio.receive_some(min(size - len(data), CHUNK))
            if not more:
                raise _EndOfFile
            data += more
        return bytes(data)


async def _started(command: Sequence[str]) -> _Running:
    environment = {key: value for key, value in os.environ.items() if key.startswith(KEPT)}
    start = partial(
        trio.lowlevel.open_process,
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Loro's panics are told there, in as many lines as a client likes.
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # a Ctrl-C is for the server, which has yet to save
    )
    try:
        process = await start()
    except OSError as exc:
        raise NotebookError(f"cannot start the process for documents: {exc}") from exc
    logger.debug("started process %d for documents", process.pid)
    return _Running(process)


class _Refused(Exception):
    """With the reason."""


class Document:
    """One document. Its methods are called one at a time, and cannot be cancelled: what they do is
    done, or was refused."""

    def __init__(self, engine: Engine, number: int) -> None:
        """*number* is no other document's, now or ever."""
        self._engine = engine
        self._number = number
        self._since: list[bytes] = []
        self.snapshot = b""
        """All of it, but for what was taken since the last ``settle``."""

    @property
    def size(self) -> int:
        """In bytes, about: exact when settled."""
        return len(self.snapshot) + sum(map(len, self._since))

    async def open(self, snapshot: bytes | None) -> None:
        """Begin with *snapshot*, or as an empty document.

        Raises:
            InvalidParams: it cannot be read.
        """
        blobs = [] if snapshot is None else [snapshot]
        with trio.CancelScope(shield=True):
            self.snapshot = await self._understood("snapshot", lambda: self._made(blobs))

    async def update(self, data: bytes) -> bool:
        """Take *data*; False if there was nothing new in it.

        Raises:
            InvalidParams: it is no update, or it builds on changes that are not there.
        """
        with trio.CancelScope(shield=True):
            reply = await self._understood("update", lambda: self._ask(Ask.UPDATE, data))
        if reply[0] == Taken.NEW:
            self._since.append(data)
        return reply[0] == Taken.NEW

    async def seed(self, snapshot: bytes) -> bytes | None:
        """Take *snapshot*, if the document is empty, or if it is the same one with more in it;
        None if not. Returns an update with what was new.

        Raises:
            InvalidParams: it is no snapshot.
        """
        with trio.CancelScope(shield=True):
            reply = await self._understood("snapshot", lambda: self._ask(Ask.SEED, snapshot))
        if reply[0] == Taken.NO:
            return None
        if news := reply[1:]:
            self._since.append(news)
        return news

    async def settle(self) -> bytes:
        """A snapshot of all there is."""
        with trio.CancelScope(shield=True):
            if self._since:
                try:
                    self.snapshot = await self._ask(Ask.EXPORT)
                except (_Refused, Ended) as exc:
                    # There are bytes that can be taken in, but not be given out again.
                    logger.warning("a document could not be exported, and is made again: %s", exc)
                    self.snapshot = await self._salvaged(self.snapshot, self._since)
                self._since = []
        return self.snapshot

    async def close(self) -> None:
        """Free what the process holds."""
        try:
            with trio.CancelScope(shield=True):
                await self._engine.ask(Ask.CLOSE, self._number, b"")
        except Ended as exc:
            logger.debug("the process for documents had ended: %s", exc)

    async def _understood(self, kind: str, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """Do *work*; if it ends the process twice, it is the fault of the bytes it is about."""
        try:
            try:
                return await work()
            except TookTooLong:
                raise
            except Ended as exc:
                logger.warning("the process for documents has ended: %s", exc)
                return await work()
        except (_Refused, TookTooLong) as exc:
            raise InvalidParams(f"invalid {kind}: {exc}") from exc
        except Ended as exc:
            logger.error("the bytes of a client end the process for documents: %s", exc)
            raise InvalidParams(f"invalid {kind}: it cannot be worked on") from exc

    async def _ask(self, ask: Ask, payload: bytes = b"") -> bytes:
        answer, body = await self._engine.ask(ask, self._number, payload)
        if answer is Answer.MISSING:
            await self._demand(Ask.OPEN, packed([self.snapshot, *self._since]))
            return await self._demand(ask, payload)
        return _done(answer, body)

    async def _demand(self, ask: Ask, payload: bytes = b"") -> bytes:
        return _done(*await self._engine.ask(ask, self._number, payload))

    async def _made(self, blobs: Sequence[bytes]) -> bytes:
        """The snapshot of a document made of these."""
        await self._demand(Ask.OPEN, packed(blobs))
        return await self._demand(Ask.EXPORT)

    async def _salvaged(self, snapshot: bytes, updates: Sequence[bytes]) -> bytes:
        """A snapshot with as much of *updates* as goes."""
        try:
            return await self._made([snapshot, *updates])
        except (_Refused, Ended) as exc:
            if len(updates) == 1:
                logger.error("an update of %d bytes is left out: %s", len(updates[0]), exc)
                return snapshot
        middle = len(updates) // 2
        half = await self._salvaged(snapshot, updates[:middle])
        return await self._salvaged(half, updates[middle:])


def _done(answer: Answer, body: bytes) -> bytes:
    if answer is not Answer.DONE:
        raise _Refused(body.decode(errors="replace"))
    return body
