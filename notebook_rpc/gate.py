"""What every request passes before any surface sees it: Host and Origin, the token, the routes.

In this order, so that a stranger learns nothing, not even which paths there are. Bodies of
refusals are empty, and are answered before a body is read.
"""

from __future__ import annotations

import logging
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from notebook_rpc.sansio.routing import Found, NotAllowed, RoutingTable
from notebook_rpc.sansio.tokens import ANYBODY, NOBODY, Tokens, bearer, of_browser
from notebook_rpc.sansio.tracing import REQUEST, trace_id
from notebook_rpc.web import WEBSOCKET, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from notebook_rpc.sansio.auth import Access
    from notebook_rpc.sansio.tokens import User
    from notebook_rpc.web import Handler, Headers, Request, Route, Surface

logger = logging.getLogger(__name__)
access = logging.getLogger("notebook_rpc.access")

CHALLENGE: Final = b'Bearer realm="notebook_rpc"'  # RFC 6750, 3
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", WEBSOCKET})
UPGRADE: Final = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"))  # RFC 9110, 15.5.22
READ: Final = frozenset(
    {b"host", b"origin", b"traceparent", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"}
)
ELSEWHERE: Final = b"cross-site"
SHOWN: Final = 6  # characters
VARIES: Final = (b"vary", b"origin")


class _Target(NamedTuple):
    """Where a route leads."""

    answer: Handler
    asks_for_token: bool
    may_be_linked: bool


class Gate:
    def __init__(
        self,
        surfaces: Iterable[Surface],
        access: Access,
        tokens: Tokens | None = None,
        wall_clock: Callable[[], float] = time.time,
        observe: Callable[[str, str, int], None] = lambda *_: None,
    ) -> None:
        """*observe* hears of each request its method, route and status; the route is a path as
        a surface has it, or "" where none was taken."""
        # Pure, asked for every request, and nearly always the same question. The token is not
        # part of it: whoever has shown one before has to show it again.
        self._refusal = lru_cache(maxsize=256)(access.refusal)
        self._tokens = tokens or Tokens([])
        self._wall_clock = wall_clock
        self._observe = observe
        self._numbered = 0
        self._surfaces = list(surfaces)
        self.routes: list[Route]
        self._table: RoutingTable[_Target]
        self.refresh()

    def refresh(self) -> None:
        """Ask the surfaces again for their routes. Where that fails, the old ones stay."""
        routes = [route for surface in self._surfaces for route in surface.routes()]
        self._table = RoutingTable(
            (
                route.method,
                route.path,
                _Target(self._observed(route), route.asks_for_token, route.may_be_linked),
            )
            for route in routes
        )
        self.routes = routes

    def admit(self, request: Request) -> Handler | Response:
        """Whoever answers *request*, or the answer."""
        self._numbered += 1
        # Once over the headers, and not once for each: it is done for every request.
        given: dict[bytes, bytes] = {}
        for name, value in request.headers:
            if name in READ:
                given[name] = value if name not in given else given[name] + b", " + value
        trace = given.get(b"traceparent")
        REQUEST.set((trace and trace_id(trace.decode("latin-1"))) or f"r{self._numbered}")
        host, origin = _text(given.get(b"host")), _text(given.get(b"origin"))
        refusal = self._refusal(host, origin)
        if refusal is not None:
            logger.warning("refused %s %r: %s", request.method, _cut(request.path), refusal)
            self._observe(_known(request.method), "", 403)
            return Response(403)
        found = self._find(request, origin)
        if origin is None and given.get(b"sec-fetch-site") == ELSEWHERE:
            found = self._if_linked(request, found, given)
        if isinstance(found, Response):
            self._observe(_known(request.method), "", found.status)
        if origin is None and request.method not in ("GET", "HEAD"):
            return found  # nothing that a cache would keep, nor a browser ask for
        headers = (VARIES,) if origin is None else _cors(origin)
        if isinstance(found, Response):
            found.headers = (*found.headers, *headers)
            return found
        return _with_headers(found, headers)

    def _if_linked(
        self, request: Request, found: Handler | Response, given: Mapping[bytes, bytes]
    ) -> Handler | Response:
        """*found*, unless a page of another site has it loaded as its image, frame or script: a
        browser sends no Origin then, but says so (Fetch Metadata). A link is the user's to follow,
        where nothing but a page is to be had."""
        followed = given.get(b"sec-fetch-mode"), given.get(b"sec-fetch-dest")
        match = self._table.find(request.method, request.path)
        if isinstance(found, Response) or (
            followed == (b"navigate", b"document")
            and isinstance(match, Found)
            and match.target.may_be_linked
        ):
            return found
        logger.warning("refused %s %r: for another site", request.method, _cut(request.path))
        self._observe(_known(request.method), "", 403)
        return Response(403)

    def _find(self, request: Request, origin: str | None) -> Handler | Response:
        if request.method == "OPTIONS" and (allow := self._table.allow(request.path)):
            return Response(200, _allowed(allow, preflight=origin is not None))
        found = self._table.find(request.method, request.path)
        patient = isinstance(found, Found) and found.target.asks_for_token
        user = self._user(request, patient=patient)
        if isinstance(user, Response):
            return user
        request.user = user
        if found is None:
            return Response(404)
        if isinstance(found, NotAllowed):
            if found.upgrade and request.method == "GET":
                return Response(426, UPGRADE)
            return Response(405, ((b"allow", found.allow.encode()),))
        request.parameters = found.parameters
        answer = found.target.answer
        if request.method == WEBSOCKET and (chosen := _subprotocol(request)):
            return _with_headers(answer, ((b"sec-websocket-protocol", chosen.encode()),))
        return answer

    def _user(self, request: Request, *, patient: bool) -> User | Response:
        """Whose token came with *request*; *patient*, if it may come later."""
        if not self._tokens:  # as they would say, but without a look at the headers
            return ANYBODY
        given = request.header(b"authorization")
        token = bearer(given)
        if given is None and request.method == WEBSOCKET:
            token = of_browser(request.header(b"sec-websocket-protocol"), request.query)
            if token is None and patient:
                return NOBODY
        user = self._tokens.user(token, self._wall_clock())
        if user is not None:
            return user
        wrong = b"" if given is None and token is None else b', error="invalid_token"'
        logger.warning("refused %s %r: no valid token", request.method, _cut(request.path))
        return Response(401, ((b"www-authenticate", CHALLENGE + wrong),))

    def _observed(self, route: Route) -> Handler:
        async def answer(request: Request) -> Response:
            status, began = 500, time.perf_counter()
            try:
                response = await route.handler(request)
                status = response.status
            finally:
                self._observe(route.method, route.path, status)
                if access.isEnabledFor(logging.INFO):
                    milliseconds = (time.perf_counter() - began) * 1000
                    path = _shown(route.path, request.parameters)
                    about = (request.user.name, request.method, path, status, milliseconds)
                    access.info("%s: %s %s %d, %.1f ms", *about)
            return response

        return answer


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _cut(path: str) -> str:
    """A path that nobody has looked up yet, without the whole of what may be a session's id."""
    return re.sub(rf"([0-9a-f]{{{SHOWN}}})[0-9a-f]{{26}}", r"\1...", path)


def _shown(path: str, parameters: Mapping[str, str]) -> str:
    """A path for the log. What stands in it may be a session's id: enough of it to follow the
    session, too little to use it."""
    for name, value in parameters.items():
        path = path.replace(f"{{{name}}}", f"{value[:SHOWN]}...")
    return path


def _subprotocol(request: Request) -> str | None:
    """What to choose of the subprotocols of a WebSocket, as a browser that offers some hangs up
    where none is chosen. They mean nothing here, but for the token that one may carry."""
    offered = (request.header(b"sec-websocket-protocol") or "").split(",")
    names = [name.strip() for name in offered if name.strip()]
    others = [name for name in names if not name.startswith("bearer.")]
    return next(iter(others or names), None)


def _known(method: str) -> str:
    """A client can make any word up; not one of them shall be kept for ever."""
    return method if method in METHODS else "other"


def _allowed(allow: str, *, preflight: bool) -> Headers:
    """Of the answer to OPTIONS, which browsers send before a request from another origin; they
    send no token with it."""
    headers = ((b"allow", allow.encode()),)
    if not preflight:
        return headers
    return (
        *headers,
        (b"access-control-allow-methods", allow.encode()),
        (b"access-control-allow-headers", b"authorization, content-type, last-event-id"),
        (b"access-control-max-age", b"600"),
    )


def _cors(origin: str) -> Headers:
    """Let a page of *origin*, which has been admitted, read the answer (Fetch, CORS protocol)."""
    return ((b"access-control-allow-origin", origin.encode("latin-1")), VARIES)


def _with_headers(handler: Handler, headers: Headers) -> Handler:
    async def answer(request: Request) -> Response:
        response = await handler(request)
        response.headers = (*response.headers, *headers)
        return response

    return answer
