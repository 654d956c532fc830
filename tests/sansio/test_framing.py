from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.sansio.framing import Lines


def cut(*pieces: bytes, max_line: int = 100) -> list[bytes]:
    lines = Lines(max_line)
    return [line for piece in pieces for line in lines.feed(piece)] + lines.end()


def test_a_line_ends_with_a_line_feed_and_the_last_one_need_not() -> None:
    assert cut(b"a\nb\r\nc") == [b"a", b"b", b"c"]


def test_empty_lines_are_left_out() -> None:
    assert cut(b"\n\na\n  \n\r\n") == [b"a"]


def test_a_line_over_the_limit_is_cut_off_and_the_next_one_is_whole() -> None:
    assert cut(b"x" * 30, b"x" * 30 + b"\ny\n", max_line=10) == [b"x" * 10, b"y"]


def test_nothing_is_kept_beyond_the_limit() -> None:
    lines = Lines(10)
    for _ in range(1000):
        assert lines.feed(b"x" * 1000) == []
    assert lines.end() == [b"x" * 10]


@given(st.lists(st.binary(max_size=20), max_size=6), st.data())
def test_it_does_not_matter_how_the_bytes_arrive(
    messages: list[bytes], data: st.DataObject
) -> None:
    text = b"\n".join(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert cut(*pieces) == cut(text) == cut(*(bytes([byte]) for byte in text))
