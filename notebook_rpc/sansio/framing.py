"""Where one message ends and the next begins, in streams that are not HTTP."""

from __future__ import annotations


class Lines:
    """Cuts a stream into lines. Empty ones are left out, and of one over the limit the rest."""

    def __init__(self, max_line: int) -> None:
        """*max_line* is in bytes."""
        self._max_line = max_line
        self._begun = bytearray()

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """The lines that *data* ends, without blanks around them."""
        lines = []
        begin = 0
        while (end := data.find(b"\n", begin)) >= 0:
            self._keep(data[begin:end])
            lines += self.end()
            begin = end + 1
        self._keep(data[begin:])
        return lines

    def end(self) -> list[bytes]:
        """The last line, if it has no end of its own."""
        line = bytes(self._begun).strip()
        self._begun.clear()
        return [line] if line else []

    def _keep(self, data: bytes | bytearray) -> None:
        self._begun += data[: max(0, self._max_line - len(self._begun))]
