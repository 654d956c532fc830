"""Sockets: what a client on the other end of a real one sees, and what many of them cost."""

from __future__ import annotations

import errno
import logging
import select
import socket
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notebook_rpc.transport.addresses import open_tcp
from notebook_rpc.transport.http11 import Limits
from notebook_rpc.transport.listener import BUSY, TURNED_AWAY, Listener
from notebook_rpc.web import Handler, Request, Response, Send
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Connect = Callable[[], Awaitable[trio.SocketStream]]

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class FakeApp:
    """Refuses what is posted to /refused; gives the rest to *handler*."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.handler = handler or self.hello

    def admit(self, request: Request) -> Handler | Response:
        return Response(403) if request.path == "/refused" else self.handler

    async def hello(self, _request: Request) -> Response:
        return Response(body=b"hello")


@asynccontextmanager
async def serving(
    handler: Handler | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[Listener, Connect]]:
    """A listener on a free port, and how to connect to it; cancelled on leaving."""
    listener = Listener(FakeApp(handler), limits)
    sockets = await open_tcp("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.serve, sockets)
        yield listener, partial(trio.open_tcp_stream, "127.0.0.1", port)
        nursery.cancel_scope.cancel()


async def read_to_end(client: trio.SocketStream) -> bytes:
    return b"".join([piece async for piece in client])


# Serving


async def test_a_client_is_answered_and_its_connection_kept() -> None:
    async with serving() as (listener, connect), await connect() as client:
        for _ in range(3):
            await client.send_all(GET)
            assert (await client.receive_some()).endswith(b"\r\n\r\nhello")
        assert listener.connections == 1
        await client.aclose()
        await until(lambda: listener.connections == 0)


async def test_bytes_are_counted_while_a_connection_is_open_and_once_it_is_closed() -> None:
    async with serving() as (listener, connect):
        received = 0
        for _ in range(2):
            async with await connect() as client:
                await client.send_all(GET)
                received += len(await client.receive_some())
                assert listener.sent == received
            await until(lambda: listener.connections == 0)
            assert listener.sent == received


async def test_200_idle_connections_are_in_nobodys_way() -> None:
    async with serving() as (listener, connect):
        clients = [await connect() for _ in range(200)]
        async with await connect() as client:
            await client.send_all(GET)
            assert (await client.receive_some()).endswith(b"hello")
            assert listener.connections == 201
        for idle in clients:
            await idle.send_all(GET)
            assert (await idle.receive_some()).endswith(b"hello")
            await idle.aclose()
        await until(lambda: listener.connections == 0)


@pytest.mark.parametrize("how", ["closes", "resets", "half-closes"])
async def test_a_client_that_leaves_cancels_its_handler(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def handler(_: Request) -> Response:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        return Response()

    async with serving(handler) as (listener, connect), await connect() as client:
        await client.send_all(GET)
        await started.wait()
        if how == "half-closes":
            await client.send_eof()
        else:
            if how == "resets":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
            await client.aclose()
        with trio.fail_after(1):
            await cancelled.wait()
        await until(lambda: listener.connections == 0)
    assert caplog.records == []


async def test_a_refused_upload_of_3_mb_is_read_out_so_that_the_answer_arrives() -> None:
    async with serving() as (_, connect), await connect() as client:
        head = b"POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n"
        await client.send_all(head + bytes(3_000_000))
        answer = await read_to_end(client)
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")


async def test_a_large_answer_arrives_whole_at_a_slow_reader() -> None:
    async def handler(_: Request) -> Response:
        return Response(body=[bytes([number]) * 100_000 for number in range(200)])

    async with serving(handler) as (_, connect), await connect() as client:
        await client.send_all(b"GET / HTTP/1.0\r\n\r\n")
        data = bytearray()
        while piece := await client.receive_some(50_000):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.endswith(b"content-length: 20000000")
    assert len(body) == 20_000_000
    assert all(body[100_000 * number] == number for number in range(200))


async def test_a_stream_that_fails_resets_even_where_the_end_is_the_end_of_the_connection() -> None:
    async def stream(send: Send) -> NoReturn:
        await send(b"half")
        raise LookupError

    async def handler(_: Request) -> Response:
        return Response(body=stream)

    async with serving(handler) as (_, connect), await connect() as client:
        await client.send_all(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await read_to_end(client)


async def test_a_bug_in_one_connection_is_logged_and_ends_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = Listener(FakeApp(), wall_clock=[0.0].pop)  # the second answer finds it broken
    sockets = await open_tcp("127.0.0.1", 0)
    connect = partial(trio.open_tcp_stream, "127.0.0.1", sockets[0].getsockname()[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.serve, sockets)
        async with await connect() as fine, await connect() as unlucky:
            await fine.send_all(GET)
            assert (await fine.receive_some()).endswith(b"hello")
            await unlucky.send_all(GET)
            assert await unlucky.receive_some() == b""
            await until(lambda: listener.connections == 1)
            assert caplog.messages == ["a connection failed"]
        nursery.cancel_scope.cancel()


# Ending


async def test_drain_ends_idle_connections_and_waits_for_busy_ones() -> None:
    started, may_finish = trio.Event(), trio.Event()

    async def handler(_: Request) -> Response:
        started.set()
        await may_finish.wait()
        return Response(body=b"finished")

    listener = Listener(FakeApp(handler))
    sockets = await open_tcp("127.0.0.1", 0)
    connect = partial(trio.open_tcp_stream, "127.0.0.1", sockets[0].getsockname()[1])
    ended = trio.Event()

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        await listener.serve(sockets, task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        idle, busy = await connect(), await connect()
        await busy.send_all(GET)
        await started.wait()
        assert listener.connections == 2
        listener.drain()
        assert await idle.receive_some() == b""
        with pytest.raises(OSError, match="connect"):
            await connect()
        assert not ended.is_set()
        may_finish.set()
        answer = await read_to_end(busy)
        assert b"connection: close" in answer
        assert answer.endswith(b"finished")
        with trio.fail_after(1):
            await ended.wait()
        await idle.aclose()
        await busy.aclose()


async def test_cancelling_cuts_the_connections_off() -> None:
    async with serving() as (listener, connect):
        client = await connect()
        await until(lambda: listener.connections == 1)
    assert listener.connections == 0
    assert await client.receive_some() == b""
    await client.aclose()


# Too much of everything


async def test_over_the_limit_a_client_is_told_to_come_back() -> None:
    async with serving(limits=Limits(connections=1)) as (listener, connect):
        first = await connect()
        await until(lambda: listener.connections == 1)
        async with await connect() as second:
            await second.send_all(GET)
            with trio.fail_after(0.5):  # it is told at once, not when we give up on it
                assert await read_to_end(second) == BUSY
        await first.aclose()
        await until(lambda: listener.connections == 0)
        async with await connect() as third:
            await third.send_all(GET)
            assert (await third.receive_some()).endswith(b"hello")


async def test_those_turned_away_are_few_and_soon_gone() -> None:
    listener = Listener(FakeApp(), Limits(connections=0))
    sockets = await open_tcp("127.0.0.1", 0)
    with ExitStack() as closing:
        clients = [
            closing.enter_context(socket.create_connection(sockets[0].getsockname()))
            for _ in range(TURNED_AWAY + 30)
        ]
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.serve, sockets)
            await until(lambda: readable(clients[-1]))
            tasks = trio.lowlevel.current_statistics().tasks_living - TURNED_AWAY
            assert clients[TURNED_AWAY - 1].recv(1000) == BUSY
            with pytest.raises(ConnectionResetError):  # this one was not even waited for
                clients[TURNED_AWAY].recv(1000)
            await until(lambda: trio.lowlevel.current_statistics().tasks_living == tasks)
            nursery.cancel_scope.cancel()


def readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


class Failing(socket.socket):
    """A listening socket whose ``accept`` fails *times*, and counts."""

    times = 0
    calls = 0
    number = errno.EMFILE

    def accept(self) -> tuple[socket.socket, object]:
        self.calls += 1
        if self.calls <= self.times:
            raise OSError(self.number, "no more")
        return super().accept()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EPERM])
async def test_out_of_descriptors_it_waits_a_second_at_a_time_and_says_so_once(
    number: int, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    listening = Failing()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    listening.times, listening.number = 30, number
    async with trio.open_nursery() as nursery:
        await nursery.start(Listener(FakeApp()).serve, [listening])
        await trio.sleep(29.5)
        assert listening.calls == 30
        await trio.sleep(1)
        assert listening.calls == 31  # well again: this one found nobody and waits
        nursery.cancel_scope.cancel()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert autojump_clock.current_time() == 30.5


async def test_a_connection_that_ends_frees_a_descriptor_at_once(
    autojump_clock: MockClock,
) -> None:
    listening = Failing()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    listener = Listener(FakeApp())
    with socket.create_connection(listening.getsockname()) as first:
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.serve, [listening])
            await wait_all_tasks_blocked()
            assert (listener.connections, listening.calls) == (1, 2)
            listening.times = 3
            with socket.create_connection(listening.getsockname()):
                await trio.sleep(0.5)
                assert (listener.connections, listening.calls) == (1, 3)
                first.close()
                await trio.sleep(0.25)
                assert (listener.connections, listening.calls) == (1, 5)
            nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() == 0.75


async def test_a_client_that_left_before_it_was_accepted_is_no_incident(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listening = Failing()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    listening.times, listening.number = 3, errno.ECONNABORTED
    async with trio.open_nursery() as nursery:
        await nursery.start(Listener(FakeApp()).serve, [listening])
        await until(lambda: listening.calls == 4)
        nursery.cancel_scope.cancel()
    assert caplog.records == []
