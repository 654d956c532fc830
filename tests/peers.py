"""Clients of shared documents, and an engine for these that works on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from loro import ExportMode, LoroDoc, VersionVector

from notebook_rpc.services.documents import Ended
from notebook_rpc.services.loro_process import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_rpc.sansio.documents import Answer, Ask


class Peer:
    """A document as a client has it."""

    def __init__(self, number: int, snapshot: bytes | None = None) -> None:
        self.document = LoroDoc()
        self.document.peer_id = number
        if snapshot is not None:
            self.hear(snapshot)
        self._told = VersionVector() if snapshot is None else self.document.oplog_vv

    def write(self, **entries: int | str) -> None:
        """Change what ``value`` has."""
        for key, value in entries.items():
            self.document.get_map("entries").insert(key, value)
        self.document.commit()

    def type(self, at: int, text: str) -> None:
        self.document.get_text("text").insert(at, text)
        self.document.commit()

    def hear(self, data: bytes) -> None:
        self.document.import_(data)

    def update(self) -> bytes:
        """What was changed since the last one."""
        since, self._told = self._told, self.document.oplog_vv
        return self.document.export(ExportMode.Updates(since))

    @property
    def snapshot(self) -> bytes:
        return self.document.export(ExportMode.Snapshot())

    @property
    def value(self) -> dict[str, Any]:
        return value(self.snapshot)


def value(snapshot: bytes) -> dict[str, Any]:
    """What a document says, whoever said it in whatever order."""
    document = LoroDoc()
    document.import_(snapshot)
    found: Any = document.get_deep_value()
    return {"entries": found.get("entries", {}), "text": found.get("text", "")}


class Inline:
    """An engine without a process, whose documents are lost when it ``fails``."""

    failure: type[Ended] = Ended

    def __init__(self, fails: Callable[[Ask, bytes], bool] = lambda *_: False) -> None:
        self.fails = fails
        self.asked: list[Ask] = []
        self.closed = False
        self._shelf = Shelf()

    async def ask(self, ask: Ask, number: int, payload: bytes, /) -> tuple[Answer, bytes]:
        self.asked.append(ask)
        await trio.lowlevel.cancel_shielded_checkpoint()
        if self.fails(ask, payload):
            self.lose()
            raise self.failure("exit status -11")
        return self._shelf.answer(ask, number, payload)

    def lose(self) -> None:
        """All documents, as happens when a process ends while nobody asks anything."""
        self._shelf = Shelf()

    async def close(self) -> None:
        self.closed = True
