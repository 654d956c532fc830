"""What a statement does, as SQLite tells its authorizer when it prepares the statement.

SQLite has resolved every name by then, and looked into views and triggers. It says nothing of a
statement that is not prepared again because it was kept; nor of generated columns, but those
it holds to functions that are the same for ever; nor of a table whose columns are named by nothing
but USING or NATURAL JOIN. So what a query reads, its program is asked too: it opens it.

Of what a statement touches, tables go by the names they have in the main database. What another
file has is anybody's, and so is what a virtual table stands for. What is written by the way, by
triggers and by foreign keys with an action, SQLite tells as it tells the rest.

What it refuses: to take an act it does not know for a harmless one.

Sources: SQLite's C interface, "Authorizer Action Codes"; "The SQLite Bytecode Engine".
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from notebook_rpc.model import Touched

_READS: Final = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
_READS.add(sqlite3.SQLITE_RECURSIVE)
_BRACKETS: Final = {sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT}
_OF_ROWS: Final = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
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
# What only statements write that name it, or the triggers they set off: not the tables behind a
# virtual one, nor SQLite's own.
PLAIN: Final = r"""
    SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view')
    AND name NOT LIKE 'sqlite\_%' ESCAPE '\'"""
# By the page where it begins in the file, the table that a table or an index belongs to.
ROOTS: Final = "SELECT rootpage, tbl_name FROM main.sqlite_master WHERE rootpage > 0"

# What the module says of a statement that wants parameters, and got none.
_WANTED = re.compile(r"Incorrect number of bindings supplied. The current statement uses (\d+)")


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
    tables: frozenset[str] = frozenset()  # for a read to make no set of its own
    """Of the same, those whose rows it writes..."""
    writes_others: bool = False
    """...and whether it writes anything else."""
    functions: set[str] = field(default_factory=set)
    roots: frozenset[tuple[int, int]] = frozenset()
    """What the program of a query opens: the number of the file, and the page in it."""
    virtual: bool = False
    """It opens a virtual table."""

    def note_program(self, program: Iterable[Sequence[Any]]) -> None:
        """What EXPLAIN gives."""
        for _, opcode, _, page, file, *_ in program:
            if opcode in ("OpenRead", "ReopenIdx"):
                self.roots |= {(file, page)}
            self.virtual |= opcode == "VOpen"

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
            table = first or ""
            if action in _OF_ROWS and schema == "main" and not table.startswith("sqlite_"):
                self.tables |= {table.casefold()}
            else:
                self.writes_others = True
            self.leaves |= action == sqlite3.SQLITE_PRAGMA and second is not None

    @property
    def written(self) -> Touched:
        return None if self.writes_others else self.tables

    def read(self, plain: set[str], roots: Mapping[int, str]) -> Touched:
        """The tables that a query reads; *plain* is what ``PLAIN`` gives, and *roots* ``ROOTS``."""
        opened = {roots.get(page, "") if file == 0 else "" for file, page in self.roots}
        # Of count(*), SQLite tells the name as the query has it.
        names = {name.casefold() for name in self.relations | opened}
        known = self.only_reads and not self.virtual
        if not known or not names <= {name.casefold() for name in plain}:
            return None
        return frozenset(names)

    def last(self, functions: set[str], stored: set[str]) -> bool:
        """Whether its rows are the same until one of *stored*, of the main database, changes."""
        return (
            self.only_reads
            and not self.virtual
            and self.functions <= functions - _OF_TIME
            and self.relations <= stored | _SCHEMA
        )


class _Nulls(dict[str, None]):
    """A value for every name."""

    def __missing__(self, _: str) -> None:
        return None


def program_of(database: sqlite3.Connection, sql: str) -> list[tuple[Any, ...]]:
    """The program of a statement, whatever parameters it wants."""
    explain = f"EXPLAIN {sql}"
    try:
        return database.execute(explain, _Nulls()).fetchall()
    except sqlite3.ProgrammingError as exc:
        if not str(exc).startswith("Binding "):
            raise
    try:  # they are without names, and have to be counted
        return database.execute(explain).fetchall()
    except sqlite3.ProgrammingError as exc:
        wanted = _WANTED.search(str(exc))
        if wanted is None:
            raise
    return database.execute(explain, [None] * int(wanted[1])).fetchall()
