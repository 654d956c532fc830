"""The cache: never stale, never half, never more than it may take."""

from __future__ import annotations

import errno
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_rpc.errors import Busy
from notebook_rpc.services._entries import PIECE, Entries
from notebook_rpc.services.cache import SHARE, STALLED, Cache, Key
from notebook_rpc.services.versions import Versions
from notebook_rpc.services.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from notebook_rpc.services.cache import Reader

MAX = 64 * 1024


class Here:
    """Workers without threads, so that a test says in which order things happen."""

    async def run(self, work: Callable[[], object], _: object = None) -> object:
        await trio.lowlevel.checkpoint()
        return work()

    run_beyond = run


def cache_in(folder: Path, max_bytes: int = MAX) -> Cache:
    return Cache(folder, max_bytes, cast("Workers", Here()))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return cache_in(tmp_path / "cache")


@pytest.fixture
async def threaded(tmp_path: Path) -> AsyncIterator[Cache]:
    workers = Workers(limit=4, spare=2)
    yield Cache(tmp_path / "cache", 16 << 20, workers)
    workers.close()


def key(sql: str = "select 1", **changed: object) -> Key:
    known: dict[str, object] = {
        "connection": "main",
        "sql": sql,
        "parameters": None,
        "format": "json",
        "version": "1",
    }
    return Key(**(known | changed))  # type: ignore[arg-type]


async def store(cache: Cache, of: Key, *pieces: bytes | memoryview, note: bytes = b"") -> None:
    async with cache.entry(of) as entry:
        assert entry.writer is not None
        for piece in pieces:
            await entry.writer.write(piece)
        await entry.writer.commit(note)


async def whole(reader: Reader) -> bytes:
    read = b""
    while piece := await reader.read():
        assert len(piece) <= PIECE
        read += piece
    return read


async def look(cache: Cache, of: Key) -> bytes | None:
    async with cache.entry(of) as entry:
        found = None if entry.found is None else await whole(entry.found)
    async with cache.found(of) as reader:
        assert (None if reader is None else await whole(reader)) == found
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# --- One result -------------------------------------------------------------------------------


async def test_what_was_committed_is_found_with_its_note(cache: Cache) -> None:
    assert await look(cache, key()) is None
    await store(cache, key(), b"some ", memoryview(b"rows"), note=b"a note")
    async with cache.entry(key()) as entry:
        assert entry.writer is None
        assert entry.found is not None
        assert entry.found.note == b"a note"
        assert await whole(entry.found) == b"some rows"
        assert await entry.found.read() == b""


async def test_a_result_may_be_empty(cache: Cache) -> None:
    await store(cache, key())
    assert await look(cache, key()) == b""


async def test_a_large_result_comes_in_pieces(threaded: Cache) -> None:
    piece = b"abcdefg" * 100_000
    await store(threaded, key(), piece, memoryview(piece), piece)
    assert await look(threaded, key()) == 3 * piece


@pytest.mark.parametrize(
    "other",
    [
        key("select 2"),
        key(connection="other"),
        key(format="arrow"),
        key(version="2"),
        key(parameters=[]),
    ],
)
async def test_any_difference_is_another_result(cache: Cache, other: Key) -> None:
    await store(cache, key(), b"rows")
    assert await look(cache, other) is None


def test_parameters_that_differ_in_kind_differ() -> None:
    given: list[Any] = [
        None,
        [],
        {},
        [1],
        [1.0],
        [True],
        ["1"],
        ["1, 2"],
        [1, 2],
        [[1], 2],
        {"a": 1},
        [None],
    ]
    given += [["\ud800"], [10**40]]
    assert len({key(parameters=each).name for each in given}) == len(given)
    assert key("a", parameters=["b"]).name != key("a', ['b']", parameters=None).name


async def test_without_commit_nothing_is_kept(cache: Cache, tmp_path: Path) -> None:
    async with cache.entry(key()) as entry:
        assert entry.writer is not None
        await entry.writer.write(b"x" * 100)
    with pytest.raises(ValueError, match="broke"):  # noqa: PT012  # where it breaks is the matter
        async with cache.entry(key()) as entry:
            assert entry.writer is not None
            await entry.writer.write(b"x" * 100)
            raise ValueError("broke")
    assert await look(cache, key()) is None
    assert files(tmp_path / "cache") == []


async def test_what_was_half_written_leaves_no_file(threaded: Cache, tmp_path: Path) -> None:
    async with threaded.entry(key()) as entry:
        assert entry.writer is not None
        await entry.writer.write(b"x" * (2 * PIECE))
        (part,) = files(tmp_path / "cache")
        assert part.stat().st_size == 2 * PIECE
    assert files(tmp_path / "cache") == []


async def test_a_result_expires(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
    cache: Cache,
) -> None:
    async with cache.entry(key()) as entry:
        await trio.sleep(4)  # for the query; what it read is as old as its beginning
        assert entry.writer is not None
        await entry.writer.write(b"rows")
        await entry.writer.commit(lasts=10)
    await trio.sleep(5)
    assert await look(cache, key()) == b"rows"
    await trio.sleep(1)
    assert await look(cache, key()) is None


# --- Files ------------------------------------------------------------------------------------


async def test_nobody_else_may_look(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        await store(cache_in(tmp_path / "open"), key(), b"secret")
    finally:
        os.umask(old)
    folder = tmp_path / "open"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in files(folder)] == [0o600]


def test_a_folder_is_made_private_and_one_of_somebody_else_refused(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir(mode=0o777)
    cache_in(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(PermissionError, match="not a folder of our own"):
        cache_in(link)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        cache_in(tmp_path / "file")
    if os.geteuid() == 0:
        os.chown(folder, 1234, 1234)
        with pytest.raises(PermissionError, match="not a folder of our own"):
            cache_in(folder)


async def test_a_damaged_file_is_removed_and_computed_anew(cache: Cache, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    await store(cache, key(), b"rows " * 20, note=b"note")
    (path,) = files(folder)
    good = path.read_bytes()
    damaged = [good[:length] for length in range(len(good))] + [good + b"x", good + good]
    damaged += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
    for data in damaged:
        path.write_bytes(data)
        assert await look(cache, key()) is None
        assert files(folder) == []
    path.write_bytes(good)
    assert await look(cache, key()) == b"rows " * 20


async def test_closing_removes_ones_own_files_alone(tmp_path: Path) -> None:
    one, other = cache_in(tmp_path), cache_in(tmp_path)
    await store(one, key(), b"one")
    await store(other, key(), b"other")
    assert await look(one, key()) == b"one"
    await one.close()
    assert await look(one, key()) is None
    assert await look(other, key()) == b"other"
    await other.close()
    assert files(tmp_path) == []


# --- Bounds -----------------------------------------------------------------------------------


async def test_it_never_takes_more_than_it_may(cache: Cache, tmp_path: Path) -> None:
    chance = random.Random(2)  # noqa: S311
    kept = 0
    for number in range(300):
        await store(cache, key(f"q{number}"), chance.randbytes(chance.randrange(MAX // SHARE)))
        assert size(tmp_path / "cache") <= MAX
        kept = max(kept, size(tmp_path / "cache"))
    assert kept > MAX * 0.7  # nor much less
    assert len(files(tmp_path / "cache")) <= MAX // 4096  # the smallest takes a block of the disk


async def test_what_was_not_used_for_longest_goes_first(cache: Cache) -> None:
    first = key("first")
    await store(cache, first, b"x" * 8000)
    for number in range(40):
        of = key(f"q{number}")
        await store(cache, of, b"x" * 8000)
        assert await look(cache, of) is not None
        assert await look(cache, first) == b"x" * 8000
    assert await look(cache, key("q0")) is None


async def test_a_result_that_is_too_large_is_given_up(cache: Cache, tmp_path: Path) -> None:
    async with cache.entry(key()) as entry:
        assert entry.writer is not None
        for _ in range(100):
            await entry.writer.write(b"x" * 1000)
        assert files(tmp_path / "cache") == []
        await entry.writer.commit()
    async with cache.entry(key()) as entry:
        assert (entry.found, entry.writer) == (None, None)  # nobody tries again, or waits


async def test_a_slow_reader_reads_on_what_was_evicted(threaded: Cache) -> None:
    piece = b"y" * PIECE
    await store(threaded, key(), piece, piece, piece)
    async with threaded.entry(key()) as entry:
        assert entry.found is not None
        assert await entry.found.read() == piece
        for number in range(8):
            await store(threaded, key(f"q{number}"), piece, piece, piece)
        assert await look(threaded, key()) is None
        assert await whole(entry.found) == piece + piece


async def test_parts_that_nobody_completes_are_swept_after_an_hour(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    entries = Entries(tmp_path, MAX)
    parts = [entries.part("left behind"), entries.part("in use")]
    names = files(tmp_path)
    (left,) = [path for path in names if "left behind" in path.name]
    os.utime(left, (left.stat().st_atime, left.stat().st_mtime - 3601))
    await store(cache, key(), b"rows")
    assert left not in files(tmp_path)
    assert len(files(tmp_path)) == 2
    for part in parts:
        part.discard()
    assert len(files(tmp_path)) == 1


# --- Disks that fail --------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [1000, 5025])  # in the rows; in the last bytes of the file
async def test_a_full_disk_is_one_warning(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    caplog.set_level(logging.WARNING)
    with largest_file(room):
        for number in range(3):
            await store(cache, key(f"q{number}"), b"x" * 5000)
            assert await look(cache, key(f"q{number}")) is None
    assert [os.strerror(errno.EFBIG) in message for message in caplog.messages] == [True]
    assert files(tmp_path / "cache") == []
    await store(cache, key(), b"x" * 5000)  # it works again
    assert await look(cache, key()) == b"x" * 5000


async def test_a_folder_that_was_removed_is_made_again(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").rmdir()
    await store(cache, key(), b"rows")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert await look(cache, key()) == b"rows"
    assert caplog.messages == []


async def test_a_folder_that_cannot_be_made_again_fails_no_query(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").symlink_to(tmp_path / "nowhere")
    await store(cache, key(), b"rows")
    assert await look(cache, key()) is None
    assert len(caplog.messages) == 1


async def test_a_folder_that_is_removed_meanwhile_fails_no_query(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cache.entry(key()) as entry:
        assert entry.writer is not None
        await entry.writer.write(b"x" * (PIECE // 100))
        shutil.rmtree(tmp_path / "cache")
        await entry.writer.commit()
    assert await look(cache, key()) == b"x" * (PIECE // 100)
    assert caplog.messages == []
    async with cache.entry(key("other")) as entry:
        assert entry.writer is not None
        entry.writer._flush()  # noqa: SLF001  # as if it were a large one
        shutil.rmtree(tmp_path / "cache")
        await entry.writer.commit()
    assert await look(cache, key("other")) is None
    assert len(caplog.messages) == 1


# --- Several at once --------------------------------------------------------------------------


async def test_fifty_at_once_are_one_computation(threaded: Cache) -> None:
    computed = 0
    got: list[bytes] = []

    async def ask() -> None:
        nonlocal computed
        async with threaded.entry(key()) as entry:
            if entry.found is not None:
                got.append(await whole(entry.found))
                return
            computed += 1
            assert entry.writer is not None
            for _ in range(3):
                await entry.writer.write(b"z" * 600_000)
                await trio.lowlevel.checkpoint()
            await entry.writer.commit()

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert computed == 1
    assert got == [b"z" * 1_800_000] * 49


class Computing:
    """Somebody who computes as the test says, and some who wait."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.go_on = trio.Event()
        self.scope = trio.CancelScope()
        self.first = True
        self.computed: list[int] = []
        self.found = 0

    async def compute(self, number: int, how: Callable[[], None]) -> None:
        with self.scope if number == 0 else trio.CancelScope():
            async with self.cache.entry(key()) as entry:
                if entry.found is not None:
                    self.found += 1
                    return
                self.computed.append(number)
                if number == 0:
                    if entry.writer is not None:
                        await entry.writer.write(b"rows")
                    await self.go_on.wait()
                    how()
                if entry.writer is not None:
                    await entry.writer.write(b"rows")
                    await entry.writer.commit()


def fail() -> None:
    raise RuntimeError("no")


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_who_waited_computes_if_the_first_does_not_end_well(cache: Cache, how: str) -> None:
    computing = Computing(cache)

    async def first() -> None:
        if how == "fails":
            with pytest.raises(RuntimeError):
                await computing.compute(0, fail)
        else:
            await computing.compute(0, lambda: None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        for number in (1, 2, 3):
            nursery.start_soon(computing.compute, number, fail)
        await trio.testing.wait_all_tasks_blocked()
        assert computing.computed == [0]
        if how == "fails":
            computing.go_on.set()
        else:
            computing.scope.cancel()
    assert len(computing.computed) == 2
    assert computing.found == 2


async def test_nobody_waits_for_a_client_who_does_not_read(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
    cache: Cache,
) -> None:
    computing = Computing(cache)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(computing.compute, 0, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await computing.compute(1, fail)
        assert computing.computed == [0, 1]
        assert STALLED <= trio.current_time() - began <= 2 * STALLED
        computing.go_on.set()
    assert await look(cache, key()) == b"rowsrows"  # of the first, who went on after all


async def test_for_a_long_query_one_waits(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
    cache: Cache,
) -> None:
    found = []

    async def first() -> None:
        async with cache.entry(key()) as entry:
            assert entry.writer is not None
            await trio.sleep(3600)  # until its first row
            await entry.writer.write(b"rows")
            await entry.writer.commit()

    async def second() -> None:
        found.append(await look(cache, key()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(second)
    assert found == [b"rows"]


async def test_who_waits_goes_on_when_the_result_is_there_or_too_large(cache: Cache) -> None:
    go_on, done = trio.Event(), trio.Event()
    got: list[bytes | None] = []

    async def first(of: Key, length: int) -> None:
        async with cache.entry(of) as entry:
            assert entry.writer is not None
            await go_on.wait()
            await entry.writer.write(b"x" * length)
            await entry.writer.commit()
            await done.wait()  # the client reads its last rows

    async def second(of: Key) -> None:
        got.append(await look(cache, of))

    async with trio.open_nursery() as nursery:
        for of, length in ((key("small"), 10), (key("large"), MAX)):
            nursery.start_soon(first, of, length)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(second, of)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(got) == 2
        done.set()
    assert sorted(got, key=str) == [None, b"x" * 10]


# --- Never stale ------------------------------------------------------------------------------

Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "ask", "ask", "query", "store", "leave"]),
        st.integers(0, 1),
        st.integers(0, 3),
    ),
    max_size=40,
)


class Asking:
    """A client of the model: each of its steps is taken when the test says so."""

    def __init__(self, world: World, what: int) -> None:
        self.world = world
        self.what = what
        self.floor = world.acknowledged[what]  # no older answer will do
        self.query, self.store = trio.Event(), trio.Event()
        self.leaves = False

    async def run(self) -> None:
        world = self.world
        of = key(f"select {self.what}", version=world.versions.of("main"))
        async with world.cache.entry(of) as entry:
            if entry.found is not None:
                self.answered(int(await whole(entry.found)))
                return
            await self.query.wait()
            value = world.values[self.what]
            await self.store.wait()
            if entry.writer is not None and not self.leaves:
                await entry.writer.write(str(value).encode())
                await entry.writer.commit()
            self.answered(value)

    def answered(self, value: int) -> None:
        assert self.floor <= value <= self.world.values[self.what]


class World:
    """Two values that writes make grow, as others see them at once and hear of them later."""

    def __init__(self, folder: Path) -> None:
        self.cache = cache_in(folder)
        self.versions = Versions()
        self.values = [0, 0]
        self.acknowledged = [0, 0]

    def write(self, what: int) -> None:
        self.values[what] += 1  # committed
        self.versions.wrote("main")
        self.acknowledged[what] = self.values[what]


async def play(folder: Path, script: list[Step]) -> None:
    world = World(folder)
    asking: list[Asking] = []
    async with trio.open_nursery() as nursery:
        for what, value, who in script:
            if what == "write":
                world.write(value)
            elif what == "ask":
                asking.append(Asking(world, value))
                nursery.start_soon(asking[-1].run)
            elif asking:
                one = asking[who % len(asking)]
                one.leaves |= what == "leave"
                (one.query if what == "query" else one.store).set()
            await trio.testing.wait_all_tasks_blocked()
        for one in asking:
            one.query.set()
            one.store.set()


@settings(deadline=None, max_examples=150)
@given(script=steps)
def test_no_answer_is_older_than_the_last_write_before_it_was_asked_for(
    tmp_path_factory: pytest.TempPathFactory, script: list[Step]
) -> None:
    trio.run(partial(play, tmp_path_factory.mktemp("world"), script))


# --- Processes --------------------------------------------------------------------------------

BOUND = 16 << 20
LARGER = 100_000  # bytes: the larger half is flushed on the way
STORING = """
import random, sys, trio
from pathlib import Path
from notebook_rpc.services.cache import Cache, Key
from notebook_rpc.services.workers import Workers

async def main(folder, seed, rounds, bound, tells):
    chance = random.Random(seed)
    workers = Workers(limit=2, spare=2)
    cache = Cache(Path(folder), int(bound), workers)
    stored = 0
    print("ready", flush=True)
    for number in range(int(rounds)):
        name = chance.randrange(30)
        wanted = random.Random(name).randbytes(name * 100_000)
        async with cache.entry(Key("main", str(name), None, "json", "1")) as entry:
            if entry.found is not None:
                read = b""
                while piece := await entry.found.read():
                    read += piece
                assert read == wanted, "damaged"
            elif entry.writer is not None:
                for at in range(0, len(wanted), 100_000):
                    await entry.writer.write(wanted[at : at + 100_000])
                    if tells == "halves" and stored and any(Path(folder).glob("*.part")):
                        print("half", flush=True)
                        sys.stdin.read()
                await entry.writer.commit(str(name).encode())
                stored += 1
                if tells == "whole" and stored == 1:
                    print("stored", flush=True)
    workers.close()
    print("done", flush=True)

trio.run(main, *sys.argv[1:])
"""


def storing(
    folder: Path, seed: int, rounds: int, tells: Literal["whole", "halves", ""] = ""
) -> subprocess.Popen[str]:
    """A process that stores, and tells when the first is stored, or waits with half of the next."""
    return subprocess.Popen(
        [sys.executable, "-c", STORING, str(folder), str(seed), str(rounds), str(BOUND), tells],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def is_whole(folder: Path, path: Path) -> bool:
    owner, _, name = path.name.partition("-")
    entries = Entries(folder, BOUND, owner)
    found = entries.find(name, 0.0)
    if found is None:
        return False
    with found.file as file:
        number = int(found.note)
        wanted = random.Random(number).randbytes(number * LARGER)  # noqa: S311
        return file.read(found.length) == wanted


def whole_results(folder: Path) -> int:
    stored = [path for path in files(folder) if path.suffix != ".part"]
    assert all(is_whole(folder, path) for path in stored)
    return len(stored)


@pytest.mark.parametrize("seed", range(10))
def test_who_is_killed_at_any_time_leaves_whole_results_only(tmp_path: Path, seed: int) -> None:
    with storing(tmp_path, seed, 1_000_000, "whole") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "stored\n"]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(random.Random(seed).random() * 0.1)  # noqa: S311
        process.kill()
    assert whole_results(tmp_path) > 0


def test_who_is_killed_with_half_a_result_written_leaves_whole_results_only(
    tmp_path: Path,
) -> None:
    with storing(tmp_path, 3, 300, "halves") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "half\n"]
        process.kill()
    assert [path.stat().st_size > 0 for path in files(tmp_path) if path.suffix == ".part"] == [True]
    assert whole_results(tmp_path) > 0


def test_two_processes_share_a_folder_and_its_bound(tmp_path: Path) -> None:
    processes = [storing(tmp_path, seed, 150) for seed in (1, 2)]
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, "ready\ndone\n")
    # What each does not see of the other is an eighth at most, and a result on its way.
    assert size(tmp_path) <= (BOUND) * 1.5
    assert all(is_whole(tmp_path, path) for path in files(tmp_path))


async def test_who_reads_or_writes_need_not_wait_among_calls(tmp_path: Path) -> None:
    """An answer that has begun must not be cut short because the server is busy."""
    workers = Workers(limit=1, spare=1, max_waiting=0)
    cache = Cache(tmp_path / "cache", 16 << 20, workers)
    piece = os.urandom(PIECE)
    await store(cache, key("kept"), piece)
    ended = threading.Event()
    async with trio.open_nursery() as nursery, cache.found(key("kept")) as reader:
        assert reader is not None
        async with cache.entry(key("new")) as entry:
            assert entry.writer is not None
            nursery.start_soon(workers.run, ended.wait)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Busy):
                await workers.run(ended.wait)
            try:
                assert await whole(reader) == piece
                await entry.writer.write(piece)
                await entry.writer.commit()
            finally:
                ended.set()
    assert await look(cache, key("new")) == piece
    workers.close()
