"""Every limit at its edge: what is exactly as large as may be works, one more does not.

The table in docs/configuration.md names these tests, and is held to them by tests/docs.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from notebook_rpc.sansio.nesting import MAX_VALUES
from tests.support import Client, RpcError, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

CALL = b'{"jsonrpc": "2.0", "id": 1, "method": "tables"}'
START = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    limits = {
        "--max-header": "1000",
        "--max-body": "2000",
        "--max-batch": "3",
        "--max-depth": "5",
        "--max-sessions": "2",
        "--max-page": "91",
        "--max-sql": "1000",
        "--header-timeout": "0.5",
        "--body-timeout": "0.5",
        "--body-rate": "100",
        "--idle-timeout": "0.5",
        "--query-timeout": "0.5",
    }
    with Server("fake://", *(part for limit in limits.items() for part in limit)) as server:
        yield server


def told(server: Server, data: bytes) -> bytes:
    """The status line and headers of the answer to *data*, b"" if there is none."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(data)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := client.recv(65536)):
            answer += more
        return answer.partition(b"\r\n\r\n")[0]


def status(server: Server, data: bytes) -> int:
    return int(told(server, data).split()[1])


def posted(server: Server, message: bytes) -> tuple[int, Any]:
    """The status of the answer to *message*, and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", "/", message, {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if body else None
    finally:
        connection.close()


# Sizes and numbers


def test_a_head_may_have_its_size_and_no_byte_more(server: Server) -> None:
    start = START + b"Content-Length: %d\r\nX: " % len(CALL)
    for size, expected in ((1000, 200), (1001, 431)):
        filler = b"y" * (size - len(start) - len(b"\r\n\r\n"))
        assert status(server, start + filler + b"\r\n\r\n" + CALL) == expected


def test_a_head_may_have_128_lines_and_not_one_more(server: Server) -> None:
    start = START + b"Content-Length: %d\r\n" % len(CALL)  # four lines, with the first
    for lines, expected in ((128, 200), (129, 431)):
        more = b"X:\r\n" * (lines - 4 - 1)  # the last line is blank
        assert status(server, start + more + b"\r\n" + CALL) == expected


def test_a_body_may_have_its_size_and_no_byte_more(server: Server) -> None:
    for size, expected in ((2000, 200), (2001, 413)):
        body = CALL + b" " * (size - len(CALL))
        counted = START + b"Content-Length: %d\r\n\r\n" % size + body
        chunked = (
            START + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + body + b"\r\n0\r\n\r\n"
        )
        assert status(server, counted) == expected
        assert status(server, chunked) == expected


def test_a_batch_may_have_its_length_and_no_call_more(server: Server) -> None:
    code, answers = posted(server, b"[" + b",".join([CALL] * 3) + b"]")
    assert (code, len(answers)) == (200, 3)
    code, answer = posted(server, b"[" + b",".join([CALL] * 4) + b"]")
    assert (code, answer["error"]["data"]["slug"]) == (200, "invalid-request")


def test_json_may_be_nested_so_deep_and_no_deeper(server: Server) -> None:
    def request(depth: int) -> bytes:
        inner = b"[" * (depth - 1) + b"]" * (depth - 1)
        return b'{"jsonrpc": "2.0", "id": 1, "method": "progress", "params": %b}' % inner

    _, answer = posted(server, request(5))
    assert answer["error"]["data"]["slug"] == "invalid-params"  # read, and found to be one too many
    _, answer = posted(server, request(6))
    assert answer["error"]["data"]["slug"] == "parse-error"
    assert "nested deeper than 5 levels" in answer["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/api/query", "/mosaic", "/api/contexts/default/connections/default/query"]
)
def test_the_same_goes_for_json_in_other_protocols(server: Server, path: str) -> None:
    for depth in (5, 6):
        inner = b"[" * (depth - 1) + b"]" * (depth - 1)
        body = b'{"type": "json", "sql": "", "params": %b}' % inner
        with closing(
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        ) as connection:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.status == 400
            assert (b"nested deeper than 5 levels" in response.read()) == (depth > 5)


def test_and_for_what_is_subscribed_to(server: Server) -> None:
    for depth in (5, 6):
        params = "%5B" * depth + "%5D" * depth
        status, _, answer = ask(server, "GET", f"/api/subscribe?query=nothing&params={params}")
        assert status == 400
        assert ("nested deeper than 5 levels" in answer["error"]) == (depth > 5)


def test_json_may_have_so_many_values_and_no_more() -> None:
    head, tail = b'{"jsonrpc":"2.0","id":1,"method":"tables","params":[[', b"1]]}"
    before = 3 + 3  # brackets and commas
    with Server("fake://") as server:
        for values, slug in ((MAX_VALUES, "invalid-params"), (MAX_VALUES + 1, "parse-error")):
            _, answer = posted(server, head + b"1," * (values - before) + tail)
            assert answer["error"]["data"]["slug"] == slug
        _, answer = posted(server, head + b"[]," * 20_000_000 + tail)
        assert answer["error"]["data"]["slug"] == "parse-error"
        assert server.peak_memory() < 400_000_000  # and not two gigabytes of lists


def ask(server: Server, method: str, path: str) -> tuple[int, Any, Any]:
    """Status, headers and JSON body of the answer to a request without a body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        return response.status, response.headers, json.loads(body) if body else None
    finally:
        connection.close()


def test_so_many_sessions_may_be_made_and_no_more(server: Server) -> None:
    made = [ask(server, "POST", "/sessions") for _ in range(2)]
    assert [code for code, *_ in made] == [201, 201]
    code, headers, body = ask(server, "POST", "/sessions")
    assert (code, headers["retry-after"], body["slug"]) == (503, "1", "too-many-sessions")
    assert ask(server, "DELETE", made.pop()[2]["url"])[0] == 204
    made.append(ask(server, "POST", "/sessions"))
    assert [ask(server, "DELETE", body["url"])[0] for *_, body in made] == [204, 204]


def test_a_page_may_have_its_size_and_no_byte_more(server: Server) -> None:
    with server.client() as client:
        client.call("execute", "rows 10")
        page = client.call("page", 9)
        assert len(page) == 9
        assert len(json.dumps(page, separators=(",", ":"))) == 91  # all there may be
        client.call("finish")
        client.call("execute", "rows 10")
        assert len(client.call("page", 1)) == 1
        assert len(client.call("page", 9)) == 8  # with the row 10 it would have been 92
        assert client.call("page", 9) == [{"n": "10"}]
        client.call("finish")


def test_a_statement_may_have_its_size_and_no_character_more(server: Server) -> None:
    sql = "rows 1".ljust(1000)
    with server.client() as client:
        client.call("execute", sql)
        client.call("finish")
        with pytest.raises(RpcError, match=r"SQL may have 1000 characters \(--max-sql\)"):
            client.call("execute", sql + " ")
    for size, answer in ((1000, b"200 OK"), (1001, b"400 Bad Request")):
        body = json.dumps({"type": "json", "sql": sql.ljust(size)}).encode()
        head = b"POST /mosaic HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        assert told(server, head % len(body) + body).startswith(b"HTTP/1.1 " + answer)


def test_so_many_connections_may_be_open_and_no_more() -> None:
    two = ("fake://", "--max-connections", "2")
    with Server(*two) as server, server.client() as first, server.client() as second:
        first.call("progress")
        second.call("progress")
        answer = told(server, b"")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer


# Waiting


def busy(client: Client, *call: str) -> None:
    with pytest.raises(RpcError) as refused:
        client.call(*call)
    assert (refused.value.code, refused.value.data["slug"]) == (-32006, "busy")


def wait_for(server: Server, **expected: int) -> None:
    """Until so many calls run or wait, as /readyz has it."""
    while not ask(server, "GET", "/readyz?verbose")[2]["calls"].items() >= expected.items():
        continue


def test_so_many_calls_may_wait_for_a_session_and_no_more() -> None:
    with Server("fake://", "--max-queue", "2") as server:
        running, *waiting, other = (server.client() for _ in range(4))
        running.send("execute", "wait")
        wait_for(server, running=1)
        for number, client in enumerate(waiting, 1):
            client.send("tables")
            while other.call("progress")["waiting"] < number:
                continue
        busy(other, "tables")
        assert other.call("cancel") is True
        with pytest.raises(RpcError, match="cancelled"):
            running.receive()
        for client in waiting:
            assert client.receive()
        assert other.call("tables")
        for client in (running, *waiting, other):
            client.connection.close()


def test_so_many_calls_may_wait_for_a_thread_and_no_more() -> None:
    with Server("fake://", "--max-queue", "1", "--max-threads", "1") as server:
        running, waiting, refused = (server.session() for _ in range(3))
        running.send("execute", "wait")
        wait_for(server, running=1)
        waiting.send("execute", "rows 1")
        wait_for(server, running=1, waiting=1)
        busy(refused, "execute", "rows 1")
        code, headers, body = ask(server, "POST", "/sessions")
        assert (code, headers["retry-after"], body["slug"]) == (503, "1", "busy")
        with server.client(running.path) as other:
            assert other.call("cancel") is True
        assert waiting.receive() is True
        assert refused.call("execute", "rows 1") is True  # nothing was lost but the one call
        for client in (running, waiting, refused):
            client.connection.close()


# Times


def test_a_head_that_does_not_come_is_told_so(server: Server) -> None:
    assert status(server, START) == 408


def test_a_body_that_does_not_come_is_told_so(server: Server) -> None:
    assert status(server, START + b"Content-Length: 2000\r\n\r\n" + CALL) == 408


def test_what_has_come_of_a_body_gives_it_more_time(server: Server) -> None:
    """A hundred bytes a second are allowed here: 1000 at once give ten seconds more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        body = CALL + b" " * (1100 - len(CALL))
        client.sendall(START + b"Content-Length: 1100\r\n\r\n" + body[:1000])
        assert not select.select([client], [], [], 1)[0]  # twice the time without them
        client.sendall(body[1000:])
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_connection_without_a_request_is_closed_without_a_word(server: Server) -> None:
    began = time.monotonic()
    assert told(server, b"") == b""
    assert time.monotonic() - began < 10


def test_a_call_that_takes_too_long_is_interrupted(server: Server) -> None:
    with server.client() as client:
        with pytest.raises(RpcError) as error:
            client.call("execute", "wait")
        assert error.value.data["slug"] == "query-timeout"
        assert client.call("execute", "rows 1") is True
        client.call("finish")


def test_who_does_not_read_an_answer_is_cut_off() -> None:
    with Server("fake://", "--send-timeout", "0.5") as server, server.client() as client:
        client.call("execute", "big 30000000")
        client.send("page", 1)
        cut_off = select.poll()
        cut_off.register(client.connection.sock, 0)  # of errors it tells all the same
        assert cut_off.poll(30_000)
        with pytest.raises((OSError, http.client.IncompleteRead)):
            client.receive()
