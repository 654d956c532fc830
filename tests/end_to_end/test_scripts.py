"""Scripts on a server process: how they are refused, fail, are bounded, change, and end."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.routes_client import Client, Unsound, until, write
from tests.support import STOP_SECONDS, Server, environment

# Refused at the start


def test_a_script_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path) -> None:
    taken = """
        from notebook_rpc.runtime import http
        http.get("/healthz", lambda request: None)
    """
    arguments = write(tmp_path, setup=taken)
    done = refused(*arguments)
    assert done.returncode == 2
    assert f"{tmp_path / 'setup.py'}:3: two routes answer GET /healthz" in done.stderr
    assert "Traceback" not in done.stderr


def test_standard_input_has_no_routes(tmp_path: Path) -> None:
    done = refused("--stdio", *write(tmp_path, setup=""))
    assert (done.returncode, "leave --routes out" in done.stderr) == (2, True)


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "notebook_rpc", "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment(),
    )


# Failing

FAILING = """
    import logging
    import sys

    import trio
    from notebook_rpc.runtime import http, sql

    @http.get("/fails/{how}")
    def fails(request):
        match request.path_param("how"):
            case "raises":
                raise ValueError("secret")
            case "exits":
                sys.exit("secret")
            case "sql":
                sql.query("select * from secret")
            case "nothing":
                return None
            case "coroutine":
                return later(request)
            case "json":
                return http.json(200, object())
            case "status":
                return http.text(99, "secret")
            case "header":
                return http.text(200, "secret", {"X-A": "b\\r\\nX-C: d"})
            case "length":
                return http.text(200, "secret", {"Content-Length": "1"})

    @http.get("/later")
    async def later(request):
        raise ValueError("secret")

    @http.get("/task")
    async def task(request):
        async def exits():
            sys.exit("secret")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(exits)
            await trio.sleep_forever()

    @http.get("/stream")
    def stream(request):
        def pieces():
            yield "first"
            raise ValueError("secret")
        return http.stream(pieces())

    @http.websocket("/socket")
    async def socket(client):
        raise ValueError("secret")

    @http.get("/logs")
    def logs(request):
        logging.getLogger(__name__).warning("a word of the script's")
        return http.text(200, "")
"""


def test_a_failure_tells_nothing_but_where_to_look(tmp_path: Path) -> None:
    with Unsound(*write(tmp_path, setup=FAILING)) as server:
        client = Client(server.port)
        requests = []
        ways = ("raises", "exits", "sql", "nothing", "coroutine", "json", "status", "header")
        for path in (*(f"/fails/{way}" for way in ways), "/fails/length", "/later", "/task"):
            answer = client.get(path)
            assert (answer.status, answer.json["error"]) == (500, "internal-error"), path
            assert b"secret" not in answer.body
            requests.append(answer.json["request"])
        with pytest.raises(ConnectionResetError):
            client.get("/stream")
        client.get("/logs")
        log = server.stop()
    for request in requests:
        assert re.search(rf"ERROR +\[{request}\] the handler of GET .* failed\n.*Traceback", log)
    assert log.count("ValueError: secret") == 3
    assert re.search(r"WARNING +\[r\d+\] a word of the script's", log)


# Bounded

SLOW = """
    import threading
    import time

    import trio
    from notebook_rpc.runtime import http

    released = threading.Event()
    handled = []

    @http.get("/plain")
    def plain(request):
        released.wait()
        return http.text(200, "late")

    @http.get("/async")
    async def async_(request):
        await trio.sleep_forever()

    @http.get("/quick")
    async def quick(request):
        return http.text(200, "quick")

    @http.get("/release")
    async def release(request):
        released.set()
        return http.text(200, "released")

    @http.get("/hangs")
    def hangs(request):
        while True:
            time.sleep(1)

    @http.get("/step")
    def step(request):
        def pieces():
            yield "first"
            released.wait()
        return http.stream(pieces())

    @http.get("/now")
    def now(request):
        return http.text(200, "now")
"""


def test_a_handler_that_never_returns_is_bounded(tmp_path: Path) -> None:
    limits = ("--max-handlers", "2", "--handler-timeout", "0.5")
    with Server(*write(tmp_path, setup=SLOW), *limits) as server:
        client = Client(server.port)
        assert client.get("/now").status == 200
        for path in ("/async", "/plain", "/plain"):
            answer = client.get(path)
            assert (answer.status, answer.json["error"]) == (504, "handler-timeout")
        full = client.get("/now")  # both threads are left behind in it
        assert (full.status, full.json["error"]) == (503, "busy")
        assert full.headers["retry-after"] == "1"
        assert b"notebook_rpc_handlers_left_behind 2" in client.get("/metrics").body
        assert client.get("/quick").body == b"quick"
        client.get("/release")
        until(lambda: client.get("/now").status == 200)
        until(lambda: b"notebook_rpc_handlers_left_behind 0" in client.get("/metrics").body)
    log = "".join(server.log)
    assert re.search(r"WARNING +\[r\d+\] setup.plain still runs after \d+\.\d seconds", log)
    assert re.search(r"INFO +\[r\d+\] setup.plain, left behind, has ended after", log)


def test_a_stream_that_stands_still_is_cut_off(tmp_path: Path) -> None:
    with Server(*write(tmp_path, setup=SLOW), "--handler-timeout", "0.3") as server:
        client = Client(server.port)
        with pytest.raises(ConnectionResetError):
            client.get("/step")
        client.get("/release")
    assert "broke off: setup.step took longer than it may" in "".join(server.log)


def test_a_handler_that_hangs_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    with Server(*write(tmp_path, setup=SLOW), "--handler-timeout", "0.2") as server:
        assert Client(server.port).get("/hangs").status == 504
    assert "setup.hangs still runs, since" in "".join(server.log)


def test_a_script_that_never_ends_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    marker = tmp_path / "begun"
    script = f"import pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(600)"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "notebook_rpc",
            "serve",
            "--port",
            "0",
            *write(tmp_path, setup=script),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    until(marker.exists)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 0
    assert "a setup script still runs" in log


def test_endless_streams_end_with_the_server(tmp_path: Path) -> None:
    script = """
        import trio
        from notebook_rpc.runtime import http

        @http.get("/ticks")
        async def ticks(request):
            async def events():
                yield "tick"
                await trio.sleep_forever()
            return http.events(events())
    """
    with Server(*write(tmp_path, setup=script)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/ticks")
        response = connection.getresponse()
        assert response.readline() == b"data: tick\n"
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert response.read() == b"\n"
        assert server.process.wait(STOP_SECONDS) == 0
        assert time.monotonic() - began < 10  # and not --grace
        connection.close()


LEFT = """
    from notebook_rpc.runtime import http, sql

    ENDLESS = "select count(*) from range(100000000000) a, range(100000000000) b"

    @http.get("/session")
    def session(request):
        with sql.session() as one:
            one.query("begin")
            one.query("create temp table t as select 1")
            return http.json(200, one.query(ENDLESS))

    @http.get("/plain")
    def plain(request):
        def pieces():
            while True:
                yield str(sql.query("select 1 as n"))
        return http.stream(pieces())

    @http.get("/async")
    async def async_(request):
        async def pieces():
            async with sql.session() as one:
                while True:
                    yield await one.query("select 1 as n")
        return http.events(pieces())
"""


def test_clients_that_leave_at_any_moment_leave_nothing_behind(tmp_path: Path) -> None:
    arguments = write(tmp_path, setup=LEFT)
    with Server(*arguments, "--log-level", "debug") as server:
        at_rest = descriptors(server)
        for number in range(60):
            path = ("session", "plain", "async")[number % 3]
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                time.sleep(number % 7 / 200)
        gauges = (b"handlers 0", b"handlers_left_behind 0", b"calls_running 0", b"connections 1")

        def rests() -> bool:
            metrics = Client(server.port).get("/metrics").body
            return all(b"notebook_rpc_" + gauge in metrics for gauge in gauges)

        until(rests)
        until(lambda: descriptors(server) <= at_rest)


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


# Changing


def test_an_edit_is_noticed_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    setup = """
        from notebook_rpc.runtime import http
        http.get("/a", "handlers.a")
    """
    handlers = """
        from notebook_rpc.runtime import http
        from words import WORD
        def a(request): return http.text(200, WORD)
    """
    with Server(
        *write(tmp_path, setup=setup, handlers=handlers, words="WORD = '1'"), "--reload"
    ) as server:
        client = Client(server.port)
        assert client.get("/a").body == b"1"
        write(tmp_path, words="WORD = '2'")  # the same size, perhaps in the same second
        until(lambda: client.get("/a").body == b"2")
        write(tmp_path, handlers="def a(")
        until(lambda: "the routes stay as they were" in "".join(server.log))
        assert client.get("/a").body == b"2"
        write(tmp_path, handlers=handlers, setup=setup + '\n        http.get("/b", "handlers.a")')
        until(lambda: client.get("/b").status == 200)
        (tmp_path / "words.py").unlink()
        until(lambda: "".join(server.log).count("the routes stay as they were") == 2)
        write(tmp_path, words="WORD = '3'")
        until(lambda: client.get("/b").body == b"3")
    log = "".join(server.log)
    assert (
        f"the routes stay as they were: {tmp_path / 'handlers.py'}:1: '(' was never closed" in log
    )


# Bounded in what they reach

REACHING = """
    import json
    import os
    import pathlib
    import shutil
    import sqlite3
    import subprocess
    import tempfile

    from notebook_rpc.runtime import http, sql

    ways = {
        "read": lambda path: open(path).read(),
        "write": lambda path: open(path, "w").write("a"),
        "os": lambda path: os.close(os.open(path, os.O_RDONLY)),
        "list": lambda path: os.listdir(os.path.dirname(path)),
        "scan": lambda path: list(os.scandir(os.path.dirname(path))),
        "make": lambda path: os.mkdir(path + ".d"),
        "remove": lambda path: os.remove(path),
        "rename": lambda path: os.rename(path, path + ".2"),
        "chmod": lambda path: os.chmod(path, 0o600),
        "copy": lambda path: shutil.copy(path, path + ".3"),
        "link": lambda path: os.symlink("/etc/passwd", path + ".4"),
        "sqlite": lambda path: sqlite3.connect(path + ".db").execute("create table t (a)"),
        "program": lambda path: subprocess.run(["true"]),
        "shell": lambda path: os.system("true"),
    }

    def answered(request):
        try:
            ways[request.path_param("way")](request.query_param("path"))
        except PermissionError as exc:
            return http.text(403, str(exc))
        return http.text(200, "done")

    @http.get("/plain/{way}")
    def plain(request):
        return answered(request)

    @http.get("/async/{way}")
    async def async_(request):
        return answered(request)

    @http.get("/lazy")
    def lazy(request):
        import colorsys
        import below.more
        import helper
        return http.text(200, helper.WORD + below.more.WORD)

    @http.get("/sql")
    def query(request):
        with sql.session() as session:
            session.query("create temp table t as select 1 as a")
            other = sql.query("select 2 as a", connection="lite")
            return http.json(200, session.query("from t") + other)

    @http.get("/stream")
    def stream(request):
        def pieces():
            yield "a"
            try:
                open(request.query_param("path"))
            except PermissionError:
                yield "b"
        return http.stream(pieces())
"""
INSIDE = (
    "read",
    "os",
    "list",
    "scan",
    "chmod",
    "write",
    "copy",
    "link",
    "sqlite",
    "make",
    "rename",
    "remove",
)


def test_scripts_reach_files_in_allowed_folders_only(tmp_path: Path) -> None:
    inside, outside, code = (tmp_path / name for name in ("inside", "outside", "code"))
    for folder in (inside, outside, code):
        folder.mkdir()
        (folder / "file").write_text("text")
    arguments = write(code, setup=REACHING, helper="WORD = 'lazy'")
    (code / "below").mkdir()
    write(code / "below", more="WORD = 'more'")
    lite = f"--connection=lite=sqlite:///{inside / 'lite.db'}"
    with Server(*arguments, "--allowed-paths", str(inside), lite) as server:
        (inside / "way").symlink_to(outside)  # which would be refused at the start
        client = Client(server.port)
        for kind in ("plain", "async"):
            for way in (*INSIDE, "program", "shell"):
                for path in (
                    outside / "file",
                    inside / "way" / "file",
                    inside / ".." / "outside" / "file",
                ):
                    answer = client.get(f"/{kind}/{way}?path={path}")
                    assert answer.status == 403, (kind, way, path)
        assert [path.name for path in outside.iterdir()] == ["file"]
        assert (outside / "file").read_text() == "text"
        for way in INSIDE:
            (inside / "file").write_text("text")
            answer = client.get(f"/plain/{way}?path={inside / 'file'}")
            assert (answer.status, answer.body) == (200, b"done"), way
        assert client.get("/lazy").body == b"lazymore"
        assert client.get("/sql").json == [{"a": 1}, {"a": 2}]
        assert client.get(f"/stream?path={outside / 'file'}").body == b"ab"


def test_a_setup_script_is_bounded_too(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    secret = tmp_path / "secret"
    secret.touch()
    arguments = write(tmp_path, setup=f"open({str(secret)!r})")
    done = refused(*arguments, "--allowed-paths", str(tmp_path / "inside"))
    assert done.returncode == 2
    assert "setup.py:1: PermissionError" in done.stderr


# Elsewhere


def test_a_unix_socket_has_no_addresses(tmp_path: Path) -> None:
    script = """
        from notebook_rpc.runtime import http

        @http.get("/who")
        def who(request):
            return http.json(200, request.remote_addr)
    """
    path = tmp_path / "socket"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "notebook_rpc", "serve", "--uds", str(path)),
            *write(tmp_path, setup=script),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = client.makefile("rb").read()
        process.send_signal(signal.SIGTERM)
    assert answer.endswith(b'\r\n\r\n""')
