"""Every check is seen to catch what it is for: SQLite's driver with one thing broken."""

from __future__ import annotations

import dataclasses
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from notebook_rpc.conformance import _interrupts, calls, subject
from notebook_rpc.conformance.dialect import Dialect
from notebook_rpc.conformance.dialects import DIALECTS
from notebook_rpc.conformance.drivers import CHECKS, Verdict, run
from notebook_rpc.errors import (
    Cancelled,
    DatabaseError,
    DatabaseUnavailable,
    InvalidParams,
    NotSupported,
    QueryError,
    UnknownTable,
)
from notebook_rpc.model import Table, Transaction
from notebook_rpc.schema import ColumnFacts, Constraint, TableFacts
from tests.conformance.broken import Driver, Fault, OfNoInterrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from notebook_rpc.model import Column, Touched

# A database that claims to have everything: what SQLite lacks is then found missing.
ALL = dataclasses.replace(
    DIALECTS["sqlite"], decimals=Dialect(driver="").decimals, booleans=Dialect(driver="").booleans
)
BY_NAME = {check.name: check for check in CHECKS}
WRITES = ("insert", "delete", "update")


# Faults. Each is called with the real object in front.


def quietly(result: Any, limit: int) -> Any:
    """An error looks like the end."""
    try:
        return result.fetch(limit)
    except QueryError:
        return []


def cut_short(result: Any, limit: int) -> Any:
    """So does an interrupt."""
    try:
        return result.fetch(limit)
    except Cancelled:
        return []


def mapped(change: Callable[[Any], Any]) -> Fault:
    """Every value goes through *change*."""

    def fetch(result: Any, limit: int) -> Any:
        return [tuple(map(change, row)) for row in result.fetch(limit)]

    return fetch


def without(value: object) -> Fault:
    return lambda result, limit: [row for row in result.fetch(limit) if row != (value,)]


def rewritten(change: Callable[[str], str]) -> Fault:
    """Every statement goes through *change*."""
    return lambda connection, sql, parameters: connection.execute(change(sql), parameters)


def bound(change: Callable[[str, Any], tuple[str, Any]]) -> Fault:
    """Statements and their parameters go through *change*."""

    def execute(connection: Any, sql: str, parameters: Any) -> Any:
        return (
            connection.execute(*change(sql, parameters))
            if parameters is not None
            else (connection.execute(sql))
        )

    return execute


def pasted(sql: str, parameters: Any) -> tuple[str, None]:
    """Parameters become SQL."""
    pairs = parameters.items() if isinstance(parameters, dict) else [("", *parameters[:1])]
    for name, value in pairs:
        sql = sql.replace(f":{name}" if name else "?", f"'{value}'")
    return sql, None


def failing_with(kind: type[Exception], *needles: str) -> Fault:
    """Errors of statements that have all *needles* are of another kind."""

    def execute(connection: Any, sql: str, parameters: Any) -> Any:
        try:
            return connection.execute(sql, parameters)
        except QueryError as exc:
            if all(needle in str(exc) or needle in sql for needle in needles):
                raise kind(str(exc)) from exc
            raise

    return execute


def failing_if_cancelled(connection: Any, *arguments: Any) -> Any:
    try:
        return connection.execute(*arguments)
    except Cancelled as exc:
        raise QueryError(str(exc)) from exc


def numberless(connection: Any, sql: str, parameters: Any) -> Any:
    try:
        return connection.execute(sql, parameters)
    except QueryError as exc:
        raise QueryError(re.sub(r"statement \d+ of \d+: ", "", str(exc))) from exc


def positioned(connection: Any, sql: str, parameters: Any) -> Any:
    try:
        return connection.execute(sql, parameters)
    except QueryError as exc:
        exc.position = 1
        raise


def split_badly(connection: Any, sql: str, parameters: Any) -> Any:
    *before, last = sql.split(";")
    for statement in before:
        connection.execute(statement)
    return connection.execute(last, parameters)


def broken_after_an_error() -> Fault:
    broken: set[object] = set()

    def execute(connection: Any, sql: str, parameters: Any) -> Any:
        if connection in broken:
            raise DatabaseError("the connection is in disorder")
        try:
            return connection.execute(sql, parameters)
        except QueryError:
            broken.add(connection)
            raise

    return execute


class ReadAhead:
    """A result whose rows have all been read before the first is given."""

    def __init__(self, result: Any) -> None:
        self.columns, self.count, self.streaming = result.columns, result.count, False
        self._result = result
        self._rows = subject.rest(result)

    def fetch(self, limit: int) -> list[Any]:
        page, self._rows = self._rows[:limit], self._rows[limit:]
        return page

    def close(self) -> None:
        self._result.close()


def drained(result: Any) -> None:
    quietly(result, 1_000_000_000)
    result.close()


def begins_by_itself(connection: Any, sql: str, parameters: Any) -> Any:
    if sql.startswith(WRITES) and connection.transaction is Transaction.NONE:
        connection.execute("begin")
    return connection.execute(sql, parameters)


def commits(connection: Any) -> bool:
    had = connection.transaction is Transaction.OPEN
    connection.execute("commit" if had else "select 1").close()
    return had


def undoes_a_commit(connection: Any, sql: str, parameters: Any) -> Any:
    return connection.execute("rollback" if sql == "commit" else sql, parameters)


def committed_on_close(connection: Any) -> None:
    commits(connection)
    connection.close()


def remembered() -> Fault:
    """The tables of a connection are what they were when it first was asked."""
    known: dict[object, list[Table]] = {}
    return lambda connection: known.setdefault(connection, connection.tables())


def renamed(change: Callable[[Table], Table]) -> Fault:
    return lambda connection: sorted(map(change, connection.tables()))


def of_pattern(connection: Any, catalog: str, schema: str, table: str) -> list[Column]:
    pattern = re.escape(table).replace("_", ".").replace("%", ".*") or ".*"
    found = connection.columns(catalog, schema, "")
    return [column for column in found if re.fullmatch(pattern, column.table)]


def closing_the_result(connection: Any) -> list[Table]:
    connection.execute("select 1")
    tables: list[Table] = connection.tables()
    return tables


def described(change: Callable[[TableFacts], Any]) -> dict[str, Fault]:
    """What is told of a table goes through *change*, which gives the fields that differ."""

    def describe(connection: Any, table: Table) -> Any:
        facts = connection.describe(table)
        return structs.replace(facts, **change(facts))

    return {"describe": describe}


def of_columns(change: Callable[[ColumnFacts], Any]) -> dict[str, Fault]:
    return described(
        lambda facts: {"columns": [structs.replace(each, **change(each)) for each in facts.columns]}
    )


def of_constraints(change: Callable[[Constraint], Any]) -> dict[str, Fault]:
    return described(
        lambda facts: {
            "constraints": [structs.replace(each, **change(each)) for each in facts.constraints]
        }
    )


def described_once() -> dict[str, Fault]:
    """What was told of a table, is told for ever."""
    known: dict[Table, Any] = {}

    def describe(connection: Any, table: Table) -> Any:
        return known.setdefault(table, connection.describe(table))

    return {"describe": describe}


def describing_only(visible: Callable[[Any, TableFacts], bool]) -> dict[str, Fault]:
    def describe(connection: Any, table: Table) -> Any:
        facts = connection.describe(table)
        if not visible(connection, facts):
            raise UnknownTable("it is not seen")
        return facts

    return {"describe": describe}


def never_unknown(connection: Any, table: Table) -> Any:
    try:
        return connection.describe(table)
    except UnknownTable:
        return TableFacts(table, ())


def interrupted_late() -> dict[str, Fault]:
    """An interrupt between two calls hits the next."""
    hit = threading.Event()

    def execute(connection: Any, sql: str, parameters: Any) -> Any:
        if hit.is_set():
            hit.clear()
            raise Cancelled("interrupted")
        return connection.execute(sql, parameters)

    return {"interrupt": lambda _: hit.set(), "execute": execute}


def spoilt_by_an_interrupt(spoil: Callable[[Any], object]) -> dict[str, Fault]:
    """An interrupted catalog call takes something with it."""
    hit = threading.Event()

    def tables(connection: Any) -> Any:
        if hit.wait(0.1):
            spoil(connection)
            raise Cancelled("interrupted")
        return connection.tables()

    return {"interrupt": lambda _: hit.set(), "tables": tables}


def interrupting_all() -> dict[str, Fault]:
    made: list[Any] = []

    def connect(database: Any) -> Any:
        made.append(database.connect())
        return made[-1]

    return {"connect": connect, "interrupt": lambda _: [each.interrupt() for each in made]}


def one_at_a_time() -> dict[str, Fault]:
    lock = threading.Lock()

    def execute(connection: Any, sql: str, parameters: Any) -> Any:
        with lock:
            return connection.execute(sql, parameters)

    return {"execute": execute}


def slowly(connection: Any) -> None:
    threading.Event().wait(0.6)
    connection.interrupt()


def quarrelsome(_: Any) -> None:
    raise RuntimeError("there is nobody")


def revealing(driver: Any, properties: dict[str, str], read_only: bool) -> Any:
    try:
        return driver.open(properties, read_only=read_only)
    except InvalidParams as exc:
        raise InvalidParams(f"{exc}: {properties}") from exc


def careless(driver: Any, properties: dict[str, str], read_only: bool) -> Any:
    known = {"database": properties["database"]}
    return driver.open(known, read_only=read_only)


def telling(change: Callable[[Any], Any]) -> Fault:
    """What was written goes through *change*."""

    def take_written(connection: Any) -> Any:
        touched = connection.take_written()
        return touched if touched is None else change(touched)

    return take_written


def forgetting_transactions() -> dict[str, Fault]:
    """What was written is told by its statement, or never."""
    last = [""]

    def execute(connection: Any, sql: str, parameters: Any) -> Any:
        last[0] = sql
        return connection.execute(sql, parameters)

    def take_written(connection: Any) -> Any:
        touched = connection.take_written()
        return frozenset() if last[0] == "commit" else touched

    return {"execute": execute, "take_written": take_written}


def running_it(connection: Any, sql: str) -> None:
    if sql.startswith("insert"):
        connection.execute(sql)


def of_every_call(connection: Any) -> int:
    """There is a change whenever somebody asks."""
    connection.changes += 1
    return int(connection.changes)


def reading_views(_: Any, sql: str) -> Touched:
    """Views are taken for tables."""
    words = sql.replace('"', " ").split()
    return frozenset(word for word in words if word.endswith(("seen", "far")))


# For each check a fault that it must find, and words of its complaint.
FAULTS: dict[str, tuple[dict[str, Fault], str]] = {
    "rows-come-in-pages": (
        {"fetch": lambda result, limit: result.fetch(limit + 1)},
        r"page sizes of 250 rows: expected \[100, 100, 50, 0, 0\], found \[101, 101, 48, 0, 0\]",
    ),
    "text-comes-in-the-same-pages": (
        {"fetch": lambda result, limit: result.fetch(limit + 1)},
        r"page sizes: expected \[10, 10, 5, 0\], found \[11, 11, 3, 0\]",
    ),
    "the-next-statement-closes-the-result": (
        {"fetch": quietly},
        r"fetch from the result before: expected QueryError, but there was no error: \[\]",
    ),
    "a-closed-result-gives-no-rows": (
        {"streaming": lambda _: True},
        r"streaming is still true after close\(\)",
    ),
    "a-failed-result-does-not-look-ended": ({"fetch": quietly}, "rows that end in an error"),
    "large-results-are-whole": ({"fetch": without(7777)}, r'expected {"n":"7777"}, found'),
    "wide-rows-are-whole": (
        {
            "result_columns": lambda names: names[:255],
            "fetch": lambda result, limit: [row[:255] for row in result.fetch(limit)],
        },
        "values: expected",
    ),
    "first-rows-do-not-wait-for-the-last": (
        {"execute": lambda connection, *arguments: ReadAhead(connection.execute(*arguments))},
        "reads all before it gives one",
    ),
    "closing-early-does-not-wait": ({"finish": drained}, r"close\(\) had not ended"),
    "duplicate-names-are-made-distinct": (
        {"result_columns": lambda names: [name[:1] for name in names]},
        r"expected \['a', 'a_1'\], found \['a', 'a'\]",
    ),
    "column-names-are-kept": (
        {"result_columns": lambda names: [name.lower() for name in names]},
        "found .*'mixed'",
    ),
    "a-statement-without-rows-counts": ({"count": lambda _: -1}, "count: expected 3, found -1"),
    "ddl-counts-nothing": (
        {"count": lambda result: result.count or -1},
        "count: expected 0, found -1",
    ),
    "update-and-delete-count": (
        {"count": lambda result: result.count or -1},
        "count of update .* > 1000: expected 0, found -1",
    ),
    "returning-gives-rows": (
        {"count": lambda result: abs(result.count)},
        "count: expected -1, found 1",
    ),
    "all-statements-run": (
        {"execute": rewritten(lambda sql: sql.rpartition(";")[2])},
        r"tables: expected \['one', 'two'\], found \[\]",
    ),
    "no-statement-is-an-error": (
        {"execute": rewritten(lambda sql: sql.strip(" \n;") or "select 1")},
        "'': expected QueryError, but there was no error",
    ),
    "ends-of-statements-do-no-harm": (
        {"execute": rewritten(lambda sql: f"select * from ({sql}) limit 2")},
        "QueryError",
    ),
    "semicolons-are-seen-through": ({"execute": split_badly}, "QueryError"),
    "errors-name-the-statement": ({"execute": numberless}, "must have the words 'statement 2 of 3"),
    "parameters-by-position": (
        {"execute": bound(lambda sql, values: (sql, [value or None for value in values]))},
        r"what \[''\] came to: expected \[''\], found \[None\]",
    ),
    "parameters-belong-to-the-last-statement": (
        {"execute": bound(lambda sql, values: (sql, None if ";" in sql else values))},
        "QueryError",
    ),
    "parameters-are-no-sql": ({"execute": bound(pasted)}, "QueryError"),
    "odd-parameters-do-not-break": (
        {"execute": failing_with(DatabaseUnavailable, "?")},
        "as a parameter: expected QueryError, found DatabaseUnavailable",
    ),
    "marks-in-strings-are-no-parameters": ({"execute": bound(pasted)}, "QueryError|the row"),
    "wrong-parameters-are-errors": (
        {"execute": bound(lambda sql, values: (sql, [*values, None][: sql.count("?")]))},
        "too few: expected QueryError, but there was no error",
    ),
    "parameters-by-name": (
        {"execute": bound(lambda sql, values: (sql, list(values)))},
        r"what {'x': 42} came to: expected \['42'\], found",
    ),
    "marks-in-strings-are-no-named-parameters": ({"execute": bound(pasted)}, "QueryError|the row"),
    "wrong-names-are-errors": (
        {"execute": bound(lambda sql, _: (sql, {"x": None}))},
        "a missing name: expected QueryError, but there was no error",
    ),
    "errors-leave-the-connection-usable": (
        {"execute": broken_after_an_error()},
        "cannot be used after an error: the connection is in disorder",
    ),
    "errors-of-the-data-are-query-errors": (
        {"execute": failing_with(DatabaseError, "NOT NULL")},
        "NULL into NOT NULL: expected QueryError, found DatabaseError",
    ),
    "positions-point-at-the-place": ({"execute": positioned}, "expected 18, found 1"),
    "broken-unicode-is-an-error": (
        {"execute": failing_with(ValueError, "\ud800")},
        r"not a NotebookError, but ValueError\(.*test_checks.py, line \d+",
    ),
    "null-characters-do-not-break": (
        {"execute": rewritten(lambda sql: sql.partition("\0")[0])},
        "a null character: expected QueryError, but there was no error",
    ),
    "nulls": (
        {"fetch": mapped(lambda value: "NULL" if value is None else value)},
        "null as bigint: expected None, found 'NULL'",
    ),
    "texts": (
        {"fetch": mapped(lambda value: value[:65535] if isinstance(value, str) else value)},
        "as text: expected .* characters",
    ),
    "empty-text": (
        {"fetch": mapped(lambda value: None if value == "" else value)},
        "'' as text: expected '', found None",
    ),
    "integers": ({"fetch": mapped(float)}, "expected '0', found '0.0'"),
    "decimals": ({}, "expected '1234567890123456789012345678.0123456789', found '1.23456"),
    "floats": ({"fetch": mapped(lambda value: round(value, 3))}, "1e-7 .* found '0.0'"),
    "special-floats": ({"fetch": mapped(str)}, "expected 'Infinity', found 'inf'"),
    "booleans": ({}, "true as boolean: expected 'true', found '1'"),
    "byte-strings": ({"fetch": mapped(bytes.hex)}, r"expected '\\\\x00ff61', found '00ff61'"),
    "dates": (
        {"fetch": mapped(lambda value: value.replace("-", "/"))},
        "expected '2026-02-28', found '2026/02/28'",
    ),
    "times": ({"fetch": mapped(lambda value: value[:5])}, "expected '23:59:58', found '23:59'"),
    "timestamps": (
        {"fetch": mapped(lambda value: value[:19])},
        "expected '2026-02-28T01:02:03.000004', found '2026-02-28T01:02:03'",
    ),
    "autocommit-is-the-rule": ({"execute": begins_by_itself}, "expected .*NONE.*, found .*OPEN"),
    "a-transaction-is-hidden-until-commit": (
        {"execute": rewritten(lambda sql: sql.replace("begin", "select 1"))},
        r"before COMMIT another connection sees so many rows: expected \[0\], found \[3\]",
    ),
    "rollback-undoes": (
        {"execute": rewritten(lambda sql: sql.replace("rollback", "commit"))},
        r"after ROLLBACK it sees so many rows: expected \[3\], found \[0\]",
    ),
    "rollback-tells-whether": (
        {"rollback": lambda connection: connection.rollback() or True},
        r"rollback\(\) without a transaction: expected False, found True",
    ),
    "closing-rolls-back": ({"close": committed_on_close}, r"expected \[0\], found \[3\]"),
    "the-state-of-the-transaction-is-told": (
        {"transaction": lambda _: Transaction.NONE},
        "transaction after 'begin': expected .*OPEN",
    ),
    "a-commit-is-true-or-an-error": (
        {"execute": undoes_a_commit},
        r"after COMMIT was no error it sees so many rows: expected \[3\], found \[0\]",
    ),
    "a-failed-statement-tells-the-state": (
        {"transaction": lambda _: Transaction.FAILED},
        "whether the next statement runs, where transaction is FAILED: expected False, found True",
    ),
    "an-interrupted-statement-tells-the-state": (
        {"transaction": lambda _: Transaction.NONE},
        r"rollback\(\): expected False, found True",
    ),
    "ddl-is-rolled-back": (
        {"rollback": commits},
        r"tables after rollback\(\): expected \[\], found \['made'\]",
    ),
    "uncommitted-tables-are-in-the-catalog": (
        {"tables": lambda c: [] if c.transaction is Transaction.OPEN else c.tables()},
        r"tables: expected \['new'\], found \[\]",
    ),
    "tables-have-their-columns": (
        {"columns": lambda connection, *names: sorted(connection.columns(*names))},
        "columns.*: expected .*'zz'.*'aa'.* found .*'aa'.*'zz'",
    ),
    "names-that-do-not-exist-have-no-columns": (
        {"columns": lambda connection, _, schema, table: connection.columns("", schema, table)},
        r"columns\(.*: expected \[\], found \[Column",
    ),
    "dropped-tables-are-gone": ({"tables": remembered()}, r"expected \[\], found \['made'\]"),
    "others-tables-are-seen": ({"tables": remembered()}, r"expected \['made'\], found \[\]"),
    "odd-names-are-kept": (
        {"tables": renamed(lambda at: Table(at.catalog, at.schema, at.table.lower()))},
        "found .*'mixed'",
    ),
    "names-are-no-patterns": ({"columns": of_pattern}, "asked for as a_b: expected .*axb"),
    "names-work-in-sql": (
        {"tables": renamed(lambda at: Table(at.catalog, "public", at.table))},
        "no such table: public",
    ),
    "views-are-no-tables": (
        {"tables": lambda connection: sorted(connection.tables() + connection.views())},
        r"tables: expected \['made'\], found \['made', 'seen'\]",
    ),
    "temporary-tables-are-private": (
        {"execute": rewritten(lambda sql: sql.replace("temporary", ""))},
        r"tables of another connection: expected \[\], found \['passing'\]",
    ),
    "temporary-tables-are-seen-beside-a-result": (
        {"tables": lambda c: [table for table in c.tables() if table.schema != "temp"]},
        r"tables: expected \['passing'\], found \[\]",
    ),
    "the-catalog-leaves-a-result-alone": (
        {"tables": closing_the_result},
        "QueryError: the result is closed",
    ),
    "columns-are-described": (
        described(lambda facts: {"columns": facts.columns[::-1]}),
        "columns: expected .*'zz'.*'aa'.* found .*'aa'.*'zz'",
    ),
    "nulls-and-defaults-are-described": (
        of_columns(lambda _: {"nullable": True}),
        r"nullable: expected \[False, True, True\], found \[True, True, True\]",
    ),
    "views-are-described": (
        described(lambda _: {"is_view": False}),
        "is_view: expected True, found False",
    ),
    "tables-that-do-not-exist-are-unknown": (
        {"describe": never_unknown},
        r"describe\('', '', ''\) found something",
    ),
    "tables-are-described-under-any-name": (
        {"written": lambda _, table: table.table},
        "no such table: nbrpc_",
    ),
    "descriptions-are-never-old": (
        described_once(),
        r"after ALTER TABLE: expected \['id', 'b'\], found \['id'\]",
    ),
    "descriptions-are-of-the-own-transaction": (
        describing_only(lambda connection, _: connection.transaction is Transaction.NONE),
        "UnknownTable: it is not seen",
    ),
    "temporary-tables-are-described": (
        describing_only(lambda _, facts: facts.table.schema != "temp"),
        "UnknownTable: it is not seen",
    ),
    "schemas-and-databases-are-listed": (
        {"schemas": lambda _: []},
        r"'main' is not among schemas: \[\]",
    ),
    "keys-are-described": (
        of_constraints(lambda each: {"columns": sorted(each.columns)}),
        r"primary key: expected \['b', 'a'\], found \['a', 'b'\]",
    ),
    "checks-are-described": (
        of_constraints(lambda _: {"columns": ["a", "b", "c"]}),
        r"expected \['a', 'c'\], found \['a', 'b', 'c'\]",
    ),
    "create-statements-make-the-table-again": (
        described(lambda facts: {"create_stmt": facts.create_stmt.replace(" default 1", "")}),
        "default=None",
    ),
    "interrupts-stop-a-statement": (
        {"execute": failing_if_cancelled},
        "an interrupted call: expected Cancelled, found QueryError: ",
    ),
    "interrupts-stop-a-fetch": (
        {"fetch": cut_short},
        r"an interrupted call: expected Cancelled, found \[",
    ),
    "interrupts-are-felt-soon": ({"interrupt": slowly}, r"interrupt number 1 took \d\.\d s"),
    "interrupts-between-calls-do-nothing": (interrupted_late(), "Cancelled: interrupted"),
    "interrupts-after-the-end-do-nothing": (
        {"interrupt": quarrelsome},
        r"interrupt\(\) must not raise, but did: RuntimeError\('there is nobody'\)",
    ),
    "interrupts-spare-other-connections": (
        interrupting_all(),
        "the interrupt of another connection has stopped it",
    ),
    "interrupts-may-come-at-any-time": (
        {"interrupt": quarrelsome},
        r"interrupt\(\) must not raise",
    ),
    "interrupted-catalog-calls-spare-a-transaction": (
        spoilt_by_an_interrupt(lambda connection: connection.rollback()),
        "QueryError: cannot commit",
    ),
    "interrupted-catalog-calls-spare-a-result": (
        spoilt_by_an_interrupt(lambda connection: connection.execute("select 1")),
        "QueryError: the result is closed",
    ),
    "progress-is-a-fraction": ({"progress": lambda _: 50.0}, r"progress was \[50.0"),
    "connections-do-not-wait-for-each-other": (
        one_at_a_time(),
        "calls of another connection had to wait",
    ),
    "read-only-is-enforced": (
        {"open": lambda driver, properties, _: driver.open(properties)},
        "expected NotebookError, but there was no error",
    ),
    "read-only-connections-are-enforced": (
        {"connect_read_only": lambda database: database.connect()},
        "expected NotebookError, but there was no error",
    ),
    "unknown-properties-are-named": (
        {"open": careless},
        "the property colour: expected InvalidParams, but there was no error",
    ),
    "the-description-is-for-people": ({"description": lambda _: " "}, "it is empty"),
    "passwords-are-never-shown": ({"open": revealing}, r"the password is in: .*\*\*\*\*\*"),
    "written-tables-are-told": (
        {"take_written": telling(lambda touched: {name.upper() for name in touched})},
        r"insert into .*: frozenset\(.*made'}\) is read, and .*MADE'} was written",
    ),
    "all-statements-of-a-call-are-told": (
        {"take_written": telling(lambda touched: set(sorted(touched)[-1:]))},
        "insert into .*one.* is read, and .*two.* was written",
    ),
    "writes-are-told-when-they-are-committed": (
        forgetting_transactions(),
        r"the commit of insert into .* is read, and frozenset\(\) was written",
    ),
    "tables-behind-views-are-read": (
        {"reads": reading_views},
        "insert into .* is read, and .* was written",
    ),
    "new-tables-may-change-anything": (
        {"take_written": lambda connection: connection.take_written() or frozenset()},
        r"written by CREATE TABLE: expected None, found frozenset\(\)",
    ),
    "queries-write-nothing": (
        {"changes": of_every_call},
        "changes by select .*: expected 0, found 1",
    ),
    "asking-what-is-read-runs-nothing": (
        {"reads": running_it},
        r"rows: expected \[0\], found \[3\]",
    ),
    "what-writes-is-not-brief": ({"brief": lambda *_: True}, "harmless: insert into"),
    "what-is-brief-may-be-run-twice": (
        {"brief": lambda *_: True},
        "a query is brief in a transaction",
    ),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What must fail for taking too long shall not take long here."""
    monkeypatch.setattr(subject, "PATIENCE", 0.4)
    monkeypatch.setattr(_interrupts, "PATIENCE", 0.4)
    monkeypatch.setattr(_interrupts, "LATEST", 0.6)
    monkeypatch.setattr(calls, "STUBBORN", 1.0)


def test_there_is_a_fault_for_every_check() -> None:
    assert FAULTS.keys() == BY_NAME.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_check_finds_its_fault(tmp_path: Path, name: str) -> None:
    faults, complaint = FAULTS[name]
    properties = {"database": str(tmp_path / "a.sqlite")}
    finding = run(BY_NAME[name], Driver(**faults), properties, ALL)
    assert finding.verdict is Verdict.FAILED
    assert re.search(complaint, finding.message, re.DOTALL), finding.message


def failed(tmp_path: Path, driver: Driver, dialect: Dialect = ALL) -> Sequence[str]:
    properties = {"database": str(tmp_path / "a.sqlite")}
    findings = [run(check, driver, properties, dialect) for check in CHECKS]
    return [each.check.name for each in findings if each.verdict is Verdict.FAILED]


def test_a_driver_that_is_whole_passes_them_all(tmp_path: Path) -> None:
    assert failed(tmp_path, Driver(), DIALECTS["sqlite"]) == []


@pytest.mark.parametrize(
    ("faults", "checks"),
    [
        ({"close": committed_on_close}, ["closing-rolls-back", "ddl-is-rolled-back"]),
        ({"columns": of_pattern}, ["names-are-no-patterns"]),
    ],
)
def test_only_the_right_checks_find_it(
    tmp_path: Path, faults: dict[str, Fault], checks: list[str]
) -> None:
    assert failed(tmp_path, Driver(**faults), DIALECTS["sqlite"]) == checks


def test_not_supported_is_no_failure_of_read_only(tmp_path: Path) -> None:
    def refusing(driver: Any, properties: dict[str, str], read_only: bool) -> Any:
        if read_only:
            raise NotSupported("nothing would enforce it")
        return driver.open(properties)

    properties = {"database": str(tmp_path / "a.sqlite")}
    finding = run(BY_NAME["read-only-is-enforced"], Driver(open=refusing), properties, ALL)
    assert finding.verdict is Verdict.SKIPPED
    assert finding.message == "read-only is not supported: nothing would enforce it"


def test_without_interrupts_nothing_is_begun_that_would_not_end(tmp_path: Path) -> None:
    class Uninterruptible(Driver):
        def open(self, properties: Any, /, *, read_only: bool = False) -> Any:
            database = super().open(properties, read_only=read_only)
            database.connection_type = OfNoInterrupt
            return database

    properties = {"database": str(tmp_path / "a.sqlite")}
    found = {check.name: run(check, Uninterruptible(), properties, ALL) for check in CHECKS}
    unchecked = [name for name, each in found.items() if each.verdict is Verdict.UNCHECKED]
    assert unchecked == [
        "first-rows-do-not-wait-for-the-last",
        "closing-early-does-not-wait",
        "an-interrupted-statement-tells-the-state",
        "connections-do-not-wait-for-each-other",
    ]
    cancelling = [each for each in found.values() if each.check.capability == "cancelling"]
    assert {(each.verdict, each.message) for each in cancelling} == {
        (Verdict.SKIPPED, "the driver cannot interrupt a call")
    }
