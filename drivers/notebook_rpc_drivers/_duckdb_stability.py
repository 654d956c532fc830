"""How long the rows of a DuckDB query stay what they are.

The engine parses, we look at the tree and at what its names stand for: views and macros are
followed to the tables and functions below them. Where a name could mean several things, all of
them count, so that the rules of scope and search path need no second home here.

What it refuses: to call anything lasting that it does not know to be. A kind of node, a function
or a table function that is not in the lists below is ``VOLATILE``. The connection that will run
the query must be one on which nobody has left anything: no temporary objects, no settings.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import duckdb
from duckdb import token_type

from notebook_rpc.model import Stability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Ask: TypeAlias = Callable[[str, list[Any]], list[tuple[Any, ...]]]

Node: TypeAlias = "dict[str, Any]"

LASTING, SHARED, VOLATILE = Stability.LASTING, Stability.SHARED, Stability.VOLATILE
_RANK: Final = [LASTING, SHARED, VOLATILE]

_EXPRESSIONS = {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON"}
_EXPRESSIONS |= {"CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA", "OPERATOR", "PARAMETER"}
_EXPRESSIONS |= {"POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"}

# Not in it: nodes that write, and SHOW_REF, which is DESCRIBE, SUMMARIZE (a sample) and SHOW.
_OTHERS = {"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE"}
_OTHERS |= {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SUBQUERY"}
_OTHERS |= {"TABLE_FUNCTION", "DISTINCT_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"}
_OTHERS |= {"ORDER_MODIFIER", "ORDER_DEFAULT", "ASCENDING", "DESCENDING"}

# Columns that stand for a function's value, or for where a row lies, which a checkpoint changes.
_NOT_COLUMNS = {"current_date", "current_time", "current_timestamp"}
_NOT_COLUMNS |= {"localtime", "localtimestamp", "rowid"}

# The engine calls these consistent, which for the plan of one query they are: the local times,
# age() of one argument, a sample, and plans, which depend on statistics.
_NOT_LASTING = {"current_localtime", "current_localtimestamp", "age"}
_NOT_LASTING |= {"reservoir_quantile", "json_serialize_plan"}
_NO_FUNCTIONS: Final = {"unnest", "unlist"}  # the binder takes them by their names

_FROM_ARGUMENTS = {"range", "generate_series", "unnest", "repeat", "repeat_row"}
_FROM_ARGUMENTS |= {"json_each", "json_tree"}
_FROM_FILES = {"glob", "sniff_csv", "read_csv", "read_csv_auto", "read_text", "read_blob"}
_FROM_FILES |= {"read_json", "read_json_auto", "read_json_objects", "read_json_objects_auto"}
_FROM_FILES |= {"read_ndjson", "read_ndjson_auto", "read_ndjson_objects", "read_duckdb"}
_FROM_FILES |= {"read_parquet", "parquet_scan", "parquet_schema", "parquet_metadata"}
_FROM_FILES |= {"parquet_file_metadata", "parquet_full_metadata", "parquet_kv_metadata"}

# A CTE of such a name cannot be taken for a file where it is out of scope.
_PLAIN_NAME: Final = re.compile(r"\w+")

_TREE: Final = "SELECT system.main.json_serialize_sql(?)"
_OWN: Final = "SELECT system.main.current_database()"
_FUNCTIONS: Final = """
    SELECT DISTINCT system.main.lower(function_name), function_type, stability,
        macro_definition, system.main.len(parameters), database_name
    FROM system.main.duckdb_functions()"""
_RELATIONS: Final = """
    SELECT database_name, schema_name, system.main.lower(table_name), NULL
    FROM system.main.duckdb_tables()
    WHERE system.main.list_contains(?, system.main.lower(table_name))
    UNION ALL
    SELECT database_name, schema_name, system.main.lower(view_name), sql
    FROM system.main.duckdb_views()
    WHERE system.main.list_contains(?, system.main.lower(view_name))"""
_GENERATED: Final = """
    SELECT DISTINCT generation_expression FROM system.main.duckdb_columns()
    WHERE is_generated AND system.main.list_contains(?, system.main.lower(table_name))"""


class _Volatile(Exception):  # not an error: there is no more to find out
    """Something is not known to be lasting."""


@dataclass
class _Names:
    """What one text names."""

    tables: set[tuple[str, ...]] = field(default_factory=set)
    """Each with the schema and the database it was given."""
    ctes: set[str] = field(default_factory=set)
    functions: set[tuple[str, int]] = field(default_factory=set)
    """With the number of arguments."""
    table_functions: set[tuple[str, int]] = field(default_factory=set)


@dataclass(frozen=True)
class _Function:
    kind: str
    stability: str | None
    definition: str | None
    parameters: int
    database: str


def stability(ask: Ask, sql: str) -> Stability:
    """*ask* runs SQL of ours, with parameters, on a connection as fresh as the one that will run
    *sql*."""
    try:
        return _Judge(ask).judge(sql)
    except (_Volatile, RecursionError):  # the latter from JSON that is nested very deep
        return VOLATILE


class _Judge:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        ((self._own,),) = ask(_OWN, [])
        self._verdict = LASTING
        self._texts: list[str] = []  # still to be looked at
        self._seen: set[str] = set()
        self._functions: dict[str, set[_Function]] | None = None

    def judge(self, sql: str) -> Stability:
        self._follow(sql)
        while self._texts:
            names = self._names(self._texts.pop())
            if names.functions or names.table_functions:
                self._judge_functions(names)
            if names.tables:
                self._judge_tables(names)
        return self._verdict

    def _follow(self, text: str) -> None:
        if text not in self._seen:
            self._seen.add(text)
            self._texts.append(text)

    def _found(self, stability: Stability) -> None:
        self._verdict = max(self._verdict, stability, key=_RANK.index)

    def _names(self, text: str) -> _Names:
        ((tree,),) = self._ask(_TREE, [text])
        parsed = json.loads(tree)
        if parsed["error"] or len(parsed["statements"]) != 1:
            raise _Volatile
        return _names_in(parsed["statements"][0])

    def _judge_functions(self, names: _Names) -> None:
        if self._functions is None:
            self._functions = self._known_functions()
        for name, arguments in names.functions:
            for found in self._meant(name, arguments, {"scalar", "aggregate", "window", "macro"}):
                if found.kind == "macro":
                    self._follow(f"SELECT {found.definition}")
                elif found.stability != "CONSISTENT" or name in _NOT_LASTING:
                    raise _Volatile
        for name, arguments in names.table_functions:
            for found in self._meant(name, arguments, {"table", "table_macro"}):
                if found.kind == "table_macro":
                    self._follow(str(found.definition))
                elif name in _FROM_FILES:
                    self._found(SHARED)
                elif name not in _FROM_ARGUMENTS:
                    raise _Volatile

    def _known_functions(self) -> dict[str, set[_Function]]:
        known: dict[str, set[_Function]] = {}
        for name, *rest in self._ask(_FUNCTIONS, []):
            known.setdefault(name, set()).add(_Function(*rest))
        for found in known.values():
            # An operator, too, may mean a function of which the tree does not have the name.
            if len({function.database for function in found}) > 1:
                raise _Volatile
        return known

    def _meant(self, name: str, arguments: int, kinds: set[str]) -> Iterator[_Function]:
        """All that a call of *name* may mean."""
        assert self._functions is not None  # noqa: S101  # it was asked for
        if name in _NO_FUNCTIONS and "macro" in kinds:
            return
        meant = [each for each in self._functions.get(name, ()) if each.kind in kinds]
        if not meant:
            raise _Volatile
        for each in meant:
            # What a macro's parameter is where it is not given, nobody tells.
            if each.definition is not None and each.parameters > arguments:
                raise _Volatile
            if each.database not in ("system", self._own):
                self._found(SHARED)
            yield each

    def _judge_tables(self, names: _Names) -> None:
        wanted = sorted({path[-1] for path in names.tables})
        relations = self._ask(_RELATIONS, [wanted, wanted])
        for path in names.tables:
            meant = [relation for relation in relations if _fits(path, relation)]
            if not meant and not (
                len(path) == 1 and path[0] in names.ctes and _PLAIN_NAME.fullmatch(path[0])
            ):
                self._found(SHARED)  # a file, or nothing at all
            for database, _, _, view in meant:
                if database not in ("system", self._own):
                    self._found(SHARED)
                if view is not None:
                    self._follow(_query_of(view))
        for (expression,) in self._ask(_GENERATED, [wanted]):
            self._follow(f"SELECT {expression}")  # computed when it is read


def _fits(path: tuple[str, ...], relation: tuple[Any, ...]) -> bool:
    database, schema, name = (part.lower() for part in relation[:3])
    match path:
        case (only,):
            return bool(only == name)
        case (either, last):
            return last == name and either in (database, schema)
        case (first, middle, last):
            return (first, middle, last) == (database, schema, name)
    raise _Volatile  # schemas within schemas


def _query_of(view: str) -> str:
    """What a view selects, from the statement that the engine writes for it, in which no name is
    a bare AS."""
    text = view.encode()
    for at, kind in duckdb.tokenize(view):
        if kind is token_type.keyword and re.match(rb"as\b", text[at : at + 3], re.IGNORECASE):
            return text[at + 2 :].decode()
    raise _Volatile


def _names_in(tree: Node) -> _Names:
    names = _Names()
    for node in _nodes(tree):
        if node.get("sample") is not None or node.get("at_clause") is not None:
            raise _Volatile
        names.ctes |= {entry["key"].lower() for entry in node.get("cte_map", {}).get("map", ())}
        if "class" in node:
            _look_at_expression(node, names)
        elif "type" in node:
            if node["type"] not in _OTHERS:
                raise _Volatile
            if node["type"] == "BASE_TABLE":
                names.tables.add(_path(node))
            elif node["type"] == "TABLE_FUNCTION":
                names.table_functions.add(_call(node["function"]))
    return names


def _nodes(tree: Node) -> Iterator[Node]:
    """Every object in *tree*. A table function is one node, and not a call as well."""
    left: list[Any] = [tree]
    while left:
        node = left.pop()
        inner: Iterable[Any] = ()
        if isinstance(node, dict):
            yield node
            inner = node.values()
            if node.get("type") == "TABLE_FUNCTION":
                inner = [*inner, node["function"]["arguments"]]
                inner.remove(node["function"])
        elif isinstance(node, list):
            inner = node
        left += [each for each in inner if isinstance(each, dict | list)]


def _look_at_expression(node: Node, names: _Names) -> None:
    kind = node["class"]
    if kind not in _EXPRESSIONS:
        raise _Volatile
    if kind in ("FUNCTION", "WINDOW"):
        names.functions.add(_call(node))
    elif kind == "COLUMN_REF" and node["column_names"][-1].lower() in _NOT_COLUMNS:
        raise _Volatile
    elif kind == "TYPE" and len(node["qualified_name"]["path"]) > 1:
        raise _Volatile  # it may be another database's


def _path(node: Node) -> tuple[str, ...]:
    return tuple(part.lower() for part in node["qualified_name"]["path"])


def _call(function: Node) -> tuple[str, int]:
    return _path(function)[-1], len(function["arguments"])
