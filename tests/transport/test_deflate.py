"""permessage-deflate, coming in: which offers are taken up, and what compressed messages become.

The groups 12 and 13 of Autobahn's suite, with raw bytes, and what it does not ask.
"""

from __future__ import annotations

import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_rpc.transport.deflate import agreement
from notebook_rpc.transport.frames import Incoming, Ping, Violation
from tests.transport.test_frames import Event, sent

TAIL = b"\x00\x00\xff\xff"
BROKEN = bytes.fromhex("0001000000")  # a stored block of two lengths, as the last byte shows
BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def deflated(data: bytes, bits: int = 15) -> bytes:
    compressor = zlib.compressobj(wbits=-bits)
    whole = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert whole.endswith(TAIL)
    return whole[:-4]


def read(*pieces: bytes, limit: int = 1 << 20) -> list[Event | int]:
    """What a client says that has agreed on compression, then the code of a close, if any."""
    incoming, events = Incoming(limit, deflate=True), list[Event | int]()
    try:
        for piece in pieces:
            for event in incoming.feed(piece):
                if event is not None:
                    events.append(event)
    except Violation as exc:
        events.append(exc.code)
    return events


def read_every_way(data: bytes, limit: int = 1 << 20) -> list[Event | int]:
    whole = read(data, limit=limit)
    assert read(*(data[at : at + 1] for at in range(len(data))), limit=limit) == whole
    return whole


def compressed(payload: bytes, opcode: int = 1, *, fin: bool = True) -> bytes:
    return sent(opcode, payload, rsv=4, fin=fin)


# Offers


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", BOTH),
        ("permessage-deflate; client_max_window_bits", BOTH),  # what Chrome and Firefox offer
        ("Permessage-Deflate;client_max_window_bits=9 ; client_no_context_takeover", BOTH),
        ("permessage-deflate; server_no_context_takeover", BOTH),
        ("permessage-deflate; server_max_window_bits=8", f"{BOTH}; server_max_window_bits=8"),
        ('permessage-deflate; server_max_window_bits="15"', f"{BOTH}; server_max_window_bits=15"),
        ("x-webkit-deflate-frame, permessage-deflate", BOTH),
        ("permessage-deflate; secret, permessage-deflate; client_max_window_bits", BOTH),
        (None, None),
        ("", None),
        ("permessage-bzip2", None),
        ("permessage-deflate; secret", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=09", None),
        ("permessage-deflate; client_max_window_bits=x", None),
        ("permessage-deflate; client_max_window_bits=", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("permessage-deflate;", None),
    ],
)
def test_which_offers_are_taken_up(offer: str | None, answer: str | None) -> None:
    assert agreement(offer) == answer


# Messages


@settings(max_examples=50)
@given(
    whole=st.binary(max_size=5000) | st.integers(0, 100_000).map(bytes),
    bits=st.integers(9, 15),
    cuts=st.lists(st.integers(0, 5000), max_size=4),
)
def test_messages_are_inflated_however_they_are_cut(
    whole: bytes, bits: int, cuts: list[int]
) -> None:
    payload = deflated(whole, bits)
    places = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
    data = b"".join(
        sent(0 if at else 2, payload[start:end], rsv=0 if at else 4, fin=end == len(payload))
        for at, (start, end) in enumerate(pairwise(places))
        if at == 0 or start < end
    )
    assert read(data) == read(*(data[at : at + 7] for at in range(0, len(data), 7))) == [whole]


def test_some_may_be_compressed_and_others_not_and_nothing_is_kept_between() -> None:
    data = (
        compressed(deflated(b"hello " * 9)) + sent(1, b"plain") + compressed(deflated(b"\x01"), 2)
    )
    assert read_every_way(data) == ["hello " * 9, "plain", b"\x01"]


def test_a_ping_between_two_fragments_is_no_end() -> None:
    payload = deflated(b"hello hello hello")
    data = compressed(payload[:4], fin=False) + sent(9, b"?") + sent(0, payload[4:])
    assert read_every_way(data) == [Ping(b"?"), "hello hello hello"]


def test_a_message_may_end_in_a_final_block_and_the_next_is_whole() -> None:
    final = bytes.fromhex("f348cdc9c9070000")  # RFC 7692, 7.2.3.4: "Hello", and a zero byte
    assert read_every_way(compressed(final) * 2) == ["Hello"] * 2
    assert read_every_way(compressed(final[:-1])) == ["Hello"]


def test_an_empty_one() -> None:
    assert read_every_way(compressed(b"\x00")) == [""]
    assert read_every_way(compressed(b"")) == [""]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(compressed(b"\xff\xff"), 1007, id="no deflate"),
        pytest.param(compressed(deflated(b"\xff\xfe")), 1007, id="text that is none"),
        pytest.param(compressed(bytes.fromhex("f348cdc9c90700") * 2), 1007, id="two streams"),
        pytest.param(compressed(b"\x03\x00" * 5000), 1007, id="many empty streams"),
        pytest.param(compressed(b"\x03\x00" + b"\x00" * 50), 1007, id="much padding"),
        pytest.param(sent(1, b"", rsv=4, fin=False) + sent(0, b"", rsv=4), 1002, id="said twice"),
        pytest.param(compressed(b"", fin=False) + compressed(BROKEN), 1002, id="a new one in it"),
        pytest.param(sent(0, b"x")[:-1], 1002, id="the rest of none, by its header"),
        pytest.param(sent(9, b"", rsv=4), 1002, id="a compressed ping"),
        pytest.param(sent(1, b"", rsv=2), 1002, id="another bit"),
    ],
)
def test_what_is_wrong(data: bytes, code: int) -> None:
    assert read_every_way(data) == [code]


def test_one_that_was_not_agreed_on_is_refused() -> None:
    with pytest.raises(Violation) as caught:
        list(Incoming(100, deflate=False).feed(compressed(deflated(b"a"))))
    assert caught.value.code == 1002


# Bombs


def test_what_a_message_becomes_is_limited_to_the_byte() -> None:
    for opcode in (1, 2):
        (message,) = read_every_way(compressed(deflated(b"a" * 1000), opcode), limit=1000)
        assert message == ("a" * 1000 if opcode == 1 else b"a" * 1000)
        assert read_every_way(compressed(deflated(b"a" * 1001), opcode), limit=1000) == [1009]


def test_in_all_its_fragments_together() -> None:
    payload = deflated(b"a" * 1001)
    data = compressed(payload[:5], fin=False) + sent(0, payload[5:])
    assert read_every_way(data, limit=1000) == [1009]


def test_a_bomb_is_not_inflated_before_it_is_refused() -> None:
    bomb = compressed(deflated(bytes(64 << 20)), 2)
    tracemalloc.start()
    try:
        assert read(bomb, limit=len(bomb)) == [1009]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * len(bomb)
