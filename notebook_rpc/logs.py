"""Logs on standard error, as text for people or as JSON lines for collectors."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

from notebook_rpc.sansio.jsonrpc import encode

TEXT: Final = "%(asctime)s %(levelname)-7s %(message)s"


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
        if record.exc_info:
            line["stack"] = _encodable(self.formatException(record.exc_info))
        return encode(line).decode()


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def configure(level: str, form: str) -> None:
    """Send the package's log to standard error. For the command line only: a program that
    embeds the server configures logging itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(TEXT))
    logger = logging.getLogger("notebook_rpc")
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
