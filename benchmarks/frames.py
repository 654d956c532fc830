"""How fast do messages go out on a WebSocket, and what does an idle one cost?

Ours is the real transport: listener, HTTP/1.1, handshake, outbox. The other is the least that
sends with wsproto over a Trio stream. Both send messages made before, as fast as the client,
which only counts bytes, takes them. The server runs on one core, the client on another.

    python -m benchmarks.frames
"""

from __future__ import annotations

import base64
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Request

from benchmarks.common import CLIENT_CPU, free_port, memory, pin, process, report, summary
from notebook_rpc.transport.addresses import open_tcp
from notebook_rpc.transport.frames import header
from notebook_rpc.transport.listener import Listener
from notebook_rpc.web import Response, WebSocket

if TYPE_CHECKING:
    import subprocess

    from notebook_rpc import web

ROUNDS, IDLE = 5, 1000
SHAPES = [(1024, 50_000), (1 << 20, 500), (100 << 20, 8)]  # bytes of a message, messages


class App:
    """Sends what the path asks for: ``/SIZE/COUNT``. Without messages it only listens."""

    def admit(self, _request: web.Request) -> web.Handler:
        return self.answer

    async def answer(self, request: web.Request) -> Response:
        size, count = map(int, request.path[1:].split("/"))

        async def converse(peer: WebSocket) -> None:
            message = b"x" * size
            for _ in range(count):
                await peer.send(message)
            await peer.receive()

        return Response(101, conversation=converse)


async def serve_ours(port: int) -> None:
    await Listener(App()).serve(await open_tcp("127.0.0.1", port))


async def with_wsproto(stream: trio.SocketStream) -> None:
    connection = WSConnection(ConnectionType.SERVER)
    size = count = 0
    connection.receive_data(await stream.receive_some())
    for event in connection.events():
        assert isinstance(event, Request)
        size, count = map(int, event.target[1:].split("/"))
        await stream.send_all(connection.send(AcceptConnection()))
    message = b"x" * size
    for _ in range(count):
        await stream.send_all(connection.send(BytesMessage(message)))
    await stream.receive_some()


async def serve_wsproto(port: int) -> None:
    await trio.serve_tcp(with_wsproto, port, host="127.0.0.1")


SERVERS = {"ours": serve_ours, "wsproto": serve_wsproto}


def connect(port: int, size: int, count: int) -> socket.socket:
    """A WebSocket, with the answer's head read."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    key = base64.b64encode(bytes(16)).decode()
    client.sendall(
        f"GET /{size}/{count} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: "
        f"Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101"), head
    return client


def receive(port: int, size: int, count: int) -> float:
    """Seconds until all messages were here."""
    with connect(port, size, count) as client:
        wanted, buffer = count * (len(header(2, size)) + size), bytearray(1 << 20)
        began = time.perf_counter()
        while wanted > 0:
            received = client.recv_into(buffer)
            assert received
            wanted -= received
        return time.perf_counter() - began


def idle(port: int, server: subprocess.Popen[bytes]) -> float:
    """KiB of an idle socket, in the server."""
    connect(port, 0, 0).close()
    before = memory(server)
    clients = [connect(port, 0, 0) for _ in range(IDLE)]
    after = memory(server)
    for client in clients:
        client.close()
    return (after - before) / IDLE / 1024


def main() -> None:
    pin(CLIENT_CPU)
    results: dict[str, Any] = {}
    for name in SERVERS:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.frames", name, str(port)]
        with process(*command, port=port, pinned=True) as server:
            results[name] = {"kib_per_idle_socket": round(idle(port, server), 1)}
            for size, count in SHAPES:
                taken = [receive(port, size, count) for _ in range(ROUNDS)]
                results[name][f"{size}_byte_messages"] = {
                    "per_second": summary([count / seconds for seconds in taken]),
                    "mb_per_second": summary([count * size / seconds / 1e6 for seconds in taken]),
                }
            results[name]["rss_peak_mb"] = memory(server, "VmHWM") / 1e6
    report("messages on a WebSocket", results, ["trio", "wsproto"])


if __name__ == "__main__":
    if sys.argv[1:]:
        trio.run(SERVERS[sys.argv[1]], int(sys.argv[2]))
    else:
        main()
