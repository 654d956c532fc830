"""The difference of two results: what came, what went, and which row became which."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.sansio.delta import Delta, applied, difference
from tests.event_stream import Event, Follower

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("ab")).map(
        lambda row: json.dumps(row, separators=(",", ":"))
    ),
    max_size=8,
)
KEYS = st.sampled_from([(), (0,), (0, 1), (1,)])


def test_what_came_and_what_went() -> None:
    delta = difference(["[1]", "[2]", "[3]"], ["[2]", "[4]", "[1]"])
    assert delta == Delta(["[4]"], (), ["[3]"])


def test_how_often_a_row_is_there_counts() -> None:
    assert difference(["[1]", "[1]"], ["[1]", "[1]", "[1]"]) == Delta(["[1]"], (), [])
    assert difference(["[1]", "[1]", "[1]"], ["[1]"]) == Delta([], (), ["[1]", "[1]"])


def test_the_order_does_not() -> None:
    assert not difference(["[1]", "[2]"], ["[2]", "[1]"])


def test_with_a_key_a_change_is_an_update() -> None:
    before, after = ['[1,"a"]', '[2,"b"]', '[3,"c"]'], ['[1,"z"]', '[3,"c"]', '[4,"d"]']
    delta = difference(before, after, key=[0])
    assert delta == Delta(['[4,"d"]'], [('[1,"a"]', '[1,"z"]')], ['[2,"b"]'])
    assert applied(before, delta) == after


def test_a_key_may_be_of_several_columns_and_nested() -> None:
    delta = difference(['[{"a":[1]},2,"x"]'], ['[{"a":[1]},2,"y"]'], key=[0, 1])
    assert delta.updates == [('[{"a":[1]},2,"x"]', '[{"a":[1]},2,"y"]')]
    assert not difference(["[1,2,3]"], ["[1,3,4]"], key=[0, 1]).updates


def test_rows_of_one_key_are_paired_in_order() -> None:
    delta = difference(["[1,1]", "[1,2]", "[1,3]"], ["[1,8]", "[1,9]"], key=[0])
    assert delta == Delta([], [("[1,1]", "[1,8]"), ("[1,2]", "[1,9]")], ["[1,3]"])


def test_as_json() -> None:
    delta = Delta(["[1]", "[2]"], [("[3]", "[4]")], ["[5]"])
    assert delta.json() == (
        '{"inserts":[[1],[2]],"updates":[{"before":[3],"after":[4]}],"deletes":[[5]]}'
    )
    assert Delta((), (), ()).json() == '{"inserts":[],"updates":[],"deletes":[]}'


@given(ROWS, ROWS, KEYS)
def test_who_applies_it_has_the_new_rows(
    before: list[str], after: list[str], key: tuple[int, ...]
) -> None:
    delta = difference(before, after, key)
    assert Counter(applied(before, delta)) == Counter(after)
    assert bool(delta) == (Counter(before) != Counter(after))


@given(ROWS, ROWS, KEYS)
def test_it_holds_no_row_that_did_not_change(
    before: list[str], after: list[str], key: tuple[int, ...]
) -> None:
    delta = difference(before, after, key)
    came = Counter([*delta.inserts, *(new for _, new in delta.updates)])
    went = Counter([*delta.deletes, *(old for old, _ in delta.updates)])
    assert came == Counter(after) - Counter(before)
    assert went == Counter(before) - Counter(after)


@given(ROWS, ROWS, KEYS)
def test_an_update_keeps_its_key(before: list[str], after: list[str], key: tuple[int, ...]) -> None:
    delta = difference(before, after, key)
    for old, new in delta.updates:
        assert all(json.loads(old)[place] == json.loads(new)[place] for place in key)
    if not key:
        assert not delta.updates


@given(ROWS, ROWS, KEYS)
def test_a_client_that_knows_only_values_comes_to_the_same(
    before: list[str], after: list[str], key: tuple[int, ...]
) -> None:
    """What ``applied`` says of texts, in the same order, holds for what a client has parsed."""
    delta = difference(before, after, key)
    follower = Follower(rows=[json.loads(row) for row in before])
    follower.take(Event("delta", delta.json(), ""))
    assert follower.rows == [json.loads(row) for row in applied(before, delta)]
