"""JSON-RPC 2.0 messages: bytes in, calls out, and answers back to bytes.

It knows the protocol's grammar and no method of ours. Where JSON leaves a choice:

- The id comes back as the very text that was sent, so that 2**70 and 1.0 survive.
- Of duplicate keys the last one counts, as in most parsers.
- NaN, Infinity, bad UTF-8, lone surrogates, and more values or deeper nesting than stated
  limits allow are a parse error.
- A number that is JSON, but no float (1e999) or longer than 4300 digits, makes the
  parameters invalid. As an id it is text like any other.

Source: https://www.jsonrpc.org/specification
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from notebook_rpc.errors import InvalidParams, InvalidRequest, NotebookError, ParseError
from notebook_rpc.sansio.jsontext import MAX_DEPTH, encode
from notebook_rpc.sansio.nesting import excess

if TYPE_CHECKING:
    from collections.abc import Sequence

NULL: Final = b"null"
"""The id of an answer to a request whose id could not be read."""

SMALL: Final = 16 * 1024
"""Bytes up to which copying a result costs less than passing it on in pieces."""

Params: TypeAlias = "list[Any] | dict[str, Any]"
Signature = TypeVar("Signature", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Call:
    """A well-formed request. ``id`` is JSON text, or None: a notification, never answered."""

    id: bytes | None
    method: str
    params: Params


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that will not be carried out, but must be answered."""

    id: bytes
    error: NotebookError


class _Envelope(msgspec.Struct):
    jsonrpc: Any = UNSET
    method: Any = UNSET
    params: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_batch = msgspec.json.Decoder(list[Raw]).decode
_decode_any = msgspec.json.Decoder().decode

# All that msgspec raises for bytes that are not JSON, ValidationError apart.
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse(
    body: bytes, max_batch: int, max_depth: int = MAX_DEPTH
) -> Call | Refused | list[Call | Refused]:
    """Read a request or a batch of at most *max_batch* requests, in which at most *max_depth*
    arrays and objects lie inside each other, itself included. Never raises."""
    if too_much := excess(body, max_depth):
        return Refused(NULL, ParseError(f"the request has too much in it: {too_much}"))
    try:
        if not body.isascii():
            body.decode()  # msgspec skips over unknown members without looking at their bytes
        if body.lstrip(b" \t\r\n")[:1] != b"[":
            return _parse_one(body)
        members = _decode_batch(body)
    except _NOT_JSON as exc:
        return Refused(NULL, _not_json(exc))
    if not members:
        return Refused(NULL, InvalidRequest("an empty batch"))
    if len(members) > max_batch:
        return Refused(NULL, InvalidRequest(f"a batch of more than {max_batch} requests"))
    return [_parse_one(bytes(member)) for member in members]


def _not_json(exc: Exception) -> ParseError:
    reason = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
    return ParseError(f"the request is not JSON: {reason}")


def _parse_one(body: bytes) -> Call | Refused:
    try:
        envelope = _decode_envelope(body)
    except msgspec.ValidationError as exc:
        return Refused(NULL, InvalidRequest(str(exc)))
    id_ = None if envelope.id is UNSET else bytes(envelope.id)
    if id_ is not None and id_[:1] not in b'"-0123456789n':
        return Refused(NULL, InvalidRequest("id must be a string, a number or null"))
    reply_to = NULL if id_ is None else id_
    if envelope.jsonrpc != "2.0":
        return Refused(reply_to, InvalidRequest('jsonrpc must be "2.0"'))
    if not isinstance(envelope.method, str):
        return Refused(reply_to, InvalidRequest("method must be a string"))
    if envelope.params is UNSET:
        return Call(id_, envelope.method, [])
    try:
        params = _decode_any(envelope.params)
    except msgspec.ValidationError as exc:
        return Refused(reply_to, InvalidParams(str(exc)))
    if not isinstance(params, list | dict):
        return Refused(reply_to, InvalidRequest("params must be an array or an object"))
    return Call(id_, envelope.method, params)


def bind(method: str, params: Params, signature: type[Signature]) -> Signature:
    """Fit *params*, by position or by name, to the fields of *signature*.

    Raises:
        InvalidParams: too many, missing, unknown or of the wrong type; says which.
    """
    fields = signature.__struct_fields__
    if isinstance(params, list):
        if len(params) > len(fields):
            takes = f"at most {len(fields)} parameters" if fields else "no parameters"
            raise InvalidParams(f"{method} takes {takes}, not {len(params)}")
        params = dict(zip(fields, params, strict=False))
    try:
        return msgspec.convert(params, signature)
    except msgspec.ValidationError as exc:
        raise InvalidParams(f"{method}: {exc}") from exc


def result(id_: bytes, value: Sequence[bytes]) -> list[bytes]:
    """An answer whose result is the JSON text that the pieces of *value* make up."""
    opening = b'{"jsonrpc":"2.0","id":%b,"result":' % id_
    if len(value) == 1 and len(value[0]) <= SMALL:
        return [opening + value[0] + b"}"]
    return [opening, *value, b"}"]


def error(id_: bytes, exc: NotebookError, stacktrace: str = "") -> bytes:
    """The answer to a request that failed. ``data.stacktrace`` is always there: clients read it."""
    data = {"stacktrace": stacktrace, "slug": exc.slug}
    if exc.sqlstate is not None:
        data["sqlstate"] = exc.sqlstate
    body: dict[str, Any] = {"code": exc.rpc_code, "message": str(exc), "data": data}
    if exc.position is not None:
        body["data"] = {**data, "position": exc.position}
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_, encode(body))
