"""/metrics of a real server: everything an operator asks for is there, and is what was done."""

from __future__ import annotations

import http.client
import re

import pytest

from tests.support import RpcError, Server


def metrics(server: Server) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert response.status == 200
    text = response.read().decode()
    connection.close()
    samples = re.findall(r"^notebook_rpc_(\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in samples}


def test_what_was_done_is_what_is_told() -> None:
    with Server("fake://") as server, server.client() as client, server.session() as other:
        before = metrics(server)
        assert client.rows("rows 250", page=100)
        with pytest.raises(RpcError):
            client.call("execute", "error no")
        other.send("execute", "wait")
        while metrics(server)["calls_running"] == 0:
            continue
        with server.client(other.path) as third:
            third.send("tables")
            while (now := metrics(server))["calls_queued"] == 0:
                continue
            assert now["sessions"] == 1
            assert now["connections"] >= 4
            assert now["threads"] >= 1
            assert now["calls_waiting"] == 0
            assert client.call("progress")["running"] is None
            with server.client(other.path) as canceller:
                assert canceller.call("cancel") is True
            assert third.receive()
        with pytest.raises(RpcError):
            other.receive()
        now = metrics(server)
    assert now["rows_total"] - before.get("rows_total", 0) == 250
    assert now["row_bytes_total"] > 250 * len('{"n":"1"}')
    assert now["sent_bytes_total"] - before["sent_bytes_total"] > now["row_bytes_total"]
    assert now['errors_total{slug="query-error"}'] == 1
    assert now['errors_total{slug="cancelled"}'] == 1
    assert now['requests_total{method="POST",route="/",status="200"}'] >= 7
    assert now['call_seconds_count{call="execute"}'] >= 3
