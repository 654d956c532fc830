"""A socket as a stream: Trio's own demands, and what it tells of its peer."""

from __future__ import annotations

import select
import socket

import pytest
from trio.testing import check_half_closeable_stream, check_two_way_stream

from notebook_rpc.transport.sockets import SocketStream


async def a_pair() -> tuple[SocketStream, SocketStream]:
    one, other = socket.socketpair()
    return SocketStream(one), SocketStream(other)


async def a_clogged_pair() -> tuple[SocketStream, SocketStream]:
    pair = await a_pair()
    for end in pair:
        while end.send_now(bytes(65536)):
            continue
    return pair


async def test_a_socket_stream_meets_trios_own_demands() -> None:
    await check_two_way_stream(a_pair, a_clogged_pair)
    # Not with a clogged one: nobody here sends the end while he sends, so it goes unnoticed.
    await check_half_closeable_stream(a_pair, None)


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells")
async def test_a_stream_tells_that_its_peer_has_left_behind_bytes_that_nobody_reads() -> None:
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours)
    theirs.sendall(b"unread")
    assert not stream.hung_up()
    theirs.close()
    assert stream.hung_up()
    await stream.aclose()
