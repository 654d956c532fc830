"""A Parquet file on its way to a client.

Its end has to be known before it can be read, and the database makes no pieces of it: it is written
to the disk first, into a file without a name, which is gone when it is closed, whatever becomes
of this process.

Everything here blocks, and is called on a worker.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from notebook_rpc.driver import SupportsParquet
from notebook_rpc.errors import NotSupported
from notebook_rpc.services.lines import PIECES

if TYPE_CHECKING:
    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Parameters
    from notebook_rpc.services.answers import Pieces


class Parquet:
    """``answers.Rows`` of a file that is written."""

    complete = False
    total_count = None

    def __init__(self, sql: str, parameters: Parameters | None, connection: Connection) -> None:
        """
        Raises:
            NotSupported: the database writes no Parquet; nothing has been run.
        """
        if not isinstance(connection, SupportsParquet):
            raise NotSupported("this database writes no Parquet")
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # read() or close() does
        try:
            written = connection.execute_parquet(sql, parameters, _path(self._file.fileno()))
        except BaseException:
            self._file.close()
            raise
        self.columns = written.columns
        self.count = written.count
        self.row_count = written.rows
        self.ended = not written.columns
        self._left = os.fstat(self._file.fileno()).st_size
        if self.ended:
            self._file.close()

    def read(self) -> Pieces:
        piece = self._file.read(PIECES)
        self._left -= len(piece)
        if not self._left:
            self.ended = True
            self._file.close()
        return [piece]

    def close(self) -> None:
        self._file.close()


def _path(descriptor: int) -> str:
    """Where another part of this process finds an open file that has no name."""
    if not os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        raise NotSupported("this system has no files without a name")
    return f"/proc/self/fd/{descriptor}"
