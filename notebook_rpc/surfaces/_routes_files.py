"""A folder of files, as ``runtime.http.static`` serves it: which of them, as what, and which part.

It refuses to list folders, to guess at what a file contains, and to send several ranges at once.
What may be reached at all is decided where files are opened, in ``services.files``.
"""

from __future__ import annotations

import mimetypes
import os
import re
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from notebook_rpc.web import BrokenOff, Response

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from notebook_rpc.web import Headers, Request, Send

INDEX: Final = "index.html"
PIECE: Final = 256 * 1024  # bytes read at a time
MORE_TYPES: Final = {  # that Python's own table lacks, or has differently
    ".arrow": "application/vnd.apache.arrow.file",
    ".js": "text/javascript",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".parquet": "application/vnd.apache.parquet",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
COMPRESSED: Final = {"gzip": "application/gzip", "bzip2": "application/x-bzip2"}
XML: Final = {"image/svg+xml", "application/xml"}


class File(Protocol):
    """``services.files.File``."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def changed(self) -> int: ...
    @property
    def version(self) -> str: ...
    @property
    def is_folder(self) -> bool: ...
    @property
    def content(self) -> bytes | None: ...
    async def read(self, start: int, size: int) -> bytes: ...
    def close(self) -> None: ...


class Files(Protocol):
    """``services.files.Files``."""

    async def open(self, folder: Path, segments: Sequence[str]) -> File | None: ...


@dataclass(frozen=True, slots=True)
class Folder:
    """``path`` has no slash at its end; "" is the whole site."""

    path: str
    folder: Path

    def paths(self) -> list[tuple[str, str]]:
        """Methods and paths that it answers."""
        return [("GET", self.path or "/"), ("GET", f"{self.path}/{{path...}}")]

    async def find(self, request: Request, files: Files) -> Response | None:
        """The answer; None if there is no such file."""
        named = request.parameters.get("path")
        if named is None and self.path:
            return _moved(request)
        *above, last = (named or "").split("/")
        file = await files.open(self.folder, (*above, last or INDEX))
        if file is None:
            return None
        if file.is_folder:
            return _moved(request)
        return _answer(file, request)


def _moved(request: Request) -> Response:
    """To the same with a slash behind it, from which relative links are right."""
    last = quote(request.path.rpartition("/")[2])
    query = f"?{request.query}" if request.query else ""
    return Response(308, ((b"location", f"./{last}/{query}".encode("ascii")),))


def _answer(file: File, request: Request) -> Response:
    etag = _etag(file)
    modified = formatdate(file.changed, usegmt=True).encode("ascii")
    headers: Headers = (
        (b"etag", etag.encode("ascii")),
        (b"last-modified", modified),
        (b"cache-control", b"no-cache"),  # to be asked for again, which costs a 304
    )
    if _is_known(request, file):
        file.close()
        return Response(304, headers)
    headers = (
        *((b"content-type", _type(file.name)), *headers, (b"accept-ranges", b"bytes")),
        (b"x-content-type-options", b"nosniff"),
    )
    start, end, status = 0, file.size, 200
    wanted = request.header(b"range") if request.method == "GET" else None
    if wanted is not None and request.header(b"if-range") in (None, etag, modified.decode()):
        try:
            part = _part(wanted, file.size)
        except IndexError:
            file.close()
            return Response(416, ((b"content-range", b"bytes */%d" % file.size),))
        if part is not None:
            start, end, status = *part, 206
            span = b"bytes %d-%d/%d" % (start, end - 1, file.size)
            headers = (*headers, (b"content-range", span))
    if file.content is not None:
        return Response(status, headers, file.content[start:end])
    stream = partial(_stream, file, start, end)
    return Response(status, headers, stream, done=file.close, length=end - start)


async def _stream(file: File, start: int, end: int, send: Send) -> None:
    while start < end:
        try:
            piece = await file.read(start, min(PIECE, end - start))
        except OSError as exc:
            raise BrokenOff(f"{file.name}: {exc.strerror or exc}") from exc
        if not piece:
            raise BrokenOff(f"{file.name} has become shorter")
        start += len(piece)
        await send(piece)


def _etag(file: File) -> str:
    return f'"{file.version}"'


def _is_known(request: Request, file: File) -> bool:
    """Whether the client has the file as it is (RFC 9110, 13.2.2)."""
    tags = request.header(b"if-none-match")
    if tags is not None:
        return tags.strip() == "*" or _etag(file) in re.findall(r'"[^"]*"', tags)
    since = request.header(b"if-modified-since")
    if since is None:
        return False
    try:
        return file.changed <= parsedate_to_datetime(since).timestamp()
    except (ValueError, OverflowError):  # a date that is none is to be ignored
        return False


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """What a Range header asks for, from and up to; None if it is to be ignored (RFC 9110, 14.2):
    malformed, or several at once.

    Raises:
        IndexError: there is no such part.
    """
    match = re.fullmatch(r" *bytes *= *([0-9]{0,18})-([0-9]{0,18}) *", wanted)
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2] or size) + 1)
        if match[2] and int(match[2]) < start:
            return None
    if start >= size:
        raise IndexError(wanted)
    return start, end


def _type(name: str) -> bytes:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  # of a name, not of a path
    # Not those that the system may know besides: they differ from machine to machine.
    guessed, encoding = mimetypes.MimeTypes().guess_type(f"a{suffix}")
    kind = COMPRESSED.get(encoding or "") or MORE_TYPES.get(suffix) or guessed
    kind = kind or "application/octet-stream"
    if kind.startswith("text/") or kind in XML:
        kind += "; charset=utf-8"
    return kind.encode("ascii")
