"""Logs as people and collectors read them."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from notebook_rpc import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("notebook_rpc.somewhere")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """What is configured here ends here: loggers belong to the process."""
    package = logging.getLogger("notebook_rpc")
    before = package.handlers[:], package.level, package.propagate
    yield
    package.handlers[:], package.level, package.propagate = before


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines on standard error; there must be none on standard output."""

    def lines() -> list[str]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    return lines


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
    logs.configure("info", "json")
    logger.info("a")
    logger.error("b")
    assert [json.loads(line)["message"] for line in written()] == ["a", "b"]


def test_text_has_time_level_and_message(written: Callable[[], list[str]]) -> None:
    logs.configure("info", "text")
    logger.info("opened %s", "it")
    (line,) = written()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    opened it", line)


def test_below_the_level_nothing_is_written(written: Callable[[], list[str]]) -> None:
    logs.configure("warning", "text")
    logger.info("quiet")
    assert written() == []
    logger.warning("loud")
    assert len(written()) == 1


def test_only_our_own_log_is_touched(
    written: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    logs.configure("debug", "text")
    logger.info("ours")
    logging.getLogger("another").warning("theirs")
    assert len(written()) == 1
    assert caplog.messages == ["theirs"]  # ours go no further up, where they would come twice
