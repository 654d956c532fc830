"""What is read out of the statements that made tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.sansio.sqltext import SQLITE, STANDARD
from notebook_rpc.schema import ConstraintKind
from notebook_rpc_drivers._declared import Declaration, Declared, declared_in
from notebook_rpc_drivers._sql_names import columns_in

PRIMARY_KEY, UNIQUE, FOREIGN_KEY, CHECK = ConstraintKind


def key(kind: ConstraintKind, *columns: str, name: str = "") -> Declaration:
    return Declaration(kind, name, columns)


def check(condition: str, column: str = "", name: str = "") -> Declaration:
    return Declaration(CHECK, name, (column,) if column else (), condition)


def foreign(
    columns: tuple[str, ...], to: tuple[str, ...], referenced: tuple[str, ...] = (), name: str = ""
) -> Declaration:
    return Declaration(FOREIGN_KEY, name, columns, "", to, referenced)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("create table t (a unique, b check (a > 1))", [key(UNIQUE, "a"), check("a > 1", "b")]),
        ("create table t (a int primary key desc)", [key(PRIMARY_KEY, "a")]),
        ("create table t (a constraint n not null unique)", [key(UNIQUE, "a")]),
        ("create table t (a constraint n default 5 check (1))", [check("1", "a")]),
        ("create table t (a, constraint n check (')' > (1)))", [check("')' > (1)", name="n")]),
        ('create table t (a, constraint "n""m" unique (a))', [key(UNIQUE, "a", name='n"m')]),
        ("create table [check (] (a constraint [n] unique)", [key(UNIQUE, "a", name="n")]),
        (
            "create table t (a constraint n references o(b) on delete cascade unique)",
            [foreign(("a",), ("o",), ("b",), "n"), key(UNIQUE, "a")],
        ),
        (
            'create table t (a, constraint n foreign key (a, "b,c") references s."o.p")',
            [foreign(("a", "b,c"), ("s", "o.p"), (), "n")],
        ),
        (
            """CREATE TABLE s.t(a DECIMAL(10,2), b STRUCT(x INTEGER, "check" VARCHAR), PRIMARY
            KEY(a, b), FOREIGN KEY (a) REFERENCES s.o(x), CHECK(((a > 0) OR (b = ')'))));""",
            [
                key(PRIMARY_KEY, "a", "b"),
                foreign(("a",), ("s", "o"), ("x",)),
                check("((a > 0) OR (b = ')'))"),
            ],
        ),
        ("create table t (unique (a collate nocase desc, b))", [key(UNIQUE, "a", "b")]),
        ('create table t ("check" int, "unique" int)', []),
        ("create table t (a default (check_it(1)), b default 'unique')", []),
        ("create table t (a, -- unique\n b /* check (1) */)", []),
        ("create virtual table t using x(a unique)", []),
        ('create view v as select 1 as "unique"', []),
        # A database keeps nothing that breaks off, but who knows what is in a file:
        ("create table t (a check (b > (1)", [check("", "a")]),
        ("create table t (a, constraint", []),
        ("create table t (a, foreign", []),
        ("create table t (a references", [foreign(("a",), ("",))]),
        ("create table", []),
        ("", []),
    ],
)
def test_constraints(sql: str, said: list[Declaration]) -> None:
    assert declared_in(sql, SQLITE).constraints == said


def test_generated_columns() -> None:
    sql = "create table t (a, \"b,c\" as (a + (1)) unique, d int generated always as (')') virtual)"
    found = declared_in(sql, STANDARD)
    assert found.generated == {"b,c": "a + (1)", "d": "')'"}
    assert found.constraints == [key(UNIQUE, "b,c")]


def test_names_are_given_to_nobody_rather_than_to_the_wrong_one() -> None:
    found = Declared(
        [key(UNIQUE, "a", name="n"), key(PRIMARY_KEY, "a", name="p"), key(UNIQUE, "b")]
    )
    assert found.names(UNIQUE, 2) == ["n", ""]
    assert found.names(UNIQUE, 1) == [""]
    assert found.names(CHECK, 0) == []


def test_columns_of_a_condition() -> None:
    columns = ["a", 'b"c', "D", "e"]
    condition = 'd > \'a\' and ("b""c" is null or D <> "A") -- e'
    assert columns_in(condition, columns, STANDARD) == ["D", 'b"c', "a"]


PIECES = ["create", "table", "(", ")", ",", "check", "unique", "primary", "key", "constraint"]
PIECES += ["references", "foreign", "as", '"', "'", "a", ".", " ", "--", "/*", "not"]


@given(st.lists(st.sampled_from(PIECES)).map(" ".join))
def test_any_statement_is_read_to_its_end(sql: str) -> None:
    for text in (sql, f"create table t ({sql}", sql.replace(" ", "")):
        declared_in(text, SQLITE)


def test_a_long_statement_takes_no_time() -> None:
    sql = f"create table t ({', '.join(f'c{n} int check (c{n} > {n})' for n in range(10_000))})"
    assert len(declared_in(sql, SQLITE).constraints) == 10_000
