"""Scripts on real databases in memory: what handlers get of them, and what they leave behind."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from notebook_rpc import references
from notebook_rpc.backend import Backend
from notebook_rpc.errors import HandlerTimeout
from notebook_rpc.scripting import Scripting
from notebook_rpc.services.connections import Connections
from notebook_rpc.services.workers import Workers
from notebook_rpc.settings import ConfigError, Settings
from notebook_rpc.web import Request, Response, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from notebook_rpc.web import Surface

SETTINGS: dict[str, Any] = {"url": "duckdb://", "connection": ("lite=sqlite://",), "cache_size": 0}
HEAD = "from notebook_rpc import runtime\nfrom notebook_rpc.runtime import http, sql\n"


def write(folder: Path, script: str) -> None:
    (folder / "setup.py").write_text(HEAD + textwrap.dedent(script))


@asynccontextmanager
async def scripting(
    folder: Path, script: str, *others: Surface, **more: Any
) -> AsyncIterator[Scripting]:
    write(folder, script)
    settings = Settings(**(SETTINGS | {"routes": (str(folder / "setup.py"),)} | more))
    workers = Workers(limit=8, spare=2)
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


async def ask(found: Scripting, path: str = "/x") -> Any:
    handlers = {route.path: route.handler for route in found.surface.routes()}
    response = await handlers[path](Request("GET", path, "", ()))
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110  # files and threads set no event of Trio's
            await trio.sleep(0.01)


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

        @http.get("/x")
        async def x(request):
            async with sql.session() as one:
                entered.append(1)
                await trio.sleep(0.05)
                entered.append(-1)
            return http.json(200, entered)
    """
    async with scripting(tmp_path, script, max_pool=1) as found, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, found)
        await until(lambda: len(nursery.child_tasks) == 0)
        assert (await ask(found)) == [1, -1] * 4


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
    script = """
        import time
        time.sleep(0.3)
        http.get("/x", lambda request: http.json(200, "late"))
    """
    async with scripting(tmp_path, script, handler_timeout=0.1) as found:
        assert await ask(found) == "late"
        with pytest.raises(HandlerTimeout):
            await found.load(0.1)
