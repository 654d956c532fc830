"""What the settings for shared documents ask for, refuse, and make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from notebook_rpc import sharing
from notebook_rpc.services.workers import Workers
from notebook_rpc.settings import ConfigError, Settings
from notebook_rpc.sharing import Sharing, properties
from notebook_rpc_drivers.duckdb import DRIVER
from tests.peers import Peer, value

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from pathlib import Path

    from notebook_rpc.driver import Connection


def test_nothing_is_asked_for_unless_it_is() -> None:
    assert properties(Settings(url="sqlite:///a.sqlite", meta_namespace="meta")) == {}
    assert properties(Settings(sync=True)) == {}


def test_extensions_and_the_file_are_properties_of_the_database() -> None:
    settings = Settings(extensions=("a", "b@c"), meta_db="m.duckdb", meta_namespace="meta")
    assert properties(settings) == {"extensions": "a,b@c", "attach.meta": "m.duckdb"}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (Settings(url="sqlite:///a", sync=True), "--sync needs a DuckDB database"),
        (Settings(url="sqlite:///a", meta_db="m", sync=True), "--meta-db needs a DuckDB database"),
        (Settings(url="postgresql:///a", extensions=("a",)), "--extensions needs a DuckDB"),
        (Settings(url="a.duckdb", sync=True, read_only=True), "--sync writes into the database"),
        (Settings(url="a.duckdb", meta_db="m", read_only=True), "--meta-db writes into"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_opened(
    settings: Settings, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        properties(settings)


def test_without_loro_the_message_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(_: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(sharing, "find_spec", find_spec)
    with pytest.raises(ConfigError, match=r"pip install 'notebook_rpc\[sync\]' brings it"):
        properties(Settings(sync=True))
    assert properties(Settings(meta_db="m")) == {"attach.__sqlrooms": "m"}


@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("sync", [True, False])
async def test_the_parts_are_joined(tmp_path: Path, meta: bool, sync: bool) -> None:
    """All of it, with threads, a process and files."""
    settings = Settings(
        url=str(tmp_path / "main.duckdb"),
        sync=sync,
        meta_db=str(tmp_path / "meta.duckdb") if meta else "",
    )
    workers, anna = Workers(limit=2, spare=1), Peer(1)
    for number in range(2):
        database = DRIVER.open({"database": settings.url, **properties(settings)})

        async def connect(database: object = database) -> Connection:
            return await workers.run(database.connect)  # type: ignore[attr-defined]

        shared = Sharing(settings, connect, workers, lambda _: None)
        await shared.open()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shared.run)
                assert (shared.rooms is not None) == sync
                if shared.rooms is not None:
                    async with shared.rooms.join("r", lambda _: None) as room:
                        expected = {} if number == 0 else {"a": 0}
                        assert value(room.snapshot)["entries"] == expected
                        anna.write(a=number)
                        await room.update(anna.update())
                nursery.cancel_scope.cancel()
        await shared.close()
        connection = database.connect()
        found = connection.execute("SELECT count(*) FROM duckdb_tables()").fetch(1)
        assert found == [(2 if sync or meta else 0,)]
        connection.close()
        database.close()
    workers.close()
