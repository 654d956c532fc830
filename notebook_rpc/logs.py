"""Logs on standard error, as text for people or as JSON lines for collectors."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from notebook_rpc.sansio.jsontext import encode
from notebook_rpc.sansio.tracing import REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT: Final = "%(asctime)s %(levelname)-7s%(request)s %(message)s"
WAITING_LINES: Final = 1000
LAST_WORDS: Final = 1.0  # seconds


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, and stack if any."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{at}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _encodable(record.getMessage()),
        }
        if request := REQUEST.get():
            line["request"] = request
        if record.exc_info:
            line["stack"] = _encodable(self.formatException(record.exc_info))
        return encode(line).decode()


class TextFormatter(logging.Formatter):
    """A line for people, and the stack below it if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        record.request = f" [{request}]" if (request := REQUEST.get()) else ""
        return super().format(record)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class Patient(logging.Handler):
    """Hands lines to a thread that writes them, and never waits for it.

    A standard error that nobody reads, a pipe to a parent that is busy, would otherwise stop
    the event loop in the middle of a log call. What does not fit is dropped, and counted.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="notebook-rpc-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            try:
                self._stream.write(line + "\n" + (self._note(dropped) if dropped else ""))
                self._stream.flush()
            except (OSError, ValueError):
                return  # it is closed: there is nobody left to tell

    def _note(self, dropped: int) -> str:
        message = "%d lines of the log were dropped, as nobody read them"
        note = logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, (dropped,), None)
        return self.format(note) + "\n"

    def close(self) -> None:
        """Write what waits, for a moment at most: its reader may be gone."""
        try:
            self._lines.put(None, timeout=LAST_WORDS)
        except queue.Full:  # nobody reads; the thread is a daemon and ends with the process
            self._dropped += 1
        else:
            self._thread.join(LAST_WORDS)
        super().close()


@contextmanager
def to_stderr(level: str, form: str, *, access: bool = False) -> Iterator[None]:
    """Send the package's log to standard error during the block; with *access* also a line for
    each request. For the command line only: a
    program that embeds the server configures logging itself."""
    handler = Patient(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(TEXT))
    logger = logging.getLogger("notebook_rpc")
    accesses = logging.getLogger("notebook_rpc.access")
    before = logger.handlers[:], logger.level, logger.propagate, accesses.level
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    accesses.setLevel(logging.INFO if access else logging.WARNING)
    try:
        yield
    finally:
        logger.handlers[:], logger.level, logger.propagate, accesses.level = before
        handler.close()
