"""Which tables DuckDB's statements touch: as closely as it may be told, and never too few."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import duckdb as duckdb_module
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_rpc_drivers import _duckdb_touched, duckdb
from notebook_rpc_drivers._duckdb_sql import quoted, type_of
from tests.drivers.touching import Onlooker, hold, named, read, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc.driver import Database
    from tests.drivers.touching import Touching

SCHEMA = """
    CREATE TABLE a (id INTEGER, n INTEGER); CREATE TABLE b (id INTEGER, n INTEGER);
    CREATE TABLE "C d" (id INTEGER, n INTEGER); CREATE SCHEMA other;
    CREATE TABLE other.e (id INTEGER PRIMARY KEY, n INTEGER);
    CREATE VIEW va AS SELECT * FROM a; CREATE VIEW vab AS SELECT va.* FROM va JOIN b USING (id);
    CREATE MACRO scalar() AS (SELECT max(n) FROM b); CREATE MACRO rows() AS TABLE FROM vab;
    CREATE SEQUENCE numbers; CREATE TABLE g (id INTEGER, twice AS (id * 2))
"""


def connected(database: Database) -> Touching:
    return cast("Touching", database.connect())


@pytest.fixture
def database() -> Iterator[Database]:
    database = duckdb.DRIVER.open({})
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Touching]:
    connection = connected(database)
    connection.execute(SCHEMA)
    connection.take_written()
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def pristine() -> Iterator[Touching]:
    """For tests that change nothing."""
    database = duckdb.DRIVER.open({})
    connection = connected(database)
    connection.execute(SCHEMA)
    yield connection
    connection.close()
    database.close()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT INTO a VALUES (1, 1)", {"a"}),
        ("insert into A by name select 1 as id", {"a"}),
        ("INSERT INTO a(id) SELECT id FROM b", {"a"}),
        ("INSERT OR IGNORE INTO other . e VALUES (1, 1)", {"e"}),
        ("INSERT INTO memory.other.e VALUES (1, 1) RETURNING id", {"e"}),
        ('INSERT INTO "C d" VALUES (1, 1)', {"c d"}),
        ('insert into"a"(id)values(1)', {"a"}),
        ("-- why\n/* it */ INSERT /* is */ INTO -- so\r\n a VALUES (1, 1)", {"a"}),
        ("INSERT\u00a0INTO\u00a0a\u00a0VALUES (1, 1)", {"a"}),
        ("UPDATE a AS x SET n = 2", {"a"}),
        ("DELETE FROM a", {"a"}),
        ("DELETE FROM a;", {"a"}),
        ("TRUNCATE a", {"a"}),
        ("TRUNCATE TABLE other.e", {"e"}),
        ("MERGE INTO a USING b USING (id) WHEN MATCHED THEN DELETE", {"a"}),
        ("INSERT INTO a VALUES (1, 1); DELETE FROM b", {"a", "b"}),
        ("INSERT INTO a VALUES (1, 1); SELECT 1", {"a"}),
        # Nobody knows, or would have to look closer than it pays.
        ("WITH x AS (SELECT 1, 2) INSERT INTO a FROM x", None),
        ("WITH x AS (DELETE FROM b RETURNING *) INSERT INTO a FROM x", None),
        ("WITH x AS (INSERT INTO b VALUES (1, 1) RETURNING *) FROM x", None),
        ("INSERT INTO 'a' VALUES (1, 1)", None),
        ("INSERT INTO /* a /* nested */ one */ a VALUES (1, 1)", None),
        ("CREATE TABLE t AS FROM a", None),
        ("CREATE OR REPLACE VIEW va AS SELECT * FROM b", None),
        ("INSERT INTO a VALUES (1, 1); CREATE TABLE t (i INTEGER); DELETE FROM b", None),
        ("PREPARE p AS INSERT INTO a VALUES (1, 1); EXECUTE p", None),
        ("EXPLAIN ANALYZE INSERT INTO a VALUES (1, 1)", None),
        ("COPY (SELECT 1) TO '/dev/null'", None),
        # Nothing was written.
        ("SELECT * FROM a", set()),
        ("BEGIN; INSERT INTO a VALUES (1, 1); ROLLBACK", set()),
    ],
)
def test_what_a_statement_writes(connection: Touching, sql: str, expected: set[str] | None) -> None:
    assert written(connection, sql) == expected


@pytest.mark.parametrize("ending", ["TO", "FROM"])
def test_what_a_copy_writes(connection: Touching, tmp_path: Path, ending: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text("1,1\n")
    assert written(connection, f"COPY a {ending} '{file}'") == {"a"}


def test_what_is_written_in_a_transaction_is_told_when_it_is_committed(
    connection: Touching,
) -> None:
    assert written(connection, "BEGIN; INSERT INTO a VALUES (1, 1)") == set()
    assert written(connection, "DELETE FROM b") == set()
    assert written(connection, "COMMIT") == {"a", "b"}
    assert written(connection, "INSERT INTO a VALUES (1, 1)") == {"a"}


def test_and_no_more_after_a_rollback(connection: Touching) -> None:
    written(connection, "BEGIN; INSERT INTO a VALUES (1, 1)")
    connection.rollback()
    assert written(connection, "BEGIN; INSERT INTO b VALUES (1, 1); COMMIT") == {"b"}


def test_what_no_rollback_takes_back_is_told_at_once_and_the_rest_later(
    connection: Touching,
) -> None:
    assert written(connection, "BEGIN; INSERT INTO a VALUES (1, 1); SET threads = 1") is None
    assert written(connection, "COMMIT") is None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", set()),
        ("FROM a", {"a"}),
        ("SELECT n FROM A", {"a"}),
        ('SELECT * FROM "C d"', {"c d"}),
        ("TABLE other.e", {"e"}),
        ("SELECT * FROM va", {"a", "va"}),
        ("SELECT * FROM vab", {"a", "b", "va", "vab"}),
        ("SELECT scalar()", {"b"}),
        ("FROM rows()", {"a", "b", "va", "vab"}),
        ("SELECT * FROM a WHERE id IN (SELECT id FROM b)", {"a", "b"}),
        ("WITH x AS (FROM a) FROM x UNION ALL FROM b", {"a", "b"}),
        ("WITH a AS (SELECT 1) FROM a", {"a"}),  # it might be the table
        ("SELECT random(), uuid(), now(), $1 FROM a", {"a"}),
        ("FROM a TABLESAMPLE 10%", {"a"}),
        ("PIVOT a ON n IN (1, 2) USING sum(id)", {"a"}),
        ("DESCRIBE a", {"a"}),
        ("SUMMARIZE SELECT * FROM b", {"b"}),
        ("SELECT twice FROM g", {"g"}),
        ("FROM range(3)", set()),
        ("SELECT 1 LIMIT (SELECT count(*) FROM a)", {"a"}),
        # Nobody knows.
        ("FROM 'a.csv'", None),
        ("FROM read_csv('a.csv')", None),
        ("FROM nothing_of_the_kind", None),
        ("SELECT nextval('numbers')", None),
        ("SELECT currval('numbers')", None),
        ("SELECT rowid FROM a", None),
        ("FROM query('FROM a')", None),
        ("FROM duckdb_sequences()", None),
        ("SHOW TABLES", None),
        ("FROM a; FROM b", None),
        ("DELETE FROM a", None),
        ("WITH x AS (DELETE FROM a RETURNING *) FROM x", None),
        ("nonsense", None),
        ("\ud800", None),
    ],
)
def test_what_a_query_reads(pristine: Touching, sql: str, expected: set[str] | None) -> None:
    assert read(pristine, sql) == expected


def test_it_is_not_run(connection: Touching) -> None:
    connection.reads("SELECT nextval('numbers')")
    connection.reads("DELETE FROM a")
    (value,) = connection.execute("SELECT nextval('numbers')").fetch(1)
    assert value == (1,)


def test_read_only_users_may_ask(database: Database, connection: Touching) -> None:  # noqa: ARG001
    reader = cast("Touching", database.connect_read_only())  # type: ignore[attr-defined]
    try:
        assert read(reader, "FROM va") == {"a", "va"}
    finally:
        reader.close()


def test_what_has_triggers_is_read_by_all(connection: Touching) -> None:
    connection.execute(
        "CREATE TRIGGER t AFTER INSERT ON a FOR EACH STATEMENT INSERT INTO b VALUES (1, 1)"
    )
    assert read(connection, "FROM b") == {"a", "b"}
    assert read(connection, "FROM 'a.csv'") is None


def test_who_has_left_something_means_something_else(connection: Touching) -> None:
    connection.execute("CREATE TEMP VIEW a AS FROM b")
    assert read(connection, "FROM a") is None


def test_within_a_transaction_nobody_else_sees_what_is_meant(connection: Touching) -> None:
    connection.execute("BEGIN; CREATE OR REPLACE VIEW va AS FROM b")
    assert read(connection, "FROM va") is None


def test_a_macro_that_hides_a_function_hides_everything(connection: Touching) -> None:
    connection.execute("CREATE MACRO upper(x) AS (SELECT max(n) FROM b)")
    assert read(connection, "SELECT upper('a') FROM a") is None


def test_an_attached_database_is_as_the_main_one(connection: Touching, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    connection.execute(f"ATTACH '{file}' AS x; CREATE TABLE x.t (i INTEGER)")
    connection.reset()
    connection.take_written()
    assert read(connection, "FROM x.t") == {"t"}
    assert written(connection, "INSERT INTO x.t VALUES (1)") == {"t"}


def test_but_one_of_another_kind_is_anybodys(connection: Touching) -> None:
    def ask(sql: str, values: list[object]) -> list[tuple[object, ...]]:
        if "duckdb_databases" in sql:
            return [("memory",)]
        return [*map(tuple, connection.execute(sql, values).fetch(9999))]

    assert named(_duckdb_touched.reads(ask, "SELECT 1")) == set()
    assert _duckdb_touched.reads(ask, "FROM a") is None


NAMED = (
    "a",
    "a$",
    "a b",
    'a"b',
    "from",
    "only",
    "\u00e9",
    "\u00c9t\u00e9",
    "a\u00a0b",
    "table",
    "into",
)
SPACES = st.sampled_from(
    ["\n", "\r", "\t\f", "\u00a0", "\u2003", "\ufeff", "--\n", "--'\r\n", "--\r"]
)
COMMENTS = st.sampled_from(
    ["/**/", "/*/ */", "/*--*/", "/*'*/", "/*/**/*/", "/*\r*/", "--/*\r\n", "a"]
)
BLANKS = st.just(" ") | st.lists(SPACES | COMMENTS, min_size=1, max_size=2).map("".join)
HEADS = st.sampled_from(
    """
    INSERT INTO @ VALUES (5)
    insert into @ (i) select 5
    Insert Into @ By Name (SELECT 5 i)
    INSERT INTO @ AS x SELECT 5
    INSERT INTO @(i) VALUES (5)
    INSERT INTO @ DEFAULT VALUES
    UPDATE @ SET i = 5
    UPDATE @ AS a SET i = 5
    DELETE FROM @
    DELETE FROM @ AS a WHERE true
    DELETE FROM @ USING a AS x WHERE true
    TRUNCATE @
    TRUNCATE TABLE @
    MERGE INTO @ USING "a" ON true WHEN MATCHED THEN DELETE
    """.strip().split("\n    ")
)
NAMES = st.one_of(
    st.sampled_from(NAMED).map(quoted),
    st.sampled_from(NAMED),
    st.sampled_from(
        ["A", "main . a", 'memory."main".A', "main.only", "a.a", "'a'", 'U&"a"', "$$a$$"]
    ),
)


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb_module.DuckDBPyConnection]:
    engine = duckdb_module.connect()
    for name in NAMED:
        engine.execute(
            f"CREATE TABLE {quoted(name)} (i INTEGER); INSERT INTO {quoted(name)} VALUES (1)"
        )
    yield engine
    engine.close()


@settings(max_examples=120, deadline=None)
@given(data=st.data(), head=HEADS, name=NAMES)
def test_no_spelling_leads_to_another_table(
    engine: duckdb_module.DuckDBPyConnection, data: st.DataObject, head: str, name: str
) -> None:
    pieces = re.split("([ @])", head)
    sql = "".join({" ": data.draw(BLANKS), "@": name}.get(piece, piece) for piece in pieces)
    content = " UNION ALL ".join(f"SELECT count(*), sum(i) FROM {quoted(each)}" for each in NAMED)
    before = engine.execute(content).fetchall()
    engine.execute("BEGIN")
    try:
        (statement,) = engine.extract_statements(sql)
        touched = _duckdb_touched.written(type_of(statement), statement.query)
        engine.execute(statement)
        after = engine.execute(content).fetchall()
    except (duckdb_module.Error, ValueError):
        return  # it is no statement, or several
    finally:
        engine.execute("ROLLBACK")
    for table, was, now in zip(NAMED, before, after, strict=True):
        told = touched is None or table.casefold() in touched
        assert was == now or told, f"{sql!r} writes {table!r}, and {touched} was told"


TABLES = st.sampled_from(["a", "B", '"C d"', "other.e", "main.a", 'memory."other"."E"'])
SOURCES = st.sampled_from(["a", "b", '"C d"', "other.e", "va", "vab", "rows()"])
WRITES = st.one_of(
    st.builds("INSERT INTO {} VALUES ({}, 1)".format, TABLES, st.integers(0, 3)),
    st.builds("INSERT INTO {} SELECT id, n + 1 FROM {}".format, TABLES, SOURCES),
    st.builds("WITH x AS (FROM {}) INSERT INTO {} FROM x".format, SOURCES, TABLES),
    st.builds(
        "WITH x AS (DELETE FROM {} WHERE id = 1 RETURNING *) INSERT INTO {} FROM x".format,
        *(TABLES, TABLES),
    ),
    st.builds("UPDATE {} SET n = n + 1 WHERE id > {}".format, TABLES, st.integers(0, 3)),
    st.builds("DELETE FROM {} WHERE id = {}".format, TABLES, st.integers(0, 3)),
    st.builds("TRUNCATE {}".format, TABLES),
    st.builds(
        "MERGE INTO {} AS t USING {} AS s USING (id) WHEN MATCHED THEN DELETE".format,
        TABLES,
        SOURCES,
    ),
    st.builds("PREPARE p AS DELETE FROM {}; EXECUTE p".format, TABLES),
)
MEANINGS = st.one_of(
    st.builds("CREATE OR REPLACE VIEW va AS SELECT id, n FROM {}".format, TABLES),
    st.builds("CREATE OR REPLACE MACRO scalar() AS (SELECT max(n) FROM {})".format, SOURCES),
    st.builds(
        "CREATE TRIGGER {} AFTER {} ON {} FOR EACH STATEMENT INSERT INTO {} VALUES (7, 7)".format,
        *(st.sampled_from("xyz"), st.sampled_from(["INSERT", "DELETE"]), TABLES, TABLES),
    ),
    st.builds("DROP TRIGGER {} ON {}".format, st.sampled_from("xyz"), TABLES),
)
STATEMENTS = WRITES | WRITES | MEANINGS | st.sampled_from(["BEGIN", "COMMIT", "ROLLBACK"])
TRANSACTIONS = st.builds(
    "BEGIN; {}; {}; {}".format, WRITES, WRITES | MEANINGS, st.sampled_from(["COMMIT", "ROLLBACK"])
)
CALLS = st.lists(WRITES | TRANSACTIONS | STATEMENTS, max_size=8)
QUERIES = (*("FROM a", 'FROM b, "C d"', "FROM other.e", "SELECT scalar()", "FROM rows()"),)


@settings(max_examples=15, deadline=None)
@given(calls=CALLS)
def test_no_row_changes_unheard(calls: list[str]) -> None:
    database = duckdb.DRIVER.open({})
    writer, reader = connected(database), connected(database)
    try:
        writer.execute(f"{SCHEMA}; INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1)")
        writer.execute(
            'CREATE TRIGGER x AFTER INSERT ON "C d" FOR EACH STATEMENT INSERT INTO b VALUES (7, 7)'
        )
        writer.take_written()
        hold(writer, Onlooker(reader, QUERIES), calls, through=True)
    finally:
        writer.close()
        reader.close()
        database.close()
