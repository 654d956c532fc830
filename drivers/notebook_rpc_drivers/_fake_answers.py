"""The tables of the fake, and the answers to statements that do nothing else than to answer.

The whole language is told at the top of ``fake.py``. What it refuses: to know of a connection, so
that nothing here can wait, write or break.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

from notebook_rpc.errors import QueryError
from notebook_rpc.model import Table
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts

if TYPE_CHECKING:
    from notebook_rpc.model import Parameters

Row = tuple[Any, ...]
Columns = list[tuple[str, str]]  # name, type
Tables = dict[str, Columns]

TABLES: dict[str, tuple[Columns, list[Row]]] = {
    "orders": (
        [("id", "INTEGER"), ("customer", "INTEGER"), ("amount", "DECIMAL")],
        [(1, 1, Decimal("19.90")), (2, 1, Decimal("5.00")), (3, 2, None)],
    ),
    "users": (
        [("id", "INTEGER"), ("name", "VARCHAR"), ("since", "DATE")],
        [(1, "Ada", datetime.date(1843, 9, 5)), (2, 'O"Neil\\', datetime.date(1970, 1, 1))],
    ),
    "paid": (
        [("id", "INTEGER"), ("amount", "DECIMAL")],
        [(1, Decimal("19.90")), (2, Decimal("5.00"))],
    ),
}
VIEWS = {"paid"}
_KEYS = {("orders", "id"), ("users", "id")}
_CONSTRAINTS = {
    "orders": (
        Constraint(ConstraintKind.PRIMARY_KEY, "orders_pkey", ("id",)),
        Constraint(
            ConstraintKind.FOREIGN_KEY,
            "orders_customer_fkey",
            ("customer",),
            references=Table("fake", "main", "users"),
            referenced=("id",),
        ),
        Constraint(ConstraintKind.CHECK, "orders_amount_check", ("amount",), "amount > 0"),
    ),
    "users": (Constraint(ConstraintKind.PRIMARY_KEY, "users_pkey", ("id",)),),
}

_TYPES: dict[str, object] = {
    "nothing": None,
    "bool": True,
    "int": 2**70,
    "float": float("-inf"),
    "decimal": Decimal("0.10"),
    "text": 'a\u00e9\U0001f986\n"\\',
    "bytes": b"\x00ab",
    "date": datetime.date(2026, 2, 28),
    "time": datetime.time(23, 59, 58, 5),
    "timestamp": datetime.datetime(2026, 2, 28, 1, 2, 3, tzinfo=datetime.UTC),
    "interval": datetime.timedelta(days=1, seconds=1.5),
    "uuid": uuid.UUID(int=1),
    "nested": [1, Decimal("0.10"), {"a": None}],
}


def _nothing() -> None:
    """How most results end."""


@dataclass
class Plan:
    """What a statement returns, and what happens after the last row and on close."""

    columns: Columns = field(default_factory=list)
    rows: Iterable[Row] = ()
    count: int = -1
    at_end: Callable[[], None] = _nothing
    on_close: Callable[[], None] = _nothing


def numbered(said: list[str]) -> list[int | str]:
    """The words of a statement as it is matched: in lower case, and numbers as such."""
    return [int(word) if word.isdecimal() else word.lower() for word in said]


def facts_of(name: str, described: Columns) -> TableFacts:
    columns = [
        ColumnFacts(column, kind, nullable=(name, column) not in _KEYS)
        for column, kind in described
    ]
    listed = ", ".join(f"{column} {kind}" for column, kind in described)
    is_view = name in VIEWS
    create = "" if is_view else f"create table {name} ({listed})"
    constraints = _CONSTRAINTS.get(name, ())
    return TableFacts(Table("fake", "main", name), columns, constraints, create, is_view)


def planned(statement: str, parameters: Parameters | None) -> Plan:
    """What a *statement* gives that does nothing to the connection or the database."""
    said = statement.split()
    words = numbered(said)
    match words:
        case ["rows", int(n)]:
            return counting(n, ["n"])
        case ["rows", int(n), *_]:
            return counting(n, said[2:])
        case ["columns", int(n)]:
            return counting(1, [f"c{number}" for number in range(1, n + 1)])
        case ["empty", int(n)]:
            return Plan(rows=((),) * n)
        case ["big", int(n)]:
            return Plan([("big", "VARCHAR")], [("x" * n,)])
        case ["types"]:
            columns = [(name, type(value).__name__) for name, value in _TYPES.items()]
            return Plan(columns, [tuple(_TYPES.values())])
        case ["echo"]:
            items = (
                parameters.items()
                if isinstance(parameters, Mapping)
                else enumerate(parameters or (), 1)
            )
            given = [(str(name), value) for name, value in items]
            return Plan([(name, "") for name, _ in given], [tuple(v for _, v in given)])
        case ["error", "after", int(n), "rows", *_]:
            return counting(n, ["n"], at_end=lambda: fail(said[4:]))
        case ["error", "on", "close", *_]:
            return counting(1, ["n"], on_close=lambda: fail(said[3:]))
        case ["error", *_]:
            fail(said[1:])
        case ["select", *_, "from", str(table)] if table in TABLES:
            return _selected(" ".join(said[1:-2]), table)
    raise QueryError(f"not understood: {statement}")


def counting(
    rows: int,
    names: list[str],
    at_end: Callable[[], None] = _nothing,
    on_close: Callable[[], None] = _nothing,
) -> Plan:
    """Rows of numbers; the first column counts from 1, the next one from 2."""
    columns = [(name, "INTEGER") for name in names]
    numbers = (tuple(range(row, row + len(names))) for row in range(1, rows + 1))
    return Plan(columns, numbers, at_end=at_end, on_close=on_close)


def _selected(names: str, table: str) -> Plan:
    columns, rows = TABLES[table]
    places = {name: place for place, (name, _) in enumerate(columns)}
    wanted = list(places) if names == "*" else [name.strip() for name in names.split(",")]
    unknown = next((name for name in wanted if name not in places), None)
    if unknown is not None:
        raise QueryError(f"{table} has no column {unknown}")
    return Plan(
        [columns[places[name]] for name in wanted],
        [tuple(row[places[name]] for name in wanted) for row in rows],
    )


def counted(table: str, empty: Tables) -> Plan:
    if table not in TABLES and table not in empty:
        raise QueryError(f"there is no table {table}")
    rows = TABLES[table][1] if table in TABLES else []
    return Plan([("count", "INTEGER")], [(len(rows),)])


def fail(message: list[str]) -> NoReturn:
    raise QueryError(" ".join(message))
