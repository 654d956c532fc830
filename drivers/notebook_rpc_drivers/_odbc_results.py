"""Results over ODBC: rows from a cursor, as they are asked for, and the types of their columns.

A cursor is closed here and never left to the garbage collector, which might come to it while
another thread is at work with its connection: pyodbc would not survive that.
"""

from __future__ import annotations

import ctypes
import functools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pyodbc

from notebook_rpc.errors import NotebookError, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from notebook_rpc.model import ResultColumn
    from notebook_rpc_drivers._odbc_kinds import Dbms

Row = tuple[Any, ...]

_SQL_DESC_TYPE_NAME: Final = 14
_NAME_BYTES: Final = 512


class Result:
    """A cursor with rows to come; or only the count, of a statement without rows.

    *calling* wraps each use of the cursor, and takes ``interruptible``.
    """

    def __init__(
        self,
        dbms: Dbms,
        calling: Callable[..., AbstractContextManager[None]],
        cursor: pyodbc.Cursor | None = None,
        columns: Sequence[ResultColumn] = (),
        count: int = -1,
    ) -> None:
        self.columns = columns
        self.count = count
        self._dbms = dbms
        self._calling = calling
        self._cursor = cursor
        self._closed = False
        self._failure: NotebookError | None = None
        self._unsigned = [i for i, each in enumerate(columns) if each.datatype in dbms.unsigned]

    @property
    def streaming(self) -> bool:
        return self._cursor is not None and self._dbms.streams

    def fetch(self, limit: int, /) -> list[Row]:
        if self._failure is not None:
            raise self._failure  # the driver would say "no more rows"
        if self._closed:
            raise QueryError("the result is closed")
        if self._cursor is None:
            return []
        try:
            with self._calling():
                rows = self._rows(self._cursor, limit)
        except NotebookError as failure:
            self._failure = failure
            raise
        if self._unsigned:
            rows = [self._without_sign(row) for row in rows]
        return rows

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with self._calling(interruptible=False):
                self._release()

    def _rows(self, cursor: pyodbc.Cursor, limit: int) -> list[Row]:
        try:
            rows: list[Row] = list(map(tuple, cursor.fetchmany(limit)))
        except BaseException:
            with suppress(pyodbc.Error):  # the first error counts
                self._release()
            raise
        if len(rows) < limit:
            self._release()  # PostgreSQL's driver would keep a transaction open until then
        return rows

    def _release(self) -> None:
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()

    def _without_sign(self, row: Row) -> Row:
        values = list(row)
        for index in self._unsigned:
            if isinstance(values[index], int):
                values[index] &= 0xFFFFFFFF
        return tuple(values)


@functools.cache
def _column_attribute() -> Callable[..., int] | None:
    """ODBC's SQLColAttribute; None where it cannot be found."""
    try:
        # In the library that pyodbc is linked with. On Windows it cannot be found this way.
        return ctypes.CDLL(pyodbc.__file__).SQLColAttributeW
    except (OSError, AttributeError):
        return None


def type_names(cursor: pyodbc.Cursor, number: int) -> list[str]:
    """The database's own names of the types of so many columns; "" where it does not tell.

    pyodbc gives Python's types, which tell neither an INTEGER from a BIGINT nor a JSON from a
    TEXT, but it gives the statement's handle too, and with that ODBC itself can be asked.
    """
    ask = _column_attribute()
    if ask is None:
        return [""] * number
    buffer = ctypes.create_string_buffer(_NAME_BYTES)
    length, unused = ctypes.c_short(), ctypes.c_ssize_t()
    encoding = "utf-16-le" if pyodbc.SQLWCHAR_SIZE == 2 else "utf-32-le"
    names = []
    for index in range(1, number + 1):
        code = ask(
            cursor.hstmt, ctypes.c_ushort(index), ctypes.c_ushort(_SQL_DESC_TYPE_NAME), buffer,
            ctypes.c_short(_NAME_BYTES), ctypes.byref(length), ctypes.byref(unused),
        )  # fmt: skip
        told = code == 0 and 0 <= length.value < _NAME_BYTES
        name = buffer.raw[: length.value].decode(encoding, "replace") if told else ""
        names.append("" if name == "unknown" else name)
    return names
