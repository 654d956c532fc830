"""Autobahn's test suite against an echo, where its ``wstest`` is on the path.

docs/protocols/websocket.md says how to get it. Of the compression groups, which take minutes,
only a part runs here.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import trio

from notebook_rpc.transport.addresses import open_tcp
from notebook_rpc.transport.listener import Listener
from tests.transport.test_websocket import Chat

if TYPE_CHECKING:
    from pathlib import Path

WSTEST = shutil.which("wstest")
CASES = [
    *(f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10)),
    *(f"12.{group}.1" for group in range(1, 6)),
    *(f"13.{group}.1" for group in range(1, 8)),
]
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


@pytest.mark.skipif(WSTEST is None, reason="needs wstest of Autobahn's test suite")
async def test_autobahn_finds_no_fault(tmp_path: Path) -> None:
    assert WSTEST is not None
    (sock,) = await open_tcp("127.0.0.1", 0)
    url = f"ws://127.0.0.1:{sock.getsockname()[1]}"
    specification = {
        "options": {"failByDrop": False},
        "outdir": str(tmp_path),
        "servers": [{"agent": "notebook_rpc", "url": url}],
        "cases": CASES,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (tmp_path / "spec.json").write_text(json.dumps(specification))
    command = [WSTEST, "-m", "fuzzingclient", "-s", str(tmp_path / "spec.json")]
    with trio.fail_after(600):
        async with trio.open_nursery() as nursery:
            await nursery.start(Listener(Chat()).serve, [sock])
            await trio.run_process(command, capture_stdout=True, capture_stderr=True)
            nursery.cancel_scope.cancel()
    cases = json.loads((tmp_path / "index.json").read_text())["notebook_rpc"]
    assert len(cases) > 300
    bad = {
        name: case
        for name, case in cases.items()
        if case["behavior"] not in GOOD or case["behaviorClose"] not in GOOD
    }
    assert bad == {}
