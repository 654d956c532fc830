"""The gate that every request passes: who may come in, and which way."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from notebook_rpc.gate import Gate
from notebook_rpc.sansio.auth import Access
from notebook_rpc.sansio.routing import RouteConflict
from notebook_rpc.sansio.tokens import Tokens, parse
from notebook_rpc.sansio.tracing import REQUEST
from notebook_rpc.web import WEBSOCKET, Request, Response, Route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from notebook_rpc.web import Headers

ACCESS = Access(frozenset({"db.example"}), frozenset({"https://ui.example"}))


TOKENS = Tokens(parse("s3cret name=ada"))
EVIL, LOCAL = b"https://evil.example", b"http://localhost"


class Echo:
    """A surface with a route of each kind; it says who has asked."""

    def routes(self) -> Iterable[Route]:
        yield Route("POST", "/", self.answer)
        yield Route("GET", "/health", self.answer)
        yield Route("GET", "/page", self.answer, may_be_linked=True)
        yield Route(WEBSOCKET, "/", self.answer, asks_for_token=True)
        yield Route(WEBSOCKET, "/rpc", self.answer)

    async def answer(self, request: Request) -> Response:
        return Response(200, ((b"content-type", b"text/plain"),), request.user.name.encode())


async def ask(
    method: str,
    path: str,
    *headers: tuple[bytes, bytes],
    tokens: Tokens | None = None,
    query: str = "",
) -> Response:
    request = Request(method, path, query, ((b"host", b"localhost:1995"), *headers))
    admitted = Gate([Echo()], ACCESS, tokens, wall_clock=lambda: 0.0).admit(request)
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
        # Of several not one counts: who sends two hopes that we look at the other.
        [(b"host", b"evil.example"), (b"host", b"localhost")],
        [(b"host", b"localhost"), (b"host", b"evil.example")],
        [(b"host", b"localhost"), *((b"origin", each) for each in (EVIL, LOCAL))],
        [(b"host", b"localhost"), *((b"origin", each) for each in (LOCAL, EVIL))],
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
    assert dict(response.headers) == {
        b"allow": b"OPTIONS, POST",
        b"access-control-allow-origin": b"https://ui.example",
        b"access-control-allow-methods": b"OPTIONS, POST",
        b"access-control-allow-headers": b"authorization, content-type, last-event-id",
        b"access-control-max-age": b"600",
        b"vary": b"origin",
    }


async def test_an_allowed_origin_may_read_the_answer_and_no_other() -> None:
    response = await ask("POST", "/", (b"origin", b"http://localhost:3000"))
    assert header(response.headers, b"access-control-allow-origin") == b"http://localhost:3000"
    assert header(response.headers, b"vary") == b"origin"
    assert header(response.headers, b"content-type") == b"text/plain"
    assert header((await ask("POST", "/")).headers, b"access-control-allow-origin") is None


def test_of_what_was_asked_before_only_so_much_is_remembered() -> None:
    class Counting(Access):
        def refusal(self, host: str | None, origin: str | None) -> str | None:
            asked.append(host)
            return super().refusal(host, origin)

    asked: list[str | None] = []
    gate = Gate([Echo()], Counting())
    first = [b"a.localhost"] * 3
    attack = [b"%d.localhost" % number for number in range(1000)]
    for host in (*first, *attack, *first):
        gate.admit(Request("POST", "/", "", ((b"host", host),)))
    assert asked.count("a.localhost") == 2  # once, and again when it had been forgotten
    assert len(asked) == 1002


def test_two_surfaces_that_want_the_same_route_are_refused() -> None:
    with pytest.raises(RouteConflict, match="two routes answer POST /"):
        Gate([Echo(), Echo()], ACCESS)


async def test_two_servers_in_one_process_do_not_notice_each_other() -> None:
    first, second = Gate([Echo()], ACCESS), Gate([Echo()], Access())
    request = Request("POST", "/", "", ((b"host", b"db.example"),))
    assert not isinstance(first.admit(request), Response)
    assert isinstance(second.admit(request), Response)


# What a browser sends no Origin with, but says where it is: https://www.w3.org/TR/fetch-metadata/

FOLLOWED = {"mode": "navigate", "dest": "document"}
FRAMED = {"mode": "navigate", "dest": "iframe"}
SHOWN = {"mode": "no-cors", "dest": "image"}


@pytest.mark.parametrize(
    ("path", "site", "how", "status"),
    [
        ("/health", "cross-site", SHOWN, 403),
        ("/health", "cross-site", FRAMED, 403),
        ("/health", "cross-site", FOLLOWED, 403),
        ("/health", "same-site", SHOWN, 200),
        ("/health", "same-origin", FRAMED, 200),
        ("/health", "none", FOLLOWED, 200),  # typed, or a bookmark
        ("/page", "cross-site", FOLLOWED, 200),
        ("/page", "cross-site", FRAMED, 403),
        ("/page", "cross-site", SHOWN, 403),
        ("/nothing", "cross-site", SHOWN, 404),
    ],
)
async def test_pages_of_other_sites_have_nothing_run_by_an_image_or_a_link(
    path: str, site: str, how: dict[str, str], status: int
) -> None:
    says = [(f"sec-fetch-{name}".encode(), value.encode()) for name, value in how.items()]
    response = await ask("GET", path, (b"sec-fetch-site", site.encode()), *says)
    assert response.status == status


async def test_a_page_of_an_allowed_origin_is_no_stranger() -> None:
    page = (b"origin", b"https://ui.example"), (b"sec-fetch-site", b"cross-site")
    assert (await ask("GET", "/health", *page)).status == 200


# Tokens

ADA = (b"authorization", b"Bearer s3cret")


async def test_with_a_token_a_request_comes_in_and_is_its_owners() -> None:
    response = await ask("POST", "/", ADA, tokens=TOKENS)
    assert (response.status, response.body) == (200, b"ada")
    assert (await ask("POST", "/", ADA)).body == b"anybody"  # who has no tokens asks for none


@pytest.mark.parametrize("path", ["/", "/health", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
@pytest.mark.parametrize(
    ("given", "challenge"),
    [
        (None, b'Bearer realm="notebook_rpc"'),
        (b"Bearer wrong", b'Bearer realm="notebook_rpc", error="invalid_token"'),
        (b"s3cret", b'Bearer realm="notebook_rpc", error="invalid_token"'),
    ],
)
async def test_without_a_token_nothing_is_to_be_learned(
    method: str,
    path: str,
    given: bytes | None,
    challenge: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    headers = [] if given is None else [(b"authorization", given)]
    response = await ask(method, path, *headers, tokens=TOKENS)
    assert (response.status, response.body) == (401, b"")
    assert header(response.headers, b"www-authenticate") == challenge
    assert "no valid token" in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_preflight_needs_no_token_and_a_refusal_can_be_read() -> None:
    page = (b"origin", b"https://ui.example")
    preflight = await ask("OPTIONS", "/", page, tokens=TOKENS)
    assert preflight.status == 200
    assert b"authorization" in (header(preflight.headers, b"access-control-allow-headers") or b"")
    refused = await ask("POST", "/", page, tokens=TOKENS)
    assert refused.status == 401
    assert header(refused.headers, b"access-control-allow-origin") == b"https://ui.example"


async def test_a_foreign_host_is_refused_whatever_its_token() -> None:
    request = Request("POST", "/", "", ((b"host", b"evil.example"), ADA))
    admitted = Gate([Echo()], ACCESS, TOKENS).admit(request)
    assert isinstance(admitted, Response)
    assert admitted.status == 403


async def test_a_cache_is_told_that_the_answer_varies() -> None:
    for method in ("GET", "HEAD"):
        assert header((await ask(method, "/health")).headers, b"vary") == b"origin"
    assert header((await ask("GET", "/nothing")).headers, b"vary") == b"origin"


async def test_a_token_that_has_ended_is_none() -> None:
    tokens = Tokens(parse("s3cret name=ada expires=1970-01-01T00:01:00Z"))
    request = Request("POST", "/", "", ((b"host", b"localhost"), ADA))
    times = iter((59.0, 60.0))
    gate = Gate([Echo()], ACCESS, tokens, wall_clock=times.__next__)
    assert not isinstance(gate.admit(request), Response)
    assert isinstance(gate.admit(request), Response)


# Figures


async def test_what_was_answered_is_observed_by_its_route() -> None:
    class Failing(Echo):
        async def answer(self, request: Request) -> Response:
            if request.query == "fail":
                raise ConnectionError
            return await super().answer(request)

    seen: list[tuple[str, str, int]] = []
    gate = Gate([Failing()], ACCESS, TOKENS, observe=lambda *about: seen.append(about))
    ours = (b"host", b"localhost")
    for method, path, query, headers in (
        ("POST", "/", "", (ours, ADA)),
        ("HEAD", "/health", "", (ours, ADA)),
        ("GET", "/no/such", "", (ours, ADA)),
        ("POST", "/", "", (ours,)),
        ("BREW", "/", "", ((b"host", b"evil.example"),)),
        ("POST", "/", "fail", (ours, ADA)),
    ):
        admitted = gate.admit(Request(method, path, query, headers))
        if not isinstance(admitted, Response):
            with suppress(ConnectionError):
                await admitted(Request(method, path, query, headers))
    assert seen == [
        ("POST", "/", 200),
        ("GET", "/health", 200),
        ("GET", "", 404),
        ("POST", "", 401),
        ("other", "", 403),
        ("POST", "/", 500),
    ]


@pytest.mark.parametrize(
    ("method", "label"),
    [
        *((known, known) for known in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
        (WEBSOCKET, WEBSOCKET),
        ("get", "other"),
        ("QUERY", "other"),
    ],
)
def test_a_method_that_nobody_knows_is_not_a_label_of_its_own(method: str, label: str) -> None:
    seen: list[tuple[str, str, int]] = []
    gate = Gate([Echo()], ACCESS, observe=lambda *about: seen.append(about))
    gate.admit(Request(method, "/no/such", "", ((b"host", b"localhost"),)))
    assert seen == [(label, "", 404)]


# The log


async def test_a_request_is_logged_without_the_whole_of_its_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Rooms(Echo):
        def routes(self) -> Iterable[Route]:
            yield Route("POST", "/sessions/{id}", self.answer)

    caplog.set_level("INFO", "notebook_rpc.access")
    request = Request("POST", "/sessions/0123456789abcdef", "", ((b"host", b"localhost"), ADA))
    admitted = Gate([Rooms()], ACCESS, TOKENS).admit(request)
    assert not isinstance(admitted, Response)
    await admitted(request)
    (line,) = caplog.messages
    assert re.fullmatch(r"ada: POST /sessions/012345\.\.\. 200, \d+\.\d ms", line)


@pytest.mark.parametrize("host", [b"localhost", b"evil.example"])
def test_neither_is_one_that_is_refused(host: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = "/sessions/" + "0123456789abcdef" * 2
    admitted = Gate([Echo()], ACCESS, TOKENS).admit(Request("POST", path, "", ((b"host", host),)))
    assert isinstance(admitted, Response)
    (line,) = caplog.messages
    assert "'/sessions/012345...'" in line


def test_a_request_goes_by_its_trace_or_by_a_number() -> None:
    gate = Gate([Echo()], ACCESS)
    trace = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    ids = []
    for headers in ((), (trace,), ()):
        gate.admit(Request("POST", "/", "", ((b"host", b"localhost"), *headers)))
        ids.append(REQUEST.get())
    assert ids == ["r1", "4bf92f3577b34da6a3ce929d0e0e4736", "r3"]


PROTOCOL = b"sec-websocket-protocol"
TOKEN_PROTOCOL = b"bearer.czNjcmV0"


class TestWebSockets:
    async def test_they_are_no_method_that_is_told_of(self) -> None:
        refused = await ask("GET", "/")
        assert refused.status == 405
        assert header(refused.headers, b"allow") == b"OPTIONS, POST"

    async def test_where_there_is_nothing_else_a_get_hears_what_is_missing(self) -> None:
        refused = await ask("GET", "/rpc")
        assert refused.status == 426
        assert header(refused.headers, b"upgrade") == b"websocket"
        assert (await ask("POST", "/rpc")).status == 405

    async def test_a_foreign_origin_is_refused(self) -> None:
        assert (await ask(WEBSOCKET, "/rpc", (b"origin", EVIL))).status == 403

    @pytest.mark.parametrize(
        ("headers", "query"),
        [
            ([(b"authorization", b"Bearer s3cret")], ""),
            ([(PROTOCOL, b"chat, " + TOKEN_PROTOCOL)], ""),
            ([], "token=s3cret"),
        ],
    )
    @pytest.mark.parametrize("path", ["/", "/rpc"])
    async def test_the_token_may_come_where_a_browser_can_put_it(
        self, path: str, headers: list[tuple[bytes, bytes]], query: str
    ) -> None:
        answer = await ask(WEBSOCKET, path, *headers, tokens=TOKENS, query=query)
        assert answer.body == b"ada"

    @pytest.mark.parametrize(
        ("headers", "query"),
        [
            ([(b"authorization", b"Bearer wrong")], "token=s3cret"),
            ([(b"authorization", b"")], ""),
            ([(PROTOCOL, b"bearer.czNjcmV")], ""),
            ([(PROTOCOL, b"bearer.")], ""),
            ([], "token=wrong"),
        ],
    )
    @pytest.mark.parametrize("path", ["/", "/rpc"])
    async def test_a_wrong_token_is_refused_everywhere(
        self, path: str, headers: list[tuple[bytes, bytes]], query: str
    ) -> None:
        answer = await ask(WEBSOCKET, path, *headers, tokens=TOKENS, query=query)
        assert answer.status == 401
        assert b"invalid_token" in (header(answer.headers, b"www-authenticate") or b"")

    async def test_no_token_is_refused_but_where_it_is_asked_for_later(self) -> None:
        assert (await ask(WEBSOCKET, "/rpc", tokens=TOKENS)).status == 401
        assert (await ask(WEBSOCKET, "/", tokens=TOKENS)).body == b"nobody"
        assert (await ask("POST", "/", tokens=TOKENS)).status == 401
        assert (await ask("POST", "/", tokens=TOKENS, query="token=s3cret")).status == 401

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            (b"chat, " + TOKEN_PROTOCOL, b"chat"),
            (TOKEN_PROTOCOL + b",chat", b"chat"),
            (TOKEN_PROTOCOL, TOKEN_PROTOCOL),
            (b" , ", None),
        ],
    )
    async def test_a_subprotocol_is_chosen_if_any_is_offered(
        self, offered: bytes, chosen: bytes | None
    ) -> None:
        answer = await ask(WEBSOCKET, "/rpc", (PROTOCOL, offered))
        assert header(answer.headers, PROTOCOL) == chosen
        answer = await ask("POST", "/", (PROTOCOL, offered))
        assert header(answer.headers, PROTOCOL) is None


async def test_routes_may_change_and_stay_where_the_new_ones_clash() -> None:
    class Changing(Echo):
        path = "/old"

        def routes(self) -> Iterable[Route]:
            yield Route("GET", self.path, self.answer)

    changing = Changing()
    gate = Gate([Echo(), changing], ACCESS)

    def status(path: str) -> int:
        admitted = gate.admit(Request("GET", path, "", ((b"host", b"localhost:1995"),)))
        return admitted.status if isinstance(admitted, Response) else 200

    assert (status("/old"), status("/new")) == (200, 404)
    changing.path = "/new"
    gate.refresh()
    assert (status("/old"), status("/new")) == (404, 200)
    changing.path = "/health"
    with pytest.raises(RouteConflict, match="/health"):
        gate.refresh()
    assert (status("/new"), status("/health"), len(gate.routes)) == (200, 200, 6)
