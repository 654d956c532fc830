"""Attacks, one by one and all at once: a good client is served well all the while, and when they
are over the server is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import Server, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTACKERS = Path(__file__).with_name("attackers.py")
ATTACKS = ["crowd", "slow", "counted", "chunked", "headers", "garbage", "nested"]
MOST = 500_000_000  # bytes that the server may have at any time
KEPT = 40_000_000  # bytes that it may have more afterwards

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--header-timeout", "2", "--log-level", "warning") as server:
        with server.client() as good:
            good.rows("select 42")
        descriptors = descriptors_of(server)
        attack(server, 1, *ATTACKS)  # what a first use costs is no attacker's doing
        settled(server, descriptors)
        yield server


def attack(server: Server, seconds: float, *names: str) -> float:
    """Have it attacked; returns the longest that a good client had to wait."""
    command = [sys.executable, str(ATTACKERS), str(server.port), str(seconds), *names]
    worst = 0.0
    with subprocess.Popen(command, env=environment()) as attackers, server.client() as good:
        while attackers.poll() is None:
            began = time.monotonic()
            assert good.rows("select 42 as a") == [{"a": "42"}]
            worst = max(worst, time.monotonic() - began)
            assert server.memory() < MOST
    assert attackers.returncode == 0
    return worst


def descriptors_of(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))  # noqa: PTH208


def settled(server: Server, descriptors: int) -> None:
    """Until it has as many descriptors as before, those of connections it still reads from
    included."""
    deadline = time.monotonic() + 20
    while (now := descriptors_of(server)) > descriptors:
        assert time.monotonic() < deadline, f"{now} descriptors"
        time.sleep(0.05)


@pytest.mark.parametrize("names", [[name] for name in ATTACKS] + [ATTACKS], ids="+".join)
def test_an_attack_delays_nobody_and_leaves_nothing(names: list[str], server: Server) -> None:
    memory, descriptors = server.memory(), descriptors_of(server)
    worst = attack(server, 5 if names is ATTACKS else 1.5, *names)
    settled(server, descriptors)
    print(  # noqa: T201  # for whoever runs it with -s
        f"{'+'.join(names)}: waited {worst * 1000:.0f} ms at most, memory {memory / 1e6:.0f} MB, "
        f"peak {server.peak_memory() / 1e6:.0f} MB, now {server.memory() / 1e6:.0f} MB"
    )
    assert worst < 1
    assert server.peak_memory() < MOST
    assert server.memory() < memory + KEPT
