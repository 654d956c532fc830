"""The Active/NoActive session, as a table and nothing else.

Rule 1: every fact about which call is legal when lives in this file.
Rule 2: this file performs no I/O, reads no clock and knows no wire format.

Source: ADONotebook README, "Methods"; the annotations @Active and @NoActive.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from notebook_rpc.errors import WrongState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class State(enum.Enum):
    """Whether a query is open. Nothing leaves TERMINATED."""

    NO_ACTIVE, ACTIVE, TERMINATED = "NoActive", "Active", "Terminated"


class Call(enum.Enum):
    """The nine methods. ``cancel`` and ``progress`` are no calls: they go around the session."""

    TABLES, VIEWS, COLUMNS = "tables", "views", "columns"
    EXECUTE, METADATA, COUNT, PAGE, FINISH = "execute", "metadata", "count", "page", "finish"
    QUIT = "quit"


NO_ACTIVE, ACTIVE, TERMINATED = State
CATALOG: Final = (Call.TABLES, Call.VIEWS, Call.COLUMNS)
READS: Final = (Call.METADATA, Call.COUNT, Call.PAGE)

# A call that is not in its state's row is refused, and refusing changes nothing.
TRANSITIONS: Final[Mapping[State, Mapping[Call, State]]] = {
    NO_ACTIVE: {**dict.fromkeys(CATALOG, NO_ACTIVE), Call.EXECUTE: ACTIVE, Call.QUIT: TERMINATED},
    ACTIVE: {**dict.fromkeys((*CATALOG, *READS), ACTIVE), Call.FINISH: NO_ACTIVE},
    TERMINATED: {},
}
# A failed call leaves the state alone, with one exception: a result that failed to close
# is not coming back, and keeping it would leave the client no way out.
ON_FAILURE: Final[Mapping[Call, State]] = {Call.FINISH: NO_ACTIVE}


class Session:
    """One client's query, from NoActive to Active and back."""

    def __init__(self) -> None:
        self.state = NO_ACTIVE
        self._pending: Call | None = None

    @contextmanager
    def calling(self, call: Call) -> Iterator[None]:
        """Wrap the work of one call, awaits included. Overlapping calls are refused.

        Raises:
            WrongState: the call is not legal now; its work must not begin.
        """
        if self._pending is not None:
            raise WrongState(f"{call.value} arrived while {self._pending.value} is running")
        if call not in TRANSITIONS[self.state]:
            raise WrongState(_refusal(call, self.state))
        self._pending, after = call, ON_FAILURE.get(call, self.state)
        try:
            yield
            after = TRANSITIONS[self.state].get(call, after)
        finally:  # a cancelled call is a failed call
            self._pending = None
            if self.state is not TERMINATED:
                self.state = after

    def terminate(self) -> None:
        """End the session from outside, whatever its state; a call that runs is its last."""
        self.state = TERMINATED


def _refusal(call: Call, state: State) -> str:
    """Why, and what to do about it: people read this in a notebook."""
    if state is TERMINATED:
        return f"{call.value} is not allowed: the session has ended"
    if state is ACTIVE:
        return f"{call.value} is not allowed while a query is active; call finish first"
    return f"{call.value} needs an active query; call execute first"
