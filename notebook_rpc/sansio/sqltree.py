"""SQL as trees. With ``sqledit.py`` and ``sqltables.py`` the place that knows sqlglot.

Importing it takes a sixth of a second, and reading a long statement as long as that; both are done
on a worker. What cannot be read is None: sqlglot knows no dialect as its database does.
"""

from __future__ import annotations

import re
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

LONGEST: Final = 8 * 1024
"""Characters of a statement that is read. Time grows with them, and no interrupt ends it."""
MOST_BRACKETS: Final = 64
"""In it: behind one another, as in ``a[1][1]``, each takes time for all that are before it."""

# What SQLAlchemy calls a dialect, and sqlglot's name of it. Without one it reads what most have.
_DIALECTS: Final = {
    "clickhouse": "clickhouse",
    "databricks": "databricks",
    "duckdb": "duckdb",
    "hive": "hive",
    "mariadb": "mysql",
    "mssql": "tsql",
    "mysql": "mysql",
    "oracle": "oracle",
    "postgres": "postgres",
    "postgresql": "postgres",
    "presto": "presto",
    "redshift": "redshift",
    "snowflake": "snowflake",
    "sqlite": "sqlite",
    "trino": "trino",
}
_QUERY: Final = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*+(?:SELECT|WITH|FROM)\b", re.DOTALL | re.IGNORECASE
)
# What a SELECT has that was made to hold a condition.
_HOLDS: Final = {"kind", "expressions", "where", "operation_modifiers"}


def known_as(dialect: str) -> str | None:
    """sqlglot's name of it."""
    return _DIALECTS.get(dialect)


def read(sql: str, dialect: str | None, longest: int = LONGEST) -> exp.Expr | None:
    """The one statement of *sql*."""
    if len(sql) > longest or (dialect != "tsql" and sql.count("[") > MOST_BRACKETS):
        return None  # to T-SQL, brackets are quotes
    try:
        trees = [tree for tree in sqlglot.parse(sql, dialect=dialect) if tree is not None]
    except (SqlglotError, RecursionError, ValueError):
        return None
    return trees[0] if len(trees) == 1 else None


def read_query(sql: str, dialect: str | None, longest: int = LONGEST) -> exp.Expr | None:
    # sqlglot logs what it cannot read of other statements, which is nobody's concern.
    return read(sql, dialect, longest) if _QUERY.match(sql) else None


def expression(text: str, dialect: str | None) -> exp.Expr | None:
    """*text* as what may stand in WHERE."""
    tree = read(f"SELECT 1 WHERE {text}\n", dialect)
    where = tree.args.get("where") if isinstance(tree, exp.Select) else None
    if where is None or tree is None or len(tree.expressions) != 1:
        return None
    beside = [key for key, value in tree.args.items() if value and key not in _HOLDS]
    return None if beside else where.this
