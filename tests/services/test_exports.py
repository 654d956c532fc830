"""Rows in formats to be taken away, and parts of them, on any database."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trio

from notebook_rpc.errors import NotSupported, QueryError
from notebook_rpc.model import ResultColumn
from notebook_rpc.services.answers import FORMATS
from notebook_rpc.services.pool import Pool
from notebook_rpc.services.queries import Queries
from notebook_rpc.services.workers import Workers
from notebook_rpc_drivers.duckdb import DRIVER
from notebook_rpc_drivers.fake import FakeConnection, FakeDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notebook_rpc.driver import Connection
    from notebook_rpc.model import Parameters
    from notebook_rpc.services.answers import Answer

MANY = 200_000  # rows; some pieces of them


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(limit=4, spare=2)
    yield workers
    workers.close()


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture
async def fake(workers: Workers, database: FakeDatabase) -> AsyncIterator[Queries]:
    async def connect() -> Connection:
        connection = FakeConnection(database)
        database.connections.append(connection)
        return connection

    pool = Pool(connect, workers, limit=2, idle_seconds=60)
    yield Queries(pool.lane, pool.make, 60)
    await pool.close()


@pytest.fixture
async def duckdb(workers: Workers) -> AsyncIterator[Queries]:
    opened = DRIVER.open({"threads": "2"})

    async def connect() -> Connection:
        return opened.connect()

    pool = Pool(connect, workers, limit=2, idle_seconds=60)
    yield Queries(pool.lane, pool.make, 60)
    await pool.close()
    opened.close()


async def everything(answer: Answer) -> bytes:
    pieces: list[bytes | memoryview] = []
    while more := await answer.read():
        pieces += more
    assert answer.ended
    return b"".join(pieces)


async def exported(
    queries: Queries,
    form: str,
    sql: str,
    parameters: Parameters | None = None,
    offset: int | None = None,
    limit: int | None = None,
) -> bytes:
    async with queries.export(form, sql, parameters, offset=offset, limit=limit) as answer:
        return await everything(answer)


def rows_in(form: str, text: bytes) -> list[dict[str, Any]]:
    match form:
        case "arrow":
            rows: list[dict[str, Any]] = pa.ipc.open_stream(text).read_all().to_pylist()
            return rows
        case "csv":
            records = csv.DictReader(io.StringIO(text.decode(), newline=""), strict=True)
            return [{name: int(value) for name, value in row.items()} for row in records]
        case "ndjson":
            return list(map(json.loads, text.splitlines()))
    return list(json.loads(text))


class TestFormats:
    async def test_rows_are_arrays(self, fake: Queries) -> None:
        async with fake.rows("rows 3") as answer:
            assert answer.columns == [ResultColumn("n", "INTEGER")]
            assert await everything(answer) == b"[[1],[2],[3]]"
            assert answer.row_count == 3

    async def test_parameters_reach_the_statement(self, fake: Queries) -> None:
        async with fake.rows("echo", ["a", 2]) as answer:
            assert await everything(answer) == b'[["a",2]]'

    @pytest.mark.parametrize(
        ("form", "text", "empty"),
        [
            ("rows", b"[[1],[2]]", b"[]"),
            ("json", b'[{"n":1},{"n":2}]', b"[]"),
            ("csv", b"n\r\n1\r\n2\r\n", b"n\r\n"),
            ("ndjson", b'{"n":1}\n{"n":2}\n', b""),
        ],
    )
    @pytest.mark.parametrize("which", ["fake", "duckdb"])
    async def test_text(
        self, fake: Queries, duckdb: Queries, which: str, form: str, text: bytes, empty: bytes
    ) -> None:
        queries = fake if which == "fake" else duckdb
        two, none = "rows 2", "rows 0"
        if which == "duckdb":
            two = "SELECT i AS n FROM range(1, 3) r(i)"
            none = f"{two} WHERE false"
        async with queries.export(form, two) as answer:
            assert await everything(answer) == text
            assert answer.row_count == 2
            assert answer.total_count is None
        assert await exported(queries, form, none) == empty

    async def test_arrow(self, fake: Queries) -> None:
        stream = await exported(fake, "arrow", "rows 2")
        assert pa.ipc.open_stream(stream).read_all().to_pylist() == [{"n": 1}, {"n": 2}]

    async def test_values_of_every_type_in_csv(self, fake: Queries) -> None:
        _, record, end = (await exported(fake, "csv", "types")).decode().split("\r\n")
        assert end == ""
        assert record == (
            ',true,1180591620717411303424,-Infinity,0.10,"aé🦆\n""\\",\\x006162,2026-02-28,'
            "23:59:58.000005,2026-02-28T01:02:03+00:00,P1DT1.5S,"
            '00000000-0000-0000-0000-000000000001,"[1,0.10,{""a"":null}]"'
        )

    @pytest.mark.parametrize("form", ["csv", "ndjson", "rows"])
    async def test_a_large_result_comes_in_pieces_of_a_bounded_size(
        self, fake: Queries, duckdb: Queries, form: str
    ) -> None:
        texts: list[bytes] = []
        numbers = f"SELECT i AS n FROM range(1, {MANY} + 1) r(i)"
        for queries, sql in ((fake, f"rows {MANY}"), (duckdb, numbers)):
            sizes: list[int] = []
            text = b""
            async with queries.export(form, sql) as answer:
                while pieces := await answer.read():
                    sizes.append(sum(map(len, pieces)))
                    text += b"".join(pieces)
                assert answer.row_count == MANY
            assert len(sizes) > 1
            assert max(sizes) < 1.3 * 2**20
            texts.append(text)
        assert texts[0] == texts[1]
        assert b"199999" in texts[0]

    @pytest.mark.parametrize("form", ["csv", "ndjson", "rows"])
    async def test_what_breaks_off_does_not_look_whole(self, fake: Queries, form: str) -> None:
        async with fake.export(form, f"error after {MANY} rows late") as answer:
            await answer.read()
            with pytest.raises(QueryError, match=r"^late$"):
                await everything(answer)

    @pytest.mark.parametrize("form", sorted(FORMATS))
    async def test_a_statement_without_rows_has_a_count(self, duckdb: Queries, form: str) -> None:
        await duckdb.execute("CREATE TABLE t (i INTEGER)")
        async with duckdb.export(form, "INSERT INTO t VALUES (1), (2)") as answer:
            assert (list(answer.columns), answer.count, answer.ended) == ([], 2, True)

    async def test_half_a_surrogate_pair_is_an_error(self, fake: Queries) -> None:
        for form in ("csv", "ndjson", "rows"):
            with pytest.raises(QueryError):
                await exported(fake, form, "echo", ["\ud800"])


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestParquet:
    async def test_a_file(self, duckdb: Queries) -> None:
        await duckdb.execute("SELECT 1")  # so that whatever stays open is
        before = open_files()
        sql = "SELECT i, hash(i) AS h FROM range(300000) r(i)"
        async with duckdb.export("parquet", sql) as answer:
            sizes = []
            file = b""
            while pieces := await answer.read():
                sizes.append(sum(map(len, pieces)))
                file += b"".join(pieces)
            assert (answer.ended, answer.row_count) == (True, 300_000)
        assert len(sizes) > 1
        assert max(sizes) <= 2**20
        table = pq.read_table(pa.BufferReader(file))
        assert (table.num_rows, table["i"][-1].as_py()) == (300_000, 299_999)
        assert open_files() == before

    async def test_who_stops_reading_leaves_nothing(self, duckdb: Queries) -> None:
        await duckdb.execute("SELECT 1")
        before = open_files()
        async with duckdb.export("parquet", "SELECT hash(i) FROM range(600000) r(i)") as answer:
            await answer.read()
        assert open_files() == before

    async def test_an_error_leaves_nothing(self, duckdb: Queries) -> None:
        await duckdb.execute("SELECT 1")
        before = open_files()
        for sql in ("SELEKT", "SELECT error('x')"):
            with pytest.raises(QueryError):
                await exported(duckdb, "parquet", sql)
        assert open_files() == before

    async def test_not_every_database_writes_it(
        self, fake: Queries, database: FakeDatabase
    ) -> None:
        with pytest.raises(NotSupported, match="writes no Parquet"):
            await exported(fake, "parquet", "rows 1")
        assert not [call for each in database.connections for call in each.calls if "rows" in call]

    async def test_a_part(self, duckdb: Queries) -> None:
        file = await exported(duckdb, "parquet", "FROM range(10)", offset=3, limit=2)
        assert pq.read_table(pa.BufferReader(file)).to_pylist() == [{"range": 3}, {"range": 4}]
        with pytest.raises(NotSupported, match="LIMIT"):
            await exported(duckdb, "parquet", "SELECT random()", limit=2)


PARTS = [
    (0, 2, [1, 2]),
    (None, 2, [1, 2]),
    (3, 2, [4, 5]),
    (4, 2, [5]),
    (5, 2, []),
    (10**15, 2, []),
    (0, 0, []),
    (3, 0, []),
    (2, None, [3, 4, 5]),
    (0, None, [1, 2, 3, 4, 5]),
    (0, 10**15, [1, 2, 3, 4, 5]),
]


class TestParts:
    @pytest.mark.parametrize("which", ["fake", "lasting", "volatile"])
    async def test_rows_and_the_total(self, fake: Queries, duckdb: Queries, which: str) -> None:
        queries = fake if which == "fake" else duckdb
        sql = {
            "fake": "rows 5",
            "lasting": "SELECT i AS n FROM range(1, 6) r(i) ORDER BY -i DESC;",
            "volatile": "SELECT i AS n FROM range(1, 6) r(i) WHERE random() < 2 -- all",
        }[which]
        for offset, limit, numbers in PARTS:
            async with queries.export("rows", sql, offset=offset, limit=limit) as answer:
                assert json.loads(await everything(answer)) == [[number] for number in numbers]
                assert (answer.row_count, answer.total_count) == (len(numbers), 5)
            async with queries.rows(sql) as answer:  # on a connection that is as it was
                assert json.loads(await everything(answer)) == [[n] for n in range(1, 6)]

    @pytest.mark.parametrize("form", ["csv", "ndjson", "json", "arrow"])
    @pytest.mark.parametrize("which", ["fake", "lasting", "volatile"])
    async def test_in_every_format(
        self, fake: Queries, duckdb: Queries, which: str, form: str
    ) -> None:
        queries = fake if which == "fake" else duckdb
        sql = {
            "fake": "rows 5",
            "lasting": "SELECT i AS n FROM range(1, 6) r(i)",
            "volatile": "SELECT i AS n FROM range(1, 6) r(i) WHERE random() < 2",
        }[which]
        for offset, limit, numbers in PARTS:
            found = await exported(queries, form, sql, offset=offset, limit=limit)
            assert rows_in(form, found) == [{"n": n} for n in numbers]

    async def test_what_a_statement_does_it_does_once_and_wholly(self, duckdb: Queries) -> None:
        await duckdb.execute("CREATE SEQUENCE s; CREATE TABLE t (i INTEGER)")
        insert = "INSERT INTO t SELECT nextval('s') FROM range(5000) RETURNING i"
        for form in ("rows", "csv", "arrow"):
            await exported(duckdb, form, insert, offset=1, limit=2)
        async with duckdb.rows("SELECT count(*), max(i), nextval('s') FROM t") as answer:
            assert json.loads(await everything(answer)) == [[15_000, 15_000, 15_001]]

    async def test_parameters(self, duckdb: Queries) -> None:
        sql = "SELECT i FROM range(10) r(i) WHERE i > $1 ORDER BY i"
        async with duckdb.export("rows", sql, [3], offset=1, limit=2) as answer:
            assert await everything(answer) == b"[[5],[6]]"
            assert answer.total_count == 6
        assert await exported(duckdb, "csv", sql, [3], offset=1, limit=2) == b"i\r\n5\r\n6\r\n"

    async def test_an_error_shows_the_clients_own_sql(self, duckdb: Queries) -> None:
        for form in ("rows", "csv", "arrow"):
            for sql in ("SELECT 1 +\n nope", "SELEKT", "SELECT 'x'::INTEGER", "SELECT $1"):
                said = []
                for limit in (None, 2):
                    with pytest.raises(QueryError) as caught:
                        await exported(duckdb, form, sql, limit=limit)
                    said.append((str(caught.value), caught.value.position))
                assert said[0] == said[1]

    async def test_a_count_that_fails_does_not_cost_the_rows(self, fake: Queries) -> None:
        async with fake.export("rows", "error after 5000 rows late", limit=2) as answer:
            assert await everything(answer) == b"[[1],[2]]"
            assert (answer.row_count, answer.total_count) == (2, None)

    async def test_nor_does_one_that_takes_too_long(
        self, workers: Workers, database: FakeDatabase
    ) -> None:
        async def connect() -> Connection:
            return FakeConnection(database)

        pool = Pool(connect, workers, limit=1, idle_seconds=60)
        queries = Queries(pool.lane, pool.make, 0.2)
        async with queries.export("rows", "wait after 5000 rows", limit=2) as answer:
            assert await everything(answer) == b"[[1],[2]]"
            assert answer.total_count is None
        assert await exported(queries, "rows", "rows 1") == b"[[1]]"
        await pool.close()

    async def test_the_rows_in_front_are_read_and_dropped(self, fake: Queries) -> None:
        with pytest.raises(QueryError, match=r"^late$"):
            await exported(fake, "rows", "error after 5000 rows late", offset=6000, limit=2)

    async def test_who_leaves_while_it_counts_stops_that(
        self, fake: Queries, database: FakeDatabase
    ) -> None:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    async with fake.export("rows", "wait after 5000 rows", limit=2) as answer:
                        await everything(answer)

                nursery.start_soon(ask)
                await trio.to_thread.run_sync(database.waiting.wait)
                nursery.cancel_scope.cancel()
        assert await exported(fake, "rows", "rows 1") == b"[[1]]"


def test_nothing_is_there_that_is_not_tested() -> None:
    tested: set[Any] = {"rows", "json", "csv", "ndjson", "arrow", "parquet"}
    assert set(FORMATS) == tested
