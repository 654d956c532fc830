"""Response heads are valid or refused; bodies go out in pieces of a bounded size."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.transport.responses import PIECE, HeadWriter, pieces


def writer(now: float = 784111777) -> HeadWriter:
    return HeadWriter(lambda: now)


def test_a_response_head_has_a_phrase_the_headers_and_the_date() -> None:
    assert writer().write(200, ((b"X-A", b"b"),), b"content-length: 0\r\n") == (
        b"HTTP/1.1 200 OK\r\nX-A: b\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"content-length: 0\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (404, b"404 Not Found"),
        (431, b"431 Request Header Fields Too Large"),
        (499, b"499 Cancelled"),
        (599, b"599 "),
    ],
)
def test_reason_phrases(status: int, line: bytes) -> None:
    assert writer().opening(status, ()) == b"HTTP/1.1 %b\r\n" % line


def test_the_date_is_made_once_a_second() -> None:
    now = [10.0]
    heads = HeadWriter(lambda: now[0])
    at_10 = heads.write(200, (), b"")
    now[0] = 10.9
    assert heads.write(200, (), b"") == at_10
    now[0] = 11.0
    assert b"00:00:11 GMT" in heads.write(200, (), b"")


@pytest.mark.parametrize("bad", [b"a\r\nb: c", b"a\nb", b"\x00", b" a"])
def test_a_header_that_cannot_be_sent_is_a_bug_of_the_handler(bad: bytes) -> None:
    with pytest.raises(h11.LocalProtocolError):
        writer().opening(200, ((b"a", bad),))


@pytest.mark.parametrize("status", [0, 100, 199, 1000])
def test_so_is_a_status_that_is_not_final(status: int) -> None:
    with pytest.raises(h11.LocalProtocolError):
        writer().opening(status, ())


@pytest.mark.parametrize("name", [b"Content-Length", b"Date", b"transfer-encoding"])
def test_and_a_header_that_is_ours(name: bytes) -> None:
    value = b"chunked" if name == b"transfer-encoding" else b"1"
    with pytest.raises(ValueError, match="must not set"):
        writer().opening(200, ((name, value),))


def test_what_is_remembered_is_bounded_and_right() -> None:
    heads = writer()
    for _ in range(2):
        for number in range(1000):
            expected = b"HTTP/1.1 200 OK\r\nn: %d\r\n" % number
            assert heads.opening(200, ((b"n", b"%d" % number),)) == expected
    remembered = heads._remembered  # noqa: SLF001 - nothing else shows that memory is bounded
    assert len(remembered) <= HeadWriter.MAX_REMEMBERED


@given(st.lists(st.sampled_from([0, 1, 1000, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE]), max_size=8))
def test_pieces_are_the_body_in_order_few_and_never_too_large(sizes: list[int]) -> None:
    body = [bytes([number]) * size for number, size in enumerate(sizes)]
    parts = [bytes(part) for part in pieces(b"opening", body)]
    assert b"".join(parts) == b"opening" + b"".join(body)
    assert all(0 < len(part) <= PIECE for part in parts)
    assert all(len(one) + len(other) > PIECE for one, other in pairwise(parts))
