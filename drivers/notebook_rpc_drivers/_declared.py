"""What a CREATE TABLE says of constraints and generated columns, where a database keeps the
statement and tells these nowhere else, or not of one table alone.

What it refuses: statements of clients. The database has taken this one, so it need not be judged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from notebook_rpc.schema import ConstraintKind
from notebook_rpc_drivers._sql_names import pieces

if TYPE_CHECKING:
    from notebook_rpc.sansio.sqltext import Dialect

PRIMARY_KEY, UNIQUE, FOREIGN_KEY, CHECK = ConstraintKind

_KINDS: Final = {
    "PRIMARY": PRIMARY_KEY,
    "UNIQUE": UNIQUE,
    "REFERENCES": FOREIGN_KEY,
    "CHECK": CHECK,
}
_OF_TABLES: Final = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"}
# What a name in front of it would be the name of, and of which nobody asks.
_NAMELESS: Final = {"NOT", "NULL", "DEFAULT", "COLLATE", "GENERATED"}


class Declaration(NamedTuple):
    """``references`` is a table's name, with what is in front of it."""

    kind: ConstraintKind
    name: str = ""
    columns: tuple[str, ...] = ()
    condition: str = ""
    references: tuple[str, ...] = ()
    referenced: tuple[str, ...] = ()


@dataclass
class Declared:
    """In the statement's order; ``generated`` has expressions by the names of columns."""

    constraints: list[Declaration] = field(default_factory=list)
    generated: dict[str, str] = field(default_factory=dict)

    def names(self, kind: ConstraintKind, number: int) -> list[str]:
        """Of the constraints of a *kind*: none if they are not that *number*, because then some
        of them are one to the database."""
        found = [each.name for each in self.constraints if each.kind is kind]
        return found if len(found) == number else [""] * number


def declared_in(sql: str, dialect: Dialect) -> Declared:
    return _Reader(sql, dialect).read()


class _Reader:
    def __init__(self, sql: str, dialect: Dialect) -> None:
        self._sql = sql
        self._pieces = list(pieces(sql, dialect))
        self._at = 0
        self._found = Declared()

    def read(self) -> Declared:
        head = [piece.word for piece in self._pieces[:3]]
        if "TABLE" not in head or "VIRTUAL" in head:
            return self._found
        while self._word not in ("(", ""):
            self._at += 1
        while self._word in ("(", ","):
            self._at += 1
            self._definition()
        return self._found

    @property
    def _word(self) -> str:
        """The next one, in capitals; "" at the end."""
        return self._pieces[self._at].word if self._at < len(self._pieces) else ""

    def _definition(self) -> None:
        """Of a column or of a constraint, up to the comma or the parenthesis behind it."""
        name = ""
        columns: tuple[str, ...] = ()
        if self._word not in _OF_TABLES:
            columns = (self._name(),)
        while self._word not in (",", ")", ""):
            word = self._word
            self._at += word != "("
            if word == "CONSTRAINT":
                name = self._name()
            elif word == "FOREIGN":
                self._at += 1  # KEY
                columns = self._names()
            elif word in _KINDS:
                self._constraint(word, name, columns)
                name = ""
            elif word == "AS":
                self._found.generated["".join(columns)] = self._inner()
            elif word == "(":
                self._inner()  # of a type, or a default
            elif word in _NAMELESS:
                name = ""

    def _constraint(self, word: str, name: str, columns: tuple[str, ...]) -> None:
        kind, condition = _KINDS[word], ""
        references: tuple[str, ...] = ()
        referenced: tuple[str, ...] = ()
        if kind is CHECK:
            condition = self._inner()
        elif kind is FOREIGN_KEY:
            references = (self._name(),)
            while self._word == ".":
                self._at += 1
                references += (self._name(),)
            referenced = self._names()
        else:
            self._at += word == "PRIMARY"  # KEY
            columns = columns or self._names()
        said = Declaration(kind, name, columns, condition, references, referenced)
        self._found.constraints.append(said)

    def _name(self) -> str:
        name = self._pieces[self._at].name if self._word else ""
        self._at += 1
        return name

    def _names(self) -> tuple[str, ...]:
        """The first ones between commas, in parentheses; none if there are no parentheses."""
        if self._word != "(":
            return ()
        begin = self._at
        self._inner()
        inside = self._pieces[begin : self._at - 1]
        return tuple(piece.name for before, piece in pairwise(inside) if before.text in ("(", ","))

    def _inner(self) -> str:
        """What the parentheses hold that begin here."""
        if self._word != "(":
            return ""
        begin, depth = self._at, 0
        while self._word:
            depth += (self._word == "(") - (self._word == ")")
            self._at += 1
            if depth == 0:
                end = self._pieces[self._at - 1].start
                return self._sql[self._pieces[begin].end : end].strip()
        return ""
