"""What must come of each call, by the prose of docs/protocols/adonotebook.md and nothing else.

Told of a call, a session of the model says what the answer has to be and is what the session
has to be afterwards. It imports nothing of the server, knows no sockets and runs nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.end_to_end import words
from tests.end_to_end.words import BRIEF, SHARED, Dialect, Place, Statement, named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Numbers: TypeAlias = "tuple[int, ...]"  # what a table holds
Row: TypeAlias = "dict[str, str | None]"

# The codes of docs/errors.md.
NO_SUCH_METHOD, INVALID_PARAMS, WRONG_STATE, UNKNOWN_SESSION = -32601, -32602, -32001, -32002
QUERY_ERROR, UNAVAILABLE, TIMED_OUT, CANCELLED = -32011, -32012, -32014, -32800
UNKNOWN_TABLE = -32016

AUTOCOMMIT, OPEN, FAILED = "autocommit", "in transaction", "failed transaction"


# Calls and answers


@dataclass(frozen=True)
class Call:
    """``script`` is what ``execute`` executes, ``params`` what any other method is given."""

    method: str
    params: tuple[object, ...] = ()
    script: tuple[Statement, ...] = ()
    timeout: float | None = None
    notify: bool = False

    def __repr__(self) -> str:
        given = [repr(each) for each in self.script or self.params]
        limit = [] if self.timeout is None else [f"timeout={self.timeout}"]
        return f"{'notify ' if self.notify else ''}{self.method}({', '.join(given + limit)})"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """For Hypothesis, which would print a dataclass with all its fields."""
        printer.text(repr(self))

    @property
    def long(self) -> bool:
        return self.timeout is None and any(statement.long for statement in self.script)

    @property
    def writes(self) -> bool:
        return any(statement.writes for statement in self.script)


@dataclass(frozen=True)
class Gives:
    """One of these results."""

    results: tuple[object, ...]


@dataclass(frozen=True)
class Fails:
    """An error with one of these codes, and these words in its message."""

    codes: tuple[int, ...]
    saying: str = ""
    not_saying: str = "\0"


@dataclass(frozen=True)
class NextRows:
    """Of an open result, at most so many."""

    result: Result
    limit: int


@dataclass(frozen=True)
class Places:
    """All of the first, nothing beyond the second, and none twice."""

    certain: frozenset[Place]
    possible: frozenset[Place]


class Other(enum.Enum):
    RUNS = "it runs until something else happens"
    GONE = "the session has ended: status 404, or an error that says so"


Expected: TypeAlias = Gives | Fails | NextRows | Places | Other
RUNS, GONE = Other
DONE = Gives((True,))


# Sessions


@dataclass
class Result:
    columns: list[tuple[str, str]]  # name, type
    rows: list[Row]
    count: int = -1
    after: type[Statement] = words.Series  # what comes when the rows have been read
    handed: int = 0
    lost: bool = False

    @property
    def left(self) -> int:
        return len(self.rows) - self.handed


@dataclass
class World:
    """What everybody shares. A slot is a session's number; its tables outlive the session."""

    dialect: Dialect
    committed: dict[int, dict[str, Numbers]]
    shared: Numbers = ()
    ever: dict[int, set[str]] = field(default_factory=dict)  # each table that was committed

    def tidying(self, default: Session) -> list[str]:
        """SQL that takes away what is left when all other sessions have ended."""
        if self.dialect.lax:
            return ["leave"]  # other tables than temporary ones stay
        brief = [named(BRIEF, default.slot)] if BRIEF in default.tables else []
        kept = [named(table, slot) for slot, tables in self.committed.items() for table in tables]
        self.committed.clear()
        return [f"drop table {name}" for name in (*brief, *kept)] + [f"delete from {SHARED}"]

    def places(
        self, tables: Mapping[int, Iterable[str]], *, without: int | None = None
    ) -> frozenset[Place]:
        slots = [slot for slot in tables if slot != without]
        return frozenset(self.dialect.place(name, slot) for slot in slots for name in tables[slot])


class Session:
    """``tables`` are its own as it sees them, ``before`` as they were at BEGIN."""

    def __init__(self, world: World, slot: int, path: str) -> None:
        self.world = world
        self.slot = slot
        self.path = path
        self.ended = False
        self.transaction = AUTOCOMMIT
        self.tables = dict(world.committed.setdefault(slot, {}))
        self.before: dict[str, Numbers] = {}
        self.result: Result | None = None

    def __repr__(self) -> str:
        return f"<session {self.slot}>"

    @property
    def active(self) -> bool:
        return self.result is not None

    def nearest(self, call: Call) -> Call:
        return replace(call, script=tuple(map(self.world.dialect.nearest, call.script)))

    def params(self, call: Call) -> list[object]:
        """What is sent for *call*."""
        if call.method == "columns":
            return ["", "", named(str(call.params[0]), self.slot)]
        if not call.script:
            return list(call.params)
        sql = "; ".join(self.world.dialect.text(each, self.slot) for each in call.script)
        last = call.script[-1]
        bound = last.parameters if isinstance(last, words.Echo) else None
        return [sql, bound] if call.timeout is None else [sql, bound, call.timeout]

    def says(self, running: Call | None) -> dict[str, object]:
        """What ``progress`` says of its state while *running* runs, as far as it is certain."""
        said: dict[str, object] = {"state": "Active" if self.active else "NoActive"}
        if running is None:
            said["transaction"] = self.transaction
        # A page that runs, or was lost while it ran, may have counted rows that nobody got.
        if self.result is None:
            said["rows"] = 0
        elif not self.result.lost and (running is None or running.method != "page"):
            said["rows"] = self.result.handed
        return said

    def carry_out(self, call: Call) -> Expected:
        """What comes of *call*, now that it is its turn."""
        if self.ended:
            return GONE
        match call.method:
            case "tables":
                return self._visible()
            case "views":
                return Places(self.world.dialect.views, self.world.dialect.views)
            case "columns":
                return self._columns(str(call.params[0]))
            case "execute" if self.result is None:
                return self._execute(call)
            case "quit" if self.result is None:
                self.end()
                return Gives((None,))
        if self.result is None or call.method in ("execute", "quit"):
            return Fails((WRONG_STATE,))
        return self._read(self.result, call)

    def interrupt(self, call: Call, code: int = CANCELLED) -> Fails:
        """What comes of *call*, which runs, and of the session."""
        if call.method == "finish":
            self.result = None
            return Fails((code,))
        if self.result is not None:
            self.result.lost = True
        if self.transaction == AUTOCOMMIT:
            return Fails((code,), not_saying="rolled back")
        self._end_transaction(keep=False)
        return Fails((code,), saying="rolled back")

    def end(self) -> None:
        self._end_transaction(keep=False)
        self.ended = True

    # Results

    def _read(self, result: Result, call: Call) -> Expected:
        match call.method, result.after:
            case "metadata", _:
                columns = [{"column": name, "datatype": kind} for name, kind in result.columns]
                return Gives((columns,))
            case "count", _:
                return Gives((result.count,))
            case "finish", words.EndlessOnClose:
                return RUNS
            case "finish", after:
                self.result = None
                return Fails((QUERY_ERROR,)) if after is words.FailingOnClose else DONE
        (limit,) = call.params
        assert isinstance(limit, int)
        if result.lost:
            return Fails((CANCELLED, QUERY_ERROR))
        if result.after is words.FailingAfter and limit > result.left:
            result.lost = True  # a second try must not look like the end
            return Fails((QUERY_ERROR,))
        endless = result.after is words.EndlessAfter and limit > result.left
        return RUNS if endless else NextRows(result, limit)

    # Statements

    def _execute(self, call: Call) -> Expected:
        total = len(call.script)
        result: Result | None = None
        for number, statement in enumerate(call.script, 1):
            which = f"statement {number} of {total}" if total > 1 else ""
            if isinstance(statement, words.Leave) and self.transaction != FAILED:
                self._end_transaction(keep=False)
                self.tables.pop(BRIEF, None)
                return Fails((UNAVAILABLE,), which)
            result = self._run(statement)
            if result is None:
                codes = self._codes(statement)
                self._spoil(statement, last=number == total)
                return Fails(codes, which)
            if result.after is words.Endless:
                return RUNS if call.timeout is None else self.interrupt(call, TIMED_OUT)
        self.result = result
        return DONE

    def _codes(self, statement: Statement) -> tuple[int, ...]:
        """Of one that has failed. The fake has one word for all that is wrong with a statement, and
        in a transaction that has failed it is the database's affair what it complains of."""
        if self.world.dialect.lax or isinstance(statement, words.Create):
            return (QUERY_ERROR,)
        if not isinstance(statement, words.Unknown | words.OfTable):
            return (QUERY_ERROR,)
        return (UNKNOWN_TABLE, QUERY_ERROR) if self.transaction == FAILED else (UNKNOWN_TABLE,)

    def _spoil(self, statement: Statement, *, last: bool) -> None:
        """What an error does to a transaction is the database's affair."""
        if isinstance(statement, words.Unknown | words.Select) and last:
            spoils = False  # DuckDB finds out before it has touched anything
        else:
            failing = self.world.dialect.lax and isinstance(statement, words.Failing)
            spoils = self.world.dialect.errors_spoil or failing
        if self.transaction == OPEN and spoils:
            self.transaction = FAILED

    def _run(self, statement: Statement) -> Result | None:
        """What *statement* leaves open; None: it fails."""
        numbers, echoed, *_ = self.world.dialect.types
        if self.transaction == FAILED and not isinstance(statement, words.Commit | words.Rollback):
            return None
        match statement:
            case words.Series(rows=count, names=names):
                shown = distinct(names)
                counted = range(1, count + 1)
                rows: list[Row] = [
                    {x: str(row + n) for n, x in enumerate(shown)} for row in counted
                ]
                return Result([(name, numbers) for name in shown], rows, after=type(statement))
            case words.Echo(values=values, names=names):
                names = names or tuple(str(n) for n in range(1, len(values) + 1))
                texts = [None if value is None else str(value) for value in values]
                row: Row = dict(zip(names, texts, strict=True))
                return Result([(name, echoed) for name in names], [row])
            case words.Big(length=length):
                kind = "VARCHAR" if numbers else ""  # SQLite's results have no types
                return Result([("big", kind)], [{"big": "x" * length}])
            case words.Endless():
                return Result([], [], after=words.Endless)
            case words.Touch(rows=count):
                return Result([], [], count)
            case words.Begin() if self.transaction == AUTOCOMMIT:
                self.transaction, self.before = OPEN, dict(self.tables)
                return Result([], [], 0)
            case words.Begin():
                return Result([], [], 0) if self.world.dialect.lax else None
            case words.Commit() | words.Rollback():
                return self._commit_or_roll_back(commit=isinstance(statement, words.Commit))
            case words.OfTable():
                return self._run_on_table(statement)
        return None

    def _run_on_table(self, statement: words.OfTable) -> Result | None:
        table, world = statement.table, self.world
        held = world.shared if table == SHARED else self.tables.get(table)
        count = 0
        match statement:
            case words.Create() if held is None or world.dialect.lax:
                held = ()
            case words.Create():
                return None
            case _ if held is None:
                return None
            case words.Select():
                stored = world.dialect.types[2]
                return Result([("n", stored)], [{"n": str(number)} for number in held])
            case words.Insert(rows=count):
                held = (*held, *range(1, count + 1))
            case words.Delete(last=last):
                left = tuple(number for number in held if number > last)
                held, count = left, len(held) - len(left)
        if isinstance(statement, words.Drop):
            del self.tables[table]
        elif table == SHARED:
            world.shared = held
        else:
            self.tables[table] = held
        if self.transaction == AUTOCOMMIT:
            self._publish()
        return Result([], [], count)

    def _commit_or_roll_back(self, *, commit: bool) -> Result | None:
        lax, was = self.world.dialect.lax, self.transaction
        self._end_transaction(keep=commit and was == OPEN)
        if was == AUTOCOMMIT or (was == FAILED and commit):  # nobody shall take it for committed
            return Result([], [], 0) if lax else None
        return Result([], [], 0)

    def _end_transaction(self, *, keep: bool) -> None:
        if self.transaction != AUTOCOMMIT and not keep:
            self.tables = self.before
        self.transaction = AUTOCOMMIT
        self._publish()

    def _publish(self) -> None:
        """Let others see what is committed."""
        committed = {name: held for name, held in self.tables.items() if name != BRIEF}
        self.world.committed[self.slot] = committed
        self.world.ever.setdefault(self.slot, set()).update(committed)

    # The catalog

    def _visible(self) -> Places:
        """Its own, temporary and uncommitted ones too. Which moment's tables of others there
        are during a transaction, or beside an open result, nobody has promised."""
        world = self.world
        shared = frozenset() if world.dialect.lax else {world.dialect.place(SHARED, 0)}
        always = world.dialect.tables | shared
        own = always | world.places({self.slot: self.tables})
        others = world.places(world.committed, without=self.slot)
        once = own | others | world.places(world.ever, without=self.slot)
        if self.transaction == FAILED:  # and it may be too late to ask
            return Places(frozenset(), once | world.places({self.slot: self.before}))
        if self.transaction == OPEN or self.active:
            return Places(own, once)
        return Places(own | others, own | others)

    def _columns(self, table: str) -> Gives:
        """Of one of its own tables."""
        catalog, schema, name = self.world.dialect.place(table, self.slot)
        column = {"catalog": catalog, "schema": schema, "table": name, "column": "n"}
        described = [{**column, "datatype": self.world.dialect.types[3]}]
        if self.transaction == FAILED:
            return Gives(([], described))
        return Gives((described if table in self.tables else [],))


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """As the protocol has it: ``a``, ``a`` become ``a``, ``a_1``."""
    return {("a", "a"): ("a", "a_1"), ("a", "a", "a_1"): ("a", "a_2", "a_1")}.get(names, names)
