"""``serve --stdio``: JSON-RPC by lines, for programs that start a server of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "notebook_rpc", "serve", "--stdio"]
SLOW = "select count(*) from range(10000000) a, range(10000000) b where a.range + b.range = 3"


def line(id_: int, method: str, *params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}) + "\n"


def run(text: str) -> tuple[list[Any], subprocess.CompletedProcess[str]]:
    done = subprocess.run(
        COMMAND,
        input=text,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    return [json.loads(answer) for answer in done.stdout.splitlines()], done


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1, env=environment()
    ) as process:
        yield process
        process.kill()


def ask(process: subprocess.Popen[str], text: str) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(text)
    return json.loads(process.stdout.readline())


def test_everything_is_answered_before_the_end_of_file_ends_it() -> None:
    answers, done = run(
        line(1, "execute", "select range as n from range(250)")
        + "".join(line(id_, "page", 100) for id_ in (2, 3, 4, 5))
        + line(6, "finish")
        + "not json\n"
    )
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5, 6, None]
    rows = [row["n"] for answer in answers[1:5] for row in answer["result"]]
    assert rows == [str(n) for n in range(250)]
    assert answers[6]["error"]["code"] == -32700
    assert done.returncode == 0
    assert "opened default: DuckDB in memory" in done.stderr  # logs are not answers


def test_cancel_reaches_the_running_call(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write(line(1, "execute", SLOW))
    while ask(process, line(2, "progress"))["result"]["running"] is None:
        continue
    answers = [ask(process, line(3, "cancel")), ask(process, line(4, "execute", "select 1"))]
    answers.append(json.loads(process.stdout.readline()) if process.stdout else None)
    by_id = {answer["id"]: answer for answer in answers}
    assert by_id[3]["result"] is True
    assert by_id[1]["error"]["code"] == -32800
    assert by_id[4]["result"] is True


def test_quit_and_signals_end_it(process: subprocess.Popen[str]) -> None:
    assert ask(process, line(1, "quit"))["result"] is None
    assert process.wait(30) == 0


def test_a_signal_ends_it(process: subprocess.Popen[str]) -> None:
    assert ask(process, line(1, "tables"))["result"] == []
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_reader_that_is_gone_ends_it(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write(line(1, "tables"))
    assert process.wait(30) == 0
