"""Ten sessions at once, reading and writing: nothing lost, nothing doubled, nothing half done.

It takes a few seconds, or as many as NOTEBOOK_RPC_TEST_SECONDS says; on a slow machine, until each
session has done everything once.
"""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support import RpcError, Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Postgres
    from tests.support import Client

SECONDS = float(os.environ.get("NOTEBOOK_RPC_TEST_SECONDS", "3"))
SESSIONS = 10


@dataclass
class Tally:
    """What one session was told has happened."""

    who: int
    increments: int = 0
    conflicts: int = 0
    kept: int = 0  # rows 1 to so many are in the log
    undone: int = 0

    @property
    def did_everything(self) -> bool:
        return min(self.increments, self.kept, self.undone) > 0


def increment(client: Client, tally: Tally) -> None:
    """Add one to the counter everybody adds to; a conflict is undone and tried again later."""
    try:
        client.rows("begin")
        client.rows("select n from together_counter")
        client.rows("update together_counter set n = n + 1")
        client.rows("commit")
    except RpcError as refused:
        if refused.data["slug"] != "conflict":
            raise
        tally.conflicts += 1
        if client.call("progress")["transaction"] != "autocommit":
            client.rows("rollback")
    else:
        tally.increments += 1


def write(client: Client, tally: Tally) -> None:
    client.call("execute", f"insert into together_log values ({tally.who}, {tally.kept + 1})")
    assert client.call("count") == 1
    client.call("finish")
    tally.kept += 1


def read(client: Client, tally: Tally) -> None:
    """All rows written so far, once each and in order, in pages of any size."""
    rows = client.rows(
        f"select number from together_log where who = {tally.who} order by number",
        page=random.randint(1, 50),  # noqa: S311
    )
    assert [row["number"] for row in rows] == [str(n + 1) for n in range(tally.kept)]


def be_interrupted(endless: str) -> Callable[[Client, Tally], None]:
    def interrupted(client: Client, tally: Tally) -> None:
        client.rows("begin")
        client.rows(f"insert into together_log values ({tally.who}, {tally.kept + 1})")
        with pytest.raises(RpcError, match="its transaction was rolled back") as caught:
            client.call("execute", endless, None, 0.05)
        assert caught.value.data["slug"] == "query-timeout"
        tally.undone += 1

    return interrupted


def together(url: str, endless: str) -> None:
    deeds = [increment, write, read, be_interrupted(endless)]

    def live(client: Client, tally: Tally) -> Tally:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or not tally.did_everything:
            (deed,) = random.choices(deeds, (4, 4, 4, 1))  # noqa: S311
            deed(client, tally)
        return tally

    with Server(url) as server, server.client() as witness, ThreadPoolExecutor(SESSIONS) as pool:
        witness.rows("create table together_counter (n bigint)")
        witness.rows("insert into together_counter values (0)")
        witness.rows("create table together_log (who integer, number integer)")
        clients = [server.session() for _ in range(SESSIONS)]
        tallies = list(pool.map(live, clients, map(Tally, range(SESSIONS))))
        for client in clients:
            client.connection.close()
        ((counted,),) = [row.values() for row in witness.rows("select n from together_counter")]
        assert int(counted or 0) == sum(tally.increments for tally in tallies)
        everything = "select who, number from together_log order by who, number"
        logged = witness.rows(everything, page=1000)
        assert [(row["who"], row["number"]) for row in logged] == [
            (str(tally.who), str(n + 1)) for tally in tallies for n in range(tally.kept)
        ]
        witness.rows("drop table together_counter")
        witness.rows("drop table together_log")
        print(tallies)  # noqa: T201  # for whoever lets it run longer


def test_on_duckdb(tmp_path: Path) -> None:
    together(
        f"duckdb:///{tmp_path}/together.duckdb",
        "select count(*) from range(1000000000000) where hash(range) % 7 = 9",
    )


def test_on_postgres(postgres_server: Postgres) -> None:
    together(postgres_server.url, "select pg_sleep(60)")
