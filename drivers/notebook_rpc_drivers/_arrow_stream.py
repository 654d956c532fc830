"""Reading an Arrow C stream while others go on.

nanoarrow 0.9 keeps Python's lock while it waits for a batch, or for a stream to be released, so
that a slow query would stop all of the server. ctypes lets go of it. The struct is that of the
Arrow C stream interface, which never changes.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from nanoarrow.c_array import allocate_c_array
from nanoarrow.c_array_stream import allocate_c_array_stream

if TYPE_CHECKING:
    from collections.abc import Iterator


class ArrowError(Exception):
    """What a stream has instead of the classes of PEP 249: a message alone."""


class _Stream(ctypes.Structure):
    _fields_ = [  # ctypes wants it so
        *((name, ctypes.c_void_p) for name in ("get_schema", "get_next", "get_last_error")),
        *((name, ctypes.c_void_p) for name in ("release", "private_data")),
    ]


_GET_SCHEMA: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_GET_NEXT: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_GET_LAST_ERROR: Final = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)
_RELEASE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def batches(stream: Any, schema: Any) -> Iterator[Any]:
    """The batches of *stream*, which stays in use while they come.

    Raises:
        ArrowError: the database failed while it made the rows.
    """
    at = stream._addr()  # noqa: SLF001  # it is documented, though private by name
    while True:
        batch = allocate_c_array(schema)
        said = _next(at, batch._addr())  # noqa: SLF001
        if said is not None:
            raise ArrowError(said)
        if not batch.is_valid():
            return
        yield batch


class Lent:
    """A stream for another engine to read, once: the batches of *stream*, until it ends or fails.

    The other engine is told of an end in both cases, and to release it is to release nothing: an
    engine that has to give up in the middle of another's stream waits for it, at times for ever.
    Who lends it keeps it in use, then looks at ``failure`` and releases it himself.
    """

    def __init__(self, stream: Any) -> None:
        self.failure: ArrowError | None = None
        self._stream = stream
        self._get_schema = _GET_SCHEMA(self._schema_to)
        self._get_next = _GET_NEXT(self._next_to)

    def __arrow_c_schema__(self) -> object:
        return self._stream.get_schema().__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        lent = allocate_c_array_stream()
        functions = _Stream.from_address(lent._addr())  # noqa: SLF001  # see above
        functions.get_schema = ctypes.cast(self._get_schema, ctypes.c_void_p)
        functions.get_next = ctypes.cast(self._get_next, ctypes.c_void_p)
        functions.get_last_error = ctypes.cast(_NO_ERROR, ctypes.c_void_p)
        functions.release = ctypes.cast(_LET_GO, ctypes.c_void_p)
        return lent.__arrow_c_stream__(requested_schema)

    def _schema_to(self, _: int, out: int) -> int:
        at = self._stream._addr()  # noqa: SLF001  # see above
        return int(_GET_SCHEMA(_Stream.from_address(at).get_schema)(at, out))

    def _next_to(self, _: int, out: int) -> int:
        if self.failure is None:
            said = _next(self._stream._addr(), out)  # noqa: SLF001  # see above
            if said is None:
                return 0
            self.failure = ArrowError(said)
        ctypes.memset(out, 0, _ARRAY_BYTES)  # the end
        return 0


def _let_go(at: int) -> None:
    _Stream.from_address(at).release = None


# Not of one stream, which need not live as long as what points to them.
_NO_ERROR: Final = _GET_LAST_ERROR(lambda _: None)
_LET_GO: Final = _RELEASE(_let_go)
_ARRAY_BYTES: Final = 80


def _next(at: int, out: int) -> str | None:
    """Put the next batch of the stream there; what it says if it has failed."""
    functions = _Stream.from_address(at)
    if not _GET_NEXT(functions.get_next)(at, out):
        return None
    said: bytes = _GET_LAST_ERROR(functions.get_last_error)(at) or b"no more rows"
    return said.decode(errors="replace").strip()


def release(stream: Any) -> None:
    """Free what *stream* holds. May be called again."""
    at = stream._addr()  # noqa: SLF001  # see above
    function = _Stream.from_address(at).release
    if function:
        _RELEASE(function)(at)
