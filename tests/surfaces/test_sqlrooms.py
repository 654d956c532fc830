"""The SQLRooms surface over a socket and queries that do as they are told.

The first part is the protocol, message by message; the second what a server of it must not do.
"""

from __future__ import annotations

import base64
import json
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notebook_rpc.errors import InvalidParams, NotebookError, QueryError, UnknownConnection
from notebook_rpc.model import BROKEN_STREAM
from notebook_rpc.sansio.tokens import ANYBODY, NOBODY, User
from notebook_rpc.services.channels import Channels
from notebook_rpc.surfaces.sqlrooms import Options, SQLRooms
from notebook_rpc.web import WEBSOCKET, Request
from tests.surfaces.fakes import Database, Rows, Socket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from notebook_rpc.web import WebSocket

ID = uuid.UUID(int=7)
ALICE = User("alice")


class Room:
    def __init__(self) -> None:
        self.state = b""
        self.members: list[Callable[[bytes], None]] = []


class Membership:
    def __init__(self, room: Room, deliver: Callable[[bytes], None]) -> None:
        self._room, self._deliver = room, deliver

    @property
    def snapshot(self) -> bytes:
        return self._room.state

    async def update(self, data: bytes, /) -> None:
        await trio.lowlevel.checkpoint()
        if data == b"bad":
            raise InvalidParams("bad update")
        if data == b"bug":
            raise RuntimeError("a bug")
        self._room.state += data
        for deliver in self._room.members:
            if deliver is not self._deliver:
                deliver(data)

    async def seed(self, snapshot: bytes, /) -> bool:
        await trio.lowlevel.checkpoint()
        if self._room.state:
            return False
        self._room.state = snapshot
        return True


class Sync:
    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}

    @asynccontextmanager
    async def join(self, room_id: str, deliver: Callable[[bytes], None], /) -> AsyncIterator[Any]:
        await trio.lowlevel.checkpoint()
        if room_id == "full":
            raise InvalidParams("the room is full")
        room = self.rooms.setdefault(room_id, Room())
        room.members.append(deliver)
        try:
            yield Membership(room, deliver)
        finally:
            room.members.remove(deliver)


class Server:
    """The surface and what it stands on. Tokens are asked for where there are any."""

    def __init__(
        self, options: Options | None = None, sync: Sync | None = None, *tokens: str
    ) -> None:
        self.database = Database()
        self.asked_for: list[tuple[str, User]] = []
        self.errors: list[str] = []
        self.channels = Channels()
        options = options or Options(on_error=self.errors.append, new_id=lambda: ID)
        self._tokens = tokens
        self.surface = SQLRooms(self.queries, self.user, self.channels, options, sync)

    def queries(self, connection: str, user: User) -> Database:
        if connection not in ("default", "sales"):
            raise UnknownConnection(f"there is no connection {connection!r}")
        self.asked_for.append((connection, user))
        return self.database

    def user(self, token: str) -> User | None:
        if not self._tokens:
            return ANYBODY
        return ALICE if token in self._tokens else None

    @asynccontextmanager
    async def client(self, query: str = "", user: User | None = None) -> AsyncIterator[Socket]:
        """A client, who leaves at the end of the block."""
        (route,) = self.surface.routes()
        assert (route.method, route.path, route.asks_for_token) == (WEBSOCKET, "/", True)
        user = user or (NOBODY if self._tokens else ANYBODY)
        response = await route.handler(Request(WEBSOCKET, "/", query, (), user=user))
        assert response.status == 101
        assert response.conversation is not None
        socket = Socket()

        async def converse(conversation: Callable[[WebSocket], Any]) -> None:
            with socket.scope:
                await conversation(socket)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(converse, response.conversation)
            yield socket
            socket.scope.cancel()


def frame(header: object, payload: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "big") + text + payload


def unframed(message: str | bytes) -> tuple[Any, bytes]:
    assert isinstance(message, bytes)
    begin = 4 + int.from_bytes(message[:4], "big")
    return json.loads(message[4:begin]), message[begin:]


def ask(kind: str, sql: str, id_: object = "q", **more: object) -> dict[str, object]:
    return {"type": kind, "sql": sql, "queryId": id_, **more}


def error(reason: str, id_: object = None) -> dict[str, object]:
    return {"type": "error", **({} if id_ is None else {"queryId": id_}), "error": reason}


CANCELLED = "Query was cancelled"


# Queries


async def test_arrow_is_one_binary_message_with_a_header() -> None:
    server = Server()
    server.database.rows["s"] = Rows([[b"schema", memoryview(b"batch"), b"end"]])
    async with server.client() as client:
        client.say(ask("arrow", "s", "q1"))
        opening = b'\x00\x00\x00\x1f{"type":"arrow","queryId":"q1"}'
        assert await client.hear() == opening + b"schemabatchend"
        assert not client.fragments
    assert server.database.begun == [("arrow", "s", False)]


async def test_json_is_a_string_of_json() -> None:
    server = Server()
    rows = '[{"x":"é\\n\\"1\\""},{"x":null}]'
    server.database.rows["s"] = Rows([[rows[:9].encode(), rows[9:].encode()]])
    async with server.client() as client:
        answer = await client.asks(ask("json", "s"))
        assert answer == {"type": "json", "queryId": "q", "data": rows}
        assert not client.fragments


@pytest.mark.parametrize("kind", ["arrow", "json", "exec"])
async def test_a_statement_without_rows_is_ok(kind: str) -> None:
    server = Server()
    server.database.rows["s"] = Rows(columns=(), ended=True)
    async with server.client() as client:
        assert await client.asks(ask(kind, "s")) == {"type": "ok", "queryId": "q"}


async def test_persist_asks_for_the_cache() -> None:
    server = Server()
    server.database.rows["s"] = Rows([[b"[]"]])
    async with server.client() as client:
        await client.asks(ask("json", "s", persist=True))
        await client.asks(ask("json", "s", persist=None))
    assert server.database.begun == [("json", "s", True), ("json", "s", False)]


@pytest.mark.parametrize(
    ("text", "id_"),
    [('"queryId":17,', 17), ('"queryId":1.5,', 1.5), ('"queryId":null,', str(ID)), ("", str(ID))],
)
async def test_the_id_comes_back_as_it_was_or_is_made(text: str, id_: object) -> None:
    server = Server()
    server.database.rows["s"] = Rows([[b"[]"]])
    async with server.client() as client:
        answer = await client.asks(f'{{"type":"json",{text}"sql":"s"}}')
        assert answer == {"type": "json", "queryId": id_, "data": "[]"}
        assert type(answer["queryId"]) is type(id_)


@pytest.mark.parametrize("kind", ["arrow", "json", "exec"])
async def test_an_error_is_the_databases_own(kind: str) -> None:
    server = Server()
    reason = 'Parser Error: syntax error at or near "selec"\n\nLINE 1: selec\n        ^'
    server.database.rows["selec"] = Rows([QueryError(reason)])
    async with server.client() as client:
        assert await client.asks(ask(kind, "selec")) == error(reason, "q")
        await wait_all_tasks_blocked()
        assert client.at_work == 0
    assert server.errors == ["query-error"]


async def test_a_bug_is_told_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async with Server().client() as client:
        answer = await client.asks(ask("arrow", "nobody laid this down"))
        assert answer == error("internal error; the server's log has the details", "q")
    assert "KeyError" in caplog.text


@pytest.mark.parametrize(
    ("sent", "reason", "slug"),
    [
        ("not json", "invalid json", "parse-error"),
        ("[1,2]", "invalid message", "invalid-request"),
        ('{"type":"bogus"}', "invalid message", "invalid-request"),
        ('{"type":"json","queryId":true,"sql":""}', "invalid message", "invalid-request"),
        ('{"type":"subscribe"}', "Missing channel", "invalid-params"),
        ('{"type":"notify","payload":1}', "Missing channel", "invalid-params"),
        ('{"type":"crdt-join","roomId":"r"}', "invalid message", "invalid-request"),
        (b"\x00\x01", "binary not supported", "invalid-request"),
    ],
)
async def test_what_is_no_message_is_refused_and_the_next_is_taken(
    sent: str | bytes, reason: str, slug: str
) -> None:
    server = Server()
    async with server.client() as client:
        assert await client.asks(sent) == error(reason)
        assert server.errors == [slug]
        assert await client.asks({"type": "auth", "token": "any"}) == {"type": "authAck"}


@pytest.mark.parametrize("sent", ["bogus", "json", "exec"])
async def test_what_is_no_query_but_has_an_id_is_refused_by_its_id(sent: str) -> None:
    async with Server().client() as client:
        client.say(f'{{"type":"{sent}","sql":null,"queryId":7,"more":[{{}}]}}')
        assert await client.hears() == error("invalid message", 7)
        client.say(f'{{"type":"{sent}","sql":null,"queryId":[7]}}')
        assert await client.hears() == error("invalid message")


async def test_many_queries_run_at_once_and_each_answers_when_it_can() -> None:
    server = Server()
    slow = server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    server.database.rows["quick"] = Rows([[b"[2]"]])
    async with server.client() as client:
        client.say(ask("json", "slow", 1), ask("json", "quick", 2))
        assert (await client.hears())["queryId"] == 2
        slow.go.set()
        assert (await client.hears())["queryId"] == 1


async def test_the_url_names_the_connection() -> None:
    server = Server()
    async with server.client("roomId=r&connection=sales"), server.client("roomId=r"):
        pass
    assert server.asked_for == [("sales", ANYBODY), ("default", ANYBODY)]
    (route,) = server.surface.routes()
    response = await route.handler(Request(WEBSOCKET, "/", "connection=other", ()))
    assert (response.status, response.conversation) == (404, None)


# Cancelling


@pytest.mark.parametrize("kind", ["arrow", "json", "exec"])
async def test_a_cancelled_query_is_acknowledged_and_has_its_outcome(kind: str) -> None:
    server = Server()
    server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as client:
        client.say(ask(kind, "slow", 5))
        await client.silence()
        client.say({"type": "cancel", "queryId": 5})
        heard = [await client.hears(), await client.hears()]
        assert {"type": "cancelAck", "queryId": 5, "cancelled": True} in heard
        assert error(CANCELLED, 5) in heard
        await client.silence()
        assert server.database.over == ["slow"]
        assert server.errors == ["cancelled"]
        late = await client.asks({"type": "cancel", "queryId": 5})
        assert late == {"type": "cancelAck", "queryId": 5, "cancelled": False}


async def test_a_cancel_right_behind_its_query_is_in_time() -> None:
    server = Server()
    server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as client:
        for number in range(20):
            client.say(ask("json", "slow", number), {"type": "cancel", "queryId": number})
        heard = [await client.hears() for _ in range(40)]
        for number in range(20):
            assert {"type": "cancelAck", "queryId": number, "cancelled": True} in heard
            assert error(CANCELLED, number) in heard
        await client.silence()
    assert len(server.database.begun) == len(server.database.over)


async def test_an_acknowledged_cancel_and_a_result_exclude_each_other() -> None:
    server = Server()
    server.database.rows["quick"] = Rows(columns=(), ended=True)
    async with server.client() as client:
        for number in range(50):
            client.say(ask("exec", "quick", number), {"type": "cancel", "queryId": number})
        heard = [await client.hears() for _ in range(100)]
        await client.silence()
    for number in range(50):
        result = {"type": "ok", "queryId": number}
        ack = {"type": "cancelAck", "queryId": number, "cancelled": result not in heard}
        assert ack in heard
        assert (error(CANCELLED, number) in heard) is ack["cancelled"]
    results = [answer for answer in heard if answer["type"] == "ok"]
    assert len(server.database.begun) == len(results) < 50


async def test_a_query_that_was_cancelled_before_its_turn_is_not_run() -> None:
    server = Server(Options(max_queries=1))
    slow = server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as client:
        client.say(ask("json", "slow", 1), {"type": "cancel", "queryId": 1})
        client.say(ask("json", "slow", 2), {"type": "cancel", "queryId": 2})
        slow.go.set()
        heard = [await client.hears() for _ in range(4)]
        assert error(CANCELLED, 1) in heard
        assert error(CANCELLED, 2) in heard


@pytest.mark.parametrize("sent", ['{"type":"cancel","queryId":"x"}', '{"type":"cancel"}'])
async def test_a_cancel_of_nothing_says_so(sent: str) -> None:
    async with Server().client() as client:
        id_ = json.loads(sent).get("queryId")
        assert await client.asks(sent) == {
            "type": "cancelAck",
            "queryId": id_,
            "cancelled": False,
        }


async def test_a_cancel_that_comes_too_late_leaves_the_result() -> None:
    server = Server()
    server.database.rows["s"] = Rows([[b"[1]"]])
    async with server.client() as client:
        client.reads = trio.Event()
        client.say(ask("json", "s"))
        await client.silence()
        client.say({"type": "cancel", "queryId": "q"})
        await client.silence()
        client.reads.set()
        heard = [await client.hears(), await client.hears()]
        assert {"type": "json", "queryId": "q", "data": "[1]"} in heard
        assert {"type": "cancelAck", "queryId": "q", "cancelled": False} in heard
        await client.silence()


async def test_only_the_owner_cancels() -> None:
    server = Server()
    slow = server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as owner, server.client() as other:
        owner.say(ask("json", "slow", "q"))
        await owner.silence()
        ack = {"type": "cancelAck", "queryId": "q", "cancelled": False}
        assert await other.asks({"type": "cancel", "queryId": "q"}) == ack
        slow.go.set()
        assert (await owner.hears())["data"] == "[1]"


async def test_two_clients_may_use_the_same_id_and_one_may_not() -> None:
    server = Server()
    slow = server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as one, server.client() as other:
        one.say(ask("json", "slow"))
        other.say(ask("json", "slow"))
        await one.silence()
        refused = await one.asks(ask("json", "slow", "q"))
        assert refused == error("a query with this queryId is under way", "q")
        slow.go.set()
        for client in (one, other):
            assert (await client.hears())["data"] == "[1]"
            await client.silence()


# Large results


async def test_a_large_arrow_result_is_one_message_in_fragments() -> None:
    server = Server()
    rows = server.database.rows["s"] = Rows([[b"schema", b"one"], [b"two"], [b"end"]], stands_at=1)
    async with server.client() as client:
        client.say(ask("arrow", "s"))
        await client.silence()
        assert b"".join(client.fragments).endswith(b"schemaone")  # while the rest is not there
        rows.go.set()
        assert unframed(await client.hear()) == (
            {"type": "arrow", "queryId": "q"},
            b"schemaonetwoend",
        )


async def test_a_large_json_result_is_one_message_in_fragments() -> None:
    server = Server()
    server.database.rows["s"] = Rows([[b'[{"x":"1"}'], [b',{"x":"\xc3\xa9"}'], [b"]"]])
    async with server.client() as client:
        answer = await client.asks(ask("json", "s"))
        assert answer == {"type": "json", "queryId": "q", "data": '[{"x":"1"},{"x":"é"}]'}
        assert len(client.fragments) == 5


async def test_an_arrow_result_that_fails_in_its_middle_is_whole_to_nobody() -> None:
    server = Server()
    server.database.rows["s"] = Rows([[b"schema", b"one"], [b"two"], QueryError("lost")])
    server.database.rows["quick"] = Rows([[b"[2]"]])
    async with server.client() as client:
        client.say(ask("arrow", "s"))
        broken = b"schemaonetwo" + BROKEN_STREAM
        assert unframed(await client.hear()) == ({"type": "arrow", "queryId": "q"}, broken)
        assert await client.hears() == error("lost", "q")
        assert (await client.asks(ask("json", "quick", 2)))["data"] == "[2]"


async def test_a_json_result_that_fails_in_its_middle_is_whole_to_nobody() -> None:
    server = Server()
    server.database.rows["s"] = Rows([[b"[1"], [b",2"], QueryError("lost")])
    async with server.client() as client:
        client.say(ask("json", "s"))
        with pytest.raises(json.JSONDecodeError, match="Unterminated string"):
            json.loads(await client.hear())
        assert await client.hears() == error("lost", "q")


async def test_a_large_result_that_is_cancelled_ends_at_once_and_only_it() -> None:
    server = Server()
    server.database.rows["s"] = Rows([[b"schema"], [b"one"], [b"two"]], stands_at=2)
    server.database.rows["quick"] = Rows([[b"[2]"]])
    async with server.client() as client:
        client.say(ask("arrow", "s"))
        await client.silence()
        client.say(ask("json", "quick", 2), {"type": "cancel", "queryId": "q"})
        assert unframed(await client.hear())[1] == b"schemaone" + BROKEN_STREAM
        heard = [await client.hears() for _ in range(3)]
        assert error(CANCELLED, "q") in heard
        assert {"type": "cancelAck", "queryId": "q", "cancelled": True} in heard
        assert {"type": "json", "queryId": 2, "data": "[2]"} in heard
        await client.silence()
        assert client.scope.cancel_called is False


async def test_a_cancel_does_not_cut_off_a_fragment_that_a_slow_reader_waits_for() -> None:
    server = Server()
    server.database.rows["s"] = Rows([[b"schema"], [b"one"], [b"two"]])
    async with server.client() as client:
        client.reads = trio.Event()
        client.say(ask("arrow", "s"))
        await client.silence()
        client.say({"type": "cancel", "queryId": "q"})
        await client.silence()
        assert server.database.over == ["s"]  # it runs no more
        client.reads.set()
        _, stream = unframed(await client.hear())
        assert stream.endswith(BROKEN_STREAM)
        heard = [await client.hears(), await client.hears()]
        assert error(CANCELLED, "q") in heard
        await client.silence()


async def test_results_in_fragments_wait_for_each_other() -> None:
    server = Server()
    for sql in ("a", "b"):
        server.database.rows[sql] = Rows([[sql.encode()] for _ in range(9)])
    async with server.client() as client:
        client.say(ask("arrow", "a", "a"), ask("arrow", "b", "b"))
        heard = [unframed(await client.hear()) for _ in range(2)]
        assert sorted((header["queryId"], stream) for header, stream in heard) == [
            ("a", b"a" * 9),
            ("b", b"b" * 9),
        ]


# Uploads


async def test_an_upload_makes_a_table() -> None:
    server = Server()
    async with server.client() as client:
        header = {"type": "uploadArrow", "queryId": "u", "tableName": "main.up"}
        answer = await client.asks(frame(header, b"stream"))
        assert answer == {"type": "uploadAck", "queryId": "u"}
        answer = await client.asks(frame({"type": "uploadArrow", "tableName": "up"}, b""))
        assert answer == {"type": "uploadAck", "queryId": str(ID)}
    assert server.database.begun == [
        ("upload", "main", "up", b"stream"),
        ("upload", "", "up", b""),
    ]


@pytest.mark.parametrize(
    ("more", "payload", "reason"),
    [
        ({}, b"", "Missing tableName for uploadArrow"),
        (
            {"tableName": "a b"},
            b"",
            "tableName contains invalid characters; use letters, numbers, underscores",
        ),
        ({"tableName": "up"}, b"broken", "not a stream"),
    ],
)
async def test_an_upload_that_fails_says_why(
    more: dict[str, str], payload: bytes, reason: str
) -> None:
    async with Server().client() as client:
        header = {"type": "uploadArrow", "queryId": "u", **more}
        assert await client.asks(frame(header, payload)) == error(reason, "u")


# Channels


async def test_a_notification_goes_to_every_subscriber_and_once_to_its_sender() -> None:
    server = Server()
    async with server.client() as one, server.client() as two, server.client() as three:
        for client in (one, two):
            answer = await client.asks({"type": "subscribe", "channel": "c"})
            assert answer == {"type": "subscribed", "channel": "c"}
        await one.asks({"type": "subscribe", "channel": "c"})  # as the JS client does
        notification = {"type": "notify", "channel": "c", "payload": {"op": "update"}}
        ack = {"type": "notifyAck", "channel": "c"}
        for sender in (one, three):
            sender.say(notification)
            assert [await sender.hears(), await sender.hears()] == [notification, ack]
        assert await one.hears() == notification
        assert [await two.hears(), await two.hears()] == [notification, notification]
        for client in (one, two, three):
            await client.silence()


async def test_a_notification_without_a_payload_has_null() -> None:
    async with Server().client() as client:
        answer = await client.asks({"type": "notify", "channel": "c"})
        assert answer == {"type": "notify", "channel": "c", "payload": None}


async def test_subscriptions_end_with_the_socket() -> None:
    server = Server()
    async with server.client() as client:
        await client.asks({"type": "subscribe", "channel": "c"})
        assert len(server.channels) == 1
    assert len(server.channels) == 0


async def test_nothing_internal_can_be_subscribed_to() -> None:
    """Results of others came through channels named for connections, in sqlrooms-server."""
    server = Server(None, Sync())
    server.database.rows["s"] = Rows([[b"[1]"]])
    async with server.client() as owner, server.client() as spy:
        await owner.asks({"type": "crdt-join", "roomId": "r"})
        await owner.hears()
        for channel in ("__conn:0", "__conn:1", "r", "*"):
            await spy.asks({"type": "subscribe", "channel": channel})
        assert (await owner.asks(ask("json", "s")))["data"] == "[1]"
        await owner.asks({"type": "subscribe", "channel": "mine"})
        owner.say(b"update")
        await owner.hear()
        await spy.silence()


# Tokens


async def test_a_token_opens_the_socket() -> None:
    server = Server(None, None, "secret")
    server.database.rows["s"] = Rows([[b"[1]"]])
    async with server.client("connection=sales") as client:
        assert server.asked_for == []
        assert await client.asks({"type": "auth", "token": "secret"}) == {"type": "authAck"}
        assert (await client.asks(ask("json", "s")))["data"] == "[1]"
        assert server.asked_for == [("sales", ALICE)]


@pytest.mark.parametrize(
    "first",
    [
        {"type": "auth", "token": "wrong"},
        {"type": "auth"},
        {"type": "json", "sql": "s"},
        {"type": "subscribe", "channel": "c"},
        {"type": "cancel", "queryId": 1},
        "not json",
        frame({"type": "uploadArrow", "tableName": "t"}),
        b"",
    ],
)
async def test_anything_else_first_closes_it(first: object) -> None:
    server = Server(None, None, "secret")
    async with server.client() as client:
        client.say(first, {"type": "auth", "token": "secret"}, ask("json", "s"))
        assert await client.hears() == error("unauthorized")
        await client.silence()
        assert client.closed == (1008, "unauthorized")
    assert (server.database.begun, server.asked_for, len(server.channels)) == ([], [], 0)


async def test_who_shows_no_token_is_not_waited_for(mock_clock: MockClock) -> None:
    async with Server(Options(auth_seconds=20), None, "secret").client() as client:
        await client.silence()
        mock_clock.jump(19)
        await client.silence()
        mock_clock.jump(1)
        assert await client.hears() == error("unauthorized")
        await client.silence()
        assert client.closed == (1008, "unauthorized")


async def test_a_token_is_for_one_socket() -> None:
    server = Server(None, None, "secret")
    async with server.client() as one, server.client() as other:
        await one.asks({"type": "auth", "token": "secret"})
        assert await other.asks({"type": "subscribe", "channel": "c"}) == error("unauthorized")


async def test_who_came_with_a_token_need_not_show_it_again_but_may() -> None:
    server = Server(None, None, "secret")
    async with server.client(user=ALICE) as client:
        answer = await client.asks({"type": "subscribe", "channel": "c"})
        assert answer == {"type": "subscribed", "channel": "c"}
        assert await client.asks({"type": "auth", "token": "secret"}) == {"type": "authAck"}
        assert await client.asks({"type": "auth", "token": "wrong"}) == error("unauthorized")
        assert client.closed == (1008, "unauthorized")


async def test_a_stranger_does_not_learn_which_connections_there_are() -> None:
    server = Server(None, None, "secret")
    async with server.client("connection=other") as client:
        refused = await client.asks({"type": "auth", "token": "secret"})
        assert refused == error("there is no connection 'other'")
        assert client.closed == (1008, "unknown-connection")


# Rooms


async def test_a_member_gets_the_room_and_then_what_changes() -> None:
    server = Server(None, Sync())
    async with server.client("roomId=r") as one, server.client("roomId=r") as two:
        for client in (one, two):
            client.say({"type": "crdt-join", "roomId": " r ", "clientId": "c"})
            assert await client.hears() == {"type": "crdt-joined", "roomId": "r"}
            snapshot = {"type": "crdt-snapshot", "roomId": "r", "data": ""}
            assert await client.hears() == snapshot
        one.say(b"\x01\x02")
        assert await one.hear() == b"\x01\x02"
        assert await one.hears() == {"type": "crdt-update-ack", "roomId": "r"}
        assert await two.hear() == b"\x01\x02"
        for client in (one, two):
            await client.silence()


async def test_a_client_that_seeds_at_once_is_answered_in_order() -> None:
    server = Server(None, Sync())
    seed = {"type": "crdt-snapshot", "roomId": "r", "data": base64.b64encode(b"state").decode()}
    async with server.client() as one, server.client() as two:
        one.say({"type": "crdt-join", "roomId": "r"}, seed)
        kinds = [(await one.hears())["type"] for _ in range(3)]
        assert kinds == ["crdt-joined", "crdt-snapshot", "crdt-snapshot-ack"]
        two.say({"type": "crdt-join", "roomId": "r"}, seed)
        assert (await two.hears())["type"] == "crdt-joined"
        assert await two.hears() == seed
        assert await two.hears() == error("room already has state; snapshot rejected")


async def test_who_may_only_read_hears_what_is_in_a_room_and_changes_nothing() -> None:
    server = Server(None, Sync())
    reader = User("reader", read_only=True)
    async with server.client() as one, server.client(user=reader) as two:
        for client in (one, two):
            client.say({"type": "crdt-join", "roomId": "r"})
            await client.hears()
            await client.hears()
        one.say(b"\x01")
        assert await two.hear() == b"\x01"
        for said in (b"\x02", {"type": "crdt-snapshot", "roomId": "r", "data": "AAAA"}):
            two.say(said)
            assert await two.hears() == error("a read-only user changes no room")
        await one.hear()
        await one.hears()
        await one.silence()


async def test_snapshots_of_clients_can_be_switched_off() -> None:
    async with Server(Options(client_snapshots=False), Sync()).client() as client:
        client.say({"type": "crdt-join", "roomId": "r"})
        client.say({"type": "crdt-snapshot", "roomId": "r", "data": "AAAA"})
        await client.hears()
        await client.hears()
        assert await client.hears() == error("client snapshots disabled")


@pytest.mark.parametrize("size", [192 * 1024 - 1, 192 * 1024 + 1, 3 << 20])
async def test_a_snapshot_of_any_size_arrives_and_can_be_sent(size: int) -> None:
    sync = Sync()
    state = bytes(range(256)) * (size // 256) + bytes(size % 256)
    data = base64.b64encode(state).decode()
    async with Server(None, sync).client() as client:
        client.say({"type": "crdt-join", "roomId": "r"})
        client.say({"type": "crdt-snapshot", "roomId": "r", "data": data})
        kinds = [(await client.hears())["type"] for _ in range(3)]
        assert kinds == ["crdt-joined", "crdt-snapshot", "crdt-snapshot-ack"]
        assert sync.rooms["r"].state == state
        client.say({"type": "crdt-join", "roomId": "r"})
        await client.hears()
        assert await client.hears() == {"type": "crdt-snapshot", "roomId": "r", "data": data}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"type": "crdt-join"}, "missing roomId"),
        ({"type": "crdt-join", "roomId": "  "}, "missing roomId"),
        ({"type": "crdt-snapshot", "roomId": "r"}, "missing data"),
        ({"type": "crdt-snapshot", "data": ""}, "missing roomId"),
        ({"type": "crdt-snapshot", "roomId": "other", "data": ""}, "join the room first"),
        ({"type": "crdt-snapshot", "roomId": "r", "data": "A"}, "invalid snapshot: "),
        ({"type": "crdt-snapshot", "roomId": "r", "data": "é"}, "invalid snapshot: "),
        ({"type": "crdt-snapshot", "roomId": "r", "data": "AA*AA"}, "invalid snapshot: "),
        (
            {"type": "crdt-snapshot", "roomId": "r", "data": "AA==" * 128 * 1024},
            "invalid snapshot: ",
        ),
        (
            {"type": "crdt-snapshot", "roomId": "r", "data": "A" * (256 * 1024 - 4) + "AA==AAAA"},
            "invalid snapshot: ",
        ),
        (b"bad", "bad update"),
        (b"bug", "internal error; the server's log has the details"),
    ],
)
async def test_what_cannot_be_is_told_and_the_room_goes_on(
    said: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(None, Sync())
    async with server.client() as client:
        client.say({"type": "crdt-join", "roomId": "r"})
        await client.hears()
        await client.hears()
        refused = await client.asks(said)
        assert refused["type"] == "error"
        assert refused["error"].startswith(reason)
        client.say(b"good")
        assert await client.hear() == b"good"
        assert await client.hears() == {"type": "crdt-update-ack", "roomId": "r"}
        await client.silence()
        assert (len(server.errors), client.at_work) == (1, 0)
    assert ("RuntimeError" in caplog.text) == (said == b"bug")


@pytest.mark.parametrize("said", [b"update", {"type": "crdt-snapshot", "roomId": "r", "data": ""}])
async def test_a_room_has_to_be_joined_first(said: object) -> None:
    async with Server(None, Sync()).client() as client:
        assert await client.asks(said) == error("join a room first")


async def test_who_cannot_join_is_in_no_room() -> None:
    sync = Sync()
    async with Server(None, sync).client() as client:
        client.say({"type": "crdt-join", "roomId": "r"})
        await client.hears()
        await client.hears()
        assert await client.asks({"type": "crdt-join", "roomId": "full"}) == error(
            "the room is full"
        )
        assert await client.asks(b"update") == error("join a room first")
        assert not sync.rooms["r"].members


async def test_a_client_is_in_one_room_and_leaves_it_with_the_socket() -> None:
    sync = Sync()
    async with Server(None, sync).client() as client:
        for room in ("a", "b", "b"):
            client.say({"type": "crdt-join", "roomId": room})
            assert await client.hears() == {"type": "crdt-joined", "roomId": room}
            await client.hears()
            members = {name: len(found.members) for name, found in sync.rooms.items()}
            assert members == {"a": 0} | {room: 1}
    assert not sync.rooms["b"].members


# What a server of this protocol must not do


async def test_a_query_ends_with_its_client() -> None:
    server = Server()
    server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    server.database.rows["large"] = Rows([[b"1"], [b"2"]], stands_at=1)
    async with server.client() as client:
        client.say(ask("json", "slow", 1), ask("arrow", "large", 2))
        await client.silence()
        assert server.database.over == []
    assert sorted(server.database.over) == ["large", "slow"]
    assert client.at_work == 0


async def test_more_than_there_is_room_for_is_not_refused_but_waits() -> None:
    server = Server(Options(max_queries=3))
    slow = server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as client:
        client.say(*(ask("json", "slow", number) for number in range(9)))
        await client.silence()
        assert len(server.database.begun) == 3
        slow.go.set()
        assert sorted([(await client.hears())["queryId"] for _ in range(9)]) == list(range(9))
        await client.silence()


async def test_a_cancel_behind_any_number_of_queries_is_in_time() -> None:
    server = Server(Options(max_queries=3))
    server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as client:
        client.say(*(ask("json", "slow", number) for number in range(3000)))
        for number in (2, 2999):
            client.say({"type": "cancel", "queryId": number})
            heard = [await client.hears() for _ in range(2)]
            assert {"type": "cancelAck", "queryId": number, "cancelled": True} in heard
            assert error(CANCELLED, number) in heard
        await client.silence()
        assert len(server.database.begun) == 4  # in the place of the one that was cancelled


async def test_large_messages_need_more_room() -> None:
    sql = "x" * 100_000
    server = Server(Options(max_bytes=200_000))
    slow = server.database.rows[sql] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as client:
        client.say(*(ask("json", sql, number) for number in range(5)))
        await client.silence()
        assert len(server.database.begun) == 2
        slow.go.set()
        assert sorted([(await client.hears())["queryId"] for _ in range(5)]) == list(range(5))


async def test_queries_that_wait_need_room_too() -> None:
    server = Server(Options(max_queries=1, max_bytes=100_000))
    slow = server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as client:
        client.say(*(ask("json", "slow", number) for number in range(100)))
        await client.silence()
        assert 80 < client.unread() < 100
        slow.go.set()
        assert [(await client.hears())["queryId"] for _ in range(100)] == list(range(100))


async def test_a_cancel_gets_past_queries_that_run_and_results_that_wait() -> None:
    server = Server(Options(max_unsent=10))
    server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    server.database.rows["quick"] = Rows([[b"[" + b"1," * 99 + b"2]"]])
    async with server.client() as client:
        client.reads = trio.Event()
        client.say(ask("json", "slow", "slow"), ask("json", "quick", "quick"))
        await client.silence()
        client.say(ask("json", "quick", "waits"), {"type": "cancel", "queryId": "waits"})
        client.say({"type": "cancel", "queryId": "slow"})
        await client.silence()
        assert sorted(server.database.over) == ["quick", "slow"]
        client.reads.set()
        heard = [await client.hears() for _ in range(5)]
        for id_ in ("slow", "waits"):
            assert error(CANCELLED, id_) in heard
            assert {"type": "cancelAck", "queryId": id_, "cancelled": True} in heard


async def test_a_slow_reader_loses_nothing_and_holds_little() -> None:
    server = Server(Options(max_unsent=1000))
    server.database.rows["s"] = Rows([[b"[" + b" " * 400 + b"]"]])
    async with server.client() as client:
        client.reads = trio.Event()
        client.say(*(ask("json", "s", number) for number in range(100)))
        await client.silence()
        assert len(server.database.begun) < 10
        client.reads.set()
        assert sorted([(await client.hears())["queryId"] for _ in range(100)]) == list(range(100))
        await client.silence()


async def test_a_socket_is_at_work_until_everything_is_answered() -> None:
    server = Server(None, Sync())
    slow = server.database.rows["slow"] = Rows([[b"[1]"]], stands_at=0)
    async with server.client() as client:
        client.say(ask("json", "slow"))
        await client.silence()
        assert client.at_work == 1
        client.reads = trio.Event()
        slow.go.set()
        await client.silence()
        assert client.at_work == 1
        client.say({"type": "crdt-join", "roomId": "r"}, {"type": "notify", "channel": "c"})
        await client.silence()
        assert client.at_work == 4
        client.reads.set()
        for _ in range(5):
            await client.hear()
        await client.silence()
        assert client.at_work == 0


async def test_a_large_result_is_at_work_until_it_is_sent() -> None:
    server = Server()
    rows = server.database.rows["s"] = Rows([[b"schema"], [b"one"]], stands_at=1)
    async with server.client() as client:
        client.say(ask("arrow", "s"))
        await client.silence()
        client.reads = trio.Event()
        rows.go.set()
        await client.silence()
        assert server.database.over == ["s"]
        assert client.at_work == 1
        client.reads.set()
        await client.hear()
        await client.silence()
        assert client.at_work == 0


async def test_a_notification_that_is_too_large_reaches_nobody() -> None:
    server = Server()
    async with server.client() as one, server.client() as two:
        await two.asks({"type": "subscribe", "channel": "c"})
        one.say({"type": "notify", "channel": "c", "payload": "x" * 65_535})
        assert "at most 65536 bytes" in (await one.hears())["error"]
        await two.silence()
        one.say({"type": "notify", "channel": "c", "payload": "x" * 65_534})
        assert len((await two.hears())["payload"]) == 65_534


async def test_many_acknowledgements_wait_for_a_slow_reader_but_not_all() -> None:
    server = Server()
    async with server.client() as client:
        client.reads = trio.Event()
        payload = "x" * 60_000
        client.say(*({"type": "notify", "channel": "c", "payload": payload} for _ in range(50)))
        await client.silence()
        assert 10 < client.at_work < 40
        client.reads.set()
        for _ in range(50):
            assert (await client.hears())["payload"] == payload
            assert await client.hears() == {"type": "notifyAck", "channel": "c"}
        await client.silence()


async def test_of_short_acknowledgements_thousands_may_wait() -> None:
    server = Server()
    async with server.client() as client:
        client.reads = trio.Event()
        client.say(*({"type": "cancel", "queryId": "nobody's"} for _ in range(2000)))
        await client.silence()
        assert client.at_work == 2000
        client.reads.set()
        for _ in range(2000):
            assert (await client.hears())["type"] == "cancelAck"


async def test_errors_of_the_database_are_counted_by_their_slug() -> None:
    server = Server()
    server.database.rows["s"] = Rows([NotebookError("odd")])
    async with server.client() as client:
        assert await client.asks(ask("exec", "s")) == error("odd", "q")
    assert server.errors == ["internal-error"]
