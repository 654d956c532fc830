"""Logs as people and collectors read them."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from notebook_rpc import logs
from notebook_rpc.sansio.tracing import REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("notebook_rpc.somewhere")


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines on standard error; there must be none on standard output."""

    def lines() -> list[str]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    return lines


@pytest.fixture(autouse=True)
def _no_request() -> Iterator[None]:
    """Tests of other modules may have answered one."""
    before = REQUEST.set("")
    yield
    REQUEST.reset(before)


def record(message: str, *arguments: object, at: float = 0.0) -> logging.LogRecord:
    made = logging.LogRecord("a.logger", logging.WARNING, "", 0, message, arguments, None)
    made.created, made.msecs = at, at * 1000 % 1000
    return made


def formatted(what: logging.LogRecord) -> dict[str, Any]:
    text = logs.JsonFormatter().format(what)
    assert "\n" not in text
    line: dict[str, Any] = json.loads(text)
    return line


def test_a_line_has_time_level_logger_and_message() -> None:
    assert formatted(record("took %d of %s", 3, "five", at=86399.0625)) == {
        "time": "1970-01-01T23:59:59.062Z",
        "level": "warning",
        "logger": "a.logger",
        "message": "took 3 of five",
    }


def test_times_are_utc_wherever_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        assert formatted(record("x"))["time"] == "1970-01-01T00:00:00.000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_stack_goes_along_in_one_line_whatever_it_quotes() -> None:
    failed = record("query %s failed", "\ud800")
    try:
        raise ValueError("\udfff")
    except ValueError as exc:
        failed.exc_info = (type(exc), exc, exc.__traceback__)
    line = formatted(failed)
    assert line["message"] == r"query \ud800 failed"
    assert line["stack"].startswith("Traceback")
    assert line["stack"].endswith(r"ValueError: \udfff")


def test_a_message_of_many_lines_is_one_line_of_json() -> None:
    assert formatted(record("select 1\n\tfrom t"))["message"] == "select 1\n\tfrom t"


def test_json_lines_go_to_standard_error(written: Callable[[], list[str]]) -> None:
    with logs.to_stderr("info", "json"):
        logger.info("a")
        logger.error("b")
    assert [json.loads(line)["message"] for line in written()] == ["a", "b"]


def test_text_has_time_level_and_message(written: Callable[[], list[str]]) -> None:
    with logs.to_stderr("info", "text"):
        logger.info("opened %s", "it")
    (line,) = written()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    opened it", line)


def test_below_the_level_nothing_is_written(written: Callable[[], list[str]]) -> None:
    with logs.to_stderr("warning", "text"):
        logger.info("quiet")
        logger.warning("loud")
    (line,) = written()
    assert line.endswith("loud")


def test_only_our_own_log_is_touched(
    written: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with logs.to_stderr("debug", "text"):
        logger.info("ours")
        logging.getLogger("another").warning("theirs")
    assert len(written()) == 1
    assert caplog.messages == ["theirs"]  # ours go no further up, where they would come twice


def test_afterwards_everything_is_as_it_was(written: Callable[[], list[str]]) -> None:
    package = logging.getLogger("notebook_rpc")
    before = package.handlers[:], package.level, package.propagate
    threads = threading.active_count()
    with logs.to_stderr("debug", "text"):
        assert threading.active_count() == threads + 1
    assert (package.handlers, package.level, package.propagate) == before
    assert threading.active_count() == threads
    assert written() == []


class Stuck(io.StringIO):
    """A stream whose writer waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def write(self, text: str, /) -> int:
        self.reached.set()
        self.go.wait()
        return super().write(text)


def test_a_log_that_nobody_reads_holds_up_nobody_and_says_what_it_dropped() -> None:
    stream = Stuck()
    handler = logs.Patient(stream)
    handler.setFormatter(logs.JsonFormatter())
    handler.emit(record("first"))
    assert stream.reached.wait(5)
    for number in range(logs.WAITING_LINES + 7):
        handler.emit(record("line %d", number))
    stream.go.set()
    handler.close()
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert messages[:2] == ["first", "line 0"]
    assert "7 lines of the log were dropped, as nobody read them" in messages
    assert len(messages) == 1 + logs.WAITING_LINES + 1


def test_a_stream_that_is_closed_ends_the_log_and_nothing_else() -> None:
    stream = io.StringIO()
    handler = logs.Patient(stream)
    stream.close()
    for _ in range(3):
        handler.emit(record("x"))
    handler.close()


def test_a_line_tells_which_request_it_belongs_to(written: Callable[[], list[str]]) -> None:
    REQUEST.set("r7")
    assert formatted(record("hello"))["request"] == "r7"
    with logs.to_stderr("info", "text"):
        logger.info("hello")
    (line,) = written()
    assert line.endswith(" INFO    [r7] hello")


@pytest.mark.parametrize("access", [True, False])
def test_requests_have_lines_of_their_own_if_wanted(
    access: bool, written: Callable[[], list[str]]
) -> None:
    with logs.to_stderr("info", "text", access=access):
        logging.getLogger("notebook_rpc.access").info("ada: POST / 200, 1.0 ms")
    assert len(written()) == access
