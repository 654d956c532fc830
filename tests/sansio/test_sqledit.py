"""SELECTs, outlined and changed: as scoot-server was recorded to, and where it fails."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_rpc.errors import InvalidParams, NotSupported
from notebook_rpc.model import Table
from notebook_rpc.sansio import sqledit
from notebook_rpc.sansio.changes import Change, Condition, Operation
from notebook_rpc.sansio.origins import Item, Outline, Source
from notebook_rpc.sansio.sqledit import PART
from notebook_rpc.sansio.sqltree import LONGEST, MOST_BRACKETS
from notebook_rpc.schema import ColumnFacts, TableFacts

ADD, REMOVE = Operation.ADD, Operation.REMOVE
ORDERS = TableFacts(
    Table("", "", "orders"), [ColumnFacts(name, "INTEGER") for name in ("id", "user_id", "Status")]
)


def where(sql: str, operation: Operation, *conditions: str, dialect: str = "postgresql") -> str:
    """*conditions* have bars between their parts."""
    parts = [Condition(*each.split("|")) for each in conditions]
    return sqledit.changed(sql, Change(operation, "WHERE", parts), dialect, {})


def select(sql: str, operation: Operation, *columns: str, dialect: str = "postgresql") -> str:
    change = Change(operation, "SELECT", columns=columns)
    return sqledit.changed(sql, change, dialect, {"orders": ORDERS, "lost": None})


@pytest.mark.parametrize(
    ("sql", "condition", "expected"),
    [
        ("SELECT * FROM users", "id|=|1", "SELECT * FROM users WHERE id = 1"),
        ("select name from users", "id|=|1", "SELECT name FROM users WHERE id = 1"),
        ("select a from t where b = 2", "c|>|3", "SELECT a FROM t WHERE b = 2 AND c > 3"),
        (
            "select a from t where b = 2 or c",
            "d|!=|'x'",
            "SELECT a FROM t WHERE (b = 2 OR c) AND d <> 'x'",
        ),
        (
            "select a from t order by 1 limit 2",
            "a|is not|NULL",
            "SELECT a FROM t WHERE a IS NOT NULL ORDER BY 1 LIMIT 2",
        ),
        ("select u.id from u, o", "id|=|1", "SELECT u.id FROM u, o WHERE u.id = 1"),
        (
            "select u.name as n from u",
            "n|LIKE|'a%'",
            "SELECT u.name AS n FROM u WHERE u.name LIKE 'a%'",
        ),
        ("select a + 1 as b from t", "b|=|2", "SELECT a + 1 AS b FROM t WHERE (a + 1) = 2"),
        ("select a from t", "First Name|=|':x'", "SELECT a FROM t WHERE \"First Name\" = ':x'"),
        ("select a from t", "order|=|1", 'SELECT a FROM t WHERE "order" = 1'),
        ("select a from t", "Mixed|=|1", 'SELECT a FROM t WHERE "Mixed" = 1'),
        ("select a from t", "lower(a)|=|'x'", "SELECT a FROM t WHERE LOWER(a) = 'x'"),
        ("select a from t", "a|in|(1, 2)", "SELECT a FROM t WHERE a IN (1, 2)"),
        ("select a from t;", "a|=|1", "SELECT a FROM t WHERE a = 1"),
    ],
)
def test_a_condition_is_added(sql: str, condition: str, expected: str) -> None:
    assert where(sql, ADD, condition) == expected


@pytest.mark.parametrize(
    ("sql", "condition", "expected"),
    [
        ("select id, name from users where id = 1", "id|=|1", "SELECT id, name FROM users"),
        ("select a from t where b = 1 and c = 2", "b|=|1", "SELECT a FROM t WHERE c = 2"),
        (
            "select a from t where b = 1 and (c = 2 and d = 3)",
            "c|=|2",
            "SELECT a FROM t WHERE b = 1 AND d = 3",
        ),
        ("select a from t where (b = 1)", "b|=|1", "SELECT a FROM t"),
        ("select a from t where b = 1 or c = 2", "b|=|1", "SELECT a FROM t WHERE b = 1 OR c = 2"),
        ("select a from t where b = 1", "b|=|2", "SELECT a FROM t WHERE b = 1"),
        ("select a from t", "b|=|2", "SELECT a FROM t"),
        ("select u.id as n from u where u.id = 1", "n|=|1", "SELECT u.id AS n FROM u"),
    ],
)
def test_a_condition_is_removed_where_it_alone_is_the_reason(
    sql: str, condition: str, expected: str
) -> None:
    assert where(sql, REMOVE, condition) == expected


def test_adding_and_removing_are_each_others_reverse() -> None:
    sql = "SELECT a FROM t WHERE (b = 1 OR c = 2)"
    for condition in ("d|IS|NULL", "e|LIKE|'%:x'", "f g|>=|-1.5"):
        assert where(where(sql, ADD, condition), REMOVE, condition) == sql


@pytest.mark.parametrize(
    "condition",
    [
        "a|=|1; drop table t",
        "a|=|1) or (1=1",
        "a|=|1 or 1=1",
        "a|=|1 limit 1",
        "a|=|",
        "a|=|'",
        "a|nope|1",
        "a||1",
        "a|=|1 order by 1",
        "a|=|1 union select 2",
    ],
)
def test_what_is_no_condition_is_refused(condition: str) -> None:
    with pytest.raises(InvalidParams):
        where("select a from t", ADD, condition)


@pytest.mark.parametrize(
    ("sql", "operation", "column", "expected"),
    [
        ("select id from orders", ADD, "status", "SELECT id, status FROM orders"),
        ("select id from orders", ADD, "id", "SELECT id FROM orders"),
        ("select id from orders", ADD, "Status", 'SELECT id, "Status" FROM orders'),
        ("select id, status from orders", REMOVE, "status", "SELECT id FROM orders"),
        ("select id, x as status from o", REMOVE, "status", "SELECT id FROM o"),
        ("select * from orders", REMOVE, "Status", "SELECT id, user_id FROM orders"),
        ("select * from orders o", REMOVE, "id", 'SELECT o.user_id, o."Status" FROM orders AS o'),
        (
            "select x.*, y from orders x, lost",
            REMOVE,
            "id",
            'SELECT x.user_id, x."Status", y FROM orders AS x, lost',
        ),
        ("select count(*), a from t", REMOVE, "COUNT(*)", "SELECT a FROM t"),
        (
            "with c as (select 1) select a, b from c",
            REMOVE,
            "b",
            "WITH c AS (SELECT 1) SELECT a FROM c",
        ),
    ],
)
def test_columns_come_and_go(sql: str, operation: Operation, column: str, expected: str) -> None:
    assert select(sql, operation, column) == expected


@pytest.mark.parametrize(
    ("sql", "column", "error"),
    [
        ("select id from orders", "id", InvalidParams),
        ("select id from orders", "x", InvalidParams),
        ("select * from lost", "x", NotSupported),
        ("select * from orders, (select 1) q", "id", NotSupported),
        ("select * from orders join orders o using (id)", "id", NotSupported),
        ("with orders as (select 1) select * from orders", "id", NotSupported),
        ("select * exclude (id) from orders", "user_id", NotSupported),
    ],
)
def test_a_column_that_cannot_be_removed_stays(
    sql: str, column: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        select(sql, REMOVE, column, dialect="duckdb")


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 union select 2",
        "insert into t values (1)",
        "selec",
        "",
        "select 1; select 2",
        "update t set a = 1",
        "drop table t",
        "select " + "(" * 3000,
        f"select {'a' * LONGEST}",
        "select 'no end",
    ],
)
def test_what_is_no_single_select_is_not_changed(sql: str) -> None:
    with pytest.raises(NotSupported):
        where(sql, ADD, "a|=|1")


def test_a_long_statement_is_changed_in_linear_time_and_depth() -> None:
    many = " and ".join(["aa=1"] * 800)
    assert where(f"select 1 from t where {many}", ADD, "b|=|2").endswith(" AND b = 2")


def test_a_change_counts_as_the_statement_does() -> None:
    """However short its parts are: each is read, and looked for in all of the statement."""
    for conditions in ([f"a|=|{'1' * LONGEST}"], ["a|=|1"] * (LONGEST // PART)):
        with pytest.raises(NotSupported, match=f"a SELECT of {LONGEST} characters"):
            where("select 1 from t", ADD, *conditions)
    with pytest.raises(NotSupported, match=f"a SELECT of {LONGEST} characters"):
        select("select 1 from t", ADD, *["a"] * (LONGEST // PART))


def test_what_takes_time_for_all_that_is_before_it_is_not_read() -> None:
    """Subscripts of subscripts, to sqlglot."""
    for dialect in ("duckdb", "postgresql"):
        assert sqledit.outline(f"select a{'[1]' * MOST_BRACKETS} from t", dialect) is not None
        assert sqledit.outline(f"select a{'[1]' * (MOST_BRACKETS + 1)} from t", dialect) is None
    names = ", ".join(["[a]"] * (MOST_BRACKETS + 1))
    assert sqledit.outline(f"select {names} from t", "mssql") is not None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select * from users", Outline([Item("*")], [Source("users", "users")])),
        ("from users", Outline([Item("*")], [Source("users", "users")])),
        (
            "select count(*), u.name as n from s.users u group by 2",
            Outline([Item(), Item("name", "u", "n")], [Source("s.users", "u", is_renamed=True)]),
        ),
        (
            "/* a */ -- b\n select a, 1 b from t join Q natural join r",
            Outline(
                [Item("a", "", "a"), Item(name="b")],
                [Source("t", "t"), Source("Q", "Q"), Source("r", "r")],
                merges=True,
            ),
        ),
        (
            "select a from (select 1 a) x, range(3) y, t tablesample 1 percent",
            Outline([Item("a", "", "a")], [Source("", "x"), Source("", "y"), Source("", "t")]),
        ),
        ("select a from t as x(a, b)", Outline([Item("a", "", "a")], [Source("", "x")])),
    ],
)
def test_an_outline_has_what_is_selected_and_from_where(sql: str, expected: Outline) -> None:
    assert sqledit.outline(sql, "duckdb") == expected


@pytest.mark.parametrize(
    "sql",
    [
        "select * exclude (a) from t",
        "select columns('a') from t",
        "select (t).* from t",
        "with t as (select 1) select a from t",
        "select 1 union select 2",
        "insert into t select 1",
        "select unnest(a) from t",
        "selec",
    ],
)
def test_there_is_none_where_columns_cannot_be_counted(sql: str) -> None:
    assert sqledit.outline(sql, "duckdb") is None


def test_what_is_in_quotes_may_be_a_string_where_the_database_is_not_known() -> None:
    for dialect, column in (("odbc", ""), ("mysql", ""), ("sqlite", "id"), ("postgresql", "id")):
        outline = sqledit.outline('select "id" from users', dialect)
        assert outline is not None
        assert [item.column for item in outline.items] == [column]


@pytest.mark.parametrize("name", ["order", "First Name", "é"])
def test_names_are_quoted_as_the_database_has_it_or_not_at_all(name: str) -> None:
    assert f"`{name}`" in where("select a from t", ADD, f"{name}|=|1", dialect="mysql")
    assert f"[{name}]" in select("select a from t", ADD, name, dialect="mssql")
    with pytest.raises(NotSupported, match="needs quotes"):
        where("select a from t", ADD, f"{name}|=|1", dialect="odbc")
    assert "WHERE Mixed = 1" in where("select a from t", ADD, "Mixed|=|1", dialect="odbc")


def test_names_without_quotes_are_found_as_the_database_finds_them() -> None:
    outline = sqledit.outline('select a from Users, "Orders"', "postgresql")
    assert outline is not None
    assert [source.table for source in outline.sources] == ["users", "Orders"]


WORDS = """
select from where and or not ( ) , * . ; 'a' "b" `c` [d] 1 1.5 a b t as join left on using (a)
natural with recursive case when then else end cast :: int decimal(10,2) array struct < > = + - ||
null is in between like exists any over partition by order group having limit union intersect
values lateral unnest pivot for {{ }} { } : ? $1 @x -- /* */ create table primary key check filter
interval extract(year -> ->> ~ & e'x' $$x$$ exclude columns( ' \" \x00 é"""


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["select ", "select a from t where ", "with c as (", "from t ", ""]),
    st.lists(st.sampled_from(WORDS.split()), max_size=20).map(" ".join),
    st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=4).map(" ".join),
    st.sampled_from(["duckdb", "postgresql", "sqlite", "mssql", "mysql", ""]),
)
def test_any_text_is_changed_or_refused(begin: str, text: str, part: str, dialect: str) -> None:
    sqledit.outline(begin + text, dialect)
    for change in (
        Change(ADD, "WHERE", [Condition(part, "=", part)]),
        Change(REMOVE, "WHERE", [Condition("a", "=", part)]),
        Change(ADD, "SELECT", columns=[part]),
        Change(REMOVE, "SELECT", columns=["a"]),
    ):
        with suppress(InvalidParams, NotSupported):
            sqledit.changed(begin + text, change, dialect, {"t": ORDERS, "orders": ORDERS})
