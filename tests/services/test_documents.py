"""Documents: whatever a client sends, and however often their process ends, what was taken stays,
and what was refused has changed nothing."""

from __future__ import annotations

import os
import signal
import sys
from base64 import b64decode
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from notebook_rpc.errors import InvalidParams, NotebookError
from notebook_rpc.sansio.documents import Answer, Ask, packed, unpacked
from notebook_rpc.services.documents import SECONDS, Document, Process, TookTooLong
from tests.peers import Inline, Peer, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def opened(engine: Inline | Process, snapshot: bytes | None = None) -> Document:
    document = Document(engine, 1)
    await document.open(snapshot)
    return document


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    process = Process()
    yield process
    await process.close()


# What is taken, and what is refused


async def test_updates_are_in_the_snapshot_of_a_settled_document() -> None:
    document, anna, bert = await opened(Inline()), Peer(1), Peer(2)
    anna.write(a=1)
    bert.write(b=2)
    assert await document.update(anna.update())
    assert await document.update(bert.update())
    assert value(document.snapshot)["entries"] == {}  # not yet
    assert value(await document.settle())["entries"] == {"a": 1, "b": 2}
    assert value(document.snapshot)["entries"] == {"a": 1, "b": 2}
    assert document.size == len(document.snapshot)


async def test_the_snapshot_of_an_empty_document_has_bytes_that_a_client_can_import() -> None:
    assert value((await opened(Inline())).snapshot) == {"entries": {}, "text": ""}


async def test_an_update_without_news_changes_nothing() -> None:
    document, anna = await opened(Inline()), Peer(1)
    anna.write(a=1)
    update = anna.update()
    assert await document.update(update)
    size = document.size
    assert not await document.update(update)
    assert not await document.update(Peer(2).update())  # an empty one
    assert document.size == size


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda _: b"", "Invalid import data"),
        (lambda _: b"garbage", "Invalid import data"),
        (lambda _: bytes(1000), "magic"),
        (lambda update: update[:-1], "hecksum"),
        (lambda update: update + b"x", "hecksum"),
        (lambda update: update[:30] + bytes([update[30] ^ 1]) + update[31:], "hecksum"),
    ],
)
async def test_what_is_no_update_is_refused_and_changes_nothing(
    spoil: Callable[[bytes], bytes], reason: str
) -> None:
    engine, anna = Inline(), Peer(1)
    document = await opened(engine)
    anna.write(a=1)
    good = anna.update()
    await document.update(good)
    before = await document.settle()
    anna.write(a=2)
    with pytest.raises(InvalidParams, match=f"invalid update: .*{reason}"):
        await document.update(spoil(anna.update()))
    with pytest.raises(InvalidParams, match="invalid snapshot"):
        await document.seed(spoil(anna.snapshot))
    assert engine.asked.count(Ask.OPEN) == 1  # nothing had to be made again
    assert not await document.update(good)
    assert await document.settle() == before


async def test_an_update_that_builds_on_what_is_missing_is_refused_until_it_is_there() -> None:
    engine, anna, bert = Inline(), Peer(1), Peer(2)
    document = await opened(engine)
    anna.write(a=1)
    first = anna.update()
    anna.write(a=2)
    second = anna.update()
    bert.hear(first)
    bert.hear(second)
    bert.update()
    bert.write(b=1)  # his first change, after hers: no gap in his own
    third = bert.update()
    for _ in range(2):
        with pytest.raises(InvalidParams, match="changes that are not in this room"):
            await document.update(second)
    assert engine.asked.count(Ask.OPEN) == 1  # the common case: nothing has to be made again
    with pytest.raises(InvalidParams, match="changes that are not in this room"):
        await document.update(third)
    assert value(await document.settle())["entries"] == {}
    for update in (first, second, third):
        assert await document.update(update)
    assert value(await document.settle())["entries"] == {"a": 2, "b": 1}


async def test_a_stored_snapshot_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidParams, match="invalid snapshot"):
        await opened(Inline(), b"not ours")


# Updates whose checksums are right, and that are wrong in one byte. Loro 1.17 takes in the first
# two, cannot export a document with the first, nor read one with the second, and panics at the
# third. Another version may be wiser; whatever it says, the document has to be well after it.
HOSTILE = {
    "export": "G5K+9gAEgQEABgEGARsCAgAAAAAAAAABAAAAAAAAAAEBAQEBAQAAAAAFAQAAAQAQAwQBBAAA"
    "BAECAAIEAQMABAsCbWwEdGV4dAJ0cgkBAgIBAAMBAYAYAQQGAQAEAgEBAggABQcLBRAJBQMA"
    "AwQBCwEDAgEAAgECAgECDQcBBQF4A2hleQAEAAE=",
    "read": "p0LIogAEgQEABgEGARsCAgAAAAAAAAABAAAAAAAAAAEBAQEBAQAAAAAFAQAAAQAQAwQBgAAA"
    "BAECAAIEAQMABAsCbWwEdGV4dAJ0cgkBAgIBAAMBAYAYAQQGAQAEAgEBAggABQcLBRAJBQMB"
    "AwQBCwEDAgEAAgECAgECDQcBBQF4A2hleQAEAAE=",
    "import": "PWjxTwAEgQEABgEGARsCAgAAAAAAAAABAAAAAAAAAAEBAQEBAQAAAAAFAQAAAQAQAwQBBAAA"
    "BAECAAIEAQMABAsCbWwEdGV4dAJ0cgkBAgIBAAMBAYAYAQQGAQAEAgEBAggABQcLBRCABQMB"
    "AwQBCwEDAgEAAgECAgECDQcBBQF4A2hleQAEAAE=",
}


@pytest.mark.parametrize("which", HOSTILE)
async def test_a_document_is_well_after_what_was_made_to_harm_it(
    which: str, process: Process
) -> None:
    document, anna = await opened(process), Peer(1)
    anna.write(a=1)
    await document.update(anna.update())
    with suppress(InvalidParams):
        await document.update(b"loro" + bytes(12) + b64decode(HOSTILE[which]))
    for number in range(3):
        anna.write(a=number)
        await document.update(anna.update())
        assert value(await document.settle())["entries"] == {"a": number}


# Seeds


async def test_an_empty_document_takes_a_seed() -> None:
    document, anna = await opened(Inline()), Peer(1)
    assert await document.seed(anna.snapshot) == b""
    anna.write(a=1)
    news = await document.seed(anna.snapshot)
    assert news is not None
    bert = Peer(2)
    bert.hear(news)
    assert bert.value == anna.value == value(await document.settle())


async def test_a_document_with_a_state_takes_no_strangers_seed() -> None:
    document, anna, bert = await opened(Inline()), Peer(1), Peer(2)
    anna.write(a=1)
    bert.write(a="wiped")
    await document.seed(anna.snapshot)
    assert await document.seed(bert.snapshot) is None
    assert await document.seed(Peer(3).snapshot) is None
    assert await document.seed(anna.snapshot) is None  # it has all that
    assert value(await document.settle())["entries"] == {"a": 1}


async def test_a_seed_of_the_same_document_brings_what_was_changed_meanwhile() -> None:
    """The client was offline, or the server was killed before it had saved."""
    document, anna = await opened(Inline()), Peer(1)
    anna.write(a=1)
    text = "".join(map(str, range(1000)))
    anna.type(0, text)
    await document.seed(anna.snapshot)
    bert = Peer(2, anna.snapshot)
    carl = Peer(3, await document.settle())
    bert.write(b=2)
    carl.write(c=3)
    await document.update(carl.update())
    news = await document.seed(bert.snapshot)
    assert news is not None
    carl.hear(news)
    assert carl.value == value(await document.settle())
    assert carl.value == {"entries": {"a": 1, "b": 2, "c": 3}, "text": text}
    assert len(news) < len(bert.snapshot)
    bert.update()
    bert.write(b=4)
    assert await document.update(bert.update())  # nothing that it builds on is missing now


# When the process ends


async def test_a_document_is_made_again_of_what_was_taken() -> None:
    ends = iter([False, False, False, True])  # before it has taken the second update
    engine = Inline(lambda *_: next(ends, False))
    document, anna = await opened(engine), Peer(1)
    for number in range(3):
        anna.write(**{f"a{number}": number})
        assert await document.update(anna.update())
    assert value(await document.settle())["entries"] == {"a0": 0, "a1": 1, "a2": 2}


async def test_bytes_that_end_the_process_each_time_are_refused() -> None:
    engine = Inline(lambda ask, payload: ask is Ask.UPDATE and b"poison" in payload)
    document, anna, bert = await opened(engine), Peer(1), Peer(2)
    anna.write(a=1)
    await document.update(anna.update())
    bert.write(b="poison")
    with pytest.raises(InvalidParams, match="invalid update: it cannot be worked on"):
        await document.update(bert.update())
    anna.write(a=2)
    assert await document.update(anna.update())
    assert value(await document.settle())["entries"] == {"a": 2}


@pytest.mark.parametrize(("others", "at"), [(0, 0), (1, 0), (1, 1), (7, 0), (7, 3), (7, 5), (7, 7)])
async def test_what_can_be_taken_but_not_exported_is_left_out(others: int, at: int) -> None:
    inside: list[bytes] = []

    def fails(ask: Ask, payload: bytes) -> bool:
        if ask is Ask.OPEN:
            inside.clear()
        inside.append(payload)
        return ask is Ask.EXPORT and b"poison" in b"".join(inside)

    document = await opened(Inline(fails))
    for number in range(others + 1):
        peer = Peer(number + 1)
        peer.write(**{"poison" if number == at else f"key{number}": number})
        await document.update(peer.update())
    kept = {f"key{number}": number for number in range(others + 1) if number != at}
    assert value(await document.settle())["entries"] == kept
    late = Peer(100)
    late.write(late=1)
    await document.update(late.update())
    assert value(await document.settle())["entries"] == kept | {"late": 1}


async def test_a_process_that_cannot_be_had_is_nobodys_fault_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, process: Process
) -> None:
    document, anna = await opened(process), Peer(1)
    anna.write(a=1)
    await document.update(anna.update())
    await process.close()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nonexistent")
        broken = Process()
        document._engine = broken  # noqa: SLF001  # the same document, on a bad day
        with pytest.raises(NotebookError, match="cannot start the process") as raised:
            await document.settle()
        assert type(raised.value) is NotebookError
    document._engine = process  # noqa: SLF001
    assert value(await document.settle())["entries"] == {"a": 1}


async def test_what_takes_too_long_is_not_tried_again_as_others_wait() -> None:
    engine, anna = Inline(lambda ask, _: ask is Ask.UPDATE), Peer(1)
    engine.failure = TookTooLong
    document = await opened(engine)
    anna.write(a=1)
    with pytest.raises(InvalidParams, match="invalid update: "):
        await document.update(anna.update())
    assert engine.asked.count(Ask.UPDATE) == 1


# The process itself


async def test_a_killed_process_is_replaced_and_nobody_notices(process: Process) -> None:
    document, anna = await opened(process), Peer(1)
    for number in range(3):
        anna.write(a=number)
        assert await document.update(anna.update())
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    assert value(await document.settle())["entries"] == {"a": 2}


async def test_a_process_that_hangs_is_killed() -> None:
    process = Process()
    await opened(process)
    pid = process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    process.seconds = 0.2
    with trio.fail_after(5), pytest.raises(TookTooLong, match="it took longer"):
        await process.ask(Ask.EXPORT, 1, b"")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    process.seconds = SECONDS
    assert await process.ask(Ask.EXPORT, 1, b"") == (Answer.MISSING, b"")
    await process.close()


async def test_whoever_leaves_in_the_middle_leaves_nothing_half_asked(process: Process) -> None:
    document, anna = await opened(process), Peer(1)
    anna.type(0, "x" * 3_000_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(document.update, anna.update())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert value(await document.settle())["text"] == "x" * 3_000_000


async def test_memory_beyond_the_limit_ends_the_process_and_not_the_server() -> None:
    process = Process(memory=120 << 20)
    document, anna = await opened(process), Peer(1)
    anna.write(a=1)
    await document.update(anna.update())
    bert = Peer(2)
    bert.write(b="x" * (40 << 20))
    with pytest.raises(InvalidParams, match="cannot be worked on"):
        await document.update(bert.update())
    assert value(await document.settle())["entries"] == {"a": 1}
    await process.close()


async def test_nothing_is_started_before_something_is_asked_and_nothing_is_left(
    process: Process,
) -> None:
    assert process.pid is None
    await Document(process, 1).close()
    assert process.pid is None
    await opened(process)
    pid = process.pid
    assert pid is not None
    await process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_signals_to_the_server_are_not_for_the_process(process: Process) -> None:
    document = await opened(process)
    pid = process.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    await document.settle()
    assert await process.ask(Ask.EXPORT, 1, b"") == (Answer.DONE, document.snapshot)
    assert process.pid == pid
    assert os.getpgid(pid) != os.getpgid(0)


async def test_the_process_is_not_told_our_secrets(
    monkeypatch: pytest.MonkeyPatch, process: Process
) -> None:
    monkeypatch.setenv("NOTEBOOK_RPC_BEARER_TOKEN", "s3cret")
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    await opened(process)
    environment = await trio.Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"s3cret" not in environment
    assert b"PATH=" in environment


def test_lists_of_blobs_are_read_as_they_were_written() -> None:
    for blobs in ([], [b""], [b"a", b"", bytes(1000)]):
        assert list(unpacked(packed(blobs))) == blobs
