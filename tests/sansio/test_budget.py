"""The budget of memory: pages shrink as it gets scarce, and all of it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.sansio.budget import LEAST, Budget

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20


def test_a_page_gets_a_share_of_what_is_left() -> None:
    budget = Budget(256 * MIB)
    with budget.making(at_most=1000 * MIB) as first:
        assert first == 64 * MIB
        with budget.making(at_most=1000 * MIB) as second:
            assert second == 48 * MIB
            with budget.making(at_most=MIB) as third:
                assert third == MIB
    assert budget.held == 0


def test_what_waits_to_be_read_is_not_left() -> None:
    budget = Budget(256 * MIB)
    release = budget.hold(128 * MIB)
    with budget.making(at_most=1000 * MIB) as room:
        assert room == 32 * MIB
    release()
    with budget.making(at_most=1000 * MIB) as room:
        assert room == 64 * MIB


def test_small_answers_are_not_worth_counting() -> None:
    budget = Budget(MIB)
    budget.hold(LEAST)()
    budget.hold(LEAST)
    assert budget.held == 0


def test_when_nothing_is_left_there_is_always_a_little() -> None:
    budget = Budget(MIB)
    budget.hold(100 * MIB)
    with budget.making(at_most=1000 * MIB) as room:
        assert room == LEAST
    with budget.making(at_most=10) as room:
        assert room == 10


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100 * MIB)), max_size=60))
def test_everything_held_fits_but_for_the_least_of_each(steps: list[tuple[bool, int]]) -> None:
    total = 64 * MIB
    budget = Budget(total)
    releases: list[Callable[[], None]] = []
    for end, size in steps:
        if end and releases:
            releases.pop()()
            continue
        with budget.making(size) as room:
            assert 0 < room <= size
        releases.append(budget.hold(room))
        assert budget.held <= total + LEAST * len(steps)
    for release in releases:
        release()
    assert budget.held == 0
