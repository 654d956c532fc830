"""Bodies that handlers of the user's write as they go: from a generator, or an asynchronous one."""

from __future__ import annotations

import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import trio

from notebook_rpc.errors import Busy, HandlerTimeout
from notebook_rpc.web import BrokenOff

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
    from contextlib import AbstractContextManager

    from notebook_rpc.web import Send

T = TypeVar("T")

logger = logging.getLogger(__name__)

CLOSING: Final = 5.0  # seconds for a generator to end that is not read to its end
_END: Final = object()


class Run(Protocol):
    """Does work of a script's on a thread."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


class Steps(Protocol):
    """``services.handlers.Steps``."""

    def next(self) -> bytes | None: ...
    def leave(self) -> bool: ...
    def close(self) -> None: ...


async def send_async(
    pieces: AsyncIterable[Any],
    encode: Callable[[Any], bytes],
    within: Callable[[], AbstractContextManager[None]],
    send: Send,
) -> None:
    """*within* makes the blocks in which the script is at work."""
    with within():
        iterator = aiter(pieces)

    try:
        while True:
            with within():
                piece = await anext(iterator, _END)
                if piece is _END:
                    return
                encoded = encode(piece)
            await send(encoded)
    finally:
        if inspect.isasyncgen(iterator):
            await _ended(partial(_aclose, iterator, within))


async def send_plain(steps: Steps, run: Run, send: Send) -> None:
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
            await _ended(partial(run, steps.close))


async def _aclose(
    generator: AsyncGenerator[Any, Any], within: Callable[[], AbstractContextManager[None]]
) -> None:
    with within():
        await generator.aclose()


async def _ended(close: Callable[[], Awaitable[None]]) -> None:
    """Have what was not read to its end closed. Whatever comes of that is for the log: what is
    raised is why it was not, a ``Cancelled`` above all, which must not be lost."""
    with trio.move_on_after(CLOSING, shield=True):
        try:
            await close()
        except (Busy, HandlerTimeout) as exc:
            logger.warning("a stream could not be closed: %s", exc)
        except Exception:  # of a script
            logger.exception("a stream could not be closed")
