"""Where the statements of an SQL text end, as SQLite reads it, and what its parameters are called.

What it refuses: to look at a text more often than once, however long its triggers are.
"""

from __future__ import annotations

import re

from notebook_rpc.sansio.sqltext import SQLITE, Kind, tokens

# One match is a string, a quoted name or a comment, or a semicolon. As in SQLite, a comment may
# stay open, but "/*" as the very last thing is none.
_SKIPPED_OR_END = re.compile(
    r"""'[^']*(?:'|\Z) | "[^"]*(?:"|\Z) | `[^`]*(?:`|\Z) | \[[^\]]*(?:\]|\Z)
    | --[^\n]* | /\*(?!\Z).*?(?:\*/|\Z) | ;""",
    re.DOTALL | re.VERBOSE,
)
_BLANK = r"(?:\s|--[^\n]*+|/\*(?!\Z).*?(?:\*/|\Z))"
_NOTHING = re.compile(rf"(?:;|{_BLANK})*+", re.DOTALL)
_TRIGGER = re.compile(
    rf"{_BLANK}*+(?:explain{_BLANK}++(?:query{_BLANK}++plan{_BLANK}++)?)?"
    rf"create{_BLANK}++(?:temp(?:orary)?{_BLANK}++)?trigger\b",
    re.DOTALL | re.IGNORECASE,
)
_END = re.compile(rf"{_BLANK}*+end{_BLANK}*+", re.DOTALL | re.IGNORECASE)


def numbered(statement: str) -> str:
    """With ?1 for $1: to SQLite the latter is a name, and means the first of what is bound only if
    it is the first that is mentioned."""
    pieces = (
        f"?{statement[start + 1 : end]}"
        if kind is Kind.PLACEHOLDER and statement[start] == "$"
        else statement[start:end]
        for kind, start, end in tokens(statement, SQLITE)
    )
    return "".join(pieces)


def split(sql: str) -> list[str]:
    """The statements of *sql*. A trigger holds semicolons, up to the one after a lone END.

    Not by ``sqlite3.complete_statement``, which knows the same rule: asked at each semicolon
    of a long trigger, it would take quadratic time, and cannot be interrupted.
    """
    statements = []
    start = piece = 0
    in_trigger = False
    for match in _SKIPPED_OR_END.finditer(sql):
        if match[0] != ";":
            continue
        at = match.start()
        if piece == start:
            in_trigger = _TRIGGER.match(sql, start, at) is not None
        if not in_trigger or (piece > start and _END.fullmatch(sql, piece, at)):
            statements.append(sql[start : at + 1])
            start = at + 1
        piece = at + 1
    statements.append(sql[start:])
    return [statement for statement in statements if not _NOTHING.fullmatch(statement)]
