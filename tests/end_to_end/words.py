"""A few words of SQL, and how three databases say them.

For the machine of test_machine.py: what a statement means is model.py's to know; here is how it
is spelled, and in what the databases differ. It runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Place: TypeAlias = "tuple[str, str, str]"  # catalog, schema, table

OWN = ("kept", "other")  # tables of a session's own
BRIEF = "brief"  # and a temporary one
SHARED = "shared"  # everybody's


@dataclass(frozen=True)
class Statement:
    long = False  # in some state it does not end before it is interrupted
    writes = False


@dataclass(frozen=True)
class Series(Statement):
    """Rows of numbers; the first column counts from 1, the next one from 2."""

    rows: int
    names: tuple[str, ...] = ("n",)


@dataclass(frozen=True)
class FailingAfter(Series):
    """So many rows, then an error."""


@dataclass(frozen=True)
class EndlessAfter(Series):
    """So many rows, then nothing, for ever."""

    long = True


@dataclass(frozen=True)
class FailingOnClose(Series):
    """It is ``finish`` that fails."""


@dataclass(frozen=True)
class EndlessOnClose(Series):
    """It is ``finish`` that does not end."""

    long = True


@dataclass(frozen=True)
class Endless(Statement):
    long = True


@dataclass(frozen=True)
class Echo(Statement):
    """The bound parameters, by position or by name."""

    values: tuple[int | str | None, ...]
    names: tuple[str, ...] = ()

    @property
    def parameters(self) -> list[object] | dict[str, object]:
        if not self.names:
            return list(self.values)
        return dict(zip(self.names, self.values, strict=True))


@dataclass(frozen=True)
class Big(Statement):
    """One row with a text of so many characters."""

    length: int


@dataclass(frozen=True)
class Touch(Statement):
    """Says that it touched so many rows."""

    rows: int


@dataclass(frozen=True)
class OfTable(Statement):
    table: str


@dataclass(frozen=True)
class Select(OfTable):
    pass


@dataclass(frozen=True)
class Create(OfTable):
    writes = True


@dataclass(frozen=True)
class Drop(OfTable):
    writes = True


@dataclass(frozen=True)
class Insert(OfTable):
    """The numbers from 1 to *rows*."""

    rows: int
    writes = True


@dataclass(frozen=True)
class Delete(OfTable):
    """The numbers up to *last*."""

    last: int
    writes = True


@dataclass(frozen=True)
class Begin(Statement):
    writes = True


@dataclass(frozen=True)
class Commit(Statement):
    pass


@dataclass(frozen=True)
class Rollback(Statement):
    pass


@dataclass(frozen=True)
class Unknown(Statement):
    """Asks for what there is not."""


@dataclass(frozen=True)
class Failing(Statement):
    """Fails while it runs."""


@dataclass(frozen=True)
class Leave(Statement):
    """Breaks the connection."""


def named(table: str, slot: int) -> str:
    return SHARED if table == SHARED else f"{table}_{slot}"


@dataclass(frozen=True)
class Dialect:
    """``column`` is one of a Series; ``parameter`` one of an Echo, by position and by name;
    ``types`` those of the columns of a Series, an Echo and a Select, and of a table in the
    catalog; ``places`` the catalog and schema of tables, lasting and temporary."""

    texts: dict[type[Statement], str]
    column: str
    parameter: tuple[str, str]
    types: tuple[str, str, str, str]
    places: tuple[tuple[str, str], tuple[str, str]]
    tables: frozenset[Place] = frozenset()  # that are always there
    views: frozenset[Place] = frozenset()
    separator: str = ", "
    lax: bool = False  # CREATE replaces; BEGIN, COMMIT and ROLLBACK may come at any time
    errors_spoil: bool = False  # an error in a transaction fails all of it
    one_writer: bool = False  # a transaction keeps all others from writing
    long_calls: int = 2  # at a time: each takes a core

    def nearest(self, statement: Statement) -> Statement:
        """What comes nearest to *statement* of what this database can do."""
        if type(statement) in self.texts:
            return statement
        match statement:
            case Insert(rows=rows) | Delete(last=rows):
                return Touch(rows)
            case Select():
                return Series(3)
            case EndlessOnClose():
                return Endless()
            case FailingAfter() | FailingOnClose():
                return Failing()
        return Unknown()

    def text(self, statement: Statement, slot: int) -> str:
        facts = dict(vars(statement))
        columns: list[str] = []
        match statement:
            case OfTable(table=table):
                facts["temp"] = "temp " if table == BRIEF else ""
                facts["table"] = named(table, slot)
            case Series(names=names):
                columns = [self.column.format(n=n, name=name) for n, name in enumerate(names)]
            case Echo(values=values, names=names):
                one = self.parameter[bool(names)]
                columns = [one.format(name=name) for name in names or range(1, len(values) + 1)]
        return self.texts[type(statement)].format(columns=self.separator.join(columns), **facts)

    def place(self, table: str, slot: int) -> Place:
        return (*self.places[table == BRIEF], named(table, slot))


_EVERYWHERE: dict[type[Statement], str] = {
    Create: "create {temp}table {table} (n integer)",
    Begin: "begin",
    Commit: "commit",
    Rollback: "rollback",
}
_IN_SQL: dict[type[Statement], str] = {
    **_EVERYWHERE,
    Echo: "select {columns}",
    Drop: "drop table {table}",
    Delete: "delete from {table} where n <= {last}",
    Select: "select n from {table}",
    Unknown: "select * from no_such_table",
}
_PARAMETER = ('cast(? as varchar) as "{name}"', 'cast(${name} as varchar) as "{name}"')
_COUNTING = "with recursive c(n) as (select 1 union all select n + 1 from c)"
_OVERFLOW = "abs(-9223372036854775808)"

FAKE = Dialect(
    texts={
        **_EVERYWHERE,
        Series: "rows {rows} {columns}",
        FailingAfter: "error after {rows} rows as it was told",
        EndlessAfter: "wait after {rows} rows",
        FailingOnClose: "error on close as it was told",
        EndlessOnClose: "wait on close",
        Endless: "wait",
        Echo: "echo",
        Big: "big {length}",
        Touch: "count {rows}",
        Unknown: "error as it was told",
        Failing: "abort as it was told",
        Leave: "leave",
    },
    column="{name}",
    separator=" ",
    parameter=("", ""),
    types=("INTEGER", "", "", "INTEGER"),
    places=(("fake", "main"), ("fake", "main")),
    tables=frozenset({("fake", "main", "orders"), ("fake", "main", "users")}),
    views=frozenset({("fake", "main", "paid")}),
    lax=True,
    long_calls=4,
)
SQLITE = Dialect(
    texts={
        **_IN_SQL,
        Series: f"{_COUNTING} select {{columns}} from c limit {{rows}}",
        # Python's module reads a row ahead, so here is one more than can be had.
        FailingAfter: f"{_COUNTING} select iif(n <= {{rows}} + 1, n, {_OVERFLOW}) as n from c",
        EndlessAfter: f"{_COUNTING} select n from c where n <= {{rows}} + 1",
        Endless: f"{_COUNTING} select count(*) from c",
        Big: "select printf('%.*c', {length}, 'x') as big",
        Insert: f"insert into {{table}} {_COUNTING} select n from c limit {{rows}}",
        Begin: "begin immediate",  # or it would be the first statement that has to wait
        Failing: f"select {_OVERFLOW}",
    },
    column='n + {n} as "{name}"',
    parameter=_PARAMETER,
    types=("", "", "", "INTEGER"),
    places=(("", "main"), ("", "temp")),
    one_writer=True,
)
DUCKDB = Dialect(
    texts={
        **_IN_SQL,
        Series: "select {columns} from range(1, {rows} + 1) as c(n)",
        EndlessAfter: "select n + 1 as n from range(1000000000000) as c(n)"
        " where n < {rows} or hash(n) % 7 = 9",
        Endless: "select count(*) from range(1000000000000) as c(n) where hash(n) % 7 = 9",
        Big: "select repeat('x', {length}) as big",
        Insert: "insert into {table} select n from range(1, {rows} + 1) as c(n)",
        Failing: "select error('as it was told')",
    },
    column='n + {n} as "{name}"',
    parameter=_PARAMETER,
    types=("BIGINT", "VARCHAR", "INTEGER", "INTEGER"),
    places=(("machine", "main"), ("temp", "main")),
    errors_spoil=True,
)
