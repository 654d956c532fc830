"""Imports point down only: the table of docs/architecture.md, held against the syntax trees.

Imports for type checkers count too: whoever names a type depends on it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
OWN = {"notebook_rpc", "notebook_rpc_drivers"}

# What each layer may import besides the standard library and itself.
LAYERS: dict[str, set[str]] = {
    "errors": {"msgspec"},
    "model": {"msgspec"},
    "sansio": {"errors", "model", "schema", "msgspec", "nanoarrow", "sqlglot"},
    "schema": {"model", "msgspec"},
    "driver": {"errors", "model", "schema"},
    "web": {"errors", "model", "sansio"},
    "transport": {"trio", "h11", "wsproto", "web", "sansio"},
    "services": {"trio", "loro", "driver", "sansio", "model", "schema", "errors", "msgspec"},
    "surfaces": {"trio", "runtime", "web", "sansio", "model", "schema", "errors", "msgspec"},
    "drivers": {"driver", "model", "schema", "errors", "sansio"},
    "_runtime_messages": {"msgspec", "web", "sansio"},
    "runtime": {"trio", "_runtime_messages", "web", "sansio", "model", "errors"},
    "audit": set(),
    "scripts": {"runtime", "audit", "surfaces", "sansio", "settings"},
    "scripting": {
        *("trio", "msgspec", "references", "runtime", "scripts", "audit", "backend", "services"),
        *("surfaces", "web", "sansio", "model", "errors", "settings"),
    },
    "gate": {"sansio", "web"},
    "meters": {"sansio"},
    "systemd": {"trio", "settings"},
    "certificates": {"cryptography"},
    "binding": {"trio", "settings", "transport", "certificates"},
    "plugins": {"driver", "errors"},
    "settings": {"sansio"},
    "config": {"settings", "errors", "sansio"},
    "logs": {"sansio"},
    "persisted": {"errors", "sansio", "msgspec"},
    "registrations": {
        *("references", "persisted", "settings", "services", "sansio", "driver", "errors"),
    },
    "references": {"config", "settings", "sharing", "plugins", "model", "sansio", "driver"},
    "sharing": {"config", "settings", "services", "driver", "model"},
    "backend": {"trio", "settings", "sharing", "services", "sansio", "meters", "model", "errors"},
    "server": {
        *("trio", "settings", "references", "backend", "binding", "errors", "gate", "meters"),
        *("model", "sansio", "services", "transport", "surfaces", "web", "scripts", "scripting"),
        "registrations",
        "__init__",
    },
    "conformance": {
        *("driver", "model", "schema", "errors", "sansio", "plugins", "msgspec", "__init__"),
    },
    "cli": {
        *("trio", "server", "binding", "systemd", "config", "settings", "logs", "errors"),
        *("sansio", "conformance", "plugins", "__init__"),
    },
    "__main__": {"cli"},
    "__init__": set(),
}
# The one database package each driver may import.
DATABASES = {
    "duckdb": {"duckdb"},
    "_duckdb_arrow": {"duckdb", "nanoarrow"},
    "_duckdb_calls": {"duckdb"},
    "_duckdb_catalog": {"duckdb"},
    "_duckdb_connection": {"duckdb"},
    "_duckdb_few_rows": {"duckdb", "msgspec"},
    "_duckdb_lines": {"duckdb", "nanoarrow"},
    "_duckdb_notes": {"duckdb"},
    "_duckdb_parquet": {"duckdb", "nanoarrow"},
    "_duckdb_parse": {"duckdb"},
    "_duckdb_result": {"duckdb"},
    "_duckdb_extras": {"duckdb"},
    "_duckdb_names": {"duckdb"},
    "_duckdb_read_only": {"duckdb"},
    "_duckdb_sql": {"duckdb"},
    "_duckdb_touched": {"duckdb"},
    "sqlite": set(),
    "fake": set(),
    "dbapi": set(),
    "_arrow_stream": {"nanoarrow"},
    "_dbapi_adbc": {"nanoarrow"},
    "odbc": {"pyodbc"},
    "_odbc_catalog": {"pyodbc"},
    "_odbc_describe": {"pyodbc"},
    "_odbc_errors": {"pyodbc"},
    "_odbc_kinds": {"pyodbc"},
    "_odbc_results": {"pyodbc"},
    "_odbc_strings": set(),
    "postgres": {"psycopg"},
    "_postgres_connection": {"psycopg"},
    "_postgres_notices": {"psycopg"},
    "_postgres_read_only": {"psycopg"},
    "_postgres_rows": {"psycopg"},
    "_postgres_sql": {"psycopg"},
    "_postgres_wire": {"psycopg"},
}


def modules() -> Iterator[Path]:
    yield from sorted((ROOT / "notebook_rpc").rglob("*.py"))
    yield from sorted((ROOT / "drivers").rglob("*.py"))


def layer(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "drivers" else parts[1]


def imported(tree: ast.Module) -> Iterator[str]:
    """Layers and third-party packages that a module imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if node.module in OWN:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                names = [node.module]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "notebook_rpc":
                below = rest.split(".")[0]
                exists = (ROOT / "notebook_rpc" / below).exists()
                exists |= (ROOT / "notebook_rpc" / f"{below}.py").exists()
                yield below if exists else "__init__"
            elif package == "notebook_rpc_drivers":
                yield "drivers"
            elif package not in sys.stdlib_module_names:
                yield package


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    own = layer(path)
    allowed = LAYERS[own] | {own}
    if own == "drivers":
        allowed |= DATABASES.get(path.stem, set())
    assert set(imported(ast.parse(path.read_text("utf-8")))) <= allowed


def test_the_table_sees_a_wrong_import() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    from notebook_rpc.services.workers import Workers")
    assert set(imported(tree)) == {"services"}
    assert set(imported(ast.parse("import trio.lowlevel\nimport os"))) == {"trio"}
    assert set(imported(ast.parse("from notebook_rpc import __version__"))) == {"__init__"}
