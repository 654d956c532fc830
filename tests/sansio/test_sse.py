"""Server-sent events: what is written is what a reader reads."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notebook_rpc.sansio import sse
from tests.event_stream import Event, Reader

ANYTHING = st.text(st.characters(exclude_categories=["Cs"]))
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))


def test_an_event_has_its_name_its_id_and_its_data() -> None:
    written = sse.event('{"a":1}', name="initial", id_="7.1")
    assert written == b'event: initial\nid: 7.1\ndata: {"a":1}\n\n'


def test_name_and_id_may_be_left_out() -> None:
    assert sse.event("x") == b"data: x\n\n"
    assert sse.event("x", id_="") == b"id: \ndata: x\n\n"


def test_data_of_several_lines() -> None:
    assert sse.event("a\nb\r\nc\rd") == b"data: a\ndata: b\ndata: c\ndata: d\n\n"


def test_its_parts_are_the_same_as_the_whole() -> None:
    assert sse.opening("n", "i") + sse.lines("d") + b"\n" == sse.event("d", name="n", id_="i")
    assert sse.opening() == b""


def test_a_comment_and_a_time_to_retry_are_no_events() -> None:
    reader = Reader()
    assert reader.feed(sse.KEEPALIVE + sse.retry(1500)) == []
    assert (reader.comments, reader.retry) == (["keepalive"], 1500)
    assert reader.feed(sse.event("x")) == [Event("message", "x", "")]


def test_none_of_them_has_an_empty_line_which_some_readers_take_for_an_event() -> None:
    assert b"\n\n" not in sse.KEEPALIVE + sse.retry(1) + sse.event("x")[:-1]


@pytest.mark.parametrize("wrong", ["a\nb", "a\r", "\n"])
def test_a_name_or_an_id_of_two_lines_is_refused(wrong: str) -> None:
    for arguments in ({"name": wrong}, {"id_": wrong}):
        with pytest.raises(ValueError, match="one line"):
            sse.event("x", **arguments)


def test_an_id_that_readers_ignore_is_refused() -> None:
    with pytest.raises(ValueError, match="NULL"):
        sse.event("x", id_="a\0b")


@given(st.lists(st.tuples(ANYTHING, LINE, st.none() | LINE), max_size=5), st.integers(1, 7))
@example([("", "", None), (" ", " ", " "), ("\n", "", ""), ("\r\n\r", "", None)], 1)
@example([("\ufeff", "", None), ("a\rb", "", None)], 1)
def test_a_reader_gets_what_was_written(
    events: list[tuple[str, str, str | None]], size: int
) -> None:
    stream, expected, last_id = b"", [], ""
    for data, name, id_ in events:
        stream += sse.event(data, name=name, id_=id_)
        last_id = last_id if id_ is None else id_
        lines = data.replace("\r\n", "\n").replace("\r", "\n")
        expected.append(Event(name or "message", lines, last_id))
    assert Reader().feed(stream) == expected
    reader = Reader()
    cut = [stream[place : place + size] for place in range(0, len(stream), size)]
    assert [event for piece in cut for event in reader.feed(piece)] == expected
