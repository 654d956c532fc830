"""Reading an Arrow C stream while others go on.

nanoarrow 0.9 keeps Python's lock while it waits for a batch, or for a stream to be released, so
that a slow query would stop all of the server. ctypes lets go of it. The struct is that of the
Arrow C stream interface, which never changes.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from nanoarrow.c_array import allocate_c_array

if TYPE_CHECKING:
    from collections.abc import Iterator


class ArrowError(Exception):
    """What a stream has instead of the classes of PEP 249: a message alone."""


class _Stream(ctypes.Structure):
    _fields_ = [  # ctypes wants it so
        *((name, ctypes.c_void_p) for name in ("get_schema", "get_next", "get_last_error")),
        *((name, ctypes.c_void_p) for name in ("release", "private_data")),
    ]


_GET_NEXT: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_GET_LAST_ERROR: Final = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)
_RELEASE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def batches(stream: Any, schema: Any) -> Iterator[Any]:
    """The batches of *stream*, which stays in use while they come.

    Raises:
        ArrowError: the database failed while it made the rows.
    """
    at = stream._addr()  # noqa: SLF001  # it is documented, though private by name
    functions = _Stream.from_address(at)
    while True:
        batch = allocate_c_array(schema)
        if _GET_NEXT(functions.get_next)(at, batch._addr()):  # noqa: SLF001
            said = _GET_LAST_ERROR(functions.get_last_error)(at) or b"no more rows"
            raise ArrowError(said.decode(errors="replace").strip())
        if not batch.is_valid():
            return
        yield batch


def release(stream: Any) -> None:
    """Free what *stream* holds. May be called again."""
    at = stream._addr()  # noqa: SLF001  # see above
    function = _Stream.from_address(at).release
    if function:
        _RELEASE(function)(at)
