"""Whether bytes from outside are an Arrow IPC stream, as far as its metadata go.

nanoarrow 0.9 checks what it reads, but takes some parts of a message for granted that a sender
can leave out, and lengths for sums of what is there: such a stream ends the process. So they are
looked at here first. The values themselves (offsets, indices, UTF-8) nanoarrow and its user check.

It decodes nothing, and refuses what is older than Arrow 0.15, and files, which are no streams.

Source: Arrow columnar format, "Encapsulated message format", and its Schema.fbs, Message.fbs;
FlatBuffers, "Internals", for how tables and vectors lie in the bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from notebook_rpc.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK: Final = 0xFFFF_FFFF
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3  # kinds of messages

_MOST_FIELDS: Final = 100_000  # of a schema: a table may be there once and be pointed to often
_MOST_NESTED: Final = 64  # levels; nanoarrow has a function call for each
_MOST_ROWS: Final = (1 << 31) - 1  # of a batch; its sizes in bytes are products of this
_MOST_BYTES: Final = 1 << 31  # of a batch, when it is no longer compressed


def check(stream: bytes) -> None:
    """
    Raises:
        QueryError: nanoarrow may not read *stream*.
    """
    try:
        for number, message in enumerate(_messages(memoryview(stream))):
            _check_message(message, first=number == 0)
    except _Malformed as exc:
        raise QueryError(f"not a stream of Arrow: {exc}") from exc


class _Malformed(Exception):
    """The message says what is wrong."""


class _Message(NamedTuple):
    header: _Table
    kind: int
    body: memoryview


def _messages(stream: memoryview) -> Iterator[_Message]:
    if not stream:
        raise _Malformed("it is empty")
    at = 0
    while at < len(stream):
        mark, size = _read("<Ii", stream, at)
        if mark != _MARK or size < 0:
            raise _Malformed(f"no message begins at byte {at}")
        if size == 0:
            return
        begin, end = at + 8, at + 8 + size
        if end > len(stream):
            raise _Malformed(f"it breaks off in the message that begins at byte {at}")
        metadata = stream[begin:end]
        message = _Table(metadata, _read("<I", metadata, 0)[0])
        header = message.table(2)
        body = message.number(3, "<q")
        if header is None or body < 0:
            raise _Malformed(f"nothing is in the message that begins at byte {at}")
        at = end + body
        if at > len(stream):
            raise _Malformed(f"it breaks off in the body of the message that ends at byte {at}")
        yield _Message(header, message.number(1, "<B"), stream[end:at])


def _check_message(message: _Message, *, first: bool) -> None:
    if first is not (message.kind == _SCHEMA):
        raise _Malformed("it must begin with its schema, and have no other")
    if message.kind == _SCHEMA:
        _check_fields(message.header, 1)
        _check_metadata(message.header, 2)
    elif message.kind == _DICTIONARY:
        data = message.header.table(1)
        if data is None:
            raise _Malformed("a dictionary has no values")
        _check_batch(data, message.body)
    elif message.kind == _BATCH:
        _check_batch(message.header, message.body)
    else:
        raise _Malformed(f"a message is of the unknown kind {message.kind}")


def _check_fields(schema: _Table, slot: int) -> None:
    left = [(field, 1) for field in schema.tables(slot)]
    seen = len(left)
    while left:
        field, depth = left.pop()
        if field.table(3) is None:
            raise _Malformed("a field has no type")
        _check_metadata(field, 6)
        children = field.tables(5)
        left += [(child, depth + 1) for child in children]
        seen += len(children)
        if seen > _MOST_FIELDS or depth > _MOST_NESTED:
            raise _Malformed("its schema has too many fields, or nests them too deep")


def _check_metadata(owner: _Table, slot: int) -> None:
    for pair in owner.tables(slot):
        if pair.vector(0, 1) is None or pair.vector(1, 1) is None:
            raise _Malformed("metadata must have keys and values")


def _check_batch(batch: _Table, body: memoryview) -> None:
    rows = batch.number(0, "<q")
    nodes, buffers = batch.vector(1, 16), batch.vector(2, 16)
    if not 0 <= rows <= _MOST_ROWS or nodes is None or buffers is None:
        raise _Malformed("a batch lacks its lengths")
    for at in nodes:
        length, nulls = _read("<qq", batch.data, at)
        if not 0 <= nulls <= length <= _MOST_ROWS:
            raise _Malformed(f"a column has {length} values and {nulls} NULLs")
    compressed = batch.table(3) is not None
    total = 0
    for at in buffers:
        offset, length = _read("<qq", batch.data, at)
        if not (0 <= offset <= len(body) and 0 <= length <= len(body) - offset):
            raise _Malformed("a buffer lies outside of its message")
        if compressed and length:
            total += max(0, _read("<q", body, offset)[0])
    if total > _MOST_BYTES:
        raise _Malformed(f"a batch of {total} bytes is too large")


class _Table:
    """A table of FlatBuffers, whose fields are found by their numbers in its type."""

    def __init__(self, data: memoryview, at: int) -> None:
        self.data = data
        self._at = at
        self._fields = at - _read("<i", data, at)[0]
        self._size = _read("<H", data, self._fields)[0]

    def _find(self, number: int) -> int | None:
        slot = 4 + 2 * number
        if slot + 2 > self._size:
            return None
        offset: int = _read("<H", self.data, self._fields + slot)[0]
        return self._at + offset if offset else None

    def number(self, number: int, kind: str) -> int:
        at = self._find(number)
        return 0 if at is None else int(_read(kind, self.data, at)[0])

    def table(self, number: int) -> _Table | None:
        at = self._find(number)
        return None if at is None else self._table_at(at)

    def tables(self, number: int) -> list[_Table]:
        """Of a vector; none, if it is not there."""
        return [self._table_at(at) for at in self.vector(number, 4) or ()]

    def vector(self, number: int, size: int) -> range | None:
        """Where its elements lie, each of *size* bytes."""
        at = self._find(number)
        if at is None:
            return None
        at += _read("<I", self.data, at)[0]
        length = _read("<I", self.data, at)[0] * size
        at += 4
        if at + length > len(self.data):
            raise _Malformed("a list is longer than its message")
        return range(at, at + length, size)

    def _table_at(self, at: int) -> _Table:
        return _Table(self.data, at + _read("<I", self.data, at)[0])


def _read(kind: str, data: memoryview, at: int) -> tuple[int, ...]:
    if at < 0:  # which Python would count from the end
        raise _Malformed("it points to before its beginning")
    try:
        return struct.unpack_from(kind, data, at)
    except struct.error as exc:
        raise _Malformed("it points to behind its end, or breaks off") from exc
