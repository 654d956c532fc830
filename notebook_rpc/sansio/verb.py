"""Which kind of statement some SQL ends with, as far as its words tell.

It refuses to be relied on: what a statement does, and whether it may, the database decides. This
is for what nobody is harmed by, such as the choice between the statuses 200 and 201.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from notebook_rpc.sansio.sqltext import STANDARD, Kind, statements, tokens

if TYPE_CHECKING:
    from notebook_rpc.sansio.sqltext import Dialect

_VERBS = {"SELECT", "VALUES", "TABLE", "FROM", "INSERT", "UPDATE", "DELETE", "MERGE"}


def verb(sql: str, dialect: Dialect = STANDARD) -> str:
    """The first word of the last statement, in capitals, and behind WITH the word it leads to;
    "" if there is none."""
    found = statements(sql, dialect)
    if not found:
        return ""
    text = found[-1].text
    leading = True
    depth = 0
    for kind, start, end in tokens(text, dialect):
        word = text[start:end].upper()
        if kind is Kind.WORD:
            if leading and word != "WITH":
                return word
            if not depth and word in _VERBS:
                return word
            leading = False
        elif word in ("(", ")"):
            depth += 1 if word == "(" else -1
    return ""
