"""The fuzz target of HTTP/1.1, run as a property test: its seeds, and what they turn into."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets.http11 import SEEDS, target

LINES = [
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"GET / HTTP/1.1\r\n", b"POST /stream HTTP/1.0\r\n",
    b"Host: h\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"5\r\nhello\r\n", b"a" * 3000,
    b"x:\r\n" * 130, b"1;" + b"e" * 9000 + b"\r\n",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One or two seeds in a row, with a few places cut out or written over."""
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 8)))
        data = data[:at] + draw(st.sampled_from(LINES) | st.binary(max_size=4)) + data[until:]
    return data


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seeds(seed: bytes) -> None:
    target(seed)


@given(mutated() | st.lists(st.sampled_from(LINES)).map(b"".join))
@settings(max_examples=300, deadline=None)
def test_what_the_seeds_turn_into(data: bytes) -> None:
    target(data)
