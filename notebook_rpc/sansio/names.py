"""What tables are called where each needs one name.

It refuses to quote: these are for people, and for ``services.catalog.describe``, which takes them
back.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.model import Table

_LOOKED_IN: Final = frozenset({"", "main", "public", "dbo"})
"""Schemas where SQL looks by itself."""


def distinct(tables: Sequence[Table]) -> list[str]:
    """Their names: with their schema, but for where SQL looks by itself, and with all that there is
    where two would be called the same."""
    short = [
        table.table if table.schema in _LOOKED_IN else f"{table.schema}.{table.table}"
        for table in tables
    ]
    often = {name for name, times in Counter(short).items() if times > 1}
    whole = (".".join(filter(None, (each.catalog, each.schema, each.table))) for each in tables)
    return [full if name in often else name for name, full in zip(short, whole, strict=True)]
