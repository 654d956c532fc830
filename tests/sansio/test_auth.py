"""Who may talk to the server. Each refused line is an attack that works on servers without."""

from __future__ import annotations

import pytest

from notebook_rpc.sansio.auth import Access

DEFAULT = Access()
CONFIGURED = Access(frozenset({"db.example", "192.0.2.7"}), frozenset({"https://ui.example"}))


@pytest.mark.parametrize(
    "host",
    [
        None,  # HTTP/1.0
        "localhost",
        "localhost:1995",
        "LOCALHOST:80",
        "127.0.0.1:21995",
        "127.9.9.9",
        "[::1]",
        "[::1]:1995",
        "app.localhost:8080",
    ],
)
def test_loopback_names_are_ours(host: str | None) -> None:
    assert DEFAULT.refusal(host, None) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:1995",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1",
        "localhost/x",
        "localhost?x",
        "localhost#x",
        "localhost:x",
        "[::1",
        "2130706433",
        "0.0.0.0",
        "[::]",
        "localhost, evil.example",
        "db.example",
    ],
)
def test_other_names_are_refused_which_stops_dns_rebinding(host: str) -> None:
    refusal = DEFAULT.refusal(host, None)
    assert refusal is not None
    assert "--allowed-host" in refusal


@pytest.mark.parametrize("host", ["Evil.Example:1995", "evil.example"])
def test_the_refusal_has_the_name_as_allowed_host_takes_it(host: str) -> None:
    refusal = DEFAULT.refusal(host, None)
    assert refusal is not None
    assert refusal.endswith("--allowed-host 'evil.example')")
    assert Access(frozenset({"evil.example"})).refusal(host, None) is None


def test_allowed_hosts_are_ours_in_any_case_and_on_any_port() -> None:
    assert CONFIGURED.refusal("db.example", None) is None
    assert CONFIGURED.refusal("DB.Example:8443", None) is None
    assert CONFIGURED.refusal("192.0.2.7", None) is None
    assert CONFIGURED.refusal("x.db.example", None) is not None


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173", "http://app.localhost"],
)
def test_loopback_origins_may_pass(origin: str) -> None:
    assert DEFAULT.refusal("localhost:1995", origin) is None


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://evil.example",
        "https://localhost.evil.example",
        "https://localhost@evil.example",
        "file://",
        "vscode-webview://localhost",
        "http://[::1",
        "https://ui.example",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    refusal = DEFAULT.refusal("localhost:1995", origin)
    assert refusal is not None
    assert "--cors-origin" in refusal


def test_the_own_origin_may_pass() -> None:
    assert CONFIGURED.refusal("db.example:8443", "https://db.example:8443") is None
    assert CONFIGURED.refusal("DB.Example:8443", "https://db.example:8443") is None
    assert CONFIGURED.refusal("db.example:8443", "https://db.example:1") is not None
    assert CONFIGURED.refusal(None, "https://db.example:8443") is not None


def test_allowed_origins_may_pass_exactly_as_they_were_given() -> None:
    assert CONFIGURED.refusal("db.example", "https://ui.example") is None
    assert CONFIGURED.refusal("db.example", "http://ui.example") is not None
    assert Access(origins=frozenset({"null"})).refusal("localhost", "null") is None
