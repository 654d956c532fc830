"""A database that does what it is told: for tests of everything above the drivers, and for
authors of clients, who want an error, a hanging query or a huge row at will.

Statements are separated by semicolons, comments begin with ``--``, and the case of words does
not matter::

    rows N [NAME ...]              N rows of numbers; names may repeat
    columns N                      one row of N columns, c1 to cN
    empty N                        N rows without columns
    big BYTES                      one row with a text of that length
    types                          one row with a value of every type
    echo                           one row with the bound parameters
    count N                        no rows; says that it touched N
    error MESSAGE                  fails
    error after N rows MESSAGE     gives N rows, then fails
    wait [TIMES]                   until it has been interrupted so many times (once)
    wait after N rows              gives N rows, then waits as above
    wait on close                  one row; to close the result waits as above
    error on close MESSAGE         one row; to close the result fails
    conflict TIMES                 fails so often for another transaction, then touches a row
    abort MESSAGE                  fails, and so has the transaction, if there is one
    leave                          breaks the connection: every later call but close fails
    select NAME, ... from TABLE    rows of orders, users or the view paid; * is all columns
    select count(*) from TABLE     how many they are
    create [temp] table NAME (COLUMN TYPE, ...)   makes an empty table
    begin, commit, rollback        as elsewhere; rollback undoes create

The property ``fail`` names methods, with commas between them, that fail: ``connect``,
``fetch``, ``close``, ``database.close`` and so on.

An interrupt that finds nobody waiting is lost, as it is with real databases. Rows before an
error are given first. Tests can do more with ``FakeDatabase``: script it, look at its calls,
and hold any of them at a ``Gate``. It refuses to sleep and to read a clock.
"""

from __future__ import annotations

import datetime
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

from notebook_rpc.errors import (
    Cancelled,
    Conflict,
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    QueryError,
    UnknownTable,
)
from notebook_rpc.model import (
    Column,
    ResultColumn,
    Stability,
    Table,
    Transaction,
    unique_names,
)
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts
from notebook_rpc_drivers._touched import Written

if TYPE_CHECKING:
    from pathlib import Path

    from notebook_rpc.model import Parameters, Touched

Row = tuple[Any, ...]
Columns = list[tuple[str, str]]  # name, type
Tables = dict[str, Columns]

_TABLES: dict[str, tuple[Columns, list[Row]]] = {
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
_VIEWS = {"paid"}
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
_ENDS = ("commit", "rollback")

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


@dataclass
class Gate:
    """Holds the call that comes to it until it is opened; ``reached`` tells that one has."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def pass_through(self) -> None:
        self.reached.set()
        self.opened.wait()


def _nothing() -> None:
    """How most results end."""


@dataclass
class _Plan:
    """What a statement returns, and what happens after the last row and on close."""

    columns: Columns = field(default_factory=list)
    rows: Iterable[Row] = ()
    count: int = -1
    at_end: Callable[[], None] = _nothing
    on_close: Callable[[], None] = _nothing


class FakeResult:
    def __init__(self, connection: FakeConnection, plan: _Plan) -> None:
        names = unique_names(name for name, _ in plan.columns)
        self.columns = [
            ResultColumn(name, kind) for name, (_, kind) in zip(names, plan.columns, strict=True)
        ]
        self.count = plan.count
        self.streaming = plan.count < 0
        self._connection = connection
        self._plan = plan
        self._rows = iter(plan.rows)
        self._closed = False
        self._failure: NotebookError | None = None

    def fetch(self, limit: int, /) -> list[Row]:
        self._connection.arrive("fetch", str(limit))
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise QueryError("the result is closed")
        rows = list(islice(self._rows, limit))
        if not rows and self.streaming:
            try:
                self._plan.at_end()
            except NotebookError as failure:
                self._failure = failure
                raise
            self.streaming = False
        return rows

    def close(self) -> None:
        if not self._closed:
            self._closed, self.streaming = True, False
            self._connection.arrive("finish")
            self._plan.on_close()


class FakeConnection:
    """``calls`` has every call in order, arguments behind the name: "execute rows 3"."""

    def __init__(self, database: FakeDatabase, *, read_only: bool = False) -> None:
        self.calls: list[str] = []
        self._read_only = read_only
        self.interrupts = 0
        self.changes = 0
        self._written = Written()
        self.transaction = Transaction.NONE
        self.closed = False
        self._broken = False
        self._database = database
        self._result: FakeResult | None = None
        self._temporary: Tables = {}
        self._uncommitted: list[tuple[Tables, str, Columns]] = []  # where they will belong
        self._woken = threading.Semaphore(0)

    def arrive(self, call: str, detail: str = "") -> None:
        """Record a call, stop at its gate, fail if it shall."""
        self.calls.append(f"{call} {detail}".rstrip())
        if self._broken and call != "close":
            raise DatabaseUnavailable("the connection is broken")
        self._database.arrive(call)

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> FakeResult:
        self.arrive("execute", sql)
        self._finish()
        scripted = self._database.script.get(sql, sql)
        if isinstance(scripted, NotebookError):
            raise scripted
        without_comments = re.sub("--[^\n]*", "", scripted)
        statements = [part.strip() for part in without_comments.split(";") if part.strip()]
        if not statements:
            raise QueryError("no statement")
        plan = _Plan()
        for number, statement in enumerate(statements, 1):
            try:
                plan = self._plan(statement, parameters)
            except NotebookError as exc:
                if len(statements) == 1:
                    raise
                after = f" (after {number - 1} that ran)" if number > 1 else " (nothing ran)"
                message = f"statement {number} of {len(statements)}: {exc}{after}"
                raise type(exc)(message) from exc
        self._result = FakeResult(self, plan)
        return self._result

    def tables(self) -> list[Table]:
        self.arrive("tables")
        names = {*_TABLES, *self._visible()} - _VIEWS
        return [Table("fake", "main", name) for name in sorted(names)]

    def views(self) -> list[Table]:
        self.arrive("views")
        return [Table("fake", "main", name) for name in sorted(_VIEWS)]

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        self.arrive("columns", f"{catalog} {schema} {table}")
        if catalog not in ("", "fake") or schema not in ("", "main"):
            return []
        return [
            Column("fake", "main", name, column, kind)
            for name, columns in sorted(self._described().items())
            for column, kind in columns
            if table in ("", name)
        ]

    def describe(self, table: Table, /) -> TableFacts:
        self.arrive("describe", f"{table.catalog} {table.schema} {table.table}")
        described = self._described()
        name = table.table if table.table in described else table.table.lower()
        here = table.catalog in ("", "fake") and table.schema in ("", "main")
        if not here or name not in described:
            raise UnknownTable(f"there is no table {table.table!r}")
        constraints = _CONSTRAINTS.get(name, ())
        columns = [
            ColumnFacts(column, kind, nullable=(name, column) not in _KEYS)
            for column, kind in described[name]
        ]
        listed = ", ".join(f"{column} {kind}" for column, kind in described[name])
        is_view = name in _VIEWS
        create = "" if is_view else f"create table {name} ({listed})"
        return TableFacts(Table("fake", "main", name), columns, constraints, create, is_view)

    def schemas(self) -> list[str]:
        self.arrive("schemas")
        return ["main"]

    def databases(self) -> list[str]:
        self.arrive("databases")
        return ["fake"]

    def written(self, table: Table, /) -> str:
        return ".".join(filter(None, (table.catalog, table.schema, table.table)))

    def rollback(self) -> bool:
        self.arrive("rollback")
        self._finish()
        had = self.transaction is not Transaction.NONE
        self._end_transaction(keep=False)
        return had

    def stability(self, sql: str, /) -> Stability:
        self.arrive("stability", sql)
        return self._database.stabilities.get(sql, Stability.VOLATILE)

    def reads(self, sql: str, /) -> Touched:
        self.arrive("reads", sql)
        return self._database.touched.get(sql)

    def take_written(self) -> Touched:
        return self._written.take()

    def reset(self) -> None:
        self.arrive("reset")
        self._finish()
        self._temporary.clear()

    def close(self) -> None:
        self.arrive("close")
        self._finish()
        self.closed = True

    def interrupt(self) -> None:
        self.interrupts += 1
        self._woken.release()

    def _finish(self) -> None:
        result, self._result = self._result, None
        if result is not None:
            result.close()

    def _refuse_to_write(self) -> None:
        if self._read_only:
            raise QueryError("the database is open for reading only")

    def _wait(self, times: int = 1) -> None:
        self._woken = threading.Semaphore(0)  # a new one: what came too early is lost
        self._database.waiting.set()
        for _ in range(times):
            self._woken.acquire()
        raise Cancelled("interrupted")

    def _described(self) -> Tables:
        return {name: columns for name, (columns, _) in _TABLES.items()} | self._visible()

    def _visible(self) -> Tables:
        uncommitted = {name: columns for _, name, columns in self._uncommitted}
        return {**self._database.created, **self._temporary, **uncommitted}

    def _create(self, statement: str, *, temporary: bool) -> None:
        self._refuse_to_write()
        self._written.note(None)
        head, _, described = statement.partition("(")
        columns = [column.strip(" )").partition(" ") for column in described.split(",")]
        owner = self._temporary if temporary else self._database.created
        named = [(name, kind.strip().upper()) for name, _, kind in columns if name]
        self._uncommitted.append((owner, head.split()[-1], named))
        if self.transaction is Transaction.NONE:
            self._end_transaction(keep=True)

    def _end_transaction(self, *, keep: bool) -> None:
        self.changes += keep
        if keep:
            self._written.commit()
        self._written.roll_back()
        for owner, name, columns in self._uncommitted if keep else []:
            owner[name] = columns
        self._uncommitted = []
        self.transaction = Transaction.NONE

    def _plan(self, statement: str, parameters: Parameters | None) -> _Plan:
        """Do what *statement* says, as far as it is to be done before the first row."""
        said = statement.split()
        if self.transaction is Transaction.FAILED and said[0].lower() not in _ENDS:
            raise QueryError("the transaction has failed; roll it back")
        words = [int(word) if word.isdecimal() else word.lower() for word in said]
        match words:
            case ["rows", int(n)]:
                return _counting(n, ["n"])
            case ["rows", int(n), *_]:
                return _counting(n, said[2:])
            case ["columns", int(n)]:
                return _counting(1, [f"c{number}" for number in range(1, n + 1)])
            case ["empty", int(n)]:
                return _Plan(rows=((),) * n)
            case ["big", int(n)]:
                return _Plan([("big", "VARCHAR")], [("x" * n,)])
            case ["types"]:
                columns = [(name, type(value).__name__) for name, value in _TYPES.items()]
                return _Plan(columns, [tuple(_TYPES.values())])
            case ["echo"]:
                items = (
                    parameters.items()
                    if isinstance(parameters, Mapping)
                    else enumerate(parameters or (), 1)
                )
                given = [(str(name), value) for name, value in items]
                return _Plan([(name, "") for name, _ in given], [tuple(v for _, v in given)])
            case ["count", int(n)]:
                self._refuse_to_write()
                self.changes += 1
                self._written.note(self._database.touched.get(statement), at_once=True)
                if self.transaction is Transaction.NONE:
                    self._written.commit()
                return _Plan(count=n)
            case ["conflict", int(times)]:
                self._database.conflicts += 1
                if self._database.conflicts <= times:
                    conflict = Conflict("another transaction was first")
                    conflict.alone = True
                    raise conflict
                return _Plan(count=1)
            case ["error", "after", int(n), "rows", *_]:
                return _counting(n, ["n"], at_end=lambda: _fail(said[4:]))
            case ["error", "on", "close", *_]:
                return _counting(1, ["n"], on_close=lambda: _fail(said[3:]))
            case ["error", *_]:
                _fail(said[1:])
            case ["wait", "after", int(n), "rows"]:
                return _counting(n, ["n"], at_end=self._wait)
            case ["wait", "on", "close"]:
                return _counting(1, ["n"], on_close=self._wait)
            case ["wait"]:
                self._wait()
            case ["wait", int(times)]:
                self._wait(times)
            case ["abort", *_]:
                if self.transaction is Transaction.OPEN:
                    self.transaction = Transaction.FAILED
                _fail(said[1:])
            case ["leave"]:
                self._broken = True
                raise DatabaseUnavailable("the connection broke, as it was told")
            case ["begin"]:
                self.transaction = Transaction.OPEN
                return _Plan(count=0)
            case ["commit" | "rollback" as end]:
                whole = self.transaction is not Transaction.FAILED
                self._end_transaction(keep=end == "commit" and whole)
                return _Plan(count=0)
            case ["create", "table", str(_), *_] | ["create", "temp", "table", str(_), *_]:
                self._create(statement, temporary=words[1] == "temp")
                return _Plan(count=0)
            case ["select", "count(*)", "from", str(named)]:
                return _counted(named.removeprefix("fake.main."), self._visible())
            case ["select", *_, "from", str(table)] if table in _TABLES:
                return _selected(" ".join(said[1:-2]), table)
        raise QueryError(f"not understood: {statement}")


def _counting(
    rows: int,
    names: list[str],
    at_end: Callable[[], None] = _nothing,
    on_close: Callable[[], None] = _nothing,
) -> _Plan:
    """Rows of numbers; the first column counts from 1, the next one from 2."""
    columns = [(name, "INTEGER") for name in names]
    numbers = (tuple(range(row, row + len(names))) for row in range(1, rows + 1))
    return _Plan(columns, numbers, at_end=at_end, on_close=on_close)


def _selected(names: str, table: str) -> _Plan:
    columns, rows = _TABLES[table]
    places = {name: place for place, (name, _) in enumerate(columns)}
    wanted = list(places) if names == "*" else [name.strip() for name in names.split(",")]
    unknown = next((name for name in wanted if name not in places), None)
    if unknown is not None:
        raise QueryError(f"{table} has no column {unknown}")
    return _Plan(
        [columns[places[name]] for name in wanted],
        [tuple(row[places[name]] for name in wanted) for row in rows],
    )


def _counted(table: str, empty: Tables) -> _Plan:
    if table not in _TABLES and table not in empty:
        raise QueryError(f"there is no table {table}")
    rows = _TABLES[table][1] if table in _TABLES else []
    return _Plan([("count", "INTEGER")], [(len(rows),)])


def _fail(message: list[str]) -> NoReturn:
    raise QueryError(" ".join(message))


class FakeDatabase:
    """The database behind the connections, and what a test may do to it.

    ``script`` maps an SQL text to another one to run in its place, or to an error to raise.
    ``gates`` and ``failures`` go by the name of the call: a method of ``driver.Connection``,
    ``fetch``, ``finish`` (the close of a result), ``connect`` or ``database.close``. All three
    may be changed while it is in use. ``touched`` has the tables that an SQL text reads, or a
    statement of it writes; of others nobody knows. ``waiting`` is set when a call begins to wait.
    """

    description = "a fake"

    def __init__(
        self,
        script: Mapping[str, str | NotebookError] | None = None,
        *,
        gates: Mapping[str, Gate] | None = None,
        failures: Mapping[str, NotebookError] | None = None,
        read_only: bool = False,
    ) -> None:
        self.script = dict(script or {})
        self.gates = dict(gates or {})
        self.failures = dict(failures or {})
        self.waiting = threading.Event()
        self.connections: list[FakeConnection] = []
        self.created: Tables = {}
        self.conflicts = 0
        self.stabilities: dict[str, Stability] = {}
        self.touched: dict[str, Touched] = {}
        self.closed = False
        self._read_only = read_only

    def connect(self) -> FakeConnection:
        return self._connected(read_only=self._read_only)

    def connect_read_only(self) -> FakeConnection:
        return self._connected(read_only=True)

    def close(self) -> None:
        self.arrive("database.close")
        self.closed = True

    def _connected(self, *, read_only: bool) -> FakeConnection:
        self.arrive("connect")
        connection = FakeConnection(self, read_only=read_only)
        self.connections.append(connection)
        return connection

    def arrive(self, call: str) -> None:
        if gate := self.gates.get(call):
            gate.pass_through()
        if failure := self.failures.get(call):
            raise failure


class _Driver:
    def within(self, _: Sequence[Path], /) -> _Driver:
        return self  # it knows of no files

    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> FakeDatabase:
        unknown = sorted(properties.keys() - {"fail", "database"})
        if unknown:
            raise InvalidParams(f"property {unknown[0]}: the fake takes fail and database")
        failing = filter(None, properties.get("fail", "").split(","))
        failures = {call: DatabaseUnavailable(f"{call} fails, as it was told") for call in failing}
        return FakeDatabase(failures=failures, read_only=read_only)


DRIVER = _Driver()
