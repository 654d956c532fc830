"""Scripts on real databases in memory: what handlers get of them, and what they leave behind."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notebook_rpc import references
from notebook_rpc.backend import Backend
from notebook_rpc.errors import Busy, HandlerTimeout
from notebook_rpc.scripting import Scripting
from notebook_rpc.services.connections import Connections
from notebook_rpc.services.lanes import Lane
from notebook_rpc.services.workers import Workers
from notebook_rpc.settings import ConfigError, Settings
from notebook_rpc.web import WEBSOCKET, Request, Response, Route
from tests.surfaces.fakes import Socket
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from notebook_rpc.web import Surface

SETTINGS: dict[str, Any] = {"url": "duckdb://", "connection": ("lite=sqlite://",), "cache_size": 0}
LIMIT, WAITING = 8, 2
HEAD = "from notebook_rpc import runtime\nfrom notebook_rpc.runtime import http, sql\n"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notebook_rpc.scripting.LOOK", 0.02)


def write(folder: Path, script: str) -> None:
    (folder / "setup.py").write_text(HEAD + textwrap.dedent(script))


@asynccontextmanager
async def scripting(
    folder: Path, script: str, *others: Surface, **more: Any
) -> AsyncIterator[Scripting]:
    write(folder, script)
    settings = Settings(**(SETTINGS | {"routes": (str(folder / "setup.py"),)} | more))
    workers = Workers(LIMIT, spare=2, max_waiting=WAITING)
    connections = Connections(references.openers(settings), workers)
    await connections.open("default")
    backend = Backend(settings, connections, references.engines(settings), workers)
    await backend.open()
    found = Scripting(settings, backend, others)
    try:
        await found.load()
        yield found
    finally:
        found.close()
        await backend.close()
        await connections.close()
        workers.close()


async def answer(found: Scripting, path: str, method: str = "GET") -> Response:
    handlers = {(route.method, route.path): route.handler for route in found.surface.routes()}
    return await handlers[method, path](Request(method, path, "", ()))


async def ask(found: Scripting, path: str = "/x") -> Any:
    response = await answer(found, path)
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


async def test_rows_are_exact(tmp_path: Path) -> None:
    script = """
        @http.get("/x")
        def x(request):
            rows = sql.query("select 0.1::decimal(30, 20) as d, 2::hugeint ** 0 as f, sum(n) as s,"
                " [1.5] as l, null::decimal as n, 0.1::double as b from range(9223372036854775807, "
                " 9223372036854775807 + 0) r(n) right join range(1) on true")
            row = rows[0]
            big = sql.query("select 170141183460469231731687303715884105727::hugeint as h")[0]["h"]
            return http.json(200, [repr(row["d"]), row["l"], row["n"], row["b"], str(big),
                rows.columns, rows.touched])

        @http.get("/touched")
        def touched(request):
            made = sql.query("create table t as select range as n from range(5)")
            gone = sql.query("delete from t where n > $least", {"least": 2})
            return http.json(200, [made, made.columns, gone.touched, len(sql.query("from t"))])

        @http.get("/lite")
        def lite(request):
            rows = "select cast(1.5 as decimal) as a, 'x' as b union all select 'no', 'y'"
            return http.json(200, sql.query(rows, connection="lite"))
    """
    async with scripting(tmp_path, script) as found:
        assert await ask(found) == [
            *("Decimal('0.10000000000000000000')", [1.5], None, 0.1),
            *(str(2**127 - 1), ["d", "f", "s", "l", "n", "b"], -1),
        ]
        assert await ask(found, "/touched") == [[], [], 2, 3]
        assert await ask(found, "/lite") == [{"a": 1.5, "b": "x"}, {"a": "no", "b": "y"}]


async def test_a_text_in_a_column_of_numbers_stays_what_it_is(tmp_path: Path) -> None:
    script = """
        @http.get("/x")
        def x(request):
            with sql.session("lite") as lite:
                lite.query("create table t (a decimal(10, 2))")
                lite.query("insert into t values ('text'), (1.25)")
                return http.json(200, lite.query("select a from t"))
    """
    async with scripting(tmp_path, script) as found:
        assert await ask(found) == [{"a": "text"}, {"a": 1.25}]


async def test_more_rows_than_a_page_may_hold_are_an_error(tmp_path: Path) -> None:
    script = """
        @http.get("/x")
        def x(request):
            few = sql.query("select range as n from range(100)")
            try:
                sql.query("select range as n from range(1000000000)")
            except runtime.SqlError as exc:
                return http.json(200, [len(few), str(exc)])
    """
    async with scripting(tmp_path, script, max_page=10_000) as found:
        assert await ask(found) == [100, "the rows are more than 10000 bytes; ask for fewer"]


async def test_a_session_that_is_forgotten_ends_with_its_request(tmp_path: Path) -> None:
    script = """
        sql.query("create table t (n int)")

        @http.get("/x")
        def x(request):
            session = sql.session()
            session.__enter__()
            session.query("begin")
            session.query("insert into t values (1)")
            return http.json(200, len(session.query("from t")))

        @http.get("/count")
        async def count(request):
            return http.json(200, len(await sql.query("from t")))
    """
    async with scripting(tmp_path, script, max_pool=2) as found:
        for _ in range(5):  # more than may be open at a time
            assert await ask(found) == 1
        assert await ask(found, "/count") == 0


async def test_sessions_wait_for_each_other(tmp_path: Path) -> None:
    script = """
        import trio
        entered = []
        go = trio.Event()

        @http.get("/x")
        async def x(request):
            async with sql.session() as one:
                entered.append(1)
                await go.wait()
                entered.append(-1)
            return http.json(200, entered)

        @http.get("/entered")
        async def so_far(request):
            return http.json(200, entered)

        @http.get("/go")
        async def let_go(request):
            go.set()
            return http.json(200, None)
    """
    async with scripting(tmp_path, script, max_pool=1) as found:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, found)
            await wait_all_tasks_blocked()
            assert await ask(found, "/entered") == [1]
            await ask(found, "/go")
        assert await ask(found, "/entered") == [1, -1] * 3


async def test_sessions_that_wait_for_each_other_are_told_in_the_end(tmp_path: Path) -> None:
    script = """
        @http.websocket("/x")
        async def x(client):
            try:
                async with sql.session():
                    async with sql.session():
                        await client.send("two")
            except runtime.SqlError as exc:
                await client.send(exc.slug)

        @http.get("/x")
        async def one(request):
            async with sql.session() as session:
                return http.json(200, len(await session.query("select 1")))
    """
    async with scripting(tmp_path, script, max_pool=1, handler_timeout=0.1) as found:
        response = await answer(found, "/x", WEBSOCKET)
        assert response.conversation is not None
        socket = Socket()
        with trio.fail_after(5):
            await response.conversation(socket)
        assert await socket.hear() == "busy"
        assert await ask(found) == 1


async def test_what_fails_to_be_a_session_takes_no_place(tmp_path: Path) -> None:
    script = """
        @http.websocket("/x")
        async def x(client):
            for _ in range(3):
                try:
                    async with sql.session("none"):
                        pass
                except runtime.SqlError as exc:
                    await client.send(exc.slug)
            async with sql.session() as session:
                try:
                    await session.__aenter__()
                except RuntimeError as exc:
                    await client.send(str(exc))
            async with session, sql.session():
                await client.send("open again")
    """
    async with scripting(tmp_path, script, max_pool=2, handler_timeout=0.1) as found:
        response = await answer(found, "/x", WEBSOCKET)
        assert response.conversation is not None
        socket = Socket()
        await response.conversation(socket)
        assert list(socket.sent) == [
            *(["unknown-connection"] * 3),
            *("the session is open already", "open again"),
        ]


async def test_one_session_that_does_not_close_keeps_no_other_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = """
        @http.get("/x")
        async def x(request):
            for _ in range(2):
                await sql.session().__aenter__()
            return http.json(200, "left open")

        @http.get("/two")
        async def two(request):
            async with sql.session(), sql.session():
                return http.json(200, "two")
    """
    close = Lane.close

    async def fails(lane: Lane) -> None:
        await close(lane)
        raise ValueError("no way")

    async with scripting(tmp_path, script, max_pool=2, handler_timeout=0.1) as found:
        with monkeypatch.context() as broken:
            broken.setattr(Lane, "close", fails)
            assert await ask(found) == "left open"
        assert caplog.text.count("ValueError: no way") == 2
        assert await ask(found, "/two") == "two"


async def test_routes_of_others_are_taken(tmp_path: Path) -> None:
    class Other:
        def routes(self) -> list[Route]:
            return [Route("GET", "/version", self.answer)]

        async def answer(self, _: Request) -> Response:
            raise AssertionError

    script = 'http.get("/version", lambda request: None)'
    with pytest.raises(ConfigError, match=r"setup\.py:3: two routes answer GET /version"):
        async with scripting(tmp_path, script, Other()):
            raise AssertionError


async def test_what_does_not_load_leaves_nothing_behind(tmp_path: Path) -> None:
    others = loaded()
    async with scripting(
        tmp_path, 'http.get("/x", lambda request: http.json(200, "old"))'
    ) as found:
        before = loaded()
        (tmp_path / "helper.py").touch()
        write(tmp_path, "import helper\nraise ValueError('no')")
        with pytest.raises(ConfigError, match=r"setup\.py:4: ValueError: no"):
            await found.load()
        assert loaded() == before > others
        assert await ask(found) == "old"
    assert loaded() == others


def loaded() -> set[str]:
    return {name for name in sys.modules if name.startswith("notebook_rpc.script_")}


async def test_an_edit_that_never_ends_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gate = tmp_path / "gate"
    refreshed: list[bool] = []
    old = 'http.get("/x", lambda request: http.json(200, "old"))'
    new = f"""
        import pathlib, time
        while not pathlib.Path({str(gate)!r}).exists():
            time.sleep(0.01)
        http.get("/x", lambda request: http.json(200, "new"))
    """
    async with (
        scripting(tmp_path, old, handler_timeout=0.2) as found,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(found.reload, lambda: refreshed.append(True))
        write(tmp_path, new)
        await until(lambda: "the routes stay as they were: a setup script took" in caplog.text)
        assert (await ask(found), refreshed) == ("old", [])
        gate.touch()
        write(tmp_path, new + "\n")
        await until(lambda: bool(refreshed))
        assert await ask(found) == "new"
        nursery.cancel_scope.cancel()


async def test_what_is_imported_late_is_watched_too(tmp_path: Path) -> None:
    script = """
        @http.get("/x")
        def x(request):
            import late
            return http.json(200, late.WORD)
    """
    (tmp_path / "late.py").write_text("WORD = 'old'")
    refreshed: list[bool] = []
    async with scripting(tmp_path, script) as found, trio.open_nursery() as nursery:
        nursery.start_soon(found.reload, lambda: refreshed.append(True))
        assert await ask(found) == "old"
        (tmp_path / "late.py").write_text("WORD = 'new'")
        await until(lambda: bool(refreshed))
        assert await ask(found) == "new"
        nursery.cancel_scope.cancel()


async def test_a_first_script_may_take_its_time(tmp_path: Path) -> None:
    began, gate = tmp_path / "began", tmp_path / "gate"
    script = f"""
        import pathlib, time
        pathlib.Path({str(began)!r}).touch()
        while not pathlib.Path({str(gate)!r}).exists():
            time.sleep(0.001)
        http.get("/x", lambda request: http.json(200, "late"))
    """
    quick = 'http.get("/x", lambda request: http.json(200, "quick"))'
    async with scripting(tmp_path, quick, handler_timeout=0.1) as found:
        write(tmp_path, script)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.load)
            await until(began.exists)
            with pytest.raises(HandlerTimeout):
                await found.load(0.1)  # one that has as long as a handler
            assert await ask(found) == "quick"
            gate.touch()
        assert await ask(found) == "late"


async def test_edits_are_seen_though_no_statement_may_begin_or_wait(tmp_path: Path) -> None:
    refreshed: list[bool] = []
    go = threading.Event()
    async with (
        scripting(tmp_path, 'http.get("/x", lambda request: http.json(200, "old"))') as found,
        trio.open_nursery() as nursery,
    ):
        taken = found._backend.workers  # noqa: SLF001  # to take all of its places
        for _ in range(LIMIT + WAITING):
            nursery.start_soon(taken.run, partial(go.wait, 10))
        await wait_all_tasks_blocked()
        with pytest.raises(Busy):
            await taken.run(go.wait)
        nursery.start_soon(found.reload, lambda: refreshed.append(True))
        write(tmp_path, 'http.get("/x", lambda request: http.json(200, "new"))')
        await until(lambda: bool(refreshed))
        assert await ask(found) == "new"
        go.set()
        nursery.cancel_scope.cancel()


async def test_whatever_an_edit_does_the_next_one_is_seen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refreshed: list[bool] = []

    def refresh() -> None:
        refreshed.append(True)
        if len(refreshed) == 1:
            raise ZeroDivisionError

    async with (
        scripting(tmp_path, 'http.get("/x", lambda request: http.json(200, "old"))') as found,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(found.reload, refresh)
        write(tmp_path, "raise KeyboardInterrupt")
        await until(lambda: "setup.py:3: KeyboardInterrupt" in caplog.text)
        write(tmp_path, 'http.get("/x", lambda request: http.json(200, "new"))')
        await until(lambda: "ZeroDivisionError" in caplog.text)
        write(tmp_path, 'http.get("/x", lambda request: http.json(200, "newer"))')
        await until(lambda: len(refreshed) == 2)
        assert await ask(found) == "newer"
        nursery.cancel_scope.cancel()


async def test_an_edit_that_finds_no_thread_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refreshed: list[bool] = []
    script = """
        import threading
        go = threading.Event()

        @http.get("/x")
        def x(request):
            go.wait(10)
            return http.json(200, "old")

        @http.get("/go")
        async def let_go(request):
            go.set()
            return http.json(200, None)
    """
    async with (
        scripting(tmp_path, script, max_handlers=1, handler_timeout=0.05) as found,
        trio.open_nursery() as nursery,
    ):
        assert (await answer(found, "/x")).status == 504  # left behind, with its thread
        nursery.start_soon(found.reload, lambda: refreshed.append(True))
        write(tmp_path, 'http.get("/x", lambda request: http.json(200, "new"))')
        await until(lambda: "the routes stay as they were: all 1 handlers" in caplog.text)
        await ask(found, "/go")
        await until(lambda: bool(refreshed))
        assert await ask(found) == "new"
        nursery.cancel_scope.cancel()
