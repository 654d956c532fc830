"""How long the rows of a query last: what each driver knows, and what it does not pretend to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from notebook_rpc.driver import SupportsStability
from notebook_rpc.errors import QueryError
from notebook_rpc.model import Stability
from notebook_rpc_drivers.duckdb import DRIVER as DUCKDB
from notebook_rpc_drivers.sqlite import DRIVER as SQLITE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc_drivers._duckdb_connection import Connection
    from notebook_rpc_drivers._sqlite_connection import Connection as SqliteConnection

LASTING, SHARED, VOLATILE = Stability.LASTING, Stability.SHARED, Stability.VOLATILE

DUCKDB_OBJECTS = """
    CREATE TABLE t (a INTEGER, b VARCHAR DEFAULT (random()::VARCHAR), user VARCHAR, "we ird" INT);
    INSERT INTO t VALUES (1, 'x', 'me', 1), (2, 'y', 'you', 2);
    CREATE TABLE plain (a INTEGER, twice INTEGER GENERATED ALWAYS AS (a * 2));
    CREATE TABLE dice (a INTEGER, b DOUBLE GENERATED ALWAYS AS (random()));
    CREATE SEQUENCE counter;
    CREATE SCHEMA s;
    CREATE TABLE s.inner_t (a INTEGER);
    CREATE VIEW v AS SELECT a, upper(b) AS "AS" FROM t;
    CREATE VIEW v2 (x, "AS") AS WITH q AS (SELECT * FROM v) SELECT * FROM q;
    CREATE VIEW rnd AS SELECT random() AS r;
    CREATE VIEW rnd2 AS SELECT * FROM rnd;
    CREATE VIEW s.hidden AS SELECT now() AS n;
    CREATE VIEW csv AS SELECT * FROM read_csv('{csv}');
    CREATE VIEW csv2 AS SELECT * FROM '{csv}';
    CREATE MACRO double_of(x) AS x * 2;
    CREATE MACRO quadruple_of(x) AS double_of(double_of(x));
    CREATE MACRO shaken(x) AS x + random();
    CREATE MACRO shaken2(x) AS shaken(x);
    CREATE MACRO since(x, y := now()) AS x < y;
    CREATE MACRO some_rows(n) AS TABLE SELECT * FROM t LIMIT n;
    CREATE MACRO some_noise(n) AS TABLE SELECT random() FROM range(n);
    CREATE MACRO various(x) AS x, (x, y) AS x + y + random();
    CREATE TYPE mood AS ENUM ('good', 'bad');
    ATTACH ':memory:' AS other;
    CREATE TABLE other.far (a INTEGER);
    CREATE TABLE other.s_far (a INTEGER);
    CREATE VIEW near AS SELECT * FROM other.far;
"""

IN_DUCKDB = {
    LASTING: [
        "SELECT 1",
        "FROM t",
        "TABLE t",
        "VALUES (1), (2)",
        "SELECT a, count(*), sum(a) FROM t GROUP BY ALL ORDER BY 1 DESC LIMIT 5 OFFSET 1;",
        "SELECT a /* random() */ FROM t -- now()",
        "SELECT 'random()', \"we ird\" FROM T WHERE b LIKE 'now%'",
        "SELECT * FROM t WHERE a = $1 AND b = $2",
        "SELECT * FROM t WHERE a = $a",
        "SELECT * FROM t WHERE a = ?",
        "SELECT user FROM t",
        "FROM plain",
        "FROM v",
        "FROM v2",
        "FROM main.v",
        "FROM memory.main.t",
        "FROM s.inner_t",
        "WITH rnd2 AS (SELECT 1) SELECT * FROM v",
        "WITH c AS (FROM t) SELECT * FROM c JOIN c AS d USING (a)",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9) FROM r",
        "WITH c AS MATERIALIZED (SELECT 1) SELECT (SELECT * FROM c), EXISTS (FROM t)",
        "SELECT double_of(a), quadruple_of(a), main.double_of(1) FROM t",
        "FROM some_rows(1)",
        "SELECT list_transform([1, 2], lambda x: x + 1), [x + 1 for x in [1]], {'k': 1}.k, [1][1]",
        "SELECT list_sum([1]), split_part('a b', ' ', 1), nullif(1, 2), if(true, 1, 2)",
        "SELECT CASE WHEN a > 1 THEN a ELSE 0 END, a BETWEEN 1 AND 2, a IN (1, 2) FROM t",
        "SELECT b COLLATE NOCASE, b::mood, CAST(a AS DECIMAL(9, 2)), TRY_CAST(b AS INT) FROM t",
        "SELECT DATE '2020-01-01' + INTERVAL 1 DAY, date_trunc('month', TIMESTAMP '2020-01-01')",
        "SELECT row_number() OVER (PARTITION BY b ORDER BY a), sum(a) OVER w FROM t WINDOW w AS ()",
        "SELECT * EXCLUDE (a) REPLACE (1 AS b), COLUMNS('a') FROM t QUALIFY rank() OVER () = 1",
        "SELECT count(*) FILTER (a > 1), string_agg(b ORDER BY a) FROM t GROUP BY CUBE (a)",
        "SELECT DISTINCT ON (a) b FROM t UNION ALL SELECT 'x' EXCEPT SELECT 'y'",
        "FROM t PIVOT (sum(a) FOR b IN ('x', 'y'))",
        "FROM t UNPIVOT (v FOR n IN (a))",
        "FROM range(5), generate_series(1, 2), unnest([1, 2]) WITH ORDINALITY",
        "SELECT unnest([1, 2])",
        "FROM json_each('{\"a\": 1}')",
        "SELECT a FROM t, LATERAL (SELECT t.a + 1) ASOF JOIN plain USING (a)",
        "SELECT t.a FROM t POSITIONAL JOIN plain",
    ],
    SHARED: [
        "FROM '{csv}'",
        'FROM "{csv}"',
        "FROM read_csv('{csv}')",
        "SELECT * FROM t WHERE a IN (SELECT a FROM read_csv_auto(['{csv}']))",
        "FROM read_parquet('nowhere.parquet')",
        "FROM read_json(?)",
        "FROM glob('*')",
        "FROM read_text('{csv}')",
        "FROM csv",
        "FROM csv2",
        "SELECT (SELECT count(*) FROM csv)",
        "FROM other.far",
        "FROM other.main.far",
        "FROM near",
        "FROM t, other.far",
        "FROM nowhere.t",
        "FROM there_is_no_such_table",
        'FROM (WITH "{csv}" AS (SELECT 1) FROM "{csv}"), "{csv}"',
        "WITH c AS (SELECT 1) FROM main.c",
    ],
    VOLATILE: [
        "",
        "SELEC 1",
        "SELECT 1; SELECT 2",
        "INSERT INTO t (a) VALUES (1) RETURNING a",
        "WITH x AS (INSERT INTO t (a) VALUES (1) RETURNING a) FROM x",
        "UPDATE t SET a = 1",
        "CREATE TABLE x (a INTEGER)",
        "SET threads = 1",
        "BEGIN",
        "EXPLAIN SELECT 1",
        "EXECUTE p",
        "CALL range(1)",
        "PRAGMA version",
        "PIVOT t ON b",
        "DESCRIBE t",
        "SUMMARIZE t",
        "SHOW TABLES",
        "SELECT random()",
        "SELECT RaNdOm()",
        "SELECT system.main.random()",
        "SELECT a FROM t ORDER BY random()",
        "SELECT a FROM t LIMIT (SELECT random() * 5)",
        "SELECT a FROM t WHERE EXISTS (SELECT 1 WHERE random() > 0.5)",
        "SELECT sum(a) OVER (PARTITION BY random()) FROM t",
        "SELECT list_transform([1], lambda x: x + random())",
        "WITH c AS (SELECT random() AS r) FROM c",
        "SELECT uuid(), gen_random_uuid()",
        "SELECT now()",
        "SELECT current_timestamp",
        "SELECT Current_Date, a FROM t",
        "SELECT current_localtimestamp()",
        "SELECT localtimestamp",
        "SELECT today()",
        "SELECT age(TIMESTAMP '2020-01-01')",
        "SELECT ago(INTERVAL 1 DAY)",
        "SELECT nextval('counter')",
        "SELECT currval('counter')",
        "SELECT getvariable('x')",
        "SELECT current_setting('threads')",
        "SELECT current_schema()",
        "SELECT txid_current()",
        "SELECT pg_sleep(0)",
        "SELECT rowid FROM t",
        "SELECT reservoir_quantile(a, 0.5) FROM t",
        "FROM t USING SAMPLE 1",
        "FROM t TABLESAMPLE 10%",
        "SELECT * FROM (FROM t TABLESAMPLE reservoir(1 ROWS) REPEATABLE (42))",
        "FROM duckdb_tables()",
        "FROM duckdb_settings()",
        "FROM pragma_table_info('t')",
        "FROM sqlite_master",
        "FROM information_schema.tables",
        "FROM pg_catalog.pg_class",
        "FROM query('SELECT 1')",
        "FROM query_table('t')",
        "FROM histogram(t, a)",
        "FROM dice",
        "SELECT a FROM main.dice",
        "FROM rnd",
        "FROM rnd2",
        "FROM s.hidden",
        "WITH rnd AS (SELECT 1) SELECT * FROM rnd",  # the name may also mean the view
        "SELECT shaken(1)",
        "SELECT shaken2(a) FROM t",
        "SELECT since(TIMESTAMP '2020-01-01')",
        "SELECT various(1)",
        "FROM some_noise(3)",
        "SELECT 1::other.mood",
        "SELECT no_such_function(1)",
    ],
}


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("stability") / "x.csv"
    path.write_text("a,b\n1,2\n")
    return str(path)


@pytest.fixture(scope="module")
def connections(csv: str) -> Iterator[tuple[Connection, Connection]]:
    """One that is asked, and one that makes objects."""
    database = DUCKDB.open({"threads": "1"})
    maker, asked = database.connect(), database.connect()
    maker.execute(DUCKDB_OBJECTS.replace("{csv}", csv))
    yield asked, maker
    maker.close()
    asked.close()
    database.close()


@pytest.fixture
def asked(connections: tuple[Connection, Connection]) -> Connection:
    return connections[0]


@pytest.mark.parametrize(
    ("stability", "sql"), [(key, sql) for key, several in IN_DUCKDB.items() for sql in several]
)
def test_duckdb(asked: Connection, csv: str, stability: Stability, sql: str) -> None:
    assert asked.stability(sql.replace("{csv}", csv)) is stability


def test_duckdb_calls_no_function_lasting_whose_value_another_moment_changes() -> None:
    """Of those that can be called with nothing; asked of the engine, so that a new one counts."""
    database = DUCKDB.open({"threads": "1"})
    one, other = database.connect(), database.connect()
    names = one.execute("""
        SELECT DISTINCT function_name FROM duckdb_functions()
        WHERE function_type IN ('scalar', 'macro') AND len(parameters) = 0
          AND regexp_full_match(function_name, '[a-z_]+')""").fetch(1000)
    assert ("current_localtimestamp",) in names
    other.execute("SET TimeZone = 'Asia/Tokyo'; BEGIN")
    changing = []
    for (name,) in names:
        sql = f"SELECT {name}()::VARCHAR"
        if one.stability(sql) is not LASTING:
            continue
        try:
            values = [each.execute(sql).fetch(1) for each in (one, other)]
        except QueryError:
            continue  # it wants arguments
        if values[0] != values[1]:
            changing.append(name)
    assert changing == []
    for connection in (one, other):
        connection.close()
    database.close()


def test_duckdb_tells_nothing_where_somebody_left_something() -> None:
    database = DUCKDB.open({"threads": "1"})
    connection = database.connect()
    connection.execute("CREATE TABLE t (a INTEGER); CREATE SCHEMA s; CREATE TABLE s.t (a INTEGER)")
    assert connection.stability("FROM t") is LASTING
    for leaving in (
        "CREATE TEMP TABLE t2 (a INTEGER)",
        "CREATE TEMP VIEW t AS SELECT random()",
        "CREATE TEMP MACRO count(x) AS random()",
        "SET search_path = 's'",
        "USE s",
        "SET VARIABLE x = 1",
        "PREPARE p AS SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
    ):
        connection.execute(leaving)
        assert connection.stability("FROM t") is VOLATILE, leaving
        connection.reset()
        assert connection.stability("FROM t") is LASTING, leaving
    connection.execute("BEGIN")
    assert connection.stability("FROM t") is VOLATILE
    connection.rollback()
    assert connection.stability("FROM t") is LASTING
    connection.close()
    database.close()


def test_duckdb_believes_no_name_that_hides_a_function_of_the_engine() -> None:
    database = DUCKDB.open({"threads": "1"})
    connection = database.connect()
    assert connection.stability("SELECT 'a' || 'b', lower('A')") is LASTING
    connection.execute('CREATE MACRO "||"(a, b) AS random()::VARCHAR')
    assert connection.stability("SELECT 'a' || 'b'") is VOLATILE
    assert connection.stability("SELECT lower('A')") is VOLATILE  # operators have no name
    connection.execute('DROP MACRO "||"')
    assert connection.stability("SELECT lower('A')") is LASTING
    connection.close()
    database.close()


def test_duckdb_is_asked_beside_an_open_result_and_with_any_depth() -> None:
    database = DUCKDB.open({"threads": "1"})
    connection = database.connect()
    result = connection.execute("FROM range(100_000)")
    result.fetch(1)
    assert connection.stability("SELECT 1") is LASTING
    assert connection.stability(f"SELECT {'(' * 500}1{')' * 500}") in (LASTING, VOLATILE)
    assert connection.stability(f"SELECT {'[' * 5000}1{']' * 5000}") is VOLATILE
    assert connection.stability("SELECT '\ud800'") is VOLATILE
    assert len(result.fetch(100_000)) == 99_999
    connection.close()
    database.close()


def test_a_duckdb_file_lasts_as_long_as_it_is_locked(tmp_path: Path) -> None:
    path = str(tmp_path / "file.duckdb")
    duckdb.connect(path).execute("CREATE TABLE t (a INTEGER)").close()
    for read_only in (False, True):
        database = DUCKDB.open({"database": path}, read_only=read_only)
        connection = database.connect()
        assert isinstance(connection, SupportsStability)
        assert connection.stability("FROM t") is LASTING
        assert connection.stability("FROM file.t") is LASTING
        connection.close()
        database.close()


# --- SQLite -----------------------------------------------------------------------------------

SQLITE_OBJECTS = """
    CREATE TABLE t (a INTEGER, b TEXT DEFAULT (random()), twice AS (a * 2));
    CREATE TABLE aged (a TEXT, days AS (julianday(a)));
    CREATE VIEW v AS SELECT a, upper(b) AS u FROM t;
    CREATE VIEW v2 AS SELECT * FROM v;
    CREATE VIEW rnd AS SELECT random() AS r;
    CREATE VIEW rnd2 AS SELECT * FROM rnd;
    CREATE VIRTUAL TABLE words USING fts5 (word);
"""

# LASTING here means: no longer than the database, which for a file is SHARED.
IN_SQLITE = {
    LASTING: [
        "SELECT * FROM t",
        "SELECT count(*), sum(a) FROM t WHERE a = ? AND b LIKE ?",
        "SELECT a FROM t WHERE a = :a OR b = @b OR b = $c",
        "SELECT a, twice /* random() */ FROM t -- random()",
        "SELECT * FROM v",
        "SELECT * FROM v2 JOIN t USING (a)",
        "WITH rnd AS (SELECT a FROM t) SELECT * FROM rnd",
        "SELECT row_number() OVER (ORDER BY a), b COLLATE NOCASE, b || 'x' FROM t",
        "SELECT json_extract(b, '$.a'), coalesce(b, 1), round(a), printf('%d', a) FROM t",
        "SELECT a FROM t ORDER BY abs(a) LIMIT 5;",
        "SELECT * FROM sqlite_master",
        "SELECT days FROM aged",  # in a generated column, SQLite refuses the word "now"
        "VALUES ((SELECT max(a) FROM t))",
    ],
    VOLATILE: [
        "",
        "SELEC",
        "SELECT * FROM nowhere",
        "SELECT 1; SELECT 2",
        "SELECT 1 \0",
        "SELECT '\ud800'",
        "EXPLAIN SELECT 1",
        "INSERT INTO t (a) VALUES (1) RETURNING a",
        "PRAGMA user_version",
        "BEGIN",
        "SELECT random()",
        "SELECT a FROM t ORDER BY random()",
        "SELECT a FROM t LIMIT abs(random()) % 5",
        "SELECT hex(randomblob(4))",
        "SELECT CURRENT_TIMESTAMP",
        "SELECT current_date",
        "SELECT date('now')",
        "SELECT strftime('%Y', b) FROM t",  # where it may say 'now'
        "SELECT last_insert_rowid()",
        "SELECT changes(), total_changes()",
        "SELECT * FROM rnd",
        "SELECT * FROM rnd2",
        "SELECT * FROM pragma_table_info('t')",
        "SELECT * FROM json_each('[1]')",  # not told from others that SQLite makes up
        "SELECT * FROM words",
    ],
}


@pytest.fixture(params=["memory", "file"])
def lite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SqliteConnection, bool]]:
    """A connection, and whether its database is a file."""
    is_file = request.param == "file"
    database = SQLITE.open({"database": str(tmp_path / "x.sqlite") if is_file else ":memory:"})
    connection = database.connect()
    connection.execute(SQLITE_OBJECTS)
    connection.reset()
    yield connection, is_file
    connection.close()
    database.close()


@pytest.mark.parametrize(
    ("stability", "sql"), [(key, sql) for key, several in IN_SQLITE.items() for sql in several]
)
def test_sqlite(lite: tuple[SqliteConnection, bool], stability: Stability, sql: str) -> None:
    connection, is_file = lite
    expected = SHARED if stability is LASTING and is_file else stability
    assert connection.stability(sql) is expected
    assert connection.stability(sql) is expected  # nothing was left by asking
    assert connection.stability("SELECT 1") is LASTING


def test_sqlite_tells_nothing_where_somebody_left_something(
    lite: tuple[SqliteConnection, bool], tmp_path: Path
) -> None:
    connection, is_file = lite
    lasting = SHARED if is_file else LASTING
    for leaving in (
        "CREATE TEMP TABLE t (a INTEGER)",
        "CREATE TEMP VIEW t AS SELECT random()",
        f"ATTACH '{tmp_path / 'more.sqlite'}' AS more",
        "PRAGMA case_sensitive_like = 1",
    ):
        connection.execute(leaving)
        assert connection.stability("SELECT * FROM t") is VOLATILE, leaving
        connection.reset()
        assert connection.stability("SELECT * FROM t") is lasting, leaving
    connection.execute("BEGIN")
    assert connection.stability("SELECT * FROM t") is VOLATILE
    connection.rollback()


def test_sqlite_is_asked_beside_an_open_result(lite: tuple[SqliteConnection, bool]) -> None:
    connection, _ = lite
    result = connection.execute("""
        WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 100)
        SELECT n FROM r""")
    result.fetch(1)
    assert connection.stability("SELECT 1") is LASTING
    assert len(result.fetch(1000)) == 99
