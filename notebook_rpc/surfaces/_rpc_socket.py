"""JSON-RPC over a WebSocket: calls are carried out one after the other and answered in order,
each with a message; ``cancel`` and ``progress`` as soon as they have come.

More calls than can be kept are not read from the socket, and wait in the network.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notebook_rpc.web import Send, SendPieces, Stream, WebSocket

MAX_WAITING: Final = 1000  # calls behind the running one
MAX_BYTES: Final = 64 << 20  # of them together, though one more may be as large as a message may be
GATHERED: Final = 64 * 1024  # bytes; a smaller answer is sent in one piece
UNSUPPORTED: Final = 1003  # RFC 6455, 7.4.1


class Dialogue(Protocol):
    """``surfaces.rpc.Dialogue``."""

    def is_urgent(self, message: bytes, /) -> bool: ...
    async def answer(self, message: bytes, /) -> Sequence[bytes] | Stream | None: ...


async def converse(
    dialogue: Dialogue,
    ended: Callable[[], bool],
    hold: Callable[[int], Callable[[], None]],
    socket: WebSocket,
) -> None:
    """Answer what comes by *socket*, until *ended* says that the session has. *hold* is as of
    ``rpc.Options``."""
    conversation = _Conversation(dialogue, hold, socket)
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            async for message, entered in conversation.waiting:
                with entered:
                    await conversation.carry_out(message)
                if ended():
                    nursery.cancel_scope.cancel()

        nursery.start_soon(answer)
        await conversation.receive()


class _Conversation:
    def __init__(
        self, dialogue: Dialogue, hold: Callable[[int], Callable[[], None]], socket: WebSocket
    ) -> None:
        self._dialogue = dialogue
        self._hold = hold
        self._socket = socket
        self._bytes = 0
        self._fewer = trio.Event()
        self._queue, self.waiting = trio.open_memory_channel[tuple[bytes, ExitStack]](MAX_WAITING)

    async def receive(self) -> None:
        while True:
            text = await self._socket.receive()
            if isinstance(text, bytes):
                await self._socket.close(UNSUPPORTED, "JSON-RPC is text")
                return
            message = text.encode()
            if self._dialogue.is_urgent(message):
                await self.carry_out(message)
                continue
            while self._bytes >= MAX_BYTES:
                await self._fewer.wait()
            with ExitStack() as entered:
                entered.enter_context(self._socket.working())
                self._bytes += len(message)
                entered.callback(self._less, len(message))
                await self._queue.send((message, entered.pop_all()))

    def _less(self, size: int) -> None:
        self._bytes -= size
        self._fewer.set()
        self._fewer = trio.Event()

    async def carry_out(self, message: bytes) -> None:
        answer = await self._dialogue.answer(message)
        if callable(answer):
            await self._send(answer)
        elif answer is not None:
            release = self._hold(sum(map(len, answer)))
            try:
                await self._send(_stream_of(answer))
            finally:
                release()

    async def _send(self, stream: Stream) -> None:
        """A small answer is sent when it is whole: while a message goes out in fragments,
        nothing else can, not even the answer to ``cancel``."""
        gathered: list[bytes] = []
        size = 0
        send_on: SendPieces | None = None

        async with AsyncExitStack() as stack:

            async def send(piece: bytes) -> None:
                nonlocal size, send_on
                if send_on is not None:
                    await send_on([piece])
                    return
                gathered.append(piece)
                size += len(piece)
                if size > GATHERED:
                    send_on = await stack.enter_async_context(self._socket.sending(text=True))
                    await send_on(gathered)

            await stream(send)
        if send_on is None:
            await self._socket.send(b"".join(gathered).decode())


def _stream_of(pieces: Sequence[bytes]) -> Stream:
    async def stream(send: Send) -> None:
        for piece in pieces:
            await send(piece)

    return stream
