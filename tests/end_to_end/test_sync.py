"""Shared documents on a whole server: what was acknowledged is there after any kind of end."""

from __future__ import annotations

import signal
import time
from base64 import b64decode, b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import duckdb
import pytest
import trio

from notebook_rpc.services.rooms import QUIET
from tests.end_to_end.websocket_client import connected
from tests.peers import Peer, value
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.end_to_end.websocket_client import WebSocketClient

SECONDS = 30


class Member(Peer):
    def __init__(self, number: int, socket: WebSocketClient, snapshot: bytes) -> None:
        super().__init__(number, snapshot)
        self.socket = socket

    async def say(self, **entries: int | str) -> None:
        """Until it is acknowledged."""
        self.write(**entries)
        update = self.update()
        await self.socket.send(update)
        assert await self.socket.receive() == update  # the sender is one of those in the room
        assert await self.socket.receive_json() == {"type": "crdt-update-ack", "roomId": "r"}

    async def offer(self) -> object:
        data = b64encode(self.snapshot).decode()
        await self.socket.send_json({"type": "crdt-snapshot", "roomId": "r", "data": data})
        return await self.socket.receive_json()


@asynccontextmanager
async def member(server: Server, number: int) -> AsyncIterator[Member]:
    with trio.fail_after(SECONDS):
        async with connected(server.port, "/?roomId=r") as socket:
            await socket.send_json({"type": "crdt-join", "roomId": "r"})
            assert await socket.receive_json() == {"type": "crdt-joined", "roomId": "r"}
            answer = await socket.receive_json()
            assert (answer["type"], answer["roomId"]) == ("crdt-snapshot", "r")
            yield Member(number, socket, b64decode(answer["data"]))


@pytest.mark.parametrize("meta", [True, False])
async def test_sigterm_loses_nothing(tmp_path: Path, meta: bool) -> None:
    arguments = [str(tmp_path / "a.duckdb"), "--sync"]
    if meta:
        arguments += ["--meta-db", str(tmp_path / "m.duckdb"), "--meta-namespace", "meta"]
    for number in range(3):
        with Server(*arguments) as server:  # leaving it is SIGTERM, at once after the last word
            async with member(server, 1) as anna, member(server, 2) as bert:
                assert anna.value["entries"] == {f"key{each}": each for each in range(number)}
                await anna.say(**{f"key{number}": number})
                update = await bert.socket.receive()
                assert isinstance(update, bytes)
                bert.hear(update)
                assert bert.value == anna.value
    file = tmp_path / ("m.duckdb" if meta else "a.duckdb")
    schema = "main" if meta else "__sqlrooms"
    with duckdb.connect(file) as connection:
        found = connection.execute(f"SELECT room_id, snapshot FROM {schema}.sync_rooms").fetchall()
    ((room_id, snapshot),) = found
    assert room_id == "r"
    assert value(snapshot)["entries"] == {"key0": 0, "key1": 1, "key2": 2}


async def test_a_kill_loses_what_was_not_saved_until_somebody_brings_it_back(
    tmp_path: Path,
) -> None:
    file = str(tmp_path / "a.duckdb")
    killed = Server(file, "--sync")
    async with member(killed, 1) as anna:
        await anna.say(saved=1)
        await trio.to_thread.run_sync(until_saved, killed)
        await anna.say(unsaved=2)
        killed.process.kill()
        assert killed.wait() == -signal.SIGKILL
    with Server(file, "--sync") as server:
        async with member(server, 2) as bert:
            assert bert.value["entries"] == {"saved": 1}
            async with member(server, 3) as again:
                again.hear(anna.snapshot)
                assert await again.offer() == {"type": "crdt-snapshot-ack", "roomId": "r"}
            update = await bert.socket.receive()
            assert isinstance(update, bytes)
            bert.hear(update)
            assert bert.value["entries"] == {"saved": 1, "unsaved": 2}


async def test_a_bad_update_is_an_error_and_the_room_goes_on(tmp_path: Path) -> None:
    with Server(str(tmp_path / "a.duckdb"), "--sync") as server:
        async with member(server, 1) as anna:
            await anna.socket.send(b"garbage")
            answer = await anna.socket.receive_json()
            assert answer["type"] == "error"
            assert answer["error"].startswith("invalid update: ")
            await anna.say(a=1)
            assert (await anna.offer())["error"] == "room already has state; snapshot rejected"  # type: ignore[index]


async def test_without_sync_there_are_no_rooms() -> None:
    with Server() as server, trio.fail_after(SECONDS):
        async with connected(server.port) as socket:
            await socket.send(b"an update")
            assert (await socket.receive_json())["error"] == "binary not supported"


def until_saved(server: Server) -> None:
    """Ask until there is a room in the database."""
    end = time.monotonic() + QUIET + SECONDS
    with server.client() as client:
        while client.rows("SELECT count(*) AS n FROM __sqlrooms.sync_rooms") != [{"n": "1"}]:
            assert time.monotonic() < end, "it was never saved"
            time.sleep(0.05)
