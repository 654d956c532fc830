"""What scoot.el speaks: connections by context and name, their tables, and queries; JSON over HTTP.

Rows are streamed; what is told of their columns is found out before the query runs, as it needs the
database too, and nobody may hold one connection while waiting for another.

What it refuses: to take ``:x`` for a parameter, as no request has any; and to let a client take a
part of a result for the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from msgspec.structs import asdict

from notebook_rpc.errors import (
    InvalidParams,
    MissingDriver,
    NotebookError,
    QueryError,
    UnknownConnection,
    UnknownTable,
)
from notebook_rpc.model import DEFAULT, ResultColumn
from notebook_rpc.sansio import names
from notebook_rpc.sansio.jsontext import MAX_DEPTH, encode, read
from notebook_rpc.surfaces import _scoot_models as models
from notebook_rpc.surfaces._rows import stream
from notebook_rpc.surfaces._telling import reason, telling
from notebook_rpc.surfaces.encoding import Encoding
from notebook_rpc.web import JSON, Response, Route

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.model import Table
    from notebook_rpc.sansio.addresses import Address
    from notebook_rpc.sansio.changes import Change
    from notebook_rpc.sansio.origins import Origins
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.schema import TableFacts
    from notebook_rpc.surfaces._rows import Answer
    from notebook_rpc.web import Handler, Request

CONTEXT: Final = "/api/contexts/{context}/connections"
CONNECTION: Final = f"{CONTEXT}/{{connection}}"
NOTHING: Final[Mapping[str, object]] = {}
TOUCHED: Final = "row_count"
"""What a statement without rows tells, as its one column."""


class Queries(Protocol):
    """Statements on one database; ``services.queries.Queries`` explains it."""

    def rows(self, sql: str) -> AbstractAsyncContextManager[Answer]: ...


class Catalog(Protocol):
    """Tables of one database; ``services.catalog.Catalog`` explains each."""

    async def tables(self, *, counts: bool = False) -> Sequence[tuple[Table, int | None]]: ...
    async def describe(self, name: str) -> TableFacts: ...
    async def schemas(self) -> Sequence[str]: ...
    async def databases(self) -> Sequence[str]: ...


class Contexts(Protocol):
    """``services.contexts.Contexts`` explains each."""

    def key(self, context: str, name: str) -> str: ...
    def dialect(self, key: str) -> str: ...
    def lasting(self) -> Mapping[str, Sequence[str]]: ...
    def all(self) -> Mapping[str, Mapping[str, Address | None]]: ...
    async def register(
        self, context: str, name: str, url: str, user: User, *, persist: bool = False
    ) -> Address: ...


class Statements(Protocol):
    """``services.sqlreading.Statements`` explains each."""

    async def changed(self, sql: str, change: Change, dialect: str, catalog: Catalog) -> str: ...
    async def origins(self, sql: str, dialect: str, catalog: Catalog) -> Origins: ...
    async def table(self, sql: str, dialect: str) -> TableFacts: ...
    async def conditions(
        self, texts: Sequence[str], dialect: str
    ) -> Sequence[Mapping[str, object]]: ...


@dataclass(frozen=True, slots=True)
class Services:
    """*queries* and *catalog* are those of a user on a connection. *on_error* hears the slug of
    each error that a client is told; *max_depth* is how deep JSON may be nested."""

    contexts: Contexts
    queries: Callable[[str, User], Queries]
    catalog: Callable[[str, User], Catalog]
    statements: Statements
    on_error: Callable[[str], None] = lambda _: None
    encoding: Encoding = field(default_factory=Encoding)
    max_depth: int = MAX_DEPTH


@dataclass(frozen=True, slots=True)
class Connection:
    """One that was asked for, as the user of the request has it."""

    queries: Queries
    catalog: Catalog
    dialect: str


Tells: TypeAlias = Callable[[Sequence[ResultColumn]], Sequence[Mapping[str, object]]]
"""What is told of each column of a result."""


class Scoot:
    def __init__(self, services: Services) -> None:
        self._contexts = services.contexts
        self._services = services
        self._statements = services.statements

    def routes(self) -> Iterable[Route]:
        yield Route("GET", "/ping", self._ping)
        yield Route("GET", "/api/contexts", self._answering(self._lasting))
        yield Route("GET", "/api/connection-manager", self._answering(self._all))
        yield Route("POST", CONTEXT, self._answering(_of_json(self._register)))
        for path in ("tables", "tables/"):
            yield Route("GET", f"{CONNECTION}/{path}", self._answering(self._tables))
        yield Route("GET", f"{CONNECTION}/tables/{{table}}", self._answering(self._describe))
        yield Route("GET", f"{CONNECTION}/databases", self._answering(self._databases))
        yield Route("GET", f"{CONNECTION}/schemas", self._answering(self._schemas))
        yield Route("POST", f"{CONNECTION}/query", self._answering(_of_json(self._query)))

    async def _ping(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def _lasting(self, _: Request) -> Response:
        found = self._contexts.lasting().items()
        named = {context: dict.fromkeys(names, NOTHING) for context, names in found}
        return _json({"contexts": _contexts(named)})

    async def _all(self, _: Request) -> Response:
        found = self._contexts.all().items()
        told = {
            context: {name: _status(address) for name, address in connections.items()}
            for context, connections in found
        }
        return _json({"contexts": _contexts(told)})

    async def _register(self, request: Request) -> Response:
        asked = read(request.body, models.Registering, self._services.max_depth)
        name = asked.name or DEFAULT
        if not asked.url:
            self._services.on_error(InvalidParams.slug)
            failure = _failure("no-connection-details", "No connection url provided")
            return _json({**failure, "connection": name}, InvalidParams.http_status)
        address = await self._contexts.register(
            request.parameters["context"],
            name,
            asked.url,
            request.user,
            persist=bool(asked.persist),
        )
        return _json({"status": "ok", "connection": address})

    async def _tables(self, request: Request) -> Response:
        counts = (request.argument("include_row_count") or "").lower() in models.YES
        found = await self._connection(request).catalog.tables(counts=counts)
        called = names.distinct([table for table, _ in found])
        if not counts:
            return _json({"tables": [[name] for name in called], "properties": ["name"]})
        rows = [[name, count] for name, (_, count) in zip(called, found, strict=True)]
        return _json({"tables": rows, "properties": ["name", "row_count"]})

    async def _describe(self, request: Request) -> Response:
        connection = self._connection(request)
        facts = await connection.catalog.describe(request.parameters["table"])
        return await self._described(facts, connection.dialect)

    async def _described(self, facts: TableFacts, dialect: str) -> Response:
        conditions = await self._statements.conditions(models.checks(facts), dialect)
        return _json(models.table(facts, conditions, dialect))

    async def _databases(self, request: Request) -> Response:
        return _json({"databases": await self._connection(request).catalog.databases()})

    async def _schemas(self, request: Request) -> Response:
        return _json({"schemas": await self._connection(request).catalog.schemas()})

    async def _query(self, request: Request) -> Response:
        connection = self._connection(request)
        asked = read(request.body, models.Asked, self._services.max_depth)
        action = asked.action or models.EXECUTE
        sql, metadata = asked.sql, dict[str, object]()
        if action.action == "parse-ddl":
            return await self._described(
                await self._statements.table(sql, connection.dialect), connection.dialect
            )
        if action.action == "modify":
            sql = await self._statements.changed(
                sql, action.change(), connection.dialect, connection.catalog
            )
            metadata["stmt"] = sql
        tells = await self._tells(sql, connection) if asked.metadata else None
        return await _answered(connection.queries, sql, metadata, tells)

    async def _tells(self, sql: str, connection: Connection) -> Tells:
        dialect = connection.dialect
        origins = await self._statements.origins(sql, dialect, connection.catalog)
        constraints = {}
        for facts in origins.tables:
            conditions = await self._statements.conditions(models.checks(facts), dialect)
            constraints[facts.table] = models.constraints(facts, conditions)

        def tells(columns: Sequence[ResultColumn]) -> list[Mapping[str, object]]:
            found = origins.of([column.column for column in columns])
            return [
                models.result_column(
                    column, origin, constraints[origin.facts.table] if origin else [], dialect
                )
                for column, origin in zip(columns, found, strict=True)
            ]

        return tells

    def _connection(self, request: Request) -> Connection:
        parameters = request.parameters
        key = self._contexts.key(parameters["context"], parameters["connection"])
        return Connection(
            self._services.queries(key, request.user),
            self._services.catalog(key, request.user),
            self._contexts.dialect(key),
        )

    def _answering(self, handler: Handler) -> Handler:
        services = self._services
        return telling(services.encoding.of(handler), _error, services.on_error)


def _of_json(handler: Handler) -> Handler:
    """Only for bodies that say so: a page of another site cannot, without asking."""

    async def answer(request: Request) -> Response:
        if not request.is_json:
            wrong = "the body's Content-Type must be application/json"
            return _json(_failure("server-error", wrong), 415)
        return await handler(request)

    return answer


def _error(exc: NotebookError, request: Request) -> Response:
    parameters = request.parameters
    kind, status, about = "server-error", exc.http_status, {"slug": exc.slug}
    match exc:
        case UnknownTable() if "table" in parameters:
            kind, about = "schema-error", {"type": "table", "name": parameters["table"]}
        case UnknownTable():  # in a query, as any mistake in it; not every database tells which
            status = QueryError.http_status
        case UnknownConnection():
            kind, about = "unknown-connection", {"connection": parameters["connection"]}
        case MissingDriver(module=module):
            kind, about = "missing-driver", {"driver": module}
    return _json({**_failure(kind, reason(exc)), **about}, status)


def _failure(kind: str, message: str) -> dict[str, object]:
    return {"status": "error", "error": kind, "message": message}


def _json(body: object, status: int = 200) -> Response:
    return Response(status, JSON, encode(body))


def _contexts(named: Mapping[str, object]) -> dict[str, object]:
    return {context: {"connections": connections} for context, connections in named.items()}


def _status(address: Address | None) -> dict[str, object]:
    return {"status": "inactive"} if address is None else {"status": "active", **asdict(address)}


async def _answered(
    queries: Queries, sql: str, metadata: dict[str, object], tells: Tells | None
) -> Response:
    """The answer's head, its rows as they come, and what is told of its columns."""
    async with AsyncExitStack() as stack:
        answer = await stack.enter_async_context(queries.rows(sql))
        columns = answer.columns or [ResultColumn(TOUCHED, "")]
        if tells is not None:
            metadata["columns"] = tells(columns)
        head = encode({"columns": [column.column for column in columns]})[:-1] + b',"rows":'
        last: dict[str, object] = {"metadata": metadata} if metadata else {}
        if not answer.columns:
            count = max(answer.count, 0)
            last = {TOUCHED: count, **last}
            return Response(200, JSON, [head, b"[[%d]]" % count, _tail(last)])
        first = await answer.read()
        if answer.ended:
            return Response(200, JSON, [head, *map(bytes, first), _tail(last)])
        rows = stream(answer, first, before=head, after=lambda: _tail(last))
        return Response(200, JSON, rows, resources=stack.pop_all())


def _tail(last: Mapping[str, object]) -> bytes:
    """What comes behind the rows, to the end of the object."""
    return b"," + encode(last)[1:] if last else b"}"
