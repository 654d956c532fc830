"""What the tests of user routes need: scripts in a folder, and somebody who asks."""

from __future__ import annotations

import http.client
import json
import signal
import textwrap
import time
from typing import TYPE_CHECKING, Any

from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Answer:
    def __init__(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks over one connection after the other."""

    def __init__(self, port: int, **headers: str) -> None:
        self._port = port
        self._headers = headers

    def ask(
        self, method: str, path: str, body: str | bytes | None = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in (self._headers | headers).items()}
        try:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: str | bytes, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)


class Unsound(Server):
    """One whose handlers fail, so that its log has stacks."""

    def __enter__(self) -> Unsound:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.wait() == 0, self.log

    def stop(self) -> str:
        """The log."""
        self.__exit__()
        return "".join(self.log)


def write(folder: Path, **modules: str) -> list[str]:
    """The modules, and the arguments for the one called setup."""
    for name, text in modules.items():
        path = folder / f"{name}.py"
        path.write_text(textwrap.dedent(text))
    return ["--routes", str(folder / "setup.py")]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
