"""What is told of a failure to open a database, and what is not."""

from __future__ import annotations

import traceback

import pytest

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams, NotebookError
from notebook_rpc.sansio.discretion import discreet, without

PROPERTIES = {
    "host": "db.example",
    "database": "sales",
    "password": "pw",
    "option": "s3cret",
    "DSN": "name;PWD=s3cret",
}


def told(message: str) -> NotebookError:
    with pytest.raises(InvalidParams) as caught, discreet(PROPERTIES):
        raise InvalidParams(f"no: {message}") from ValueError(message)
    return caught.value


def test_where_a_database_is_is_told_and_values_are_not() -> None:
    error = told("db.example said S3CRET of pw in sales (name;PWD=s3cret)")
    assert str(error) == "no: db.example said ... of ... in sales (...)"


def test_nor_does_a_stack_trace_tell() -> None:
    trace = "".join(traceback.format_exception(told("s3cret")))
    assert "test_discretion.py" in trace
    assert "s3cret" not in trace.replace('told("s3cret")', "")


def test_the_rest_of_an_error_is_kept() -> None:
    failure = DatabaseUnavailable("no")
    failure.sqlstate, failure.position = "28P01", 3
    with pytest.raises(DatabaseUnavailable, match="no") as caught, discreet({}):
        raise failure
    assert (caught.value.sqlstate, caught.value.position) == ("28P01", 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'it''s' it's it%27s", "'...' ... ..."),
        ("a longer value a long", "... ..."),
        (r"C:\\dir and C:\dir", "... and ..."),
        ("nothing of it", "nothing of it"),
    ],
)
def test_a_value_is_hidden_however_it_is_quoted(text: str, expected: str) -> None:
    assert without(text, ["it's", "", "a long", "a longer value", "C:\\dir"]) == expected


def test_short_values_stay_for_hiding_them_would_leave_nothing_to_read() -> None:
    given = {"threads": "1"}
    with pytest.raises(InvalidParams, match="between 1 and 100"), discreet(given):
        raise InvalidParams("threads must be between 1 and 100")
