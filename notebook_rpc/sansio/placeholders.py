"""From the placeholders that people write to those that a database module takes.

It refuses to guess: parameters that no placeholder asks for, placeholders without a parameter,
and which ``?`` is an operator, are left to who wrote the statement.

Source: PEP 249, "paramstyle".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.sqltext import STANDARD, Kind, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from notebook_rpc.model import Parameters
    from notebook_rpc.sansio.sqltext import Dialect

Paramstyle: TypeAlias = Literal["qmark", "numeric", "named", "format", "pyformat", "dollar"]
"""PEP 249's five, and PostgreSQL's own ``$1``."""


class Bound(NamedTuple):
    """A statement in its module's style, and what goes with it: a dictionary for named and
    pyformat, a list for the others, None if there are no parameters at all."""

    sql: str
    parameters: list[object] | dict[str, object] | None


def bind(
    statement: str, parameters: Parameters | None, style: Paramstyle, dialect: Dialect = STANDARD
) -> Bound:
    """Translate the placeholders of *statement* to *style*.

    A mapping is for ``:name``. A sequence is for ``$1``, ``$2`` (or ``?1``, ``?2``), in any order
    and any number of times, if there is one of these, else for ``?``; ``??`` is a question mark
    then. Without parameters nothing is translated: ``?`` and ``%`` are the database's own.

    Raises:
        QueryError: parameters and placeholders do not go together; it says how.
    """
    if not parameters:
        return Bound(statement, None)
    find = _named if isinstance(parameters, Mapping) else _positional
    writer = _Writer(statement, style)
    for place in find(statement, parameters, dialect):  # type: ignore[arg-type]  # by isinstance
        writer.write(place)
    return writer.bound()


class _Place(NamedTuple):
    """Where a parameter goes; ``name`` is "" where a single question mark does."""

    start: int
    end: int
    name: str
    value: object


def _named(statement: str, parameters: Mapping[str, object], dialect: Dialect) -> Iterator[_Place]:
    unused = dict.fromkeys(parameters)
    for kind, start, end in tokens(statement, dialect):
        if kind is Kind.PLACEHOLDER and statement[start] == ":":
            name = statement[start + 1 : end]
            if name not in parameters:
                raise QueryError(f"the statement asks for :{name}, which was not given")
            unused.pop(name, None)
            yield _Place(start, end, name, parameters[name])
    for name in unused:
        raise QueryError(f"the statement has no parameter {name!r}")


def _positional(statement: str, parameters: Sequence[object], dialect: Dialect) -> Iterator[_Place]:
    found = [
        token
        for token in tokens(statement, dialect)
        if statement[token.start] in "?$" and token.kind in (Kind.PLACEHOLDER, Kind.OTHER)
    ]
    numbered = any(statement[start + 1 : end].isdecimal() for _, start, end in found)
    given, used = len(parameters), set[int]()
    for kind, start, end in found:
        text = statement[start:end]
        if text == "??" and not numbered:
            yield _Place(start, end, "", None)
        elif kind is Kind.PLACEHOLDER and numbered == (text != "?"):
            number = len(used) + 1 if not numbered else int(text[1:10])
            used.add(number)
            if 0 < number <= given:
                yield _Place(start, end, f"p{number}", parameters[number - 1])
            elif numbered:
                raise QueryError(f"the statement asks for {text[:10]}, but {given} were given")
    if len(used) != given:
        number = len(used)
        raise QueryError(f"the statement asks for {number} parameters, but {given} were given")


class _Writer:
    """Writes a statement anew, from its beginning to its end."""

    def __init__(self, statement: str, style: Paramstyle) -> None:
        self._statement = statement
        self._style = style
        self._pieces: list[str] = []
        self._at = 0
        self._values: list[object] = []
        self._names: dict[str, object] = {}
        self._numbers: dict[str, int] = {}

    def write(self, place: _Place) -> None:
        self._copy(place.start)
        self._at = place.end
        if not place.name:
            # A module that translates nothing itself hands this on to a database with the rule.
            self._pieces.append("??" if self._style == "qmark" else "?")
        else:
            self._pieces.append(self._placeholder(place.name, place.value))

    def bound(self) -> Bound:
        self._copy(len(self._statement))
        by_name = self._style in ("named", "pyformat")
        return Bound("".join(self._pieces), self._names if by_name else self._values)

    def _copy(self, until: int) -> None:
        text = self._statement[self._at : until]
        percents = self._style in ("format", "pyformat")
        self._pieces.append(text.replace("%", "%%") if percents else text)

    def _placeholder(self, name: str, value: object) -> str:
        match self._style:
            case "named" | "pyformat":
                self._names[name] = value
                return f":{name}" if self._style == "named" else f"%({name})s"
            case "numeric" | "dollar":
                if name not in self._numbers:
                    self._values.append(value)
                    self._numbers[name] = len(self._values)
                return f"{':' if self._style == 'numeric' else '$'}{self._numbers[name]}"
            case "qmark" | "format":
                self._values.append(value)
                return "?" if self._style == "qmark" else "%s"
