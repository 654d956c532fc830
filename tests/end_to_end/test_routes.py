"""Routes of the user's on a server process: what scripts ask for is what sockets get."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.routes_client import Client, Unsound, until, write
from tests.end_to_end.websocket_client import connected
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The complete example of Scriptling's page on its server mode, to the letter.
APP = """\
# app.py
import scriptling.runtime as runtime

# Register routes
runtime.http.get("/", "handlers.index")
runtime.http.get("/api/users", "handlers.list_users")
runtime.http.post("/api/users", "handlers.create_user")
runtime.http.get("/api/users/{id}", "handlers.get_user")
"""
HANDLERS = """\
# handlers.py
import scriptling.runtime as runtime

users = {
    "1": {"id": "1", "name": "Alice"},
    "2": {"id": "2", "name": "Bob"},
}

def index(request):
    return runtime.http.json(200, {"service": "User API", "version": "1.0"})

def list_users(request):
    return runtime.http.json(200, list(users.values()))

def get_user(request):
    user_id = request.path_param("id")
    if user_id in users:
        return runtime.http.json(200, users[user_id])
    return runtime.http.json(404, {"error": "User not found"})

def create_user(request):
    data = request.json()
    user_id = str(len(users) + 1)
    users[user_id] = {"id": user_id, "name": data.get("name")}
    return runtime.http.json(201, users[user_id])
"""


def test_the_example_of_scriptling_runs_unchanged(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "handlers.py").write_text(HANDLERS)
    with Server("--bearer-token", "secret123", "--routes", "app.py", cwd=tmp_path) as server:
        client = Client(server.port, Authorization="Bearer secret123")
        index = client.get("/")
        assert (index.status, index.json) == (200, {"service": "User API", "version": "1.0"})
        assert index.headers["content-type"] == "application/json"
        users = [{"id": "1", "name": "Alice"}, {"id": "2", "name": "Bob"}]
        assert client.get("/api/users").json == users
        assert client.get("/api/users/1").json == users[0]
        missing = client.get("/api/users/7")
        assert (missing.status, missing.json) == (404, {"error": "User not found"})
        body = json.dumps({"name": "Charlie"})
        made = client.post("/api/users", body, Content_Type="application/json")
        assert (made.status, made.json) == (201, {"id": "3", "name": "Charlie"})
        assert client.get("/api/users/3").json == made.json  # modules last as long as the server

        # What stands around it
        assert Client(server.port).get("/api/users").status == 401
        assert client.ask("HEAD", "/").headers["content-length"] == str(len(index.body))
        refused = client.ask("DELETE", "/api/users")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
        assert client.get("/api").status == 404
        assert client.get("/", Host="evil.example").status == 403
        assert client.get("/", Origin="https://evil.example").status == 403
        call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tables"})
        assert client.post("/", call, Content_Type="application/json").json["id"] == 1


SETUP = """
    from notebook_rpc import runtime
    from notebook_rpc.runtime import http, sql

    for method in (http.get, http.post, http.put, http.patch, http.delete):
        method("/echo/{name}/{number}", "handlers.echo")
    http.get("/helpers/{kind}", "handlers.helper")
    http.get("/many", "handlers.meet")
    http.get("/stream/{kind}", "handlers.stream")
    http.get("/forever", "handlers.forever")
    http.get("/forever/seen", "handlers.forever_seen")
    http.get("/slow-sql", "handlers.slow_sql")
    http.get("/later", "handlers.later")
    http.static("/files", "public")
    http.websocket("/plain/{room}", "handlers.chat")
    http.websocket("/async", "handlers.async_chat")
    http.middleware("handlers.doorman")
    http.not_found("handlers.lost")

    sql.query("create table sales (day date, amount decimal(10, 2))")
    sql.query("insert into sales values (date '2026-01-01', 1.50), (date '2026-01-02', 2.25)")

    @http.get("/dashboard")
    def dashboard(request):
        return http.json(200, sql.query("from sales order by day"))

    @http.get("/async/dashboard")
    async def async_dashboard(request):
        rows = await sql.query("select amount from sales where day = $day", {"day": "2026-01-02"})
        return http.json(200, [rows, rows.columns, type(rows[0]["amount"]).__name__])

    @http.post("/sales")
    def add(request):
        done = sql.query("insert into sales values (?, ?)", request.json())
        return http.json(201, {"touched": done.touched})

    @http.post("/bank/{end}")
    def bank(request):
        with sql.session() as session:
            session.query("begin")
            session.query("create table account (n int)")
            if request.path_param("end") == "fail":
                raise runtime.BadRequest("no money")
            session.query("commit")
        return http.json(200, "done")

    @http.get("/bank")
    async def accounts(request):
        async with sql.session() as session:
            await session.query("create temp table t as select 7 as n")
            rows = await session.query("from t")
        tables = await sql.query("from duckdb_tables() where table_name = ?", ["account"])
        return http.json(200, [rows[0]["n"], len(tables)])

    @http.get("/other")
    def other(request):
        return http.json(200, sql.query("select 'other' as name", connection="second"))

    @http.get("/wrong")
    def wrong(request):
        try:
            sql.query("selekt")
        except runtime.SqlError as exc:
            return http.text(200, exc.slug)
"""
HANDLING = """
    import threading

    import trio

    from notebook_rpc import runtime
    from notebook_rpc.runtime import http

    barrier = threading.Barrier(200)
    seen = []
    chatting = []

    def doorman(request):
        if request.header("X-Forbidden"):
            return http.text(403, "not you")
        request.state["by"] = "the doorman"

    def lost(request):
        return http.text(404, f"nothing at {request.path}")

    def echo(request):
        return http.json(200, {
            "method": request.method,
            "path": request.path,
            "name": request.path_param("name"),
            "number": request.path_param("number"),
            "absent": request.path_param("absent", "none"),
            "page": request.query_param("page", "1"),
            "query": request.query,
            "type": request.header("Content-Type"),
            "host": "host" in request.headers,
            "body": request.body(),
            "bytes": len(request.content),
            "remote": request.remote_addr,
            "user": request.user,
            "by": request.state["by"],
        })

    def helper(request):
        match request.path_param("kind"):
            case "text":
                return http.text(200, "h\\u00e9llo")
            case "html":
                return http.html(200, "<p>")
            case "redirect":
                return http.redirect("/new place?a=b")
            case "status":
                return http.json(418, None, {"X-Kind": "teapot"})
            case "cookies":
                return http.response(204, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
            case "bytes":
                return http.response(200, b"\\x00\\xff", "application/x-thing")

    def meet(request):
        barrier.wait(20)
        return http.text(200, "met")

    def stream(request):
        def numbers():
            for number in range(3):
                yield f"{number}\\n"

        async def slowly():
            for number in range(3):
                await trio.sleep(0.01)
                yield {"n": number}
            yield http.event("two\\nlines", name="end", id="9")

        if request.path_param("kind") == "plain":
            return http.stream(numbers())
        if request.path_param("kind") == "sql":
            query = runtime.sql.query
            rows = query("select range as n from range(3)")
            more = (query("select ? + 1 as n", [row["n"]])[0]["n"] for row in rows)
            return http.stream(f"{n}\\n" for n in more)
        return http.events(slowly())

    async def forever(request):
        try:
            async def ticks():
                try:
                    while True:
                        yield "tick"
                        await trio.sleep(0.01)
                finally:
                    seen.append("stream")
            if request.query_param("stream"):
                return http.events(ticks())
            seen.append("begun")
            await trio.sleep_forever()
        except trio.Cancelled:
            seen.append("handler")
            raise

    def forever_seen(request):
        return http.json(200, seen)

    def slow_sql(request):
        try:
            runtime.sql.query("select count(*) from range(100000000000) a, range(100000000000) b")
        except BaseException as exc:
            seen.append(type(exc).__name__)
            raise

    def later(request):
        import below.helper
        from below import helper

        return http.text(200, below.helper.WORD + helper.WORD)

    def chat(client):
        room = client.request.path_param("room")
        chatting.append(client)
        client.send({"welcome": room})
        try:
            while client.connected():
                message = client.receive(timeout=60)
                if message:
                    for each in chatting:
                        each.send(message)
        finally:
            chatting.remove(client)
            for each in chatting:
                each.send(f"{room} has left")

    async def async_chat(client):
        while True:
            await client.send(await client.receive())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("routes")
    arguments = write(folder, setup=SETUP, handlers=HANDLING)
    (folder / "below").mkdir()
    (folder / "below" / "helper.py").write_text("WORD = 'below'")
    public = folder / "public"
    (public / "sub").mkdir(parents=True)
    (public / "index.html").write_text("<h1>home</h1>")
    (public / "data.json").write_text('{"a": 1}')
    (public / "sub" / "index.html").write_text("sub")
    (public / "big.bin").write_bytes(bytes(range(256)) * 4000)
    (public / ".hidden").write_text("secret")
    (public / "link.py").symlink_to(folder / "setup.py")
    (public / "way").symlink_to(folder)
    with Server(*arguments, "--connection", "second=duckdb://") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.port)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_handler_sees_its_request(client: Client, method: str) -> None:
    body = None if method == "GET" else "h\u00e9llo".encode()
    path = "/echo/caf%C3%A9/7?page=3&empty=&a=1&a=2"
    answer = client.ask(method, path, body, Content_Type="text/plain")
    assert answer.json == {
        "method": method,
        "path": "/echo/caf\u00e9/7",
        "name": "caf\u00e9",
        "number": "7",
        "absent": "none",
        "page": "3",
        "query": {"page": "3", "empty": "", "a": "2"},
        "type": "text/plain",
        "host": True,
        "body": "" if body is None else "h\u00e9llo",
        "bytes": 0 if body is None else 6,
        "remote": "127.0.0.1",
        "user": "anybody",
        "by": "the doorman",
    }


def test_a_body_that_is_no_text_is_the_clients_fault(client: Client) -> None:
    answer = client.post("/echo/a/1", b"\xff")
    assert (answer.status, answer.json) == (400, {"error": "the body is not UTF-8"})


@pytest.mark.parametrize(
    ("kind", "status", "headers", "body"),
    [
        ("text", 200, {"content-type": "text/plain; charset=utf-8"}, "h\u00e9llo".encode()),
        ("html", 200, {"content-type": "text/html; charset=utf-8"}, b"<p>"),
        ("redirect", 302, {"location": "/new%20place?a=b"}, b""),
        ("status", 418, {"content-type": "application/json", "x-kind": "teapot"}, b"null"),
        ("bytes", 200, {"content-type": "application/x-thing"}, b"\x00\xff"),
        ("cookies", 204, {"set-cookie": "b=2"}, b""),
    ],
)
def test_an_answer_is_what_its_helper_says(
    client: Client, kind: str, status: int, headers: dict[str, str], body: bytes
) -> None:
    answer = client.get(f"/helpers/{kind}")
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers | headers == answer.headers


def test_plain_handlers_run_at_the_same_time(server: Server) -> None:
    """Two hundred that wait for each other: if one had to wait for its thread, none would end."""
    ports = [server.port] * 200
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in ports]
    for connection in connections:
        connection.request("GET", "/many")
    for connection in connections:
        assert connection.getresponse().read() == b"met"
        connection.close()


def test_what_is_imported_at_a_request_is_found(client: Client) -> None:
    assert client.get("/later").body == b"belowbelow"


def test_streams_come_from_generators(client: Client) -> None:
    assert client.get("/stream/plain").body == b"0\n1\n2\n"
    assert client.get("/stream/sql").body == b"1\n2\n3\n"
    events = client.get("/stream/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert events.headers["cache-control"] == "no-store"
    assert events.body == (
        b'data: {"n":0}\n\ndata: {"n":1}\n\ndata: {"n":2}\n\n'
        b"event: end\nid: 9\ndata: two\ndata: lines\n\n"
    )


@pytest.mark.parametrize(
    ("path", "word"),
    [("/forever", "handler"), ("/forever?stream=1", "stream"), ("/slow-sql", "Stopped")],
)
def test_a_client_that_leaves_stops_its_handler(
    server: Server, client: Client, path: str, word: str
) -> None:
    before = client.get("/forever/seen").json.count(word)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path)
    if "stream" in path:
        assert connection.getresponse().read(4) == b"data"
    elif "sql" in path:
        until(lambda: b"notebook_rpc_calls_running 1" in client.get("/metrics").body)
    else:
        until(lambda: "begun" in client.get("/forever/seen").json)
    connection.close()
    until(lambda: bool(client.get("/forever/seen").json.count(word) == before + 1))
    until(lambda: b"notebook_rpc_calls_running 0" in client.get("/metrics").body)


def test_middleware_stands_before_every_handler(client: Client) -> None:
    for path in ("/dashboard", "/files/data.json", "/nowhere"):
        answer = client.get(path, X_Forbidden="1")
        assert (answer.status, answer.body) == (403, b"not you")
    assert client.get("/healthz", X_Forbidden="1").status == 200  # which is not the script's


def test_what_is_not_found_has_a_handler(client: Client) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = client.ask(method, "/no/where")
        assert (answer.status, answer.body) == (404, b"nothing at /no/where")
    assert client.get("/files/none").body == b"nothing at /files/none"
    assert client.ask("DELETE", "/dashboard").status == 405
    assert client.get("/healthz").body == b"ok"


# Databases


def test_a_dashboard_is_three_lines(client: Client) -> None:
    assert client.get("/dashboard").body.startswith(
        b'[{"day":"2026-01-01","amount":1.50},{"day":"2026-01-02","amount":2.25}'
    )
    assert client.get("/async/dashboard").json == [[{"amount": 2.25}], ["amount"], "Decimal"]
    assert client.get("/other").json == [{"name": "other"}]
    assert client.get("/wrong").body == b"query-error"


def test_a_session_is_one_connection(client: Client) -> None:
    assert client.get("/bank").json == [7, 0]
    failed = client.post("/bank/fail", "")
    assert (failed.status, failed.json) == (400, {"error": "no money"})
    assert client.get("/bank").json == [7, 0]  # it was rolled back
    assert client.post("/bank/well", "").status == 200
    assert client.get("/bank").json == [7, 1]


def test_a_token_that_can_only_read_only_reads(tmp_path: Path) -> None:
    arguments = write(tmp_path, setup=SETUP, handlers=HANDLING)
    (tmp_path / "public").mkdir()
    tokens = tmp_path / "tokens"
    tokens.write_text("writes name=ann\nreads name=bob read-only\n")
    tokens.chmod(0o600)
    row = json.dumps(["2026-01-03", 3])
    with Unsound(*arguments, "--bearer-token-file", str(tokens)) as server:
        reader = Client(server.port, Authorization="Bearer reads")
        writer = Client(server.port, Authorization="Bearer writes")
        assert reader.post("/sales", row).status == 500
        assert len(reader.get("/dashboard").json) == 2
        answer = writer.post("/sales", row)
        assert (answer.status, answer.json) == (201, {"touched": 1})
        assert len(reader.get("/dashboard").json) == 3
        assert reader.get("/echo/a/1").json["user"] == "bob"


# Files


def test_a_folder_is_served(client: Client) -> None:
    home = client.get("/files/")
    assert (home.status, home.body) == (200, b"<h1>home</h1>")
    assert home.headers["content-type"] == "text/html; charset=utf-8"
    assert home.headers["x-content-type-options"] == "nosniff"
    moved = client.get("/files?a=b")
    assert (moved.status, moved.headers["location"]) == (308, "./files/?a=b")
    assert client.get("/files/sub").headers["location"] == "./sub/"
    assert client.get("/files/sub/").body == b"sub"
    data = client.get("/files/data.json")
    assert data.headers["content-type"] == "application/json"
    again = client.get("/files/data.json", If_None_Match=data.headers["etag"])
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", data.headers["etag"])
    later = client.get("/files/data.json", If_Modified_Since=data.headers["last-modified"])
    assert later.status == 304
    assert client.get("/files/data.json", If_None_Match='"x"').status == 200
    assert client.ask("POST", "/files/data.json").status == 405


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/../setup.py",
            "/%2e%2e/setup.py",
            "/sub/../../setup.py",
            "//etc/passwd",
            "/..%2fsetup.py",
        ),
        *("/.hidden", "/link.py", "/way/setup.py", "/a%00b", "/sub//index.html", "/./data.json"),
        *("/data.json/", "/..\\setup.py", "/C:/x", "/" + "a" * 300),
    ],
)
def test_there_is_no_way_out_of_a_folder(client: Client, path: str) -> None:
    assert client.get(f"/files{path}").status == 404


@pytest.mark.parametrize(
    ("wanted", "status", "span"),
    [
        ("bytes=0-0", 206, (0, 1)),
        ("bytes=10-19", 206, (10, 20)),
        ("bytes=1023990-", 206, (1023990, 1024000)),
        ("bytes=-5", 206, (1023995, 1024000)),
        ("bytes=1023999-99999999", 206, (1023999, 1024000)),
        ("bytes=1024000-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-1", 200, (0, 1024000)),
        ("bytes=0-1,5-6", 200, (0, 1024000)),
        ("lines=0-1", 200, (0, 1024000)),
    ],
)
def test_a_part_of_a_file(
    client: Client, wanted: str, status: int, span: tuple[int, int] | None
) -> None:
    content = bytes(range(256)) * 4000
    answer = client.get("/files/big.bin", Range=wanted)
    assert answer.status == status
    if span is None:
        assert answer.headers["content-range"] == "bytes */1024000"
        return
    assert answer.body == content[slice(*span)]
    assert answer.headers["content-length"] == str(span[1] - span[0])
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/1024000"


def test_a_part_is_of_the_file_that_the_client_has(client: Client) -> None:
    head = client.ask("HEAD", "/files/big.bin")
    assert (head.body, head.headers["content-length"]) == (b"", "1024000")
    for known, status in ((head.headers["etag"], 206), ('"other"', 200)):
        assert client.get("/files/big.bin", Range="bytes=0-9", If_Range=known).status == status
    modified = head.headers["last-modified"]
    assert client.get("/files/big.bin", Range="bytes=0-9", If_Range=modified).status == 206


# WebSockets


async def test_plain_code_converses_with_many(server: Server) -> None:
    async with connected(server.port, "/plain/first") as first:
        assert await first.receive_json() == {"welcome": "first"}
        async with connected(server.port, "/plain/second") as second:
            assert await second.receive_json() == {"welcome": "second"}
            await second.send("hello")
            assert await first.receive() == "hello"
            assert await second.receive() == "hello"
        assert await first.receive() == "second has left"


async def test_async_code_converses(server: Server) -> None:
    async with connected(server.port, "/async") as client:
        for message in ("hello", b"\x00\xff"):
            await client.send(message)
            assert await client.receive() == message
