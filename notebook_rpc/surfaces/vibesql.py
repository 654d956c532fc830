"""VibeSQL's REST protocol: SQL in, rows out in the type that the client accepts; and tables.

What the seed's document leaves open, docs/protocols/vibesql.md says. Live queries are in
``vibesql_live.py``, ``/health`` in ``ops.py``.

What it refuses: to let a client take a part of a result for the whole, where the rest could not
be had.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from notebook_rpc.model import BROKEN_STREAM, DEFAULT
from notebook_rpc.sansio import names
from notebook_rpc.sansio.jsontext import MAX_DEPTH, encode
from notebook_rpc.sansio.sqltext import verb
from notebook_rpc.surfaces import _vibesql_requests as requests
from notebook_rpc.surfaces._rows import stream
from notebook_rpc.surfaces._telling import telling
from notebook_rpc.surfaces._vibesql_errors import failure, spell
from notebook_rpc.surfaces.encoding import Encoding
from notebook_rpc.web import JSON, Response, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.model import Parameters, Table
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.schema import TableFacts
    from notebook_rpc.surfaces._rows import Answer
    from notebook_rpc.surfaces._vibesql_requests import Asked, Wanted
    from notebook_rpc.web import Request

QUERY: Final = "/api/query"
TABLES: Final = "/api/tables"
TABLE: Final = "/api/tables/{table}"

_SMALL: Final = 64 * 1024  # bytes of a beginning that is kept until more is known


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
    """``on_error`` hears the slug of each error that a client is told; ``max_depth`` is how deep
    JSON may be nested."""

    on_error: Callable[[str], None] = lambda _: None
    encoding: Encoding = field(default_factory=Encoding)
    max_depth: int = MAX_DEPTH


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
            coded = self._options.encoding.of(handler)
            yield Route(method, path, telling(coded, spell, self._options.on_error))

    async def post(self, request: Request) -> Response:
        if not request.is_json:
            return failure(415, "the body's Content-Type must be application/json")
        asked = requests.of_body(request.body, self._options.max_depth)
        return await self._run(request, asked, read_only=False)

    async def get(self, request: Request) -> Response:
        """For links: the same as arguments, and what would write is an error."""
        asked = requests.of_link(request, self._options.max_depth)
        return await self._run(request, asked, read_only=True)

    async def tables(self, request: Request) -> Response:
        found = names.distinct([table for table, _ in await self._in(request).tables()])
        return Response(200, JSON, encode({"tables": found, "count": len(found)}))

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
        return Response(200, JSON, encode(body))

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
                done = encode({"rows_affected": max(0, answer.count)})
                return Response(status, JSON, done)
            first = await answer.read()
            while not answer.ended and sum(map(len, first)) < _SMALL:
                first = [*first, *await answer.read()]
            before, after = _around(answer, asked, wanted)
            if answer.ended:
                body = [before, *map(bytes, first), after()]
                return Response(status, wanted.headers, body)
            last_words = BROKEN_STREAM if wanted.format.rows == "arrow" else b""
            rows = stream(answer, first, before=before, after=after, last_words=last_words)
            return Response(status, wanted.headers, rows, resources=stack.pop_all())


def _around(answer: Answer, asked: Asked, wanted: Wanted) -> tuple[bytes, Callable[[], bytes]]:
    """What stands before the rows, and what makes the text behind them, once they have ended."""
    if wanted.format is not requests.JSON:
        return b"", bytes
    columns = encode([column.column for column in answer.columns])

    def after() -> bytes:
        counts: dict[str, int | None] = {"row_count": answer.row_count}
        if asked.limit is not None or asked.offset is not None:
            counts["total_count"] = answer.total_count
            counts |= {"offset": asked.offset or 0, "limit": asked.limit}
        return b"," + encode(counts)[1:]

    return b'{"columns":' + columns + b',"rows":', after


def _connection(request: Request) -> str:
    return request.argument("connection") or DEFAULT
