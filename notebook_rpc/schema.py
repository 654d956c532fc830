"""What every layer calls the structure of a table: columns, keys, constraints.

As ``model``, it has words and no rules. All text of SQL is in the database's own dialect.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence  # noqa: TC003  # msgspec reads the annotations

import msgspec

from notebook_rpc.model import Table  # noqa: TC001  # as above


class ColumnFacts(msgspec.Struct, frozen=True):
    """A column of a table or a view. ``datatype`` is the whole of it, as ``VARCHAR(40)``;
    ``default`` is an expression in SQL, None if there is none. Nobody can write to a column that
    is ``generated`` by the expression given there; "" where the database does not tell it."""

    name: str
    datatype: str
    nullable: bool = True
    default: str | None = None
    generated: str | None = None


class ConstraintKind(enum.Enum):
    PRIMARY_KEY, UNIQUE, FOREIGN_KEY, CHECK = "primary key", "unique", "foreign key", "check"


class Constraint(msgspec.Struct, frozen=True):
    """``name`` is "" where it has none. ``columns`` are those of this table that it is about.
    ``condition`` is a check's expression in SQL; ``references`` and ``referenced`` are a foreign
    key's table and its columns there."""

    kind: ConstraintKind
    name: str = ""
    columns: Sequence[str] = ()
    condition: str = ""
    references: Table | None = None
    referenced: Sequence[str] = ()


class TableFacts(msgspec.Struct, frozen=True):
    """A table or a view, as it is now. ``create_stmt`` would make it again; "" where the database
    does not tell."""

    table: Table
    columns: Sequence[ColumnFacts]
    constraints: Sequence[Constraint] = ()
    create_stmt: str = ""
    is_view: bool = False

    @property
    def primary_key(self) -> Sequence[str]:
        """Its columns, in order."""
        keys = (each for each in self.constraints if each.kind is ConstraintKind.PRIMARY_KEY)
        return next((each.columns for each in keys), ())
