"""Which tables a DuckDB statement writes, and which a query reads.

A table goes by its own name, without its schema and its database: what a name in a statement
belongs to, only the binder could say, and to ask it would cost more than many a statement. So
tables of the same name are one, and a write to one of them is a write to all.

What triggers write is not looked for as they do, which every write would pay for. Instead every
query reads the tables that have triggers, so that whatever these set off, it counts.

What it refuses: to guess. Of a statement that does not begin with the name of its table, of files,
databases of other kinds, and functions that are not known to read no table, nobody knows what they
touch. The connection that will run the query must be one on which nobody has left anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from duckdb import StatementType

from notebook_rpc_drivers._duckdb_names import FROM_ARGUMENTS, Unknown, Walk

if TYPE_CHECKING:
    from notebook_rpc.model import Touched
    from notebook_rpc_drivers._duckdb_names import Ask, Function, Node, Path

# As the engine gives it, a statement begins with its first word. Comments that would make its
# tokenizer and this pattern disagree do not match: an end of line that is none of two kinds, a
# comment in a comment.
_BLANK: Final = r"(?:[ \t\n\r\f\v]|--[^\n\r]*+\r?\n|/\*(?:[^*/]|\*(?!/)|/(?!\*))*+\*/)"
_PART: Final = r"""(?:[a-z_][a-z0-9_$]*+|"(?:[^"]|"")*+")"""
_HEADS: Final = {
    StatementType.INSERT: rf"insert{_BLANK}++(?:or{_BLANK}++(?:replace|ignore){_BLANK}++)?into",
    StatementType.UPDATE: "update",
    StatementType.DELETE: rf"(?:delete{_BLANK}++from|truncate(?:{_BLANK}++table)?)",
    StatementType.MERGE_INTO: rf"merge{_BLANK}++into",
    StatementType.COPY: "copy",
}
# The name and what follows it: a word, a parenthesis or nothing. A word that hangs on the name
# would be a part of it to the engine, which takes more characters for letters than we do.
_TARGETS: Final = {
    kind: re.compile(
        rf"{head}{_BLANK}*+(?:(?<!\w)|(?=\x22))(?:{_PART}{_BLANK}*+\.{_BLANK}*+)*+({_PART})"
        rf"(?:{_BLANK}++(?=[a-z_])|{_BLANK}*+(?:[(;]|\Z))",
        re.IGNORECASE | re.ASCII,
    )
    for kind, head in _HEADS.items()
}
# Not the names of tables, unless they are quoted.
_WORDS: Final = {"from", "into", "only", "or", "table"}

# Of the functions that the engine calls volatile, those that look at nothing that is stored.
_RANDOM: Final = {"random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7"}

_FOREIGN: Final = """
    SELECT database_name FROM system.main.duckdb_databases() WHERE type <> 'duckdb'"""
_TRIGGERED: Final = "SELECT DISTINCT table_name FROM system.main.duckdb_triggers()"


def written(kind: StatementType | None, sql: str) -> Touched:
    """The table that a statement of this *kind* is to write."""
    pattern = _TARGETS.get(kind) if kind is not None else None
    found = pattern.match(sql) if pattern is not None else None
    if found is None:
        return None
    name = found[1]
    if name.startswith('"'):
        name = name[1:-1].replace('""', '"')
    elif name.lower() in _WORDS:
        return None
    return frozenset({name.casefold()})


def reads(ask: Ask, sql: str) -> Touched:
    """The tables below the query *sql*; *ask* is as of ``Walk``."""
    reader = _Reader(ask)
    try:
        reader.along(sql)
    except (Unknown, RecursionError):  # the latter from JSON that is nested very deep
        return None
    triggered = {name.casefold() for (name,) in ask(_TRIGGERED, [])}
    return frozenset(reader.tables | triggered)


class _Reader(Walk):
    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._foreign = {name for (name,) in ask(_FOREIGN, [])}
        self.tables: set[str] = set()

    def meet_node(self, node: Node) -> None:
        if node.get("at_clause") is not None:
            raise Unknown
        if node.get("class") == "COLUMN_REF" and node["column_names"][-1].lower() == "rowid":
            raise Unknown  # a checkpoint changes it, which any write may set off
        if node.get("type") == "SHOW_REF" and node.get("query") is None:
            raise Unknown  # SHOW TABLES and the like

    def meet_function(self, name: str, found: Function) -> None:
        if found.definition is not None:
            return
        if found.kind == "table" and name not in FROM_ARGUMENTS:
            raise Unknown
        if found.kind != "table" and found.stability == "VOLATILE" and name not in _RANDOM:
            raise Unknown

    def meet_table(self, path: Path, database: str) -> None:
        if database in self._foreign:
            raise Unknown
        self.tables.add(path[-1].casefold())

    def meet_nothing(self, path: Path) -> None:  # noqa: ARG002
        raise Unknown
