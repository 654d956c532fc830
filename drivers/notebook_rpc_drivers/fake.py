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

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from notebook_rpc.errors import (
    Cancelled,
    Conflict,
    DatabaseUnavailable,
    InvalidParams,
    NotebookError,
    QueryError,
    UnknownTable,
)
from notebook_rpc.model import Column, Stability, Table, Transaction
from notebook_rpc_drivers._fake_answers import (
    TABLES,
    VIEWS,
    Plan,
    counted,
    counting,
    facts_of,
    fail,
    numbered,
    planned,
)
from notebook_rpc_drivers._fake_result import FakeResult
from notebook_rpc_drivers._touched import Written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from notebook_rpc.model import Parameters, Touched
    from notebook_rpc.schema import TableFacts
    from notebook_rpc_drivers._fake_answers import Columns, Tables

_ENDS = ("commit", "rollback")


@dataclass
class Gate:
    """Holds the call that comes to it until it is opened; ``reached`` tells that one has."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def pass_through(self) -> None:
        self.reached.set()
        self.opened.wait()


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
        plan = Plan()
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
        names = {*TABLES, *self._visible()} - VIEWS
        return [Table("fake", "main", name) for name in sorted(names)]

    def views(self) -> list[Table]:
        self.arrive("views")
        return [Table("fake", "main", name) for name in sorted(VIEWS)]

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
        return facts_of(name, described[name])

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
        return {name: columns for name, (columns, _) in TABLES.items()} | self._visible()

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

    def _plan(self, statement: str, parameters: Parameters | None) -> Plan:
        """Do what *statement* says, as far as it is to be done before the first row."""
        said = statement.split()
        if self.transaction is Transaction.FAILED and said[0].lower() not in _ENDS:
            raise QueryError("the transaction has failed; roll it back")
        words = numbered(said)
        match words:
            case ["count", int(n)]:
                self._refuse_to_write()
                self.changes += 1
                self._written.note(self._database.touched.get(statement), at_once=True)
                if self.transaction is Transaction.NONE:
                    self._written.commit()
                return Plan(count=n)
            case ["conflict", int(times)]:
                self._database.conflicts += 1
                if self._database.conflicts <= times:
                    conflict = Conflict("another transaction was first")
                    conflict.alone = True
                    raise conflict
                return Plan(count=1)
            case ["wait", "after", int(n), "rows"]:
                return counting(n, ["n"], at_end=self._wait)
            case ["wait", "on", "close"]:
                return counting(1, ["n"], on_close=self._wait)
            case ["wait"]:
                self._wait()
            case ["wait", int(times)]:
                self._wait(times)
            case ["abort", *_]:
                if self.transaction is Transaction.OPEN:
                    self.transaction = Transaction.FAILED
                fail(said[1:])
            case ["leave"]:
                self._broken = True
                raise DatabaseUnavailable("the connection broke, as it was told")
            case ["begin"]:
                self.transaction = Transaction.OPEN
                return Plan(count=0)
            case ["commit" | "rollback" as end]:
                whole = self.transaction is not Transaction.FAILED
                self._end_transaction(keep=end == "commit" and whole)
                return Plan(count=0)
            case ["create", "table", str(_), *_] | ["create", "temp", "table", str(_), *_]:
                self._create(statement, temporary=words[1] == "temp")
                return Plan(count=0)
            case ["select", "count(*)", "from", str(named)]:
                return counted(named.removeprefix("fake.main."), self._visible())
        return planned(statement, parameters)


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
