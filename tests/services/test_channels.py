"""Channels between listeners that keep what they hear."""

from __future__ import annotations

import pytest

from notebook_rpc.errors import InvalidParams
from notebook_rpc.services.channels import MAX_CHANNELS, MAX_NAME, Channels


def test_others_hear_once_and_the_one_who_tells_does_not() -> None:
    channels = Channels()
    heard: list[tuple[str, str]] = []
    with (
        channels.listening(lambda message: heard.append(("a", message))) as a,
        channels.listening(lambda message: heard.append(("b", message))) as b,
        channels.listening(lambda message: heard.append(("c", message))) as c,
    ):
        a.subscribe("x")
        a.subscribe("x")
        b.subscribe("x")
        c.subscribe("y")
        b.notify("x", "one")
        c.notify("x", "two")
    assert heard == [("a", "one"), ("a", "two"), ("b", "two")]


def test_a_channel_is_gone_with_its_last_listener() -> None:
    channels = Channels()
    heard: list[str] = []
    with channels.listening(heard.append) as stays:
        with channels.listening(heard.append) as leaves:
            leaves.subscribe("x")
            leaves.subscribe("y")
            stays.subscribe("y")
            assert len(channels) == 2
        assert len(channels) == 1
        stays.notify("x", "nobody is there")
        stays.notify("y", "only I am there")
    assert heard == []
    assert len(channels) == 0


def test_a_listener_that_leaves_while_it_is_told_disturbs_nobody() -> None:
    channels = Channels()
    heard: list[str] = []
    with (
        channels.listening(lambda _: slow.leave()) as slow,
        channels.listening(heard.append) as other,
        channels.listening(heard.append) as teller,
    ):
        slow.subscribe("x")
        other.subscribe("x")
        teller.notify("x", "1")
        teller.notify("x", "2")
    assert heard == ["1", "2"]


def test_names_and_their_number_are_bounded() -> None:
    channels = Channels()
    with channels.listening(lambda _: None) as listener:
        listener.subscribe("x" * MAX_NAME)
        with pytest.raises(InvalidParams, match="at most 1024 characters"):
            listener.subscribe("x" * (MAX_NAME + 1))
        for number in range(MAX_CHANNELS - 1):
            listener.subscribe(str(number))
        with pytest.raises(InvalidParams, match="no more than 1000 channels"):
            listener.subscribe("one more")
        listener.subscribe("0")
        assert len(channels) == MAX_CHANNELS
