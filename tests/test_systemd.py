"""Sockets from systemd, and what it is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from notebook_rpc.systemd import Notifier, inherited
from tests.support import START_SECONDS, STOP_SECONDS, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs Unix sockets")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where notifications arrive."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(START_SECONDS)
        yield sock


def told(manager: socket.socket) -> str:
    return manager.recv(1000).decode()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "web"},
        {"LISTEN_FDS": "many", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_sockets_of_others_are_not_taken(environ: dict[str, str]) -> None:
    assert inherited(environ) == []
    assert environ == {}


def test_without_a_service_manager_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    Notifier({}).tell("READY=1")
    assert caplog.text == ""


def test_a_service_manager_that_has_gone_is_no_reason_to_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")
    assert "cannot tell the service manager READY=1" in caplog.text


def test_a_service_manager_that_does_not_listen_is_not_waited_for(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})

    def tell_until_nothing_fits() -> None:
        while "cannot tell" not in caplog.text:
            notifier.tell("WATCHDOG=1" + "." * 10_000)

    telling = threading.Thread(target=tell_until_nothing_fits, daemon=True)
    telling.start()
    telling.join(START_SECONDS)
    assert not telling.is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="needs abstract socket names")
def test_an_abstract_name_is_written_with_an_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0notebook-rpc-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": f"@notebook-rpc-{os.getpid()}"}).tell("STOPPING=1")
        assert sock.recv(100) == b"STOPPING=1"


async def test_the_watchdog_is_fed_twice_as_often_as_it_bites(
    manager: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000000"}
    with trio.move_on_after(3.5):
        await Notifier(environ).watchdog()
    assert autojump_clock.current_time() == 3.5
    assert environ == {}
    assert [told(manager) for _ in range(4)] == ["WATCHDOG=1"] * 4
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        told(manager)


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}])
async def test_without_a_watchdog_nobody_is_fed(environ: dict[str, str]) -> None:
    await Notifier(environ).watchdog()


LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[2]}
os.execv(sys.executable, [sys.executable, "-m", "notebook_rpc", "serve"])
"""


def launched(
    sock: socket.socket, manager: socket.socket, count: str = "1"
) -> subprocess.Popen[bytes]:
    """A server that is started the way systemd does it."""
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(sock.fileno()), count],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment(), "NOTIFY_SOCKET": manager.getsockname()},
        pass_fds=[sock.fileno()],
    )


def test_a_service_serves_on_the_socket_it_is_given_and_tells_how_it_is(
    manager: socket.socket,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        process = launched(sock, manager)
    assert told(manager).startswith("READY=1")
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert client.makefile("rb").read().endswith(b"ok")
    process.terminate()
    assert told(manager) == "STOPPING=1"
    output, log = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 0, log
    assert output.decode() == f"Awaiting connections on http://127.0.0.1:{port}/\n"


def test_a_socket_that_is_open_to_all_needs_protection_like_any_other(
    manager: socket.socket,
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:
        process = launched(sock, manager)
    _, log = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 2
    assert b"without --bearer-token-file and --tls-cert" in log


@pytest.mark.parametrize("count", ["2", "99999999999999", "9" * 5000])
def test_sockets_that_are_not_there_are_one_line_that_says_so(
    count: str, manager: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        process = launched(sock, manager, count)
    _, log = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 2
    (line,) = log.decode().splitlines()
    assert line.startswith("notebook-rpc: LISTEN_FDS is wrong: descriptor ")


def test_a_socket_that_does_not_listen_is_not_taken_nor_closed(manager: socket.socket) -> None:
    process = launched(manager, manager)
    _, log = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 2
    (line,) = log.decode().splitlines()
    assert line.endswith("LISTEN_FDS is wrong: descriptor 3: not a socket that listens")
