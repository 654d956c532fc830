"""Streams from outside: what may reach nanoarrow, and what would end the process there."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.ipc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.errors import QueryError
from notebook_rpc.model import BROKEN_STREAM, END_OF_STREAM
from notebook_rpc.sansio import arrow_check
from notebook_rpc.sansio.arrow_check import check

if TYPE_CHECKING:
    import random


def ipc(table: Any, **options: Any) -> bytes:
    into = io.BytesIO()
    with pyarrow.ipc.new_stream(
        into, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)
    ) as writer:
        writer.write_table(table)
    return into.getvalue()


TEXT = pyarrow.array(["x", None, "y", "x", None, "z", None])
PLAIN = pyarrow.table({"a": [1, None, 3, None, 5, None, 7], "b": TEXT})
STREAMS = {
    "plain": ipc(PLAIN),
    "dictionary": ipc(pyarrow.table({"a": TEXT.dictionary_encode()})),
    "nested": ipc(pyarrow.table({"a": [[{"x": 1}], None], "b": [{"y": [b"q"]}, None]})),
    "metadata": ipc(PLAIN.replace_schema_metadata({"key": "value"})),
    "lz4": ipc(pyarrow.table({"a": list(range(1000))}), compression="lz4"),
    "zstd": ipc(pyarrow.table({"a": list(range(1000))}), compression="zstd"),
    "no rows": ipc(PLAIN.slice(0, 0)),
    "no batches": ipc(PLAIN.schema.empty_table()),
    "no columns": ipc(pyarrow.table({})),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_pass(name: str) -> None:
    check(STREAMS[name])
    check(STREAMS[name].removesuffix(END_OF_STREAM))
    check(STREAMS[name] + b"what comes after the end is nobody's business")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_breaks_off_inside_a_message_does_not(name: str) -> None:
    stream = STREAMS[name].removesuffix(END_OF_STREAM)
    whole = []
    for length in range(len(stream)):
        try:
            check(stream[:length])
            whole.append(length)
        except QueryError:
            pass
    # Between two messages nothing is missing that could be known.
    assert all(stream[length : length + 4] == b"\xff\xff\xff\xff" for length in whole)
    with pytest.raises(QueryError, match=r"behind its end|breaks off"):
        check(stream + BROKEN_STREAM)


def replaced(stream: bytes, old: bytes, new: bytes) -> bytes:
    assert stream.count(old) == 1
    return stream.replace(old, new)


COLUMN = struct.pack("<qq", 7, 3)  # the length of a column, and how many NULLs it has
LENGTH_8000 = struct.pack("<qq", 0, 8000)  # where a buffer lies, and how long it is
NUMBERS = ipc(pyarrow.table({"a": list(range(1000))}))
LZ4 = STREAMS["lz4"]
UNCOMPRESSED = struct.pack("<q", 8000)


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"", "empty"),
        (b"\xff" * 4, "behind its end"),
        (b"hello, this is no Arrow at all", "no message begins at byte 0"),
        (b"ARROW1\0\0" + STREAMS["plain"], "no message begins at byte 0"),
        (STREAMS["plain"][:100], "breaks off"),
        (STREAMS["plain"].removesuffix(END_OF_STREAM) * 2, "begin with its schema"),
        (replaced(ipc(PLAIN.select(["a"])), COLUMN, struct.pack("<qq", -1, 0)), "-1 values"),
        (replaced(ipc(PLAIN.select(["a"])), COLUMN, struct.pack("<qq", 7, -1)), "-1 NULLs"),
        (replaced(ipc(PLAIN.select(["a"])), COLUMN, struct.pack("<qq", 7, 8)), "8 NULLs"),
        (replaced(ipc(PLAIN.select(["a"])), COLUMN, struct.pack("<qq", 2**62, 0)), "values"),
        (replaced(NUMBERS, LENGTH_8000, struct.pack("<qq", 8, 8000)), "outside"),
        (replaced(NUMBERS, LENGTH_8000, struct.pack("<qq", -8, 8000)), "outside"),
        (replaced(NUMBERS, LENGTH_8000, struct.pack("<qq", 0, -1)), "outside"),
        (replaced(NUMBERS, LENGTH_8000, struct.pack("<qq", 2**63 - 1, 2**63 - 1)), "outside"),
        (replaced(LZ4, UNCOMPRESSED, struct.pack("<q", 2**40)), "too large"),
    ],
)
def test_the_rest_is_refused_with_the_reason(stream: bytes, why: str) -> None:
    with pytest.raises(QueryError, match=why):
        check(stream)


def test_a_schema_is_not_nested_without_end() -> None:
    kind = pyarrow.int8()
    for _ in range(100):
        kind = pyarrow.struct([("x", kind)])
    with pytest.raises(QueryError, match="nests them too deep"):
        check(ipc(pyarrow.schema([("a", kind)]).empty_table()))


def test_a_schema_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small it is: a field may be pointed to by many, and so may its children."""
    monkeypatch.setattr(arrow_check, "_MOST_FIELDS", 9)
    nested = pyarrow.struct([(f"x{n}", pyarrow.int8()) for n in range(9)])
    with pytest.raises(QueryError, match="too many fields"):
        check(ipc(pyarrow.schema([("a", nested)]).empty_table()))
    check(ipc(pyarrow.schema([("a", pyarrow.int8())] * 9).empty_table()))


def test_pointers_do_not_lead_to_before_the_message() -> None:
    stream = bytearray(STREAMS["plain"])
    (root,) = struct.unpack_from("<I", stream, 8)
    struct.pack_into("<i", stream, 8 + root, root + 2)
    with pytest.raises(QueryError, match="before its beginning"):
        check(bytes(stream))


@given(st.sampled_from(sorted(STREAMS)), st.randoms(use_true_random=False), st.integers(1, 6))
def test_any_bytes_pass_or_are_refused(name: str, chance: random.Random, hits: int) -> None:
    damaged = bytearray(STREAMS[name])
    for _ in range(hits):
        damaged[chance.randrange(len(damaged))] = chance.choice([0, 1, 127, 128, 255])
    try:
        check(bytes(damaged))
    except QueryError:
        return


def test_what_passes_does_not_end_the_process() -> None:
    """Leave out every part of every message: nanoarrow reads it, or says why not."""
    code = """if True:
        import io
        import sys
        import nanoarrow
        from nanoarrow.ipc import InputStream
        from notebook_rpc.errors import QueryError
        from notebook_rpc.sansio.arrow_check import check
        stream = sys.stdin.buffer.read()
        tried = 0
        for at in range(8, len(stream) - 8, 2):
            for byte in (b"\\0\\0", b"\\0\\x7f", b"\\0\\x80"):
                damaged = stream[:at] + byte + stream[at + 2 :]
                try:
                    check(damaged)
                except QueryError:
                    continue
                tried += 1
                try:
                    readable = InputStream.from_readable(io.BytesIO(damaged))
                    for _ in nanoarrow.c_array_stream(readable):
                        pass
                except RuntimeError:
                    pass
        print(tried)
    """
    for name in ("plain", "dictionary", "nested", "metadata", "lz4"):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            input=STREAMS[name],
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert (ended.returncode, ended.stderr) == (0, b""), name
        assert int(ended.stdout) > 100
