"""What a client's data frames pass before they become messages: their order, the limit, and
permessage-deflate.

An extension for wsproto's reader. Its own is not used, for four reasons: it inflates without
a bound, takes a ping between two fragments for the end of a compressed message, loses what comes
after a final deflate block, and accepts offers that RFC 7692 says to decline.

Only what comes in is ever compressed: docs/protocols/websocket.md says why. Nothing is kept from
one message to the next, so that an idle socket costs no window.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

if TYPE_CHECKING:
    from wsproto.frame_protocol import FrameDecoder, FrameProtocol

_AGREED: Final = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
_TAIL: Final = b"\x00\x00\xff\xff"  # RFC 7692, 7.2.1: left out by whoever compressed
_NONE: Final = RsvBits(False, False, False)
_FIRST: Final = RsvBits(True, False, False)
_SWITCHES: Final = frozenset({"server_no_context_takeover", "client_no_context_takeover"})
_WINDOWS: Final = frozenset({"server_max_window_bits", "client_max_window_bits"})
_BITS: Final = frozenset(map(str, range(8, 16)))
_PADDING: Final = frozenset({b"", b"\x00", _TAIL, b"\x00" + _TAIL})


def agreement(extensions: str | None) -> str | None:
    """The answer to a Sec-WebSocket-Extensions header: what takes up the first offer that can be.

    An offer with a parameter that is unknown, given twice or out of bounds cannot (RFC 7692, 7.1).
    """
    offers = (_parameters(offer) for offer in (extensions or "").split(","))
    for parameters in offers:
        if parameters is not None:
            # We write no window and read any; but who limits ours wants to hear that it holds.
            bits = parameters.get("server_max_window_bits")
            return _AGREED if bits is None else f"{_AGREED}; server_max_window_bits={bits}"
    return None


def _parameters(offer: str) -> dict[str, str | None] | None:
    name, *rest = (part.strip() for part in offer.split(";"))
    if name.lower() != "permessage-deflate":
        return None
    found: dict[str, str | None] = {}
    for parameter in rest:
        key, equals, text = (part.strip() for part in parameter.partition("="))
        value = text.strip('"') if equals else None
        switch = key in _SWITCHES and value is None
        window = key in _WINDOWS and value in _BITS
        hint = key == "client_max_window_bits" and value is None
        if key in found or not (switch or window or hint):
            return None
        found[key] = value
    return found


class Inflow(Extension):
    """The order of a message's frames, its limit, and its inflation.

    wsproto looks at the order as well, but after the payload: a frame out of place that is also
    badly compressed would be refused for the one or the other as TCP happens to split it.

    wsproto shows a header again if the mask behind it had not arrived: what is done with it may
    be done twice.
    """

    name = "permessage-deflate"

    def __init__(self, limit: int, *, deflate: bool) -> None:
        self._limit = limit
        self._deflate = deflate
        self._of_control = False  # the frame at hand
        self._unfinished = False  # the message has more frames
        self._received = 0  # bytes of the message, as they came
        self._inflated = 0  # and as they are
        self._inflater: zlib._Decompress | None = None  # of a compressed message

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False  # a client's business

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002 - the base's signature
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        self._of_control = opcode.iscontrol()
        if self._of_control:
            return _NONE
        if self._unfinished != (opcode is Opcode.CONTINUATION):
            return CloseReason.PROTOCOL_ERROR  # RFC 6455, 5.4
        if opcode is not Opcode.CONTINUATION:
            self._received = self._inflated = 0
            compressed = self._deflate and rsv.rsv1
            # Whatever window the client has: inflating with the largest reads them all.
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if compressed else None
        if self._received + payload_length > self._limit:
            return CloseReason.MESSAGE_TOO_BIG
        return _FIRST if self._inflater is not None and opcode is not Opcode.CONTINUATION else _NONE

    def frame_inbound_payload_data(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002 - as above
        data: bytes,
    ) -> bytes | CloseReason:
        if self._of_control:
            return data
        self._received += len(data)
        return data if self._inflater is None else self._inflate(self._inflater, data)

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002 - as above
        fin: bool,
    ) -> bytes | CloseReason | None:
        if self._of_control:
            return None
        self._unfinished = not fin
        if self._inflater is None or not fin:
            return None
        rest = self._inflate(self._inflater, _TAIL)
        self._inflater = None
        return rest

    def _inflate(self, inflater: zlib._Decompress, data: bytes) -> bytes | CloseReason:
        allowed = self._limit - self._inflated
        try:
            inflated = inflater.decompress(data, allowed + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        if len(inflated) > allowed:
            return CloseReason.MESSAGE_TOO_BIG
        # RFC 7692, 7.2.3.4: a message may end in a final block, padded with a zero byte. More
        # behind it would be another stream: nobody sends it, but to make us begin a million.
        if inflater.unused_data not in _PADDING:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._inflated += len(inflated)
        return inflated
