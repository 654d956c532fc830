"""Connections for the machine of test_machine.py: bytes out, answers in one at a time.

Nothing is sent or read behind the machine's back: a request goes out whole and its answer is
read when somebody asks for it, so that one thread can have any number of calls under way.
"""

from __future__ import annotations

import json
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.end_to_end.model import Call, Session

Headers: TypeAlias = "dict[str, str]"
Answer: TypeAlias = "tuple[int, Headers, bytes]"


class Wire:
    """A connection to the server."""

    def __init__(self, port: int, seconds: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self._file = self._socket.makefile("rb")

    def send(self, *requests: bytes) -> None:
        """In one piece: more than one are pipelined."""
        self._socket.sendall(b"".join(requests))

    def head(self) -> tuple[int, Headers]:
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def pieces(self, headers: Headers) -> Iterator[bytes]:
        """The body, in the pieces it is sent in."""
        if headers.get("transfer-encoding") != "chunked":
            yield self._file.read(int(headers.get("content-length", 0)))
            return
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            assert self._file.readline() == b"\r\n"
        assert self._file.readline() == b"\r\n"

    def answer(self) -> Answer:
        status, headers = self.head()
        return status, headers, b"".join(self.pieces(headers))

    def leave(self, how: str) -> None:
        if how == "half-close":
            self._socket.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):  # what was pipelined has never been read
                self._file.read()  # until the server has closed it too
        elif how == "reset":
            at_once = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self._file.close()
        self._socket.close()


def request(method: str, path: str, body: object = None) -> bytes:
    """*body* is sent as JSON, if there is one."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (head.encode(), len(data), data)


class Caller:
    """Somebody who has posted calls to a session, and hears what becomes of them one by one."""

    def __init__(
        self, wire: Wire, session: Session, calls: list[Call], how: str, numbers: Iterator[int]
    ) -> None:
        """*how*: in a "batch", or each in a request of its own. No two calls have the same id,
        as *numbers* do not repeat."""
        self.wire = wire
        self.calls = deque(calls)
        self.many = len(calls) > 1
        self._ids = deque(id_like(next(numbers)) for _ in calls)
        self._batch = how == "batch"
        self._status = 0  # of the response to the batch
        self._elements: Iterator[Any] = iter(())
        messages = [
            {"jsonrpc": "2.0", "method": call.method, "params": session.params(call)}
            | ({} if call.notify else {"id": id_})
            for call, id_ in zip(calls, self._ids, strict=True)
        ]
        bodies: list[Any] = [messages] if self._batch else messages
        wire.send(*(request("POST", session.path, body) for body in bodies))

    def hear(self) -> dict[str, Any] | int:
        """What came of the next call: an answer, or no more than the status of the response."""
        call, id_ = self.calls.popleft(), self._ids.popleft()
        if not self._batch:
            status, _, body = self.wire.answer()
            if status != 200:
                assert body == b""
                return status
            answer = json.loads(body)
        elif call.notify:
            return 204
        else:
            self._open_batch()
            if self._status != 200:
                return self._status
            answer = next(self._elements)
        assert answer.pop("jsonrpc") == "2.0"
        answered = answer.pop("id")
        assert (answered, type(answered)) == (id_, type(id_)), f"an answer to {answered!r}"
        return cast("dict[str, Any]", answer)

    def hang_up(self) -> None:
        """After the last answer there must be nothing more to hear."""
        if self._batch:
            self._open_batch()
            assert list(self._elements) == []

    def _open_batch(self) -> None:
        if not self._status:
            self._status, headers = self.wire.head()
            pieces = self.wire.pieces(headers)
            if self._status == 200:
                self._elements = elements(pieces)
            else:
                assert b"".join(pieces) == b""


def id_like(number: int) -> object:
    return (number, f"{number} \u00e9", 2**70 + number, number + 0.5)[number % 4]


def elements(pieces: Iterator[bytes]) -> Iterator[Any]:
    """The elements of an array, each as soon as its last byte has come."""
    text = ""
    for piece in pieces:
        text += piece.decode()  # no answer here is so long that it is cut within a character
        while text[:1] in ("[", ","):
            try:
                element, end = json.JSONDecoder().raw_decode(text, 1)
            except ValueError:
                break  # more of it is to come
            yield element
            text = text[end:]
    assert text == "]"
