"""What a client would like its answer to be: of which type, and coded how.

It refuses to be strict where nothing is won: an element that cannot be read is taken as it
would be without what is wrong with it, as there are clients whose Accept is malformed.

Source: RFC 9110, section 12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IDENTITY: Final = "identity"


class Wish(NamedTuple):
    """An element of a header: what it names, in lower case, and how much it is liked."""

    what: str
    quality: float


def wishes(header: str) -> Iterator[Wish]:
    for element in header.split(","):
        what, *parameters = (part.strip().lower() for part in element.split(";"))
        if what:
            yield Wish(what, _quality(parameters))


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 1
            return quality if 0 <= quality <= 1 else 1
    return 1


def media_type(accept: str | None, offered: Sequence[str]) -> str | None:
    """Which of the *offered* types the client likes best, the first of several; None if it takes
    none of them. An element without a slash is none."""
    wanted = {what: quality for what, quality in wishes(accept or "") if "/" in what}
    if not wanted:
        return offered[0]

    def liked(kind: str) -> float:
        ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        return next((wanted[each] for each in ranges if each in wanted), 0)

    best = max(offered, key=liked)
    return best if liked(best) else None


def coding(accept_encoding: str | None, offered: Sequence[str]) -> str | None:
    """Which of the *offered* codings, the best of them first, or ``IDENTITY``, is to be used; None
    if the client takes none of these.

    Whoever says nothing gets what it can read for sure. Of what it likes equally, the smallest.
    """
    if accept_encoding is None:
        return IDENTITY
    wanted = dict(wishes(accept_encoding.lower().replace("x-gzip", "gzip")))
    rest = wanted.get("*")

    def liked(name: str) -> float:
        unnamed = rest if name != IDENTITY or rest == 0 else None
        return wanted.get(name, unnamed if unnamed is not None else 0)

    best = max([*offered, IDENTITY], key=liked)
    if liked(best):
        return best
    refused = wanted.get(IDENTITY, rest) == 0
    return None if refused else IDENTITY
