"""VibeSQL's live queries: SQL in the query of a GET, server-sent events out.

A query that fails at once is an answer with a status, which whoever runs ``curl`` sees. To one who
comes back, with ``Last-Event-ID``, it is an event: a browser gives up for good on other statuses
than 200.

What it refuses: to write, and parameters that are no JSON array.
"""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Protocol

import trio

from notebook_rpc.errors import InvalidParams, InvalidRequest, ParseError
from notebook_rpc.model import DEFAULT
from notebook_rpc.sansio import sse
from notebook_rpc.sansio.jsontext import MAX_DEPTH, read
from notebook_rpc.surfaces._telling import telling
from notebook_rpc.surfaces._vibesql_errors import spell
from notebook_rpc.web import Response, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from notebook_rpc.web import Headers, Request, Send

PATH: Final = "/api/subscribe"
KEEPALIVE: Final = 30.0  # seconds of silence
RETRY: Final = 1000  # milliseconds until a client comes back that has lost its connection
LEAST_POLL: Final = 1.0  # seconds

EVENTS: Final[Headers] = (
    (b"content-type", sse.CONTENT_TYPE),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
)


class Subscription(Protocol):
    """``services.watch.Subscription``."""

    async def events(self) -> Sequence[bytes]: ...


class Subscribe(Protocol):
    """``services.watch.Watch``, whose words these are."""

    def __call__(
        self,
        connection: str,
        sql: str,
        parameters: Sequence[object],
        key: Sequence[str],
        /,
        *,
        last_id: str | None,
        every: float,
    ) -> AbstractAsyncContextManager[Subscription]: ...


class Live:
    def __init__(
        self,
        subscribe: Subscribe,
        on_error: Callable[[str], None] = lambda _: None,
        max_depth: int = MAX_DEPTH,
    ) -> None:
        """*on_error* hears the slug of each error that is a client's answer; *max_depth* is how
        deep parameters may be nested."""
        self._subscribe = subscribe
        self._max_depth = max_depth
        self._on_error = on_error

    def routes(self) -> Iterable[Route]:
        yield Route("GET", PATH, telling(self.get, spell, self._on_error))

    async def get(self, request: Request) -> Response:
        async with AsyncExitStack() as stack:
            subscription = await stack.enter_async_context(self._subscribed(request))

            async def stream(send: Send) -> None:
                await send(sse.retry(RETRY))
                await _tell(subscription, send)

            return Response(200, EVENTS, stream, resources=stack.pop_all(), endless=True)

    def _subscribed(self, request: Request) -> AbstractAsyncContextManager[Subscription]:
        sql = request.argument("query")
        if not sql:
            raise InvalidParams("query: the SQL to subscribe to is missing")
        key = request.argument("key")
        last_id = request.header(b"last-event-id") or request.argument("lastEventId")
        return self._subscribe(
            *(request.argument("connection") or DEFAULT, sql),
            *(self._parameters(request.argument("params")), key.split(",") if key else ()),
            last_id=last_id,
            every=_seconds(request.argument("poll")),
        )

    def _parameters(self, text: str | None) -> list[object]:
        if not text:
            return []
        try:
            return read(text, list[object], self._max_depth)
        except (ParseError, InvalidRequest) as exc:
            raise InvalidParams(f"params: {exc}") from exc


async def _tell(subscription: Subscription, send: Send) -> None:
    while True:
        events: Sequence[bytes] = ()
        # To move a deadline costs a fifth of a new scope, and a thousand may wait here.
        with trio.move_on_after(KEEPALIVE) as silence:
            while True:
                events = ()
                events = await subscription.events()
                if silence.cancel_called:  # at the same moment: a piece must not be cut in two
                    break
                silence.deadline = math.inf
                for piece in events:
                    await send(piece)
                silence.deadline = trio.current_time() + KEEPALIVE
        for piece in events or (sse.KEEPALIVE,):
            await send(piece)


def _seconds(text: str | None) -> float:
    if not text:
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not LEAST_POLL <= seconds < math.inf:
        raise InvalidParams(f"poll: must be a number of seconds, at least {LEAST_POLL:g}")
    return seconds
