"""What subscribers are told: the words of docs/protocols/live.md, byte for byte."""

from __future__ import annotations

import pytest

from notebook_rpc.sansio import live_events
from notebook_rpc.sansio.delta import Delta

DATA = b'data: {"columns":["a","\\u00e9"],"rows":[[1,"x"],[2,"y"]]}\n'


def test_a_result_has_its_columns_and_its_rows() -> None:
    assert live_events.of_result(["a", "é"], ['[1,"x"]', '[2,"y"]']) == DATA
    assert live_events.of_result(["a"], []) == b'data: {"columns":["a"],"rows":[]}\n'


def test_a_difference_has_what_came_what_changed_and_what_went() -> None:
    data = live_events.of_delta(Delta(["[1]"], [("[2]", "[3]")], ["[4]"]))
    told = b'{"inserts":[[1]],"updates":[{"before":[2],"after":[3]}],"deletes":[[4]]}'
    assert data == b"data: " + told + b"\n"
    assert live_events.delta("n.2", data) == b"event: delta\nid: n.2\n" + data + b"\n"


def test_all_of_a_result_is_told_in_three_ways() -> None:
    for name, told in (("initial", live_events.initial), ("update", live_events.update)):
        event = b"".join(told("n.1", DATA))
        assert event == f"event: {name}\nid: n.1\n".encode() + DATA + b"\n"
    assert b"".join(live_events.reload("n.1", DATA)) == (
        b"event: reload\ndata: {}\n\nevent: initial\nid: n.1\n" + DATA + b"\n"
    )


def test_its_data_are_not_copied() -> None:
    for told in (live_events.initial, live_events.update, live_events.reload):
        assert told("n.1", DATA)[1] is DATA


def test_an_error_has_its_words_and_no_id() -> None:
    told = live_events.error('no "t"\nhere')
    assert told == b'event: error\ndata: {"error":"no \\"t\\"\\nhere"}\n\n'


def test_what_utf_8_cannot_carry_is_not_told() -> None:
    with pytest.raises(UnicodeEncodeError):
        live_events.of_result(["a"], ['["\ud800"]'])
