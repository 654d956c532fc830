"""The dashboard of examples/ works as a newcomer finds it: by one command, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.browser import browsing
from tests.end_to_end.routes_client import Client
from tests.support import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
SETUP = "examples/dashboard/setup.py"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(f"--routes={SETUP}", cwd=ROOT) as server:
        yield server


def test_the_command_that_is_told_is_this_one() -> None:
    for page in ("docs/protocols/routes.md", SETUP):
        assert f"notebook-rpc serve --routes {SETUP}\n" in (ROOT / page).read_text()


def test_its_routes(server: Server) -> None:
    client = Client(server.port)
    regions = client.get("/api/regions").json
    assert [row["region"] for row in regions] == ["East", "North", "South", "West"]
    assert len(client.get("/api/sales/North").json) == 20
    assert client.get("/api/sales/nowhere").json == []
    added = client.post("/api/sales", '{"region": "North", "amount": 12.5}')
    assert (added.status, added.json["amount"]) == (201, 12.5)
    for wrong in ("{}", "[]", '{"region": "North", "amount": "much"}', "7"):
        refused = client.post("/api/sales", wrong)
        assert refused.status == 400
        assert refused.json == {"error": "a sale has a region and an amount"}
    totals = {row["region"]: row["total"] for row in regions}
    after = {row["region"]: row["total"] for row in client.get("/api/regions").json}
    assert after == totals | {"North": totals["North"] + 12.5}


async def test_its_page(server: Server, tmp_path: Path) -> None:
    total = "document.querySelectorAll('.bar b')[1]?.textContent"
    async with browsing(f"http://127.0.0.1:{server.port}/", tmp_path / "profile") as page:
        await page.until("document.querySelectorAll('.bar').length", 4)
        await page.until("document.getElementById('state').textContent", "live")
        await page.until("document.getElementById('of').textContent", "Latest in North")
        before = float((await page.value(total)).replace(",", ""))
        await page.value("document.querySelector('form button').click()")
        await page.until(total, f"{before + 100:,.2f}")  # told by the server, not by the page
        await page.until("document.querySelectorAll('#sales tr td')[1].textContent", "100.00")
        await page.value("document.querySelectorAll('.bar')[3].click()")
        await page.until("document.getElementById('of').textContent", "Latest in West")
        picture = await page.screenshot()
    (tmp_path / "dashboard.png").write_bytes(picture)  # to be looked at
