"""Requests are read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.transport.requests import ChunkedBody, Head, Refused, parse_head
from notebook_rpc.web import WEBSOCKET


def parse(*lines: str, host: str = "Host: h") -> Head:
    return parse_head("\r\n".join([*lines, host, "", ""]).encode("latin-1"))


def test_a_head_says_what_is_asked_and_how_long_the_body_is() -> None:
    assert parse("POST /a?b=%20 HTTP/1.1", "Content-Length: 5", "X: y") == Head(
        method="POST",
        path="/a",
        query="b=%20",
        headers=((b"content-length", b"5"), (b"x", b"y"), (b"host", b"h")),
        length=5,
        http10=False,
        keep_alive=True,
        expects_continue=False,
    )


def test_no_length_is_no_body_and_chunked_is_an_unknown_length() -> None:
    assert parse("POST / HTTP/1.1").length == 0
    assert parse("POST / HTTP/1.1", "Transfer-Encoding: Chunked").length is None


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (["GET / HTTP/1.1"], True),
        (["GET / HTTP/1.1", "Connection: x, Close"], False),
        (["GET / HTTP/1.1", "Connection: x", "Connection: close"], False),
        (["GET / HTTP/1.0"], False),
        (["GET / HTTP/1.0", "Connection: keep-alive"], False),
    ],
)
def test_who_keeps_a_connection(lines: list[str], keep_alive: bool) -> None:
    assert parse(*lines).keep_alive is keep_alive


def test_an_expectation_counts_from_http_1_1() -> None:
    assert parse("POST / HTTP/1.1", "Expect: 100-Continue").expects_continue
    assert not parse("POST / HTTP/1.0", "Expect: 100-continue").expects_continue
    assert not parse("POST / HTTP/1.1", "Expect: miracles").expects_continue


@pytest.mark.parametrize(
    ("method", "target", "path", "query"),
    [
        ("GET", "/", "/", ""),
        ("GET", "/a%2Fb%20%C3%A9?x?y=%20", "/a/b é", "x?y=%20"),
        ("GET", "//a/./../b", "//a/./../b", ""),
        ("OPTIONS", "*", "*", ""),
        ("GET", "HTTP://other:8080/a?b", "/a", "b"),
        ("GET", "https://other", "/", ""),
        ("GET", "http://other?q", "/", "q"),
        ("OPTIONS", "http://other", "*", ""),
    ],
)
def test_targets(method: str, target: str, path: str, query: str) -> None:
    head = parse(f"{method} {target} HTTP/1.1")
    assert (head.path, head.query) == (path, query)


def test_an_absolute_target_replaces_the_host() -> None:
    head = parse("GET http://other:8080/ HTTP/1.1", "A: b")
    assert head.headers == ((b"host", b"other:8080"), (b"a", b"b"))


@pytest.mark.parametrize(
    "target",
    ["*", "a", "/a#b", "/%", "/%zz", "/%FF", "/%C3", "ftp://h/", "http:///a", "http://u@h/", "h:1"],
)
def test_malformed_targets(target: str) -> None:
    assert refusal(f"GET {target} HTTP/1.1") == 400


@pytest.mark.parametrize("host", ["h", "h:80", "[::1]:80", "[fe80::1%25eth0]", "127.0.0.1", ""])
def test_hosts(host: str) -> None:
    assert parse("GET / HTTP/1.1", host=f"Host: {host}").path == "/"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        pytest.param(["Content-Length: 3", "Content-Length: 3"], 400, id="equal lengths"),
        pytest.param(["Content-Length: 3", "Content-Length: 4"], 400, id="two lengths"),
        pytest.param(["Content-Length: 3, 3"], 400, id="a list of lengths"),
        pytest.param(["Content-Length: +3"], 400, id="a signed length"),
        pytest.param(["Content-Length: 0x3"], 400, id="a hexadecimal length"),
        pytest.param(["Content-Length: "], 400, id="an empty length"),
        pytest.param(["Content-Length: " + "9" * 21], 400, id="an absurd length"),
        pytest.param(["Content-Length: 3", "Transfer-Encoding: chunked"], 400, id="both"),
        pytest.param(["Transfer-Encoding: chunked", "Content-Length: 3"], 400, id="both ways"),
        pytest.param(["Transfer-Encoding: gzip, chunked"], 501, id="a coding before chunked"),
        pytest.param(["Transfer-Encoding: identity"], 501, id="another coding"),
        pytest.param(["Transfer-Encoding: "], 501, id="an empty coding"),
        pytest.param(["Transfer-Encoding: chunked"] * 2, 501, id="chunked twice"),
        pytest.param(["Transfer-Encoding : chunked"], 400, id="space before the colon"),
        pytest.param(["A: b", " c"], 400, id="a folded line"),
        pytest.param(["A: b\x00c"], 400, id="NUL in a value"),
        pytest.param(["A\x00: b"], 400, id="NUL in a name"),
        pytest.param(["A: b\rc"], 400, id="a bare CR"),
        pytest.param(["no colon"], 400, id="no colon"),
        pytest.param(["Host: h"], 400, id="two hosts"),
        pytest.param(["A: b"] * 128, 431, id="too many lines"),
    ],
)
def test_ambiguous_or_malformed_headers(lines: list[str], status: int) -> None:
    assert refusal("POST / HTTP/1.1", *lines) == status


@pytest.mark.parametrize("host", ["A: b", "Host: a b", "Host: a/b", "Host: h:x", "Host: u@h"])
def test_no_host_or_a_bad_one(host: str) -> None:
    with pytest.raises(Refused) as caught:
        parse("GET / HTTP/1.1", host=host)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET / HTTP/2.0", 400),
        ("GET / HTTP/1.2", 400),
        ("GET /", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /\x00 HTTP/1.1", 400),
        ("GET /é HTTP/1.1", 400),
        ("G@T / HTTP/1.1", 400),
        ("CONNECT h:1 HTTP/1.1", 501),
    ],
)
def test_bad_request_lines(line: str, status: int) -> None:
    assert refusal(line) == status


def test_transfer_encoding_was_not_yet_in_http_1_0() -> None:
    assert refusal("POST / HTTP/1.0", "Transfer-Encoding: chunked") == 400


def refusal(*lines: str) -> int:
    with pytest.raises(Refused) as caught:
        parse(*lines)
    return caught.value.status


# WebSockets

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"
ASKED = ["Upgrade: websocket", "Connection: Upgrade", KEY, VERSION]


@pytest.mark.parametrize(
    "lines",
    [
        ASKED,
        ["Upgrade: h2c, WebSocket", "Connection: keep-alive, UPGRADE", KEY, VERSION],
        [
            "Upgrade: h2c",
            "Upgrade: websocket",
            "Connection: a",
            "Connection: upgrade",
            KEY,
            VERSION,
        ],
        [*ASKED, "Content-Length: 0"],
    ],
)
def test_a_get_may_ask_for_a_websocket(lines: list[str]) -> None:
    head = parse("GET /a?b HTTP/1.1", *lines)
    assert (head.method, head.path, head.query) == (WEBSOCKET, "/a", "b")


@pytest.mark.parametrize(
    "lines",
    [
        ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAA"],
        ["Upgrade: websockets", "Connection: Upgrade"],
        ["Connection: Upgrade", KEY, VERSION],
        [KEY, VERSION],
    ],
)
def test_other_upgrades_are_ignored(lines: list[str]) -> None:
    assert parse("GET / HTTP/1.1", *lines).method == "GET"


def test_so_is_every_upgrade_in_http_1_0() -> None:
    assert parse("GET / HTTP/1.0", *ASKED).method == "GET"


@pytest.mark.parametrize(
    ("method", "lines", "status"),
    [
        pytest.param("POST", ASKED, 400, id="another method"),
        pytest.param("GET", ["Upgrade: websocket", KEY, VERSION], 400, id="no Connection"),
        pytest.param("GET", [*ASKED[:2], VERSION], 400, id="no key"),
        pytest.param("GET", [*ASKED, KEY], 400, id="two keys"),
        pytest.param("GET", [*ASKED[:3], KEY[:-1] + "x", VERSION], 400, id="no base64"),
        pytest.param("GET", [*ASKED[:2], KEY[:-4] + "==", VERSION], 400, id="a short key"),
        pytest.param("GET", [*ASKED[:2], KEY + "====", VERSION], 400, id="a long key"),
        pytest.param("GET", ASKED[:3], 400, id="no version"),
        pytest.param("GET", [*ASKED, VERSION], 400, id="two versions"),
        pytest.param("GET", [*ASKED[:3], "Sec-WebSocket-Version: x"], 400, id="an odd version"),
        pytest.param("GET", [*ASKED[:3], "Sec-WebSocket-Version: 8"], 426, id="an old version"),
        pytest.param("GET", [*ASKED[:2], "Sec-WebSocket-Version: 14"], 426, id="a new one"),
        pytest.param("GET", [*ASKED, "Content-Length: 1"], 400, id="a body"),
        pytest.param("GET", [*ASKED, "Transfer-Encoding: chunked"], 400, id="a chunked body"),
    ],
)
def test_who_asks_wrongly_is_refused(method: str, lines: list[str], status: int) -> None:
    assert refusal(f"{method} / HTTP/1.1", *lines) == status


def test_our_own_word_for_it_cannot_be_sent() -> None:
    assert refusal(f"{WEBSOCKET} / HTTP/1.1") == 501
    assert refusal(f"{WEBSOCKET} / HTTP/1.1", *ASKED) == 501


# Chunked bodies


def feed(pieces: list[bytes], limit: int = 10_000) -> tuple[bytes, bytes] | int:
    """The body and what came after it, or the status of the refusal; -1 if it has no end."""
    body, pieces = ChunkedBody(limit), [piece for piece in pieces if piece]
    try:
        while pieces:
            rest = body.feed(pieces.pop(0))
            if rest is not None:
                return bytes(body.data), rest + b"".join(pieces)
    except Refused as exc:
        return exc.status
    return -1


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"0\r\n\r\n", (b"", b"")),
        (b"3\r\nabc\r\n2;a=b\r\nde\r\n0\r\nt: v\r\n\r\nGET", (b"abcde", b"GET")),
        (b"a\r\n0123456789\r\n00\r\n\r\n", (b"0123456789", b"")),
        (b"3\r\nabc", -1),
        (b"3\r\nabcd\r\n", 400),
        (b"3\nabc\n0\n\n", -1),  # a bare LF ends no chunk line; the size goes on
        (b"-1\r\n", 400),
        (b"0x1\r\n", 400),
        (b"\r\n", 400),
        (b"3 a\r\nabc", 400),
        (b"3\x00\r\nabc", 400),
        (b"1" * 21 + b"\r\n", 400),
        (b"0\r\nbad trailer\r\n\r\n", 400),
        (b"ffffffffffffffff\r\n" + b"a" * 10_001, 413),
        (b"1;" + b"e" * 8000 + b"\r\na\r\n0\r\n\r\nGET", (b"a", b"GET")),
        (b"1;" + b"e" * 8200 + b"\r\na\r\n0\r\n\r\n", 400),
        (b"1\r\na\r\n0\r\nt: " + b"v" * 8200 + b"\r\n\r\n", 400),
        (b"1\r\na\r\n" * 3000 + b"0\r\n\r\n", (b"a" * 3000, b"")),
    ],
)
def test_chunked_bodies_whole_and_byte_by_byte(
    data: bytes, outcome: tuple[bytes, bytes] | int
) -> None:
    assert feed([data]) == outcome
    assert feed([data[at : at + 1] for at in range(len(data))]) == outcome


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=20),
    extension=st.integers(0, 9000),
    cut=st.integers(0, 20_000),
)
def test_splits_move_no_limit(chunks: list[bytes], extension: int, cut: int) -> None:
    lines = [b"%x;%b\r\n%b\r\n" % (len(chunk), b"e" * extension, chunk) for chunk in chunks]
    data = b"".join(lines) + b"0\r\n\r\n"
    whole = feed([data], limit=300)
    assert feed([data[:cut], data[cut:]], limit=300) == whole
    if not isinstance(whole, int):
        assert whole == (b"".join(chunks), b"")
