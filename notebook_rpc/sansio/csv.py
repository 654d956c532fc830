"""CSV, as RFC 4180 has it: a header, records that end with CRLF, quotes around what needs them.

NULL is an empty field, and an empty string is a pair of quotes: readers that tell them apart
(DuckDB, PostgreSQL, Python's with QUOTE_NOTNULL) get back what was sent. A NULL that is alone in
its record is a pair of quotes as well, because readers skip empty lines, and a record that is
lost is worse.

It refuses to change a value, so that what looks like a formula stays what it was.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

END: Final = "\r\n"
_ODD: Final = re.compile(r'[",\r\n]')


def record(cells: Sequence[str | None]) -> str:
    """One record, without the end of its line."""
    return ",".join(map(_field, cells)) or '""'


def records(rows: Iterable[Sequence[str | None]]) -> list[str]:
    return list(map(record, rows))


def _field(cell: str | None) -> str:
    if cell is None:
        return ""
    if not cell or _ODD.search(cell):
        return '"' + cell.replace('"', '""') + '"'
    return cell
