"""DuckDB's rows as Arrow, read back by pyarrow; and tables of Arrow that pyarrow has written."""

from __future__ import annotations

import datetime
import io
import os
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_rpc.driver import SupportsArrow, SupportsUpload
from notebook_rpc.errors import Cancelled, NotebookError, NotSupported, QueryError
from notebook_rpc.model import BROKEN_STREAM, END_OF_STREAM, Table, Transaction
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from notebook_rpc.model import Parameters
    from notebook_rpc_drivers._duckdb_arrow import ArrowResult
    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers.duckdb import Database

ENDLESS = "SELECT a.range FROM range(100000000) a, range(100000) b"
SLOW = f"SELECT count(*) FROM ({ENDLESS}) WHERE hash(range) = 3"


@pytest.fixture
def database() -> Iterator[Database]:
    database = DRIVER.open({"threads": "2"})
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    connection.execute("SET TimeZone = 'UTC'")
    yield connection
    connection.close()


def stream_of(result: ArrowResult) -> bytes:
    parts = [result.schema]
    while batch := result.fetch():
        parts.append(bytes(batch))
    return b"".join(parts) + END_OF_STREAM


def table_of(connection: Connection, sql: str, parameters: Parameters | None = None) -> Any:
    return pyarrow.ipc.open_stream(stream_of(connection.execute_arrow(sql, parameters))).read_all()


def test_it_is_offered(connection: Connection) -> None:
    assert isinstance(connection, SupportsArrow)
    assert isinstance(connection, SupportsUpload)


# docs/arrow.md lists these.
@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("true", "bool", True),
        ("(-128)::TINYINT", "int8", -128),
        ("(-32768)::SMALLINT", "int16", -32768),
        ("(-2147483648)::INTEGER", "int32", -(2**31)),
        ("(-9223372036854775808)::BIGINT", "int64", -(2**63)),
        ("255::UTINYINT", "uint8", 255),
        ("65535::USMALLINT", "uint16", 65535),
        ("4294967295::UINTEGER", "uint32", 2**32 - 1),
        ("18446744073709551615::UBIGINT", "uint64", 2**64 - 1),
        (f"({2**127 - 1})::HUGEINT", "decimal128(38, 0)", Decimal(2**127 - 1)),
        (f"(-{2**127})::HUGEINT", "decimal128(38, 0)", Decimal(-(2**127))),
        (f"({2**128 - 1})::UHUGEINT", "string", str(2**128 - 1)),
        (f"({10**50})::BIGNUM", "string", str(10**50)),
        ("0.1::FLOAT", "float", 0.10000000149011612),
        ("'-inf'::DOUBLE", "double", float("-inf")),
        ("1.50::DECIMAL(4, 2)", "decimal128(4, 2)", Decimal("1.50")),
        ("1.5::DECIMAL(38, 10)", "decimal128(38, 10)", Decimal("1.5000000000")),
        ("'\U0001f986' || chr(0)", "string", "\U0001f986\0"),
        (r"'\x00\xFF'::BLOB", "binary", b"\0\xff"),
        ("'0101'::BIT", "string", "0101"),
        (
            "'12345678-1234-5678-1234-567812345678'::UUID",
            "string",
            "12345678-1234-5678-1234-567812345678",
        ),
        ("DATE '2026-02-28'", "date32[day]", datetime.date(2026, 2, 28)),
        ("TIME '01:02:03.456789'", "time64[us]", datetime.time(1, 2, 3, 456789)),
        ("'01:02:03+05:30'::TIMETZ", "string", "01:02:03+05:30"),
        (
            "TIMESTAMP '2026-02-28 01:02:03.5'",
            "timestamp[us]",
            datetime.datetime(2026, 2, 28, 1, 2, 3, 500000),
        ),
        ("'2026-02-28'::TIMESTAMP_S", "timestamp[s]", datetime.datetime(2026, 2, 28)),
        ("'2026-02-28'::TIMESTAMP_MS", "timestamp[ms]", datetime.datetime(2026, 2, 28)),
        (
            "'2026-02-28 01:00+02'::TIMESTAMPTZ",
            "timestamp[us, tz=UTC]",
            datetime.datetime(2026, 2, 27, 23, tzinfo=ZoneInfo("UTC")),
        ),
        ("INTERVAL '1 month -2 days 3.5 seconds'", "string", "1 month -2 days 00:00:03.5"),
        ("'a'::ENUM('a', 'b')", "string", "a"),
        ("'{\"a\": 1.10}'::JSON", "string", '{"a": 1.10}'),
        ("{'a': 1.50::DECIMAL(4,2)}::VARIANT", "string", '{"a":1.50}'),
        ("NULL", "null", None),
        ("[1, NULL]", "list<l: int32>", [1, None]),
        ("[]", "list<l: string>", []),
        ("[1, 2]::INTEGER[2]", "fixed_size_list<: int32>[2]", [1, 2]),
        ("{'a b\"c': 1, 'b': NULL}", 'struct<a b"c: int32, b: string>', {'a b"c': 1, "b": None}),
        (
            "ROW(1, 'x')",
            "struct<element1: int32, element2: string>",
            {"element1": 1, "element2": "x"},
        ),
        ("MAP {'k': [1]}", "map<string, list<l: int32>>", [("k", [1])]),
        ("1::UNION(num INTEGER, str VARCHAR)", "sparse_union<num: int32=0, str: string=1>", 1),
        ("'x'::UNION(num INTEGER, str VARCHAR)", "sparse_union<num: int32=0, str: string=1>", "x"),
        # What is cast is cast however deep it lies.
        ("{'size': 'a'::ENUM('a')}", "struct<size: string>", {"size": "a"}),
        ("['a'::ENUM('a')]", "list<l: string>", ["a"]),
        ("['a'::ENUM('a')]::ENUM('a')[1]", "fixed_size_list<: string>[1]", ["a"]),
        (
            "{'a b\"c': [INTERVAL 1 DAY], 'n': 1}",
            'struct<a b"c: list<l: string>, n: int32>',
            {'a b"c': ["1 day"], "n": 1},
        ),
        (
            "ROW(1, '01:00:00+01'::TIMETZ)",
            "struct<element1: int32, element2: string>",
            {"element1": 1, "element2": "01:00:00+01"},
        ),
        ("MAP {'a'::ENUM('a'): 1::VARIANT}", "map<string, string>", [("a", "1")]),
        (
            "'a'::ENUM('a')::UNION(e ENUM('a'), n INTEGER)",
            "sparse_union<e: string=0, n: int32=1>",
            "a",
        ),
    ],
)
def test_every_type_reads_back(
    connection: Connection, value: str, kind: str, expected: object
) -> None:
    column = table_of(connection, f"SELECT {value} AS c UNION ALL SELECT NULL").column(0)
    assert str(column.type) == kind
    column.validate(full=expected is None or "HUGEINT" not in value)
    assert column.to_pylist() == [expected, None]


@pytest.mark.parametrize(
    ("value", "kind", "number"),
    [
        ("'2026-02-28 00:00:00.123456789'::TIMESTAMP_NS", "timestamp[ns]", 1772236800123456789),
        ("'2026-02-28'::TIMESTAMPTZ_NS", "timestamp[ns, tz=UTC]", 1772236800000000000),
        ("'01:02:03.123456789'::TIME_NS", "time64[ns]", 3723123456789),
        ("'infinity'::TIMESTAMP", "timestamp[us]", 2**63 - 1),
        ("'-infinity'::TIMESTAMP", "timestamp[us]", -(2**63) + 1),
    ],
)
def test_what_python_has_no_value_for_keeps_its_number(
    connection: Connection, value: str, kind: str, number: int
) -> None:
    column = table_of(connection, f"SELECT {value} AS c").column(0)
    assert str(column.type) == kind
    assert column.cast(pyarrow.int64()).to_pylist() == [number]


@pytest.mark.parametrize(
    ("value", "number"), [("infinity", 2**31 - 1), ("-infinity", -(2**31) + 1)]
)
def test_infinite_dates_keep_their_number(connection: Connection, value: str, number: int) -> None:
    column = table_of(connection, f"SELECT '{value}'::DATE").column(0)
    assert column.cast(pyarrow.int32()).to_pylist() == [number]


def test_geometries_are_well_known_binary(connection: Connection) -> None:
    field = table_of(connection, "SELECT 'POINT(1 2)'::GEOMETRY AS g").field(0)
    assert field.metadata[b"ARROW:extension:name"] == b"geoarrow.wkb"
    assert str(field.type) == "binary"


def test_columns_are_named_apart(connection: Connection) -> None:
    result = connection.execute_arrow("SELECT 1 AS a, 'x' AS a, 'y'::ENUM('y') AS a_1, 3 AS \"A\"")
    names = ["a", "a_2", "a_1", "A"]
    assert [column.column for column in result.columns] == names
    assert [column.datatype for column in result.columns][:2] == ["INTEGER", "VARCHAR"]
    table = pyarrow.ipc.open_stream(stream_of(result)).read_all()
    assert table.column_names == names


def test_two_thousand_columns(connection: Connection) -> None:
    columns = ", ".join(f"range + {n} AS c{n}" for n in range(2000))
    table = table_of(connection, f"SELECT {columns} FROM range(300)")
    assert table.num_columns == 2000
    assert table.column(1999).to_pylist() == list(range(1999, 2299))


def test_no_rows_are_a_schema_and_no_batch(connection: Connection) -> None:
    result = connection.execute_arrow("SELECT 1 AS a, 'x'::ENUM('x') AS b WHERE false")
    assert (result.count, [column.column for column in result.columns]) == (-1, ["a", "b"])
    assert pyarrow.ipc.open_stream(result.schema + END_OF_STREAM).schema.names == ["a", "b"]
    assert result.fetch() == b""
    assert not result.streaming


def test_a_statement_without_rows_counts(connection: Connection) -> None:
    for sql, count in (
        ("CREATE TABLE t (i INTEGER)", 0),
        ("INSERT INTO t VALUES (1), (2)", 2),
        ("UPDATE t SET i = 3 WHERE i = 1", 1),
        ("CHECKPOINT", 0),
        ("BEGIN", 0),
        ("ROLLBACK", 0),
    ):
        result = connection.execute_arrow(sql)
        assert (list(result.columns), result.count, result.schema) == ([], count, b"")
        assert not result.streaming
        assert result.fetch() == b""


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT INTO t SELECT 2 RETURNING i, 'a'::ENUM('a') AS e", [{"i": 2, "e": "a"}]),
        ("INSERT INTO t SELECT 2 RETURNING i AS Count", [{"Count": 2}]),
        ("SELECT nextval('s') AS n", [{"n": 1}]),
        ("EXECUTE p(41)", [{"x": 42}]),
    ],
)
def test_what_has_run_does_not_run_again(
    connection: Connection, sql: str, expected: list[dict[str, object]]
) -> None:
    connection.execute("CREATE TABLE t (i INTEGER); CREATE SEQUENCE s")
    connection.execute("PREPARE p AS SELECT $1::INTEGER + 1 AS x")
    assert table_of(connection, sql).to_pylist() == expected
    rows = connection.execute("SELECT count(*) FROM t").fetch(1)
    assert rows == [(1 if "INSERT" in sql else 0,)]
    assert connection.execute("SELECT nextval('s')").fetch(1) == [(2 if "nextval" in sql else 1,)]


@pytest.mark.parametrize("sql", ["EXPLAIN SELECT 1", "PRAGMA table_info('t')", "PIVOT t ON i"])
def test_other_statements_have_rows_too(connection: Connection, sql: str) -> None:
    connection.execute("CREATE TABLE t AS SELECT 1 AS i")
    assert table_of(connection, sql).num_rows == 1


def test_parameters_are_bound(connection: Connection) -> None:
    assert table_of(connection, "SELECT ?::INTEGER + 1 AS x", [41]).to_pylist() == [{"x": 42}]
    sql = "SELECT $a AS a, 'e'::ENUM('e') AS e, $b AS b; -- the end"
    (row,) = table_of(connection, sql, {"a": "x", "b": None}).to_pylist()
    assert row == {"a": "x", "e": "e", "b": None}


def test_the_last_of_several_statements_has_the_rows(connection: Connection) -> None:
    sql = "CREATE TABLE t AS SELECT 1 AS i; INSERT INTO t VALUES (2); FROM t ORDER BY i;"
    assert table_of(connection, sql).to_pylist() == [{"i": 1}, {"i": 2}]
    with pytest.raises(QueryError, match=r"(?s)statement 2 of 2: .* \(after 1 that ran\)"):
        connection.execute_arrow("DROP TABLE t; SELECT 1 FROM t")


def test_the_catalog_sees_what_the_session_sees_beside_a_stream(connection: Connection) -> None:
    for number, sql in enumerate([ENDLESS, "CALL duckdb_settings()"]):
        connection.execute(f"CREATE TEMP TABLE mine_{number} (i INTEGER)")
        result = connection.execute_arrow(sql)
        assert result.streaming
        assert Table("temp", "main", f"mine_{number}") in connection.tables()
        assert result.fetch()


def test_a_stream_that_is_closed_frees_the_connection(connection: Connection) -> None:
    connection.execute("BEGIN; CREATE TABLE t (i INTEGER)")
    result = connection.execute_arrow(ENDLESS)
    assert result.streaming
    assert result.fetch()
    result.close()
    result.close()
    assert not result.streaming
    with pytest.raises(QueryError, match="closed"):
        result.fetch()
    assert connection.transaction is Transaction.OPEN
    assert connection.execute("SELECT count(*) FROM t").fetch(2) == [(0,)]


def test_a_new_statement_closes_a_stream(connection: Connection) -> None:
    result = connection.execute_arrow(ENDLESS)
    assert result.fetch()
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]
    with pytest.raises(QueryError, match="closed"):
        result.fetch()


def late_failure(connection: Connection) -> ArrowResult:
    return connection.execute_arrow(
        "SELECT (CASE WHEN range = 9000000 THEN 'x' ELSE '1' END)::INTEGER AS i, 'e'::ENUM('e')"
        " FROM range(10000000)"
    )


def test_an_error_late_in_a_stream_stays(connection: Connection) -> None:
    result = late_failure(connection)
    assert result.fetch()
    for _ in range(2):
        with pytest.raises(QueryError, match="Conversion Error: Could not convert") as caught:
            stream_of(result)
        assert "LINE" not in str(caught.value)  # an excerpt of SQL that nobody wrote
    result.close()
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def test_an_error_late_in_a_stream_is_seen_by_the_transaction(connection: Connection) -> None:
    connection.execute("BEGIN")
    with pytest.raises(QueryError):
        stream_of(late_failure(connection))
    found = connection.transaction
    try:
        connection.execute("SELECT 1")
        assert found is Transaction.OPEN
    except QueryError:
        assert found is Transaction.FAILED
    assert connection.rollback()
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def test_what_cannot_be_written_leaves_the_connection_free(connection: Connection) -> None:
    connection.execute("SET arrow_output_version = '1.4'; SET arrow_output_list_view = true")
    connection.execute("BEGIN; CREATE TABLE t (i INTEGER)")
    with pytest.raises(QueryError, match="cannot be written as Arrow"):
        connection.execute_arrow("SELECT [range] FROM range(10000000)")
    assert connection.execute("SELECT count(*) FROM t").fetch(2) == [(0,)]
    assert connection.transaction is Transaction.OPEN


@contextmanager
def interrupting(connection: Connection) -> Iterator[None]:
    stop = threading.Event()

    def interrupt() -> None:
        while not stop.wait(0.01):
            connection.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("sql", [SLOW, f"SELECT * FROM ({ENDLESS}) WHERE hash(range) = 3"])
def test_it_can_be_interrupted(connection: Connection, sql: str) -> None:
    result: list[ArrowResult] = []
    with interrupting(connection), pytest.raises(Cancelled):
        result.append(connection.execute_arrow(sql))
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def test_it_can_be_interrupted_in_mid_stream(connection: Connection) -> None:
    begins_fast = f"SELECT * FROM ({ENDLESS}) WHERE range < 30000 OR hash(range) = 3"
    result = connection.execute_arrow(begins_fast)
    assert result.fetch()
    with interrupting(connection):
        for _ in range(2):
            with pytest.raises(Cancelled):
                stream_of(result)
    assert connection.execute("SELECT 1").fetch(2) == [(1,)]


def run(code: str) -> str:
    """What Python prints, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_arrow_costs_nothing_until_it_is_asked_for() -> None:
    said = run("""if True:
        import sys
        from notebook_rpc_drivers.duckdb import DRIVER
        connection = DRIVER.open({}).connect()
        print([name for name in sys.modules if name in ("nanoarrow", "pyarrow")])
        connection.execute_arrow("SELECT 1").fetch()
        print([name for name in sys.modules if name in ("nanoarrow", "pyarrow")])
    """)
    assert said == "[]\n['nanoarrow']\n"


def test_memory_stays_flat_and_the_first_batch_comes_at_once() -> None:
    said = run("""if True:
        import time
        from notebook_rpc_drivers.duckdb import DRIVER
        connection = DRIVER.open({"threads": "2"}).connect()
        connection.execute_arrow("SELECT range, 'x' FROM range(100000)").fetch()
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096
        before, began = resident(), time.monotonic()
        result = connection.execute_arrow("SELECT range AS a, range * 2 AS b FROM range(20000000)")
        result.fetch()
        first, most, size = time.monotonic() - began, 0, 0
        while batch := result.fetch():
            size += len(batch)
            most = max(most, resident() if size % 64 == 0 else 0)
        print(size, most - before, first)
    """)
    size, grown, first = said.split()
    assert int(size) > 300_000_000
    assert int(grown) < 64 * 2**20
    assert float(first) < 2  # milliseconds, on a machine that does nothing else


def test_batches_are_small(connection: Connection) -> None:
    columns = ", ".join(f"range + {n} AS c{n}" for n in range(500))
    for sql in (
        "SELECT range FROM range(1000000)",
        "SELECT 'x' || range FROM range(100000)",
        f"SELECT {columns} FROM range(4000)",
    ):
        result = connection.execute_arrow(sql)
        while batch := result.fetch():
            assert len(batch) < 2 * 2**20


# Uploads.


def ipc(table: Any, **options: Any) -> bytes:
    into = io.BytesIO()
    with pyarrow.ipc.new_stream(
        into, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)
    ) as writer:
        writer.write_table(table)
    return into.getvalue()


def words(*values: object, kind: Any = None) -> Any:
    return pyarrow.table({"a": pyarrow.array(values, kind or pyarrow.string())})


@pytest.mark.parametrize(
    ("table", "rows", "types"),
    [
        (
            pyarrow.table({"a": [1, None], "b": ["x", None]}),
            ["1|x", "None|None"],
            "BIGINT, VARCHAR",
        ),
        (words("x", None, "y", "x").combine_chunks(), ["x", "None", "y", "x"], "VARCHAR"),
        (
            pyarrow.table({"a": words("x", None, "y", "x").column(0).dictionary_encode()}),
            ["x", "None", "y", "x"],
            "VARCHAR",
        ),
        (
            pyarrow.table(
                {
                    "a": pyarrow.array(
                        [["x", "y"], None],
                        pyarrow.list_(pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
                    )
                }
            ),
            ["['x', 'y']", "None"],
            "VARCHAR[]",
        ),
        (
            words(1, None, kind=pyarrow.timestamp("us", tz="Europe/Berlin")),
            ["1970-01-01 00:00:00.000001+00", "None"],
            "TIMESTAMP WITH TIME ZONE",
        ),
        (words(1, kind=pyarrow.timestamp("ms")), ["1970-01-01 00:00:00.001000"], "TIMESTAMP_MS"),
        (words(datetime.date(2026, 2, 28), kind=pyarrow.date64()), ["2026-02-28"], "DATE"),
        (words(Decimal("1.5"), kind=pyarrow.decimal128(38, 2)), ["1.50"], "DECIMAL(38,2)"),
        (words(b"\xff", kind=pyarrow.binary(1)), [r"b'\xff'"], "BLOB"),
        (
            pyarrow.table({"a": [[1], None], "b": [{"x": "q"}, None]}),
            ["[1]|{'x': 'q'}", "None|None"],
            "BIGINT[], STRUCT(x VARCHAR)",
        ),
        (
            words([("k", 1)], kind=pyarrow.map_(pyarrow.string(), pyarrow.int32())),
            ["{'k': 1}"],
            "MAP(VARCHAR, INTEGER)",
        ),
        (words("x", kind=pyarrow.large_string()), ["x"], "VARCHAR"),
        (words(), [], "VARCHAR"),
        (pyarrow.table({"a": pyarrow.array([], pyarrow.int32())}), [], "INTEGER"),
    ],
)
def test_a_stream_becomes_a_table(
    connection: Connection, table: Any, rows: list[str], types: str
) -> None:
    assert connection.upload("", "t", ipc(table)) == len(rows)
    result = connection.execute("FROM t")
    assert ", ".join(column.datatype for column in result.columns) == types
    assert ["|".join(map(str, row)) for row in result.fetch(100)] == rows


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers_are_read(connection: Connection, compression: str) -> None:
    table = pyarrow.table({"a": list(range(10_000))})
    stream = ipc(table, compression=compression)
    assert len(stream) < 80_000
    assert connection.upload("", "t", stream) == 10_000
    assert connection.execute("SELECT sum(a) FROM t").fetch(2) == [(49_995_000,)]


def test_many_batches_with_dictionaries_that_change(connection: Connection) -> None:
    batches = [
        pyarrow.record_batch({"a": pyarrow.array([f"x{n}", "y"]).dictionary_encode()})
        for n in range(50)
    ]
    into = io.BytesIO()
    with pyarrow.ipc.new_stream(into, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    assert connection.upload("", "t", into.getvalue()) == 100
    assert connection.execute("SELECT count(DISTINCT a) FROM t").fetch(2) == [(51,)]


def test_a_table_is_replaced_and_its_name_is_quoted(connection: Connection) -> None:
    name = 'odd "name"; DROP TABLE x'
    connection.execute('CREATE SCHEMA "a.b"')
    assert connection.upload("a.b", name, ipc(words("x"))) == 1
    assert connection.upload("a.b", name, ipc(words("y", "z"))) == 2
    assert connection.tables() == [Table("memory", "a.b", name)]
    assert connection.views() == []


def test_what_an_upload_made_others_see(database: Database) -> None:
    one, other = database.connect(), database.connect()
    changes = one.changes
    one.upload("", "t", ipc(words("x")))
    assert one.changes > changes
    assert other.execute("FROM t").fetch(2) == [("x",)]


def test_an_upload_belongs_to_the_transaction_that_is_open(connection: Connection) -> None:
    connection.execute("BEGIN")
    connection.upload("", "t", ipc(words("x")))
    assert connection.rollback()
    assert connection.tables() == []


def test_metadata_are_checked_before_anything_is_read(connection: Connection) -> None:
    with pytest.raises(QueryError, match="not a stream of Arrow: no message begins at byte 0"):
        connection.upload("", "t", b"hello, this is no Arrow at all")


OFFSETS = struct.pack("<4i", 0, 1, 2, 3)
WHOLE = ipc(pyarrow.table({"a": list(range(100)), "b": [str(n) for n in range(100)]}))


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\xff\xff\xff\xff",
        b"hello, this is no Arrow at all",
        b"ARROW1\0\0" + WHOLE,  # a file
        WHOLE[:100],
        WHOLE[: len(WHOLE) - 20],
        WHOLE[: len(WHOLE) - 8] + BROKEN_STREAM,
        ipc(words("a", "b", "c")).replace(OFFSETS, struct.pack("<4i", 0, 3, 1, 3)),
        ipc(pyarrow.table({})),
        ipc(words("x", kind=pyarrow.string_view())),
        ipc(words([1], kind=pyarrow.list_view(pyarrow.int32()))),
        ipc(words(Decimal("1.5"), kind=pyarrow.decimal256(50, 2))),
    ],
    ids=[
        *("empty", "head", "text", "file", "schema", "body", "broken", "offsets", "columns"),
        *("string view", "list view", "decimal256"),
    ],
)
def test_what_cannot_be_read_changes_nothing(connection: Connection, stream: bytes) -> None:
    connection.upload("", "t", ipc(words("before")))
    with pytest.raises((QueryError, NotSupported)) as caught:
        connection.upload("", "t", stream)
    assert "upload_" not in str(caught.value)  # a name that nobody gave
    assert "LINE" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert connection.execute("FROM t").fetch(2) == [("before",)]
    assert connection.views() == []


@pytest.mark.parametrize(
    ("schema", "table"), [("nowhere", "t"), ("", "v"), ("", ""), ("", "\ud800")]
)
def test_a_place_that_cannot_be_written_to(connection: Connection, schema: str, table: str) -> None:
    connection.execute("CREATE VIEW v AS SELECT 1")
    with pytest.raises(QueryError) as caught:
        connection.upload(schema, table, ipc(words("x")))
    assert "upload_" not in str(caught.value)
    assert connection.execute("FROM v").fetch(2) == [(1,)]


def test_an_upload_closes_an_open_result(connection: Connection) -> None:
    result = connection.execute_arrow(ENDLESS)
    assert result.fetch()
    assert connection.upload("", "t", ipc(words("x"))) == 1
    with pytest.raises(QueryError, match="closed"):
        result.fetch()


SEEDS = [
    WHOLE,
    ipc(pyarrow.table({"a": words("x", None, "y").column(0).dictionary_encode()})),
    ipc(pyarrow.table({"a": [[1], None, [2, 3]], "b": [{"x": "q"}, None, None]})),
    ipc(pyarrow.table({"a": list(range(1000))}), compression="lz4"),
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False), st.integers(1, 4))
def test_damaged_streams_are_read_or_refused(seed: bytes, chance: random.Random, hits: int) -> None:
    database = DRIVER.open({"threads": "1"})
    connection = database.connect()
    damaged = bytearray(seed)
    for _ in range(hits):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    try:
        connection.upload("", "t", bytes(damaged))
        connection.execute("SELECT md5(t::VARCHAR) FROM t").fetch(10_000)
    except NotebookError:
        assert connection.views() == []
    finally:
        connection.close()
        database.close()
