"""JSON text: bounds, refusals, and what cannot be written as it is."""

from __future__ import annotations

import msgspec
import pytest

from notebook_rpc.errors import InvalidRequest, ParseError
from notebook_rpc.sansio.jsontext import encode, read


class Asked(msgspec.Struct):
    sql: str
    params: list[object] = msgspec.field(default_factory=list)


def test_bytes_and_text_are_read_alike() -> None:
    for text in ('{"sql":"é","more":[1]}', '{"sql":"é","more":[1]}'.encode()):
        assert read(text, Asked) == Asked("é")


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b'{"sql":"x","more":"\xff"}', '"\udc80"', b"NaN", b'{"sql":"x"} 1'],
)
def test_what_is_no_json_is_a_parse_error(text: bytes | str) -> None:
    with pytest.raises(ParseError, match="not JSON"):
        read(text, Asked)


def test_what_is_something_else_says_what_is_wrong() -> None:
    with pytest.raises(InvalidRequest, match="required field `sql`"):
        read(b"{}", Asked)


def test_too_much_is_not_even_looked_at() -> None:
    deep = '{"sql":"x","params":' + "[" * 4 + "]" * 4 + "}"
    assert read(deep, Asked, 5).params == [[[[]]]]
    with pytest.raises(ParseError, match="nested deeper than 4 levels"):
        read(deep, Asked, 4)
    with pytest.raises(ParseError, match="more than 1000000 values"):
        read(b"[" + b"[]," * 1_000_000 + b"no JSON", Asked)


def test_what_utf_8_does_not_know_is_written_as_python_does() -> None:
    assert encode({"\udc80": ["a\ud800é", ("\udfff",)], "n": 1}) == (
        '{"\\\\udc80":["a\\\\ud800é",["\\\\udfff"]],"n":1}'.encode()
    )
    assert encode(Asked("\udc80")) == b'{"sql":"\\\\udc80","params":[]}'
