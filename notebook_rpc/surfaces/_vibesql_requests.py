"""What a client of VibeSQL asks for: a statement, which of its rows, and what they shall come as.

It refuses what it cannot do before anything is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from notebook_rpc.errors import InvalidParams, InvalidRequest, NotAcceptable, ParseError
from notebook_rpc.sansio import disposition, negotiation
from notebook_rpc.sansio.jsontext import read

if TYPE_CHECKING:
    from notebook_rpc.web import Headers, Request

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Format:
    """``rows`` is what ``services.queries`` calls it."""

    rows: str
    media_type: str
    parameters: str = ""

    @property
    def headers(self) -> Headers:
        return ((b"content-type", f"{self.media_type}{self.parameters}".encode()),)


JSON: Final = Format("rows", "application/json")
FORMATS: Final = {
    "json": JSON,
    "csv": Format("csv", "text/csv", "; charset=utf-8"),
    "ndjson": Format("ndjson", "application/x-ndjson"),
    "arrow": Format("arrow", "application/vnd.apache.arrow.stream"),
    "parquet": Format("parquet", "application/vnd.apache.parquet"),
}
"""By the word for them in links; the first is what those get who have no wish."""

VARY: Final = (b"vary", b"accept")

_BY_TYPE: Final = {each.media_type: each for each in FORMATS.values()}


class Asked(msgspec.Struct):
    """A request's body. Clients send more than these, which is theirs to know."""

    sql: str
    params: list[Any] | dict[str, Any] | None = None
    limit: _Number | None = None
    offset: _Number | None = None
    format: str | None = None
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """An answer's form: ``headers`` are those of rows."""

    format: Format
    headers: Headers


def of_body(body: bytes, max_depth: int) -> Asked:
    """Raises as ``jsontext.read`` does."""
    return read(body, Asked, max_depth)


def of_link(request: Request, max_depth: int) -> Asked:
    """The same as arguments of a URL; ``params`` is JSON.

    Raises:
        InvalidParams: an argument is not what it should be.
        InvalidRequest: they are no query.
    """
    if request.argument("sql") is None:
        raise InvalidParams("sql: the statement is missing")
    names = ("sql", "format", "filename")
    given: dict[str, object] = {name: request.argument(name) for name in names}
    for name in ("limit", "offset", "params"):
        text = request.argument(name)
        if text is not None:
            try:
                given[name] = read(text, object, max_depth)
            except (ParseError, InvalidRequest) as exc:
                raise InvalidParams(f"{name}: {exc}") from exc
    try:
        return msgspec.convert(given, Asked)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"the arguments do not fit: {exc}") from exc


def wanted(asked: Asked, accept: str | None) -> Wanted:
    """What *asked* says itself comes before what the headers do.

    Raises:
        NotAcceptable: the message lists what there is.
        InvalidParams: a name of a file that is none.
    """
    if asked.format is not None:
        found = FORMATS.get(asked.format)
        offered = ", ".join(FORMATS)
    else:
        found = _BY_TYPE.get(negotiation.media_type(accept, list(_BY_TYPE)) or "")
        offered = ", ".join(_BY_TYPE)
    if found is None:
        raise NotAcceptable(f"there is nothing of that kind: only {offered}")
    headers = (*found.headers, VARY)
    if asked.filename is not None:
        saved = (b"content-disposition", disposition.attachment(asked.filename))
        headers = (*headers, saved)
    return Wanted(found, headers)
