"""VibeSQL's REST protocol: SQL in, rows out in the type that the client accepts; and tables.

What the seed's document leaves open, docs/protocols/vibesql.md says. Live queries are in
``live.py``, ``/health`` in ``ops.py``.

What it refuses: to let a client take a part of a result for the whole, where the rest could not
be had.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from notebook_rpc.errors import NotebookError
from notebook_rpc.model import BROKEN_STREAM, DEFAULT
from notebook_rpc.sansio import jsonrpc
from notebook_rpc.sansio.verb import verb
from notebook_rpc.surfaces import _vibesql_requests as requests
from notebook_rpc.surfaces.encoding import Encoding
from notebook_rpc.web import BrokenOff, Response, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.model import Parameters, ResultColumn, Table
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.schema import TableFacts
    from notebook_rpc.surfaces._vibesql_requests import Asked, Wanted
    from notebook_rpc.web import Handler, Headers, Request, Send

QUERY: Final = "/api/query"
TABLES: Final = "/api/tables"
TABLE: Final = "/api/tables/{table}"

JSON: Final[Headers] = requests.JSON.headers
RETRY: Final[Headers] = ((b"retry-after", b"1"),)

# What databases that know SQLSTATE call a table that is not there: PostgreSQL, and ODBC.
_NO_TABLE: Final = {"42P01", "42S02"}
_SMALL: Final = 64 * 1024  # bytes of a beginning that is kept until more is known


class Answer(Protocol):
    """A statement's rows; ``services.answers.Answer`` explains it."""

    @property
    def columns(self) -> Sequence[ResultColumn]: ...
    @property
    def count(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    @property
    def row_count(self) -> int: ...
    @property
    def total_count(self) -> int | None: ...
    async def read(self) -> Sequence[bytes | memoryview]: ...


class Queries(Protocol):
    """Statements on one database; ``services.queries.Queries`` explains it."""

    def export(
        self,
        format_: str,
        sql: str,
        parameters: Parameters | None = None,
        *,
        offset: int | None = None,
        limit: int | None = None,
    ) -> AbstractAsyncContextManager[Answer]: ...


class Catalog(Protocol):
    """``services.catalog.Catalog`` explains it."""

    async def tables(self) -> Sequence[tuple[Table, int | None]]: ...
    async def describe(self, name: str, /) -> TableFacts: ...


class FindQueries(Protocol):
    """Those of a user on a connection; raises ``UnknownConnection``."""

    def __call__(self, connection: str, user: User, /, *, read_only: bool = False) -> Queries: ...


class FindCatalog(Protocol):
    def __call__(self, connection: str, user: User, /) -> Catalog: ...


@dataclass(frozen=True, slots=True)
class Options:
    """``on_error`` hears the slug of each error that a client is told."""

    on_error: Callable[[str], None] = lambda _: None
    encoding: Encoding = field(default_factory=Encoding)


class VibeSQL:
    def __init__(self, queries: FindQueries, catalog: FindCatalog, options: Options) -> None:
        self._queries = queries
        self._catalog = catalog
        self._options = options

    def routes(self) -> Iterable[Route]:
        for method, path, handler in (
            ("POST", QUERY, self.post),
            ("GET", QUERY, self.get),
            ("GET", TABLES, self.tables),
            ("GET", TABLE, self.table),
        ):
            yield Route(method, path, self._options.encoding.of(self._telling(handler)))

    async def post(self, request: Request) -> Response:
        if not _is_json(request):
            return _failure(415, "the body's Content-Type must be application/json", None)
        return await self._run(request, requests.of_body(request.body), read_only=False)

    async def get(self, request: Request) -> Response:
        """For links: the same as arguments, and what would write is an error."""
        return await self._run(request, requests.of_link(request), read_only=True)

    async def tables(self, request: Request) -> Response:
        tables = [table for table, _ in await self._in(request).tables()]
        often = Counter(table.table for table in tables)
        # Where a name is not enough, its schema is put in front, as TABLE takes it.
        names = [
            table.table if often[table.table] == 1 else f"{table.schema}.{table.table}"
            for table in tables
        ]
        return Response(200, JSON, jsonrpc.encode({"tables": names, "count": len(names)}))

    async def table(self, request: Request) -> Response:
        facts = await self._in(request).describe(request.parameters["table"])
        columns = [
            {
                "name": column.name,
                "data_type": column.datatype,
                "nullable": column.nullable,
                "primary_key": column.name in facts.primary_key,
            }
            for column in facts.columns
        ]
        body = {"name": facts.table.table, "columns": columns}
        return Response(200, JSON, jsonrpc.encode(body))

    def _in(self, request: Request) -> Catalog:
        return self._catalog(_connection(request), request.user)

    async def _run(self, request: Request, asked: Asked, *, read_only: bool) -> Response:
        wanted = requests.wanted(asked, request.header(b"accept"))
        queries = self._queries(_connection(request), request.user, read_only=read_only)
        async with AsyncExitStack() as stack:
            statement = queries.export(
                *(wanted.format.rows, asked.sql, asked.params),
                offset=asked.offset,
                limit=asked.limit,
            )
            answer = await stack.enter_async_context(statement)
            status = 201 if verb(asked.sql) == "INSERT" else 200
            if not answer.columns:
                done = jsonrpc.encode({"rows_affected": max(0, answer.count)})
                return Response(status, JSON, done)
            first = await answer.read()
            while not answer.ended and sum(map(len, first)) < _SMALL:
                first = [*first, *await answer.read()]
            before, after = _around(answer, asked, wanted)
            if answer.ended:
                body = [before, *map(bytes, first), after()]
                return Response(status, wanted.headers, body)
            last_words = BROKEN_STREAM if wanted.format.rows == "arrow" else b""
            stream = partial(_stream, answer, [before, *first], after, last_words)
            return Response(status, wanted.headers, stream, resources=stack.pop_all())

    def _telling(self, handler: Handler) -> Handler:
        """*handler*, with what it raises told to the client."""

        async def told(request: Request) -> Response:
            try:
                return await handler(request)
            except NotebookError as exc:
                self._options.on_error(exc.slug)
                return _failed(exc)

        return told


def _around(answer: Answer, asked: Asked, wanted: Wanted) -> tuple[bytes, Callable[[], bytes]]:
    """What stands before the rows, and what makes the text behind them, once they have ended."""
    if wanted.format is not requests.JSON:
        return b"", bytes
    names = jsonrpc.encode([column.column for column in answer.columns])

    def after() -> bytes:
        counts: dict[str, int | None] = {"row_count": answer.row_count}
        if asked.limit is not None or asked.offset is not None:
            counts["total_count"] = answer.total_count
            counts |= {"offset": asked.offset or 0, "limit": asked.limit}
        return b"," + jsonrpc.encode(counts)[1:]

    return b'{"columns":' + names + b',"rows":', after


async def _stream(
    answer: Answer,
    first: Sequence[bytes | memoryview],
    after: Callable[[], bytes],
    last_words: bytes,
    send: Send,
) -> None:
    """*last_words* make what was sent unreadable, if there is no more to come."""
    pieces = first
    while pieces:
        for piece in pieces:
            if piece:
                await send(bytes(piece))
        try:
            pieces = await answer.read()
        except NotebookError as exc:
            if last_words:
                await send(last_words)
            raise BrokenOff(str(exc)) from exc
    if rest := after():
        await send(rest)


def _connection(request: Request) -> str:
    return request.argument("connection") or DEFAULT


def _is_json(request: Request) -> bool:
    media_type = (request.header(b"content-type") or "").partition(";")[0]
    return media_type.strip().lower() == "application/json"


def _failed(exc: NotebookError) -> Response:
    status = 404 if exc.sqlstate in _NO_TABLE else exc.http_status
    return _failure(status, str(exc) or exc.slug, exc.sqlstate)


def _failure(status: int, error: str, code: str | None) -> Response:
    headers = (*JSON, *RETRY) if status == 503 else JSON
    return Response(status, headers, jsonrpc.encode({"error": error, "code": code}))
