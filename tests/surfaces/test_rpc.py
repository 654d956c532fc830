"""The ADONotebook surface over a session that only remembers what it was asked."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio

from notebook_rpc.errors import (
    DatabaseUnavailable,
    NotebookError,
    QueryError,
    TooManySessions,
    UnknownConnection,
    UnknownSession,
    WrongState,
)
from notebook_rpc.model import Column, ResultColumn, Table
from notebook_rpc.sansio.routing import Found, RoutingTable
from notebook_rpc.sansio.tokens import ANYBODY, User
from notebook_rpc.surfaces.dialogue import Dialogue, Options
from notebook_rpc.surfaces.rpc import Rpc
from notebook_rpc.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from notebook_rpc.model import Parameters
    from notebook_rpc.web import Headers

T = TypeVar("T")


class Remembering:
    """A session whose answers are fixed. ``fails`` makes the next call raise."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.fails: Exception | None = None

    def _call(self, *call: object) -> None:
        self.calls.append(call)
        failure, self.fails = self.fails, None
        if failure is not None:
            raise failure

    async def tables(self, render: Callable[[Sequence[Table]], T]) -> T:
        self._call("tables")
        return render([Table("c", "s", "t")])

    async def views(self, render: Callable[[Sequence[Table]], T]) -> T:
        self._call("views")
        return render([])

    async def columns(
        self, catalog: str, schema: str, table: str, render: Callable[[Sequence[Column]], T]
    ) -> T:
        self._call("columns", catalog, schema, table)
        return render([Column("c", "s", "t", "a", "INTEGER")])

    async def execute(
        self, sql: str, parameters: Parameters | None = None, seconds: float = math.inf
    ) -> None:
        self._call("execute", sql, parameters, seconds)

    async def metadata(self) -> Sequence[ResultColumn]:
        self._call("metadata")
        return [ResultColumn("a", "INTEGER")]

    async def count(self) -> int:
        self._call("count")
        return 2**60

    async def page(self, limit: int) -> Sequence[bytes]:
        self._call("page", limit)
        return b"[", b'{"a":"1"}', b"]"

    async def finish(self) -> None:
        self._call("finish")

    async def quit(self) -> None:
        self._call("quit")

    def cancel(self) -> bool:
        self._call("cancel")
        return False

    def progress(self) -> object:
        self._call("progress")
        return {"state": "NoActive"}


class Others:
    """Sessions by their id; ``create`` makes "1", "2" and so on, ``using`` counts its users."""

    def __init__(self) -> None:
        self.all: dict[str, Remembering] = {}
        self.users = 0
        self.owner = ANYBODY
        self.on: list[str] = []
        self.fails: NotebookError | None = None

    async def create(self, connection: str, user: User, /) -> str:
        if self.fails is not None:
            raise self.fails
        self.on.append(connection)
        id_ = str(len(self.all) + 1)
        self.all[id_] = Remembering()
        self.owner = user
        return id_

    @contextmanager
    def using(self, id_: str, user: User, /) -> Iterator[Remembering]:
        if id_ not in self.all or user != self.owner:
            raise UnknownSession
        self.users += 1
        yield self.all[id_]
        self.users -= 1

    async def end(self, id_: str, user: User, /) -> None:
        if id_ not in self.all or user != self.owner:
            raise UnknownSession
        del self.all[id_]


class Client:
    def __init__(self, options: Options | None = None) -> None:
        self.user = ANYBODY
        self.session = Remembering()
        self.readers = Remembering()
        self.others = Others()
        self.stopped: list[bool] = []
        stop = lambda: self.stopped.append(True)  # noqa: E731
        options = options or Options(max_batch=5)
        self.rpc = Rpc(self.session, self.others, stop, options, readers=self.readers)
        routes = ((route.method, route.path, route.handler) for route in self.rpc.routes())
        self.table = RoutingTable(routes)

    async def request(
        self,
        method: str,
        path: str,
        body: object = b"",
        content_type: bytes | None = b"application/json",
    ) -> Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers: Headers = ((b"host", b"localhost"),)
        if content_type is not None:
            headers = (*headers, (b"content-type", content_type))
        found = self.table.find(method, path)
        assert isinstance(found, Found)
        request = Request(method, path, "", headers, raw, found.parameters, self.user)
        return await found.target(request)

    async def post(
        self, body: object, content_type: bytes | None = b"application/json"
    ) -> Response:
        return await self.request("POST", "/", body, content_type)

    async def call(self, method: str, params: object = ()) -> Any:
        response = await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        assert response.status == 200
        return json.loads(await text(response))

    async def result(self, method: str, *params: object) -> Any:
        answer = await self.call(method, params)
        assert answer.keys() == {"jsonrpc", "id", "result"}
        return answer["result"]


async def text(response: Response) -> bytes:
    if not callable(response.body):
        return response.body if isinstance(response.body, bytes) else b"".join(response.body)
    pieces: list[bytes] = []

    async def send(piece: bytes) -> None:
        pieces.append(piece)

    await response.body(send)
    return b"".join(pieces)


@pytest.fixture
def client() -> Client:
    return Client()


async def test_the_nine_methods(client: Client) -> None:
    assert await client.result("tables") == [{"catalog": "c", "schema": "s", "table": "t"}]
    assert await client.result("views") == []
    assert await client.result("columns", "", "s", "t") == [
        {"catalog": "c", "schema": "s", "table": "t", "column": "a", "datatype": "INTEGER"}
    ]
    assert await client.result("execute", "select 1") is True
    assert await client.result("metadata") == [{"column": "a", "datatype": "INTEGER"}]
    assert await client.result("count") == 2**60
    assert await client.result("page", 100) == [{"a": "1"}]
    assert await client.result("finish") is True
    assert await client.result("quit") is None
    assert client.session.calls == [
        ("tables",),
        ("views",),
        ("columns", "", "s", "t"),
        ("execute", "select 1", None, math.inf),
        ("metadata",),
        ("count",),
        ("page", 100),
        ("finish",),
        ("quit",),
    ]


async def test_our_own_methods(client: Client) -> None:
    assert await client.result("cancel") is False
    assert await client.result("progress") == {"state": "NoActive"}
    await client.result("execute", "select ?", [1, None], 1.5)
    await client.call("execute", {"sql": "select $a", "params": {"a": 2.5}, "timeout": 3})
    assert client.session.calls[-2:] == [
        ("execute", "select ?", [1, None], 1.5),
        ("execute", "select $a", {"a": 2.5}, 3),
    ]


@pytest.mark.parametrize(
    ("message", "urgent"),
    [
        (b'{"jsonrpc": "2.0", "id": 1, "method": "cancel"}', True),
        (b'{"jsonrpc": "2.0", "method": "progress"}', True),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "execute", "params": ["cancel"]}', False),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "cancel"}]', False),
        (b'{"method": "cancel"', False),
    ],
)
async def test_to_cancel_and_to_look_go_around_the_queue(message: bytes, urgent: bool) -> None:
    async def quit_() -> None:
        raise AssertionError

    session = Remembering()
    assert Dialogue(session, quit_, Options(max_batch=5)).is_urgent(message) is urgent
    assert session.calls == []


async def test_columns_takes_null_or_nothing_for_any(client: Client) -> None:
    await client.result("columns", None, "s")
    await client.result("columns")
    assert client.session.calls == [("columns", "", "s", ""), ("columns", "", "", "")]


async def test_quit_stops_the_server_only_if_it_was_legal(client: Client) -> None:
    client.session.fails = WrongState("finish first")
    assert (await client.call("quit"))["error"]["code"] == -32001
    assert client.stopped == []
    await client.result("quit")
    assert client.stopped == [True]


@pytest.mark.parametrize("limit", [0, -1, 1.0, 1.5, "1", None, True, [1]])
async def test_page_takes_a_positive_integer_only(client: Client, limit: object) -> None:
    assert (await client.call("page", [limit]))["error"]["code"] == -32602
    assert client.session.calls == []


@pytest.mark.parametrize("seconds", [0, -1, "1", True, 1e999])
async def test_a_timeout_is_a_number_of_seconds_above_0(client: Client, seconds: object) -> None:
    error = (await client.call("execute", ["select 1", None, seconds]))["error"]
    assert error["code"] in (-32602, -32700)
    assert client.session.calls == []


async def test_page_may_be_asked_for_more_rows_than_there_are_numbers(client: Client) -> None:
    assert await client.result("page", 10**30) == [{"a": "1"}]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tables", {}),
        ("columns", {}),
        ("execute", {"sql": "select 1"}),
        ("page", {"max": 1}),
    ],
)
async def test_a_parameter_that_no_method_has_is_named(
    client: Client, method: str, params: dict[str, object]
) -> None:
    assert "result" in await client.call(method, params)
    error = (await client.call(method, params | {"unheard_of": 1}))["error"]
    assert error["code"] == -32602
    assert "unheard_of" in error["message"]
    assert len(client.session.calls) == 1


@pytest.mark.parametrize("params", ["text", 1, True])
async def test_execute_takes_a_list_or_an_object_of_parameters(
    client: Client, params: object
) -> None:
    assert (await client.call("execute", ["select ?", params]))["error"]["code"] == -32602
    assert client.session.calls == []


async def test_an_unknown_method_is_named(client: Client) -> None:
    error = (await client.call("drop"))["error"]
    assert error["code"] == -32601
    assert "drop" in error["message"]


async def test_a_failed_call_has_code_message_slug_and_stacktrace(client: Client) -> None:
    client.session.fails = QueryError("no such table: t")
    assert (await client.call("execute", ["x"]))["error"] == {
        "code": -32011,
        "message": "no such table: t",
        "data": {"stacktrace": "", "slug": "query-error"},
    }


async def test_stack_traces_are_shown_on_request() -> None:
    client = Client(Options(max_batch=5, stack_traces=True))
    client.session.fails = QueryError("no")
    trace = (await client.call("execute", ["x"]))["error"]["data"]["stacktrace"]
    assert trace.startswith("Traceback")
    assert trace.endswith("QueryError: no\n")


async def test_the_slug_of_each_error_that_is_told_is_counted() -> None:
    errors: list[str] = []
    client = Client(Options(max_batch=5, on_error=errors.append))
    client.session.fails = QueryError("no")
    await client.call("execute", ["x"])
    await client.call("drop")
    client.session.fails = QueryError("nobody hears this")
    await client.post({"jsonrpc": "2.0", "method": "finish"})
    assert errors == ["query-error", "method-not-found"]


async def test_a_bug_is_answered_without_its_details_and_logged(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.session.fails = ZeroDivisionError("secret")
    error = (await client.call("execute", ["x"]))["error"]
    assert error["code"] == -32603
    assert error["message"] == "internal error; the server's log has the details"
    assert "secret" not in json.dumps(error)
    assert "secret" in caplog.text


# HTTP


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b" application/json ; charset=utf-8",
    ],
)
async def test_json_is_taken_with_and_without_parameters(
    client: Client, content_type: bytes
) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tables"}
    response = await client.post(call, content_type)
    assert response.status == 200
    assert response.headers == ((b"content-type", b"application/json"),)


@pytest.mark.parametrize(
    "content_type", [None, b"", b"text/plain", b"application/json-rpc", b"application/jsonx"]
)
async def test_another_content_type_is_415_with_an_empty_body(
    client: Client, content_type: bytes | None
) -> None:
    response = await client.post({"jsonrpc": "2.0", "id": 1, "method": "tables"}, content_type)
    assert (response.status, response.body) == (415, b"")
    assert client.session.calls == []


async def test_json_rpc_errors_are_status_200(client: Client) -> None:
    for body in (b"", b"{", b"[]", b"1", b'{"jsonrpc":"2.0","id":1,"method":"none"}'):
        response = await client.post(body)
        assert response.status == 200
        assert json.loads(await text(response))["error"]["data"]["stacktrace"] == ""


# Notifications and batches


async def test_a_notification_is_carried_out_and_answered_with_204(client: Client) -> None:
    for body in (
        {"jsonrpc": "2.0", "method": "finish"},
        [{"jsonrpc": "2.0", "method": "finish"}, {"jsonrpc": "2.0", "method": "none"}],
    ):
        client.session.fails = QueryError("nobody hears this")
        response = await client.post(body)
        assert (response.status, response.body) == (204, b"")
    assert client.session.calls == [("finish",)] * 2


async def test_a_notification_that_meets_a_bug_is_not_answered_either(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.session.fails = ZeroDivisionError("a bug")
    response = await client.post({"jsonrpc": "2.0", "method": "finish"})
    assert (response.status, response.body) == (204, b"")
    assert "a bug" in caplog.text


async def test_a_batch_is_carried_out_in_order_with_an_answer_for_each_call(
    client: Client,
) -> None:
    response = await client.post(
        [
            {"jsonrpc": "2.0", "id": "x", "method": "execute", "params": ["select 1"]},
            {"jsonrpc": "2.0", "method": "metadata"},
            1,
            {"jsonrpc": "2.0", "id": 2**70, "method": "page", "params": [5]},
        ]
    )
    answers = json.loads(await text(response))
    assert [answer["id"] for answer in answers] == ["x", None, 2**70]
    assert answers[0]["result"] is True
    assert answers[1]["error"]["code"] == -32600
    assert answers[2]["result"] == [{"a": "1"}]
    assert [call[0] for call in client.session.calls] == ["execute", "metadata", "page"]


async def test_a_batch_answers_each_call_before_it_begins_the_next(client: Client) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "page", "params": [5]}
    response = await client.post([call, call])
    begun: list[int] = []

    async def send(_: bytes) -> None:
        begun.append(len(client.session.calls))

    assert callable(response.body)
    await response.body(send)
    assert begun[0] == 1
    assert begun[-1] == 2


async def test_a_batch_over_the_limit_is_refused_as_one(client: Client) -> None:
    response = await client.post([{"jsonrpc": "2.0", "id": 1, "method": "tables"}] * 6)
    assert json.loads(await text(response))["error"]["code"] == -32600
    assert client.session.calls == []


async def test_json_is_nested_as_deep_as_the_options_say() -> None:
    client = Client(Options(max_batch=5, max_depth=4))
    call = {"jsonrpc": "2.0", "id": 1, "method": "execute", "params": ["a", [[1]]]}
    assert "result" in json.loads(await text(await client.post(call)))
    call["params"] = ["a", [[[1]]]]
    assert "error" in json.loads(await text(await client.post(call)))
    assert len(client.session.calls) == 1


# Sessions of one's own

EXECUTE = {"jsonrpc": "2.0", "id": 1, "method": "execute", "params": ["select 1"]}
QUIT = {"jsonrpc": "2.0", "id": 1, "method": "quit"}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"connection": null}', b'{"connection":"default"}'])
async def test_a_session_is_made_and_told_where_it_is(client: Client, body: bytes) -> None:
    response = await client.request("POST", "/sessions", body)
    assert response.status == 201
    assert dict(response.headers)[b"location"] == b"/sessions/1"
    assert dict(response.headers)[b"content-type"] == b"application/json"
    told = json.loads(await text(response))
    assert told == {"id": "1", "url": "/sessions/1", "connection": "default"}
    assert client.others.on == ["default"]


async def test_a_session_may_be_on_another_connection(client: Client) -> None:
    response = await client.request("POST", "/sessions", b'{"connection": "team/sales"}')
    assert json.loads(await text(response))["connection"] == "team/sales"
    assert client.others.on == ["team/sales"]


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"connection": 1}', b'{"name": "x"}', b"\xff", b'{"connection": "\xff"}'],
)
async def test_a_session_that_cannot_be_understood_is_not_made(client: Client, body: bytes) -> None:
    response = await client.request("POST", "/sessions", body)
    assert (response.status, response.body) == (400, b"")
    response = await client.request("POST", "/sessions", b"{}", b"text/plain")
    assert (response.status, response.body) == (415, b"")
    assert client.others.all == {}


@pytest.mark.parametrize(
    ("failure", "status", "retry"),
    [
        (TooManySessions("full"), 503, b"1"),
        (DatabaseUnavailable("gone"), 503, b"1"),
        (UnknownConnection("none of that name"), 404, None),
    ],
)
async def test_why_a_session_cannot_be_opened_is_told(
    client: Client,
    failure: NotebookError,
    status: int,
    retry: bytes | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.others.fails = failure
    response = await client.request("POST", "/sessions")
    assert response.status == status
    assert dict(response.headers).get(b"retry-after") == retry
    assert json.loads(await text(response)) == {"slug": failure.slug, "message": str(failure)}
    assert str(failure) in caplog.text


async def test_calls_go_to_the_session_they_are_posted_to(client: Client) -> None:
    await client.request("POST", "/sessions")
    await client.request("POST", "/sessions")
    assert (await client.request("POST", "/sessions/2", EXECUTE)).status == 200
    assert client.others.all["2"].calls == [("execute", "select 1", None, math.inf)]
    assert client.others.all["1"].calls == client.session.calls == []


async def test_an_unknown_session_is_404(client: Client) -> None:
    for method in ("POST", "DELETE"):
        response = await client.request(method, "/sessions/9", EXECUTE)
        assert (response.status, response.body) == (404, b"")


async def test_delete_ends_a_session(client: Client) -> None:
    await client.request("POST", "/sessions")
    assert (await client.request("DELETE", "/sessions/1")).status == 204
    assert client.others.all == {}


async def test_read_only_users_share_a_session_that_is_theirs(client: Client) -> None:
    client.user = User("ada", read_only=True)
    await client.result("execute", "select 1")
    await client.result("cancel")
    assert [call[0] for call in client.readers.calls] == ["execute", "cancel"]
    assert client.session.calls == []


async def test_a_read_only_user_ends_neither_the_server_nor_the_session_of_all_readers(
    client: Client,
) -> None:
    client.user = User("ada", read_only=True)
    error = (await client.call("quit"))["error"]
    assert (error["code"], error["data"]["slug"]) == (-32005, "forbidden")
    notification = {key: value for key, value in QUIT.items() if key != "id"}
    assert (await client.post(notification)).status == 204
    assert client.readers.calls == client.session.calls == []
    assert client.stopped == []


async def test_a_read_only_user_ends_a_session_of_their_own(client: Client) -> None:
    client.user = User("ada", read_only=True)
    await client.request("POST", "/sessions")
    response = await client.request("POST", "/sessions/1", QUIT)
    assert json.loads(await text(response))["result"] is None
    assert client.others.all == {}


async def test_quit_ends_its_own_session_and_not_the_server(client: Client) -> None:
    await client.request("POST", "/sessions")
    response = await client.request("POST", "/sessions/1", QUIT)
    assert json.loads(await text(response))["result"] is None
    assert client.others.all == {}
    assert client.stopped == []


async def test_a_session_is_in_use_while_a_batch_is_being_answered(client: Client) -> None:
    await client.request("POST", "/sessions")
    response = await client.request("POST", "/sessions/1", [EXECUTE])
    users: list[int] = []

    async def send(_: bytes) -> None:
        users.append(client.others.users)

    assert callable(response.body)
    await response.body(send)
    assert set(users) == {1}
    assert client.others.users == 0


async def test_the_size_of_each_answer_is_held_until_it_was_sent() -> None:
    held: list[int] = []

    def hold(size: int) -> Callable[[], None]:
        held.append(size)
        return lambda: held.remove(size)

    client = Client(Options(max_batch=5, hold=hold))
    call = {"jsonrpc": "2.0", "id": 1, "method": "tables"}
    response = await client.post(call)
    assert isinstance(response.body, list | tuple)
    alone = response.body
    assert held == [sum(map(len, alone))]
    assert response.done is not None
    response.done()
    assert held == []

    during: list[list[int]] = []

    async def send(_: bytes) -> None:
        during.append(list(held))

    response = await client.post([call, call])
    assert callable(response.body)
    await response.body(send)
    size = sum(map(len, alone))
    assert during == [[size]] * (len(during) - 1) + [[]]  # the last one is the closing bracket

    async def leave(_: bytes) -> None:
        raise trio.BrokenResourceError

    response = await client.post([call, call])
    assert callable(response.body)
    with pytest.raises(trio.BrokenResourceError):
        await response.body(leave)
    assert held == []
