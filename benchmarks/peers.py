"""The servers that ours is compared with, each as its own documentation would write it."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import h11
import msgspec
import trio

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


def answer(body: bytes) -> bytes:
    request = decode(body)
    return encode({"jsonrpc": "2.0", "id": request["id"], "result": False})


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    result = answer(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(result)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": result})


async def h11_alone(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):  # the client has left
        await serve(stream)


async def serve(stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER)
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            result, body = answer(body), b""
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(result))),
            ]
            data = connection.send(h11.Response(status_code=200, headers=headers)) or b""
            data += connection.send(h11.Data(data=result)) or b""
            data += connection.send(h11.EndOfMessage()) or b""
            await stream.send_all(data)
            connection.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return


if __name__ == "__main__":
    trio.run(trio.serve_tcp, h11_alone, int(sys.argv[1]))
