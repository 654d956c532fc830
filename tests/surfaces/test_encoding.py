"""Answers in the coding that their client takes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from notebook_rpc.errors import NotAcceptable
from notebook_rpc.surfaces.encoding import SMALLEST, Encoding
from notebook_rpc.web import BrokenOff, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notebook_rpc.web import Headers, Send

LARGE = b"x" * SMALLEST
VARY = (b"vary", b"accept-encoding")
TYPE = (b"content-type", b"text/plain")


class Coder:
    """Marks what was coded at a time."""

    async def write(self, pieces: Sequence[bytes | memoryview]) -> bytes:
        return b"<" + b"".join(pieces) + b">"

    async def end(self, pieces: Sequence[bytes | memoryview] = ()) -> bytes:
        return b"<" + b"".join(pieces) + b">."


class Codings:
    codings = ("zstd", "gzip")

    def __init__(self) -> None:
        self.begun: list[str] = []

    def begin(self, coding: str) -> Coder:
        self.begun.append(coding)
        return Coder()


class Client:
    def __init__(self, response: Response) -> None:
        self.codings = Codings()
        self.asked = 0
        self._response = response
        self._handler = Encoding(self.codings).of(self._answer)

    async def _answer(self, _: Request) -> Response:
        self.asked += 1
        return self._response

    async def gets(self, accepted: str | None) -> Response:
        headers: Headers = ()
        if accepted is not None:
            headers = ((b"accept-encoding", accepted.encode()),)
        return await self._handler(Request("GET", "/", "", headers))


async def sent(response: Response) -> list[bytes]:
    assert callable(response.body)
    pieces: list[bytes] = []

    async def send(piece: bytes) -> None:
        pieces.append(piece)

    await response.body(send)
    return pieces


async def test_a_body_is_coded_once_and_says_so() -> None:
    client = Client(Response(200, (TYPE,), LARGE))
    response = await client.gets("gzip, br")
    assert response.headers == (TYPE, VARY, (b"content-encoding", b"gzip"))
    assert response.body == b"<" + LARGE + b">."
    assert client.codings.begun == ["gzip"]


async def test_pieces_are_coded_together() -> None:
    client = Client(Response(200, (TYPE,), [b"a" * SMALLEST, b"b"]))
    assert (await client.gets("zstd, gzip")).body == b"<" + b"a" * SMALLEST + b"b>."
    assert client.codings.begun == ["zstd"]


@pytest.mark.parametrize("accepted", [None, "", "br", "gzip;q=0", "identity, gzip;q=0.1"])
async def test_who_does_not_want_it_gets_it_plain(accepted: str | None) -> None:
    """And whoever keeps it is told that others might get something else."""
    response = await Client(Response(200, (TYPE,), LARGE)).gets(accepted)
    assert (response.headers, response.body) == ((TYPE, VARY), LARGE)


async def test_what_is_small_stays_as_it_is() -> None:
    response = await Client(Response(200, (), LARGE[1:])).gets("gzip")
    assert (response.headers, response.body) == ((VARY,), LARGE[1:])


async def test_unless_that_will_not_do() -> None:
    response = await Client(Response(200, (), b"x")).gets("gzip, identity;q=0")
    assert response.body == b"<x>."


@pytest.mark.parametrize("accepted", ["identity;q=0", "*;q=0", "br, identity;q=0"])
async def test_who_takes_nothing_is_refused_before_anything_is_done(accepted: str) -> None:
    client = Client(Response(200, (), LARGE))
    with pytest.raises(NotAcceptable, match="only zstd, gzip, identity"):
        await client.gets(accepted)
    assert client.asked == 0


async def test_no_body_is_no_matter_of_coding() -> None:
    response = await Client(Response(204)).gets("gzip")
    assert (response.status, response.headers, response.body) == (204, (), b"")


async def test_an_empty_body_might_have_been_another() -> None:
    response = await Client(Response(200, (TYPE,), b"")).gets("gzip, identity;q=0")
    assert (response.headers, response.body) == ((TYPE, VARY), b"")


async def test_what_is_compressed_is_not_compressed_again() -> None:
    parquet = ((b"content-type", b"application/vnd.apache.parquet"),)
    response = await Client(Response(200, parquet, LARGE)).gets("gzip")
    assert (response.headers, response.body) == (parquet, LARGE)


async def test_a_stream_is_coded_piece_by_piece() -> None:
    async def stream(send: Send) -> None:
        for size in (10, 70_000, 3, 4):
            await send(b"x" * size)

    response = await Client(Response(200, (), stream)).gets("gzip")
    assert response.headers == (VARY, (b"content-encoding", b"gzip"))
    assert await sent(response) == [b"<" + b"x" * 70_010 + b">", b"<xxxxxxx>."]


async def test_a_stream_that_breaks_off_has_no_end() -> None:
    async def stream(send: Send) -> None:
        await send(b"x" * 70_000)
        await send(b"y")
        raise BrokenOff

    response = await Client(Response(200, (), stream)).gets("gzip")
    assert callable(response.body)
    pieces: list[bytes] = []

    async def send(piece: bytes) -> None:
        pieces.append(piece)

    with pytest.raises(BrokenOff):
        await response.body(send)
    assert pieces == [b"<" + b"x" * 70_000 + b">"]


async def test_what_must_be_given_back_is_not_held_up() -> None:
    """Nobody would give it back, if the client left while it is coded."""

    @asynccontextmanager
    async def lent() -> AsyncIterator[None]:
        yield

    for response in (
        Response(200, (), LARGE, done=lambda: None),
        Response(200, (), LARGE, resources=lent()),
    ):
        assert (await Client(response).gets("gzip")).body == LARGE


async def test_without_codings_nothing_is_touched() -> None:
    async def answer(_: Request) -> Response:
        return Response(200, (), LARGE)

    assert Encoding().of(answer) is answer
