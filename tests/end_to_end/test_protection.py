"""Tokens, TLS and Unix sockets, as somebody on the command line would use them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import START_SECONDS, STOP_SECONDS, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "s3cret-of-ada"
QUERY = {"jsonrpc": "2.0", "id": 1, "method": "tables"}


@contextmanager
def running(*arguments: str, **variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command, until it is asked to stop at the end, and the URL it has told."""
    process = subprocess.Popen(
        [sys.executable, "-m", "notebook_rpc", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), **variables},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1], process
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 0, log
    assert "s3cret" not in log


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, token: str | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of a request that has, for POST, a harmless query."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    body = json.dumps(QUERY) if method == "POST" else None
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    is_json = response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(answer) if is_json else {}


def plain(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.split("/")[2], timeout=START_SECONDS)


class OverUnix(http.client.HTTPConnection):
    """As ``curl --unix-socket``."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=START_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


@pytest.mark.parametrize("where", ["flag", "variable", "file"])
def test_with_a_token_the_server_answers_and_without_it_does_not(
    where: str, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# ours\n{SECRET} name=ada\n")
    file.chmod(0o600)
    arguments = {"flag": ("--bearer-token", SECRET), "file": ("--bearer-token-file", str(file))}
    variables = {"NOTEBOOK_RPC_BEARER_TOKEN": SECRET} if where == "variable" else {}
    with running(*arguments.get(where, ()), **variables) as (url, _):
        client = plain(url)
        assert ask(client, "POST", "/", SECRET)[0] == 200
        assert ask(client, "POST", "/", SECRET[:-1])[0] == 401
        assert ask(client, "POST", "/")[0] == 401
        assert ask(client, "GET", "/healthz")[0] == 401
        client.close()


def test_a_session_is_its_makers(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{SECRET} name=ada\nother-s3cret name=bob\n")
    with running("--bearer-token-file", str(file)) as (url, _):
        client = plain(url)
        client.request("POST", "/sessions", headers={"Authorization": f"Bearer {SECRET}"})
        session = json.loads(client.getresponse().read())["url"]
        assert ask(client, "POST", session, SECRET)[0] == 200
        assert ask(client, "POST", session, "other-s3cret")[0] == 404
        assert ask(client, "DELETE", session, "other-s3cret")[0] == 404
        assert ask(client, "DELETE", session, SECRET)[0] == 204
        client.close()


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")  # noqa: PTH112
def test_a_token_is_not_in_the_list_of_processes() -> None:
    with running("--bearer-token", SECRET) as (url, process):
        with open(f"/proc/{process.pid}/cmdline", "rb") as title:  # noqa: PTH123
            assert SECRET.encode() not in title.read()
        client = plain(url)
        assert ask(client, "POST", "/", SECRET)[0] == 200
        client.close()


def test_a_generated_certificate_can_be_trusted() -> None:
    with running("--tls-generate", "--host", "localhost") as (url, _):
        assert url.startswith("https://")
        host, port = url.split("/")[2].rsplit(":", 1)
        shown = ssl.get_server_certificate((host.strip("[]"), int(port)))
        context = ssl.create_default_context(cadata=shown)
        client = http.client.HTTPSConnection("localhost", int(port), context=context)
        assert ask(client, "POST", "/")[0] == 200
        client.close()
        wrong = http.client.HTTPConnection("localhost", int(port))
        assert ask(wrong, "GET", "/healthz")[0] == 400
        wrong.close()


def test_a_unix_socket_answers_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running("--uds", str(path)) as (url, _):
        assert url.startswith("http+unix://")
        client = OverUnix(path)
        assert ask(client, "POST", "/")[0] == 200
        client.close()
    assert not path.exists()


def test_what_is_left_by_a_server_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = [sys.executable, "-m", "notebook_rpc", "serve", "--uds", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.kill()
    assert path.exists()
    with running("--uds", str(path)):
        client = OverUnix(path)
        assert ask(client, "POST", "/")[0] == 200
        client.close()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--host", "0.0.0.0"], 2, "without --bearer-token-file and --tls-cert"),
        (["--host", "0.0.0.0", "--bearer-token", SECRET], 2, "without --tls-cert"),
        (["--bearer-token", "s3cret of ada"], 2, "a token consists of"),
        (["--bearer-token", ""], 2, "a token consists of"),
        (["--bearer-token", "s3cret,s3cret"], 2, "a token consists of"),
        (["sqlite://", "mine://ada:s3cret@h/db"], 2, "one argument too many"),
        (["--bearer-tokn=s3cret"], 2, "did you mean '--bearer-token'?"),
        (["--bearer-token-file", "/nonexistent/tokens"], 2, "cannot read /nonexistent/tokens"),
        (["--tls-cert", "/nonexistent/a.pem"], 2, "need each other"),
        (["--uds", "/nonexistent/socket"], 3, "cannot listen on /nonexistent/socket"),
    ],
)
def test_what_is_refused_is_one_line_without_secrets(
    arguments: list[str], code: int, message: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "notebook_rpc", "serve", "--log-level", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        env=environment(),
    )
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert message in line
    assert "s3cret" not in line
