"""What the benchmarks share: servers as processes, pinned to a core, and medians as JSON."""

from __future__ import annotations

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SERVER_CPU, CLIENT_CPU = 0, 1


def summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def report(question: str, result: dict[str, Any], packages: Sequence[str]) -> None:
    """Print what was measured and on what, as JSON."""
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "packages": {name: version(name) for name in packages},
    }
    print(json.dumps({"question": question, "machine": machine, **result}, indent=2))


def pin(cpu: int) -> None:
    """Keep this process to one core, where the system can."""
    if hasattr(os, "sched_setaffinity") and cpu < (os.cpu_count() or 1):
        os.sched_setaffinity(0, {cpu})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(*command: str, port: int, pinned: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, from the moment it accepts connections until the block ends."""
    prepare = (lambda: pin(SERVER_CPU)) if pinned else None
    server = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=prepare,  # noqa: PLW1509  # this process has no threads
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except ConnectionRefusedError:
                if server.poll() is not None:
                    raise RuntimeError(f"{command} ended with {server.returncode}") from None
                time.sleep(0.01)  # outside the measurement
        yield server
    finally:
        server.terminate()
        server.wait()


@contextmanager
def ours(*arguments: str, pinned: bool = False) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """``notebook-rpc serve`` on a free port."""
    port = free_port()
    command = [sys.executable, "-m", "notebook_rpc", "serve", "--port", str(port), *arguments]
    with process(*command, "--log-level", "error", port=port, pinned=pinned) as server:
        yield port, server


def cpu_seconds(pid: int) -> float:
    """Seconds that a process has used, all its threads together (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(server: subprocess.Popen[bytes], field: str = "VmRSS") -> int:
    """Bytes: VmRSS now, VmHWM at the peak (Linux)."""
    with open(f"/proc/{server.pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))
