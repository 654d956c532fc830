"""VibeSQL against a server process: the examples of its document, and results of any size."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Postgres

USERS = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL, email VARCHAR(80),"
    " status VARCHAR(10), age INTEGER)"
)
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(100000000000) b"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


class Rest:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def begin(self, sql: str, accept: str = "", coding: str = "", **more: object) -> Any:
        headers = {"Content-Type": "application/json"}
        if accept:
            headers["Accept"] = accept
        if coding:
            headers["Accept-Encoding"] = coding
        body = json.dumps({"sql": sql, **more})
        self.connection.request("POST", "/api/query", body, headers)
        return self.connection.getresponse()

    def query(self, sql: str, accept: str = "", coding: str = "", **more: object) -> Answer:
        response = self.begin(sql, accept, coding, **more)
        return Answer(response.status, response.headers, response.read())

    def get(self, target: str) -> Answer:
        self.connection.request("GET", target)
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def close(self) -> None:
        self.connection.close()


def filled(rest: Rest) -> None:
    """The document's table: a hundred users, some of whom are active."""
    assert rest.query(USERS).json() == {"rows_affected": 0}
    values = ", ".join(
        f"({i}, 'User {i}', 'user{i}@example.com', '{'active' if i % 2 else 'away'}', {i})"
        for i in range(1, 101)
    )
    inserted = rest.query(f"INSERT INTO users VALUES {values}")
    assert (inserted.status, inserted.json()) == (201, {"rows_affected": 100})


@pytest.fixture(scope="module", params=["duckdb", "sqlite", "postgres"])
def everywhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rest]:
    """A server on each kind of database, with the table."""
    url = ["duckdb://"]
    if request.param == "sqlite":
        url = [f"sqlite:///{tmp_path_factory.mktemp('vibesql')}/users.db"]
    elif request.param == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres_server")
        url = [postgres.url]
    with Server(*url) as server:
        rest = Rest(server.port)
        if request.param == "postgres":  # which has what other tests have left
            rest.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        filled(rest)
        yield rest
        rest.query("DROP TABLE users")
        rest.close()


class TestTheDocument:
    def test_rows(self, everywhere: Rest) -> None:
        answer = everywhere.query("SELECT id, name, email FROM users WHERE id < 3 ORDER BY id")
        assert (answer.status, answer.json()) == (
            200,
            {
                "columns": ["id", "name", "email"],
                "rows": [[1, "User 1", "user1@example.com"], [2, "User 2", "user2@example.com"]],
                "row_count": 2,
            },
        )

    def test_a_page(self, everywhere: Rest) -> None:
        sql = "SELECT id, name FROM users WHERE status = $1 ORDER BY id"
        answer = everywhere.query(sql, params=["active"], limit=2, offset=20)
        assert answer.json() == {
            "columns": ["id", "name"],
            "rows": [[41, "User 41"], [43, "User 43"]],
            "row_count": 2,
            "total_count": 50,
            "offset": 20,
            "limit": 2,
        }

    def test_the_first_and_the_second_ten(self, everywhere: Rest) -> None:
        sql = "SELECT id FROM users ORDER BY id"
        for offset in (0, 10):
            answer = everywhere.query(sql, limit=10, offset=offset or None).json()
            assert answer["rows"] == [[offset + n] for n in range(1, 11)]
            assert (answer["total_count"], answer["offset"], answer["limit"]) == (100, offset, 10)

    def test_mutations(self, everywhere: Rest) -> None:
        row = (201, "x'; --", None, "new", 7)
        inserted = everywhere.query("INSERT INTO users VALUES ($1, $2, $3, $4, $5)", params=row)
        assert (inserted.status, inserted.json()) == (201, {"rows_affected": 1})
        updated = everywhere.query("UPDATE users SET age = $2 WHERE status = $1", params=["new", 8])
        assert (updated.status, updated.json()) == (200, {"rows_affected": 1})
        found = everywhere.query("SELECT name, email, age FROM users WHERE id = $1", params=[201])
        assert found.json()["rows"] == [["x'; --", None, 8]]
        deleted = everywhere.query("DELETE FROM users WHERE id > $1", params=[100])
        assert (deleted.status, deleted.json()) == (200, {"rows_affected": 1})

    def test_a_mutation_with_rows_runs_once_and_wholly(self, everywhere: Rest) -> None:
        sql = "INSERT INTO users (id, name) VALUES (301, 'a'), (302, 'b'), (303, 'c') RETURNING id"
        answer = everywhere.query(sql, limit=1)
        assert answer.status == 201
        assert (answer.json()["rows"], answer.json()["total_count"]) == ([[301]], 3)
        deleted = everywhere.query("DELETE FROM users WHERE id > 300").json()
        assert deleted == {"rows_affected": 3}

    def test_errors(self, everywhere: Rest) -> None:
        syntax = everywhere.query("SELEKT")
        assert syntax.status == 400
        assert set(syntax.json()) == {"error", "code"}
        assert syntax.json()["code"] in (None, "42601")
        missing = everywhere.query("SELECT * FROM no_such_table")
        assert missing.status == 404
        assert "no_such_table" in missing.json()["error"]
        assert everywhere.query("SELECT $1", params=[1, 2]).status == 400

    def test_tables(self, everywhere: Rest) -> None:
        assert everywhere.get("/api/tables").json() == {"tables": ["users"], "count": 1}

    def test_a_table(self, everywhere: Rest) -> None:
        found = everywhere.get("/api/tables/users").json()
        assert found["name"] == "users"
        assert [column["name"] for column in found["columns"]] == [
            *("id", "name", "email", "status", "age")
        ]
        facts = [(column["nullable"], column["primary_key"]) for column in found["columns"]]
        assert facts[1:] == [(False, False), (True, False), (True, False), (True, False)]
        assert facts[0][1]
        assert set(found["columns"][0]) == {"name", "data_type", "nullable", "primary_key"}
        nothing = everywhere.get(f"/api/tables/{quote('no such', safe='')}")
        assert nothing.status == 404
        assert set(nothing.json()) == {"error", "code"}

    def test_the_health_of_the_server(self, everywhere: Rest) -> None:
        answer = everywhere.get("/health").json()
        assert answer["status"] == "ok"
        assert answer["version"]

    def test_csv_and_lines_of_json(self, everywhere: Rest) -> None:
        sql = "SELECT id, email, 'a\"b' AS quoted FROM users WHERE id < 3 ORDER BY id"
        table = everywhere.query(sql, "text/csv")
        assert table.body == (
            b'id,email,quoted\r\n1,user1@example.com,"a""b"\r\n2,user2@example.com,"a""b"\r\n'
        )
        lines = everywhere.query(sql, "application/x-ndjson", limit=1).body
        assert lines == b'{"id":1,"email":"user1@example.com","quoted":"a\\"b"}\n'

    def test_arrow(self, everywhere: Rest) -> None:
        stream = everywhere.query("SELECT id FROM users ORDER BY id", ARROW, offset=98).body
        assert pa.ipc.open_stream(stream).read_all().to_pylist() == [{"id": 99}, {"id": 100}]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def rest(server: Server) -> Iterator[Rest]:
    rest = Rest(server.port)
    yield rest
    rest.close()


def test_types(rest: Rest) -> None:
    """The document's table of conversions; where it has null, we have the value."""
    answer = rest.query(
        "SELECT NULL, true, 1::SMALLINT, 9007199254740993::BIGINT, 18446744073709551615::UBIGINT,"
        " 12345678901234567890.10::DECIMAL(38, 2), 0.1::FLOAT, 'nan'::DOUBLE, '-inf'::REAL, 'é',"
        " DATE '2026-02-28', TIME '01:02:03', TIMESTAMP '2026-02-28 01:02:03', INTERVAL 90 MINUTE,"
        " -INTERVAL '1 day 04:00:00'"
    )
    assert (
        b'"rows":[[null,true,1,9007199254740993,18446744073709551615,12345678901234567890.10,'
        in (answer.body)
    )
    assert answer.json()["rows"][0][6:] == [
        *(0.1, None, None, "é", "2026-02-28", "01:02:03", "2026-02-28T01:02:03"),
        *("PT1H30M", "-P1DT4H"),
    ]


def test_parameters_have_the_types_of_json(rest: Rest) -> None:
    parameters = [None, True, 7, 0.5, "x"]
    sql = "SELECT $1 IS NULL, typeof($2), typeof($3), typeof($4), typeof($5)"
    (row,) = rest.query(sql, params=parameters).json()["rows"]
    assert row[0] is True
    assert row[1] == "BOOLEAN"
    assert row[2] in ("INTEGER", "BIGINT")
    assert row[3:] == ["DOUBLE", "VARCHAR"]
    assert rest.query("SELECT $a", params={"a": 1}).json()["rows"] == [[1]]


def test_parquet(rest: Rest) -> None:
    answer = rest.query(
        "SELECT i, 'x' || i AS s FROM range(3) r(i)", PARQUET, "gzip", filename="a.b"
    )
    assert answer.headers["content-type"] == PARQUET
    assert answer.headers["content-encoding"] is None
    assert answer.headers["content-disposition"] == 'attachment; filename="a.b"'
    assert pq.read_table(io.BytesIO(answer.body)).to_pylist()[2] == {"i": 2, "s": "x2"}


def test_a_link_to_a_file(rest: Rest) -> None:
    link = urlencode(
        {"sql": "SELECT $1 AS x", "params": "[7]", "format": "csv", "filename": "€.csv"}
    )
    answer = rest.get(f"/api/query?{link}")
    assert answer.body == b"x\r\n7\r\n"
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].endswith("filename*=UTF-8''%E2%82%AC.csv")
    rest.query("CREATE OR REPLACE TABLE linked (i INTEGER)")
    write = rest.get("/api/query?" + urlencode({"sql": "INSERT INTO linked VALUES (1)"}))
    assert write.status == 400
    assert rest.query("SELECT count(*) FROM linked").json()["rows"] == [[0]]


@pytest.mark.parametrize(("coding", "size"), [("gzip", 0.5), ("gzip, zstd", 0.5)])
def test_large_answers_are_compressed(rest: Rest, coding: str, size: float) -> None:
    sql = "SELECT i, 'name ' || i % 10 AS s FROM range(200000) r(i)"
    plain = rest.query(sql, "text/csv")
    assert plain.headers["content-encoding"] is None
    assert plain.headers.get_all("vary") == ["accept", "accept-encoding"]
    coded = rest.query(sql, "text/csv", coding)
    assert coded.headers["content-encoding"] == coding.rpartition(" ")[2]
    assert len(coded.body) < size * len(plain.body)
    if coding == "gzip":
        assert gzip.decompress(coded.body) == plain.body
    else:
        zstd = pytest.importorskip("backports.zstd")
        assert zstd.decompress(coded.body) == plain.body


def test_a_small_answer_is_not(rest: Rest) -> None:
    answer = rest.query("SELECT 1 AS x", coding="gzip")
    assert answer.headers["content-encoding"] is None
    assert answer.json()["rows"] == [[1]]


def test_nothing_that_the_client_takes(rest: Rest) -> None:
    assert rest.query("SELECT 1", "image/png").status == 406
    assert rest.query("SELECT 1", coding="identity;q=0").status == 406


# The engine reads ahead, so an error that is to come in mid-answer must lie far behind.
LATE = "SELECT CASE WHEN i < 2900000 THEN i ELSE error('late') END AS n FROM range(3000000) r(i)"


@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("form", ["json", "csv", "ndjson", "arrow"])
def test_what_breaks_off_cannot_be_taken_for_whole(server: Server, form: str, coding: str) -> None:
    rest = Rest(server.port)
    response = rest.begin(LATE, coding=coding, format=form)
    assert response.status == 200
    # The connection is cut in mid-body; the client may meet that while it reads, or at the end.
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    rest.close()


def test_a_parquet_file_that_breaks_off_is_an_error(rest: Rest) -> None:
    answer = rest.query(LATE, PARQUET)
    assert (answer.status, answer.json()["error"]) == (400, "Invalid Input Error: late")


@pytest.mark.parametrize("form", ["json", "csv", "ndjson", "arrow", "parquet"])
def test_memory_does_not_depend_on_the_size(rest: Rest, server: Server, form: str) -> None:
    sql = "SELECT i, hash(i) AS h, repeat('x', 150) AS s FROM range({}) r(i)"
    rest.query(sql.format(100_000), format=form)
    before = server.memory()
    response = rest.begin(sql.format(1_000_000), format=form)
    size, most = 0, before
    while piece := response.read(1 << 22):
        size += len(piece)
        most = max(most, server.memory())
    assert size > (150e6 if form != "parquet" else 8e6)
    assert most - before < 80e6


def test_who_reads_nothing_costs_nothing(server: Server) -> None:
    rest, other = Rest(server.port), Rest(server.port)
    rest.query("SELECT 1")
    before = server.memory()
    rest.begin("SELECT repeat('x', 1000) FROM range(10000000)", "text/csv")
    for _ in range(20):
        assert other.query("SELECT 42 AS x").json()["rows"] == [[42]]
    assert server.memory() - before < 60e6
    rest.close()
    other.close()


@pytest.mark.parametrize("sql", [ENDLESS, f"SELECT random(), ({ENDLESS})"])
def test_who_leaves_stops_the_query(server: Server, sql: str) -> None:
    witness = Rest(server.port)
    for form in ("json", "csv", "parquet"):
        rest = Rest(server.port)
        body = json.dumps({"sql": sql, "format": form, "limit": None})
        rest.connection.request("POST", "/api/query", body, {"Content-Type": "application/json"})
        until_calls_run(witness, 1)
        left = time.monotonic()
        rest.close()
        until_calls_run(witness, 0)
        assert time.monotonic() - left < 5  # benchmarks.export says how many milliseconds
    witness.close()


def until_calls_run(witness: Rest, number: int) -> None:
    end = time.monotonic() + 10
    while json.loads(witness.get("/readyz?verbose").body)["calls"]["running"] != number:
        assert time.monotonic() < end


def test_a_statement_that_takes_too_long() -> None:
    with Server("--query-timeout", "2") as server:
        rest = Rest(server.port)
        answer = rest.query(ENDLESS)
        assert (answer.status, answer.json()["code"]) == (504, None)
        # What takes so long is to count them; the rows are here.
        answer = rest.query("SELECT a.range AS x FROM range(1000000000000) a", limit=1)
        assert answer.json()["rows"] == [[0]]
        assert (answer.json()["row_count"], answer.json()["total_count"]) == (1, None)
        assert rest.query("SELECT 1 AS x").json()["rows"] == [[1]]
        rest.close()


def test_who_may_only_read(tmp_path: Path) -> None:
    """Of the server's files, too."""
    (tmp_path / "own").mkdir()
    duckdb.connect(tmp_path / "data.db").close()
    url, own = f"duckdb:///{tmp_path}/data.db", str(tmp_path / "own")
    with Server(url, "--read-only", "--allowed-paths", own) as server:
        rest = Rest(server.port)
        assert rest.query("CREATE TABLE t (i INTEGER)").status >= 400
        copy = f"COPY (SELECT 1) TO '{tmp_path}/x.parquet'"
        assert rest.query(copy).status >= 400
        answer = rest.query("SELECT 1 AS x", PARQUET)
        assert pq.read_table(io.BytesIO(answer.body)).to_pylist() == [{"x": 1}]
        rest.close()


def test_it_needs_the_token() -> None:
    with Server("--bearer-token", "x" * 40) as server:
        rest = Rest(server.port)
        for target in ("/api/query?sql=SELECT+1", "/api/tables", "/api/tables/t"):
            assert rest.get(target).status == 401
        assert rest.query("SELECT 1").status == 401
        rest.close()
