"""Addresses: which sockets listen on them, who may, and what is said where nobody can."""

from __future__ import annotations

import errno
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
import trio

from notebook_rpc.transport.addresses import open_tcp, open_unix

if TYPE_CHECKING:
    from pathlib import Path


async def test_localhost_is_both_families_on_one_port() -> None:
    sockets = await open_tcp("localhost", 0)
    try:
        assert {sock.family for sock in sockets} == families_of_localhost()
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
    finally:
        for sock in sockets:
            sock.close()


def families_of_localhost() -> set[socket.AddressFamily]:
    """Those that this machine has."""
    families = set()
    for family, address in [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]:
        with socket.socket(family) as sock, suppress(OSError):
            sock.bind((address, 0))
            families.add(family)
    return families


async def test_a_port_that_is_taken_is_named() -> None:
    (taken,) = await open_tcp("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with taken, pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: ") as caught:
        await open_tcp("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE


async def test_localhost_is_not_listened_on_in_part() -> None:
    if socket.AF_INET6 not in families_of_localhost():
        pytest.skip("needs ::1")
    (taken,) = await open_tcp("::1", 0)
    port = taken.getsockname()[1]
    with taken, pytest.raises(OSError, match="cannot listen on localhost port") as caught:
        await open_tcp("localhost", port)
    assert caught.value.errno == errno.EADDRINUSE
    (free,) = await open_tcp("127.0.0.1", port)  # what had been bound was given back
    free.close()


async def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1 port 80: ") as caught:
        await open_tcp("192.0.2.1", 80)
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("host", ["no such host", "a" * 64 + ".invalid", "300.0.0.1x"])
async def test_so_is_a_host_that_does_not_exist(host: str) -> None:
    with pytest.raises(OSError, match=f"cannot listen on {host}: ") as caught:
        await open_tcp(host, 0)
    assert isinstance(caught.value.errno, int)


@pytest.mark.skipif(os.name == "nt", reason="needs Unix sockets")
async def test_a_server_that_is_too_busy_to_accept_keeps_its_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with ExitStack() as closing, socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        before = path.stat().st_ino
        with suppress(BlockingIOError):
            for _ in range(100):
                client = closing.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with trio.fail_after(5), pytest.raises(OSError, match=f"cannot listen on {path}: "):
            await trio.to_thread.run_sync(open_unix, path, abandon_on_cancel=True)
    assert path.stat().st_ino == before


@pytest.mark.skipif(os.name == "nt", reason="needs Unix sockets")
def test_of_servers_that_start_at_once_one_has_the_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    together = threading.Barrier(4)

    def start(_: int) -> socket.socket | None:
        together.wait()
        try:
            return open_unix(path)
        except OSError as exc:
            assert exc.errno == errno.EADDRINUSE  # noqa: PT017  # several threads' errors
            return None

    with ThreadPoolExecutor(4) as threads:
        for _ in range(50):  # each after a server that has left its socket behind
            won = [sock for sock in threads.map(start, range(4)) if sock is not None]
            assert len(won) == 1
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                won[0].accept()[0].close()
            won[0].close()
    assert [each.name for each in tmp_path.iterdir()] == ["socket"]
