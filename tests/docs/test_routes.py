"""The scripts shown on the page of routes run, and answer as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.routes_client import Client
from tests.end_to_end.websocket_client import connected
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parent.parent.parent / "docs" / "protocols" / "routes.md"
TEXT = PAGE.read_text()
FENCED = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERE = re.compile(r"^cat > (\w+\.py) <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)
SCRIPTS = HERE.findall(TEXT) + FENCED.findall(TEXT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    for name, text in SCRIPTS:
        (folder / name).write_text(text)
    named = [name for name, _ in SCRIPTS if name != "handlers.py"]
    with Server(*(f"--routes={name}" for name in named), cwd=folder) as server:
        yield server


def test_the_dashboard_is_three_lines_behind_its_import_and_answers_as_shown(
    server: Server,
) -> None:
    ((name, text),) = HERE.findall(TEXT)
    assert (name, len(text.strip().splitlines())) == ("dashboard.py", 5)
    answer = Client(server.port).get("/dashboard").body.decode()
    assert f"`GET /dashboard` is answered with `{answer}`." in TEXT


def test_the_others_answer_too(server: Server) -> None:
    client = Client(server.port)
    assert client.get("/api/hello").json == {"message": "Hello, World!"}
    assert client.post("/api/notes/1", '"a"').json == {"1": "a"}
    before = client.get("/accounts").json
    assert client.post("/pay/bob", "7.50").body == (
        b'[{"name":"ann","money":2.50},{"name":"bob","money":7.50}]'
    )
    assert client.post("/pay/bob", json.dumps(5)).status == 409
    after = client.get("/accounts").json
    assert [account["money"] for account in (*before, *after)] == [10, 0, 2.5, 7.5]


async def test_the_chat_reaches_everybody(server: Server) -> None:
    async with connected(server.port, "/chat") as one, connected(server.port, "/chat") as two:
        await one.send("first")
        assert await one.receive() == "first"
        await two.send("hello")
        assert {await one.receive(), await two.receive()} <= {"first", "hello"}
