"""The ADONotebook protocol: JSON-RPC 2.0 posted to ``/``.

Where the protocol leaves room, docs/protocols/adonotebook.md says what we do. Everything
that reaches JSON-RPC is answered with status 200, everything that does not with an empty
body; a request of notifications only is answered with 204.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, TypeVar

import msgspec

from notebook_rpc.errors import MethodNotFound, NotebookError
from notebook_rpc.sansio import jsonrpc
from notebook_rpc.web import Response, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from notebook_rpc.model import Column, Parameters, ResultColumn, Table
    from notebook_rpc.web import Request, Send

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Exactly this, without parameters: ADONotebook.CLI compares the whole value.
JSON: Final = ((b"content-type", b"application/json"),)


class Session(Protocol):
    """What the methods are carried out by; ``services.sessions.Session`` explains each."""

    async def tables(self, render: Callable[[Sequence[Table]], T]) -> T: ...
    async def views(self, render: Callable[[Sequence[Table]], T]) -> T: ...
    async def columns(
        self, catalog: str, schema: str, table: str, render: Callable[[Sequence[Column]], T]
    ) -> T: ...
    async def execute(self, sql: str, parameters: Parameters | None = None) -> None: ...
    async def metadata(self) -> Sequence[ResultColumn]: ...
    async def count(self) -> int: ...
    async def page(self, limit: int) -> Sequence[bytes]: ...
    async def finish(self) -> None: ...
    async def quit(self) -> None: ...
    def cancel(self) -> bool: ...
    def progress(self) -> object: ...


class NoParams(msgspec.Struct, forbid_unknown_fields=True):
    """Of every method not named below."""


class ColumnsParams(msgspec.Struct, forbid_unknown_fields=True):
    """Null and "" alike match every name."""

    catalog: str | None = None
    schema: str | None = None
    table: str | None = None


class ExecuteParams(msgspec.Struct, forbid_unknown_fields=True):
    sql: str
    params: list[Any] | dict[str, Any] | None = None


class PageParams(msgspec.Struct, forbid_unknown_fields=True):
    max: Annotated[int, msgspec.Meta(gt=0)]


class Rpc:
    """One session for all who post to ``/``, as ADONotebook has it."""

    def __init__(
        self,
        session: Session,
        stop_server: Callable[[], None],
        *,
        max_batch: int,
        stack_traces: bool = False,
    ) -> None:
        """*stop_server* is called after ``quit`` has succeeded; it must return at once."""
        self._session = session
        self._stop_server = stop_server
        self._max_batch = max_batch
        self._stack_traces = stack_traces
        self._methods: dict[str, tuple[type[msgspec.Struct], Method]] = {
            "tables": (NoParams, self._tables),
            "views": (NoParams, self._views),
            "columns": (ColumnsParams, self._columns),
            "execute": (ExecuteParams, self._execute),
            "metadata": (NoParams, self._metadata),
            "count": (NoParams, self._count),
            "page": (PageParams, self._page),
            "finish": (NoParams, self._finish),
            "quit": (NoParams, self._quit),
            "cancel": (NoParams, self._cancel),
            "progress": (NoParams, self._progress),
        }

    def routes(self) -> Iterable[Route]:
        yield Route("POST", "/", self.post)

    async def post(self, request: Request) -> Response:
        media_type = (request.header(b"content-type") or "").partition(";")[0]
        if media_type.strip().lower() != "application/json":
            return Response(415)
        message = jsonrpc.parse(request.body, self._max_batch)
        if not isinstance(message, list):
            answer = await self._answer(message)
            return Response(204) if answer is None else Response(200, JSON, answer)
        if all(isinstance(call, jsonrpc.Call) and call.id is None for call in message):
            for call in message:
                await self._answer(call)
            return Response(204)
        return Response(200, JSON, lambda send: self._answer_batch(message, send))

    async def _answer_batch(self, calls: list[jsonrpc.Call | jsonrpc.Refused], send: Send) -> None:
        """One call after the other, each answer sent before the next call begins: a batch of
        a thousand pages needs the memory of one."""
        opening = b"["
        for call in calls:
            answer = await self._answer(call)
            if answer is not None:
                await send(opening + answer[0])
                for piece in answer[1:]:
                    await send(piece)
                opening = b","
        await send(b"]")

    async def _answer(self, call: jsonrpc.Call | jsonrpc.Refused) -> Sequence[bytes] | None:
        """Carry out a call; None for a notification, whatever came of it."""
        if isinstance(call, jsonrpc.Refused):
            return [self._error(call.id, call.error)]
        try:
            result = await self._carry_out(call)
        except NotebookError as exc:
            return None if call.id is None else [self._error(call.id, exc)]
        except Exception:  # a bug of ours or of a driver: the client must get its answer
            logger.exception("%s failed", call.method)
            bug = NotebookError("internal error; the server's log has the details")
            return None if call.id is None else [self._error(call.id, bug)]
        return None if call.id is None else jsonrpc.result(call.id, result)

    async def _carry_out(self, call: jsonrpc.Call) -> Sequence[bytes]:
        try:
            signature, method = self._methods[call.method]
        except KeyError:
            raise MethodNotFound(f"there is no method {call.method!r}") from None
        return await method(jsonrpc.bind(call.method, call.params, signature))

    def _error(self, id_: bytes, exc: NotebookError) -> bytes:
        stack = "".join(traceback.format_exception(exc)) if self._stack_traces else ""
        return jsonrpc.error(id_, exc, stack)

    async def _tables(self, _: NoParams) -> Sequence[bytes]:
        return [await self._session.tables(jsonrpc.encode)]

    async def _views(self, _: NoParams) -> Sequence[bytes]:
        return [await self._session.views(jsonrpc.encode)]

    async def _columns(self, params: ColumnsParams) -> Sequence[bytes]:
        names = (params.catalog or "", params.schema or "", params.table or "")
        return [await self._session.columns(*names, jsonrpc.encode)]

    async def _execute(self, params: ExecuteParams) -> Sequence[bytes]:
        await self._session.execute(params.sql, params.params)
        return [b"true"]

    async def _metadata(self, _: NoParams) -> Sequence[bytes]:
        return [jsonrpc.encode(await self._session.metadata())]

    async def _count(self, _: NoParams) -> Sequence[bytes]:
        return [jsonrpc.encode(await self._session.count())]

    async def _page(self, params: PageParams) -> Sequence[bytes]:
        return await self._session.page(params.max)

    async def _finish(self, _: NoParams) -> Sequence[bytes]:
        await self._session.finish()
        return [b"true"]

    async def _quit(self, _: NoParams) -> Sequence[bytes]:
        await self._session.quit()
        self._stop_server()
        return [b"null"]

    async def _cancel(self, _: NoParams) -> Sequence[bytes]:
        return [jsonrpc.encode(self._session.cancel())]

    async def _progress(self, _: NoParams) -> Sequence[bytes]:
        return [jsonrpc.encode(self._session.progress())]


if TYPE_CHECKING:
    Method = Callable[[Any], Awaitable[Sequence[bytes]]]
