"""DuckDB's rows as text in bulk: the same rows as those that come one by one."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from notebook_rpc.driver import SupportsLines
from notebook_rpc.errors import Cancelled, QueryError
from notebook_rpc.model import Line
from notebook_rpc.sansio import csv
from notebook_rpc.sansio.values import CsvRows
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.model import Lines
    from notebook_rpc_drivers._duckdb_connection import Connection

ALL = 10**9

KINDS = """
    SELECT i, i::DECIMAL(9, 2) / 4 AS d, i = 1 AS b, DATE '2026-02-28' + i::INTEGER AS day,
        'nan'::DOUBLE AS f, NULL AS n, '' AS empty, 'a,"b"' || chr(13) || chr(10) AS odd,
        [i, NULL] AS l, {'x': 'a,b'} AS s, 'xy'::BLOB AS bin, INTERVAL (i) DAY AS p,
        ('12345678-1234-5678-1234-56781234567' || i)::UUID AS u, TIME '01:02:03.5' AS t
    FROM range(3) r(i)"""


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    database = DRIVER.open({"threads": "2"})
    connection = database.connect()
    yield connection
    connection.close()
    database.close()


def text_of(lines: Lines) -> str:
    found = b""
    while (read := lines.fetch(ALL))[1]:
        found += read[0]
    return found.decode()


def lines_of(connection: Connection, sql: str, line: Line) -> list[str]:
    return text_of(connection.execute_lines(sql, line=line, after="\x1e")).split("\x1e")[:-1]


def test_it_is_offered(connection: Connection) -> None:
    assert isinstance(connection, SupportsLines)


def test_objects_and_arrays_are_those_that_come_one_by_one(connection: Connection) -> None:
    for line, arrays in ((Line.OBJECT, False), (Line.ARRAY, True)):
        expected = connection.execute_json(KINDS, arrays=arrays).fetch(9)
        assert lines_of(connection, KINDS, line) == expected
        for each in expected:
            msgspec.json.decode(each)


def test_records_of_csv(connection: Connection) -> None:
    fields = (
        '1,0.25,true,2026-03-01,NaN,,"","a,""b""\r\n","[1,null]","{""x"":""a,b""}",'
        "\\x7879,1 day,12345678-1234-5678-1234-567812345671,01:02:03.5"
    )
    assert lines_of(connection, KINDS, Line.CSV)[1] == fields


@pytest.mark.parametrize(
    "query",
    [
        "VALUES ('a', 1), (NULL, NULL), ('', -2), ('\"', 3), ('x,y', 4), (' ', 5), (chr(10), 6)",
        "VALUES (NULL), (''), ('a'), (chr(13))",
        "VALUES (NULL), (1)",
        "SELECT 1.50::DECIMAL(4, 2), true, 'nan'::DOUBLE, '-inf'::DOUBLE",
    ],
)
def test_csv_is_what_python_makes_of_it(connection: Connection, query: str) -> None:
    expected = CsvRows(connection.execute(query)).fetch(99)
    assert lines_of(connection, query, Line.CSV) == expected


def test_what_stands_around_a_row(connection: Connection) -> None:
    rows = connection.execute_lines("FROM range(3)", line=Line.ARRAY, before="<'", after="'>\n")
    assert text_of(rows) == "<'[0]'>\n<'[1]'>\n<'[2]'>\n"


def test_json_of_strangers_is_tidied(connection: Connection) -> None:
    query = """SELECT '{"a":\n [1, NaN,], "b": "NaN,]"}'::JSON AS j"""
    (row,) = lines_of(connection, query, Line.OBJECT)
    assert msgspec.json.decode(row) == {"j": {"a": [1, None], "b": "NaN,]"}}
    assert "\n" not in row
    (row,) = lines_of(connection, query, Line.CSV)
    assert row == '"{""a"":\n [1, NaN,], ""b"": ""NaN,]""}"'


def test_so_many_rows_and_no_more(connection: Connection) -> None:
    rows = connection.execute_lines("FROM range(50000)", line=Line.CSV, after=";")
    assert rows.fetch(3) == (b"0;1;2;", 3)
    assert rows.fetch(1) == (b"3;", 1)
    left, numbers = 50_000 - 4, []
    while left:
        text, count = rows.fetch(7000)
        numbers += text.split(b";")[:-1]
        assert 0 < count <= 7000
        left -= count
    assert numbers == [str(n).encode() for n in range(4, 50_000)]
    assert rows.fetch(5) == (b"", 0)
    assert not rows.streaming


def test_what_was_fetched_outlives_its_batch(connection: Connection) -> None:
    """The engine frees a batch as soon as nobody holds it."""
    rows = connection.execute_lines("FROM range(100000)", line=Line.CSV, after=";")
    first, _ = rows.fetch(2)
    second, _ = rows.fetch(2)
    while rows.fetch(ALL)[1]:
        continue
    rows.close()
    gc.collect()
    assert (first, second) == (b"0;1;", b"2;3;")


def test_a_statement_without_rows_has_a_count(connection: Connection) -> None:
    connection.execute("CREATE OR REPLACE TABLE t (i INTEGER)")
    lines = connection.execute_lines("INSERT INTO t VALUES (1), (2)", line=Line.CSV)
    assert (lines.columns, lines.count, lines.fetch(1)) == ([], 2, (b"", 0))


def test_what_has_run_is_not_run_again(connection: Connection) -> None:
    connection.execute("CREATE OR REPLACE TABLE t (i INTEGER)")
    insert = "INSERT INTO t VALUES (1), (2) RETURNING i, i || ',' AS s"
    assert lines_of(connection, insert, Line.CSV) == ['1,"1,"', '2,"2,"']
    assert connection.execute("SELECT count(*) FROM t").fetch(2) == [(2,)]


def test_a_late_error_stays(connection: Connection) -> None:
    late = "SELECT CASE WHEN i < 90000 THEN i ELSE error('late') END FROM range(100000) r(i)"
    rows = connection.execute_lines(late, line=Line.CSV, after=csv.END)
    with pytest.raises(QueryError, match="late"):
        text_of(rows)
    with pytest.raises(QueryError, match="late"):
        rows.fetch(1)
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def test_closed_in_the_middle_it_gives_the_connection_back(connection: Connection) -> None:
    rows = connection.execute_lines("FROM range(100000000)", line=Line.CSV, after=csv.END)
    rows.fetch(1)
    assert rows.streaming
    rows.close()
    with pytest.raises(QueryError, match="closed"):
        rows.fetch(1)
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def test_an_error_shows_nothing_of_our_sql(connection: Connection) -> None:
    with pytest.raises(QueryError) as caught:
        text_of(connection.execute_lines("SELECT error('mine') AS x", line=Line.CSV))
    assert str(caught.value) == "Invalid Input Error: mine"


def test_an_interrupt_stops_it(connection: Connection) -> None:
    endless = "SELECT count(*) FROM range(100000000000) a, range(100000000000) b"
    stopped = threading.Event()

    def interrupt() -> None:
        while not stopped.wait(0.01):
            connection.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Cancelled):
            text_of(connection.execute_lines(endless, line=Line.CSV))
    finally:
        stopped.set()
        thread.join()
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]
