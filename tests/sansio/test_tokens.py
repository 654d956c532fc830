"""Tokens: whose they are, when they end, and what is said of a bad one."""

from __future__ import annotations

import pytest

from notebook_rpc.sansio.tokens import ANYBODY, Token, Tokens, User, bearer, of_browser, parse

FILE = """
# who may use it
#ada and bob
s3cret-of-ada     name=ada
s3cret-of-bob==   name=bob   expires=2027-01-31T00:00:00Z
  s3cret-of-nobody
s3cret-of-cy  read-only name=cy
"""
IN_TIME, LATE = 1801353599.0, 1801353600.0  # around the end of bob's


@pytest.mark.parametrize(
    ("authorization", "user"),
    [
        ("Bearer s3cret-of-ada", User("ada")),
        ("bearer  s3cret-of-ada", User("ada")),
        ("BEARER s3cret-of-bob==", User("bob")),
        ("Bearer s3cret-of-nobody", User("token 6")),
        ("Bearer s3cret-of-cy", User("cy", read_only=True)),
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer s3cret-of-ad", None),
        ("Bearer s3cret-of-adaa", None),
        ("Bearer s3cret-of-ada, Bearer s3cret-of-ada", None),
        ("Basic s3cret-of-ada", None),
        ("Bearer s3cret-of-ada\n", None),
        ("Bearer \u017f3cret-of-ada", None),
        ("s3cret-of-ada", None),
    ],
)
def test_whose_a_request_is(authorization: str | None, user: User | None) -> None:
    assert Tokens(parse(FILE)).user(bearer(authorization), IN_TIME) == user


def test_a_token_ends_at_its_time() -> None:
    tokens = Tokens(parse(FILE))
    assert tokens.user("s3cret-of-bob==", LATE) is None
    assert tokens.user("s3cret-of-ada", LATE) == User("ada")


@pytest.mark.parametrize("token", [None, "x", "\ud800"])
def test_without_tokens_everybody_may_come_in(token: str | None) -> None:
    tokens = Tokens([])
    assert not tokens
    assert tokens.user(token, 0) == ANYBODY
    assert Tokens(parse(FILE)).user(token, 0) is None


@pytest.mark.parametrize(
    ("protocols", "query", "token"),
    [
        (None, "", None),
        ("chat, v2.bearer", "room=1", None),
        ("bearer.czNjcmV0", "", "s3cret"),
        ("chat ,bearer.czNjcmV0", "token=other", "s3cret"),
        ("chat, bearer.czNjcmV0", "", "s3cret"),
        ("Bearer.czNjcmV0,xbearer.czNjcmV0", "", None),
        ("bearer.czNjcg", "", "s3cr"),
        ("bearer.fn5-", "", "~~~"),
        ("bearer.czNjcmV0LW9mLWJvYj09", "", "s3cret-of-bob=="),
        ("bearer._-8", "", ""),  # base64url, but not of text
        ("bearer.czNjcm V0", "", ""),
        ("bearer.s3cret", "", ""),
        ("bearer.", "", ""),
        (None, "room=1&token=s3cret-of-bob%3D%3D&token=second", "s3cret-of-bob=="),
        (None, "token=", None),
    ],
)
def test_the_token_of_a_browser_s_websocket(
    protocols: str | None, query: str, token: str | None
) -> None:
    assert of_browser(protocols, query) == token


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ok\ns3cret name", "^line 2: behind a token"),
        ("s3cret name=", "^line 1: behind a token"),
        ("s3cret readonly", "^line 1: behind a token"),
        ("s3cret read-only=yes", "^line 1: behind a token"),
        ("s3cret expires=2027-01-31", "^line 1: expires must be a time with an offset"),
        ("s3cret expires=2027-01-31T00:00:00", "with an offset"),
        ("s3cret expires=soon", "with an offset"),
        ("s3crét", "^line 1: a token consists of"),
        ("s3cret=x", "^line 1: a token consists of"),
        ("s3cret name=a\ns3cret2 name=a", "the same name"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_its_tokens(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert "s3cr" not in str(caught.value)


def test_the_token_itself_is_not_kept() -> None:
    assert "s3cret" not in repr(Token.of("s3cret", User("ada")))
    assert parse("") == []
