"""SQLRooms messages: what a client sent, parsed once, and what it is answered.

A text message is a JSON object with a ``type``; unknown members are nobody's business. A
``queryId`` comes back as the very text that was sent, so that 17 stays a number. Nothing here
knows queries, channels or sockets.

Source: sqlrooms-server README, "WebSocket".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from notebook_rpc.errors import InvalidParams, InvalidRequest, ParseError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HEADER: Final = 64 * 1024  # bytes, of a binary message; our limit, the protocol names none
MAX_PAYLOAD: Final = 64 * 1024  # bytes of a notification, which each listener may keep waiting
MAX_ID: Final = 1024  # bytes of JSON text
ESCAPED: Final = 256 * 1024  # characters that are escaped at a time: about half a millisecond


class Statement(msgspec.Struct, frozen=True, rename="camel", tag_field="type"):
    sql: str
    query_id: Raw | UnsetType = UNSET
    persist: bool | None = None


class Arrow(Statement, frozen=True, tag="arrow"):
    """Run it, and send its rows as Arrow."""


class Json(Statement, frozen=True, tag="json"):
    """Run it, and send its rows as JSON."""


class Exec(Statement, frozen=True, tag="exec"):
    """Run it, or several, and send no rows."""


class Cancel(msgspec.Struct, frozen=True, rename="camel", tag_field="type", tag="cancel"):
    query_id: Raw | UnsetType = UNSET


class Subscribe(msgspec.Struct, frozen=True, tag_field="type", tag="subscribe"):
    channel: str | None = None


class Notify(msgspec.Struct, frozen=True, tag_field="type", tag="notify"):
    channel: str | None = None
    payload: Raw = Raw(b"null")


class Auth(msgspec.Struct, frozen=True, tag_field="type", tag="auth"):
    token: str | None = None


class Join(msgspec.Struct, frozen=True, rename="camel", tag_field="type", tag="crdt-join"):
    room_id: str | None = None


class Seed(msgspec.Struct, frozen=True, rename="camel", tag_field="type", tag="crdt-snapshot"):
    """``data`` is base64."""

    room_id: str | None = None
    data: str | None = None


class Named(msgspec.Struct, frozen=True, rename="camel"):
    """Whatever it asks for."""

    query_id: Raw | UnsetType = UNSET


Message: TypeAlias = Arrow | Json | Exec | Cancel | Subscribe | Notify | Auth | Join | Seed


class Upload(msgspec.Struct, frozen=True, rename="camel", tag_field="type", tag="uploadArrow"):
    """The header of an Arrow IPC stream that becomes a table."""

    query_id: Raw | UnsetType = UNSET
    table_name: str | None = None


_decode: Final = msgspec.json.Decoder(Message).decode
_decode_named: Final = msgspec.json.Decoder(Named).decode
_decode_upload: Final = msgspec.json.Decoder(Upload).decode
_encode: Final = msgspec.json.Encoder().encode


def parse(text: str) -> Message:
    """What a text message says.

    Raises:
        ParseError: it is not JSON, or JSON that nests deeper than can be read.
        InvalidRequest: it is JSON, but no message.
    """
    try:
        message: Message = _decode(text)
    except msgspec.ValidationError:
        raise InvalidRequest("invalid message") from None
    except (msgspec.DecodeError, RecursionError):
        raise ParseError("invalid json") from None
    return message


def id_in(text: str) -> str | None:
    """The id of what ``parse`` has refused as no message, if it has one that could be answered."""
    try:
        return query_id(_decode_named(text).query_id)
    except (msgspec.DecodeError, InvalidRequest):
        return None


def split(message: bytes) -> tuple[Upload, int] | None:
    """The header of an upload and where its payload begins; None if *message* is none.

    Layout, offsets and sizes in bytes::

        0      4     n, the header's length, unsigned big-endian
        4      n     the header, a JSON object in UTF-8
        4 + n  rest  the payload, an Arrow IPC stream

    A binary message without such a header is another protocol's, or nobody's.
    """
    begin = 4 + int.from_bytes(message[:4], "big")
    if not 4 < begin <= min(len(message), 4 + MAX_HEADER):
        return None
    try:
        return _decode_upload(message[4:begin].decode()), begin
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def query_id(given: Raw | UnsetType) -> str | None:
    """The JSON text of an id, the same for the same string however it was escaped; None for
    none or null.

    Raises:
        InvalidRequest: it is neither a string nor a number, or too long.
    """
    text = b"null" if given is UNSET else bytes(given)
    if len(text) > MAX_ID or text[:1] not in b'"-0123456789n':
        raise InvalidRequest("invalid message")
    if b"\\" in text:
        text = _encode(msgspec.json.decode(text))
    return None if text == b"null" else text.decode()


def channel(name: str | None) -> str:
    """Raises ``InvalidParams`` for none."""
    if not name:
        raise InvalidParams("Missing channel")
    return name


def table(name: str | None) -> tuple[str, str]:
    """Schema ("" for the one in use) and table that an upload names.

    Raises:
        InvalidParams: there is none, or it is more than a name and perhaps a schema's.
    """
    if not name:
        raise InvalidParams("Missing tableName for uploadArrow")
    match = re.fullmatch(r"(?:([A-Za-z0-9_]+)\.)?([A-Za-z0-9_]+)", name)
    if match is None:
        reason = "tableName contains invalid characters; use letters, numbers, underscores"
        raise InvalidParams(reason)
    return match[1] or "", match[2]


# Answers. An id is its JSON text, as ``query_id`` gives it.


def ok(id_: str) -> str:
    return f'{{"type":"ok","queryId":{id_}}}'


def upload_ack(id_: str) -> str:
    return f'{{"type":"uploadAck","queryId":{id_}}}'


def cancel_ack(id_: str | None, *, cancelled: bool) -> str:
    return f'{{"type":"cancelAck","queryId":{id_ or "null"},"cancelled":{_text(cancelled)}}}'


def error(reason: str, id_: str | None = None) -> str:
    """Of a query, or without *id_* of a message."""
    # Reasons quote what was sent, lone surrogates included; an answer must not fail on it.
    quoted = _text(reason.encode("utf-8", "backslashreplace").decode())
    member = "" if id_ is None else f'"queryId":{id_},'
    return f'{{"type":"error",{member}"error":{quoted}}}'


def arrow_opening(id_: str) -> bytes:
    """What comes before the stream: a header, laid out as in ``split``."""
    header = f'{{"type":"arrow","queryId":{id_}}}'.encode()
    return len(header).to_bytes(4, "big") + header


def json_opening(id_: str) -> bytes:
    """What comes before the rows, which are a string of JSON text."""
    return f'{{"type":"json","queryId":{id_},"data":"'.encode()


CLOSING: Final = b'"}'
"""Ends what ``json_opening`` or ``snapshot_opening`` begins. What ends before is no JSON."""


def escaped(piece: bytes | memoryview) -> Iterator[bytes]:
    """JSON text as a part of a JSON string, in parts that take no time to speak of."""
    text = str(piece, "utf-8")
    for begin in range(0, len(text), ESCAPED):
        yield _encode(text[begin : begin + ESCAPED])[1:-1]


AUTH_ACK: Final = '{"type":"authAck"}'


def subscribed(name: str) -> str:
    return f'{{"type":"subscribed","channel":{_text(name)}}}'


def notification(name: str, payload: Raw) -> str:
    """
    Raises:
        InvalidRequest: it is too large to be given to any number of listeners.
    """
    if len(payload_ := bytes(payload)) > MAX_PAYLOAD:
        raise InvalidRequest(f"a notification's payload has at most {MAX_PAYLOAD} bytes")
    return f'{{"type":"notify","channel":{_text(name)},"payload":{payload_.decode()}}}'


def notify_ack(name: str) -> str:
    return f'{{"type":"notifyAck","channel":{_text(name)}}}'


def joined(room: str) -> str:
    return f'{{"type":"crdt-joined","roomId":{_text(room)}}}'


def snapshot_opening(room: str) -> bytes:
    """What comes before a snapshot in base64."""
    return f'{{"type":"crdt-snapshot","roomId":{_text(room)},"data":"'.encode()


def snapshot_ack(room: str) -> str:
    return f'{{"type":"crdt-snapshot-ack","roomId":{_text(room)}}}'


def update_ack(room: str) -> str:
    return f'{{"type":"crdt-update-ack","roomId":{_text(room)}}}'


def _text(value: object) -> str:
    return _encode(value).decode()
