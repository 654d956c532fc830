"""Rooms in real DuckDB files, also one that sqlrooms-server made; and in what is no DuckDB."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import duckdb
import pytest
import trio

from notebook_rpc.errors import DatabaseError
from notebook_rpc.services.lanes import Lane
from notebook_rpc.services.room_store import RoomStore
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.duckdb import DRIVER as DUCKDB
from notebook_rpc_drivers.sqlite import DRIVER as SQLITE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from notebook_rpc.driver import Connection, Driver

ALL_BYTES = bytes(range(256)) * 5000
NAMESPACE = "__sqlrooms"


@asynccontextmanager
async def store(
    file: Path, *, namespace: str = NAMESPACE, path: str = "", driver: Driver = DUCKDB
) -> AsyncIterator[RoomStore]:
    workers = Workers(limit=2, spare=1)
    attached = {f"attach.{namespace}": path} if path else {}
    database = driver.open({"database": str(file), **attached})

    async def connect() -> Connection:
        return await workers.run(database.connect)

    opened = RoomStore(Lane(connect, workers, lambda: None), namespace, attached=bool(path))
    try:
        await opened.prepare()
        yield opened
    finally:
        await opened.close()
        database.close()
        workers.close()


def asked(file: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(file) as connection:
        return connection.execute(sql).fetchall()


async def test_what_was_saved_last_is_loaded_and_what_never_was_is_not_there(
    tmp_path: Path,
) -> None:
    async with store(tmp_path / "a.duckdb") as rooms:
        assert await rooms.load("one") is None
        await rooms.save("one", b"first")
        await rooms.save("two", b"")
        await rooms.save("one", ALL_BYTES)
        assert await rooms.load("one") == ALL_BYTES
        assert await rooms.load("two") == b""


async def test_the_tables_are_those_of_sqlrooms_server(tmp_path: Path) -> None:
    file = tmp_path / "a.duckdb"
    async with store(file):
        pass
    columns = asked(
        file,
        "SELECT table_name, column_name, data_type, column_default FROM duckdb_columns() "
        f"WHERE database_name = 'a' AND schema_name = '{NAMESPACE}' ORDER BY ALL",
    )
    assert columns == [
        ("sync_rooms", "room_id", "VARCHAR", None),
        ("sync_rooms", "snapshot", "BLOB", None),
        ("sync_rooms", "updated_at", "TIMESTAMP WITH TIME ZONE", "now()"),
        ("ui_state", "key", "VARCHAR", None),
        ("ui_state", "payload_json", "JSON", None),
        ("ui_state", "updated_at", "TIMESTAMP WITH TIME ZONE", "now()"),
    ]


async def test_rooms_that_sqlrooms_server_stored_are_read_and_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "a.duckdb"
    with duckdb.connect(file) as theirs:  # its own statements, in short
        theirs.execute("""
            CREATE SCHEMA IF NOT EXISTS "__sqlrooms";
            CREATE TABLE "__sqlrooms"."ui_state" (
                key TEXT PRIMARY KEY, payload_json JSON, updated_at TIMESTAMPTZ DEFAULT now());
            CREATE TABLE "__sqlrooms"."sync_rooms" (
                room_id TEXT PRIMARY KEY, snapshot BLOB, updated_at TIMESTAMPTZ DEFAULT now());
            INSERT INTO "__sqlrooms"."ui_state" VALUES ('default', '{"a":1}', now());
            INSERT INTO "__sqlrooms"."sync_rooms" VALUES ('r', '\\x00\\xFF'::BLOB, '2020-01-01');
            INSERT INTO "__sqlrooms"."sync_rooms" VALUES ('empty', NULL, now());
        """)
    async with store(file) as rooms:
        assert await rooms.load("r") == b"\0\xff"
        assert await rooms.load("empty") is None
        await rooms.save("r", b"new")
    state = asked(file, 'SELECT payload_json FROM "__sqlrooms".ui_state')
    assert state == [('{"a":1}',)]
    saved = asked(
        file,
        "SELECT snapshot, updated_at > TIMESTAMPTZ '2021-01-01' FROM \"__sqlrooms\".sync_rooms "
        "WHERE room_id = 'r'",
    )
    assert saved == [(b"new", True)]


async def test_a_file_of_its_own_is_attached_under_the_name(tmp_path: Path) -> None:
    meta = tmp_path / "it's meta.duckdb"
    for round_ in range(2):  # also when it is there already
        async with store(tmp_path / "a.duckdb", namespace="meta", path=str(meta)) as rooms:
            assert await rooms.load("r") == (None if round_ == 0 else b"0")
            await rooms.save("r", str(round_).encode())
    assert asked(meta, "SELECT room_id, snapshot FROM sync_rooms") == [("r", b"1")]
    assert asked(tmp_path / "a.duckdb", "SELECT * FROM duckdb_tables()") == []


async def test_a_file_is_not_mistaken_for_a_schema_of_its_name(tmp_path: Path) -> None:
    main, meta = tmp_path / "a.duckdb", tmp_path / "meta.duckdb"
    async with store(main, namespace="meta"):
        pass
    async with store(main, namespace="meta", path=str(meta)) as rooms:
        await rooms.save("r", b"1")
    assert asked(main, "SELECT count(*) FROM a.meta.sync_rooms") == [(0,)]
    assert asked(meta, "SELECT count(*) FROM sync_rooms") == [(1,)]


@pytest.mark.parametrize("namespace", ["a", 'qu"ote', "Ünï", "select"])
async def test_any_name_will_do_for_the_schema_also_the_databases_own(
    namespace: str, tmp_path: Path
) -> None:
    async with store(tmp_path / "a.duckdb", namespace=namespace) as rooms:
        await rooms.save("r", b"1")
        assert await rooms.load("r") == b"1"
    quoted = namespace.replace('"', '""')
    assert asked(tmp_path / "a.duckdb", f'SELECT count(*) FROM a."{quoted}".sync_rooms') == [(1,)]


@pytest.mark.parametrize("room_id", ["'; DROP TABLE sync_rooms; --", "", "\0", "ü💥", "?", "$1"])
async def test_any_room_id_is_only_text(room_id: str, tmp_path: Path) -> None:
    async with store(tmp_path / "a.duckdb") as rooms:
        await rooms.save("other", b"other")
        await rooms.save(room_id, b"1")
        assert await rooms.load(room_id) == b"1"
        assert await rooms.load("other") == b"other"


async def test_half_a_surrogate_pair_is_an_error_of_the_call(tmp_path: Path) -> None:
    async with store(tmp_path / "a.duckdb") as rooms:
        with pytest.raises(DatabaseError):
            await rooms.load("\ud800")
        assert await rooms.load("r") is None


async def test_another_database_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot make the tables for rooms: "):
        async with store(tmp_path / "a.sqlite", driver=SQLITE):
            pass


async def test_many_saves_of_one_room_do_not_pile_up_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.duckdb"
    async with store(file) as rooms:
        for number in range(100):
            await rooms.save("r", os.urandom(200_000) + bytes([number]))
    assert file.stat().st_size < 40 * 200_000


KILLED = """
import os, signal, sys, trio, pathlib
sys.path.insert(0, {tests!r})
from test_room_store import store
async def main():
    async with store(pathlib.Path({file!r}), namespace="meta", path={meta!r}) as rooms:
        await rooms.save("r", b"1" * 100_000)
        if {checkpoint}:
            await rooms._lane.work(lambda connection: connection.execute("CHECKPOINT").close())
        await rooms.save("r", b"2" * 100_000)
        os.kill(os.getpid(), signal.SIGKILL)
trio.run(main)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("own_file", [True, False])
@pytest.mark.parametrize("checkpoint", [True, False])
async def test_what_was_saved_survives_a_kill(
    own_file: bool, checkpoint: bool, tmp_path: Path
) -> None:
    file, meta = tmp_path / "a.duckdb", str(tmp_path / "meta.duckdb") if own_file else ""
    script = KILLED.format(
        tests=os.path.dirname(__file__),  # noqa: PTH120
        file=str(file),
        meta=meta,
        checkpoint=checkpoint,
    )
    died = await trio.run_process([sys.executable, "-c", script], check=False, capture_stderr=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    async with store(file, namespace="meta", path=meta) as rooms:
        assert await rooms.load("r") == b"2" * 100_000
