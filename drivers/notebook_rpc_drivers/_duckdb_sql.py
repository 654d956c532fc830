"""What the DuckDB driver knows of SQL text and of errors; it runs nothing.

What a statement is, the engine's own tokenizer and statement types say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb
from duckdb import Statement, StatementType, token_type

from notebook_rpc.errors import (
    Cancelled,
    Conflict,
    DatabaseError,
    DatabaseUnavailable,
    NotebookError,
    UnknownTable,
    from_dbapi,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.model import Parameters

Bound = list[object] | dict[str, object] | None
"""Parameters, as the engine takes them."""

# What cannot create, change or drop a table, a view or a column. The list names the safe
# ones, so that a type we never heard of counts as a change: EXPLAIN ANALYZE runs what it
# holds, CALL, PRAGMA and LOAD run anything.
KEEPS_CATALOG = {StatementType.SELECT, StatementType.INSERT, StatementType.UPDATE}
KEEPS_CATALOG |= {StatementType.DELETE, StatementType.MERGE_INTO, StatementType.COPY}
KEEPS_CATALOG |= {StatementType.SET, StatementType.VARIABLE_SET, StatementType.PREPARE}

# What creates a temporary object, if at all, with the word in its text: "temp" can be neither
# the session's schema nor the name of another database. The rest may run text we never see.
SAYS_TEMPORARY = {StatementType.CREATE, StatementType.CREATE_FUNC, StatementType.ALTER}
SAYS_TEMPORARY |= {StatementType.DROP, StatementType.ATTACH, StatementType.DETACH}
SAYS_TEMPORARY |= {StatementType.EXPLAIN, StatementType.VACUUM, StatementType.EXPORT}

# What leaves nothing on a connection that the next one to use it could notice; of the rest, what
# could leave a temporary object and says so is known above. EXPLAIN ANALYZE runs anything.
LEAVES_NOTHING = {StatementType.SELECT, StatementType.INSERT, StatementType.UPDATE}
LEAVES_NOTHING |= {StatementType.DELETE, StatementType.MERGE_INTO, StatementType.COPY}
LEAVES_NOTHING |= {StatementType.TRANSACTION}

# What a ROLLBACK takes back. Of other statements that are no reads, nobody knows.
TAKEN_BACK = {StatementType.INSERT, StatementType.UPDATE, StatementType.DELETE}
TAKEN_BACK |= {StatementType.MERGE_INTO, StatementType.CREATE, StatementType.CREATE_FUNC}
TAKEN_BACK |= {StatementType.ALTER, StatementType.DROP}

_NESTED = {"struct", "tuple", "list", "array", "map", "union", "variant"}

# Python's datetime has no nanoseconds, and DuckDB gives a time zone only to those who have pytz.
_NOT_IN_PYTHON = re.compile("TIME ZONE|TIMESTAMPTZ|TIME_NS|TIMESTAMP_NS")

# The excerpt in an error shows the SQL with a row of carets under the place.
_EXCERPT = re.compile(r"\n\nLINE (\d+): ([^\n]*)\n( *)\^+")
_NEAR = re.compile(r'at or near "(.*)"\Z', re.DOTALL)

# A full or broken disk, which DuckDB reports in classes that are otherwise the statement's fault.
_DISK = re.compile(
    r"TransactionContext Error: Failed to commit: Could not (?:write|read|sync|truncate|fsync)"
    r"|IO Error: .*(?:Could not (?:write|sync|truncate|fsync)|No space left)",
    re.DOTALL,
)

# Of the errors about transactions, those that another one's commit has caused. A key that is
# taken is found at the commit only if somebody else took it meanwhile.
_CONFLICT = re.compile(
    r"TransactionContext Error: (?:Failed to commit: )?(?:Conflict on |Catalog write-write conflict"
    r"|Transaction conflict: |Attempting to modify table |PRIMARY KEY or UNIQUE constraint)"
)

_NO_TABLE = re.compile("Catalog Error: Table with name .* does not exist!", re.DOTALL)

# Our SQL calls functions by their full names: a user's macro hides a built-in of the same name,
# operators of text included, but nothing can be created in "system". Comparisons and casts
# cannot be hidden.
TABLES = """
    SELECT database_name, schema_name, table_name FROM system.main.duckdb_tables()
    WHERE NOT internal ORDER BY ALL"""
VIEWS = """
    SELECT database_name, schema_name, view_name FROM system.main.duckdb_views()
    WHERE NOT internal ORDER BY ALL"""
COLUMNS = """
    SELECT database_name, schema_name, table_name, column_name, data_type
    FROM system.main.duckdb_columns()
    WHERE NOT internal AND ? IN ('', database_name) AND ? IN ('', schema_name)
      AND ? IN ('', table_name)
    ORDER BY database_name, schema_name, table_name, column_index"""


def as_text(kind: str, column: str) -> str:
    """SQL for the text of *column*; *kind* is ``type.id``."""
    if kind in _NESTED:
        return f"system.main.to_json({column})::VARCHAR"
    if kind in ("float", "double"):
        return (
            f"CASE WHEN system.main.isfinite({column}) THEN {column}::VARCHAR"
            f" WHEN system.main.isnan({column}) THEN 'NaN'"
            f" WHEN {column} > 0 THEN 'Infinity' WHEN {column} < 0 THEN '-Infinity' END"
        )
    if kind == "blob":
        return rf"""system.main."||"('\x', system.main.lower(system.main.hex({column})))"""
    return f"{column}::VARCHAR"


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text_of(names: list[str], types: list[Any]) -> str:
    """SQL for a row of the columns c0, c1... as JSON; *names* are distinct."""
    pairs = (
        f"{literal(name)}, {as_text(kind.id, f'c{number}')}"
        for number, (name, kind) in enumerate(zip(names, types, strict=True))
    )
    return f"system.main.json_object({', '.join(pairs)})::VARCHAR"


def values_of(types: list[Any]) -> str | None:
    """SQL for the columns c0, c1..., as text where Python has no value; None if nowhere."""
    if not any(_NOT_IN_PYTHON.search(str(kind)) for kind in types):
        return None
    return ", ".join(
        as_text(kind.id, f"c{number}") if _NOT_IN_PYTHON.search(str(kind)) else f"c{number}"
        for number, kind in enumerate(types)
    )


def translated(exc: Exception, before: str = "", after: str = "") -> NotebookError:
    message = f"{before}{exc}{after}"
    if isinstance(exc, duckdb.InterruptException):
        return Cancelled(message)
    if isinstance(exc, duckdb.FatalException | duckdb.ConnectionException):
        return DatabaseUnavailable(message)
    if isinstance(exc, duckdb.OutOfMemoryException) or _DISK.match(str(exc)):
        return DatabaseError(message)
    if _CONFLICT.match(str(exc)):
        return Conflict(message)
    if _NO_TABLE.match(str(exc)):
        return UnknownTable(message)
    return type(from_dbapi(exc))(message)


def tokens(sql: str) -> list[tuple[int, bytes]]:
    """Where each token that is no comment begins, in bytes, and the first 8 bytes of its text."""
    text = memoryview(sql.encode())
    found = duckdb.tokenize(sql)  # which takes broken SQL too
    return [(at, bytes(text[at : at + 8])) for at, kind in found if kind is not token_type.comment]


def position_in(sql: str, message: str) -> int | None:
    """Where in *sql* the excerpt in *message* points, in characters from 1; None if not sure."""
    excerpt = _EXCERPT.search(message)
    if excerpt is None:
        return None
    number, shown, margin = int(excerpt[1]), excerpt[2], excerpt[3]
    lines = sql.split("\n")
    if number > len(lines):
        return None
    line = lines[number - 1]
    near = _NEAR.search(message[: excerpt.start()])
    column = len(margin) - len(f"LINE {number}: ")
    # Carets count the columns of a terminal, a tab has none, and the excerpt of a long line is
    # a piece of it.
    plain = line[: column + 1].isascii() and line[: column + 1].isprintable()
    if not (plain and line.startswith(shown[:column])):
        token = rf"(?<!\w){re.escape(near[1])}(?!\w)" if near else r"(?!)"
        found = [match.start() for match in re.finditer(token, line)]
        if len(found) != 1:
            return None
        (column,) = found
    return sum(len(line) + 1 for line in lines[: number - 1]) + column + 1


def which_statement(sql: str, position: int | None) -> tuple[int, int]:
    """The number of the statement at *position*, 0 if that is None, and how many there are."""
    place = -1 if position is None else len(sql[: position - 1].encode())
    number = total = 0
    ended = True
    for at, text in tokens(sql):
        total += ended and text[:1] != b";"
        ended = text[:1] == b";"
        if at <= place:
            number = total
    return number, total


def without_semicolon(sql: str) -> str:
    """*sql*, one statement, up to the semicolon that ends it; it stays in front of a comment."""
    end = None
    for at, text in reversed(tokens(sql)) if ";" in sql else []:
        if text[:1] != b";":
            break
        end = at
    return sql.encode()[:end].decode()


def type_of(statement: Statement) -> StatementType | None:
    try:
        return statement.type
    except ValueError:  # newer than the list of names: UPDATE EXTENSIONS
        return None


def begins(statement: Statement) -> bool:
    _, text = tokens(statement.query)[0]
    return text.upper().startswith((b"BEGIN", b"START"))


def commits(statement: Statement) -> bool:
    _, text = tokens(statement.query)[0]
    return text.upper().startswith((b"COMMIT", b"END"))


def without_excerpt(message: str) -> str:
    return _EXCERPT.sub("", message)


@contextmanager
def own_sql_hidden() -> Iterator[None]:
    """Cut from errors the excerpt that shows SQL the client never wrote."""
    try:
        yield
    except duckdb.Error as exc:
        raise type(exc)(without_excerpt(str(exc))) from exc


def bindable(parameters: Parameters | None) -> Bound:
    if isinstance(parameters, Mapping):
        return dict(parameters)
    return None if parameters is None else list(parameters)
