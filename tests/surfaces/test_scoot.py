"""The Scoot surface: its endpoints' shapes, whose they are, and answers that are never taken for
whole when they are not."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from notebook_rpc.errors import (
    Busy,
    Forbidden,
    MissingDriver,
    NotebookError,
    NotSupported,
    QueryError,
    UnknownConnection,
    UnknownTable,
)
from notebook_rpc.model import ResultColumn, Table
from notebook_rpc.sansio.addresses import Address, key
from notebook_rpc.sansio.changes import Change, Condition
from notebook_rpc.sansio.origins import Item, Origins, Outline, Source
from notebook_rpc.sansio.routing import Found, RoutingTable
from notebook_rpc.sansio.tokens import User
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts
from notebook_rpc.surfaces.scoot import Scoot, Services
from notebook_rpc.web import BrokenOff, Request, Response
from tests.surfaces.fakes import Rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

ADA = User("ada")
AT = "/api/contexts/default/connections/sales"
EL = Address("postgresql", "h", 5432, "ada", "d", "postgresql+psycopg")
EL_JSON = {
    "dialect": "postgresql",
    "host": "h",
    "port": 5432,
    "username": "ada",
    "database": "d",
    "driver": "postgresql+psycopg",
}
ORDERS = TableFacts(
    Table("d", "public", "orders"),
    [
        ColumnFacts("id", "BIGINT", nullable=False),
        ColumnFacts("user_id", "INTEGER"),
        ColumnFacts("js", "JSONB", default="'{}'"),
    ],
    [
        Constraint(ConstraintKind.PRIMARY_KEY, "orders_pkey", ["id"]),
        Constraint(ConstraintKind.UNIQUE, "", ["js"]),
        Constraint(
            *(ConstraintKind.FOREIGN_KEY, "fk", ["user_id"]),
            references=Table("d", "public", "users"),
            referenced=["id"],
        ),
        Constraint(ConstraintKind.CHECK, "", ["id"], "id > 0"),
    ],
    "CREATE TABLE orders (...)",
)
ID = {
    "name": "id",
    "type": "INTEGER",
    "typespec": {"type": "INTEGER", "bits": 64, "signed": True},
    "native_type": "BIGINT",
    "nullable": False,
    "primary_key": True,
    "default": None,
}
FOREIGN_KEY = {
    "name": "fk",
    "columns": ["user_id"],
    "type": "fk",
    "reference": {"table": "users", "columns": ["id"]},
}
CHECK = {"name": None, "columns": ["id"], "type": "chk", "condition": {"text": "id > 0"}}


@dataclass
class Counted(Rows):
    """What a statement gives, and how many rows it touched."""

    count: int = -1
    row_count: int = 0
    total_count: int | None = None


class Sales:
    """The one connection that there is: what its statements give is laid down."""

    def __init__(self) -> None:
        self.answers: dict[str, Counted] = {}
        self.over: list[str] = []
        self.events: list[str] = []
        self.users: list[User] = []
        self.registered: list[tuple[Any, ...]] = []
        self.failure: NotebookError | None = None
        self.errors: list[str] = []
        services = Services(
            self,
            self.find,
            lambda *_: self,
            self,
            self.errors.append,
        )
        surface = Scoot(services)
        self._table = RoutingTable((each.method, each.path, each) for each in surface.routes())

    def find(self, _: str, user: User) -> Sales:
        self.users.append(user)
        return self

    async def ask(
        self, method: str, target: str, body: object = None, media_type: str = "application/json"
    ) -> Response:
        path, _, query = target.partition("?")
        found = self._table.find(method, path)
        assert isinstance(found, Found), found
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = ((b"content-type", media_type.encode()),)
        request = Request(method, path, query, headers, raw, found.parameters, ADA)
        return await found.target.handler(request)

    async def get(self, target: str) -> Any:
        return await self._json(await self.ask("GET", target))

    async def post(self, target: str, body: object) -> Any:
        return await self._json(await self.ask("POST", target, body))

    async def query(self, sql: str, **more: object) -> Any:
        return await self.post(f"{AT}/query", {"sql": sql, **more})

    async def _json(self, response: Response) -> Any:
        assert response.status == 200, response
        assert response.headers == ((b"content-type", b"application/json"),)
        return json.loads(joined(response))

    async def error(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        response = await self.ask(method, target, body)
        retry = ((b"retry-after", b"1"),) if response.status == 503 else ()
        assert response.headers == ((b"content-type", b"application/json"), *retry)
        return response.status, json.loads(joined(response))

    # Contexts

    def key(self, context: str, name: str) -> str:
        if key(context, name) != "sales":
            raise UnknownConnection(f"Unknown connection: {name!r}")
        return "sales"

    def dialect(self, _: str, /) -> str:
        return "postgresql"

    def lasting(self) -> dict[str, list[str]]:
        return {"default": ["sales"]}

    def all(self) -> dict[str, dict[str, Address | None]]:
        return {"default": {"sales": None, "el": EL}}

    async def register(self, *about: object, persist: bool = False) -> Address:
        self.registered.append((*about, persist))
        if self.failure is not None:
            raise self.failure
        return EL

    # Queries and the catalog

    @asynccontextmanager
    async def rows(self, sql: str) -> AsyncIterator[Counted]:
        self.events.append(f"run {sql}")
        try:
            answer = replace(self.answers[sql])
            await answer.begin()
            yield answer
        finally:
            self.over.append(sql)

    async def tables(self, *, counts: bool = False) -> Sequence[tuple[Table, int | None]]:
        found = [Table("d", "public", "orders"), Table("d", "audit", "log"), Table("d", "", "t")]
        return list(zip(found, (3, None, 0) if counts else (None,) * 3, strict=True))

    async def describe(self, name: str) -> TableFacts:
        if name == "buggy":
            raise KeyError("a bug")
        if name not in ("orders", "public.orders"):
            raise UnknownTable(f"there is no table {name!r}")
        return ORDERS

    async def schemas(self) -> list[str]:
        return ["public"]

    async def databases(self) -> list[str]:
        raise NotSupported("it is not known which databases there are")

    # Statements

    async def changed(self, sql: str, change: Change, dialect: str, catalog: object) -> str:
        assert (dialect, catalog) == ("postgresql", self)
        return f"{sql} {change.operation.value} {change.conditions or change.columns}"

    async def origins(self, sql: str, dialect: str, catalog: object) -> Origins:
        assert (dialect, catalog) == ("postgresql", self)
        self.events.append(f"origins {sql}")
        if not sql.startswith("select"):
            return Origins(None, {})
        items = [Item("id", "", "id"), Item(), Item("user_id", "", "u")]
        return Origins(Outline(items, [Source("orders", "orders")]), {"orders": ORDERS})

    async def table(self, sql: str, dialect: str) -> TableFacts:
        assert dialect == "postgresql"
        return replace_statement(ORDERS, sql)

    async def conditions(self, texts: Sequence[str], dialect: str) -> list[dict[str, object]]:
        assert dialect == "postgresql"
        return [{"text": text} for text in texts]


def replace_statement(facts: TableFacts, sql: str) -> TableFacts:
    return TableFacts(facts.table, facts.columns, facts.constraints, sql)


def joined(response: Response) -> bytes:
    body = response.body
    assert not callable(body)
    return body if isinstance(body, bytes) else b"".join(body)


THREE = (ResultColumn("id", "bigint"), ResultColumn("count", "bigint"), ResultColumn("u", ""))


@pytest.fixture
def sales() -> Sales:
    sales = Sales()
    sales.answers = {
        "select": Counted([[b'[[1,2,"x"]]']], columns=THREE),
        "some rows": Counted([[b"[[1.50,", b"null]]"]], columns=THREE[:2]),
        "large": Counted([[b"[[1]", b",[2]"], [b",[3]"], [b"]"]], columns=THREE[:1]),
        "late": Counted([[b"[[1]"], QueryError("late")], columns=THREE[:1]),
        "bad": Counted([QueryError("syntax error")]),
        "lost": Counted([UnknownTable("no such table")]),
        "busy": Counted([Busy("too many")]),
        "silent": Counted([QueryError("")]),
        "buggy": Counted([KeyError("a bug")]),
        "insert": Counted([], columns=(), count=3),
        "create": Counted([], columns=(), count=0),
    }
    return sales


class TestConnections:
    async def test_ping_says_ok(self, sales: Sales) -> None:
        assert await sales.get("/ping") == {"status": "ok"}

    async def test_contexts_have_what_lasts(self, sales: Sales) -> None:
        assert await sales.get("/api/contexts") == {
            "contexts": {"default": {"connections": {"sales": {}}}}
        }

    async def test_the_manager_says_which_are_open_and_where(self, sales: Sales) -> None:
        found = await sales.get("/api/connection-manager")
        connections = {"sales": {"status": "inactive"}, "el": {"status": "active", **EL_JSON}}
        assert found == {"contexts": {"default": {"connections": connections}}}

    @pytest.mark.parametrize(
        ("body", "name", "persist"),
        [
            ({"url": "x://"}, "default", False),
            ({"url": "x://", "name": "el", "persist": None}, "el", False),
            ({"url": "x://", "name": None, "persist": True, "more": 1}, "default", True),
        ],
    )
    async def test_one_is_registered(
        self, sales: Sales, body: object, name: str, persist: bool
    ) -> None:
        found = await sales.post("/api/contexts/__session__/connections", body)
        assert found == {"status": "ok", "connection": EL_JSON}
        assert sales.registered == [("__session__", name, "x://", ADA, persist)]

    @pytest.mark.parametrize(
        "body", [{"name": "a"}, {"name": "a", "url": None}, {"name": "a", "url": ""}]
    )
    async def test_without_a_url_there_is_nothing_to_register(
        self, sales: Sales, body: object
    ) -> None:
        assert await sales.error("POST", "/api/contexts/default/connections", body) == (
            400,
            {
                "status": "error",
                "error": "no-connection-details",
                "message": "No connection url provided",
                "connection": "a",
            },
        )
        assert sales.registered == []
        assert sales.errors == ["invalid-params"]

    async def test_a_driver_that_is_not_installed_is_named(self, sales: Sales) -> None:
        sales.failure = MissingDriver("the driver cannot be loaded")
        sales.failure.module = "psycopg"
        body = {"url": "postgresql://h/d"}
        status, found = await sales.error("POST", "/api/contexts/default/connections", body)
        assert (status, found["error"], found["driver"]) == (501, "missing-driver", "psycopg")

    async def test_who_may_not_register_hears_so(self, sales: Sales) -> None:
        sales.failure = Forbidden("not you")
        body = {"url": "x://"}
        assert await sales.error("POST", "/api/contexts/default/connections", body) == (
            403,
            {
                "status": "error",
                "error": "server-error",
                "message": "not you",
                "slug": "forbidden",
            },
        )

    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "tables"), ("GET", "tables/"), ("GET", "tables/t"), ("GET", "schemas"),
         ("GET", "databases"), ("POST", "query")],
    )  # fmt: skip
    async def test_an_unknown_one_is_not_found(self, sales: Sales, method: str, path: str) -> None:
        target = f"/api/contexts/team/connections/sales/{path}"
        assert await sales.error(method, target, {"sql": "select"}) == (
            404,
            {
                "status": "error",
                "error": "unknown-connection",
                "message": "Unknown connection: 'sales'",
                "connection": "sales",
            },
        )
        assert sales.over == []


class TestTables:
    @pytest.mark.parametrize("path", ["tables", "tables/", "tables?include_row_count=no"])
    async def test_they_are_listed(self, sales: Sales, path: str) -> None:
        assert await sales.get(f"{AT}/{path}") == {
            "tables": [["orders"], ["audit.log"], ["t"]],
            "properties": ["name"],
        }

    @pytest.mark.parametrize("yes", ["true", "t", "1", "y", "yes", "TRUE"])
    async def test_and_counted_if_that_is_asked_for(self, sales: Sales, yes: str) -> None:
        assert await sales.get(f"{AT}/tables?include_row_count={yes}") == {
            "tables": [["orders", 3], ["audit.log", None], ["t", 0]],
            "properties": ["name", "row_count"],
        }

    @pytest.mark.parametrize("name", ["orders", "public.orders"])
    async def test_one_is_described(self, sales: Sales, name: str) -> None:
        found = await sales.get(f"{AT}/tables/{name}")
        assert list(found) == ["name", "schema", "columns", "constraints", "create_stmt"]
        assert (found["name"], found["schema"]) == ("orders", "public")
        assert found["columns"][0] == ID
        js = found["columns"][2]
        assert (js["type"], js["typespec"], js["native_type"]) == (None, None, "JSONB")
        assert (js["nullable"], js["primary_key"], js["default"]) == (True, False, "'{}'")
        assert found["constraints"] == [FOREIGN_KEY, CHECK]
        assert found["create_stmt"] == "CREATE TABLE orders (...)"

    async def test_one_that_is_not_there_is_not_found(self, sales: Sales) -> None:
        assert await sales.error("GET", f"{AT}/tables/nope") == (
            404,
            {
                "status": "error",
                "error": "schema-error",
                "message": "there is no table 'nope'",
                "type": "table",
                "name": "nope",
            },
        )
        assert sales.errors == ["unknown-table"]

    async def test_schemas_and_databases_are_told_where_they_are_known(self, sales: Sales) -> None:
        assert await sales.get(f"{AT}/schemas") == {"schemas": ["public"]}
        status, found = await sales.error("GET", f"{AT}/databases")
        assert (status, found["error"], found["slug"]) == (501, "server-error", "not-supported")

    async def test_tables_of_one_name_are_told_apart(self, sales: Sales) -> None:
        async def tables(*, counts: bool = False) -> list[tuple[Table, None]]:
            assert not counts
            return [(Table(catalog, "main", "t"), None) for catalog in ("memory", "other")]

        sales.tables = tables  # type: ignore[method-assign]
        found = await sales.get(f"{AT}/tables")
        assert found["tables"] == [["memory.main.t"], ["other.main.t"]]


@pytest.mark.parametrize("target", [f"{AT}/query", "/api/contexts/default/connections"])
@pytest.mark.parametrize("media_type", ["text/plain", "", "application/x-www-form-urlencoded"])
async def test_a_body_that_is_not_said_to_be_json_is_refused(target: str, media_type: str) -> None:
    """As a form of a page of another site would have it, which no browser asks about first."""
    sales = Sales()
    body = {"sql": "SELECT 1", "url": "duckdb://"}
    response = await sales.ask("POST", target, body, media_type)
    assert response.status == 415
    assert json.loads(joined(response))["error"] == "server-error"
    assert (sales.events, sales.registered) == ([], [])


class TestQuery:
    async def test_rows_are_arrays_with_their_digits(self, sales: Sales) -> None:
        response = await sales.ask("POST", f"{AT}/query", {"sql": "some rows"})
        assert joined(response) == b'{"columns":["id","count"],"rows":[[1.50,null]]}'
        assert sales.users == [ADA]
        assert sales.over == ["some rows"]

    @pytest.mark.parametrize(("sql", "count"), [("insert", 3), ("create", 0)])
    async def test_what_has_no_rows_says_how_many_it_touched(
        self, sales: Sales, sql: str, count: int
    ) -> None:
        expected = {"columns": ["row_count"], "rows": [[count]], "row_count": count}
        assert await sales.query(sql) == expected
        told: dict[str, object] = {
            "name": "row_count",
            "table": None,
            "column": None,
            "constraints": [],
        }
        found = await sales.query(sql, metadata=True, action={"action": "execute"})
        assert found == {**expected, "metadata": {"columns": [told]}}

    async def test_columns_are_told_of_if_that_is_asked_for(self, sales: Sales) -> None:
        found = await sales.query("select", metadata=True, action={"action": "execute"})
        assert list(found) == ["columns", "rows", "metadata"]
        # In this order: who has a connection must not wait for another.
        assert sales.events == ["origins select", "run select"]
        first, second, third = found["metadata"]["columns"]
        assert first == {**ID, "table": "orders", "column": "id", "constraints": [CHECK]}
        assert list(first)[-3:] == ["table", "column", "constraints"]
        assert second["native_type"] == "bigint"
        assert (second["table"], second["column"], second["constraints"]) == (None, None, [])
        assert (third["name"], third["column"]) == ("u", "user_id")
        assert third["constraints"] == [FOREIGN_KEY]
        for no in (False, None):
            assert "metadata" not in await sales.query("select", metadata=no)

    @pytest.mark.parametrize(
        ("operation", "target", "condition", "ran"),
        [
            ("add", "WHERE", {"lhs": "a", "cmp": "=", "rhs": "1"}, Condition("a", "=", "1")),
            (
                "remove",
                "WHERE",
                {"lhs": "a", "cmp": "IS", "rhs": None},
                Condition("a", "IS", "NULL"),
            ),
            ("add", "WHERE", {"lhs": "a", "cmp": "=", "rhs": 1}, Condition("a", "=", "1")),
            ("remove", "SELECT", {"name": "a", "column": "b"}, "a"),
        ],
    )
    async def test_a_changed_statement_runs_and_is_told(
        self, sales: Sales, operation: str, target: str, condition: object, ran: object
    ) -> None:
        ran = f"s {operation} {[ran]}"
        sales.answers[ran] = sales.answers["some rows"]
        asked: dict[str, object] = {"action": "modify", "operation": operation, "target": target}
        asked["conditions"] = [condition]
        assert (await sales.query("s", action=asked))["metadata"] == {"stmt": ran}
        assert sales.over == [ran]
        found = await sales.query("s", action=asked, metadata=True)
        assert list(found["metadata"]) == ["stmt", "columns"]

    async def test_ddl_is_read_and_not_run(self, sales: Sales) -> None:
        found = await sales.query("create t", action={"action": "parse-ddl"}, metadata=True)
        assert (found["name"], found["create_stmt"]) == ("orders", "create t")
        assert found["columns"][0] == ID
        assert sales.over == []

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"\xff", b"[" * 100_000, {}, [], "x", {"sql": 5}, {"sql": None},
         {"sql": "select", "action": {}}, {"sql": "select", "action": {"action": "nope"}},
         {"sql": "select", "action": "execute"}, {"sql": "select", "metadata": "yes"},
         {"sql": "select", "action": {"action": "modify", "target": "ORDER"}},
         {"sql": "select", "action": {"action": "modify", "operation": "where"}},
         {"sql": "select", "action": {"action": "modify"}},
         {"sql": "select", "action": {"action": "modify", "conditions": [{}]}},
         {"sql": "select", "action": {"action": "modify", "conditions": [{"name": "a"}]}},
         {"sql": "select", "action": {"action": "modify", "conditions": [5]}},
         {"sql": "select", "action": {"action": "modify", "target": "SELECT",
                                      "conditions": [{"lhs": "a", "cmp": "=", "rhs": "1"}]}},
         {"sql": "select", "action": {"action": "modify", "target": "SELECT",
                                      "conditions": [{"name": "a"}] * 101}}],
    )  # fmt: skip
    async def test_what_is_no_query_is_the_clients_mistake(
        self, sales: Sales, body: object
    ) -> None:
        status, found = await sales.error("POST", f"{AT}/query", body)
        assert (status, found["status"], found["error"]) == (400, "error", "server-error")
        assert found["message"]
        assert sales.over == []

    @pytest.mark.parametrize(
        ("sql", "status", "message"),
        [
            ("bad", 400, "syntax error"),
            ("lost", 400, "no such table"),
            ("silent", 400, "query-error"),  # the client shows it: it must not be empty
            ("busy", 503, "too many"),
            ("buggy", 500, "internal error; the server's log has the details"),
        ],
    )
    async def test_a_failure_is_told(
        self, sales: Sales, sql: str, status: int, message: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        got, found = await sales.error("POST", f"{AT}/query", {"sql": sql})
        assert (got, found["error"], found["message"]) == (status, "server-error", message)
        assert ("a bug" in caplog.text) == (status == 500)

    async def test_a_large_result_is_streamed(self, sales: Sales) -> None:
        response = await sales.ask("POST", f"{AT}/query", {"sql": "large", "metadata": True})
        assert sales.over == []
        body = json.loads(await body_of(response))
        assert (body["columns"], body["rows"]) == (["id"], [[1], [2], [3]])
        assert len(body["metadata"]["columns"]) == 1
        assert sales.over == ["large"]

    async def test_one_that_breaks_off_is_cut(self, sales: Sales) -> None:
        response = await sales.ask("POST", f"{AT}/query", {"sql": "late"})
        with pytest.raises(BrokenOff, match="late"):
            await body_of(response)
        assert sales.over == ["late"]

    async def test_a_client_that_leaves_gives_its_connection_back(self, sales: Sales) -> None:
        sales.answers["large"].stands_at = 1
        response = await sales.ask("POST", f"{AT}/query", {"sql": "large"})
        with trio.move_on_after(0.01) as scope:
            await body_of(response)
        assert scope.cancelled_caught
        assert sales.over == ["large"]


async def body_of(response: Response) -> bytes:
    sent = b""

    async def send(piece: bytes) -> None:
        nonlocal sent
        sent += piece

    assert response.resources is not None
    async with response.resources:
        assert callable(response.body)
        await response.body(send)
    return sent
