"""A password is in no answer, log, metric, stack trace or file, however a URL goes wrong."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
from typing import TYPE_CHECKING
from unittest import mock
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notebook_rpc import cli
from notebook_rpc.conformance.drivers import CHECKS
from tests.support import RpcError, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORE = "xqSecret8812"  # whatever is done to the rest of a password, this must not be seen
SCHEMES = [
    *("duckdb", "sqlite", "postgresql", "postgresql+pg8000", "mysql+pymysql", "odbc", "fake"),
    *("mssql+pyodbc", "trino", "dbapi", "nonsense", "duckbd"),
]
BARE = {
    **{scheme: f"{scheme}://" for scheme in ("duckdb", "sqlite", "fake", "odbc")},
    "dbapi": "dbapi:sqlite3",
}
PLACES = ["127.0.0.1:1/db", "h.invalid/db", "127.0.0.1:99999/db", "127.0.0.1:x/db", "[::1/db", ""]
# Where a database is, is told.
KEYS = [
    *("password", "timeout", "mode", "threads", "memory_limit", "access_mode", "sslmode", "pwd"),
    *("options", "connect_timeout", "login_timeout", "charset", "nonsense", "fail", "Password"),
    *("enable_external_access", "default_order", "odbc_connect", "sslpassword", "user:int"),
]
ODD = [
    *("user:123?{}=b", "sec:{}@h/db", "//u:{}@h/db", "u:{}@h", "dbapi:u:{}@h", "dbapi:{}/x?a=b"),
    *("postgresql://u:1/{}@h/db", "postgresql://u:1?{}=b@h/db", "postgresql://u:1#{}@h/db"),
    *("mysql://u:p@x/{}@h/db", "sqlite:///a?{}", "postgresql://u:%zz{}%@h/db", "fake:{}@h"),
    *("duckdb://u:{}@h:1/db", "x://{}@[::1/db", "postgresql:u:{}@h", "odbc:///?DSN=a;PWD={}"),
    *("postgresql://u:{0}@h/db?password={0}", "odbc:///?odbc_connect=Driver%3Dx%3BPWD%3D{}"),
]

secrets = st.builds(
    lambda before, after: before + CORE + after,
    st.text("aZ9'\"%\\ ;{}=@:/?#&$\u00e9", max_size=3),
    st.text("aZ9'\"%\\ ;{}=@:/?#&$\u00e9", max_size=3),
)


@st.composite
def commands(draw: st.DrawFn) -> tuple[list[str], str]:
    """The arguments that say what to open, and the secret in them or in what they refer to."""
    secret = draw(secrets)
    spelled = draw(st.sampled_from([secret, quote(secret, safe=""), "${PW}", "${file:pw}"]))
    scheme, place = draw(st.sampled_from(SCHEMES)), draw(st.sampled_from(PLACES))
    match draw(st.sampled_from(["password", "query", "property", "odd", "named"])):
        case "password":
            return [f"{scheme}://u:{spelled}@{place}"], secret
        case "query":
            key = draw(st.sampled_from(KEYS))
            return [f"{scheme}://{place}?{key}={spelled}"], secret
        case "property":
            key = draw(st.sampled_from(KEYS))
            return [f"{scheme}://{place}", "-P", key, spelled], secret
        case "odd":
            return [draw(st.sampled_from(ODD)).format(spelled)], secret
        case _:
            return ["--connection", f"a={scheme}://u:{spelled}@{place}?a=b"], secret


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    """A port at which no server can listen: whatever it can open, it ends."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield str(sock.getsockname()[1])


def said(*arguments: str) -> str:
    """All that the command says, on whichever stream."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            cli.main(arguments)
        except SystemExit:
            output.write("(refused by the parser)")
    return output.getvalue()


def left(folder: Path) -> str:
    """The names and the contents of all files, but for the one that the secret is read from."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "pw"]
    return "".join(f"{path} {path.read_bytes()!r}" for path in files)


VERBS = ["serve", "check", "show", "check-driver", "typo"]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(command=commands(), verb=st.sampled_from(VERBS))
def test_no_command_tells_a_secret(
    command: tuple[list[str], str], verb: str, taken: str, tmp_path: Path
) -> None:
    check(verb, *command, taken, tmp_path)


@pytest.mark.parametrize("verb", VERBS)
def test_no_command_tells_a_secret_in_an_odd_place(verb: str, taken: str, tmp_path: Path) -> None:
    for odd in ODD:
        check(verb, [odd.format(CORE)], CORE, taken, tmp_path)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_property_is_repeated(scheme: str, taken: str, tmp_path: Path) -> None:
    for key in KEYS:
        for spelled in (CORE, "${PW}"):
            url = BARE.get(scheme, f"{scheme}://127.0.0.1:1/db")
            arguments = [url, "-P", key, spelled]
            check("serve", arguments, CORE, taken, tmp_path)


def check(verb: str, arguments: list[str], secret: str, taken: str, tmp_path: Path) -> None:
    """Have the command do its work, with a secret that must not be found afterwards."""
    (tmp_path / "pw").write_text(secret)
    diagnosis = ["--port", taken, "--stack-traces", "--log-level", "debug"]
    begin = {
        "serve": ["serve", *diagnosis],
        "check": ["config", "check", *diagnosis],
        "show": ["config", "show", *diagnosis],
        "check-driver": ["check-driver", "--only", CHECKS[0].name],
        "typo": [],
    }[verb]
    if verb == "check-driver" and arguments[0] == "--connection":
        arguments = [arguments[1].partition("=")[2]]
    variables = {"PW": secret, "XDG_CONFIG_HOME": os.devnull}
    with contextlib.chdir(tmp_path), mock.patch.dict(os.environ, variables):
        output = said(*begin, *arguments)
    assert output
    assert CORE.lower() not in output.lower(), (begin, arguments)
    assert CORE.lower() not in left(tmp_path).lower(), (begin, arguments)


def test_nothing_that_runs_tells_a_secret(tmp_path: Path) -> None:
    secret = tmp_path / "pw"
    secret.write_text(CORE)
    spelled = {"plain": CORE, "file": f"${{file:{secret}}}"}
    urls = {
        f"{name}{number}": url
        for name, text in spelled.items()
        for number, url in enumerate(
            [
                f"postgresql://u:{text}@127.0.0.1:1/db",
                f"postgresql://u@127.0.0.1:1/db?sslmode={text}",
                f"postgresql+pg8000://u:{text}@127.0.0.1:1/db",
                f"mysql+pymysql://u:{text}@127.0.0.1:1/db",
                f"odbc:///?odbc_connect=Driver%3Dx%3BPWD%3D{text}",
                f"mssql+pyodbc://u:{text}@dsn",
                f"sqlite:///a.db?timeout={text}",
                f"sqlite:///a.db?mode={text}",
                f"duckdb:///b.db?threads={text}",
                f"duckdb:///b.db?nonsense={text}",
                f"dbapi:sqlite3?timeout={text}",
                f"fake://u:{text}@h",
                f"fake://?fail={text}",
            ]
        )
    }
    arguments = [part for name, url in urls.items() for part in ("--connection", f"{name}={url}")]
    told = []
    diagnosis = ["--stack-traces", "--log-level", "debug", "--access-log"]
    with Server("fake://", *diagnosis, *arguments, cwd=tmp_path) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

        def ask(method: str, path: str, body: str | None = None) -> int:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            told.append(str(response.headers) + response.read().decode())
            return response.status

        statuses = [ask("POST", "/sessions", json.dumps({"connection": name})) for name in urls]
        assert statuses.count(201) <= 2  # of the fake
        ask("GET", "/metrics")
        ask("GET", "/readyz?verbose")
        connection.close()
        with server.client() as client, pytest.raises(RpcError) as failed:
            client.call("execute", "error no")
        assert "Traceback" in failed.value.data["stacktrace"]
    everything = "".join([*told, *server.log, left(tmp_path)])
    assert "cannot make a session" in everything
    assert CORE.lower() not in everything.lower()
