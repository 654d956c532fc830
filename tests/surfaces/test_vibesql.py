"""The VibeSQL surface: what it asks for, and the shapes in which it answers."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode

import pytest

from notebook_rpc.errors import (
    Busy,
    Cancelled,
    Conflict,
    DatabaseUnavailable,
    Forbidden,
    NotebookError,
    NotSupported,
    QueryError,
    QueryTimeout,
    UnknownConnection,
    UnknownTable,
)
from notebook_rpc.model import BROKEN_STREAM, ResultColumn, Table
from notebook_rpc.sansio.tokens import User
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts
from notebook_rpc.surfaces._telling import BUG
from notebook_rpc.surfaces.encoding import Encoding
from notebook_rpc.surfaces.vibesql import Options, VibeSQL
from notebook_rpc.web import BrokenOff, Request, Response
from tests.surfaces.fakes import Rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.web import Handler, Headers

ADA = User("ada")
JSON = (b"content-type", b"application/json")
LARGE = b"x" * 70_000  # what is sent before more is known


class Answer(Rows):
    count = -1
    row_count = 2
    total_count: int | None = None


class Database:
    """Queries and a catalog."""

    def __init__(self) -> None:
        self.answer: Answer | Exception = Answer([[b"[[1],[2]]"]])
        self.asked: list[object] = []
        self.over = 0
        self.listed = [Table("db", "main", "posts"), Table("db", "main", "users")]

    @asynccontextmanager
    async def export(
        self, form: str, sql: str, params: Any, **window: Any
    ) -> AsyncIterator[Answer]:
        self.asked.append((form, sql, params, window["offset"], window["limit"]))
        if isinstance(self.answer, Exception):
            raise self.answer
        try:
            yield self.answer
        finally:
            self.over += 1

    async def tables(self) -> list[tuple[Table, int | None]]:
        return [(table, None) for table in self.listed]

    async def describe(self, name: str) -> TableFacts:
        if name != "users":
            raise UnknownTable(f"there is no table {name!r}")
        columns = [ColumnFacts("id", "INTEGER", nullable=False), ColumnFacts("name", "VARCHAR(40)")]
        key = Constraint(ConstraintKind.PRIMARY_KEY, columns=["id"])
        return TableFacts(Table("db", "main", "users"), columns, [key])


class Service:
    def __init__(self) -> None:
        self.database = Database()
        self.found: list[tuple[str, User, bool]] = []
        self.errors: list[str] = []
        self._surface = VibeSQL(self.find, self.catalog, Options(self.errors.append))

    def find(self, connection: str, user: User, *, read_only: bool = False) -> Any:
        self.found.append((connection, user, read_only))
        if connection == "nowhere":
            raise UnknownConnection("there is no connection 'nowhere'")
        return self.database

    def catalog(self, connection: str, user: User) -> Any:
        return self.find(connection, user)

    async def ask(self, method: str, path: str, request: Request) -> Response:
        handlers: dict[tuple[str, str], Handler] = {
            (route.method, route.path): route.handler for route in self._surface.routes()
        }
        return await handlers[method, path](request)

    async def post(
        self,
        body: object,
        accept: str | None = None,
        *,
        query: str = "",
        kind: str = JSON[1].decode(),
    ) -> Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = [(b"content-type", kind.encode())]
        if accept is not None:
            headers.append((b"accept", accept.encode()))
        request = Request("POST", "/api/query", query, tuple(headers), raw, user=ADA)
        return await self.ask("POST", "/api/query", request)

    async def get(
        self, path: str, query: str = "", headers: Headers = (), **parameters: str
    ) -> Response:
        request = Request("GET", path, query, headers, parameters=parameters, user=ADA)
        return await self.ask("GET", path, request)


@pytest.fixture
def service() -> Service:
    return Service()


def text_of(response: Response) -> bytes:
    assert not callable(response.body)
    return response.body if isinstance(response.body, bytes) else b"".join(response.body)


def json_of(response: Response) -> Any:
    assert JSON in response.headers
    return json.loads(text_of(response))


async def sent(response: Response) -> tuple[bytes, bool]:
    """What a stream sends, and whether it ends well."""
    assert callable(response.body)
    assert response.resources is not None
    pieces: list[bytes] = []

    async def send(piece: bytes) -> None:
        assert piece
        pieces.append(piece)

    async with response.resources:
        try:
            await response.body(send)
        except BrokenOff:
            return b"".join(pieces), False
    return b"".join(pieces), True


class TestQuery:
    async def test_rows(self, service: Service) -> None:
        response = await service.post({"sql": "SELECT x"})
        assert response.status == 200
        assert text_of(response) == b'{"columns":["x"],"rows":[[1],[2]],"row_count":2}'
        assert service.database.asked == [("rows", "SELECT x", None, None, None)]
        assert service.found == [("default", ADA, False)]
        assert service.database.over == 1

    @pytest.mark.parametrize(
        ("asked", "window", "said"),
        [
            ({"limit": 10}, (None, 10), {"total_count": 100, "offset": 0, "limit": 10}),
            ({"limit": 0}, (None, 0), {"total_count": 100, "offset": 0, "limit": 0}),
            ({"offset": 7}, (7, None), {"total_count": 100, "offset": 7, "limit": None}),
            ({"offset": 0}, (0, None), {"total_count": 100, "offset": 0, "limit": None}),
            ({"limit": 5, "offset": 2}, (2, 5), {"total_count": 100, "offset": 2, "limit": 5}),
            ({"limit": 2**63 - 1}, (None, 2**63 - 1), {"limit": 2**63 - 1}),
        ],
    )
    async def test_pages(self, service: Service, asked: Any, window: Any, said: Any) -> None:
        assert isinstance(service.database.answer, Answer)
        service.database.answer.total_count = 100
        response = json_of(await service.post({"sql": "SELECT x", "params": ["a"], **asked}))
        assert response["row_count"] == 2
        assert {name: response[name] for name in said} == said
        assert service.database.asked == [("rows", "SELECT x", ["a"], *window)]

    async def test_a_total_that_nobody_knows(self, service: Service) -> None:
        response = json_of(await service.post({"sql": "SELECT x", "limit": 2}))
        assert response["total_count"] is None

    @pytest.mark.parametrize(
        ("sql", "status"),
        [
            ("INSERT INTO t VALUES (1)", 201),
            ("WITH a AS (SELECT 1) INSERT INTO t FROM a", 201),
            ("UPDATE t SET i = 1", 200),
            ("CREATE TABLE t (i INTEGER)", 200),
        ],
    )
    async def test_mutations(self, service: Service, sql: str, status: int) -> None:
        service.database.answer = answer = Answer([], columns=(), ended=True)
        answer.count = 5
        for accept in (None, "text/csv"):
            response = await service.post({"sql": sql}, accept)
            assert (response.status, text_of(response)) == (status, b'{"rows_affected":5}')
            assert JSON in response.headers

    async def test_rows_of_an_insert(self, service: Service) -> None:
        response = await service.post({"sql": "INSERT INTO t VALUES (1) RETURNING x"})
        assert (response.status, json_of(response)["columns"]) == (201, ["x"])

    async def test_what_is_not_known_how_often_is_not_negative(self, service: Service) -> None:
        service.database.answer = Answer([], columns=(), ended=True)
        assert json_of(await service.post({"sql": "UPDATE"})) == {"rows_affected": 0}

    async def test_parameters_by_name(self, service: Service) -> None:
        await service.post({"sql": "SELECT :a", "params": {"a": [1, {"b": None}]}})
        assert service.database.asked == [
            ("rows", "SELECT :a", {"a": [1, {"b": None}]}, None, None)
        ]

    async def test_names_that_need_quotes(self, service: Service) -> None:
        service.database.answer = Answer([[b"[]"]], columns=(ResultColumn('a"é\n', ""),))
        assert json_of(await service.post({"sql": "x"}))["columns"] == ['a"é\n']

    async def test_a_connection_of_the_servers(self, service: Service) -> None:
        await service.post({"sql": "x"}, query="connection=other")
        assert service.found == [("other", ADA, False)]
        response = await service.post({"sql": "x"}, query="connection=nowhere")
        assert response.status == 404
        assert json_of(response) == {"error": "there is no connection 'nowhere'", "code": None}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff",
            b"[" * 100_000,
            b"[]",
            {},
            {"sql": 1},
            {"sql": "x", "params": "a"},
            {"sql": "x", "limit": -1},
            {"sql": "x", "limit": 1.5},
            {"sql": "x", "limit": "1"},
            {"sql": "x", "limit": True},
            {"sql": "x", "limit": 2**63},
            {"sql": "x", "offset": -1},
            {"sql": "x", "filename": "a\nb"},
        ],
    )
    async def test_what_is_no_query(self, service: Service, body: object) -> None:
        response = await service.post(body)
        assert response.status == 400
        assert json_of(response)["code"] is None
        assert json_of(response)["error"]
        assert service.database.asked == []

    @pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
    async def test_what_a_form_could_send_is_refused(self, service: Service, kind: str) -> None:
        """A page of another origin may send these without asking, where it has no Origin."""
        response = await service.post({"sql": "x"}, kind=kind)
        assert response.status == 415
        assert json_of(response)["code"] is None
        assert service.database.asked == []

    async def test_a_charset_does_no_harm(self, service: Service) -> None:
        assert (
            await service.post({"sql": "x"}, kind="Application/JSON; charset=utf-8")
        ).status == 200

    async def test_a_link_can_only_read(self, service: Service) -> None:
        query = urlencode({"sql": "SELECT $1", "params": "[1]", "limit": 2, "format": "csv"})
        response = await service.get("/api/query", query)
        assert text_of(response) == b"[[1],[2]]"
        assert service.found == [("default", ADA, True)]
        assert service.database.asked == [("csv", "SELECT $1", [1], None, 2)]

    async def test_a_link_without_a_statement_says_what_is_missing(self, service: Service) -> None:
        response = await service.get("/api/query", "query=SELECT+1")
        assert response.status == 400
        assert b"sql: the statement is missing" in bytes(response.body)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "query", ["", "sql=x&limit=a", "sql=x&limit=-1", "sql=x&params=1", "sql=x&params=%ff"]
    )
    async def test_a_link_that_is_none(self, service: Service, query: str) -> None:
        assert (await service.get("/api/query", query)).status == 400
        assert service.database.asked == []


class TestFormats:
    @pytest.mark.parametrize(
        ("accept", "form", "kind"),
        [
            (None, "rows", "application/json"),
            ("*/*", "rows", "application/json"),
            ("text/csv", "csv", "text/csv; charset=utf-8"),
            ("application/x-ndjson", "ndjson", "application/x-ndjson"),
            ("application/vnd.apache.arrow.stream", "arrow", "application/vnd.apache.arrow.stream"),
            ("application/vnd.apache.parquet", "parquet", "application/vnd.apache.parquet"),
            ("text/csv;q=0.5, application/x-ndjson", "ndjson", "application/x-ndjson"),
        ],
    )
    async def test_what_is_accepted_is_what_comes(
        self, service: Service, accept: str | None, form: str, kind: str
    ) -> None:
        response = await service.post({"sql": "x"}, accept)
        assert dict(response.headers) == {b"content-type": kind.encode(), b"vary": b"accept"}
        assert service.database.asked == [(form, "x", None, None, None)]

    async def test_a_format_that_is_asked_for_comes_first(self, service: Service) -> None:
        response = await service.post({"sql": "x", "format": "csv"}, "application/json")
        assert dict(response.headers)[b"content-type"] == b"text/csv; charset=utf-8"
        assert text_of(response) == b"[[1],[2]]"

    @pytest.mark.parametrize(
        ("asked", "accept", "offered"),
        [
            ({}, "image/png", "application/json, text/csv, application/x-ndjson, "),
            ({"format": "xlsx"}, "*/*", "json, csv, ndjson, arrow, parquet"),
        ],
    )
    async def test_what_there_is_not(
        self, service: Service, asked: Any, accept: str, offered: str
    ) -> None:
        response = await service.post({"sql": "x", **asked}, accept)
        assert response.status == 406
        assert offered in json_of(response)["error"]
        assert service.database.asked == []
        assert service.errors == ["not-acceptable"]

    async def test_a_name_for_the_file(self, service: Service) -> None:
        response = await service.post({"sql": "x", "filename": "ü.csv"}, "text/csv")
        assert dict(response.headers)[b"content-disposition"] == (
            b"attachment; filename=\"_.csv\"; filename*=UTF-8''%C3%BC.csv"
        )

    async def test_a_large_answer_is_a_stream(self, service: Service) -> None:
        service.database.answer = Answer([[b"[", LARGE], [memoryview(LARGE)], [b"]"]])
        response = await service.post({"sql": "x"})
        assert service.database.over == 0
        text, whole = await sent(response)
        assert whole
        assert text == b'{"columns":["x"],"rows":[' + 2 * LARGE + b'],"row_count":2}'
        assert service.database.over == 1

    async def test_a_small_one_waits_for_its_end(self, service: Service) -> None:
        """So that what fails soon has a status that says so."""
        service.database.answer = Answer([[b"["], [b"]"]])
        assert text_of(await service.post({"sql": "x"})).endswith(b'[],"row_count":2}')
        service.database.answer = Answer([[b"["], QueryError("soon")])
        assert (await service.post({"sql": "x"})).status == 400

    @pytest.mark.parametrize(
        ("form", "last_words"),
        [("json", b""), ("csv", b""), ("ndjson", b""), ("parquet", b""), ("arrow", BROKEN_STREAM)],
    )
    async def test_what_breaks_off_cannot_be_taken_for_whole(
        self, service: Service, form: str, last_words: bytes
    ) -> None:
        service.database.answer = Answer([[LARGE], QueryError("late")])
        text, whole = await sent(await service.post({"sql": "x", "format": form}))
        assert not whole
        assert text.endswith(LARGE + last_words)
        assert service.database.over == 1


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (QueryError("no"), 400),
            (UnknownTable("no"), 404),
            (Conflict("no"), 409),
            (Forbidden("no"), 403),
            (NotSupported("no"), 501),
            (Busy("no"), 503),
            (DatabaseUnavailable("no"), 503),
            (QueryTimeout("no"), 504),
            (Cancelled("no"), 499),
            (NotebookError("no"), 500),
        ],
    )
    async def test_statuses(self, service: Service, error: NotebookError, status: int) -> None:
        service.database.answer = error
        response = await service.post({"sql": "x"})
        assert response.status == status
        assert text_of(response) == b'{"error":"no","code":null}'
        assert ((b"retry-after", b"1") in response.headers) == (status == 503)
        assert service.errors == [error.slug]

    async def test_sqlstate(self, service: Service) -> None:
        service.database.answer = QueryError("no")
        service.database.answer.sqlstate = "42601"
        response = await service.post({"sql": "x"})
        assert (response.status, json_of(response)) == (400, {"error": "no", "code": "42601"})

    async def test_a_bug_is_an_answer_too(
        self, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        service.database.answer = KeyError("a bug")
        response = await service.post({"sql": "x"})
        assert (response.status, json_of(response)) == (500, {"error": BUG, "code": None})
        assert service.errors == ["internal-error"]
        assert "a bug" in caplog.text

    async def test_no_coding_that_is_accepted(self, service: Service) -> None:
        class Codings:
            codings = ("gzip",)

            def begin(self, _: str) -> NoReturn:
                raise NotImplementedError

        options = Options(service.errors.append, Encoding(Codings()))
        (route,) = (
            each
            for each in VibeSQL(service.find, service.catalog, options).routes()
            if each.path == "/api/tables"
        )
        headers = ((b"accept-encoding", b"identity;q=0"),)
        response = await route.handler(Request("GET", "/api/tables", "", headers, user=ADA))
        assert response.status == 406
        assert "gzip, identity" in json_of(response)["error"]
        assert service.errors == ["not-acceptable"]

    async def test_parameters_are_bounded(self, service: Service) -> None:
        deep = b"[" * 200 + b"]" * 200
        many = b"[" + b"[]," * 1_000_000 + b"[]]"
        for params, excess in ((deep, "deeper than 128 levels"), (many, "1000000 values")):
            response = await service.post(b'{"sql": "x", "params": ' + params + b"}")
            assert response.status == 400
            assert excess in json_of(response)["error"]
        query = urlencode({"sql": "x", "params": deep})
        response = await service.get("/api/query", query)
        assert (response.status, service.database.asked) == (400, [])
        assert service.errors == ["parse-error", "parse-error", "invalid-params"]

    async def test_an_error_is_never_empty(self, service: Service) -> None:
        service.database.answer = QueryError("")
        assert json_of(await service.post({"sql": "x"}))["error"] == "query-error"


class TestTables:
    async def test_names(self, service: Service) -> None:
        response = await service.get("/api/tables")
        assert text_of(response) == b'{"tables":["posts","users"],"count":2}'

    async def test_a_name_that_is_not_enough_comes_with_more(self, service: Service) -> None:
        service.database.listed += [Table("db", "old", "users"), Table("db", "old", "logs")]
        service.database.listed += [Table("other", "main", "users")]
        names = ["posts", "db.main.users", "old.users", "old.logs", "other.main.users"]
        assert json_of(await service.get("/api/tables")) == {"tables": names, "count": 5}

    async def test_columns(self, service: Service) -> None:
        response = await service.get("/api/tables/{table}", "connection=other", table="users")
        assert json_of(response) == {
            "name": "users",
            "columns": [
                {"name": "id", "data_type": "INTEGER", "nullable": False, "primary_key": True},
                {
                    "name": "name",
                    "data_type": "VARCHAR(40)",
                    "nullable": True,
                    "primary_key": False,
                },
            ],
        }
        assert service.found == [("other", ADA, False)]

    async def test_a_table_that_is_not_there(self, service: Service) -> None:
        response = await service.get("/api/tables/{table}", table="nope")
        assert response.status == 404
        assert json_of(response) == {"error": "there is no table 'nope'", "code": None}
        assert service.errors == ["unknown-table"]
