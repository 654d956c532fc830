"""SQLRooms messages, against the protocol's description and Arrow's own rules."""

from __future__ import annotations

import io
import json

import nanoarrow
import nanoarrow.ipc
import pyarrow
import pyarrow.ipc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from notebook_rpc.errors import InvalidParams, InvalidRequest, ParseError
from notebook_rpc.model import BROKEN_STREAM
from notebook_rpc.sansio import sqlrooms
from notebook_rpc.sansio.sqlrooms import Arrow, Auth, Cancel, Join, Notify, Seed, Subscribe

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # no lone surrogates: not on a socket


def header(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


# Text messages


def test_messages_are_told_by_their_type() -> None:
    asked = sqlrooms.parse('{"sql":"select 1","type":"arrow","queryId":17,"other":[1]}')
    assert asked == Arrow("select 1", Raw(b"17"))
    assert sqlrooms.parse('{"type":"json","sql":"x","persist":true}').persist  # type: ignore[union-attr]
    assert sqlrooms.parse('{"type":"cancel"}') == Cancel(UNSET)
    assert sqlrooms.parse('{"type":"auth","token":"t"}') == Auth("t")
    assert sqlrooms.parse('{"type":"subscribe"}') == Subscribe(None)
    assert sqlrooms.parse('{"type":"crdt-join","roomId":"r","clientId":"c"}') == Join("r")
    assert sqlrooms.parse('{"type":"crdt-snapshot","roomId":"r","data":"AA=="}') == Seed(
        "r", "AA=="
    )
    told = sqlrooms.parse('{"type":"notify","channel":"c","payload": {"a": [1.0]} }')
    assert isinstance(told, Notify)
    assert bytes(told.payload) == b'{"a": [1.0]}'


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"bogus","queryId":"q"}',
        '{"type":"arrow"}',
        '{"type":"arrow","sql":5}',
        '{"type":"uploadArrow"}',
        '{"type":5}',
        "{}",
        "[1,2]",
        "5",
        "null",
    ],
)
def test_json_that_is_no_message_is_invalid(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^invalid message$"):
        sqlrooms.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "",
        '{"type":"cancel"} x',
        '{"type":"notify","payload":"\\x"}',
        '{"type":"notify","payload":NaN}',
        '{"type":"notify","payload":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_what_is_not_json_is_told_so(text: str) -> None:
    with pytest.raises(ParseError, match=r"^invalid json$"):
        sqlrooms.parse(text)


@given(st.text())
def test_any_text_is_a_message_or_refused(text: str) -> None:
    for attempt in (text, f'{{"type":"{text}'):
        with pytest.raises((ParseError, InvalidRequest)):
            sqlrooms.parse(attempt)


# Ids


@pytest.mark.parametrize("text", ['"q1"', "17", "1.0", "-1e400", "1180591620717411303424", '""'])
def test_an_id_is_the_text_that_was_sent(text: str) -> None:
    assert sqlrooms.query_id(Raw(text.encode())) == text


def test_a_string_is_the_same_id_however_it_was_escaped() -> None:
    assert sqlrooms.query_id(Raw(b'"\\u0071\\u00e9"')) == sqlrooms.query_id(Raw('"qé"'.encode()))


def test_null_is_no_id() -> None:
    assert sqlrooms.query_id(UNSET) is None
    assert sqlrooms.query_id(Raw(b"null")) is None


@pytest.mark.parametrize("text", ["true", "false", "[1]", "{}", '"' + "x" * 1024 + '"'])
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        sqlrooms.query_id(Raw(text.encode()))


# Binary messages


def test_an_upload_is_its_header_and_the_stream_behind_it() -> None:
    text = b'{"type":"uploadArrow","queryId":"u","tableName":"t"}'
    message = header(text) + b"stream"
    found = sqlrooms.split(message)
    assert found is not None
    upload, begin = found
    assert (upload.query_id, upload.table_name) == (Raw(b'"u"'), "t")
    assert message[begin:] == b"stream"


@given(st.binary())
def test_other_bytes_are_no_upload(message: bytes) -> None:
    assert sqlrooms.split(message) is None
    assert sqlrooms.split(header(message)) is None


@pytest.mark.parametrize(
    "message",
    [
        b"loro" + bytes(100),
        header(b'{"type":"uploadArrow"}')[:-1],
        header(b'{"type":"arrow"}'),
        header(b'{"type":"uploadArrow","x":"\xff"}'),
        header(b'{"type":"uploadArrow","x":"' + b" " * sqlrooms.MAX_HEADER + b'"}'),
        header(b'{"type":"uploadArrow","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    ],
)
def test_nearly_an_upload_is_none(message: bytes) -> None:
    assert sqlrooms.split(message) is None


@pytest.mark.parametrize(
    ("name", "found"),
    [("up", ("", "up")), ("main.up", ("main", "up")), ("_2.3_", ("_2", "3_"))],
)
def test_a_table_is_a_name_and_perhaps_a_schemas(name: str, found: tuple[str, str]) -> None:
    assert sqlrooms.table(name) == found


@pytest.mark.parametrize("name", ["a b", "a.b.c", ".a", "a.", "a\n", 'a"b', "é", "a;drop table b"])
def test_other_names_of_tables_are_refused(name: str) -> None:
    reason = "tableName contains invalid characters; use letters, numbers, underscores"
    with pytest.raises(InvalidParams, match=reason):
        sqlrooms.table(name)


@pytest.mark.parametrize("name", [None, ""])
def test_a_missing_table_is_told(name: str | None) -> None:
    with pytest.raises(InvalidParams, match="Missing tableName for uploadArrow"):
        sqlrooms.table(name)


# Answers


@given(TEXT, st.one_of(TEXT, st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_answers_are_json(text: str, id_: object) -> None:
    sent = json.dumps(id_)
    assert json.loads(sqlrooms.ok(sent)) == {"type": "ok", "queryId": id_}
    assert json.loads(sqlrooms.upload_ack(sent)) == {"type": "uploadAck", "queryId": id_}
    error = {"type": "error", "queryId": id_, "error": text}
    assert json.loads(sqlrooms.error(text, sent)) == error
    assert json.loads(sqlrooms.error(text)) == {"type": "error", "error": text}
    ack = {"type": "cancelAck", "queryId": id_, "cancelled": True}
    assert json.loads(sqlrooms.cancel_ack(sent, cancelled=True)) == ack
    assert json.loads(sqlrooms.subscribed(text)) == {"type": "subscribed", "channel": text}
    notification = sqlrooms.notification(text, Raw(sent.encode()))
    assert json.loads(notification) == {"type": "notify", "channel": text, "payload": id_}
    assert json.loads(sqlrooms.notify_ack(text)) == {"type": "notifyAck", "channel": text}
    for kind, made in (
        ("crdt-joined", sqlrooms.joined(text)),
        ("crdt-snapshot-ack", sqlrooms.snapshot_ack(text)),
        ("crdt-update-ack", sqlrooms.update_ack(text)),
    ):
        assert json.loads(made) == {"type": kind, "roomId": text}


def test_an_error_may_quote_what_cannot_be_encoded() -> None:
    assert json.loads(sqlrooms.error("\ud800"))["error"] == "\\ud800"


def test_an_arrow_result_begins_with_its_header() -> None:
    assert sqlrooms.arrow_opening('"q"') == header(b'{"type":"arrow","queryId":"q"}')


@given(st.lists(TEXT), st.data())
def test_rows_become_a_string_whatever_pieces_they_come_in(
    values: list[str], data: st.DataObject
) -> None:
    rows = json.dumps(values, ensure_ascii=data.draw(st.booleans()), indent=2)
    cut = data.draw(st.integers(0, len(rows)))
    pieces = (rows[:cut].encode(), memoryview(rows[cut:].encode()))
    parts = [part for piece in pieces for part in sqlrooms.escaped(piece)]
    message = b"".join([sqlrooms.json_opening("1"), *parts, sqlrooms.CLOSING])
    assert json.loads(message) == {"type": "json", "queryId": 1, "data": rows}
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(b"".join([sqlrooms.json_opening("1"), *parts]))


def test_a_large_piece_is_escaped_in_parts() -> None:
    text = '"é\\"' * sqlrooms.ESCAPED
    parts = list(sqlrooms.escaped(text.encode()))
    assert len(parts) == 4
    assert json.loads(b'"%b"' % b"".join(parts)) == text


def messages() -> list[bytes]:
    """An Arrow IPC stream, without its end."""
    schema = pyarrow.schema({"k": pyarrow.int64(), "s": pyarrow.string()})
    batches = [pyarrow.record_batch([[i] * 9, ["x"] * 9], schema=schema) for i in range(3)]
    return [bytes(part.serialize()) for part in (schema, *batches)]


@pytest.mark.parametrize("sent", range(5))
def test_a_broken_stream_is_whole_to_no_reader(sent: int) -> None:
    broken = b"".join(messages()[:sent]) + BROKEN_STREAM
    with pytest.raises(pyarrow.ArrowInvalid, match="Expected to read 65536 metadata bytes"):
        pyarrow.ipc.open_stream(broken).read_all()
    with (
        pytest.raises(RuntimeError, match="ArrowArrayStream"),
        nanoarrow.ipc.InputStream.from_readable(io.BytesIO(broken)) as stream,
    ):
        nanoarrow.Array(stream)


def test_a_stream_that_only_stops_is_whole_to_them() -> None:
    """Why ``BROKEN_STREAM`` is needed."""
    stopped = b"".join(messages()[:2])
    assert pyarrow.ipc.open_stream(stopped).read_all().num_rows == 9
