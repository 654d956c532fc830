"""Tokens that may only read, and folders, on a whole server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support import STOP_SECONDS, Client, RpcError, Server, environment

if TYPE_CHECKING:
    import http.client
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Postgres

JSON = {"Content-Type": "application/json"}
TOKENS = "t0ken-of-ada name=ada\nt0ken-of-cy read-only name=cy\nt0ken-of-di name=di read-only\n"


class Known(Client):
    """A client that shows a token. *ending* closes its connection."""

    def __init__(self, ending: ExitStack, server: Server, name: str, path: str = "/") -> None:
        super().__init__(server.port, path)
        ending.callback(self.connection.close)
        self.ending = ending
        self.server = server
        self.name = name

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer t0ken-of-{self.name}",
            "Content-Type": "application/json",
        }

    def send(self, method: str, *params: object) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        self.connection.request("POST", self.path, body, self.headers)

    def made(self, connection: str | None = None) -> http.client.HTTPResponse:
        """The answer to ``POST /sessions``, unread."""
        body = json.dumps({"connection": connection})
        self.connection.request("POST", "/sessions", body, self.headers)
        return self.connection.getresponse()

    def session(self, connection: str | None = None) -> Known:
        response = self.made(connection)
        assert response.status == 201
        return Known(self.ending, self.server, self.name, json.loads(response.read())["url"])

    def refusal(self, method: str, *params: object) -> tuple[str, int]:
        with pytest.raises(RpcError) as caught:
            self.call(method, *params)
        return caught.value.data["slug"], caught.value.code


@pytest.fixture
def ending() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    file = tmp_path / "tokens"
    file.write_text(TOKENS)
    file.chmod(0o600)
    return str(file)


@pytest.fixture
def server(tmp_path: Path, tokens: str) -> Iterator[Server]:
    more = ("--connection", f"lite={tmp_path}/b.sqlite", "--connection", "none=odbc:///?dsn=none")
    with Server(f"{tmp_path}/a.duckdb", "--bearer-token-file", tokens, *more) as server:
        yield server


def test_who_may_only_read_reads_what_others_write(ending: ExitStack, server: Server) -> None:
    ada, cy = Known(ending, server, "ada"), Known(ending, server, "cy")
    ada.rows("create table t as select 1 as x")
    for reader in (cy, cy.session()):
        assert reader.rows("from t") == [{"x": "1"}]
        assert [table["table"] for table in reader.call("tables")] == ["t"]
        for sql in ("insert into t values (2)", "select 1; drop table t", "copy t to 'x'"):
            assert reader.refusal("execute", sql) == ("query-error", -32011)
    ada.rows("insert into t values (2)")
    assert cy.rows("from t") == [{"x": "1"}, {"x": "2"}]


def test_readers_share_a_default_session_that_is_not_the_writers(
    ending: ExitStack, server: Server
) -> None:
    ada, cy, di = (Known(ending, server, name) for name in ("ada", "cy", "di"))
    ada.call("execute", "from range(5)")
    cy.call("execute", "from range(3000)")
    assert cy.call("page", 1) == [{"range": "0"}]
    assert di.call("page", 1) == [{"range": "1"}]
    assert ada.call("page", 1) == [{"range": "0"}]


def test_a_reader_does_not_end_the_server(ending: ExitStack, server: Server) -> None:
    ada, cy = Known(ending, server, "ada"), Known(ending, server, "cy")
    assert cy.refusal("quit") == ("forbidden", -32005)
    assert cy.rows("select 1 as x") == ada.rows("select 1 as x") == [{"x": "1"}]
    own = cy.session()
    assert own.call("quit") is None
    assert ada.call("quit") is None
    assert server.wait() == 0


def test_the_sessions_of_readers_look_like_all_others(ending: ExitStack, server: Server) -> None:
    ada, cy = Known(ending, server, "ada"), Known(ending, server, "cy")
    answers = []
    for client in (ada, cy):
        response = client.made()
        body = json.loads(response.read())
        answers.append((response.status, sorted(body), len(body["id"]), body["connection"]))
    assert answers[0] == answers[1]
    with pytest.raises(OSError, match="status 404"):
        Known(ending, server, "di", cy.session().path).call("tables")


def test_a_database_that_cannot_keep_readers_from_writing_has_none(
    ending: ExitStack, server: Server
) -> None:
    ada, cy = Known(ending, server, "ada"), Known(ending, server, "cy")
    ada.session("lite").rows("create table t (x)")
    lite = cy.session("lite")
    assert lite.rows("select * from t") == []
    assert lite.refusal("execute", "insert into t values (1)") == ("query-error", -32011)
    # It cannot be opened here. Were it, there would be nothing read-only about it.
    response = cy.made("none")
    assert (response.status, json.loads(response.read())["slug"]) == (503, "database-unavailable")


def test_postgres_has_readers_if_its_role_is_no_superuser(
    ending: ExitStack, postgres_server: Postgres, tokens: str
) -> None:
    with Server(postgres_server.url, "--bearer-token-file", tokens) as server:
        ada, cy = Known(ending, server, "ada"), Known(ending, server, "cy")
        response = cy.made()
        assert (response.status, json.loads(response.read())["slug"]) == (501, "not-supported")
        assert cy.refusal("tables")[0] == "not-supported"
        ada.rows("drop role if exists plain")
        ada.rows("create role plain login")
    url = postgres_server.url.replace("notebook@", "plain@")
    with Server(url, "--bearer-token-file", tokens) as server:
        cy = Known(ending, server, "cy")
        assert cy.rows("select generate_series(1, 3) as x")[-1] == {"x": "3"}
        assert cy.refusal("execute", "create table t (x int)") == ("query-error", -32011)


def test_a_reader_s_token_on_a_read_only_server_is_as_good_as_any(
    ending: ExitStack, tmp_path: Path, tokens: str
) -> None:
    database = f"{tmp_path}/a.sqlite"
    with Server(database, "--bearer-token-file", tokens) as server:
        Known(ending, server, "ada").rows("create table t (x)")
    for url in (database, f"dbapi:sqlite3?database={database}"):
        with Server(url, "--read-only", "--bearer-token-file", tokens) as server:
            for name in ("ada", "cy"):
                client = Known(ending, server, name)
                assert client.rows("select * from t") == []
                assert client.refusal("execute", "insert into t values (1)")[0] == "query-error"


# --- Folders


def test_files_are_reached_in_the_allowed_folders_alone(ending: ExitStack, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("x\n1\n")
    (tmp_path / "link").symlink_to(tmp_path / "two")
    folders = ("--allowed-paths", f"{tmp_path}/one, {tmp_path}/link", "--allowed-paths", ".")
    more = ("--connection", f"lite={tmp_path}/three/b.sqlite")
    with Server(f"{tmp_path}/three/a.duckdb", *folders, *more, cwd=tmp_path / "one") as server:
        client = ending.enter_context(server.client())
        for name in ("one", "two"):
            assert client.rows(f"from '{tmp_path}/{name}/a.csv'") == [{"x": "1"}]
        assert client.rows("from 'a.csv'") == [{"x": "1"}]
        with pytest.raises(RpcError, match="Permission Error"):
            client.rows(f"from '{tmp_path}/three/a.csv'")
        client.connection.request("POST", "/sessions", json.dumps({"connection": "lite"}), JSON)
        url = json.loads(client.connection.getresponse().read())["url"]
        lite = ending.enter_context(server.client(url))
        lite.rows(f"attach '{tmp_path}/two/c.sqlite' as c")
        with pytest.raises(RpcError, match="not authorized"):
            lite.rows(f"attach '{tmp_path}/three/c.sqlite' as d")


def test_no_folder_is_no_file(ending: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    with Server(f"{tmp_path}/a.duckdb", "--allowed-paths", "") as server:
        client = ending.enter_context(server.client())
        client.rows("create table t as select 1 as x")
        with pytest.raises(RpcError, match="Permission Error"):
            client.rows(f"from '{tmp_path}/a.csv'")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--allowed-paths", "nowhere"), "--allowed-paths: cannot use nowhere"),
        (("--allowed-paths", "file"), "--allowed-paths: file is no folder"),
        (
            ("postgresql://me@127.0.0.1:1/a", "--allowed-paths", "."),
            "--allowed-paths: nothing would bound what postgres reaches",
        ),
        (
            ("--connection", "x=dbapi:sqlite3?database=a", "--allowed-paths", ""),
            "--allowed-paths: nothing would bound what dbapi reaches",
        ),
        (("--connection", "x=odbc:///?dsn=a", "--allowed-paths", ""), "bound what odbc reaches"),
        (
            ("--allowed-paths", ".", "-P", "enable_external_access", "true"),
            "property enable_external_access: the folders that are allowed decide it",
        ),
        (("--allowed-paths", "."), r"its link .*/self is a way out of it"),
    ],
)
def test_what_cannot_be_held_to_is_refused_at_the_start(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "file").touch()
    if "link" in complaint:
        (tmp_path / "self").symlink_to(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "notebook_rpc", "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        timeout=STOP_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert re.search(complaint, line)
