"""What a dialect is: how a database is told what the checks want, and where it differs.

A check never asks which database it talks to. It takes a text from the database's ``Dialect``,
whose fields default to the SQL that most databases understand, so that an entry of
``dialects.py`` says only what is special. What a database has not is a ``Lacks``, with the
reason, and the checks that need it are skipped. What a driver ought to do and does not is in
``quirks``, and the checks run all the same: a quirk that is gone is reported, so that the list
stays true.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # `read` looks at the annotations
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lacks:
    """In the place of a field: the database has no such thing. The reason is a sentence."""

    reason: str


@dataclass(frozen=True)
class Values:
    """A column's type, and values for it: each as a literal in an INSERT, and as its text.

    The text is what ``page`` gives (the table of ``sansio/values.py``). A timestamp may have
    a blank for the T.
    """

    type: str
    samples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One driver's, or one database's behind a driver that has many.

    Every text goes through ``str.format``: what is named in braces at the field is put in, and
    a brace of your own is doubled. Names of tables come quoted, queries without a semicolon.
    """

    driver: str
    """The name that the driver is registered under."""
    means: tuple[str, str] | None = None
    """A property, and a regular expression that its value begins with, in any case: by that a
    URL of the driver means this dialect. ("module", "pymysql") is one. None means every URL
    that nothing else fits."""
    sql: bool = True
    """Whether it understands plain SQL. If not (the fake), only checks that need nothing but
    the texts below are run."""

    # How things are written.
    quote: str = '"'
    """What goes around a quoted name; inside of the name it is doubled. "" for none."""
    strings: Mapping[str, str] = field(default_factory=dict)
    """Literals special to the database and the text they mean, with semicolons, quotes or
    parameter marks inside to trap a splitter: {"$$;'$$": ";'"}. '' strings need no mention."""
    parameter: str | Lacks = "?"
    """A parameter by position."""
    named: str | Lacks = ":x"
    """A parameter by name; the name is x."""

    # Queries.
    rows: str = (
        "with recursive r(n) as (select 1 union all select n + 1 from r where n < {n})"
        " select n from r"
    )
    """{n} rows of one column ``n``, an integer that counts from 1. Up to a million, quickly,
    and each row only when it is asked for if the database can do that."""
    twins: str = "select 1 as a, 2 as a"
    """One row, 1 and 2, whose columns are both called ``a``."""
    fails: str = "select nowhere"
    """An error of the statement, whose message has the word "nowhere"."""
    fails_late: str = (
        "with recursive r(n) as (select 1 union all select n + 1 from r where n < 50000)"
        " select case when n < 50000 then 1 else 1 / (n - n) end as n from r"
    )
    """At least 9 999 rows, then an error of the statement. A driver that reads everything at
    once may fail before the first row."""
    endless: str | Lacks = (
        "with recursive r(n) as (select 1 union all select 1 from r) select count(*) from r"
    )
    """Gives no row and does not end, or not within ten minutes. It should keep the database
    busy (a sleep may be easier to interrupt than work), and must not fill memory or disk."""
    stalls: str | Lacks = (
        "with recursive r(n) as (select 1 union all select n + 1 from r)"
        " select n from r where n <= 50000"
    )
    """50 000 rows, a column ``n`` that counts from 1; then neither a row nor the end, and, as
    above, no growth. So many rows because drivers and servers read ahead."""
    echo: str = "select cast({p} as varchar(200)) as v"
    """One row and column: the text given as parameter {p}, which is ``parameter`` or ``named``."""
    echo_number: str = "select cast({p} as integer) as v"
    """The same for an integer of 32 bits."""

    # Tables. {columns} is "name type, ...".
    create: str = "create table {table} ({columns})"
    temporary: str | Lacks = "create temporary table {table} ({columns})"
    """A table that only this connection sees, and that goes with it."""
    view: str | Lacks = "create view {view} as {query}"
    drop: str | None = "drop table {table}"
    """None if nothing can be dropped and the database ends with the process."""
    drop_view: str = "drop view {view}"
    declared: tuple[str, str] = ("integer", "varchar(20)")
    """Types of 32-bit integers and of short texts, as they are declared..."""
    shown: tuple[str, str] = ("integer", "varchar(20)")
    """...and as ``columns()`` gives them back."""
    touch: str = "insert into {table} values (1), (2), (3)"
    """Touches three rows and returns none. The table's only column is ``id``, an integer."""
    returning: str | Lacks = "insert into {table} values (7), (8) returning id"
    """Touches a table like that and returns the rows 7 and 8 of a column ``id``."""
    begin: str | Lacks = "begin"
    """Begins a transaction, which ``commit`` and ``rollback`` end."""

    # Values, through a table with a column of the type.
    integers: Values | Lacks = Values(
        "bigint",
        tuple((n, n) for n in ("0", "-1", "9223372036854775807", "-9223372036854775808")),
    )
    decimals: Values | Lacks = Values(
        "decimal(38, 10)",
        (
            ("1234567890123456789012345678.0123456789",) * 2,
            ("-0.1", "-0.1000000000"),
        ),
    )
    floats: Values | Lacks = Values(
        "double precision",
        (("0.1", "0.1"), ("-2.5", "-2.5"), ("1e300", "1e+300"), ("1e-7", "1e-07")),
    )
    special_floats: Values | Lacks = Values(
        "double precision",
        (("'NaN'", "NaN"), ("'Infinity'", "Infinity"), ("'-Infinity'", "-Infinity")),
    )
    booleans: Values | Lacks = Values("boolean", (("true", "true"), ("false", "false")))
    texts: Values | Lacks = Values(
        "text",
        (
            ("'plain'", "plain"),
            ("'it''s \"quoted\"'", 'it\'s "quoted"'),
            ("'\u00e9 \u8868 \U0001f986'", "\u00e9 \u8868 \U0001f986"),
            ("'a\tb\nc'", "a\tb\nc"),
        ),
    )
    """The type must hold a megabyte; so much, '' and NULL are checked besides the samples."""
    bytes: Values | Lacks = Values("blob", (("x'00ff61'", r"\x00ff61"), ("x''", r"\x")))
    dates: Values | Lacks = Values(
        "date", (("'2026-02-28'", "2026-02-28"), ("'1582-10-15'", "1582-10-15"))
    )
    times: Values | Lacks = Values("time", (("'23:59:58'", "23:59:58"),))
    timestamps: Values | Lacks = Values(
        "timestamp", (("'2026-02-28 01:02:03.000004'", "2026-02-28T01:02:03.000004"),)
    )

    quirks: Mapping[str, str] = field(default_factory=dict)
    """Checks that the driver does not meet, by name (``check-driver --list`` has them all), and
    why, in a sentence for its users: docs/drivers.md shows it."""

    def quoted(self, name: str) -> str:
        """*name* as SQL writes it when it is not plain."""
        return (
            self.quote + name.replace(self.quote, self.quote * 2) + self.quote
            if self.quote
            else name
        )
