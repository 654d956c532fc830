"""Health, readiness, version."""

from __future__ import annotations

import json
import platform

import pytest

from notebook_rpc.services.workers import Load
from notebook_rpc.surfaces.ops import Ops, Status
from notebook_rpc.web import Request, Response


async def asked(
    status: Status, path: str, query: str = "", complaint: str | None = None
) -> Response:
    async def ask_database() -> str | None:
        assert not status.draining
        return complaint

    ops = Ops("1.2.3", lambda: status, lambda: b"x_total 1\n", ask_database)
    handlers = {route.path: route.handler for route in ops.routes()}
    return await handlers[path](Request("GET", path, query, ()))


BUSY = Status(draining=False, sessions=2, load=Load(running=4, waiting=3, limit=4, threads=4))
DRAINING = Status(draining=True, sessions=0, load=Load(0, 0, 4, 2))


@pytest.mark.parametrize("status", [BUSY, DRAINING])
async def test_whoever_answers_is_alive(status: Status) -> None:
    response = await asked(status, "/healthz")
    assert (response.status, response.body) == (200, b"ok")
    assert dict(response.headers) == {b"content-type": b"text/plain; charset=utf-8"}


async def test_a_server_that_stops_is_not_ready() -> None:
    for status, code, word in ((BUSY, 200, b"ok"), (DRAINING, 503, b"draining")):
        response = await asked(status, "/readyz")
        assert (response.status, response.body) == (code, word)
        assert ((b"retry-after", b"1") in response.headers) is (code == 503)


@pytest.mark.parametrize("query", ["", "verbose"])
async def test_a_server_whose_database_does_not_answer_is_not_ready_and_says_why(
    query: str,
) -> None:
    response = await asked(BUSY, "/readyz", query, "it is \udc80 gone")
    assert response.status == 503
    assert dict(response.headers)[b"retry-after"] == b"1"
    assert isinstance(response.body, bytes)
    told = json.loads(response.body)["status"] if query else response.body.decode()
    assert told == r"it is \udc80 gone"


async def test_health_is_told_as_vibesql_does() -> None:
    for status in (BUSY, DRAINING):
        response = await asked(status, "/health", complaint="it is gone")
        assert (response.status, response.body) == (200, b'{"status":"ok","version":"1.2.3"}')
        assert dict(response.headers) == {b"content-type": b"application/json"}


async def test_readiness_tells_how_many_calls_wait_for_a_thread() -> None:
    assert (await asked(DRAINING, "/readyz", "verbose")).status == 503
    response = await asked(BUSY, "/readyz", "verbose")
    assert response.status == 200
    assert dict(response.headers) == {b"content-type": b"application/json"}
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {
        "status": "ok",
        "calls": {"running": 4, "waiting": 3, "limit": 4},
        "sessions": 2,
    }


async def test_the_version_is_the_one_it_was_given() -> None:
    response = await asked(BUSY, "/version")
    assert isinstance(response.body, bytes)
    assert response.status == 200
    assert json.loads(response.body) == {
        "name": "notebook_rpc",
        "version": "1.2.3",
        "python": platform.python_version(),
    }


async def test_metrics_are_in_prometheus_format() -> None:
    response = await asked(BUSY, "/metrics")
    assert dict(response.headers)[b"content-type"].startswith(b"text/plain; version=0.0.4")
    assert response.body == b"x_total 1\n"
