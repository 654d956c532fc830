"""A statement's rows on their way to a client, as the database gives them.

It refuses to let a client take a part of a result for the whole: what breaks off does so where
everybody sees it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from notebook_rpc.errors import NotebookError
from notebook_rpc.web import BrokenOff

if TYPE_CHECKING:
    from notebook_rpc.model import ResultColumn
    from notebook_rpc.web import Send, Stream

Pieces: TypeAlias = Sequence[bytes | memoryview]


class Answer(Protocol):
    """A statement's rows; ``services.answers.Answer`` explains it."""

    @property
    def columns(self) -> Sequence[ResultColumn]: ...
    @property
    def count(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    @property
    def row_count(self) -> int: ...
    @property
    def total_count(self) -> int | None: ...
    async def read(self) -> Pieces: ...


def stream(
    answer: Answer,
    first: Pieces,
    *,
    before: bytes = b"",
    after: Callable[[], bytes] = bytes,
    last_words: bytes = b"",
) -> Stream:
    """A body of *before*, *first*, all else that *answer* has, and what *after* makes then; see
    ``pass_on`` for *last_words*."""

    async def write(send: Send) -> None:
        async def write_pieces(pieces: Pieces) -> None:
            for piece in pieces:
                if piece:
                    await send(bytes(piece))

        if before:
            await send(before)
        await pass_on(answer, first, write_pieces, last_words)
        if rest := after():
            await send(rest)

    return write


async def pass_on(
    answer: Answer,
    first: Pieces,
    send: Callable[[Pieces], Awaitable[None]],
    last_words: bytes,
) -> None:
    """*last_words* make what was sent unreadable, if there is no more to come.

    Raises:
        BrokenOff: there is not, though there should.
    """
    pieces = first
    while pieces:
        await send(pieces)
        try:
            pieces = await answer.read()
        except NotebookError as exc:
            if last_words:
                await send([last_words])
            raise BrokenOff(str(exc)) from exc
