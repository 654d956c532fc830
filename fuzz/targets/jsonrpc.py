"""Any bytes are parsed into calls that Python's own parser reads the same way, or refused
with an answer that is valid JSON and carries the id that was sent; nothing is ever raised."""

from __future__ import annotations

import json

from notebook_rpc.sansio import jsonrpc

MAX_BATCH = 20

SEEDS = [
    b'{"jsonrpc":"2.0","id":1,"method":"tables"}',
    b'{\n  "id": 1,\n  "jsonrpc": "2.0",\n  "method": "page",\n  "params": [\n    100\n  ]\n}',
    b'{"jsonrpc":"2.0","method":"execute","params":{"sql":"\\u00e9\\ud83d\\ude00","p":1.5e3}}',
    b'[{"jsonrpc":"2.0","id":"a","method":"page","params":[100]},1,{"jsonrpc":"2.0","method":"m"}]',
    b'{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"m","params":[1e999]}',
    b'{"jsonrpc":"2.0","id":null,"id":2,"method":"m","params":[[[[[[]]]]]]}',
    b'{"jsonrpc":"2.0","id":-0.0e-0,"method":"\\ud800","params":[NaN,"\xff"]}',
    b"[]",
]


def target(data: bytes) -> None:
    parsed = jsonrpc.parse(data, MAX_BATCH)
    if isinstance(parsed, list):
        document = json.loads(data)
        assert isinstance(document, list)
        assert len(document) == len(parsed) <= MAX_BATCH
        for ours, theirs in zip(parsed, document, strict=True):
            check(ours, theirs)
    elif isinstance(parsed, jsonrpc.Call):
        check(parsed, json.loads(data))
    else:
        check_refusal(parsed)


def check(ours: jsonrpc.Call | jsonrpc.Refused, theirs: object) -> None:
    if isinstance(ours, jsonrpc.Refused):
        check_refusal(ours)
        return
    assert isinstance(theirs, dict)
    assert ours.method == theirs["method"]
    assert ours.params == theirs.get("params", [])
    if ours.id is None:
        assert "id" not in theirs
    else:
        assert json.loads(ours.id) == theirs["id"]
        assert json.loads(b"".join(jsonrpc.result(ours.id, [b"true"])))["id"] == theirs["id"]


def check_refusal(refused: jsonrpc.Refused) -> None:
    answer = json.loads(jsonrpc.error(refused.id, refused.error))
    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert answer["error"]["code"] in (-32700, -32600, -32602)
    assert answer["id"] is None or isinstance(answer["id"], str | int | float)
