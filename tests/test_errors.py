"""How a driver's exceptions are told apart by the names that PEP 249 gives them."""

from __future__ import annotations

import sqlite3

import pytest

from notebook_rpc.errors import (
    Conflict,
    DatabaseError,
    DatabaseUnavailable,
    MissingDriver,
    NotebookError,
    NotSupported,
    QueryError,
    from_dbapi,
)


class Error(Exception):
    """As PEP 249 has it, with the two families below."""


class InterfaceError(Error): ...


class InternalError(Error): ...


class NotSupportedError(Error): ...


class OperationalError(Error): ...


class BinderException(NotSupportedError):
    """A driver's own name, below one that is fixed."""


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (InterfaceError, DatabaseUnavailable),
        (InternalError, DatabaseError),
        (NotSupportedError, NotSupported),
        (Error, QueryError),
        (BinderException, NotSupported),
        (OperationalError, QueryError),  # sqlite3 raises it for a syntax error
        (sqlite3.IntegrityError, QueryError),
        (sqlite3.InterfaceError, DatabaseUnavailable),
        (ValueError, DatabaseError),
    ],
)
def test_the_nearest_name_that_pep_249_fixes_decides(
    raised: type[Exception], expected: type[DatabaseError]
) -> None:
    translated = from_dbapi(raised("what happened"))
    assert type(translated) is expected
    assert str(translated) == "what happened"


def test_what_the_database_does_not_tell_is_none() -> None:
    assert (NotebookError("no").sqlstate, NotebookError("no").position) == (None, None)


class TestAgain:
    def test_it_is_another_exception_with_all_that_is_known(self) -> None:
        first = MissingDriver("install it")
        first.sqlstate, first.position, first.module = "08001", 3, "psycopg"
        again = first.again()
        assert type(again) is MissingDriver
        assert again is not first
        assert str(again) == "install it"
        assert (again.sqlstate, again.position, again.module) == ("08001", 3, "psycopg")
        assert again.__cause__ is first

    def test_it_may_have_other_words(self) -> None:
        first = Conflict("not now")
        first.alone = True
        again = first.again(f"{first}; later")
        assert (str(again), again.alone) == ("not now; later", True)
        assert str(first.again("")) == ""
