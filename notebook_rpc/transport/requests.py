"""HTTP/1.1 requests: bytes to ``Head``, chunks to bodies.

h11 is the only parser. What is added here is what h11 lets pass and RFC 9112 does not:
everything that makes two readers disagree about where a request ends. No I/O, no clock,
and no leniency: what is ambiguous is refused, never repaired.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import TYPE_CHECKING, Final, NamedTuple

import h11

from notebook_rpc.web import WEBSOCKET, Request

if TYPE_CHECKING:
    from notebook_rpc.web import Headers

BLANK_LINE = re.compile(rb"\n\r?\n")  # h11's rule for the end of a head, so that we agree
MAX_LINES = 128  # in a head; 64 KiB of tiny headers would keep h11 busy for 50 ms

_LENGTH = b"\ncontent-length:"
_AUTHORITY = re.compile(
    rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(:[0-9]*)?"  # RFC 3986, 3.2
)
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]+)(/[^?]*)?(\?.*)?", re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # RFC 6455, 4.2.1: 16 bytes in base64
_SPEAK_13: Final[Headers] = (
    *((b"upgrade", b"websocket"), (b"connection", b"upgrade")),
    (b"sec-websocket-version", b"13"),
)


class Refused(Exception):
    """The client broke the protocol or a limit: one answer with *status*, then a close."""

    def __init__(self, status: int, headers: Headers = ()) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class Head(NamedTuple):  # made for every request, in a third of a frozen dataclass's time
    """Everything one request's head says. ``length`` is None for a chunked body; ``method`` is
    ``WEBSOCKET`` for a GET that asks for one."""

    method: str
    path: str
    query: str
    headers: Headers
    length: int | None
    http10: bool
    keep_alive: bool
    expects_continue: bool

    def request(self) -> Request:
        return Request(self.method, self.path, self.query, self.headers)


def parse_head(raw: bytes) -> Head:
    """Read the bytes of exactly one head, blank line included.

    Raises:
        Refused: with 400, 426, 431 or 501.
    """
    if raw.count(b"\n") > MAX_LINES:
        raise Refused(431)
    if b"\n " in raw or b"\n\t" in raw:  # folded: RFC 9112, 5.2 says reject, or repair as h11
        raise Refused(400)
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(raw)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError as exc:
        raise Refused(exc.error_status_hint) from exc
    if not isinstance(event, h11.Request) or event.http_version not in (b"1.0", b"1.1"):
        raise Refused(400)
    return _understand(event, raw)


def _understand(event: h11.Request, raw: bytes) -> Head:
    http10 = event.http_version == b"1.0"
    length: int | None = 0
    host = chunked = None
    connection: list[bytes] = []
    upgrade = b""
    expects_continue = False
    headers = tuple([(name.lower(), value) for name, value in event.headers.raw_items()])
    for name, value in headers:
        if name == b"host":
            host = value
        elif name == b"content-length":
            length = int(value)
            if not _has_one_length(raw):
                raise Refused(400)
        elif name == b"transfer-encoding":  # h11 has refused all but one "chunked"
            chunked = value
        elif name == b"connection":
            connection += [token.strip() for token in value.lower().split(b",")]
        elif name == b"upgrade":
            upgrade += b"," + value.lower()
        elif name == b"expect":
            expects_continue = not http10 and value.lower() == b"100-continue"
    if chunked is not None:
        # RFC 9112, 6.1 and 6.3: both lengths, or a coding from before there were codings,
        # is what request smuggling looks like.
        if http10 or any(name == b"content-length" for name, _ in headers):
            raise Refused(400)
        length = None
    method = event.method.decode("ascii")
    if method == WEBSOCKET:  # our own word for what is a GET on the wire
        raise Refused(501)
    authority, path, query = read_target(method, event.target)
    if authority is not None:  # RFC 9112, 3.2.2: it replaces the Host header
        host = authority
        headers = ((b"host", host), *(item for item in headers if item[0] != b"host"))
    if host is not None and not _AUTHORITY.fullmatch(host):
        raise Refused(400)
    # RFC 9110, 7.8: other upgrades, and all in HTTP/1.0, are ignored.
    if upgrade and not http10 and b"websocket" in map(bytes.strip, upgrade.split(b",")):
        if method != "GET" or b"upgrade" not in connection or length != 0:
            raise Refused(400)
        _check_websocket(headers)
        method = WEBSOCKET
    # HTTP/1.0 always closes: keep-alive was never part of it, and only `ab` would notice.
    keep_alive = not http10 and b"close" not in connection
    return Head(method, path, query, headers, length, http10, keep_alive, expects_continue)


def _check_websocket(headers: Headers) -> None:
    """Raises ``Refused`` if what asks for a WebSocket does it wrongly (RFC 6455, 4.2 and 4.4)."""
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    if len(versions) != 1 or not versions[0].isdigit():
        raise Refused(400)
    if versions != [b"13"]:
        raise Refused(426, _SPEAK_13)
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise Refused(400)


def _has_one_length(raw: bytes) -> bool:
    """Whether one line gives one length: h11 makes one of "5, 5" and of equal lines."""
    lines = raw.lower()
    start = lines.index(_LENGTH)
    end = lines.index(b"\n", start + 1)
    value = lines[start + len(_LENGTH) : end].strip(b" \t\r")
    return value.isdigit() and _LENGTH not in lines[end:]


def read_target(method: str, target: bytes) -> tuple[bytes | None, str, str]:
    """Split a request target into authority (absolute form only), decoded path, raw query.

    Dot segments and doubled slashes stay as they are: routes match literally.

    Raises:
        Refused: it is malformed (400), or a tunnel is asked for (501).

    Source: RFC 9112, 3.2.
    """
    if method == "CONNECT":
        raise Refused(501)
    authority = None
    if target.startswith(b"/"):
        raw_path, _, query = target.partition(b"?")
    elif target == b"*" and method == "OPTIONS":
        return None, "*", ""
    elif match := _ABSOLUTE_FORM.fullmatch(target):
        authority, raw_path = match[1], match[2] or (b"*" if method == "OPTIONS" else b"/")
        query = (match[3] or b"?")[1:]
    else:
        raise Refused(400)
    if b"#" in target or not raw_path.isascii():
        raise Refused(400)
    return authority, _unescaped(raw_path), query.decode("ascii")


def _unescaped(raw_path: bytes) -> str:
    if b"%" not in raw_path:
        return raw_path.decode("ascii")
    if _BAD_ESCAPE.search(raw_path):
        raise Refused(400)
    try:
        return urllib.parse.unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError as exc:
        raise Refused(400) from exc


class ChunkedBody:
    """Takes a chunked body apart with h11, under limits that splits of the input cannot move.

    h11 limits only what is incomplete when it looks, so that a long chunk extension passes
    or fails by how the bytes happen to arrive. Here every run of bytes that are not data
    (sizes, extensions, trailers) is measured instead.
    """

    MAX_OVERHEAD = 8 * 1024  # bytes between two bytes of data

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit
        self._fed = 0
        self._overhead = 0  # counted up to the last byte of data
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 62)
        self._parser.receive_data(
            b"POST / HTTP/1.1\r\nhost: -\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self._parser.next_event()

    def feed(self, piece: bytes) -> bytes | None:
        """Read on: *piece* is not empty. None until the end, then the bytes that came after it.

        Raises:
            Refused: 400 for bad framing, 413 for more data than the limit.
        """
        self._fed += len(piece)
        self._parser.receive_data(piece)
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as exc:
                raise Refused(400) from exc
            unread = self._parser.trailing_data[0]
            ended = isinstance(event, h11.EndOfMessage)
            if isinstance(event, h11.Data):
                self.data += event.data
                if len(self.data) > self._limit:
                    raise Refused(413)
            overhead = self._fed - len(self.data)
            if ended or isinstance(event, h11.Data):
                overhead -= len(unread)
            if overhead - self._overhead > self.MAX_OVERHEAD:
                raise Refused(400)
            if ended:
                return unread
            if event is h11.NEED_DATA:
                return None
            self._overhead = overhead
