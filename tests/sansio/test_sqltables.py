"""Tables and checks, read from SQL as PostgreSQL, SQLite and people write them."""

from __future__ import annotations

import pytest

from notebook_rpc.errors import InvalidParams
from notebook_rpc.model import Table
from notebook_rpc.sansio import sqltables
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind

PRIMARY, UNIQUE = ConstraintKind.PRIMARY_KEY, ConstraintKind.UNIQUE
FOREIGN, CHECK = ConstraintKind.FOREIGN_KEY, ConstraintKind.CHECK


def test_a_table_has_its_columns_and_constraints() -> None:
    sql = """create table s.foo (id int primary key, n varchar(10) not null default 'a',
        o int unique references users(id), e text check (e <> ''), m numeric(10, 2) null,
        constraint p check (n in ('a', 'b') and id > 0),
        foreign key (o, id) references t.u(a, b), unique (n, o))"""
    facts = sqltables.table(sql, "postgresql")
    assert facts.table == Table("", "s", "foo")
    assert facts.create_stmt == sql
    assert facts.columns == [
        ColumnFacts("id", "INT", nullable=False),
        ColumnFacts("n", "VARCHAR(10)", nullable=False, default="'a'"),
        ColumnFacts("o", "INT"),
        ColumnFacts("e", "TEXT"),
        ColumnFacts("m", "DECIMAL(10, 2)"),
    ]
    assert facts.constraints == [
        Constraint(PRIMARY, "", ["id"]),
        Constraint(UNIQUE, "", ["o"]),
        Constraint(FOREIGN, "", ["o"], references=Table("", "", "users"), referenced=["id"]),
        Constraint(CHECK, "", ["e"], "e <> ''"),
        Constraint(CHECK, "p", ["n", "id"], "n IN ('a', 'b') AND id > 0"),
        Constraint(
            *(FOREIGN, "", ["o", "id"]), references=Table("", "t", "u"), referenced=["a", "b"]
        ),
        Constraint(UNIQUE, "", ["n", "o"]),
    ]


def test_a_key_of_several_columns_lets_none_of_them_be_null() -> None:
    facts = sqltables.table("create table t (a int, B int, c int, primary key (a, b))", "sqlite")
    assert [column.nullable for column in facts.columns] == [False, False, True]
    assert facts.primary_key == ["a", "b"]


@pytest.mark.parametrize(
    "sql",
    ["create table t as select 1", "create view v as select 1", "select 1", "", "create", "("],
)
def test_what_is_no_table_is_refused(sql: str) -> None:
    with pytest.raises(InvalidParams, match="no CREATE TABLE"):
        sqltables.table(sql, "duckdb")


@pytest.mark.parametrize(
    ("text", "left", "pred", "right"),
    [
        ("amt > 0::numeric", "amt", ">", "0"),
        ("(a <> 'x')", "a", "!=", "x"),
        ("a >= b", "a", ">=", "b"),
        ("a > -1", "a", ">", "-1"),
        ("a in ('x', 'y')", "a", "IN", ["x", "y"]),
        ("status::text = ANY (ARRAY['new'::character varying, 'done'::character varying]::text[])",
         "status", "IN", ["new", "done"]),
    ],
)  # fmt: skip
def test_a_check_of_one_comparison_is_taken_apart(
    text: str, left: str, pred: str, right: object
) -> None:
    expected = {"lhs": left, "pred": pred, "rhs": right}
    assert sqltables.condition(text, "postgresql") == expected


@pytest.mark.parametrize(
    "text",
    ["length(a) > 3", "a between 1 and 2", "a > 1 and b > 1", "", "'", "a > 1; drop table t"],
)
def test_any_other_is_told_as_it_is_written(text: str) -> None:
    assert sqltables.condition(text, "postgresql") == {"sql": text}
