"""How long the rows of a DuckDB query stay what they are, from what it names.

What it refuses: to call anything lasting that it does not know to be. A kind of node, a function
or a table function that is not in the lists below is ``VOLATILE``. The connection that will run
the query must be one on which nobody has left anything: no temporary objects, no settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notebook_rpc.errors import QueryError
from notebook_rpc.model import Stability
from notebook_rpc_drivers._duckdb_names import FROM_ARGUMENTS, Unknown, Walk

if TYPE_CHECKING:
    from notebook_rpc_drivers._duckdb_names import Ask, Function, Node, Path

LASTING, SHARED, VOLATILE = Stability.LASTING, Stability.SHARED, Stability.VOLATILE
_RANK: Final = [LASTING, SHARED, VOLATILE]

# Columns that stand for a function's value, or for where a row lies, which a checkpoint changes.
_NOT_COLUMNS = {"current_date", "current_time", "current_timestamp"}
_NOT_COLUMNS |= {"localtime", "localtimestamp", "rowid"}

# The engine calls these consistent, which for the plan of one query they are: the local times,
# age() of one argument, a sample, and plans, which depend on statistics.
_NOT_LASTING = {"current_localtime", "current_localtimestamp", "age"}
_NOT_LASTING |= {"reservoir_quantile", "json_serialize_plan"}

_FROM_FILES = {"glob", "sniff_csv", "read_csv", "read_csv_auto", "read_text", "read_blob"}
_FROM_FILES |= {"read_json", "read_json_auto", "read_json_objects", "read_json_objects_auto"}
_FROM_FILES |= {"read_ndjson", "read_ndjson_auto", "read_ndjson_objects", "read_duckdb"}
_FROM_FILES |= {"read_parquet", "parquet_scan", "parquet_schema", "parquet_metadata"}
_FROM_FILES |= {"parquet_file_metadata", "parquet_full_metadata", "parquet_kv_metadata"}

# Functions whose every step is short, as what they make is no longer than what they are given. The
# engine looks at no interrupt within a step: repeat('x', n) may take seconds for a single row.
_STEADY: Final = {
    *("+", "-", "*", "/", "//", "%", "||", "~~", "!~~"),
    *("count", "count_star", "sum", "avg", "min", "max", "first", "last", "any_value"),
    *("abs", "round", "floor", "ceil", "length", "lower", "upper", "trim", "substring"),
    *("date_trunc", "date_part", "year", "month", "day", "hour", "minute", "second"),
    *("row_number", "rank", "dense_rank", "lag", "lead"),
}
_STEADY_SOURCES: Final = {"range", "generate_series"}  # as functions of a value they make a list

_OWN: Final = "SELECT system.main.current_database()"


def stability(ask: Ask, sql: str) -> Stability:
    """*ask* is as of ``Walk``."""
    judge = _Judge(ask)
    try:
        judge.along(sql)
    except (Unknown, RecursionError):  # the latter from JSON that is nested very deep
        return VOLATILE
    return judge.verdict


def is_steady(ask: Ask, sql: str) -> bool:
    """Whether a query that lasts can be interrupted at any time, as far as its functions go."""
    try:
        judge = _Judge(ask)
        judge.along(sql)
    except (Unknown, RecursionError, QueryError):
        return False
    return judge.steady


class _Judge(Walk):
    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        ((self._own,),) = ask(_OWN, [])
        self.verdict = LASTING
        self.steady = True

    def meet_node(self, node: Node) -> None:
        if node.get("sample") is not None or node.get("at_clause") is not None:
            raise Unknown
        kind = node.get("class")
        if kind == "COLUMN_REF" and node["column_names"][-1].lower() in _NOT_COLUMNS:
            raise Unknown
        if kind == "TYPE" and len(node["qualified_name"]["path"]) > 1:
            raise Unknown  # it may be another database's
        if kind is None and node.get("type") == "SHOW_REF":
            raise Unknown  # DESCRIBE, SUMMARIZE (a sample) and SHOW

    def meet_function(self, name: str, found: Function) -> None:
        if found.kind == "table":
            if name in _FROM_FILES:
                self._found(SHARED)
            elif name not in FROM_ARGUMENTS:
                raise Unknown
        elif found.definition is None and (found.stability != "CONSISTENT" or name in _NOT_LASTING):
            raise Unknown
        steady = _STEADY_SOURCES if found.kind == "table" else _STEADY
        self.steady &= found.definition is not None or name in steady
        self._meet_database(found.database)

    def meet_table(self, path: Path, database: str) -> None:  # noqa: ARG002
        self._meet_database(database)

    def meet_nothing(self, path: Path) -> None:  # noqa: ARG002
        self._found(SHARED)

    def _meet_database(self, database: str) -> None:
        if database not in ("system", self._own):
            self._found(SHARED)

    def _found(self, stability: Stability) -> None:
        self.verdict = max(self.verdict, stability, key=_RANK.index)
