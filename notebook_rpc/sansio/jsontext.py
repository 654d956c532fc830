"""JSON text: read into what it was to be, and written.

It refuses more values and deeper nesting than stated limits allow, before anything is made of
them.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from notebook_rpc.errors import InvalidRequest, ParseError
from notebook_rpc.sansio.nesting import excess

T = TypeVar("T")

MAX_DEPTH: Final = 128
"""Arrays and objects inside each other, if nothing else is said. The parser's own limit, Python's
recursion limit, is about seven times as far."""

_encode: Final = msgspec.json.Encoder().encode


def read(text: bytes | str, kind: type[T], max_depth: int = MAX_DEPTH) -> T:
    """What *text* says; *kind* may be any type that msgspec knows.

    Raises:
        ParseError: it is not JSON, or there is too much in it.
        InvalidRequest: it is JSON, but not what was to come.
    """
    body = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if too_much := excess(body, max_depth):
        raise ParseError(f"there is too much in it: {too_much}")
    try:
        if not body.isascii():
            body.decode()  # msgspec skips over unknown members without looking at their bytes
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"the JSON does not fit: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ParseError("not JSON") from exc


def encode(value: object) -> bytes:
    """JSON text of *value*: structs, lists, dicts, strings, numbers, booleans, None.

    Messages quote what was sent, lone surrogates included, of which there can be none in UTF-8;
    they are written as Python does, ``\\udc80``, as an answer must not fail on them.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_encodable(msgspec.to_builtins(value)))


def _encodable(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case list() | tuple():
            return [_encodable(each) for each in value]
        case dict():
            return {_encodable(key): _encodable(each) for key, each in value.items()}
    return value
