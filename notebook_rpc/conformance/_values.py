"""Checks of values: what goes into a table comes out of it, to the last digit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from notebook_rpc.conformance.dialect import Lacks, Values
from notebook_rpc.conformance.outcomes import Skipped, expect_equal, needs
from notebook_rpc.conformance.subject import rest, ways

if TYPE_CHECKING:
    from notebook_rpc.conformance.subject import Subject

MEGABYTE = 1_000_000


def nulls(subject: Subject) -> None:
    """NULL is null as text, in a column of whatever type."""
    dialect = subject.dialect
    kinds = (dialect.integers, dialect.texts, dialect.floats, dialect.dates, dialect.bytes)
    for number, kind in enumerate(kinds):
        if not isinstance(kind, Lacks):
            _round_trip(subject, kind.type, [("null", None), kind.samples[0]], f"made{number}")


def texts(subject: Subject) -> None:
    """Text is kept whole: quotes, line breaks, Unicode beyond the BMP, a megabyte."""
    kind = needs(subject.dialect.texts)
    long = "0123456789" * (MEGABYTE // 10)
    _round_trip(subject, kind.type, [*kind.samples, (f"'{long}'", long)])


def empty_text(subject: Subject) -> None:
    """Empty text is not NULL."""
    kind = needs(subject.dialect.texts)
    _round_trip(subject, kind.type, [("''", ""), ("null", None), ("' '", " ")])


def integers(subject: Subject) -> None:
    """Integers of 64 bits are exact."""
    _of(subject, subject.dialect.integers)


def decimals(subject: Subject) -> None:
    """Decimals keep all their digits, zeros at the end too, and have no exponent."""
    _of(subject, subject.dialect.decimals)


def floats(subject: Subject) -> None:
    """A float is the shortest text that reads back the same."""
    _of(subject, subject.dialect.floats)


def special_floats(subject: Subject) -> None:
    """NaN and the infinities are NaN, Infinity and -Infinity."""
    _of(subject, subject.dialect.special_floats)


def booleans(subject: Subject) -> None:
    """Booleans are true and false."""
    _of(subject, subject.dialect.booleans)


def byte_strings(subject: Subject) -> None:
    r"""Bytes are hexadecimal digits behind \x."""
    _of(subject, subject.dialect.bytes)


def dates(subject: Subject) -> None:
    """Dates are ISO 8601."""
    _of(subject, subject.dialect.dates)


def times(subject: Subject) -> None:
    """Times of day are ISO 8601."""
    _of(subject, subject.dialect.times)


def timestamps(subject: Subject) -> None:
    """Timestamps are ISO 8601 to the microsecond, with a T or a blank."""
    kind = needs(subject.dialect.timestamps)
    _round_trip(subject, kind.type, list(kind.samples), blank_for_t=True)


def _of(subject: Subject, kind: Values | Lacks) -> None:
    found = needs(kind)
    _round_trip(subject, found.type, list(found.samples))


def _round_trip(
    subject: Subject,
    kind: str,
    samples: list[tuple[str, str]] | list[tuple[str, str | None]],
    name: str = "made",
    *,
    blank_for_t: bool = False,
) -> None:
    if not subject.dialect.sql:
        raise Skipped("the database has no INSERT")
    connection = subject.connect()
    table = subject.create(connection, name, f"id {subject.dialect.declared[0]}, v {kind}")
    for number, (literal, _) in enumerate(samples):
        connection.execute(f"insert into {table} values ({number}, {literal})")
    for execute in ways(connection):
        rows = rest(execute(f"select v from {table} order by id"))
        for row, (literal, wanted) in zip(rows, samples, strict=True):
            found = json.loads(row)["v"]
            if blank_for_t and isinstance(found, str):
                found = found.replace(" ", "T", 1)
            expect_equal(f"{literal[:60]} as {kind}", found, wanted)
