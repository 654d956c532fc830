"""A WebSocket as a handler of the user's has it: in its own task, or from a thread."""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from notebook_rpc.web import WebSocket

GRACE: Final = 5.0  # seconds for plain code to end when its client has left


class AsyncTalk:
    """In the conversation's own task, which is cancelled when the client leaves."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self.connected = True

    @contextmanager
    def lasting(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.connected = False

    async def receive(self, timeout: float | None, /) -> str | bytes | None:  # noqa: ASYNC109  # plain code has no scopes
        with trio.move_on_after(math.inf if timeout is None else timeout):
            return await self._socket.receive()
        return None

    async def send(self, message: str | bytes, /) -> None:
        if not self.connected:
            raise ConnectionError("the client has left")
        try:
            await self._socket.send(message)
        except (trio.ClosedResourceError, trio.BrokenResourceError) as exc:
            raise ConnectionError("the client has left") from exc

    async def close(self, code: int, reason: str, /) -> None:
        self.connected = False
        with suppress(trio.ClosedResourceError):  # raised to who is not the conversation
            await self._socket.close(code, reason)


class PlainTalk(AsyncTalk):
    """For a thread. It cannot be cancelled: when the client has left, it hears so from whatever it
    calls next, and has a moment to end by itself, and to tell the others."""

    def __init__(self, socket: WebSocket) -> None:
        super().__init__(socket)
        self._shield = trio.CancelScope(shield=True)
        self._wanted = trio.Semaphore(0, max_value=1)
        self._waits = False  # for a message that has been wanted and has not come
        self._put, self._take = trio.open_memory_channel[str | bytes](1)

    async def last(self, conversation: Callable[[], Awaitable[None]]) -> None:
        """Await *conversation*."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            with self._shield:
                try:
                    await conversation()
                except Exception as exc:  # noqa: BLE001  # raised below: the nursery would wrap it
                    failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def receive(self, timeout: float | None, /) -> str | bytes | None:  # noqa: ASYNC109  # as above
        if not self._waits:
            self._waits = True
            self._wanted.release()
        with (
            trio.move_on_after(math.inf if timeout is None else timeout),
            suppress(trio.EndOfChannel),
        ):
            message = await self._take.receive()
            self._waits = False
            return message
        return None

    async def _receive(self) -> None:
        """One message at a time, when it is wanted: what nobody has received is not at work."""
        try:
            with self._put:
                while True:
                    await self._wanted.acquire()
                    self._put.send_nowait(await self._socket.receive())
        finally:
            self.connected = False
            self._shield.deadline = trio.current_time() + GRACE
