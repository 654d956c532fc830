"""Scoot against server processes: its endpoints on each kind of database, what clients may register
and what not, and the bugs of scoot-server, which are not here."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests import support
from tests.support import Server, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAIN = "/api/contexts/default/connections/default"
JSON = {"Content-Type": "application/json"}
ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(100000000000) b"
SCHEMA = """
CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL, amt DECIMAL(10, 2) CHECK (amt > 0));
CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users (id), status VARCHAR(10));
CREATE VIEW names AS SELECT name FROM users;
INSERT INTO users VALUES (1, 'Alice', 1.50), (2, 'Bob', 2.25);
INSERT INTO orders VALUES (1, 1, 'new')
"""  # noqa: E501


class Client:
    """One connection for each request, as scoot.el has it."""

    def __init__(self, server: Server, token: str = "") -> None:
        self._port = server.port
        self._headers = JSON | ({"Authorization": f"Bearer {token}"} if token else {})

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, self._headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None

    def get(self, path: str) -> Any:
        status, body = self.ask("GET", path)
        assert status == 200, body
        return body

    def post(self, path: str, body: object) -> Any:
        status, answer = self.ask("POST", path, body)
        assert status == 200, answer
        return answer

    def query(self, sql: str, at: str = MAIN, **more: object) -> Any:
        return self.post(f"{at}/query", {"sql": sql, **more})

    def register(self, url: str, name: str = "el", **more: object) -> tuple[int, Any]:
        path = "/api/contexts/__session__/connections"
        return self.ask("POST", path, {"url": url, "name": name, **more})


EL = "/api/contexts/__session__/connections/el"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--register", "duckdb,sqlite,postgres,odbc") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


@pytest.fixture(scope="module", params=["sqlite", "duckdb", "odbc"])
def at(
    request: pytest.FixtureRequest,
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """A connection to a database with the schema above."""
    kind, client = request.param, Client(server)
    file = tmp_path_factory.mktemp(kind) / "app.db"
    url = f"{kind}:///{file}"
    if kind == "odbc":
        pyodbc = pytest.importorskip("pyodbc")
        if "SQLite3" not in pyodbc.drivers():
            missing("the ODBC driver of SQLite (libsqliteodbc)")
        url = f"odbc:///{file}?driver=SQLite3"
    status, answer = client.register(url, kind)
    assert status == 200, answer
    assert answer["connection"]["dialect"] == kind
    at = f"/api/contexts/__session__/connections/{kind}"
    for statement in SCHEMA.split(";"):
        client.query(statement, at)
    return at


class TestEveryDatabase:
    def test_tables_are_listed_and_counted(self, client: Client, at: str) -> None:
        for path in ("tables", "tables/"):
            expected = {"tables": [["orders"], ["users"]], "properties": ["name"]}
            assert client.get(f"{at}/{path}") == expected
        counted = client.get(f"{at}/tables?include_row_count=t")
        assert counted["properties"] == ["name", "row_count"]
        if not at.endswith("odbc"):
            assert counted["tables"] == [["orders", 1], ["users", 2]]

    def test_a_table_is_described(self, client: Client, at: str) -> None:
        found = client.get(f"{at}/tables/orders")
        assert list(found) == ["name", "schema", "columns", "constraints", "create_stmt"]
        columns = found["columns"]
        assert [each["name"] for each in columns] == ["id", "user_id", "status"]
        assert [each["type"] for each in columns] == ["INTEGER", "INTEGER", "STRING"]
        status, missing_ = client.ask("GET", f"{at}/tables/nope")
        assert (status, missing_["error"], missing_["name"]) == (404, "schema-error", "nope")
        if at.endswith("odbc"):
            return  # what its driver does not tell
        assert [each["primary_key"] for each in columns] == [True, False, False]
        (foreign,) = found["constraints"]
        assert (foreign["type"], foreign["columns"]) == ("fk", ["user_id"])
        assert foreign["reference"] == {"table": "users", "columns": ["id"]}
        assert found["create_stmt"].upper().startswith("CREATE TABLE")
        (check,) = client.get(f"{at}/tables/users")["constraints"]
        assert check["condition"] == {"lhs": "amt", "pred": ">", "rhs": "0"}

    def test_a_query_tells_where_its_columns_are_from(self, client: Client, at: str) -> None:
        sql = "select count(*) as n, u.name from users u group by u.name order by 2"
        found = client.query(sql, at, metadata=True, action={"action": "execute"})
        assert (found["columns"], found["rows"]) == (["n", "name"], [[1, "Alice"], [1, "Bob"]])
        first, second = found["metadata"]["columns"]
        assert (first["name"], first["table"], first["column"]) == ("n", None, None)
        assert (second["table"], second["column"], second["type"]) == ("users", "name", "STRING")

    def test_statements_are_changed_and_run(self, client: Client, at: str) -> None:
        def change(sql: str, target: str, operation: str, **condition: str) -> tuple[str, Any]:
            action = {"action": "modify", "target": target, "operation": operation}
            found = client.query(sql, at, action={**action, "conditions": [condition]})
            return found["metadata"]["stmt"], found["rows"]

        stmt = "SELECT id, name FROM users WHERE id = 1"
        added = change("select id, name from users", "WHERE", "add", lhs="id", cmp="=", rhs="1")
        assert added == (stmt, [[1, "Alice"]])
        stmt, rows = change(stmt, "WHERE", "remove", lhs="id", cmp="=", rhs="1")
        assert (stmt, len(rows)) == ("SELECT id, name FROM users", 2)
        assert change("select * from orders", "SELECT", "remove", name="status") == (
            *("SELECT id, user_id FROM orders", [[1, 1]]),
        )
        assert change("select id from orders", "SELECT", "add", name="status") == (
            *("SELECT id, status FROM orders", [[1, "new"]]),
        )

    def test_what_has_no_rows_says_how_many_it_touched(self, client: Client, at: str) -> None:
        done = client.query("insert into orders values (7, 1, 'x'), (8, 1, 'y')", at)
        assert done == {"columns": ["row_count"], "rows": [[2]], "row_count": 2}
        assert client.query("delete from orders where id > 1", at)["row_count"] == 2
        assert client.query("create table zz (a int)", at)["row_count"] == 0
        assert client.query("drop table zz", at)["row_count"] == 0

    def test_what_looks_like_a_parameter_in_a_string_is_none(self, client: Client, at: str) -> None:
        found = client.query("select ':x' as a, '12:30:45' as \"b:c\"", at)
        assert (found["columns"], found["rows"]) == (["a", "b:c"], [[":x", "12:30:45"]])

    def test_a_table_that_was_altered_is_described_as_it_is(self, client: Client, at: str) -> None:
        def columns() -> list[str]:
            return [each["name"] for each in client.get(f"{at}/tables/t")["columns"]]

        client.query("create table t (a int)", at)
        assert columns() == ["a"]
        client.query("alter table t add column b int", at)
        assert columns() == ["a", "b"]
        client.query("drop table t", at)

    @pytest.mark.parametrize("sql", ["selec", "select * from nope", ""])
    def test_a_mistake_is_the_clients(self, client: Client, at: str, sql: str) -> None:
        status, found = client.ask("POST", f"{at}/query", {"sql": sql, "metadata": True})
        assert (status, found["status"], found["error"]) == (400, "error", "server-error")


def test_the_servers_own_database_is_the_default_one(client: Client) -> None:
    assert client.query("select 42 as answer") == {"columns": ["answer"], "rows": [[42]]}
    listed = client.get("/api/connection-manager")["contexts"]["default"]["connections"]
    assert listed["default"] == {
        "status": "active",
        "dialect": "duckdb",
        "host": None,
        "port": None,
        "username": None,
        "database": None,
        "driver": "duckdb",
    }
    status, found = client.ask("POST", "/api/contexts/default/connections", {"url": "sqlite://"})
    assert (status, found["slug"]) == (403, "forbidden")


def test_decimals_keep_their_digits_and_what_is_no_number_is_null(server: Server) -> None:
    sql = (
        "select 0.10::decimal(3, 2) as d, 12345678901234567890123456789.5::decimal(38, 1) as big,"
        " 9007199254740993 as i, 'nan'::double as n, '\\xff'::blob as b, interval 1 day as iv"
    )
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", f"{MAIN}/query", json.dumps({"sql": sql}), JSON)
        body = connection.getresponse().read()
    assert b'"rows":[[0.10,12345678901234567890123456789.5,9007199254740993,null,"/w==",' in body
    json.loads(body)


def test_columns_of_one_name_are_told_apart(client: Client) -> None:
    found = client.query("select 1 as a, 2 as a", metadata=True)
    assert (found["columns"], found["rows"]) == (["a", "a_1"], [[1, 2]])


def test_every_database_error_has_no_password(client: Client) -> None:
    status, found = client.register("postgresql://ada:s3cret@127.0.0.1:1/x?sslmode=disable")
    assert (status, found["error"], found["slug"]) == (503, "server-error", "database-unavailable")
    assert "s3cret" not in json.dumps(found)


def test_a_large_result_is_whole(client: Client) -> None:
    found = client.query("select i, repeat('x', 20) from range(200000) t(i)", metadata=True)
    assert [row[0] for row in found["rows"]] == list(range(200_000))
    assert len(found["metadata"]["columns"]) == 2


def test_one_that_breaks_off_is_cut(server: Server) -> None:
    sql = "select i, case when i = 900000 then error('late') end from range(1000000) t(i)"
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", f"{MAIN}/query", json.dumps({"sql": sql}), JSON)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            connection.getresponse().read()


def test_a_client_that_leaves_stops_its_query_and_slow_ones_hold_up_nobody(
    server: Server, client: Client
) -> None:
    body = json.dumps({"sql": ENDLESS, "metadata": True}).encode()
    head = b"POST %b/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head % MAIN.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for each in slow:
        each.sendall(request)
    running(server, 20)
    assert client.query("select 1")["rows"] == [[1]]
    for each in slow:
        each.close()
    running(server, 0)


def running(server: Server, calls: int) -> None:
    """Wait until so many calls run."""
    deadline = time.monotonic() + 30
    while True:
        with closing(
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        ) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        found = next(
            line for line in text.splitlines() if "calls_running " in line and line[0] != "#"
        )
        if float(found.split()[-1]) == calls:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def closed(server: Server, file: Path) -> None:
    """Wait until the log says so."""
    deadline = time.monotonic() + 30
    while not any("closed __session__/" in line and str(file) in line for line in server.log):
        assert time.monotonic() < deadline, server.log
        time.sleep(0.01)


class TestRegistering:
    def test_another_takes_the_place_of_the_first_while_that_is_in_use(
        self, server: Server, client: Client, tmp_path: Path
    ) -> None:
        at = "/api/contexts/__session__/connections/swap"
        for name in ("one", "two", "three"):
            with closing(sqlite3.connect(tmp_path / name)) as database:
                database.execute(f"create table {name} (a)")

        def swap(name: str) -> None:
            assert client.register(f"sqlite:///{tmp_path}/{name}", "swap")[0] == 200
            assert client.get(f"{at}/tables")["tables"] == [[name]]

        swap("one")
        swap("two")
        closed(server, tmp_path / "one")
        results: list[Any] = []
        slow = "with recursive c(x) as (select 1 union all select x + 1 from c where x < 2000000)"
        thread = threading.Thread(
            target=lambda: results.append(client.query(f"{slow} select count(*) as n from c", at))
        )
        thread.start()
        running(server, 1)
        swap("three")
        thread.join(60)
        assert results == [{"columns": ["n"], "rows": [[2000000]]}]
        closed(server, tmp_path / "two")

    def test_other_protocols_have_it_by_its_context_and_name(
        self, server: Server, client: Client, tmp_path: Path
    ) -> None:
        with closing(sqlite3.connect(tmp_path / "a.db")) as database:
            database.execute("create table t as select 7 as a")
        assert client.register(f"sqlite:///{tmp_path}/a.db", "shared")[0] == 200
        asked = {"type": "json", "sql": "select * from t"}
        for _ in range(2):
            assert client.post("/mosaic?connection=__session__/shared", asked) == [{"a": 7}]
        status, session = client.ask("POST", "/sessions", {"connection": "__session__/shared"})
        assert status == 201
        with server.client(session["url"]) as rpc:
            assert rpc.rows("select * from t") == [{"a": "7"}]

    def test_a_user_who_may_only_read_registers_nothing_and_changes_nothing(
        self, tmp_path: Path
    ) -> None:
        tokens = tmp_path / "tokens"
        tokens.write_text("full\nlook read-only\n")
        tokens.chmod(0o600)
        with Server("--bearer-token-file", str(tokens)) as server:
            ada, bob = Client(server, "full"), Client(server, "look")
            assert Client(server).ask("GET", "/ping") == (401, None)
            assert ada.register(f"sqlite:///{tmp_path}/a.db")[0] == 200
            status, found = bob.register(f"sqlite:///{tmp_path}/b.db", "b")
            assert (status, found["slug"]) == (403, "forbidden")
            ada.query("create table t (a int)", EL)
            assert bob.query("select * from t", EL)["rows"] == []
            ada.query("create table t (a int)")
            for at in (EL, MAIN):
                assert bob.get(f"{at}/tables?include_row_count=t")["tables"] == [["t", 0]]
                assert bob.get(f"{at}/tables/t")["columns"][0]["name"] == "a"
                (told,) = bob.query("select * from t", at, metadata=True)["metadata"]["columns"]
                assert (told["table"], told["column"]) == ("t", "a")
                status, _ = bob.ask("POST", f"{at}/query", {"sql": "create table u (a int)"})
                assert status == 400

    def test_a_server_that_is_read_only_opens_them_so(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "a.db")) as database:
            database.execute("create table t (a)")
        with Server("--read-only", f"sqlite:///{tmp_path}/a.db") as server:
            client = Client(server)
            assert client.register(f"sqlite:///{tmp_path}/a.db")[0] == 200
            assert client.query("select * from t", EL)["rows"] == []
            status, _ = client.ask("POST", f"{EL}/query", {"sql": "insert into t values (1)"})
            assert status == 400

    def test_with_allowed_paths_they_are_in_these_folders(self, tmp_path: Path) -> None:
        folder = tmp_path / "in"
        folder.mkdir()
        outside = tmp_path / "out.csv"
        outside.write_text("a\n1\n")
        with Server("--allowed-paths", str(folder)) as server:
            client = Client(server)
            for url in (
                f"duckdb:///{tmp_path}/a.db",
                f"sqlite:///{tmp_path}/a.db",
                "odbc:///?driver=x",
            ):
                status, found = client.register(url)
                assert (status, found["slug"]) == (403, "forbidden"), found
            assert client.register(f"duckdb:///{folder}/a.db")[0] == 200
            status, _ = client.ask("POST", f"{EL}/query", {"sql": f"from '{outside}'"})
            assert status == 400


def test_so_many_are_refused(tmp_path: Path) -> None:
    with Server("--max-registered", "1") as server:
        client = Client(server)
        assert client.register(f"sqlite:///{tmp_path}/a.db", "a")[0] == 200
        status, found = client.register(f"sqlite:///{tmp_path}/b.db", "b")
        assert (status, found["slug"]) == (503, "too-many-connections")
        assert client.register(f"sqlite:///{tmp_path}/b.db", "a")[0] == 200


class TestKeeping:
    @pytest.fixture(autouse=True)
    def _configured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A configuration folder of the test's own."""
        before = support.environment()
        monkeypatch.setattr(
            support, "environment", lambda: before | {"XDG_CONFIG_HOME": str(tmp_path)}
        )

    def test_one_that_is_kept_is_there_again_and_opened_when_it_is_used(
        self, tmp_path: Path
    ) -> None:
        with Server("-cmine") as server:
            client = Client(server)
            assert client.register(f"sqlite:///{tmp_path}/a.db", persist=True)[0] == 200
            client.query("create table t (a int)", EL)
        file = tmp_path / "notebook-rpc" / "connections" / "mine.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with Server("-c", "mine") as server:
            client = Client(server)
            assert client.get("/api/contexts")["contexts"] == {
                "default": {"connections": {"default": {}}},
                "__session__": {"connections": {"el": {}}},
            }

            def status() -> str:
                found = client.get("/api/connection-manager")["contexts"]["__session__"]
                return str(found["connections"]["el"]["status"])

            assert status() == "inactive"
            assert client.get(f"{EL}/tables")["tables"] == [["t"]]
            assert status() == "active"
        with Server() as server:
            assert "__session__" not in Client(server).get("/api/contexts")["contexts"]

    def test_a_damaged_file_keeps_the_server_from_starting(self, tmp_path: Path) -> None:
        file = tmp_path / "notebook-rpc" / "connections" / "scoot_default.json"
        file.parent.mkdir(parents=True)
        file.write_text("{")
        done = subprocess.run(
            [sys.executable, "-m", "notebook_rpc", "serve"],
            env=support.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert re.search(r"scoot_default\.json is damaged", done.stderr)
        assert file.read_text() == "{"
