"""What a check has in its hands: a database, its dialect, and objects of its own in it.

The database may be full of somebody's tables. So a subject makes only objects whose names begin
with ``PREFIX`` and random letters, remembers them before they are made, and drops them at the
end, whatever came between. It never looks for an empty database and never needs one.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from notebook_rpc.conformance.calls import STUBBORN, Call, Turns
from notebook_rpc.conformance.outcomes import (
    Failed,
    Skipped,
    Unchecked,
    expect,
    expect_equal,
    needs,
)
from notebook_rpc.driver import SupportsInterrupt, SupportsText
from notebook_rpc.errors import Cancelled, DatabaseError, NotebookError
from notebook_rpc.sansio.values import TextRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from notebook_rpc.conformance.dialect import Dialect
    from notebook_rpc.driver import Connection, Database, Driver
    from notebook_rpc.model import Parameters, Result, Table

T = TypeVar("T")

PREFIX: Final = "nbrpc_"
PATIENCE: Final = 5.0  # seconds for what ought to come at once, on a machine that is busy
PAGE: Final = 10_000


def rest(result: Result[T]) -> list[T]:
    """All rows still to come."""
    rows: list[T] = []
    while page := result.fetch(PAGE):
        rows += page
    return rows


def values(connection: Connection, sql: str, parameters: Parameters | None = None) -> list[object]:
    """The values of the one column of all rows; the result is closed."""
    result = connection.execute(sql, parameters)
    found = [value for (value,) in rest(result)]
    result.close()
    return found


def ways(connection: Connection) -> Iterator[Callable[..., Result[str]]]:
    """What executes and gives rows as text: by us, and by the database if it offers to."""
    yield lambda sql, parameters=None: TextRows(connection.execute(sql, parameters))
    if isinstance(connection, SupportsText):
        yield connection.execute_text


@dataclass
class Subject:
    """A database opened for one check, and what the check has made in it."""

    driver: Driver
    properties: Mapping[str, str]
    dialect: Dialect
    prefix: str = field(default_factory=lambda: f"{PREFIX}{secrets.token_hex(4)}_")
    connections: list[Connection] = field(default_factory=list)
    left_behind: bool = False  # a call that cannot be stopped
    _database: Database | None = None
    _drops: list[str] = field(default_factory=list)

    @property
    def database(self) -> Database:
        if self._database is None:
            self._database = self.driver.open(self.properties)
        return self._database

    def connect(self) -> Connection:
        self.connections.append(self.database.connect())
        return self.connections[-1]

    def close_one(self, connection: Connection) -> None:
        """Close it; if that takes long, for whatever it still does, by force."""
        self.connections.remove(connection)
        if not isinstance(connection, SupportsInterrupt):
            connection.close()
            return
        try:
            self.interrupted(connection, connection.close, PATIENCE)
        except Cancelled:
            connection.close()

    def reopen(self, *, read_only: bool) -> Connection:
        """Close everything, keep the objects, and open the database again."""
        for connection in self.connections.copy():
            self.close_one(connection)
        self._close_database()
        self._database = self.driver.open(self.properties, read_only=read_only)
        return self.connect()

    # Objects of our own. Names are given without the prefix, and put into SQL with it.

    def name(self, name: str) -> str:
        return self.prefix + name

    def quoted(self, name: str) -> str:
        return self.dialect.quoted(self.prefix + name)

    def own(self, tables: Sequence[Table]) -> list[str]:
        """Which of *tables* are of our making, without the prefix."""
        names = (table.table for table in tables)
        return [name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)]

    def creation(self, name: str = "made", columns: str | None = None) -> str:
        """SQL that creates a table, which will be dropped; by default of an integer ``id``."""
        if self.dialect.drop is not None:
            self._drops.append(self.dialect.drop.format(table=self.quoted(name)))
        columns = columns or f"id {self.dialect.declared[0]}"
        return self.dialect.create.format(table=self.quoted(name), columns=columns)

    def create(self, connection: Connection, name: str = "made", columns: str | None = None) -> str:
        """Create a table; its name as SQL writes it."""
        connection.execute(self.creation(name, columns)).close()
        return self.quoted(name)

    def create_temporary(self, connection: Connection, name: str = "passing") -> None:
        sql = needs(self.dialect.temporary)
        columns = f"id {self.dialect.declared[0]}"
        connection.execute(sql.format(table=self.quoted(name), columns=columns)).close()

    def create_view(self, connection: Connection, name: str, query: str) -> None:
        sql = needs(self.dialect.view)
        self._drops.append(self.dialect.drop_view.format(view=self.quoted(name)))
        connection.execute(sql.format(view=self.quoted(name), query=query)).close()

    # SQL.

    def sql_only(self) -> None:
        """For checks that write SQL of their own."""
        if not self.dialect.sql:
            raise Skipped("the database understands no SQL")

    def rows(self, number: int) -> str:
        return self.dialect.rows.format(n=number)

    def touch(self, name: str = "made") -> str:
        return self.dialect.touch.format(table=self.quoted(name))

    def expect_usable(self, connection: Connection, after: str) -> None:
        try:
            found = values(connection, self.rows(3))
        except NotebookError as exc:
            raise Failed(f"the connection cannot be used after {after}: {exc}") from exc
        expect_equal(f"rows after {after}", found, [1, 2, 3])

    # Calls that may hang.

    @contextmanager
    def running(self, connection: Connection, work: Callable[[], T]) -> Iterator[Call[T]]:
        """Do *work* with *connection* beside the block; then interrupt it until it stops."""
        if not isinstance(connection, SupportsInterrupt):
            raise Unchecked("Not checked, as nobody could stop a statement that does not end")
        turns = Turns(connection)
        call = Call(lambda: turns.call(work))
        try:
            yield call
        finally:
            stopped = turns.interrupt_until(call)
            self.left_behind |= not stopped
        expect(stopped, f"a call goes on although it was interrupted for {STUBBORN:g} s")

    def interrupted(self, connection: Connection, work: Callable[[], Any], after: float) -> Any:
        """Interrupt *work*, unless it has ended after so many seconds, until it stops."""
        with self.running(connection, work) as call:
            call.ended(after)
        return call.outcome()

    def promptly(self, connection: Connection, work: Callable[[], T], complaint: str) -> T:
        """What *work* gives, which must take no time to speak of; *complaint* may have ``{}``
        where the number of seconds goes."""
        with self.running(connection, work) as call:
            in_time = call.ended(PATIENCE)
        expect(in_time, complaint.format(f"{PATIENCE:g}"))
        return call.outcome()

    # The end.

    def close(self) -> None:
        """Close the connections, drop what was made, close the database.

        Unless a call is left behind: then anything may wait for it.
        """
        if self.left_behind:
            return
        with ExitStack() as stack:  # all of it, also after failures
            stack.callback(self._end)
            for connection in self.connections.copy():
                stack.callback(self.close_one, connection)

    def successor(self) -> Subject:
        """One that cleans up what this one has left behind, over connections of its own."""
        after = Subject(self.driver, self.properties, self.dialect, self.prefix)
        after._drops = self._drops.copy()  # its own class
        return after

    def _end(self) -> None:
        if self.left_behind:
            return
        try:
            self._sweep()
        finally:
            self._close_database()

    def _close_database(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _sweep(self) -> None:
        """Drop what was made, and make sure that it is gone."""
        if not self._drops:
            return
        connection = self.database.connect()
        try:
            complaints = []
            for drop in reversed(self._drops):  # a view goes before its table
                try:
                    connection.execute(drop).close()
                except DatabaseError as exc:  # most were never made, or have been undone
                    complaints.append(str(exc))
            left = self.own([*connection.tables(), *connection.views()])
            names = ", ".join(self.prefix + name for name in left)
            expect(not left, f"left behind in the database: {names} ({'; '.join(complaints)})")
        finally:
            connection.close()
