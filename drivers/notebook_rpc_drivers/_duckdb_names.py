"""What a DuckDB query names, and what stands behind the names.

The engine parses, we look at the tree and at what its names stand for: views and macros are
followed to the tables and functions below them, and so are generated columns. Where a name could
mean several things, all of them count, so that the rules of scope and search path need no second
home here.

What it refuses: to go past what it does not know. A kind of node that is not in the lists below, a
function or a macro that is not found, a text that is no single query is ``Unknown``. The connection
that will run the query must be one on which nobody has left anything: no temporary objects, no
settings.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import duckdb
from duckdb import token_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Ask: TypeAlias = Callable[[str, list[Any]], list[tuple[Any, ...]]]

Node: TypeAlias = "dict[str, Any]"
Path: TypeAlias = tuple[str, ...]

_EXPRESSIONS = {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON"}
_EXPRESSIONS |= {"CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA", "OPERATOR", "PARAMETER"}
_EXPRESSIONS |= {"POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"}

# Not in it: nodes that write.
_OTHERS = {"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE"}
_OTHERS |= {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SUBQUERY", "SHOW_REF"}
_OTHERS |= {"TABLE_FUNCTION", "DISTINCT_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"}
_OTHERS |= {"ORDER_MODIFIER", "ORDER_DEFAULT", "ASCENDING", "DESCENDING"}

_NO_FUNCTIONS: Final = {"unnest", "unlist"}  # the binder takes them by their names

# Table functions that look at nothing but their arguments.
FROM_ARGUMENTS: Final = frozenset(
    {"range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree"}
)

# A CTE of such a name cannot be taken for a file where it is out of scope.
_PLAIN_NAME: Final = re.compile(r"\w+")

_TREE: Final = "SELECT system.main.json_serialize_sql(?)"
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


class Unknown(Exception):  # not an error: there is no more to find out
    """Something is not what the walk knows."""


@dataclass
class Names:
    """What one text names."""

    tables: set[Path] = field(default_factory=set)
    """Each with the schema and the database it was given."""
    ctes: set[str] = field(default_factory=set)
    functions: set[tuple[str, int]] = field(default_factory=set)
    """With the number of arguments."""
    table_functions: set[tuple[str, int]] = field(default_factory=set)


class Function(NamedTuple):
    kind: str
    stability: str | None
    definition: str | None
    parameters: int
    database: str


class Walk(ABC):
    """Along all that one query names. Any of the methods may raise ``Unknown``."""

    def __init__(self, ask: Ask) -> None:
        """*ask* runs SQL of ours, with parameters, on a connection as fresh as the one that will
        run the query."""
        self._ask = ask
        self._texts: list[str] = []  # still to be looked at
        self._seen: set[str] = set()
        self._functions: dict[str, set[Function]] | None = None

    def along(self, sql: str) -> None:
        self._follow(sql)
        while self._texts:
            names = self._names(self._texts.pop())
            if names.functions or names.table_functions:
                self._walk_functions(names)
            if names.tables:
                self._walk_tables(names)

    def _follow(self, text: str) -> None:
        if text not in self._seen:
            self._seen.add(text)
            self._texts.append(text)

    # What is met on the way.

    @abstractmethod
    def meet_node(self, node: Node) -> None: ...

    @abstractmethod
    def meet_function(self, name: str, found: Function) -> None:
        """A scalar function, an aggregate or a window, or one by which rows are made."""

    @abstractmethod
    def meet_table(self, path: Path, database: str) -> None:
        """A table or a view; the latter is followed."""

    @abstractmethod
    def meet_nothing(self, path: Path) -> None:
        """The name of a file, or of nothing at all."""

    def _names(self, text: str) -> Names:
        ((tree,),) = self._ask(_TREE, [text])
        parsed = json.loads(tree)
        if parsed["error"] or len(parsed["statements"]) != 1:
            raise Unknown
        return self._names_in(parsed["statements"][0])

    def _names_in(self, tree: Node) -> Names:
        names = Names()
        for node in _nodes(tree):
            self.meet_node(node)
            ctes = node.get("cte_map", {}).get("map", ())
            names.ctes |= {entry["key"].lower() for entry in ctes}
            if "class" in node:
                if node["class"] not in _EXPRESSIONS:
                    raise Unknown
                if node["class"] in ("FUNCTION", "WINDOW"):
                    names.functions.add(_call(node))
            elif isinstance(node.get("type"), str):  # a value, of a sample's size, has an object
                if node["type"] not in _OTHERS:
                    raise Unknown
                if node["type"] == "BASE_TABLE":
                    names.tables.add(_path(node))
                elif node["type"] == "TABLE_FUNCTION":
                    names.table_functions.add(_call(node["function"]))
        return names

    def _walk_functions(self, names: Names) -> None:
        if self._functions is None:
            self._functions = self._known_functions()
        for name, arguments in names.functions:
            for found in self._meant(name, arguments, {"scalar", "aggregate", "window", "macro"}):
                self.meet_function(name, found)
                if found.kind == "macro":
                    self._follow(f"SELECT {found.definition}")
        for name, arguments in names.table_functions:
            for found in self._meant(name, arguments, {"table", "table_macro"}):
                self.meet_function(name, found)
                if found.kind == "table_macro":
                    self._follow(str(found.definition))

    def _known_functions(self) -> dict[str, set[Function]]:
        known: dict[str, set[Function]] = {}
        for name, *rest in self._ask(_FUNCTIONS, []):
            known.setdefault(name, set()).add(Function(*rest))
        for found in known.values():
            # An operator, too, may mean a function of which the tree does not have the name.
            if len({function.database for function in found}) > 1:
                raise Unknown
        return known

    def _meant(self, name: str, arguments: int, kinds: set[str]) -> Iterator[Function]:
        """All that a call of *name* may mean."""
        assert self._functions is not None  # noqa: S101  # it was asked for
        if name in _NO_FUNCTIONS and "macro" in kinds:
            return
        meant = [each for each in self._functions.get(name, ()) if each.kind in kinds]
        if not meant:
            raise Unknown
        for each in meant:
            # What a macro's parameter is where it is not given, nobody tells.
            if each.definition is not None and each.parameters > arguments:
                raise Unknown
            yield each

    def _walk_tables(self, names: Names) -> None:
        wanted = sorted({path[-1] for path in names.tables})
        relations = self._ask(_RELATIONS, [wanted, wanted])
        for path in names.tables:
            meant = [relation for relation in relations if _fits(path, relation)]
            if not meant and not (
                len(path) == 1 and path[0] in names.ctes and _PLAIN_NAME.fullmatch(path[0])
            ):
                self.meet_nothing(path)
            for database, _, _, view in meant:
                self.meet_table(path, database)
                if view is not None:
                    self._follow(_query_of(view))
        for (expression,) in self._ask(_GENERATED, [wanted]):
            self._follow(f"SELECT {expression}")  # computed when it is read


def _fits(path: Path, relation: tuple[Any, ...]) -> bool:
    database, schema, name = (part.lower() for part in relation[:3])
    match path:
        case (only,):
            return bool(only == name)
        case (either, last):
            return last == name and either in (database, schema)
        case (first, middle, last):
            return (first, middle, last) == (database, schema, name)
    raise Unknown  # schemas within schemas


def _query_of(view: str) -> str:
    """What a view selects, from the statement that the engine writes for it, in which no name is
    a bare AS."""
    text = view.encode()
    for at, kind in duckdb.tokenize(view):
        if kind is token_type.keyword and re.match(rb"as\b", text[at : at + 3], re.IGNORECASE):
            return text[at + 2 :].decode()
    raise Unknown


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


def _path(node: Node) -> Path:
    return tuple(part.lower() for part in node["qualified_name"]["path"])


def _call(function: Node) -> tuple[str, int]:
    return _path(function)[-1], len(function["arguments"])
