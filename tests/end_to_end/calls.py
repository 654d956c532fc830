"""What the clients of test_machine.py call: strategies, and nothing of what comes of it.

Numbers are those where something changes: around the 100 rows that ``execute`` reads ahead, the
2048 of one read of the database, and pages that are cut for their size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.end_to_end import model, words
from tests.end_to_end.model import Call

if TYPE_CHECKING:
    from tests.end_to_end.words import Statement

TABLES = st.sampled_from([*words.OWN, words.BRIEF])
SIZES = st.sampled_from([0, 1, 2, 99, 100, 101, 200, 201, 1000, 2048, 2049, 3000])
LIMITS = st.sampled_from([1, 2, 50, 99, 100, 101, 1000, 3000])
NAMES = st.sampled_from([("n",), ("a", "b"), ("a", "a"), ("a", "a", "a_1")])
VALUES = st.none() | st.integers(-(2**31), 2**31 - 1) | st.sampled_from(["", 'é"\\'])

SERIES = st.builds(words.Series, SIZES, NAMES)
ECHOES = st.one_of(
    st.builds(words.Echo, st.lists(VALUES, min_size=1, max_size=3).map(tuple)),
    st.builds(words.Echo, st.tuples(VALUES, VALUES), st.just(("x", "y"))),
)
TABLE_WORK: st.SearchStrategy[Statement] = st.one_of(
    st.builds(words.Create, TABLES),
    st.builds(words.Insert, TABLES, st.sampled_from([1, 3, 150, 2500])),
    st.builds(words.Delete, TABLES, st.sampled_from([1, 2, 200])),
    st.builds(words.Select, TABLES),
    st.builds(words.Drop, TABLES),
)
READABLE: st.SearchStrategy[Statement] = st.one_of(
    ECHOES,
    st.builds(words.Select, TABLES),
    st.sampled_from([words.FailingAfter(150), words.Big(5000)]),
)
BEGIN: st.SearchStrategy[Statement] = st.just(words.Begin())
OTHERS: st.SearchStrategy[Statement] = st.sampled_from(
    [words.Commit(), words.Rollback(), words.Unknown(), words.Failing()]
)
STATEMENTS = st.one_of(TABLE_WORK, TABLE_WORK, BEGIN, OTHERS, SERIES)
LAST: st.SearchStrategy[Statement] = ECHOES | st.sampled_from(
    [words.FailingAfter(150), words.FailingOnClose(1), words.Leave()]
)


def execute(*script: Statement, timeout: float | None = None) -> Call:
    return Call("execute", script=script, timeout=timeout)


def page(limit: int) -> Call:
    return Call("page", (limit,))


def columns(table: str) -> Call:
    return Call("columns", (table,))


def notify(call: Call) -> Call:
    return replace(call, notify=True)


METADATA, COUNT, FINISH = Call("metadata"), Call("count"), Call("finish")
EXECUTES = st.one_of(
    (STATEMENTS | ECHOES).map(execute),
    st.builds(
        lambda script, last: execute(*script, last),
        st.lists(STATEMENTS, min_size=1, max_size=2),
        STATEMENTS | ECHOES,
    ),
    STATEMENTS.map(lambda statement: execute(statement, timeout=60)),
)
READS = LIMITS.map(page) | st.sampled_from([METADATA, COUNT, FINISH])
CATALOG = TABLES.map(columns) | st.sampled_from([Call("tables"), Call("views")])
NOTIFICATIONS = (STATEMENTS.map(execute) | st.sampled_from([FINISH, page(2)])).map(notify)
CALLS = st.one_of(EXECUTES, READS, READS, CATALOG, NOTIFICATIONS)
NO_CALLS = {
    page(0): model.INVALID_PARAMS,
    Call("page", ("1",)): model.INVALID_PARAMS,
    Call("page"): model.INVALID_PARAMS,
    Call("execute"): model.INVALID_PARAMS,
    Call("finish", (1,)): model.INVALID_PARAMS,
    Call("pages", (1,)): model.NO_SUCH_METHOD,
}
# What runs for ever is the first statement of its script: how far a script has got when it is
# interrupted, no client can tell.
LONG: st.SearchStrategy[list[Call]] = st.one_of(
    st.lists(TABLE_WORK | BEGIN, max_size=3).map(
        lambda work: [
            *(call for each in work for call in (execute(each), FINISH)),
            execute(words.Endless()),
        ]
    ),
    st.lists(CALLS, max_size=3).map(lambda calls: [execute(words.Endless()), *calls]),
    st.sampled_from(
        [
            [execute(words.Begin()), FINISH, execute(words.Endless(), words.Commit())],
            [notify(execute(words.Endless()))],
            [execute(words.EndlessAfter(150)), page(99), page(100)],
            [execute(words.EndlessAfter(150)), page(1000), page(1), Call("tables"), FINISH],
            [execute(words.EndlessOnClose(1)), FINISH],
        ]
    ),
)
