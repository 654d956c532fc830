"""ADONotebook.CLI as it is: the bytes it was recorded to send, and what it needs to get.

``adonotebook-cli.txt`` has one recorded segment a line, as a Python bytes literal. The client
sends the head of each request and its body apart, and every request expects 100 Continue.
"""

from __future__ import annotations

import ast
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDED: list[bytes] = [
    ast.literal_eval(line)
    for line in Path(__file__).with_name("adonotebook-cli.txt").read_text().splitlines()
]


class Cli:
    """Sends what the client would send, on its one connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.file = self.socket.makefile("rb")
        self.first = True

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def segments(self, method: str, *params: object) -> tuple[bytes, bytes]:
        body = json.dumps(
            {"id": 1, "jsonrpc": "2.0", "method": method, "params": list(params)}, indent=2
        ).encode()
        keep_alive = b"Connection: keep-alive\r\n" if self.first else b""
        self.first = False
        head = (
            b"POST / HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"Accept: application/json; application/json-rpc\r\n"
            b"Content-Length: %d\r\nExpect: 100-continue\r\n%bHost: localhost:%d\r\n\r\n"
        ) % (len(body), keep_alive, self.port)
        return head, body

    def call(self, method: str, *params: object) -> Any:
        head, body = self.segments(method, *params)
        self.socket.sendall(head)
        assert self.read_head() == ["HTTP/1.1 100 Continue"]
        self.socket.sendall(body)
        status, *headers = self.read_head()
        assert status == "HTTP/1.1 200 OK"
        fields = dict(line.split(": ", 1) for line in headers)
        # It compares the whole value: with a charset it says that this is not JSON.
        assert fields["content-type"] == "application/json"
        answer = json.loads(self.file.read(int(fields["content-length"])))
        assert answer["id"] == 1
        if "error" in answer:
            # It dereferences these without looking whether they are there.
            assert isinstance(answer["error"]["data"]["stacktrace"], str)
            return answer["error"]
        assert "error" not in answer
        return answer["result"]

    def read_head(self) -> list[str]:
        lines = []
        while line := self.file.readline().rstrip(b"\r\n"):
            lines.append(line.decode())
        return lines

    def query(self, sql: str) -> tuple[list[str], list[dict[str, str | None]]]:
        """What it does for a query: page by 100 until a page is empty."""
        assert self.call("execute", sql) is True
        columns = [column["column"] for column in self.call("metadata")]
        rows: list[dict[str, str | None]] = []
        while page := self.call("page", 100):
            assert len(page) <= 100
            rows += page
        assert self.call("finish") is True
        return columns, rows


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def cli(server: Server) -> Iterator[Cli]:
    cli = Cli(server.port)
    yield cli
    cli.close()


def test_our_stand_in_sends_the_recorded_bytes(server: Server) -> None:
    cli = Cli(server.port)
    cli.port = 21995  # of the recording
    for head, body in zip(RECORDED[::2], RECORDED[1::2], strict=True):
        call = json.loads(body)
        assert cli.segments(call["method"], *call["params"]) == (head, body)
    cli.close()


def test_the_recorded_session_gets_an_answer_to_everything(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        file = client.makefile("rb")
        for head, body in zip(RECORDED[::2], RECORDED[1::2], strict=True):
            client.sendall(head)
            assert file.readline() + file.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body)
            length = 0
            while (line := file.readline()) != b"\r\n":
                if line.startswith(b"content-length: "):
                    length = int(line.split()[1])
            assert "result" in (answer := json.loads(file.read(length))) or "error" in answer
        file.close()
    assert server.wait() == 0  # the last call was quit


def test_a_whole_walk(cli: Cli, server: Server) -> None:
    assert cli.query(
        "create table numbers as select range as n, range % 3 = 0 as third\nfrom range(10007);"
    ) == ([], [])
    assert cli.call("execute", "create view thirds as select n from numbers where third;") is True
    assert cli.call("metadata") == []
    assert cli.call("count") == 0
    assert cli.call("finish") is True
    table = {"catalog": "memory", "schema": "main"}
    assert cli.call("tables") == [{**table, "table": "numbers"}]
    assert cli.call("views") == [{**table, "table": "thirds"}]
    assert cli.call("columns", "memory", "main", "numbers") == [
        {**table, "table": "numbers", "column": "n", "datatype": "BIGINT"},
        {**table, "table": "numbers", "column": "third", "datatype": "BOOLEAN"},
    ]
    columns, rows = cli.query("select *\nfrom numbers\norder by n\n;")
    assert columns == ["n", "third"]
    assert [row["n"] for row in rows] == [str(n) for n in range(10007)]
    assert cli.call("execute", "select nothing;")["code"] == -32011
    assert cli.call("finish")["code"] == -32001  # it calls finish after a failed execute too
    assert cli.call("execute", "insert into numbers select 1, true from range(7);") is True
    assert cli.call("metadata") == []
    assert cli.call("count") == 7
    assert cli.call("finish") is True
    assert cli.call("quit") is None
    assert server.wait() == 0


# Bugs of the reference server, which ours must not have.


def test_no_row_is_lost_at_a_page_boundary(cli: Cli) -> None:
    assert len(cli.query("select * from range(250);")[1]) == 250


def test_null_is_null_and_not_an_empty_string(cli: Cli) -> None:
    assert cli.query("select null as a, '' as b;") == (["a", "b"], [{"a": None, "b": ""}])


def test_duplicate_column_names_are_made_distinct(cli: Cli) -> None:
    assert cli.query("select 1 as a, 2 as a;") == (["a", "a_1"], [{"a": "1", "a_1": "2"}])


def test_a_wrong_request_does_not_end_the_process(cli: Cli, server: Server) -> None:
    for head in (b"GET / HTTP/1.1", b"POST /x HTTP/1.1", b"POST / HTTP/1.1\r\nContent-Type: a/b"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as other:
            other.sendall(head + b"\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 4")
    assert cli.query("select 1 as a;")[1] == [{"a": "1"}]


def test_a_chunked_body_is_as_good_as_any(cli: Cli, server: Server) -> None:
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "tables"}'
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as other:
        other.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        )
        assert other.makefile("rb").read().endswith(b'"result":[]}')
    assert cli.call("tables") == []


def test_half_a_body_blocks_nobody(cli: Cli, server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as other:
        other.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 1000\r\n\r\n{"jsonrpc"'
        )
        assert cli.query("select 1 as a;")[1] == [{"a": "1"}]
