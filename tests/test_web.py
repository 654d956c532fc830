"""What a request says of itself."""

from __future__ import annotations

import pytest

from notebook_rpc.web import Request


def test_of_several_arguments_with_one_name_the_last_counts() -> None:
    request = Request("GET", "/", "a=1&b=&a=%C3%A9+x", ())
    assert request.arguments == {"a": "é x", "b": ""}
    assert [request.argument(name) for name in "abc"] == ["é x", "", None]


def test_the_query_is_parsed_once() -> None:
    request = Request("GET", "/", "a=1", ())
    assert request.arguments is request.arguments


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        (None, False),
        ("text/plain", False),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/jsonp", False),
    ],
)
def test_whether_a_body_is_json(content_type: str | None, is_json: bool) -> None:
    headers = () if content_type is None else ((b"content-type", content_type.encode()),)
    assert Request("POST", "/", "", headers).is_json is is_json
