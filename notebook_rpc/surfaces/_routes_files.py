"""A folder of files, as ``runtime.http.static`` serves it.

A path is taken apart and opened folder by folder, so that there is no way out of the folder: no
segment may be ``..`` or have a separator in it, and no symbolic link is followed. Hidden files,
whose names begin with a dot, are not there, but for ``.well-known`` (RFC 8615).

It refuses to list folders, to guess at what a file contains, and to send several ranges at once.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import re
import stat
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import quote

from notebook_rpc.web import BrokenOff, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from notebook_rpc.web import Headers, Request, Send

T = TypeVar("T")

INDEX: Final = "index.html"
PIECE: Final = 256 * 1024  # bytes read at a time
SMALL: Final = 64 * 1024  # bytes that are read with the file's opening
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
_MISSING: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG, errno.EMLINK}
)
_FLAGS: Final = (  # O_NONBLOCK: to open a pipe must not wait for who writes into it
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip


class Run(Protocol):
    """``services.workers.Workers.run``."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class Folder:
    """``path`` has no slash at its end; "" is the whole site."""

    path: str
    folder: Path

    def paths(self) -> list[tuple[str, str]]:
        """Methods and paths that it answers."""
        return [("GET", self.path or "/"), ("GET", f"{self.path}/{{path...}}")]

    async def find(self, request: Request, run: Run) -> Response | None:
        """The answer; None if there is no such file."""
        named = request.parameters.get("path")
        if named is None and self.path:
            return _moved(request)
        segments = (named or "").split("/")
        file = None
        if all(map(_is_plain, segments[:-1])) and (not segments[-1] or _is_plain(segments[-1])):
            segments[-1] = segments[-1] or INDEX
            file = await run(partial(_opened, self.folder, segments))
        if file is None:
            return None
        if file.is_folder:
            return _moved(request)
        return _answer(file, request, run)


@dataclass(slots=True)
class _File:
    """One that has been opened; ``descriptor`` is -1 once nobody needs it any more."""

    name: str
    descriptor: int
    size: int
    changed: int
    etag: str
    is_folder: bool = False
    content: bytes | None = None
    """All of it, if that is little."""

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    def read(self, start: int, size: int) -> bytes:
        """On a worker; one at a time."""
        os.lseek(self.descriptor, start, os.SEEK_SET)
        return os.read(self.descriptor, size)


def _is_plain(segment: str) -> bool:
    if segment.startswith(".") and segment != ".well-known":
        return False
    return bool(segment) and not set("\0/\\:") & set(segment)


def _moved(request: Request) -> Response:
    """To the same with a slash behind it, from which relative links are right."""
    last = quote(request.path.rpartition("/")[2])
    query = f"?{request.query}" if request.query else ""
    return Response(308, ((b"location", f"./{last}/{query}".encode("ascii")),))


def _opened(folder: Path, segments: Sequence[str]) -> _File | None:
    """On a worker. None if it is neither a file nor a folder, or not to be reached."""
    try:
        descriptor = _descend(folder, segments)
    except OSError as exc:
        if exc.errno in _MISSING:
            return None
        raise
    kept = False
    try:
        status = os.fstat(descriptor)
        etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
        file = _File(segments[-1], -1, status.st_size, int(status.st_mtime), etag)
        if stat.S_ISDIR(status.st_mode):
            file.is_folder = True
        elif not stat.S_ISREG(status.st_mode):
            return None
        elif file.size <= SMALL:
            file.content = os.read(descriptor, SMALL)
            file.size = len(file.content)
        else:
            file.descriptor = descriptor
            kept = True
        return file
    finally:
        if not kept:
            os.close(descriptor)


def _descend(folder: Path, segments: Sequence[str]) -> int:
    if os.open not in os.supports_dir_fd:  # Windows: between the two somebody could make a link
        path = folder.joinpath(*segments)
        if path.resolve(strict=True) != path:
            raise FileNotFoundError(errno.ENOENT, "a link", str(path))
        return os.open(path, _FLAGS)
    at = os.open(folder, _FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for segment in segments:
            above, at = at, os.open(segment, _FLAGS, dir_fd=at)
            os.close(above)
    except BaseException:
        os.close(at)
        raise
    return at


def _answer(file: _File, request: Request, run: Run) -> Response:
    modified = formatdate(file.changed, usegmt=True).encode("ascii")
    headers: Headers = (
        (b"etag", file.etag.encode("ascii")),
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
    if wanted is not None and request.header(b"if-range") in (None, file.etag, modified.decode()):
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
    stream = partial(_stream, file, start, end, run)
    return Response(status, headers, stream, done=file.close, length=end - start)


async def _stream(file: _File, start: int, end: int, run: Run, send: Send) -> None:
    while start < end:
        piece = await run(partial(file.read, start, min(PIECE, end - start)))
        if not piece:
            raise BrokenOff(f"{file.name} has become shorter")
        start += len(piece)
        await send(piece)


def _is_known(request: Request, file: _File) -> bool:
    """Whether the client has the file as it is (RFC 9110, 13.2.2)."""
    tags = request.header(b"if-none-match")
    if tags is not None:
        return tags.strip() == "*" or file.etag in re.findall(r'"[^"]*"', tags)
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
