"""The statements of an SQL text, by the engine's own parser, and where it says that one is wrong.

It runs nothing. What it refuses: a text without a statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb import Statement, StatementType

from notebook_rpc.errors import QueryError
from notebook_rpc_drivers._duckdb_sql import position_in, type_of, which_statement

if TYPE_CHECKING:
    from notebook_rpc_drivers._duckdb_connection import Connection


def statements_of(connection: Connection, sql: str, *, settled: bool) -> list[Statement]:
    """As ``parsed``, but a query that was asked before is not parsed again. Unless *settled*: the
    connection may have settings of its own that the parser looks at."""
    if not settled:
        return parsed(connection, sql)
    known, since = connection.shapes.get(Statement, sql), connection.shapes.cleared
    if isinstance(known, Statement):
        return [known]
    statements = parsed(connection, sql)
    if len(statements) == 1 and type_of(statements[0]) == StatementType.SELECT:
        connection.shapes.keep(Statement, sql, statements[0], since)
    return statements


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
