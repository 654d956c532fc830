"""Which driver a URL means, and what it tells the driver."""

from __future__ import annotations

import pytest

from notebook_rpc.errors import InvalidParams
from notebook_rpc.sansio.urls import is_doubtful, is_url, read, resolve

PLACE = {"host": "h", "port": "1", "username": "u", "password": "p/w", "database": "d"}
AT = "u:p%2Fw@h:1/d"


@pytest.mark.parametrize(
    ("url", "driver", "properties"),
    [
        ("duckdb://", "duckdb", {}),
        ("duckdb:///a.db?threads=2", "duckdb", {"database": "a.db", "threads": "2"}),
        ("sqlite:////srv/a%20b.db", "sqlite", {"database": "/srv/a b.db"}),
        ("sqlite+pysqlite:///a.db", "sqlite", {"database": "a.db"}),
        (f"postgresql://{AT}", "postgres", PLACE),
        (f"postgres://{AT}", "postgres", PLACE),
        (f"postgresql+psycopg://{AT}", "postgres", PLACE),
        ("postgresql:///d?host=/run/pg", "postgres", {"database": "d", "host": "/run/pg"}),
        (f"postgresql+pg8000://{AT}", "dbapi", {"module": "pg8000.dbapi", **PLACE}),
        (f"mysql+pymysql://{AT}", "dbapi", {"module": "pymysql", **PLACE}),
        (f"mariadb://{AT}", "dbapi", {"module": "pymysql", **PLACE}),
        (f"trino://{AT}?schema=s", "dbapi", {"module": "trino.dbapi", **PLACE, "schema": "s"}),
        ("dbapi:sqlite3?database=a.db", "dbapi", {"module": "sqlite3", "database": "a.db"}),
        ("dbapi:pg8000.dbapi?user=u", "dbapi", {"module": "pg8000.dbapi", "user": "u"}),
        ("odbc:///?odbc_connect=Driver%3Dx", "odbc", {"odbc_connect": "Driver=x"}),
        ("mssql+pyodbc://u:p@sales", "odbc", {"DSN": "sales", "username": "u", "password": "p"}),
        ("mssql+pyodbc://h?driver=ODBC+18", "odbc", {"host": "h", "driver": "ODBC 18"}),
        ("mssql+pyodbc://h?odbc_connect=x", "odbc", {"host": "h", "odbc_connect": "x"}),
        ("mysql+pyodbc:///?odbc_connect=x", "odbc", {"odbc_connect": "x"}),
        ("mssql+pyodbc:///d", "odbc", {"database": "d"}),
        ("mssql://sales", "odbc", {"DSN": "sales"}),
        ("postgresql://[::1]:5432/d", "postgres", {"host": "::1", "port": "5432", "database": "d"}),
        ("mine://h", "mine", {"host": "h"}),
        (
            "postgresql://u:${file:/run/secrets/Pw}@${DB_HOST}/${DB}?a=${X}",
            "postgres",
            {
                "username": "u",
                "password": "${file:/run/secrets/Pw}",
                "host": "${DB_HOST}",
                "database": "${DB}",
                "a": "${X}",
            },
        ),
    ],
)  # fmt: skip
def test_a_url_names_a_driver_and_its_properties(
    url: str, driver: str, properties: dict[str, str]
) -> None:
    assert is_url(url)
    assert read(url) == (driver, properties)


@pytest.mark.parametrize("name", ["a.db", "/srv/a.db", "C:\\a.db", "dbapi:", "a b://c", ":memory:"])
def test_what_is_no_url_is_the_name_of_a_file(name: str) -> None:
    assert not is_url(name)


@pytest.mark.parametrize(
    "url",
    [
        "x://h:secret",
        "x://secret@[::1/",
        "x:///?secret",
        "x://h:99999/secret",
        "x:///?a=secret&a=1",
        "x://u:p/secret@h/d",
        "x://u:1?secret=b@h/d",
        "x://u:1#secret@h/d",
        "x://u:1/?secret=@h/d",
        "x://u:1/a?secret=@h/d",
        "x:///d#secret",
        "dbapi:u:secret@h",
        "dbapi:a/secret?b=c",
    ],
)
def test_a_malformed_url_is_an_error_that_does_not_repeat_it(url: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        read(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["user:123?secret=b", "sec:secret@h/db", "//u:secret@h", "a@b"])
def test_what_may_have_been_meant_for_a_url_is_doubtful(name: str) -> None:
    assert is_doubtful(name)


@pytest.mark.parametrize(
    "name", ["a.db", "/srv/a:b@c", "./a:b", "../a@b", ".\\a@b", "C:\\a@b", ":memory:", "a b"]
)
def test_a_file_that_is_written_as_one_is_not(name: str) -> None:
    assert not is_doubtful(name)


def no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file", path)


def test_references_are_put_in() -> None:
    files = {"/run/pw": "pa${NOT}ss\n", "/two": "a\n\n"}
    given = {
        "${file:/run/pw}": "pa${NOT}ss",
        "x-${DB}-${DB}": "x-sales-sales",
        "$DB {DB}": "$DB {DB}",
        "${file:/two}": "a\n",
    }
    for text, meant in given.items():
        assert resolve({"a": text}, {"DB": "sales"}, files.__getitem__) == {"a": meant}


@pytest.mark.parametrize(
    ("value", "message"),
    [("${NONE}", "variable NONE is not set"), ("${file:/no/such}", "cannot read /no/such")],
)
def test_a_reference_to_nothing_is_an_error_that_names_it(value: str, message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        resolve({"password": value}, {}, no_file)
