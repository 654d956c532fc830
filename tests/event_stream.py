"""A reader of server-sent events, after the standard's own steps, and a client that follows a live
query by what they say and nothing else."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Event(NamedTuple):
    name: str
    data: str
    last_id: str


class Reader:
    """WHATWG HTML, 9.2.6, "Interpreting an event stream", a step a line."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("strict").decode
        self._text = ""
        self._begun = False
        self._name = self._data = ""
        self.last_id = ""
        self.retry: int | None = None
        self.comments: list[str] = []

    def feed(self, data: bytes) -> list[Event]:
        """The events that are whole by now."""
        self._text += self._decode(data)
        if not self._begun and self._text:
            self._begun = True
            self._text = self._text.removeprefix("\ufeff")
        events = []
        while (line := self._line()) is not None:
            if line:
                self._take(line)
                continue
            if self._data:
                name = self._name or "message"
                events.append(Event(name, self._data.removesuffix("\n"), self.last_id))
            self._name = self._data = ""
        return events

    def _line(self) -> str | None:
        found = re.search("\r\n|\r|\n", self._text)
        if found is None or (found[0] == "\r" and found.end() == len(self._text)):
            return None  # in the latter case, a line feed may follow and would belong to it
        line, self._text = self._text[: found.start()], self._text[found.end() :]
        return line

    def _take(self, line: str) -> None:
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if colon and not name:
            self.comments.append(value)
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self.last_id = value
        elif name == "retry" and value.isdecimal():
            self.retry = int(value)


@dataclass
class Follower:
    """What a client has of a result that does as docs/protocols/live.md says."""

    columns: list[str] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Of all events, in order."""
    errors: list[str] = field(default_factory=list)
    last_id: str = ""

    def take(self, event: Event) -> None:
        self.names.append(event.name)
        self.last_id = event.last_id
        data = json.loads(event.data)
        if event.name in ("initial", "update"):
            assert set(data) == {"columns", "rows"}
            self.columns, self.rows = data["columns"], data["rows"]
        elif event.name == "delta":
            self._apply(**data)
        elif event.name == "error":
            self.errors.append(data["error"])
        else:
            assert event.name == "reload"
            self.columns, self.rows = [], []

    def _apply(self, inserts: list[Any], updates: list[Any], deletes: list[Any]) -> None:
        for row in deletes:
            self.rows.remove(row)
        for update in updates:
            self.rows[self.rows.index(update["before"])] = update["after"]
        self.rows += inserts
