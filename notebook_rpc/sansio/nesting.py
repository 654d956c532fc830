"""How deep JSON text is nested, and how much there is of it, told before it is parsed.

Parsers recurse, and each has a limit of its own that moves with the stack it is called on; and a
few bytes of text can become fifty times as many of memory. Nothing here judges whether the text
is JSON.
"""

from __future__ import annotations

import re
from array import array
from itertools import accumulate
from typing import Final

MAX_VALUES: Final = 1_000_000
"""Values in one message: about a hundred megabytes, and a third of a second to parse."""

# Possessive: nothing is ever tried twice, however long the string. One may stay open.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_RUN: Final = 4096
_STEP: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # signed: 1 and -1
_OTHERS: Final = bytes(set(range(256)) - set(b"[{]}"))


def excess(text: bytes, max_depth: int, max_values: int = MAX_VALUES) -> str | None:
    """What there is too much of in *text*, in words; None if nothing.

    More than *max_depth* arrays and objects may not lie inside each other, and there may be no
    more than *max_values* values (brackets that open and commas), or strings.
    """
    # Nearly every request has fewer of both than may be, those in its SQL included.
    if _openings(text) <= max_depth and _values(text) <= max_values:
        return None
    bare, strings = _STRING.subn(b"", text, max_values + 1)
    if strings > max_values or _values(bare) > max_values:
        return f"more than {max_values} values"
    return f"nested deeper than {max_depth} levels" if _is_deeper(bare, max_depth) else None


def _openings(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _values(text: bytes) -> int:
    return _openings(text) + text.count(b",")


def _is_deeper(bare: bytes, limit: int) -> bool:
    """*bare* is without strings."""
    steps = array("b", bare.translate(_STEP, _OTHERS))
    level = 0
    for start in range(0, len(steps), _RUN):  # what is too deep is nearly always so at once
        levels = list(accumulate(steps[start : start + _RUN], initial=level))
        if max(levels) > limit:
            return True
        level = levels[-1]
    return False
