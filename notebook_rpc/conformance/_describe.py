"""Checks of what is told of a table: its columns, keys and conditions, as they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from notebook_rpc.conformance.outcomes import Failed, Skipped, expect, expect_equal, needs
from notebook_rpc.conformance.subject import rest, values
from notebook_rpc.driver import Connection, SupportsDescribe
from notebook_rpc.errors import UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.schema import ConstraintKind

if TYPE_CHECKING:
    from notebook_rpc.conformance.subject import Subject
    from notebook_rpc.schema import Constraint, TableFacts


class _Describing(SupportsDescribe, Connection, Protocol):
    """A connection that does."""


def columns_are_described(subject: Subject) -> None:
    """Columns come in table order, with the types that `columns` gives."""
    connection = _connect(subject)
    integer, text = subject.dialect.declared
    subject.create(connection, columns=f"zz {integer}, aa {text}")
    facts = _describe(subject, connection)
    expect_equal("the name", facts.table.table, subject.name("made"))
    place = (facts.table.catalog, facts.table.schema, facts.table.table)
    listed = [(column.column, column.datatype) for column in connection.columns(*place)]
    expect_equal("columns", [(column.name, column.datatype) for column in facts.columns], listed)
    expect_equal("names", [column.name for column in facts.columns], ["zz", "aa"])
    expect_equal("is_view", facts.is_view, False)


def nulls_and_defaults_are_described(subject: Subject) -> None:
    """NOT NULL and DEFAULT are told of the columns that have them."""
    subject.sql_only()
    connection, (integer, _) = _connect(subject), subject.dialect.declared
    subject.create(connection, columns=f"a {integer} not null, b {integer} default 70, c {integer}")
    columns = _describe(subject, connection).columns
    expect_equal("nullable", [column.nullable for column in columns], [False, True, True])
    first, second, third = (column.default for column in columns)
    expect_equal("defaults of those that have none", (first, third), (None, None))
    expect("70" in (second or ""), f"the default is 70, but was told as {second!r}")


def keys_are_described(subject: Subject) -> None:
    """Primary, unique and foreign keys have their columns in the order of the key."""
    subject.sql_only()
    connection, (integer, _) = _connect(subject), subject.dialect.declared
    needed = f"a {integer} not null, b {integer} not null"
    one = subject.create(connection, "one", f"{needed}, primary key (b, a)")
    columns = f"{needed}, c {integer}, unique (c, a), foreign key (a, b) references {one} (b, a)"
    subject.create(connection, "two", columns)
    facts = _describe(subject, connection, "one")
    expect_equal("primary key", list(facts.primary_key), ["b", "a"])
    facts = _describe(subject, connection, "two")
    expect_equal("primary key of a table without", list(facts.primary_key), [])
    unique = _only(facts, ConstraintKind.UNIQUE)
    expect_equal("columns of the unique key", list(unique.columns), ["c", "a"])
    foreign = _only(facts, ConstraintKind.FOREIGN_KEY)
    expect_equal("columns of the foreign key", list(foreign.columns), ["a", "b"])
    expect_equal("columns that it references", list(foreign.referenced), ["b", "a"])
    if foreign.references is None:
        raise Failed("it is not told which table the foreign key references")
    expect_equal("the table that it references", foreign.references.table, subject.name("one"))
    expect_equal("its schema", foreign.references.schema, facts.table.schema)


def checks_are_described(subject: Subject) -> None:
    """Conditions of CHECK come as SQL, with the columns that they are about."""
    subject.sql_only()
    connection, (integer, _) = _connect(subject), subject.dialect.declared
    columns = f"a {integer}, b {integer}, c {integer}, check (c > 70 or a < c)"
    subject.create(connection, columns=columns)
    check = _only(_describe(subject, connection), ConstraintKind.CHECK)
    expect_equal("columns of the condition", sorted(check.columns), ["a", "c"])
    expect("70" in check.condition, f"the condition is c > 70 or a < c, not {check.condition!r}")
    table, condition = subject.quoted("made"), check.condition
    sql = f"select count(*) from {table} where {condition}"
    expect_equal(sql, [int(str(n)) for n in values(connection, sql)], [0])


def views_are_described(subject: Subject) -> None:
    """A view is told from a table, and has columns."""
    connection = _connect(subject)
    table = subject.create(connection, columns=f"zz {subject.dialect.declared[0]}")
    subject.create_view(connection, "seen", f"select zz, zz as aa from {table}")
    facts = _describe(subject, connection, "seen")
    expect_equal("is_view", facts.is_view, True)
    expect_equal("columns", [column.name for column in facts.columns], ["zz", "aa"])


def tables_that_do_not_exist_are_unknown(subject: Subject) -> None:
    """What does not exist is an UnknownTable, wherever it is looked for."""
    connection = _connect(subject)
    subject.create(connection)
    made = _describe(subject, connection).table
    no = subject.name("no' such\"")
    places = [("", "", ""), ("", "", no), ("", no, made.table), (no, "", made.table), (no, no, no)]
    for place in [*places, (made.catalog, made.schema, no)]:
        try:
            connection.describe(Table(*place))
        except UnknownTable:
            continue
        raise Failed(f"describe{place} found something")


def tables_are_described_under_any_name(subject: Subject) -> None:
    """Quotes, dots, capitals and Unicode in names arrive as they are, and in written names."""
    subject.sql_only()
    connection, quoted = _connect(subject), subject.dialect.quoted
    for name in ("a b", 'quo"te', "apo'st", "MiXed", "x.y", "50%", "\u00e9\u8868", "back`tick"):
        subject.create(connection, name, f"{quoted(name)} {subject.dialect.declared[0]}")
        facts = _describe(subject, connection, name)
        expect_equal("the name", facts.table.table, subject.name(name))
        expect_equal("the column", [column.name for column in facts.columns], [name])
        expect_equal("asked again by all of it", connection.describe(facts.table), facts)
        sql = f"select count(*) from {connection.written(facts.table)}"
        expect_equal(sql, [int(str(n)) for n in values(connection, sql)], [0])


def descriptions_are_never_old(subject: Subject) -> None:
    """What another connection has just changed is told as it is now."""
    subject.sql_only()
    first, second = _connect(subject), _connect(subject)
    table = subject.create(first)
    expect_equal("columns", len(_describe(subject, second).columns), 1)
    first.execute(f"alter table {table} add column b {subject.dialect.declared[0]}").close()
    names = [column.name.lower() for column in _describe(subject, second).columns]
    expect_equal("columns after ALTER TABLE", names, ["id", "b"])


def descriptions_are_of_the_own_transaction(subject: Subject) -> None:
    """A table that is not yet committed is described, also while a result is open."""
    connection = _connect(subject)
    connection.execute(needs(subject.dialect.begin)).close()
    subject.create(connection)
    expect_equal("columns", len(_describe(subject, connection).columns), 1)
    result = connection.execute(subject.rows(100_000))
    expect_equal("rows of fetch(10)", len(result.fetch(10)), 10)
    expect_equal("columns beside a result", len(_describe(subject, connection).columns), 1)
    connection.schemas()
    connection.databases()
    expect_equal("rows left", len(rest(result)), 99_990)
    connection.rollback()


def temporary_tables_are_described(subject: Subject) -> None:
    """A temporary table is described to its connection, beside an open result too, and to no
    other."""
    first, second = _connect(subject), _connect(subject)
    subject.create_temporary(first)
    facts = _describe(subject, first, "passing")
    expect_equal("columns", [column.name.lower() for column in facts.columns], ["id"])
    result = first.execute(subject.rows(100_000))
    expect_equal("rows of fetch(10)", len(result.fetch(10)), 10)
    expect_equal("beside a result", _describe(subject, first, "passing"), facts)
    expect_equal("rows left", len(rest(result)), 99_990)
    try:
        _describe(subject, second, "passing")
    except UnknownTable:
        return
    raise Failed("it is described to another connection")


def create_statements_make_the_table_again(subject: Subject) -> None:
    """Where a CREATE statement is told, it makes the table that was described."""
    subject.sql_only()
    connection, drop = _connect(subject), subject.dialect.drop
    if drop is None:
        raise Skipped("nothing can be dropped")
    integer, text = subject.dialect.declared
    other = subject.create(connection, "other", f"id {integer} not null, primary key (id)")
    columns = (
        f"id {integer} not null, {subject.dialect.quoted('A b')} {text} default 'x',"
        f" c {integer} default 1, primary key (id), check (c > 0),"
        f" foreign key (c) references {other} (id)"
    )
    table = subject.create(connection, columns=columns)
    facts = _describe(subject, connection)
    if not facts.create_stmt:
        raise Skipped("the driver tells no CREATE statement")
    connection.execute(drop.format(table=table)).close()
    connection.execute(facts.create_stmt).close()
    expect_equal(facts.create_stmt, _describe(subject, connection), facts)


def schemas_and_databases_are_listed(subject: Subject) -> None:
    """The schema and the catalog of a table are among `schemas` and `databases`, sorted names."""
    connection = _connect(subject)
    subject.create(connection)
    table = _describe(subject, connection).table
    schemas, databases = list(connection.schemas()), list(connection.databases())
    expect(table.schema in ("", *schemas), f"{table.schema!r} is not among schemas: {schemas}")
    expect(table.catalog in ("", *databases), f"{table.catalog!r} is not among {databases}")
    for found in (schemas, databases):
        expect_equal("names", len(set(found)), len(found))


def _connect(subject: Subject) -> _Describing:
    connection = subject.connect()
    if not isinstance(connection, SupportsDescribe):
        raise Skipped("the driver describes no tables")
    return cast("_Describing", connection)


def _describe(subject: Subject, connection: SupportsDescribe, name: str = "made") -> TableFacts:
    return connection.describe(Table("", "", subject.name(name)))


def _only(facts: TableFacts, kind: ConstraintKind) -> Constraint:
    found = [each for each in facts.constraints if each.kind is kind]
    if len(found) != 1:
        raise Failed(f"there is one {kind.value}, but {len(found)} were told")
    return found[0]
