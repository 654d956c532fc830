"""The session machine against a model that never read its table.

The rules of the model come from the protocol's prose: which methods are marked @Active,
which @NoActive, and what a failure leaves behind.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from notebook_rpc.errors import WrongState
from notebook_rpc.sansio.session import Call, Session, State

NEEDS_ACTIVE = {Call.METADATA, Call.COUNT, Call.PAGE, Call.FINISH}
NEEDS_NO_ACTIVE = {Call.EXECUTE, Call.QUIT}


class SessionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.session, self.active, self.terminated = Session(), False, False

    def legal(self, call: Call) -> bool:
        wanted = NEEDS_NO_ACTIVE if self.active else NEEDS_ACTIVE
        return not self.terminated and call not in wanted

    @rule(call=st.sampled_from(Call), works=st.booleans())
    def a_call(self, call: Call, works: bool) -> None:
        expected = WrongState if not self.legal(call) else None if works else ConnectionError
        with pytest.raises(expected) if expected else nullcontext(), self.session.calling(call):
            if not works:
                raise ConnectionError
        if expected is not WrongState and call is Call.FINISH:
            self.active = False
        elif expected is None:
            self.active |= call is Call.EXECUTE
            self.terminated = call is Call.QUIT

    @precondition(lambda self: not self.terminated)
    @rule(call=st.sampled_from(Call))
    def calls_do_not_overlap(self, call: Call) -> None:
        with (
            self.session.calling(Call.TABLES),
            pytest.raises(WrongState, match="while tables"),
            self.session.calling(call),
        ):
            pass

    @rule(call=st.sampled_from(Call), during=st.booleans())
    def ended_from_outside(self, call: Call, during: bool) -> None:
        if during and self.legal(call):
            with self.session.calling(call):
                self.session.terminate()
        else:
            self.session.terminate()
        self.terminated = True

    @invariant()
    def agrees_with_the_model(self) -> None:
        expected = (
            State.TERMINATED
            if self.terminated
            else State.ACTIVE
            if self.active
            else State.NO_ACTIVE
        )
        assert self.session.state is expected


TestSessionMachine = SessionMachine.TestCase


@pytest.mark.parametrize("call", [call for call in Call if call in NEEDS_ACTIVE])
def test_a_call_that_needs_a_query_says_how_to_get_one(call: Call) -> None:
    with pytest.raises(WrongState, match="call execute first"), Session().calling(call):
        pass


@pytest.mark.parametrize("call", [call for call in Call if call in NEEDS_NO_ACTIVE])
def test_a_call_that_needs_no_query_says_how_to_end_it(call: Call) -> None:
    session = Session()
    with session.calling(Call.EXECUTE):
        pass
    with pytest.raises(WrongState, match="call finish first"), session.calling(call):
        pass


@pytest.mark.parametrize("call", list(Call))
def test_after_the_end_it_says_that_there_is_no_way_back(call: Call) -> None:
    session = Session()
    with session.calling(Call.QUIT):
        pass
    with pytest.raises(WrongState, match="the session has ended"), session.calling(call):
        pass


def test_a_cancelled_call_is_a_failed_call() -> None:
    session = Session()
    with pytest.raises(KeyboardInterrupt), session.calling(Call.EXECUTE):
        raise KeyboardInterrupt
    with pytest.raises(WrongState), session.calling(Call.PAGE):
        pass
    with session.calling(Call.EXECUTE):
        pass
    assert session.state is State.ACTIVE
