"""What a statement does, as SQLite tells its authorizer when it prepares the statement.

SQLite has resolved every name by then, and looked into views and triggers. It says nothing of a
statement that is not prepared again because it was kept; nor of generated columns, but those
it holds to functions that are the same for ever.

What it refuses: to take an act it does not know for a harmless one.

Source: SQLite's C interface, "Authorizer Action Codes".
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Final

_READS: Final = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
_READS.add(sqlite3.SQLITE_RECURSIVE)
_BRACKETS: Final = {sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT}
_ATTACHES: Final = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}

# Deterministic, to SQLite, as long as nobody gives them the word "now", which may be data.
_OF_TIME: Final = {"date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"}
_SCHEMA: Final = {"sqlite_master", "sqlite_schema"}

# The names of what gives the same values for the same arguments: aggregates do, and of the others
# those with the flag SQLITE_DETERMINISTIC.
LASTING_FUNCTIONS: Final = """
    SELECT name FROM pragma_function_list
    WHERE builtin AND (type IN ('a', 'w') OR flags & 0x800)"""
# What stores its rows in the file. A virtual table may have them from anywhere.
STORED: Final = "SELECT name FROM main.sqlite_master WHERE rootpage > 0 OR type = 'view'"


@dataclass
class Acts:
    writes: bool = False
    """Others may see something of it, once it is committed."""
    leaves: bool = False
    """The next one to use the connection may notice something of it."""
    rolls_back: bool = False
    only_reads: bool = True
    relations: set[str] = field(default_factory=set)
    """Tables and views of the main database."""
    functions: set[str] = field(default_factory=set)

    def note(self, action: int, first: str | None, second: str | None, schema: str | None) -> None:
        if action in _READS:
            if action == sqlite3.SQLITE_FUNCTION:
                self.functions.add(second or "")
            elif action == sqlite3.SQLITE_READ and schema in (None, "main"):
                self.relations.add(first or "")
            elif action == sqlite3.SQLITE_READ:
                self.only_reads = False  # temporary, or of another file
            return
        self.only_reads = False
        if action in _BRACKETS:
            self.rolls_back |= action == sqlite3.SQLITE_TRANSACTION and first == "ROLLBACK"
        elif action in _ATTACHES or schema == "temp":
            self.leaves = True
        else:
            self.writes = True
            self.leaves |= action == sqlite3.SQLITE_PRAGMA and second is not None

    def last(self, functions: set[str], stored: set[str]) -> bool:
        """Whether its rows are the same until one of *stored*, of the main database, changes."""
        return (
            self.only_reads
            and self.functions <= functions - _OF_TIME
            and self.relations <= stored | _SCHEMA
        )
