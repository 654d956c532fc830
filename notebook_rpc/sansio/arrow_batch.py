"""A record batch as an Arrow IPC message, from columns that are bytes already.

For batches of few rows, where it is quicker than any library that has to be told of each column
first. The metadata is a FlatBuffer whose parts always stand in the same places, and only its
numbers differ::

    offset   size  what
    0        4     where the Message table is
    4        12    its vtable: version, header type, header, body length
    16       20    the Message table
    36       12    the RecordBatch's vtable: length, nodes, buffers; padding
    48       20    the RecordBatch table
    68       4     how many nodes there are
    72       16n   the nodes: length and number of NULLs of each column
    72+16n   8     padding; how many buffers there are
    80+16n   16m   the buffers: where each begins in the body, and its length

Source: Arrow's columnar format 1.5, "Encapsulated message format", with Message.fbs.
"""

from __future__ import annotations

from struct import Struct, pack
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD: Final = Struct("<4s i I 6H iIqhBx 5H2x iIqII")
_HEAD_BYTES: Final = 72  # without the eight in front of the FlatBuffer
_MESSAGE: Final = (12, 20, 16, 18, 4, 8)  # vtable: its size, the table's, and where fields are
_BATCH: Final = (10, 20, 8, 4, 16)
_BEGINS: Final = b"\xff\xff\xff\xff"
_V5: Final = 4  # MetadataVersion
_RECORD_BATCH: Final = 3  # MessageHeader
_PADDING: Final = [bytes(-size % 8) for size in range(8)]


class Column(NamedTuple):
    """``buffers`` are those of the column's type: which of them are NULL first, one bit for each
    row, and nothing where none is."""

    nulls: int
    buffers: Sequence[bytes]


def message(length: int, columns: Sequence[Column]) -> bytes:
    """*length* rows of *columns*, none of which is made of others."""
    nodes: list[int] = []
    places: list[int] = []
    body: list[bytes] = []
    at = 0
    for nulls, buffers in columns:
        nodes += (length, nulls)
        for buffer in buffers:
            size = len(buffer)
            places += (at, size)
            body += (buffer, _PADDING[size % 8])
            at += (size + 7) // 8 * 8
    metadata = _HEAD_BYTES + 8 * (len(nodes) + 1 + len(places))
    # An offset counts from where it stands; one to a vtable backwards.
    head = _HEAD.pack(
        *(_BEGINS, metadata, 16, *_MESSAGE),
        *(12, 28, at, _V5, _RECORD_BATCH, *_BATCH),
        *(12, 16, length, 12 + 8 * len(nodes), len(nodes) // 2),
    )
    vectors = pack(f"<{len(nodes)}q4xI{len(places)}q", *nodes, len(places) // 2, *places)
    return b"".join([head, vectors, *body])
