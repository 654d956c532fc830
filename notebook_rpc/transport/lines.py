"""Messages that are lines, over two streams: what ``serve --stdio`` speaks.

Messages are carried out one after the other and answered in order, a line each. Those the
app calls urgent are carried out as soon as they have been read, whatever is running. A line
over the limit reaches the app cut off, which no JSON survives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from notebook_rpc.sansio.framing import Lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notebook_rpc.web import Stream

READ_AHEAD: Final = 64  # messages behind the running one; beyond it nothing more is read


class App(Protocol):
    """What answers the messages."""

    def is_urgent(self, message: bytes, /) -> bool: ...

    async def answer(self, message: bytes, /) -> Sequence[bytes] | Stream | None:
        """The answer, without any line break; None: there is none."""
        ...


class LineConnection:
    """Serves one peer. ``drain`` may be called from any task."""

    def __init__(
        self,
        receiving: trio.abc.ReceiveStream,
        sending: trio.abc.SendStream,
        app: App,
        max_line: int,
    ) -> None:
        """*max_line* is in bytes."""
        self._receiving = receiving
        self._sending = sending
        self._app = app
        self._lines = Lines(max_line)
        self._all = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._turn_to_send = trio.Lock()
        self._broken = False

    def drain(self) -> None:
        """Read no more; answer what has been read, then end."""
        self._reading.cancel()

    async def serve(self) -> None:
        """Serve until the peer's end of file, or ``drain``, and every answer is sent.

        Raises:
            trio.BrokenResourceError: the peer takes no more answers; what ran was cancelled.
        """
        queue, waiting = trio.open_memory_channel[bytes](READ_AHEAD)
        with self._all:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry_out_all, waiting)
                async with queue:
                    with self._reading:
                        await self._read(queue)
        if self._broken:
            raise trio.BrokenResourceError("the peer takes no more answers")

    async def _read(self, queue: trio.MemorySendChannel[bytes]) -> None:
        async for data in self._receiving:
            for message in self._lines.feed(data):
                await self._accept(message, queue)
        for message in self._lines.end():
            await self._accept(message, queue)

    async def _accept(self, message: bytes, queue: trio.MemorySendChannel[bytes]) -> None:
        if self._app.is_urgent(message):
            await self._carry_out(message)
        else:
            await queue.send(message)

    async def _carry_out_all(self, waiting: trio.MemoryReceiveChannel[bytes]) -> None:
        async for message in waiting:
            await self._carry_out(message)

    async def _carry_out(self, message: bytes) -> None:
        answer = await self._app.answer(message)
        if answer is None:
            return
        async with self._turn_to_send:
            try:
                if callable(answer):
                    await answer(self._sending.send_all)
                else:
                    for piece in answer:
                        await self._sending.send_all(piece)
                await self._sending.send_all(b"\n")
            except trio.BrokenResourceError:
                self._broken = True
                self._all.cancel()
