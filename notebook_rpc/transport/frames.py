"""WebSocket frames: bytes to messages, messages to bytes (RFC 6455, 5). No I/O, no clock.

What comes in, wsproto reads. What goes out is written here, as a server's frames are not masked:
a header, and the payload as it is, never joined or copied (wsproto's way to send costs fifteen
times the time for a large message, and four copies of it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, AnyStr, Final, Generic, NamedTuple, TypeAlias

from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from notebook_rpc.transport.deflate import Inflow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Piece: TypeAlias = bytes | memoryview

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FIN: Final = 0x80
CONTROL: Final = 0x8  # of an opcode
LONGEST_HEAD: Final = 14  # bytes, with a mask
SHORT: Final = 4096  # bytes of a payload that is unmasked at once
MAX_CONTROL: Final = 125  # bytes of a control frame's payload
# Not wsproto's words: some have Python's names for things in them, which clients know nothing of.
REASONS: Final[Mapping[int, str]] = {
    1002: "protocol error",
    1007: "not UTF-8, or not compressed as agreed",
    1009: "too large",
}
SENDABLE: Final = frozenset({*range(1000, 1004), *range(1007, 1015)})  # and 3000 to 4999


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


class Closing(NamedTuple):
    """The peer's own farewell. ``code`` is None where it gave none."""

    code: int | None
    reason: str


class Violation(Exception):
    """The peer broke the protocol or a limit; close with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Incoming:
    """Puts messages together from a client's frames.

    A message larger than *limit*, on the wire or inflated, is refused as soon as that is known:
    by the header of the frame that is too large, or by the byte too many that comes of it.

    wsproto reads the frames, but for the most frequent of all: texts of one small frame each, that
    came as a whole. These are read here, in an eighth of the time.
    """

    def __init__(self, limit: int, *, deflate: bool = False) -> None:
        self._limit = limit
        self._frames = FrameProtocol(client=False, extensions=[Inflow(limit, deflate=deflate)])
        self._given = _Place()  # of what wsproto was given
        self._text = Gathering("")
        self._binary = Gathering(b"")

    def feed(self, data: bytes) -> Iterator[str | bytes | Ping | Pong | Closing | None]:
        """What *data* completes; None for each frame that completes nothing, so that whoever
        reads can take a rest between any two. To be read to its end before it is fed again.

        Raises:
            Violation: nothing more can be read. Nothing can either after ``Closing``.
        """
        if self._given.between_messages:
            read = 0
            for text, read in _whole_texts(data, self._limit):  # noqa: B007
                yield text
            data = data[read:]
        if not data:
            return
        self._given.advance(data)
        self._frames.receive_bytes(data)
        try:
            for opcode, payload, _, message_finished in self._frames.received_frames():
                if isinstance(payload, str):
                    self._text.add(payload)
                    yield self._text.take() if message_finished else None
                elif isinstance(payload, tuple):
                    code, reason = payload
                    yield Closing(None if code == CloseReason.NO_STATUS_RCVD else code, reason)
                elif opcode is Opcode.BINARY:
                    self._binary.add(payload)
                    yield self._binary.take() if message_finished else None
                else:
                    yield Ping(payload) if opcode is Opcode.PING else Pong(payload)
        except ParseFailed as exc:
            raise Violation(exc.code, REASONS[exc.code]) from exc


def _whole_texts(data: bytes, limit: int) -> Iterator[tuple[str, int]]:
    """The messages that *data* begins with, and where each ends, as long as they are whole, of one
    frame, of text, short, and right in every way; whatever is not, wsproto judges."""
    at = 0
    while data[at : at + 1] == b"\x81":
        head = _head(data[at : at + LONGEST_HEAD])
        if head is None or not head.masked:
            return
        begin = at + head.size
        end = begin + head.payload
        if end > len(data) or head.payload > min(limit, SHORT) or not head.shortest:
            return
        mask = data[begin - 4 : begin] * (head.payload // 4 + 1)
        key = int.from_bytes(mask[: head.payload], "big")
        text = int.from_bytes(data[begin:end], "big") ^ key
        try:
            yield text.to_bytes(head.payload, "big").decode(), end
        except UnicodeDecodeError:
            return
        at = end


class _Head(NamedTuple):
    """Of a frame: how many bytes it and the payload have, and whether it is as it should be."""

    size: int
    payload: int
    masked: bool
    shortest: bool


def _head(data: bytes) -> _Head | None:
    """That of the frame that *data* begins with (RFC 6455, 5.2); None if it is not all there."""
    if len(data) < 2:
        return None
    masked, payload = bool(data[1] & 0x80), data[1] & 0x7F
    more = {126: 2, 127: 8}.get(payload, 0)
    size = 2 + more + (4 if masked else 0)
    if len(data) < size:
        return None
    if not more:
        return _Head(size, payload, masked, shortest=True)
    longer = int.from_bytes(data[2 : 2 + more], "big")
    return _Head(size, longer, masked, shortest=longer > (125 if more == 2 else 0xFFFF))


class _Place:
    """Where in its frames a stream of bytes has come to, by their lengths alone."""

    __slots__ = ("_head", "_left", "_open")

    def __init__(self) -> None:
        self._head = b""  # of the next frame, if it is not all there
        self._left = 0  # bytes of a frame's payload
        self._open = False  # a message has more frames

    @property
    def between_messages(self) -> bool:
        return not (self._head or self._left or self._open)

    def advance(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if not self._left:
                known = self._head + data[at : at + LONGEST_HEAD - len(self._head)]
                head = _head(known)
                if head is None:
                    self._head = known
                    return
                at += head.size - len(self._head)
                self._head, self._left = b"", head.payload
                if not known[0] & CONTROL:
                    self._open = not known[0] & FIN
            step = min(self._left, len(data) - at)
            self._left -= step
            at += step


class Gathering(Generic[AnyStr]):
    """The pieces of a message. However small a client makes them, they take little more memory
    than the whole: a million pieces of two bytes each would take sixty."""

    __slots__ = ("_empty", "_large", "_small")
    MANY = 1024
    _empty: AnyStr

    def __init__(self, empty: AnyStr) -> None:
        self._empty = empty
        self._small: list[AnyStr] = []
        self._large: list[AnyStr] = []

    def add(self, piece: AnyStr) -> None:
        if piece:
            self._small.append(piece)
            if len(self._small) == self.MANY:
                self._large.append(self._empty.join(self._small))
                self._small.clear()

    def take(self) -> AnyStr:
        """The whole; what comes next begins another."""
        if not self._large and len(self._small) == 1:
            return self._small.pop()
        self._large += self._small
        whole = self._empty.join(self._large)
        self._small.clear()
        self._large.clear()
        return whole


def header(opcode: int, size: int, *, finished: bool = True) -> bytes:
    """What stands before *size* bytes of payload."""
    first = opcode | (FIN if finished else 0)
    if size <= 125:
        return bytes((first, size))
    if size <= 0xFFFF:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def frame(opcode: int, pieces: Iterable[Piece], *, finished: bool = True) -> list[Piece]:
    """A frame whose payload is all *pieces*; views of other things than bytes count as bytes."""
    payload = [as_bytes(piece) for piece in pieces]
    return [header(opcode, sum(map(len, payload)), finished=finished), *payload]


def as_bytes(piece: Piece) -> Piece:
    if isinstance(piece, memoryview) and (piece.format != "B" or piece.ndim != 1):
        return piece.cast("B")
    return piece


def message(content: str | Piece | Sequence[Piece]) -> list[Piece]:
    """A whole message in one frame: text (str) or binary.

    Raises:
        UnicodeEncodeError: the text has a lone surrogate, which UTF-8 cannot say.
    """
    if isinstance(content, str):
        text = content.encode()
        return [header(TEXT, len(text)), text]
    if isinstance(content, bytes):
        return [header(BINARY, len(content)), content]
    return frame(BINARY, (content,) if isinstance(content, memoryview | bytearray) else content)


def control(opcode: int, payload: bytes = b"") -> bytes:
    """A ping, a pong or a close; *payload* is at most ``MAX_CONTROL`` bytes."""
    return bytes((opcode | FIN, len(payload))) + payload


def close(code: int | None, reason: str = "") -> bytes:
    """A close frame; what is too long of *reason* is left out.

    Raises:
        ValueError: it is no code that may be sent (RFC 6455, 7.4).
    """
    if code is None:
        return control(CLOSE)
    if not (3000 <= code <= 4999 or code in SENDABLE):
        raise ValueError(f"{code} is no close code that may be sent")
    text = reason.encode("utf-8", "replace")[: MAX_CONTROL - 2]
    whole = text.decode("utf-8", "ignore").encode()  # without the half of a character
    return control(CLOSE, code.to_bytes(2, "big") + whole)
