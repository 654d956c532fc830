"""Waiting for what threads, sockets and files do, of which no event of Trio's tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS: Final = 20  # generous: a loaded machine decides


async def until(happened: Callable[[], bool]) -> None:
    """By looking again and again; never asleep, so that no clock of a test jumps meanwhile."""
    with trio.fail_after(SECONDS):
        while not happened():
            await trio.lowlevel.checkpoint()
