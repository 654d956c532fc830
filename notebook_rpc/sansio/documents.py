"""What is asked of the process in which shared documents live, and what it answers, as bytes.

Both sides are ours and of one version, so nothing here is negotiated or defended against.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEAD: Final = struct.Struct(">BII")
"""An ``Ask`` or an ``Answer``, the number of a document, and how many bytes follow."""

_LENGTH: Final = struct.Struct(">I")


class Ask(enum.IntEnum):
    """OPEN has a list of blobs, a snapshot and updates, or none for an empty document. UPDATE and
    SEED have one blob, and are answered with a ``Taken``, and SEED with an update of what was NEW.
    EXPORT is answered with a snapshot that was tried: it can be opened and read."""

    OPEN, UPDATE, SEED, EXPORT, CLOSE = range(5)


class Answer(enum.IntEnum):
    """REFUSED comes with the reason. MISSING: this document must be opened first."""

    DONE, REFUSED, MISSING = range(3)


class Taken(enum.IntEnum):
    """Whether bytes were taken into a document, and whether it had all of them before."""

    NO, KNOWN, NEW = range(3)

    @property
    def byte(self) -> bytes:
        return bytes([self])


def packed(blobs: Iterable[bytes]) -> bytes:
    return b"".join(part for blob in blobs for part in (_LENGTH.pack(len(blob)), blob))


def unpacked(payload: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(payload):
        (length,) = _LENGTH.unpack_from(payload, at)
        at += _LENGTH.size
        yield payload[at : at + length]
        at += length
