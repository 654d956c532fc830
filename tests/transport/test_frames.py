"""WebSocket frames, byte for byte: what we write, wsproto reads; what clients write, we judge."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection as Reference
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.events import Ping as ReferencePing
from wsproto.frame_protocol import FrameProtocol

from notebook_rpc.transport import frames
from notebook_rpc.transport.frames import Closing, Incoming, Ping, Pong, Violation

Event: TypeAlias = str | bytes | Ping | Pong | Closing

KEY = b"\x37\xfa\x21\x3d"
BORDERS = [0, 1, 125, 126, 127, 65535, 65536, 65537]


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    whole = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(whole)).to_bytes(len(payload))


def sent(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, key: bytes = KEY
) -> bytes:
    """A client's frame, of any kind, right or wrong."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    size = len(payload)
    if size <= 125:
        head = bytes([first, 0x80 | size])
    elif size <= 0xFFFF:
        head = bytes([first, 0x80 | 126]) + struct.pack("!H", size)
    else:
        head = bytes([first, 0x80 | 127]) + struct.pack("!Q", size)
    return head + key + masked(payload, key)


def read(*pieces: bytes, limit: int = 1 << 20, deflate: bool = False) -> tuple[list[Event], int]:
    """What *pieces* say, and the code of the close that they call for; 0 for none."""
    incoming, events = Incoming(limit, deflate=deflate), list[Event]()
    try:
        for piece in pieces:
            for event in incoming.feed(piece):
                if event is not None:
                    events.append(event)
            if events and isinstance(events[-1], Closing):
                break
    except Violation as exc:
        return events, exc.code
    return events, 0


def read_every_way(data: bytes, limit: int = 1 << 20) -> tuple[list[Event], int]:
    """As ``read``, whole and byte by byte, which must agree."""
    whole = read(data, limit=limit)
    assert read(*(data[at : at + 1] for at in range(len(data))), limit=limit) == whole
    return whole


# What goes out


@pytest.mark.parametrize("size", BORDERS)
def test_a_length_is_written_in_the_shortest_way(size: int) -> None:
    length = {0: 2, 1: 2, 125: 2, 126: 4, 127: 4, 65535: 4, 65536: 10, 65537: 10}[size]
    assert len(frames.header(frames.TEXT, size)) == length
    assert frames.header(frames.BINARY, 5, finished=False) == b"\x02\x05"
    assert frames.header(frames.CONTINUATION, 300) == b"\x80\x7e\x01\x2c"


def reference(data: bytes) -> list[object]:
    """What a client understands, with the pieces of each message joined."""
    client = Reference(ConnectionType.CLIENT)
    client.receive_data(data)
    events: list[object] = []
    pieces: list[str | bytes] = []
    for event in client.events():
        if isinstance(event, TextMessage | BytesMessage):
            pieces.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
            if event.message_finished:
                events.append(pieces[0][:0].join(pieces))  # type: ignore[arg-type]  # one kind
                pieces = []
        elif isinstance(event, ReferencePing):
            events.append(Ping(bytes(event.payload)))
        else:
            assert isinstance(event, CloseConnection)
            events.append(Closing(event.code, event.reason or ""))
    return events


def joined(pieces: list[frames.Piece]) -> bytes:
    return b"".join(pieces)


@settings(max_examples=50)
@given(
    content=st.text() | st.binary() | st.lists(st.binary(max_size=200), max_size=8),
    size=st.sampled_from(BORDERS),
)
def test_a_client_reads_what_is_written(content: str | bytes | list[bytes], size: int) -> None:
    whole = b"".join(content) if isinstance(content, list) else content
    for message, expected in [(content, whole), ("a" * size, "a" * size), (bytes(size),) * 2]:
        assert reference(joined(frames.message(message))) == [expected]


@settings(max_examples=50)
@given(cuts=st.lists(st.integers(0, 70_000), max_size=6), text=st.booleans())
def test_a_client_reads_fragments_with_pings_between_as_one_message(
    cuts: list[int], text: bool
) -> None:
    whole = "grüße 🌍 ".encode() * 5000
    data, opcode = bytearray(), frames.TEXT if text else frames.BINARY
    for start, end in pairwise([0, *sorted(cuts), len(whole)]):  # also inside a character
        data += joined(frames.frame(opcode, [whole[start:end]], finished=False))
        data += frames.control(frames.PING, b"%d" % start)
        opcode = frames.CONTINUATION
    data += joined(frames.frame(frames.CONTINUATION, ()))
    events = [event for event in reference(bytes(data)) if not isinstance(event, Ping)]
    assert events == [whole.decode() if text else whole]
    assert len(reference(bytes(data))) == len(cuts) + 2


def test_pieces_are_passed_on_and_neither_joined_nor_copied() -> None:
    piece, numbers = b"a" * 1000, memoryview(struct.pack("4i", 1, 2, 3, 4)).cast("i")
    head, first, second = frames.message([piece, numbers])
    assert first is piece
    assert isinstance(second, memoryview)
    assert second.obj is numbers.obj
    assert (bytes(head), second.nbytes) == (b"\x82\x7e\x03\xf8", 16)  # 1016 bytes, not 1004 items


def test_text_that_utf_8_cannot_say_is_refused_before_a_byte_of_it_is_sent() -> None:
    with pytest.raises(UnicodeEncodeError):
        frames.message("\ud800")


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (None, "", b""),
        (1000, "", b"\x03\xe8"),
        (4999, "why", b"\x13\x87why"),
        (1011, "é" * 100, b"\x03\xf3" + "é".encode() * 61),  # 122 bytes; a 62nd would be half
    ],
)
def test_a_farewell_has_a_code_and_as_much_of_its_reason_as_fits(
    code: int | None, reason: str, payload: bytes
) -> None:
    assert frames.close(code, reason) == bytes([0x88, len(payload)]) + payload


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536])
def test_a_code_that_nobody_may_send_is_not_sent(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        frames.close(code)


# What comes in. The numbers are those of the groups in Autobahn's test suite.


@pytest.mark.parametrize("size", BORDERS)
@pytest.mark.parametrize("opcode", [frames.TEXT, frames.BINARY])
def test_1_messages_of_all_sizes(opcode: int, size: int) -> None:
    data = sent(opcode, b"*" * size)
    expected = "*" * size if opcode == frames.TEXT else b"*" * size
    assert read(data) == ([expected], 0)
    assert read(data[:1], data[1:5], data[5:-1], data[-1:]) == ([expected], 0)


def test_2_pings_and_pongs_with_and_without_a_payload() -> None:
    data = sent(9) + sent(9, b"\x00\xff" * 62) + sent(10, b"unasked for") + sent(1, b"a")
    assert read_every_way(data) == (
        [Ping(b""), Ping(b"\x00\xff" * 62), Pong(b"unasked for"), "a"],
        0,
    )


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [1, 2, 8, 9, 10])
def test_3_reserved_bits_mean_nothing_here(opcode: int, rsv: int) -> None:
    data = sent(1, b"before") + sent(opcode, b"", rsv=rsv) + sent(1, b"after")
    assert read_every_way(data) == (["before"], 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_4_opcodes_that_mean_nothing(opcode: int) -> None:
    assert read_every_way(sent(1, b"before") + sent(opcode, b"x")) == (["before"], 1002)


def test_5_fragments_make_one_message_and_others_may_come_between() -> None:
    data = (
        sent(1, b"a", fin=False) + sent(9, b"1") + sent(0, b"", fin=False) + sent(10)
        + sent(0, b"b") + sent(2, b"", fin=False) + sent(0, b"c")
        + sent(1, b"", fin=False) + sent(0)
    )  # fmt: skip
    assert read_every_way(data) == ([Ping(b"1"), Pong(b""), "ab", b"c", ""], 0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(sent(0, b"x"), id="a continuation of nothing"),
        pytest.param(sent(0, b"x", fin=False), id="the same, unfinished"),
        pytest.param(sent(1, b"a", fin=False) + sent(1, b"b"), id="a text in a text"),
        pytest.param(sent(1, b"a", fin=False) + sent(2, b"b"), id="a binary in a text"),
        pytest.param(sent(1, b"a") + sent(0, b"x"), id="a continuation of what is whole"),
        pytest.param(sent(9, b"x", fin=False), id="a ping in fragments"),
        pytest.param(sent(8, b"\x03\xe8", fin=False), id="a close in fragments"),
        pytest.param(sent(9, b"x" * 126), id="a long ping"),
        pytest.param(sent(8, b"\x03\xe8" + b"x" * 124), id="a long close"),
        pytest.param(b"\x81\x01a", id="no mask"),
        pytest.param(b"\x81\xfe\x00\x05" + KEY + b"12345", id="a length of 5 in two bytes"),
        pytest.param(b"\x81\xff" + b"\x00" * 7 + b"\x05" + KEY, id="a length of 5 in eight"),
        pytest.param(b"\x82\xff\x80" + b"\x00" * 7 + KEY, id="a negative length"),
    ],
)
def test_5_broken_framing(data: bytes) -> None:
    events, code = read_every_way(data)
    assert (code, events) == (1002, ["a"] if data.startswith(sent(1, b"a")) else [])


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xf0\x9f\x8c",
        "κόσμε".encode() + b"\xed\xa0\x80edited", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce",
    ],
)  # fmt: skip
def test_6_text_is_utf_8(payload: bytes) -> None:
    assert read_every_way(sent(1, payload)) == ([], 1007)
    pieces = [payload[at : at + 1] for at in range(len(payload))]
    parts = [sent(0 if at else 1, piece, fin=False) for at, piece in enumerate(pieces)]
    assert read_every_way(b"".join(parts) + sent(0)) == ([], 1007)
    assert read_every_way(sent(2, payload)) == ([payload], 0)


def test_6_it_is_judged_at_its_first_wrong_byte() -> None:
    assert read(sent(1, b"fine so far \xff and 1000 bytes to come" + b"." * 1000)[:30])[1] == 1007


def test_6_characters_may_be_cut_by_fragments() -> None:
    text = "κόσμε 🌍 \U0010ffff"
    data = text.encode()
    parts = [sent(0 if at else 1, data[at : at + 1], fin=False) for at in range(len(data))]
    assert read_every_way(b"".join(parts) + sent(0)) == ([text], 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (sent(1, b"a", fin=False) + sent(1, b"b"), "protocol error"),
        (sent(3), "protocol error"),
        (sent(1, b"\xff"), "not UTF-8, or not compressed as agreed"),
        (sent(8, b"\x03\xe8\xff"), "not UTF-8, or not compressed as agreed"),
        (b"\x82\xff" + b"\x00" + b"\x7f" * 7 + KEY, "too large"),
    ],
)
def test_7_what_is_said_of_it_means_something_to_any_client(data: bytes, reason: str) -> None:
    with pytest.raises(Violation) as caught:
        list(Incoming(1000).feed(data))
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("payload", "outcome"),
    [
        (b"", Closing(None, "")),
        (b"\x03\xe8", Closing(1000, "")),
        (b"\x03\xe8" + b"x" * 123, Closing(1000, "x" * 123)),
        (b"\x0b\xb8bye", Closing(3000, "bye")),
        (b"\x13\x87", Closing(4999, "")),
        (b"\x03", 1002),
        (b"\x03\xe8\xce\xba\xff", 1007),
        *((struct.pack("!H", code), 1002) for code in (0, 999, 1004, 1005, 1006, 1016, 2999, 5000)),
        *((struct.pack("!H", code), Closing(code, "")) for code in (1001, 1002, 1003, 1007, 1010)),
    ],
)
def test_7_closes(payload: bytes, outcome: Closing | int) -> None:
    expected = ([outcome], 0) if isinstance(outcome, Closing) else ([], outcome)
    assert read_every_way(sent(8, payload) + sent(1, b"too late")) == expected


def test_9_a_message_may_be_as_large_as_the_limit_and_no_larger() -> None:
    for opcode in (1, 2):
        assert read_every_way(sent(opcode, b"a" * 100), limit=100)[1] == 0
        assert read_every_way(sent(opcode, b"a" * 101), limit=100) == ([], 1009)
    fits = sent(1, b"a" * 60, fin=False) + sent(9, b"b" * 60) + sent(0, b"c" * 40)
    assert read_every_way(fits * 2, limit=100)[1] == 0  # each has its own limit
    over = sent(1, b"a" * 60, fin=False) + sent(9) + sent(0, b"c" * 41)
    assert read_every_way(over, limit=100) == ([Ping(b"")], 1009)


def test_9_the_header_of_one_that_is_too_large_is_enough() -> None:
    assert read(sent(1, b"a" * 70_000)[:10], limit=100) == ([], 1009)
    assert read(sent(2, b"a" * 60, fin=False) + sent(0, b"b" * 41)[:6], limit=100) == ([], 1009)


def test_9_the_limit_counts_bytes_and_not_characters() -> None:
    assert read(sent(1, "é".encode() * 50), limit=100) == (["é" * 50], 0)
    assert read(sent(1, "é".encode() * 51), limit=100) == ([], 1009)


@pytest.mark.parametrize("opcode", [1, 2])
def test_9_fragments_of_two_bytes_take_little_more_memory_than_the_message(opcode: int) -> None:
    incoming, part = Incoming(1 << 20, deflate=False), sent(0, b"ab", fin=False) * 1000
    tracemalloc.start()
    try:
        for data in (sent(opcode, b"ab", fin=False), *[part] * 100):
            assert all(event is None for event in incoming.feed(data))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (message,) = (event for event in incoming.feed(sent(0)) if event is not None)
    assert message in ("ab" * 100_001, b"ab" * 100_001)
    assert size < 2 * 200_002


def test_a_reader_can_pause_at_each_frame() -> None:
    data = sent(2, fin=False) + sent(0, fin=False) * 2
    assert list(Incoming(10, deflate=False).feed(data)) == [None] * 3


@settings(max_examples=300)
@given(data=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=4))
@example(data=sent(1, b"a", fin=False) + sent(0, b"b"), cuts=[1, 2, 3, 4, 5, 6, 7, 8])
def test_how_the_bytes_arrive_changes_nothing(data: bytes, cuts: list[int]) -> None:
    pieces = [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]
    assert read(*pieces) == read(data)


FRAMES = st.builds(
    sent,
    st.sampled_from([1, 1, 1, 1, 2, 0, 8, 9, 10, 3]),
    st.one_of(
        st.text(max_size=200).map(str.encode),
        st.binary(max_size=40),
        st.sampled_from([b"x" * size for size in BORDERS[:6]]),
    ),
    fin=st.sampled_from([True, True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 0, 0, 4]),
    key=st.binary(min_size=4, max_size=4),
)
LONGER_LENGTHS = [b"\x81\xfe\x00\x05" + KEY + masked(b"hello"), b"\x81\xff" + bytes(8) + KEY]
UNMASKED = [b"\x81\x05hello"]


@given(
    given_=st.lists(FRAMES | st.sampled_from(LONGER_LENGTHS + UNMASKED), max_size=8),
    cuts=st.lists(st.integers(0, 800), max_size=6),
    limit=st.sampled_from([1 << 20, 150]),
    deflate=st.booleans(),
)
@settings(deadline=None, max_examples=300)
# What begins like a whole text, in the middle of a message, of a payload and of a header.
@example(given_=[sent(1, b"a", fin=False), sent(1, b"b")], cuts=[7], limit=150, deflate=False)
@example(
    given_=[sent(2, b"ab" + sent(1, b"inner"), key=bytes(4))], cuts=[8], limit=150, deflate=False
)
@example(given_=[sent(1, b"x", key=b"\x80abc")], cuts=[1], limit=150, deflate=False)
def test_what_is_read_here_is_what_wsproto_reads(
    given_: list[bytes], cuts: list[int], limit: int, *, deflate: bool
) -> None:
    data = b"".join(given_)
    ends = [*sorted({min(cut, len(data)) for cut in cuts} | {0}), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(ends)]
    here = read(*pieces, limit=limit, deflate=deflate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_whole_texts", lambda *_: iter(()))
        assert here == read(*pieces, limit=limit, deflate=deflate)


def test_small_texts_that_come_as_a_whole_are_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    given_: list[bytes] = []
    monkeypatch.setattr(FrameProtocol, "receive_bytes", lambda _, data: given_.append(bytes(data)))
    assert read(sent(1, b"one") + sent(1, b"two"), sent(1, b"x" * 4096)) == (
        ["one", "two", "x" * 4096],
        0,
    )
    assert given_ == []


def test_behind_all_else_they_are_read_here_again(monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = Incoming(1 << 20)
    given_: list[bytes] = []
    receive = FrameProtocol.receive_bytes

    def spy(self: FrameProtocol, data: bytes) -> None:
        given_.append(bytes(data))
        receive(self, data)

    monkeypatch.setattr(FrameProtocol, "receive_bytes", spy)
    large, small = sent(1, b"x" * 70_000), sent(1, b"small")
    others = [large[:9], large[9:50_000], large[50_000:], sent(1, b"a", fin=False), sent(0, b"b")]
    for other in others:
        list(incoming.feed(other))
    assert given_ == others
    assert list(incoming.feed(small)) == ["small"]
    assert given_ == others
