"""Whatever calls come, working or failing, overlapping or not, the session is in the state
that the protocol's prose says, and refuses exactly the calls that it marks as illegal."""

from __future__ import annotations

from notebook_rpc.errors import WrongState
from notebook_rpc.sansio.session import Call, Session, State

CALLS = list(Call)
NEEDS_ACTIVE = {Call.METADATA, Call.COUNT, Call.PAGE, Call.FINISH}
NEEDS_NO_ACTIVE = {Call.EXECUTE, Call.QUIT}


def call(name: Call, *, works: bool = True, overlapped_by: Call | None = None) -> int:
    """The byte that stands for a call, for seeds."""
    overlap = 0 if overlapped_by is None else 1 + CALLS.index(overlapped_by)
    return CALLS.index(name) + 9 * (not works) + 18 * overlap


SEEDS = [
    bytes(map(call, [Call.TABLES, Call.EXECUTE, Call.METADATA, Call.PAGE, Call.FINISH, Call.QUIT])),
    bytes([call(Call.EXECUTE, works=False), call(Call.FINISH), call(Call.EXECUTE)]),
    bytes([call(Call.EXECUTE), call(Call.FINISH, works=False), call(Call.EXECUTE)]),
    bytes(
        [call(Call.EXECUTE, overlapped_by=Call.PAGE), call(Call.PAGE, overlapped_by=Call.FINISH)]
    ),
    bytes([call(Call.QUIT), call(Call.TABLES), call(Call.QUIT)]),
]


class Failure(Exception):
    """What a call's work raises when it fails."""


def target(data: bytes) -> None:
    session = Session()
    expected = State.NO_ACTIVE
    for byte in data:
        name, works, overlap = CALLS[byte % 9], byte // 9 % 2 == 0, byte // 18 % 10
        legal = expected is not State.TERMINATED and name not in (
            NEEDS_NO_ACTIVE if expected is State.ACTIVE else NEEDS_ACTIVE
        )
        outcome = attempt(
            session, name, works=works, overlap=CALLS[overlap - 1] if overlap else None
        )
        assert outcome == (("works" if works else "fails") if legal else "refused")
        if outcome != "refused" and name is Call.FINISH:
            expected = State.NO_ACTIVE
        elif outcome == "works" and name is Call.EXECUTE:
            expected = State.ACTIVE
        elif outcome == "works" and name is Call.QUIT:
            expected = State.TERMINATED
        assert session.state is expected


def attempt(session: Session, name: Call, *, works: bool, overlap: Call | None) -> str:
    try:
        with session.calling(name):
            if overlap is not None:
                assert attempt(session, overlap, works=True, overlap=None) == "refused"
            if not works:
                raise Failure
    except WrongState:
        return "refused"
    except Failure:
        return "fails"
    return "works"
