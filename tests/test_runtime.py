"""What scripts import: answers that HTTP can carry, requests, and the calls of other contexts."""

from __future__ import annotations

import dataclasses
import datetime
import json
import threading
import uuid
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import pytest

from notebook_rpc import runtime, web
from notebook_rpc.runtime import BadRequest, Request, http


def request(path: str = "/", query: str = "", body: bytes = b"", **headers: str) -> Request:
    encoded = tuple((name.encode(), value.encode()) for name, value in headers.items())
    return Request(web.Request("GET", path, query, encoded, body, {"id": "7"}, remote="::1"))


def test_a_request_has_what_was_sent() -> None:
    asked = request("/a", "a=1&a=2&b=&c=%C3%A9", b'{"x": 1}', accept="text/html")
    assert (asked.method, asked.path, asked.remote_addr, asked.user) == (
        "GET",
        "/a",
        "::1",
        "anybody",
    )
    assert (asked.path_param("id"), asked.path_param("no"), asked.path_param("no", "x")) == (
        "7",
        None,
        "x",
    )
    assert asked.query == {"a": "2", "b": "", "c": "\u00e9"}
    assert (asked.query_param("a"), asked.query_param("no", "x")) == ("2", "x")
    assert (asked.header("Accept"), asked.header("no"), asked.header("no", "x")) == (
        "text/html",
        None,
        "x",
    )
    assert asked.headers == {"accept": "text/html"}
    assert (asked.body(), asked.content, asked.json()) == ('{"x": 1}', b'{"x": 1}', {"x": 1})


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a": 1} x', b"[" * 100_000, b"NaN"])
def test_a_body_that_is_not_json_is_the_clients_fault(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        request(body=body).json()


def test_json_is_exact_and_always_json() -> None:
    value = {
        "decimal": Decimal("1.10"),
        "whole": 2**70,
        "none": [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity")],
        "text": "NaN",
        "date": datetime.date(2026, 1, 2),
        "time": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "bytes": b"a",
        "id": uuid.UUID(int=1),
        "rows": runtime.Rows([{"a": 1}], ("a",)),
    }
    body = http.json(200, value).body
    assert isinstance(body, bytes)
    assert b'"decimal":1.10,' in body
    found = json.loads(body)
    assert found["none"] == [None] * 4
    assert (found["text"], found["whole"]) == ("NaN", 2**70)
    assert (found["date"], found["time"]) == ("2026-01-02", "2026-01-02T03:04:05")
    assert (found["bytes"], found["rows"]) == ("YQ==", [{"a": 1}])
    assert found["id"] == "00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: http.json(200, object()), TypeError),
        (lambda: http.json("200", None), ValueError),  # type: ignore[arg-type]  # a script has no types
        (lambda: http.text(99, ""), ValueError),
        (lambda: http.text(600, ""), ValueError),
        (lambda: http.text(True, ""), ValueError),
        (lambda: http.text(200, "", {"X-\u00e9": "a"}), UnicodeEncodeError),
        (lambda: http.text(200, "", {"X-A": "a\r\nX-B: b"}), ValueError),
        (lambda: http.text(200, "", {"X-A": "a\0"}), ValueError),
        (lambda: http.text(200, "", {"X-A": " a"}), ValueError),
        (lambda: http.text(200, "", {"X A": "a"}), ValueError),
        (lambda: http.text(200, "", {"": "a"}), ValueError),
        (lambda: http.text(200, "", {"Content-Length": "0"}), ValueError),
        (lambda: http.text(200, "", [("Transfer-Encoding", "chunked")]), ValueError),
        (lambda: http.redirect("/"), None),
        (lambda: http.text(200, "", {"X-A": "", "X-B": "a", "X-C": "a\tb c\u00e9"}), None),
        (lambda: http.stream("text"), TypeError),
        (lambda: http.stream({"a": 1}), TypeError),
        (lambda: http.stream(7), TypeError),  # type: ignore[arg-type]  # as above
    ],
)
def test_what_http_cannot_carry_is_refused_where_it_is_made(
    make: Any, error: type[Exception] | None
) -> None:
    with pytest.raises(error) if error else nullcontext():
        make()


def test_what_is_no_number_is_null_wherever_it_is() -> None:
    @dataclasses.dataclass
    class Point:
        x: Decimal

    body = http.json(200, [Point(Decimal("NaN")), {Decimal("Infinity")}, {"a": (Decimal("-NaN"),)}])
    assert body.body == b'[{"x":null},[null],{"a":[null]}]'
    body = http.json(200, [Point(Decimal("1.10")), "NaN", b"a", {7: datetime.date(2026, 1, 2)}])
    assert body.body == b'[{"x":1.10},"NaN","YQ==",{"7":"2026-01-02"}]'


@pytest.mark.parametrize("piece", [3, None, [1], object()])
def test_a_piece_of_a_stream_is_text_or_bytes(piece: object) -> None:
    encode = http.stream([]).encode
    assert (encode("\u00e9"), encode(b"a"), encode(bytearray(b"b"))) == (b"\xc3\xa9", b"a", b"b")
    with pytest.raises(TypeError):
        encode(piece)


def test_a_form_is_read_as_a_query_is() -> None:
    assert http.parse_query("a=1&a=2&b=") == {"a": "2", "b": ""}


def test_headers_of_the_scripts_own_come_first() -> None:
    answer = http.json(200, 1, {"Content-Type": "application/x", "X-A": "b"})
    assert answer.headers == ((b"content-type", b"application/x"), (b"x-a", b"b"))


def test_an_event_is_a_text_or_json_with_a_name_and_an_id() -> None:
    encode = http.events([]).encode
    assert encode("a\nb") == b"data: a\ndata: b\n\n"
    assert encode({"a": Decimal("1.0")}) == b'data: {"a":1.0}\n\n'
    assert encode(http.event([1], name="n", id="2")) == b"event: n\nid: 2\ndata: [1]\n\n"
    with pytest.raises(ValueError, match="one line"):
        encode(http.event("a", name="b\nc"))


def test_the_databases_are_those_of_a_request() -> None:
    for call in (lambda: runtime.sql.query("select 1"), runtime.sql.session):
        with pytest.raises(RuntimeError, match="no request here"):
            call()


async def test_a_thread_of_ones_own_belongs_to_no_request() -> None:
    class Talk:
        connected = True

        async def send(self, _: str | bytes, /) -> None:
            raise AssertionError

        receive = close = send

    socket = runtime.WebSocket(Talk(), request())  # type: ignore[arg-type]  # as much as is needed
    failures: list[BaseException] = []

    def send() -> None:
        try:
            socket.send("a")
        except RuntimeError as exc:
            failures.append(exc)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    assert "belongs to no request" in str(failures[0])


async def test_a_session_is_used_in_a_block() -> None:
    class Opened:
        async def __aenter__(self) -> Opened:
            return self

        async def __aexit__(self, *_: object) -> None:
            self.closed = True

        async def query(self, sql: str, params: object, /) -> runtime.Rows:
            return runtime.Rows([{"sql": sql, "params": params}])

    opened = Opened()
    session = runtime.Session(opened)
    with pytest.raises(RuntimeError, match="not open"):
        session.query("select 1")
    async with session:
        assert await session.query("select 1", [2]) == [{"sql": "select 1", "params": [2]}]
    assert opened.closed
    with pytest.raises(RuntimeError, match="not open"):
        session.query("select 1")
