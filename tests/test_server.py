"""The gate that every request passes, and how a server is asked to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from notebook_rpc.config import Settings
from notebook_rpc.sansio.auth import Access
from notebook_rpc.sansio.routing import RouteConflict
from notebook_rpc.server import Gate, Refused, Stop, serve
from notebook_rpc.web import Request, Response, Route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from notebook_rpc.web import Headers

ACCESS = Access(frozenset({"db.example"}), frozenset({"https://ui.example"}))


class Echo:
    """A surface with a POST route and a GET route."""

    def routes(self) -> Iterable[Route]:
        yield Route("POST", "/", self.answer)
        yield Route("GET", "/health", self.answer)

    async def answer(self, request: Request) -> Response:
        return Response(200, ((b"content-type", b"text/plain"),), request.body)


async def ask(method: str, path: str, *headers: tuple[bytes, bytes]) -> Response:
    request = Request(method, path, "", ((b"host", b"localhost:1995"), *headers))
    admitted = Gate([Echo()], ACCESS).admit(request)
    return admitted if isinstance(admitted, Response) else await admitted(request)


def header(headers: Headers, name: bytes) -> bytes | None:
    return dict(headers).get(name)


async def test_a_request_that_is_ours_reaches_its_route() -> None:
    assert (await ask("POST", "/")).status == 200
    assert (await ask("GET", "/health")).status == 200
    assert (await ask("HEAD", "/health")).status == 200


async def test_unknown_paths_and_methods_are_refused_with_empty_bodies() -> None:
    missing = await ask("GET", "/nothing")
    assert (missing.status, missing.body) == (404, b"")
    wrong = await ask("DELETE", "/")
    assert (wrong.status, wrong.body) == (405, b"")
    assert header(wrong.headers, b"allow") == b"OPTIONS, POST"


@pytest.mark.parametrize("path", ["/", "/health", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"evil.example")],
        [(b"host", b"localhost"), (b"origin", b"https://evil.example")],
        [(b"host", b"localhost"), (b"origin", b"null")],
    ],
)
def test_foreign_hosts_and_origins_reach_nothing(
    method: str, path: str, headers: list[tuple[bytes, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    admitted = Gate([Echo()], ACCESS).admit(Request(method, path, "", tuple(headers)))
    assert isinstance(admitted, Response)
    assert (admitted.status, admitted.body) == (403, b"")
    assert "if it should be" in caplog.text


async def test_options_tells_what_is_allowed_without_asking_the_surface() -> None:
    response = await ask("OPTIONS", "/health")
    assert (response.status, response.body) == (200, b"")
    assert header(response.headers, b"allow") == b"GET, HEAD, OPTIONS"
    assert header(response.headers, b"access-control-allow-origin") is None


async def test_a_preflight_from_an_allowed_origin_is_granted() -> None:
    response = await ask(
        *("OPTIONS", "/"),
        *[(b"origin", b"https://ui.example"), (b"access-control-request-method", b"POST")],
    )
    assert header(response.headers, b"access-control-allow-origin") == b"https://ui.example"
    assert b"POST" in (header(response.headers, b"access-control-allow-methods") or b"")
    assert b"content-type" in (header(response.headers, b"access-control-allow-headers") or b"")
    assert header(response.headers, b"vary") == b"origin"


async def test_an_allowed_origin_may_read_the_answer_and_no_other() -> None:
    response = await ask("POST", "/", (b"origin", b"http://localhost:3000"))
    assert header(response.headers, b"access-control-allow-origin") == b"http://localhost:3000"
    assert header(response.headers, b"vary") == b"origin"
    assert header(response.headers, b"content-type") == b"text/plain"
    assert header((await ask("POST", "/")).headers, b"access-control-allow-origin") is None


def test_two_surfaces_that_want_the_same_route_are_refused() -> None:
    with pytest.raises(RouteConflict, match="two routes answer POST /"):
        Gate([Echo(), Echo()], ACCESS)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "db.example"])
async def test_other_than_loopback_is_refused_before_anything_is_opened(host: str) -> None:
    with pytest.raises(Refused, match="--insecure"):
        await serve(Settings(host=host, url="duckdb:////nonexistent/a"), print, Stop.never())


async def test_the_first_request_to_stop_drains_and_the_second_interrupts() -> None:
    stop = Stop.never()
    stop.request("SIGTERM")
    assert (stop.draining.is_set(), stop.now.is_set()) == (True, False)
    stop.request("SIGTERM")
    assert stop.now.is_set()


async def test_a_signal_after_quit_interrupts() -> None:
    stop = Stop.never()
    stop.draining.set()  # as quit does
    stop.request("SIGTERM")
    assert stop.now.is_set()


async def test_two_servers_in_one_process_do_not_notice_each_other() -> None:
    first, second = Gate([Echo()], ACCESS), Gate([Echo()], Access())
    request = Request("POST", "/", "", ((b"host", b"db.example"),))
    assert not isinstance(first.admit(request), Response)
    assert isinstance(second.admit(request), Response)
