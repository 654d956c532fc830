"""What a handler of the user's is given, and what it returns. Scripts have it of ``runtime``.

It refuses what HTTP could not carry while the handler still runs, so that the stack in the log
shows where it was made.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qs

import msgspec

from notebook_rpc.sansio import sse

if TYPE_CHECKING:
    from notebook_rpc import web
    from notebook_rpc.web import Headers

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110, 5.6.2
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")  # 5.5
_OURS: Final = frozenset({b"content-length", b"date", b"transfer-encoding", b"upgrade"})

Pieces: TypeAlias = "Iterable[Any] | AsyncIterable[Any]"
GivenHeaders: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]] | None"


class BadRequest(Exception):
    """The request is at fault. It is answered with 400 and the message."""


class Request:
    """What a handler is given."""

    __slots__ = ("_request", "state")

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.state: dict[str, Any] = {}
        """For middleware, to leave something for those who come after."""

    @property
    def method(self) -> str:
        return self._request.method

    @property
    def path(self) -> str:
        """Without the query, and percent-decoded."""
        return self._request.path

    @property
    def query(self) -> dict[str, str]:
        """The arguments behind the question mark; of several with one name the last."""
        return dict(self._request.arguments)

    @property
    def headers(self) -> dict[str, str]:
        """By their names in lower case."""
        names = dict.fromkeys(name for name, _ in self._request.headers)
        return {name.decode("latin-1"): self._request.header(name) or "" for name in names}

    @property
    def content(self) -> bytes:
        """The body as it came."""
        return self._request.body

    @property
    def remote_addr(self) -> str:
        """The client's address, or that of the proxy before it; "" on a Unix socket."""
        return self._request.remote

    @property
    def user(self) -> str:
        """The name of the token that came with the request."""
        return self._request.user.name

    def path_param(self, name: str, default: str | None = None) -> str | None:
        return self._request.parameters.get(name, default)

    def query_param(self, name: str, default: str | None = None) -> str | None:
        found = self._request.argument(name)
        return default if found is None else found

    def header(self, name: str, default: str | None = None) -> str | None:
        """Case does not matter."""
        found = self._request.header(name.lower().encode("latin-1", "replace"))
        return default if found is None else found

    def body(self) -> str:
        """The body as text.

        Raises:
            BadRequest: it is not UTF-8.
        """
        try:
            return self._request.body.decode()
        except UnicodeDecodeError as exc:
            raise BadRequest("the body is not UTF-8") from exc

    def json(self) -> Any:
        """What the body says.

        Raises:
            BadRequest: it is not JSON.
        """
        try:
            return msgspec.json.decode(self._request.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise BadRequest("the body is not JSON") from exc


@dataclass(frozen=True, slots=True)
class Response:
    """What a handler returns; the helpers of ``http`` make it. ``body`` is all of it, or an
    iterator of its pieces, each of which ``encode`` makes bytes of. ``endless`` bodies end when
    the server stops."""

    status: int
    headers: Headers
    body: bytes | Pieces = b""
    encode: Callable[[Any], bytes] = bytes
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    data: Any
    name: str = ""
    id: str | None = None


def made(
    status: int,
    body: bytes | Pieces,
    content_type: str | None,
    headers: GivenHeaders,
    *,
    encode: Callable[[Any], bytes] = bytes,
    endless: bool = False,
) -> Response:
    """
    Raises:
        TypeError, ValueError: HTTP cannot carry it.
    """
    if type(status) is not int or not 200 <= status <= 599:
        raise ValueError(f"a status is a number from 200 to 599, not {status!r}")
    if isinstance(body, str | Mapping) or not isinstance(body, Iterable | AsyncIterable):
        raise TypeError(f"a generator or a list of pieces, and not {type(body).__name__}")
    return Response(status, _headers(content_type, headers), body, encode, endless)


def _headers(content_type: str | None, given: GivenHeaders) -> Headers:
    pairs = list(given.items() if isinstance(given, Mapping) else given or ())
    pieces = tuple((name.lower().encode("ascii"), value.encode("latin-1")) for name, value in pairs)
    for name, value in pieces:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"HTTP has no header {name!r}: {value!r}")
        if name in _OURS:
            raise ValueError(f"the header {name.decode()} is the server's to set")
    if content_type is None or any(name == b"content-type" for name, _ in pieces):
        return pieces
    return ((b"content-type", content_type.encode("latin-1")), *pieces)


def arguments(query: str) -> dict[str, str]:
    parsed = parse_qs(query, keep_blank_values=True)
    return {name: values[-1] for name, values in parsed.items()}


def text(data: Any) -> str:
    return data if isinstance(data, str) else encoded(data).decode()


def as_bytes(piece: str | bytes) -> bytes:
    if isinstance(piece, str):
        return piece.encode()
    with memoryview(piece) as view:  # of a number, bytes() would make as many zeros
        return bytes(view)


def as_event(item: Any) -> bytes:
    event = item if isinstance(item, Event) else Event(item)
    return sse.event(text(event.data), name=event.name, id_=event.id)


_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


def encoded(data: Any) -> bytes:
    """JSON."""
    found = _ENCODER.encode(data)
    # A Decimal that is no number is written as it reads, which no reader of JSON understands.
    if b"NaN" in found or b"Infinity" in found:
        plain = msgspec.to_builtins(data, builtin_types=(Decimal,))  # of dataclasses, sets ...
        return _ENCODER.encode(_finite(plain))
    return found


def _finite(data: Any) -> Any:
    match data:
        case Decimal():
            return data if data.is_finite() else None
        case dict():
            return {key: _finite(value) for key, value in data.items()}
        case list() | tuple():
            return [_finite(value) for value in data]
    return data
