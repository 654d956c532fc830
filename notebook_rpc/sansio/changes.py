"""What a client may want to have changed in a SELECT, in words that need no SQL to be read."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Target: TypeAlias = Literal["WHERE", "SELECT"]


class Operation(enum.Enum):
    ADD, REMOVE = "add", "remove"


@dataclass(frozen=True)
class Condition:
    """``lhs`` is a column by its name in the result, or an expression; ``rhs`` is SQL."""

    lhs: str
    cmp: str
    rhs: str


@dataclass(frozen=True)
class Change:
    """Of ``conditions`` if ``target`` is WHERE, of ``columns``, by their names, if it is SELECT."""

    operation: Operation
    target: Target
    conditions: Sequence[Condition] = ()
    columns: Sequence[str] = ()
