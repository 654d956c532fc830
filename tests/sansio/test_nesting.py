"""How deep JSON is nested, against a model that counts as it parses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.sansio.nesting import excess

TEXTS = st.text(st.sampled_from('[]{}"\\ a\u00e9'), max_size=8)
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def is_deeper(text: bytes, limit: int) -> bool:
    return excess(text, limit) == f"nested deeper than {limit} levels"


def depth(value: object) -> int:
    match value:
        case list():
            return 1 + max(map(depth, value), default=0)
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(VALUES)
def test_the_depth_of_json_is_that_of_its_value(value: object) -> None:
    for spelled in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        text = spelled.encode()
        assert not is_deeper(text, depth(value))
        if depth(value):
            assert is_deeper(text, depth(value) - 1)


@given(st.binary() | st.text(st.sampled_from('[]{}"\\')).map(str.encode), st.integers(0, 9))
def test_whatever_it_is_it_is_judged(text: bytes, limit: int) -> None:
    told = excess(text, limit, limit)
    assert told in (None, f"nested deeper than {limit} levels", f"more than {limit} values")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b"[1,2,3]", 3),
        (b"[[],[],[]]", 6),
        (b'{"a,a":1,"b[":2}', 2),
        (b'["a","b","c"]', 3),
        (b'["' + b",[{" * 9 + b'"]', 1),
    ],
)
def test_values_are_counted_where_they_are_not_in_strings(text: bytes, values: int) -> None:
    assert excess(text, 9, values) is None
    assert excess(text, 9, values - 1) == f"more than {values - 1} values"


def test_strings_are_counted_too_so_that_looking_for_them_takes_no_time() -> None:
    assert excess(b'"",' * 4 + b"[" * 9, 9, 14) is None
    assert excess(b'""' * 15 + b"[" * 15, 9, 14) == "more than 14 values"


@pytest.mark.parametrize("text", [b"[" * 129, b'{"a":' * 129, b"[{" * 65, b"[" * 129 + b"]" * 129])
def test_what_is_never_closed_is_as_deep_as_it_is_opened(text: bytes) -> None:
    assert is_deeper(text, 128)


def test_a_long_way_is_counted_to_its_end() -> None:
    shallow = b"[[],[]," * 10_000
    assert is_deeper(shallow, 9_999)
    assert not is_deeper(shallow + b"]" * 10_000, 10_001)
    assert is_deeper(b"[" + b"[]," * 10_000 + b"[[[]]]]", 3)
    assert not is_deeper(b"[" + b"[]," * 10_000 + b"[[[]]]]", 4)


@pytest.mark.parametrize(
    "text", [b"[]" * 200, b'"' + b"[" * 200, rb'"\"' + b"[" * 200 + b'"', b"]" * 200 + b"[" * 128]
)
def test_what_lies_beside_or_in_strings_is_not_deep(text: bytes) -> None:
    assert not is_deeper(text, 128)
