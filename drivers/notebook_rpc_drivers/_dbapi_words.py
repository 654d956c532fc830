"""Small words between a statement, its parameters and a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from notebook_rpc.errors import QueryError
from notebook_rpc.sansio.sqltext import Kind, tokens

if TYPE_CHECKING:
    from notebook_rpc_drivers._dbapi_facts import Facts


def of(text: str, facts: Facts) -> list[str]:
    """The words of a statement, in capitals."""
    found = tokens(text, facts.dialect)
    return [text[start:end].upper() for kind, start, end in found if kind is Kind.WORD]


def copies(text: str, facts: Facts) -> bool:
    """Whether it is PostgreSQL's COPY from or to the client, for which modules have methods of
    their own; executed, it leaves their connections unusable."""
    found = tokens(text, facts.dialect)
    first = next((text[start:end] for kind, start, end in found if kind is Kind.WORD), "")
    return first.upper() == "COPY" and bool({"STDIN", "STDOUT"} & set(of(text, facts)))


def check_sql(sql: str) -> None:
    """Refuse what modules choke on, or take for the end of the statement."""
    try:
        sql.encode()
    except UnicodeEncodeError as exc:
        raise QueryError(f"the statement is not valid Unicode: {exc}") from exc
    if "\0" in sql:
        raise QueryError("the statement contains a null character")


def check_text(value: object) -> None:
    """Half a surrogate pair is found here, not when half of a message has been sent."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise QueryError(f"a parameter is not valid Unicode: {exc}") from exc
    elif isinstance(value, Mapping):
        check_text([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for each in value:
            check_text(each)


def percents_doubled(sql: str, facts: Facts) -> str:
    """For pg8000, which wants "%%" outside of quotes only, and is confused by comments."""
    pieces = []
    for kind, start, end in tokens(sql, facts.dialect):
        text = " " if kind is Kind.COMMENT else sql[start:end]
        pieces.append(text.replace("%", "%%") if kind is Kind.OTHER else text)
    return "".join(pieces)


def set_autocommit(raw: Any, *, on: bool) -> bool:
    """Whether there is such a thing: an attribute, or a method as in MySQL's modules."""
    found = getattr(raw, "autocommit", None)
    if found is None:
        return False
    if callable(found):
        found(on)
    else:
        raw.autocommit = on
    return True


def name(given: object) -> str:
    """Some modules have bytes."""
    return given.decode(errors="replace") if isinstance(given, bytes) else str(given)
