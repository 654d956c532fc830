"""The statements of an SQL text, by the engine's own parser, and where it says that one is wrong.

It runs nothing. What it refuses: a text without a statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from notebook_rpc.errors import QueryError
from notebook_rpc_drivers._duckdb_sql import position_in, which_statement

if TYPE_CHECKING:
    from duckdb import Statement

    from notebook_rpc_drivers._duckdb_connection import Connection


def parsed(connection: Connection, sql: str) -> list[Statement]:
    try:
        sql.encode()
    except UnicodeEncodeError as exc:
        raise QueryError(f"the statement is not valid Unicode: {exc}") from exc
    try:
        with connection.calling():
            # Running a statement with a very long tail of these takes quadratic time.
            statements = connection.cursor.extract_statements(sql.rstrip("; \t\r\n"))
    except QueryError as exc:
        position = position_in(sql, str(exc))
        number, total = which_statement(sql, position)
        failure = exc
        if total > 1:
            before = f"statement {number} of {total}: " if number else ""
            failure = QueryError(f"{before}{exc} (nothing ran)")
        failure.position = position
        raise failure from exc.__cause__
    if not statements:
        raise QueryError("no statement")
    return statements
