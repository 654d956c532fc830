"""Named channels between clients: what one tells, all who subscribed hear.

A channel is there as long as somebody subscribes to it. Its name is the clients' own and means
nothing here: nobody but clients is on any channel, and nothing of the server's can be reached by
a name. What it refuses: to wait for a slow listener, or to keep messages for a late one.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from notebook_rpc.errors import InvalidParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_CHANNELS: Final = 1000  # of one listener
MAX_NAME: Final = 1024  # characters


class Listener:
    """A client, as its channels know it. Made by ``Channels.listening``."""

    def __init__(
        self, channels: dict[str, dict[Listener, None]], deliver: Callable[[str], None]
    ) -> None:
        self._channels = channels
        self._deliver = deliver
        self._own: set[str] = set()

    def subscribe(self, channel: str) -> None:
        """Hear of *channel*. To subscribe again changes nothing.

        Raises:
            InvalidParams: the name is too long, or it would be one channel too many.
        """
        if len(channel) > MAX_NAME:
            raise InvalidParams(f"a channel's name has at most {MAX_NAME} characters")
        if channel not in self._own and len(self._own) == MAX_CHANNELS:
            raise InvalidParams(f"no more than {MAX_CHANNELS} channels can be subscribed to")
        self._own.add(channel)
        self._channels.setdefault(channel, {})[self] = None

    def notify(self, channel: str, message: str) -> None:
        """Give *message* to all others who subscribed to *channel*."""
        # A copy: a listener who is too slow may be gone by the time the next one hears.
        for listener in tuple(self._channels.get(channel, ())):
            if listener is not self:
                listener._deliver(message)  # noqa: SLF001  # one of our own

    def leave(self) -> None:
        """Hear of nothing any more."""
        for channel in self._own:
            listeners = self._channels[channel]
            del listeners[self]
            if not listeners:
                del self._channels[channel]
        self._own.clear()


class Channels:
    """The channels of a server."""

    def __init__(self) -> None:
        # A channel's listeners in the order in which they came, as a set has none.
        self._channels: dict[str, dict[Listener, None]] = {}

    def __len__(self) -> int:
        return len(self._channels)

    @contextmanager
    def listening(self, deliver: Callable[[str], None]) -> Iterator[Listener]:
        """A listener for as long as the block lasts. *deliver* is given what it hears, and must
        neither wait nor raise."""
        listener = Listener(self._channels, deliver)
        try:
            yield listener
        finally:
            listener.leave()
