"""How a check says that a promise is broken, or that there was none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from notebook_rpc.conformance.dialect import Lacks
from notebook_rpc.errors import NotebookError, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

FieldT = TypeVar("FieldT")

SHOWN: Final = 300  # characters of a value in a message


class Failed(Exception):
    """The driver does not keep its promise; the message is for its author."""


class Skipped(Exception):
    """There is nothing to check; the message says what the database or driver has not."""


class Unchecked(Skipped):
    """There may be something to check, but no safe way to do it."""


def needs(field: FieldT | Lacks) -> FieldT:
    """The field of a dialect, if the database has it."""
    if isinstance(field, Lacks):
        raise Skipped(field.reason)
    return field


def expect(condition: bool, complaint: str) -> None:
    if not condition:
        raise Failed(complaint)


def expect_equal(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise Failed(f"{what}: expected {shown(wanted)}, found {shown(found)}")


def refused(
    what: str, call: Callable[[], object], kind: type[NotebookError] = QueryError
) -> NotebookError:
    """The error of *call*, which must raise a *kind*."""
    try:
        found = call()
    except kind as exc:
        return exc
    except NotebookError as exc:
        raise Failed(f"{what}: expected {kind.__name__}, found {described(exc)}") from exc
    raise Failed(f"{what}: expected {kind.__name__}, but there was no error: {shown(found)}")


def described(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}"


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
