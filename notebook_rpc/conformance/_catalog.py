"""Checks of the catalog: tables, views and columns, under whatever names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notebook_rpc.conformance.outcomes import Failed, Skipped, expect, expect_equal
from notebook_rpc.conformance.subject import rest, values, ways
from notebook_rpc.model import Column

if TYPE_CHECKING:
    from notebook_rpc.conformance.subject import Subject
    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Table

# MySQL allows no characters beyond the BMP in names, and nobody a null.
ODD_NAMES = (
    "a b",
    'quo"te',
    "apo'st",
    "MiXed",
    "\u00e9\u8868",
    "50%",
    "x.y",
    "semi;colon",
    "back\\s",
)


def tables_have_their_columns(subject: Subject) -> None:
    """Tables are sorted; their columns are in table order, with the database's type names."""
    connection = subject.connect()
    integer, text = subject.dialect.declared
    subject.create(connection, columns=f"zz {integer}, aa {text}")
    subject.create(connection, "another")
    tables = connection.tables()
    expect_equal("tables", list(tables), sorted(tables))
    at = _find(subject, connection, "made")
    place = (at.catalog, at.schema, at.table)
    wanted = [
        Column(*place, name, kind)
        for name, kind in zip(("zz", "aa"), subject.dialect.shown, strict=True)
    ]
    for asked in (place, ("", "", at.table), (at.catalog, "", at.table)):
        expect_equal(f"columns{asked}", list(connection.columns(*asked)), wanted)
    found = {(column.table, column.column) for column in connection.columns("", "", "")}
    another = subject.name("another")
    expect({(at.table, "aa"), (another, "id")} <= found, "columns('', '', '') lacks some of them")


def names_that_do_not_exist_have_no_columns(subject: Subject) -> None:
    """Columns of what does not exist are none, and no error."""
    connection = subject.connect()
    subject.create(connection)
    at = _find(subject, connection, "made")
    no = subject.name("no' such\"")
    for asked in ((no, "", ""), ("", no, ""), ("", "", no), (at.catalog, no, at.table)):
        expect_equal(f"columns{asked}", list(connection.columns(*asked)), [])


def dropped_tables_are_gone(subject: Subject) -> None:
    """What is dropped is gone from the catalog."""
    connection, drop = subject.connect(), subject.dialect.drop
    if drop is None:
        raise Skipped("nothing can be dropped")
    table = subject.create(connection)
    expect_equal("tables", subject.own(connection.tables()), ["made"])
    connection.execute(drop.format(table=table)).close()
    expect_equal("tables", subject.own(connection.tables()), [])
    expect_equal("columns", list(connection.columns("", "", subject.name("made"))), [])


def views_are_no_tables(subject: Subject) -> None:
    """Views are among `views`, sorted, and not among `tables`; they have columns."""
    connection = subject.connect()
    table = subject.create(connection, columns=f"zz {subject.dialect.declared[0]}")
    subject.create_view(connection, "seen", f"select zz, zz as aa from {table}")
    views = connection.views()
    expect_equal("views", list(views), sorted(views))
    expect_equal("views", subject.own(views), ["seen"])
    expect_equal("tables", subject.own(connection.tables()), ["made"])
    columns = connection.columns("", "", subject.name("seen"))
    expect_equal("columns", [column.column for column in columns], ["zz", "aa"])


def odd_names_are_kept(subject: Subject) -> None:
    """Spaces, quotes, signs and Unicode in names of tables and columns arrive as they are."""
    subject.sql_only()
    connection, quoted = subject.connect(), subject.dialect.quoted
    kind = subject.dialect.declared[0]
    for name in ODD_NAMES:
        subject.create(connection, name, f"{quoted(name)} {kind}")
    expect_equal("tables", sorted(subject.own(connection.tables())), sorted(ODD_NAMES))
    for name in ODD_NAMES:
        at = _find(subject, connection, name)
        columns = connection.columns(at.catalog, at.schema, at.table)
        expect_equal(f"columns of {name}", [column.column for column in columns], [name])


def names_are_no_patterns(subject: Subject) -> None:
    """In the names that `columns` is asked for, _ and % mean themselves."""
    subject.sql_only()
    connection = subject.connect()
    for name in ("a_b", "axb", "a%b"):
        subject.create(connection, name)
    for name in ("a_b", "a%b"):
        columns = connection.columns("", "", subject.name(name))
        expect_equal(
            f"tables asked for as {name}", {c.table for c in columns}, {subject.name(name)}
        )
    expect_equal("columns of %", list(connection.columns("", "", "%")), [])


def names_work_in_sql(subject: Subject) -> None:
    """Catalog, schema and table, quoted and with dots between, name the table in SQL."""
    subject.sql_only()
    connection = subject.connect()
    subject.create(connection, "made it")
    connection.execute(subject.touch("made it"))
    at = _find(subject, connection, "made it")
    named = [subject.dialect.quoted(part) for part in (at.catalog, at.schema, at.table) if part]
    sql = f"select count(*) from {'.'.join(named)}"
    expect_equal(sql, values(connection, sql), [3])


def others_tables_are_seen(subject: Subject) -> None:
    """Tables that another connection has made are in the catalog at once."""
    first, second = subject.connect(), subject.connect()
    second.tables()  # what it remembers of now must not last
    subject.create(first)
    expect_equal("tables", subject.own(second.tables()), ["made"])


def temporary_tables_are_private(subject: Subject) -> None:
    """A temporary table is in the catalog of its connection, and of no other."""
    first, second = subject.connect(), subject.connect()
    subject.create_temporary(first)
    expect_equal("tables", subject.own(first.tables()), ["passing"])
    columns = first.columns("", "", subject.name("passing"))
    expect_equal("columns", [column.column.lower() for column in columns], ["id"])
    expect_equal("tables of another connection", subject.own(second.tables()), [])


def the_catalog_leaves_a_result_alone(subject: Subject) -> None:
    """Rows go on to come after catalog calls in between, and the catalog is whole."""
    connection = subject.connect()
    subject.create(connection)
    for execute in ways(connection):
        result = execute(subject.rows(100_000))
        expect_equal("rows of fetch(10)", len(result.fetch(10)), 10)
        expect_equal("tables", subject.own(connection.tables()), ["made"])
        columns = connection.columns("", "", subject.name("made"))
        expect_equal("columns", [column.column.lower() for column in columns], ["id"])
        connection.views()
        expect_equal("rows left", len(rest(result)), 99_990)


def temporary_tables_are_seen_beside_a_result(subject: Subject) -> None:
    """While a result is open, the catalog has temporary tables too."""
    connection = subject.connect()
    subject.create_temporary(connection)
    for execute in ways(connection):
        result = execute(subject.rows(100_000))
        expect_equal("rows of fetch(10)", len(result.fetch(10)), 10)
        expect_equal("tables", subject.own(connection.tables()), ["passing"])
        expect(len(connection.columns("", "", subject.name("passing"))) == 1, "it has no column")
        expect_equal("rows left", len(rest(result)), 99_990)


def _find(subject: Subject, connection: Connection, name: str) -> Table:
    found = [table for table in connection.tables() if table.table == subject.name(name)]
    if len(found) != 1:
        raise Failed(f"the table {subject.name(name)!r} is {len(found)} times in tables()")
    return found[0]
