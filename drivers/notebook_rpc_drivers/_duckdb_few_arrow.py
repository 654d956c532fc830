"""The Arrow of a few rows, by Python: for the engine to make a stream of them takes longer than to
run their query.

The batch is of the schema that the engine's own stream had when the query last ran. Each value is
exactly the engine's, or there is no batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from notebook_rpc.sansio.arrow import Misfit, kind_of_format
from notebook_rpc.sansio.arrow_batch import message
from notebook_rpc_drivers._duckdb_few_rows import is_an_edge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notebook_rpc_drivers._duckdb_result import Row

Write: TypeAlias = "Callable[[list[Row]], bytes]"

# Types whose values Python has, and what the Arrow C data interface calls those that may stand
# for infinity as well.
_EXACT: Final = {
    *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "DECIMAL"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE"),
    *("VARCHAR", "JSON", "BLOB", "DATE", "TIME", "TIMESTAMP"),
}
_EDGED: Final = {"DATE", "TIMESTAMP"}


def writer(datatypes: Sequence[str], formats: Sequence[str]) -> Write | None:
    """What writes rows of these columns as a batch; it raises ``Misfit``, of ``sansio.arrow``. None
    if there are values among them that Python does not have."""
    names = [datatype.partition("(")[0] for datatype in datatypes]
    if not _EXACT.issuperset(names):
        return None
    kinds = [kind for each in formats if (kind := kind_of_format(each)) is not None]
    if len(kinds) < len(formats):
        return None
    edged = [number for number, name in enumerate(names) if name in _EDGED]

    def write(rows: list[Row]) -> bytes:
        values = list(zip(*rows, strict=True))
        columns = [kind.column(each) for kind, each in zip(kinds, values, strict=True)]
        for number in edged:
            if any(is_an_edge(value) for value in values[number] if value is not None):
                raise Misfit("infinity, or a year at the edge")
        return message(len(rows), columns)

    return write
