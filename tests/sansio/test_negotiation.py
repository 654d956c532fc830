"""Which type and which coding an answer gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.sansio.negotiation import coding, media_type

TYPES = ["application/json", "text/csv"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV; header=absent", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv, application/json", "application/json"),  # the server's order, if liked equally
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("application/json;q=0.5, text/*;q=0.4", "application/json"),
        ("*/*, application/json;q=0", "text/csv"),  # the most exact decides
        ("text/*, text/csv;q=0.1, application/*;q=0.2", "application/json"),
        ("text/csv;q=1.000, */*;q=0.001", "text/csv"),
        ("image/png", None),
        ("text/csv;q=0", None),
        ("text/csv;q=0.0, image/*", None),
        # Malformed, and yet what somebody's client sends
        ("application/json; application/json-rpc", "application/json"),
        ("text/csv;q=much", "text/csv"),
        ("text/csv;q=7", "text/csv"),
        ("text/csv;q=nan", "text/csv"),
        (", ,;,text/csv", "text/csv"),
        ("json", "application/json"),
    ],
)
def test_a_media_type(accept: str | None, chosen: str | None) -> None:
    assert media_type(accept, TYPES) == chosen


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("identity;q=0.7, gzip;q=0.3", "identity"),
        ("identity, gzip", "gzip"),
        ("br", "identity"),
        ("gzip;q=0", "identity"),
        ("*", "zstd"),
        ("*, zstd;q=0", "gzip"),
        ("*;q=0, gzip", "gzip"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity;q=0.5, *;q=0", "identity"),
        ("identity;q=0", None),
        ("*;q=0", None),
        ("identity;q=0, br", None),
    ],
)
def test_a_coding(accepted: str | None, chosen: str | None) -> None:
    assert coding(accepted, ["zstd", "gzip"]) == chosen


@given(st.text(st.sampled_from("ag/*;,q=01. \tzip-json\x00é"), max_size=40))
def test_no_header_is_too_odd(header: str) -> None:
    assert media_type(header, TYPES) in (*TYPES, None)
    assert coding(header, ["gzip"]) in ("gzip", "identity", None)
