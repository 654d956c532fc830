"""A file's name in a header."""

from __future__ import annotations

import email.message
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.errors import InvalidParams
from notebook_rpc.sansio.disposition import attachment


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.csv", b'attachment; filename="a.csv"'),
        ('a"b\\%41', b"attachment; filename=\"a_b__41\"; filename*=UTF-8''a%22b%5C%2541"),
        ("a; b=c.csv", b'attachment; filename="a; b=c.csv"'),
        (
            "€ rates.csv",  # RFC 6266, section 5
            b"attachment; filename=\"_ rates.csv\"; filename*=UTF-8''%E2%82%AC%20rates.csv",
        ),
    ],
)
def test_names(name: str, header: bytes) -> None:
    assert attachment(name) == header


@pytest.mark.parametrize(
    "name", ["", " ", "a\r\nset-cookie: x", "a\nb", "a\0b", "\ud800", "a\u2028b"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidParams, match="one line"):
        attachment(name)


@given(st.text(min_size=1))
def test_a_header_is_one_line_and_says_the_name(name: str) -> None:
    try:
        header = attachment(name)
    except InvalidParams:
        return
    assert all(0x20 <= byte < 0x7F for byte in header)
    message = email.message.EmailMessage(email.policy.HTTP)
    extended = b"filename*=" in header
    message["content-disposition"] = header.decode().replace("filename=", "other=", extended)
    assert (message.get_filename() or "").strip() == name.strip()
