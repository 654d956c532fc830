"""Headless Chromium for the end-to-end tests, driven by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import trio

from tests.end_to_end.websocket_client import connected
from tests.support import missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.end_to_end.websocket_client import WebSocketClient

SECONDS = 60  # it may start slowly on a machine that has much to do


class Page:
    """An open page."""

    def __init__(self, socket: WebSocketClient) -> None:
        self._socket = socket
        self._numbers = count(1)

    async def go(self, url: str) -> None:
        """Open *url*, and wait until it is loaded."""
        await self._call("Page.enable", {})
        await self._call("Page.navigate", {"url": url})
        while (await self._socket.receive_json()).get("method") != "Page.loadEventFired":
            continue

    async def value(self, expression: str) -> Any:
        """What JavaScript makes of *expression*."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self._call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str, expected: object) -> None:
        """Wait for *expression* to be *expected*; the page looks whenever it draws."""
        wanted = json.dumps(expected)
        look = f"() => ({expression}) === {wanted} ? done() : requestAnimationFrame(look)"
        with trio.move_on_after(SECONDS):
            await self.value(f"new Promise(done => {{ const look = {look}; look(); }})")
        assert await self.value(expression) == expected

    async def screenshot(self) -> bytes:
        """A picture of it, as PNG."""
        answer = await self._call("Page.captureScreenshot", {"format": "png"})
        return base64.b64decode(answer["data"])

    async def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                return message["result"]


@asynccontextmanager
async def browsing(url: str, profile: Path) -> AsyncIterator[Page]:
    """A browser that has *url* open. Skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("chromium, as in Debian's package of that name")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    reached = ("--remote-debugging-port=0", "--remote-allow-origins=*", "--window-size=800,700")
    command = [program, *options, *reached, f"--user-data-dir={profile}", "about:blank"]
    process = _started(command)
    try:
        with trio.fail_after(SECONDS):
            port = await trio.to_thread.run_sync(_port, process, abandon_on_cancel=True)
            target = await trio.to_thread.run_sync(_tab, port)
            async with connected(port, target) as socket:
                page = Page(socket)
                await page.go(url)
                yield page
    finally:
        process.kill()
        process.communicate()


def _started(command: list[str]) -> subprocess.Popen[str]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=subprocess.PIPE, text=True)


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
            return int(found[1])
    raise AssertionError("the browser has ended")


def _tab(port: int) -> str:
    """The path of a new page's socket."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new", method="PUT")
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        socket: str = json.load(answer)["webSocketDebuggerUrl"]
    return socket.partition(f":{port}")[2]
