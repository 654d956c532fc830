"""What end-to-end tests need: the server as a process of its own, and a plain client."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path

START_SECONDS = 30  # generous: a loaded machine, not the server, decides
STOP_SECONDS = 30


class Server:
    """``notebook-rpc serve`` on a free port. Leaving the block stops it with SIGTERM, checks
    that it ended well, and that nothing it logged is a stack trace."""

    def __init__(self, *arguments: str, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "notebook_rpc", "serve", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment(),
        )
        self.log: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read_log, daemon=True),
            threading.Thread(target=self._read_output, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        first = self._lines.get(timeout=START_SECONDS)
        assert first.startswith("Awaiting connections on http://"), (first, self.log)
        self.url = first.split()[-1]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the end, for whoever waits for a first line

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            raise
        if kind is None:
            assert code == 0, self.log
            assert "Traceback" not in "".join(self.log), "".join(self.log)

    def wait(self) -> int:
        """The exit code, and everything that was logged in ``log``."""
        code = self.process.wait(STOP_SECONDS)
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code

    def client(self, path: str = "/") -> Client:
        return Client(self.port, path)

    def session(self) -> Client:
        """A client with a session of its own."""
        with self.client() as client:
            client.connection.request("POST", "/sessions")
            response = client.connection.getresponse()
            assert response.status == 201
            return self.client(json.loads(response.read())["url"])

    def memory(self) -> int:
        """Resident bytes of the process now (Linux)."""
        return self._status("VmRSS:")

    def peak_memory(self) -> int:
        """Most resident bytes so far (Linux)."""
        return self._status("VmHWM:")

    def _status(self, field: str) -> int:
        with open(f"/proc/{self.process.pid}/status") as status:  # noqa: PTH123
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def environment() -> dict[str, str]:
    """Ours, without settings of a notebook_rpc that the user may run."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("NOTEBOOK_RPC_")}
    return {**kept, "XDG_CONFIG_HOME": os.devnull}


def missing(what: str) -> NoReturn:
    """Skip a test that needs what is not here; under CI, where it should be, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


class RpcError(Exception):
    """What the server answered instead of a result."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: int = error["code"]
        self.data: dict[str, Any] = error["data"]


class Client:
    """JSON-RPC over one keep-alive connection."""

    def __init__(self, port: int, path: str = "/", seconds: float = 60) -> None:
        self.path = path
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, method: str, *params: object) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        self.connection.request("POST", self.path, body, {"Content-Type": "application/json"})

    def receive(self) -> Any:
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise OSError(f"status {response.status} for {self.path}")
        answer = json.loads(body)
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    def call(self, method: str, *params: object) -> Any:
        self.send(method, *params)
        return self.receive()

    def rows(self, sql: str, *params: object, page: int = 100) -> list[dict[str, str | None]]:
        """Execute, page to the end, finish."""
        self.call("execute", sql, *([list(params)] if params else []))
        rows: list[dict[str, str | None]] = []
        while more := self.call("page", page):
            rows += more
        self.call("finish")
        return rows
