"""The command ``serve`` as its users meet it: a process, its output, its exit code."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import duckdb
import pytest

from tests.support import Client, RpcError, Server, environment

if TYPE_CHECKING:
    from pathlib import Path

SLOW = "select count(*) from range(10000000) a, range(10000000) b where a.range + b.range = 3"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "notebook_rpc", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )


def only_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


# Starting


def test_the_first_line_names_the_url() -> None:
    with Server() as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)


def test_localhost_is_every_address_it_stands_for_on_one_port() -> None:
    with Server("--host", "localhost") as server:
        for family, *_, address in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM):
            with socket.socket(family) as client:
                client.connect((address[0], server.port))


def test_a_duckdb_file_is_served_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "some.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table t as select 42 as answer")
    with Server(str(path)) as server, server.client() as client:
        assert client.rows("select * from t") == [{"answer": "42"}]


def test_a_sqlite_file_is_served_by_url_and_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t as select 42 as answer")
    connection.close()
    for url in (f"sqlite:///{path}", str(path)):
        with Server(url) as server, server.client() as client:
            assert client.rows("select * from t") == [{"answer": "42"}]


def test_properties_reach_the_driver() -> None:
    with Server("-P", "threads", "1") as server, server.client() as client:
        assert client.rows("select current_setting('threads') as n") == [{"n": "1"}]


def test_settings_come_from_file_and_environment_too(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('stack-traces = true\nlog-format = "json"\n[properties]\nthreads = 1\n')
    with Server("--config", str(config)) as server, server.client() as client:
        answer = client.rows("select current_setting('threads') as n")
        assert answer == [{"n": "1"}]
    assert all("message" in json.loads(line) for line in server.log)


# Refusing to start


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["serve", "--prot", "1"], 2, "did you mean '--port'?"),
        (["serve", "--port", "x"], 2, "--port must be a whole number"),
        (["serve", "duckbd://"], 2, "did you mean 'duckdb'?"),
        (["serve", "-P", "thraeds", "1"], 2, "thraeds"),
        (["serve", "--config", "/nonexistent.toml"], 2, "cannot read /nonexistent.toml"),
        (["serve", "--host", "0.0.0.0"], 2, "--insecure"),
        (["serve", "--host", ""], 2, "--insecure"),
        (["serve", "--host", "name.invalid", "--insecure"], 3, "cannot listen on name.invalid"),
        (["serve", "/nonexistent/a.duckdb"], 4, "/nonexistent/a.duckdb"),
        (["serve", "x" * 5000], 4, "xxx"),
        (["serve", "u:p@" + "x" * 5000], 2, "neither a URL"),
        (["serve", "sqlite:////nonexistent/a.db"], 4, "/nonexistent/a.db"),
        (["serv"], 2, "invalid choice"),
        ([], 2, "COMMAND"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, complaint: str
) -> None:
    done = run(*arguments)
    assert done.returncode == code, done
    assert done.stdout == ""
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_exit_code_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "--port", port)
    assert done.returncode == 3
    assert "Address already in use" in done.stderr.splitlines()[-1]


def test_a_file_that_is_locked_or_no_database_is_exit_code_4(tmp_path: Path) -> None:
    path = tmp_path / "some.duckdb"
    with Server(str(path)):
        assert run("serve", "--port", "0", str(path)).returncode == 4
    path.write_text("this is no database, however long one looks at it" * 100)
    assert run("serve", "--port", "0", str(path)).returncode == 4


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"notebook-rpc \d+\.\d+\S*", only_line(run("--version").stdout))


# Stopping


def test_quit_ends_the_process() -> None:
    with Server() as server, server.client() as client:
        assert client.call("quit") is None
        assert server.wait() == 0


def test_sigterm_lets_a_running_call_finish_and_then_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "some.duckdb"
    with Server(str(path)) as server, server.client() as client:
        client.rows("create table t(n int)")
        client.send("execute", "insert into t select range from range(30000000)")
        wait_until_running(server)
        server.process.send_signal(signal.SIGTERM)
        assert client.receive() is True
        assert server.wait() == 0
    assert not path.with_name("some.duckdb.wal").exists()
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("select count(*) from t").fetchall() == [(30000000,)]


def test_after_sigterm_nothing_new_is_accepted() -> None:
    with Server() as server, server.client() as client:
        client.send("execute", SLOW)
        wait_until_running(server)
        server.process.send_signal(signal.SIGTERM)
        while True:
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            except OSError:
                break
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_second_signal_interrupts_and_every_call_gets_its_answer(tmp_path: Path) -> None:
    with Server(str(tmp_path / "some.duckdb")) as server:
        running, waiting, own = server.client(), server.client(), server.session()
        running.send("execute", SLOW)
        own.send("execute", SLOW)
        wait_until_running(server)
        waiting.send("tables")
        with server.client() as other:
            while other.call("progress")["waiting"] == 0:
                continue
        server.process.send_signal(signal.SIGINT)
        while not any("SIGINT: stopping" in line for line in server.log):
            continue  # two signals at the same moment are one
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        for client, code in ((running, -32800), (own, -32800), (waiting, -32001)):
            with pytest.raises(RpcError) as interrupted:
                client.receive()
            assert interrupted.value.code == code
            client.connection.close()
        assert server.wait() == 0
        assert time.monotonic() - began < 10  # the grace period alone is 30 seconds


def test_the_grace_period_ends_in_an_interrupt_that_is_answered() -> None:
    with Server("--grace", "0.2") as server, server.client() as client:
        client.send("execute", SLOW)
        wait_until_running(server)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(RpcError, match="cancelled"):
            client.receive()
        assert server.wait() == 0


def test_a_standard_error_that_nobody_reads_stops_nothing() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "notebook_rpc", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            answers = client.makefile("rb")
            for _ in range(3000):  # each refusal is a line of the log
                client.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
                while answers.readline() != b"\r\n":
                    continue
            answers.close()
        with Client(port) as good:
            assert good.rows("select 42 as a") == [{"a": "42"}]
        process.terminate()
        assert process.wait(30) == 0


def test_a_full_standard_output_stops_nothing() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        process = subprocess.Popen(
            [sys.executable, "-m", "notebook_rpc", "serve", "--port", "0"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    with process:
        assert process.stderr is not None
        told = next(line for line in process.stderr if "cannot tell where it listens" in line)
        port = int(re.findall(r"http://127.0.0.1:(\d+)/", told)[0])
        with Client(port) as client:
            assert client.call("quit") is None
        assert process.wait(30) == 0


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "some.duckdb"
    server = Server(str(path))
    with server.client() as client:
        client.rows("create table t(n int)")
        for n in range(50):
            client.rows(f"insert into t values ({n})")
        server.process.kill()
        server.wait()
    with Server(str(path)) as server, server.client() as client:
        rows = client.rows("select n from t order by n")
        assert [row["n"] for row in rows] == [str(n) for n in range(50)]


def wait_until_running(server: Server) -> None:
    """Until the server says that a call runs; another connection is always answered."""
    with server.client() as other:
        while other.call("progress")["running"] is None:
            continue
