"""For whoever keeps the server running: is it alive, may it get work, what is it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from notebook_rpc.sansio import metrics
from notebook_rpc.sansio.jsontext import encode
from notebook_rpc.web import JSON, RETRY_AFTER, Response, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from notebook_rpc.web import Headers, Request

TEXT: Headers = ((b"content-type", b"text/plain; charset=utf-8"),)


class Load(Protocol):
    """Database calls: ``services.workers.Load``."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def queued(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Status:
    """The server at this moment; ``sessions`` are those besides the default one."""

    draining: bool
    sessions: int
    load: Load


class Ops:
    def __init__(
        self,
        version: str,
        status: Callable[[], Status],
        metrics: Callable[[], bytes],
        complaint: Callable[[], Awaitable[str | None]],
    ) -> None:
        """*metrics* are in Prometheus' text format; *complaint* is why the database cannot be
        used, or None."""
        self._version = version
        self._status = status
        self._metrics = metrics
        self._complaint = complaint

    def routes(self) -> Iterable[Route]:
        yield Route("GET", "/healthz", self.healthz, may_be_linked=True)
        yield Route("GET", "/health", self.health, may_be_linked=True)
        yield Route("GET", "/readyz", self.readyz, may_be_linked=True)
        yield Route("GET", "/version", self.version, may_be_linked=True)
        yield Route("GET", "/metrics", self.metrics, may_be_linked=True)

    async def healthz(self, _: Request) -> Response:
        """Alive: the event loop turns."""
        return Response(200, TEXT, b"ok")

    async def health(self, _: Request) -> Response:
        """As ``healthz``, for clients of VibeSQL, where it has this name and form."""
        return Response(200, JSON, encode({"status": "ok", "version": self._version}))

    async def readyz(self, request: Request) -> Response:
        """Whether to send work here: 503 while the server stops, or if its database does not
        answer, and the body says which. With ``?verbose``, as Kubernetes has it, also how busy
        it is: ``waiting`` above 0 says that calls wait for one of ``limit`` threads, or for
        others that have just begun."""
        status = self._status()
        word = "draining" if status.draining else await self._complaint() or "ok"
        word = word.encode("utf-8", "backslashreplace").decode()  # databases say anything
        code, retry = (200, ()) if word == "ok" else (503, RETRY_AFTER)
        if request.query != "verbose":
            return Response(code, (*TEXT, *retry), word.encode())
        load = status.load
        calls = {"running": load.running, "waiting": load.waiting, "limit": load.limit}
        body = {"status": word, "calls": calls, "sessions": status.sessions}
        return Response(code, (*JSON, *retry), encode(body))

    async def version(self, _: Request) -> Response:
        body = {
            "name": "notebook_rpc",
            "version": self._version,
            "python": platform.python_version(),
        }
        return Response(200, JSON, encode(body))

    async def metrics(self, _: Request) -> Response:
        content_type = metrics.CONTENT_TYPE.encode()
        return Response(200, ((b"content-type", content_type),), self._metrics())
