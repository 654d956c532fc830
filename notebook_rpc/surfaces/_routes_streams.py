"""Bodies that handlers of the user's write as they go: from a generator, or an asynchronous one."""

from __future__ import annotations

import inspect
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import trio

from notebook_rpc.errors import Busy, HandlerTimeout
from notebook_rpc.web import BrokenOff

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from notebook_rpc.web import Send

T = TypeVar("T")

logger = logging.getLogger(__name__)

CLOSING: Final = 5.0  # seconds for a generator to end that is not read to its end
_END: Final = object()


class Run(Protocol):
    """Does work of a script's on a thread."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


async def send_async(
    pieces: AsyncIterable[Any],
    encode: Callable[[Any], bytes],
    within: Callable[[], AbstractContextManager[None]],
    send: Send,
) -> None:
    """*within* makes the blocks in which the script is at work."""
    iterator = aiter(pieces)
    try:
        while True:
            with within():
                piece = await anext(iterator, _END)
            if piece is _END:
                return
            await send(encode(piece))
    finally:
        if inspect.isasyncgen(iterator):
            with trio.move_on_after(CLOSING, shield=True), within():
                await iterator.aclose()


async def send_plain(
    pieces: Iterable[Any], encode: Callable[[Any], bytes], run: Run, send: Send
) -> None:
    steps = _Steps(pieces, encode)
    try:
        while True:
            try:
                piece = await run(steps.next)
            except (Busy, HandlerTimeout) as exc:
                raise BrokenOff(str(exc)) from exc
            if piece is None:
                return
            await send(piece)
    finally:
        if steps.leave():
            with trio.move_on_after(CLOSING, shield=True):
                await run(partial(_close, steps))


def _close(steps: _Steps) -> None:
    try:
        steps.close()
    except Exception:  # of a script, behind whatever has ended the stream
        logger.exception("a stream could not be closed")


class _Steps:
    """An iterator that one thread after the other is in. One may be left behind in it: then it
    closes it, as nobody else can."""

    def __init__(self, pieces: Iterable[Any], encode: Callable[[Any], bytes]) -> None:
        self._pieces = pieces
        self._encode = encode
        self._iterator: Iterator[Any] | None = None
        self._lock = threading.Lock()
        self._busy = self._left = False

    def next(self) -> bytes | None:
        """The next piece; None at the end."""
        with self._lock:
            if self._left:  # before this thread got going
                return None
            self._busy = True
        try:
            if self._iterator is None:
                self._iterator = iter(self._pieces)
            piece = next(self._iterator, _END)
            return None if piece is _END else self._encode(piece)
        finally:
            with self._lock:
                self._busy = False
            if self._left:
                self.close()

    def leave(self) -> bool:
        """Whether it is left to the caller to close it, on a thread."""
        with self._lock:
            self._left = True
            return not self._busy and inspect.isgenerator(self._iterator)

    def close(self) -> None:
        if inspect.isgenerator(self._iterator):
            self._iterator.close()
