"""JSON-RPC with one session: a message in, its answer out, over whatever carries them.

``METHODS`` is the protocol: what each method is called, what it takes, and which call of the
session it is.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, TypeAlias, TypeVar

import msgspec

from notebook_rpc.errors import Forbidden, MethodNotFound, NotebookError
from notebook_rpc.sansio import jsonrpc
from notebook_rpc.sansio.jsontext import MAX_DEPTH, encode

if TYPE_CHECKING:
    from notebook_rpc.model import Column, Parameters, ResultColumn, Table
    from notebook_rpc.web import Send, Stream

T = TypeVar("T")
Parsed: TypeAlias = "jsonrpc.Call | jsonrpc.Refused | list[jsonrpc.Call | jsonrpc.Refused]"
Method: TypeAlias = Callable[[Any, Any], Awaitable[Sequence[bytes]]]

logger = logging.getLogger(__name__)


class Session(Protocol):
    """What the methods are carried out by; ``services.sessions.Session`` explains each."""

    async def tables(self, render: Callable[[Sequence[Table]], T]) -> T: ...
    async def views(self, render: Callable[[Sequence[Table]], T]) -> T: ...
    async def columns(
        self, catalog: str, schema: str, table: str, render: Callable[[Sequence[Column]], T]
    ) -> T: ...
    async def execute(
        self, sql: str, parameters: Parameters | None = None, seconds: float = math.inf
    ) -> None: ...
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
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None


class PageParams(msgspec.Struct, forbid_unknown_fields=True):
    max: Annotated[int, msgspec.Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class Options:
    """``max_batch`` is the most calls of one batch, ``max_depth`` how deep JSON may be nested;
    ``stack_traces``: errors have them; ``on_error`` hears the slug of each error that a client
    is told, ``hold`` the size of each answer, until it calls what ``hold`` has returned."""

    max_batch: int
    stack_traces: bool = False
    on_error: Callable[[str], None] = lambda _: None
    hold: Callable[[int], Callable[[], None]] = lambda _: lambda: None
    max_depth: int = MAX_DEPTH


class Dialogue:
    """One session's end of the protocol."""

    def __init__(
        self, session: Session, quit_: Callable[[], Awaitable[None]] | None, options: Options
    ) -> None:
        """*quit_* is awaited after the method ``quit`` has succeeded, before its answer; None:
        nobody here may call it."""
        self._session = session
        self._quit = quit_
        self._options = options

    def is_urgent(self, message: bytes) -> bool:
        """Whether it goes around the session's queue, and so should around any other."""
        parsed = self._parsed(message)
        return isinstance(parsed, jsonrpc.Call) and parsed.method in AROUND_THE_QUEUE

    async def answer(self, message: bytes) -> Sequence[bytes] | Stream | None:
        """Carry *message* out. The answer to a batch is a stream; None: there is none."""
        parsed = self._parsed(message)
        if not isinstance(parsed, list):
            return await self._answer_one(parsed)
        if all(isinstance(call, jsonrpc.Call) and call.id is None for call in parsed):
            for call in parsed:
                await self._answer_one(call)
            return None
        return lambda send: self._answer_batch(parsed, send)

    def _parsed(self, message: bytes) -> Parsed:
        return jsonrpc.parse(message, self._options.max_batch, self._options.max_depth)

    async def _answer_batch(self, calls: list[jsonrpc.Call | jsonrpc.Refused], send: Send) -> None:
        """One call after the other, each answer sent before the next call begins: a batch of
        a thousand pages needs the memory of one."""
        opening = b"["
        for call in calls:
            answer = await self._answer_one(call)
            if answer is not None:
                release = self._options.hold(sum(map(len, answer)))
                try:
                    await send(opening + answer[0])
                    for piece in answer[1:]:
                        await send(piece)
                finally:
                    release()
                opening = b","
        await send(b"]")

    async def _answer_one(self, call: jsonrpc.Call | jsonrpc.Refused) -> Sequence[bytes] | None:
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
            signature, method = METHODS[call.method]
        except KeyError:
            raise MethodNotFound(f"there is no method {call.method!r}") from None
        if method is _quit and self._quit is None:
            raise Forbidden("a read-only user cannot end the server")
        result = await method(self._session, jsonrpc.bind(call.method, call.params, signature))
        if method is _quit and self._quit is not None:
            await self._quit()
        return result

    def _error(self, id_: bytes, exc: NotebookError) -> bytes:
        self._options.on_error(exc.slug)
        trace = self._options.stack_traces
        return jsonrpc.error(id_, exc, "".join(traceback.format_exception(exc)) if trace else "")


async def _tables(session: Session, _: NoParams) -> Sequence[bytes]:
    return [await session.tables(encode)]


async def _views(session: Session, _: NoParams) -> Sequence[bytes]:
    return [await session.views(encode)]


async def _columns(session: Session, params: ColumnsParams) -> Sequence[bytes]:
    names = (params.catalog or "", params.schema or "", params.table or "")
    return [await session.columns(*names, encode)]


async def _execute(session: Session, params: ExecuteParams) -> Sequence[bytes]:
    await session.execute(params.sql, params.params, params.timeout or math.inf)
    return [b"true"]


async def _metadata(session: Session, _: NoParams) -> Sequence[bytes]:
    return [encode(await session.metadata())]


async def _count(session: Session, _: NoParams) -> Sequence[bytes]:
    return [encode(await session.count())]


async def _page(session: Session, params: PageParams) -> Sequence[bytes]:
    return await session.page(params.max)


async def _finish(session: Session, _: NoParams) -> Sequence[bytes]:
    await session.finish()
    return [b"true"]


async def _quit(session: Session, _: NoParams) -> Sequence[bytes]:
    await session.quit()
    return [b"null"]


async def _cancel(session: Session, _: NoParams) -> Sequence[bytes]:
    return [encode(session.cancel())]


async def _progress(session: Session, _: NoParams) -> Sequence[bytes]:
    return [encode(session.progress())]


METHODS: Final[Mapping[str, tuple[type[msgspec.Struct], Method]]] = {
    "tables": (NoParams, _tables),
    "views": (NoParams, _views),
    "columns": (ColumnsParams, _columns),
    "execute": (ExecuteParams, _execute),
    "metadata": (NoParams, _metadata),
    "count": (NoParams, _count),
    "page": (PageParams, _page),
    "finish": (NoParams, _finish),
    "quit": (NoParams, _quit),
    "cancel": (NoParams, _cancel),
    "progress": (NoParams, _progress),
}
AROUND_THE_QUEUE: Final = ("cancel", "progress")
