"""A folder of files: what is served of it, and as what. What can be reached is in
services/test_files.py; the ways out of it are tried on sockets, in end_to_end/test_routes.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from notebook_rpc.services.files import Files
from notebook_rpc.services.workers import Workers
from notebook_rpc.surfaces import _routes_files
from notebook_rpc.surfaces.routes import Folder
from notebook_rpc.web import BrokenOff, Request

if TYPE_CHECKING:
    from notebook_rpc.web import Response

LARGE = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    for name in ("a.html", "a.js", "a.wasm", "a.tar.gz", "a.unknown", "a.svg", "README"):
        (tmp_path / name).write_text("x")
    (tmp_path / "large.bin").write_bytes(bytes(LARGE))
    return Folder("/files", tmp_path)


async def find(folder: Folder, path: str, *headers: tuple[bytes, bytes]) -> Response | None:
    request = Request("GET", f"/files/{path}", "", headers, parameters={"path": path})
    workers = Workers(limit=1, spare=1)
    try:
        return await folder.find(request, Files(workers))
    finally:
        workers.close()
        await wait_all_tasks_blocked()  # a task closes what they have open


async def found(folder: Folder, path: str, *headers: tuple[bytes, bytes]) -> Response:
    response = await find(folder, path, *headers)
    assert response is not None
    return response


def header(response: Response, name: bytes) -> bytes:
    return dict(response.headers)[name]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", b"text/html; charset=utf-8"),
        ("a.js", b"text/javascript; charset=utf-8"),
        ("a.wasm", b"application/wasm"),
        ("a.tar.gz", b"application/gzip"),
        ("a.svg", b"image/svg+xml; charset=utf-8"),
        ("a.unknown", b"application/octet-stream"),
        ("README", b"application/octet-stream"),
    ],
)
async def test_a_file_is_what_its_name_says(folder: Folder, name: str, kind: bytes) -> None:
    response = await found(folder, name)
    assert (header(response, b"content-type"), response.body) == (kind, b"x")


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        (b"if-none-match", b"*", 304),
        (b"if-none-match", b'"x", W/%b', 304),
        (b"if-none-match", b'"x"', 200),
        (b"if-modified-since", b"Fri, 01 Jan 2100 00:00:00 GMT", 304),
        (b"if-modified-since", b"Thu, 01 Jan 1970 00:00:00 GMT", 200),
        (b"if-modified-since", b"yesterday", 200),
        (b"if-modified-since", b"Fri, 01 Jan 99999 00:00:00 GMT", 200),
    ],
)
async def test_what_a_client_has_is_not_sent_again(
    folder: Folder, name: bytes, value: bytes, status: int
) -> None:
    tag = header(await found(folder, "a.html"), b"etag")
    again = await found(folder, "a.html", (name, value.replace(b"%b", tag)))
    assert again.status == status


async def test_a_tag_is_asked_first_and_alone(folder: Folder) -> None:  # RFC 9110, 13.2.2
    since = (b"if-modified-since", b"Fri, 01 Jan 2100 00:00:00 GMT")
    response = await found(folder, "a.html", since, (b"if-none-match", b'"other"'))
    assert response.status == 200


async def test_another_content_has_another_tag(folder: Folder) -> None:
    tags = [header(await found(folder, "a.html"), b"etag")]
    (folder.folder / "a.html").write_text("xy")
    tags.append(header(await found(folder, "a.html"), b"etag"))
    os.utime(folder.folder / "a.html", ns=(1, 1))
    tags.append(header(await found(folder, "a.html"), b"etag"))
    assert len(set(tags)) == 3


async def test_a_file_that_becomes_shorter_is_cut_off_and_closed(folder: Folder) -> None:
    before = descriptors()
    response = await found(folder, "large.bin")
    assert (response.length, descriptors()) == (LARGE, before + 1)
    sent = []

    async def send(piece: bytes) -> None:
        sent.append(len(piece))
        os.truncate(folder.folder / "large.bin", LARGE // 2)

    assert callable(response.body)
    with pytest.raises(BrokenOff, match="shorter"):
        await response.body(send)
    assert sum(sent) == LARGE // 2
    assert max(sent) <= 256 * 1024
    assert response.done is not None
    await wait_all_tasks_blocked()  # as in ``find``
    for _ in range(2):
        response.done()
        assert descriptors() == before


async def test_a_disk_that_fails_breaks_off_what_has_begun(folder: Folder) -> None:
    response = await found(folder, "large.bin")

    async def send(_: bytes) -> None:
        assert response.done is not None
        response.done()  # after which there is nothing to be read from

    assert callable(response.body)
    with pytest.raises(BrokenOff, match=r"^large\.bin: Bad file descriptor$"):
        await response.body(send)


async def test_a_folder_has_its_index_and_no_list(folder: Folder) -> None:
    (folder.folder / "empty").mkdir()
    for path in ("a.html/", "a.html/b", "empty/", "", "none"):
        assert await find(folder, path) is None
    moved = await found(folder, "empty")
    assert (moved.status, header(moved, b"location")) == (308, b"./empty/")
    (folder.folder / "empty" / "index.html").write_text("index")
    assert (await found(folder, "empty/")).body == b"index"


async def test_one_that_is_not_sent_is_closed_at_once(folder: Folder) -> None:
    before = descriptors()
    for name, value in ((b"if-none-match", b"*"), (b"range", b"bytes=9999999-")):
        assert (await found(folder, "large.bin", (name, value))).status in (304, 416)
        assert descriptors() == before


@given(
    st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True) | st.text(),
    st.integers(0, 10**6),
)
def test_a_part_is_inside_the_file_whatever_is_asked_for(wanted: str, size: int) -> None:
    try:
        part = _routes_files._part(wanted, size)  # noqa: SLF001  # no I/O but for this
    except IndexError:
        return
    if part is not None:
        start, end = part
        assert 0 <= start < end <= size
