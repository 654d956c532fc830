"""JSON-RPC 2.0, section by section, then what hostile clients send."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.errors import InvalidParams, NotebookError, WrongState
from notebook_rpc.sansio import jsonrpc
from notebook_rpc.sansio.jsonrpc import Call, Refused
from notebook_rpc.sansio.jsontext import MAX_DEPTH

MAX_BATCH = 10
LONG = "1" * 5000


def parse(body: bytes) -> Call | Refused | list[Call | Refused]:
    return jsonrpc.parse(body, MAX_BATCH)


def code(parsed: object) -> int:
    assert isinstance(parsed, Refused)
    return parsed.error.rpc_code


# 4: the request object


@pytest.mark.parametrize(
    "id_",
    [
        b"1",
        b"-0",
        b"1.0",
        b"1e2",
        b"1e999",
        b"1180591620717411303424",
        b"null",
        b'"a"',
        b'"\\u0000"',
    ],
)
def test_the_id_comes_back_as_the_text_that_was_sent(id_: bytes) -> None:
    parsed = parse(b'{"id": %b , "jsonrpc":"2.0","method":"m"}' % id_)
    assert parsed == Call(id_, "m", [])
    assert jsonrpc.result(id_, [b"true"]) == [b'{"jsonrpc":"2.0","id":%b,"result":true}' % id_]


def test_no_id_is_a_notification_and_null_is_an_id() -> None:
    assert parse(b'{"jsonrpc":"2.0","method":"m"}') == Call(None, "m", [])
    assert parse(b'{"jsonrpc":"2.0","method":"m","id":null}') == Call(b"null", "m", [])


@pytest.mark.parametrize("id_", [b"true", b"false", b"[1]", b'{"a":1}'])
def test_an_id_of_another_type_is_an_invalid_request(id_: bytes) -> None:
    parsed = parse(b'{"jsonrpc":"2.0","method":"m","id":%b}' % id_)
    assert code(parsed) == -32600
    assert isinstance(parsed, Refused)
    assert parsed.id == b"null"


@pytest.mark.parametrize(
    "member",
    [
        b'"jsonrpc":"1.0","method":"m"',
        b'"jsonrpc":2.0,"method":"m"',
        b'"method":"m"',
        b'"jsonrpc":"2.0"',
        b'"jsonrpc":"2.0","method":1',
        b'"jsonrpc":"2.0","method":"m","params":"bar"',
        b'"jsonrpc":"2.0","method":"m","params":null',
    ],
)
def test_a_malformed_request_is_refused_under_its_own_id(member: bytes) -> None:
    parsed = parse(b'{"id":7,%b}' % member)
    assert code(parsed) == -32600
    assert isinstance(parsed, Refused)
    assert parsed.id == b"7"


@pytest.mark.parametrize("body", [b"1", b'"x"', b"null", b"true"])
def test_json_that_is_no_object_is_an_invalid_request(body: bytes) -> None:
    assert code(parse(body)) == -32600


# 4.2: parameter structures


class TwoParams(msgspec.Struct, forbid_unknown_fields=True):
    sql: str
    params: list[Any] | None = None


@pytest.mark.parametrize("params", [["q"], ["q", None], {"sql": "q"}, {"params": None, "sql": "q"}])
def test_parameters_bind_by_position_and_by_name(params: jsonrpc.Params) -> None:
    assert jsonrpc.bind("execute", params, TwoParams) == TwoParams("q", None)


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ([], "sql"),
        ([1], "Expected `str`, got `int`"),
        (["q", [], 3], "at most 2 parameters, not 3"),
        ({"sql": "q", "parms": []}, "parms"),
        ({}, "sql"),
    ],
)
def test_parameters_that_do_not_fit_say_which(params: jsonrpc.Params, complaint: str) -> None:
    with pytest.raises(InvalidParams, match="execute") as refused:
        jsonrpc.bind("execute", params, TwoParams)
    assert complaint in str(refused.value)


def test_a_method_without_parameters_says_so() -> None:
    class NoParams(msgspec.Struct):
        pass

    assert jsonrpc.bind("finish", [], NoParams) == NoParams()
    with pytest.raises(InvalidParams, match="finish takes no parameters, not 1"):
        jsonrpc.bind("finish", [1], NoParams)


# 5: the response object


def test_an_error_always_has_a_stacktrace_and_a_slug() -> None:
    answer = json.loads(jsonrpc.error(b"1", WrongState("no")))
    assert answer == {
        "jsonrpc": "2.0",
        "id": 1,
        "error": {
            "code": -32001,
            "message": "no",
            "data": {"stacktrace": "", "slug": "wrong-state"},
        },
    }


def test_an_error_tells_sqlstate_and_position_where_the_database_does() -> None:
    error = NotebookError("no")
    error.sqlstate, error.position = "42601", 8
    data = json.loads(jsonrpc.error(b"1", error, "trace"))["error"]["data"]
    assert data == {
        "stacktrace": "trace",
        "slug": "internal-error",
        "sqlstate": "42601",
        "position": 8,
    }


def test_an_error_message_that_quotes_a_lone_surrogate_can_be_sent() -> None:
    answer = json.loads(jsonrpc.error(b"1", NotebookError("bad \ud800"), "at \udfff"))
    assert answer["error"]["message"] == "bad \\ud800"
    assert answer["error"]["data"]["stacktrace"] == "at \\udfff"


def test_a_large_result_is_passed_on_in_pieces() -> None:
    large = b'"' + b"x" * jsonrpc.SMALL + b'"'
    pieces = jsonrpc.result(b"1", [large])
    assert large in pieces
    assert json.loads(b"".join(pieces))["result"] == large[1:-1].decode()


# 6: batches


def test_a_batch_keeps_its_order_and_judges_each_member_alone() -> None:
    parsed = parse(b' [{"jsonrpc":"2.0","method":"a","id":1}, 1, {"jsonrpc":"2.0","method":"b"}]')
    assert isinstance(parsed, list)
    assert parsed[0] == Call(b"1", "a", [])
    assert code(parsed[1]) == -32600
    assert parsed[2] == Call(None, "b", [])


@pytest.mark.parametrize("space", [b" ", b"\t", b"\r\n", b"\n \t\r"])
def test_a_batch_may_begin_with_any_space_that_json_has(space: bytes) -> None:
    assert parse(space + b'[{"jsonrpc":"2.0","method":"m"}]') == [Call(None, "m", [])]


def test_an_empty_batch_is_an_invalid_request() -> None:
    assert code(parse(b"[]")) == -32600


def test_a_batch_over_the_limit_is_refused_as_one() -> None:
    member = b'{"jsonrpc":"2.0","method":"m"}'
    assert isinstance(parse(b"[" + b",".join([member] * MAX_BATCH) + b"]"), list)
    assert code(parse(b"[" + b",".join([member] * (MAX_BATCH + 1)) + b"]")) == -32600


# Hostile JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[1,",
        b"nul",
        b"{'a':1}",
        b'{"jsonrpc":"2.0","method":"m","id":1}x',
        b'{"jsonrpc":"2.0","method":"m","id":NaN}',
        b'{"jsonrpc":"2.0","method":"m","params":[Infinity],"id":1}',
        b'{"jsonrpc":"2.0","method":"m","params":["\xff"],"id":1}',
        b'{"jsonrpc":"2.0","method":"m","skipped":"\xff","id":1}',
        b'{"jsonrpc":"2.0","method":"m","params":["\\ud800"],"id":1}',
        b'{"jsonrpc":"2.0","method":"m","id":01}',
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b'{"jsonrpc":"2.0","method":"m","params":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b"\xef\xbb\xbf{}",
        b'{"jsonrpc":"2.0","method":"a\nb"}',
    ],
    ids=lambda body: repr(body[:50]),
)
def test_what_is_not_json_is_a_parse_error(body: bytes) -> None:
    parsed = parse(body)
    assert code(parsed) == -32700
    assert isinstance(parsed, Refused)
    assert parsed.id == b"null"


def test_what_is_nested_too_deeply_is_told_so() -> None:
    parsed = parse(b"[" * 1_000_000)
    assert isinstance(parsed, Refused)
    assert str(parsed.error) == "the request has too much in it: nested deeper than 128 levels"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_allowed_up_to_its_limit_and_not_one_level_more(
    opening: bytes, closing: bytes
) -> None:
    def request(levels: int) -> bytes:
        inner = opening * (levels - 2) + b"1" + closing * (levels - 2)
        return b'{"jsonrpc":"2.0","method":"m","params":[%b],"id":1}' % inner

    for limit in (3, MAX_DEPTH, 500):  # the last is the most that can be set
        assert isinstance(jsonrpc.parse(request(limit), 1, limit), Call)
        assert code(jsonrpc.parse(request(limit + 1), 1, limit)) == -32700
        assert isinstance(jsonrpc.parse(b"[%b]" % request(limit - 1), 1, limit), list)
        assert code(jsonrpc.parse(b"[%b]" % request(limit), 1, limit)) == -32700


@pytest.mark.parametrize("number", ["1e999", "-1e999", LONG])
def test_a_number_out_of_range_makes_the_parameters_invalid(number: str) -> None:
    parsed = parse(f'{{"jsonrpc":"2.0","method":"m","params":[{number}],"id":3}}'.encode())
    assert code(parsed) == -32602
    assert isinstance(parsed, Refused)
    assert parsed.id == b"3"


def test_big_integers_stay_exact() -> None:
    parsed = parse(b'{"jsonrpc":"2.0","method":"m","params":[%d],"id":1}' % 10**40)
    assert parsed == Call(b"1", "m", [10**40])


def test_of_duplicate_keys_the_last_counts() -> None:
    parsed = parse(b'{"jsonrpc":"2.0","method":"a","id":1,"method":"b","id":2}')
    assert parsed == Call(b"2", "b", [])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)
requests = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": st.text(st.characters(codec="utf-8"))},
    optional={
        "id": st.none() | st.integers() | st.text(st.characters(codec="utf-8")),
        "params": st.lists(json_values) | st.dictionaries(st.text("ab"), json_values),
    },
)


@given(requests, st.booleans())
def test_a_request_survives_the_wire(request: dict[str, Any], ascii_only: bool) -> None:
    parsed = parse(json.dumps(request, ensure_ascii=ascii_only).encode())
    assert isinstance(parsed, Call)
    assert parsed.method == request["method"]
    assert parsed.params == request.get("params", [])
    if "id" in request:
        assert parsed.id is not None
        assert json.loads(parsed.id) == request["id"]
    else:
        assert parsed.id is None
