"""Which tables SQLite's statements touch: as SQLite says it, and never too few."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_rpc.errors import QueryError
from notebook_rpc_drivers import sqlite
from notebook_rpc_drivers._sqlite_acts import Acts
from tests.drivers.touching import Onlooker, hold, named, read, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.driver import Database
    from tests.drivers.touching import Touching

SCHEMA = """
    PRAGMA foreign_keys = on;
    CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER); CREATE TABLE b (id INTEGER, n INTEGER);
    CREATE TABLE "C d" (id INTEGER REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE, n INTEGER);
    CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER);
    CREATE VIEW va AS SELECT * FROM a; CREATE VIEW vab AS SELECT va.* FROM va JOIN b USING (id);
    CREATE VIEW door AS SELECT * FROM log;
    CREATE TRIGGER enter INSTEAD OF INSERT ON door BEGIN INSERT INTO log (n) VALUES (new.n); END;
    CREATE TRIGGER logs AFTER INSERT ON b BEGIN INSERT INTO log (n) VALUES (new.n); END
"""


def connected(database: Database) -> Touching:
    return cast("Touching", database.connect())


@pytest.fixture
def database() -> Iterator[Database]:
    database = sqlite.DRIVER.open({"timeout": "0"})
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Touching]:
    connection = connected(database)
    connection.execute(SCHEMA)
    connection.take_written()
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT INTO a VALUES (1, 1)", {"a"}),
        ("WITH x AS (SELECT 1, 1) REPLACE INTO main.A SELECT * FROM x", {"a", "c d"}),
        ("INSERT INTO a VALUES (1, 1) RETURNING id", {"a"}),
        ("UPDATE a SET n = 2", {"a"}),
        ('DELETE FROM "C D"', {"c d"}),
        ("DELETE FROM a; DELETE FROM log", {"a", "c d", "log"}),
        # By the way: triggers, and what foreign keys do.
        ("INSERT INTO b VALUES (1, 1)", {"b", "log"}),
        ("INSERT INTO door VALUES (1, 1)", {"door", "log"}),
        ("UPDATE a SET id = 2 WHERE id = 1", {"a", "c d"}),
        # Nobody knows.
        ("CREATE TABLE t (i)", None),
        ("CREATE VIEW v AS SELECT 1", None),
        ("INSERT INTO a VALUES (1, 1); DROP TABLE b", None),
        ("ATTACH ':memory:' AS x; CREATE TABLE x.t (i)", None),
        ("PRAGMA user_version = 5", None),
        ("VACUUM", None),
        # Nothing that others see.
        ("SELECT * FROM a", set()),
        ("CREATE TEMP TABLE t (i); INSERT INTO t VALUES (1)", set()),
        ("BEGIN; DELETE FROM a; ROLLBACK", set()),
    ],
)
def test_what_a_statement_writes(connection: Touching, sql: str, expected: set[str] | None) -> None:
    assert written(connection, sql) == expected


def test_other_files_are_anybodys(connection: Touching) -> None:
    connection.execute("ATTACH ':memory:' AS x; CREATE TABLE x.a (i)")
    connection.take_written()
    assert written(connection, "INSERT INTO x.a VALUES (1)") is None
    assert written(connection, "INSERT INTO main.a VALUES (1, 1)") == {"a"}


def test_a_temporary_trigger_is_one_too(connection: Touching) -> None:
    connection.execute("CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END")
    connection.take_written()
    assert written(connection, "INSERT INTO a VALUES (1, 1)") == {"a", "b"}


def test_what_is_written_in_a_transaction_is_told_when_it_is_committed(
    connection: Touching,
) -> None:
    assert written(connection, "BEGIN; INSERT INTO a VALUES (1, 1)") == set()
    assert written(connection, "SAVEPOINT s; DELETE FROM log; ROLLBACK TO s") == set()
    assert written(connection, "COMMIT") == {"a", "log"}
    assert written(connection, "SAVEPOINT s; INSERT INTO a VALUES (2, 1)") == set()
    assert written(connection, "RELEASE s") == {"a"}


@pytest.mark.parametrize("how", ["statement", "method", "conflict"])
def test_and_no_more_after_a_rollback(connection: Touching, how: str) -> None:
    written(connection, "INSERT INTO a VALUES (1, 1)")
    written(connection, "BEGIN; DELETE FROM log")
    if how == "statement":
        connection.execute("ROLLBACK")
    elif how == "method":
        connection.rollback()
    else:
        with pytest.raises(QueryError):
            connection.execute("INSERT OR ROLLBACK INTO a VALUES (1, 1)")
        connection.take_written()  # something was, for all we know
    assert written(connection, "BEGIN; DELETE FROM b; COMMIT") == {"b"}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", set()),
        ("SELECT n FROM A", {"a"}),
        ("SELECT count(*) FROM A", {"a"}),
        # SQLite's authorizer does not hear of what USING alone names.
        ("SELECT a.n FROM a JOIN b USING (id)", {"a", "b"}),
        ("SELECT b.n FROM a NATURAL JOIN b", {"a", "b"}),
        ('SELECT count(*) FROM "C d" WHERE id > ? AND n = :n', {"c d"}),
        ("SELECT * FROM va", {"a", "va"}),
        ("SELECT * FROM vab", {"a", "b", "va", "vab"}),
        ("WITH x AS (SELECT n FROM a) SELECT * FROM x UNION SELECT n FROM b", {"a", "b"}),
        ("SELECT random(), (SELECT max(n) FROM log)", {"log"}),
        ("VALUES (1), (2)", set()),
        # Nobody knows.
        ("SELECT * FROM sqlite_master", None),
        ("SELECT * FROM sqlite_sequence", None),
        ("SELECT * FROM texts", None),
        ("SELECT b.id FROM b JOIN texts USING (n)", None),
        ("SELECT * FROM texts_content", None),
        ("SELECT * FROM json_each('[1]')", None),
        ("PRAGMA table_info(a)", None),
        ("SELECT 1; SELECT 2", None),
        ("DELETE FROM a", None),
        ("SELECT * FROM nothing_of_the_kind", None),
        ("nonsense", None),
        ("SELECT '\0'", None),
    ],
)
def test_what_a_query_reads(connection: Touching, sql: str, expected: set[str] | None) -> None:
    connection.execute("CREATE VIRTUAL TABLE texts USING fts5 (n)")
    connection.reset()  # a pragma is left
    connection.reads("SELECT * FROM texts")  # to be opened first, it has tables of its own read
    assert read(connection, sql) == expected


def test_what_a_program_opens_in_another_file_is_anybodys() -> None:
    acts = Acts()
    acts.note_program([(0, "OpenRead", 0, 2, 0, "", 0, None)])
    assert named(acts.read({"a"}, {2: "a"})) == {"a"}
    acts.note_program([(0, "OpenRead", 0, 2, 1, "", 0, None)])
    assert acts.read({"a"}, {2: "a"}) is None


def test_it_is_not_run(connection: Touching) -> None:
    connection.execute("INSERT INTO a VALUES (1, 1)")
    connection.reset()
    connection.reads("DELETE FROM a")
    assert list(connection.execute("SELECT * FROM a").fetch(9)) == [(1, 1)]
    assert named(connection.take_written()) == {"a"}


def test_who_has_left_something_means_something_else(connection: Touching) -> None:
    connection.reset()
    connection.execute("CREATE TEMP VIEW a AS SELECT * FROM b")
    assert read(connection, "SELECT * FROM a") is None


def test_within_a_transaction_nobody_else_sees_what_is_meant(connection: Touching) -> None:
    connection.reset()
    connection.execute("BEGIN; DROP VIEW va; CREATE VIEW va AS SELECT * FROM b")
    assert read(connection, "SELECT * FROM va") is None


TABLES = st.sampled_from(["a", "B", '"C d"', "main.a", "log", "door"])
NUMBERS = st.integers(0, 3)
WRITES = st.one_of(
    st.builds("INSERT INTO {} VALUES ({}, 1)".format, TABLES, NUMBERS),
    st.builds("REPLACE INTO {} VALUES ({}, 2)".format, TABLES, NUMBERS),
    st.builds("INSERT INTO {} SELECT id + 1, n FROM {}".format, TABLES, TABLES),
    st.builds("INSERT OR ROLLBACK INTO a VALUES ({}, 3)".format, NUMBERS),
    st.builds("UPDATE {} SET id = id + 1 WHERE id > {}".format, TABLES, NUMBERS),
    st.builds("DELETE FROM {} WHERE id = {} RETURNING id".format, TABLES, NUMBERS),
    st.builds("DELETE FROM {}".format, TABLES),
)
MEANINGS = st.one_of(
    st.builds("DROP VIEW va; CREATE VIEW va AS SELECT id, n FROM {}".format, TABLES),
    st.builds(
        "CREATE {} TRIGGER {} AFTER {} ON {} BEGIN DELETE FROM {}; END".format,
        *(st.sampled_from(["", "TEMP"]), st.sampled_from("xyz")),
        *(st.sampled_from(["INSERT", "DELETE", "UPDATE"]), TABLES, st.sampled_from(["a", "b"])),
    ),
    st.builds("DROP TRIGGER {}".format, st.sampled_from("xyz")),
)
BRACKETS = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"]
STATEMENTS = WRITES | WRITES | MEANINGS | st.sampled_from(BRACKETS)
TRANSACTIONS = st.builds(
    "BEGIN; {}; {}; {}".format, WRITES, WRITES | MEANINGS, st.sampled_from(["COMMIT", "ROLLBACK"])
)
CALLS = st.lists(WRITES | TRANSACTIONS | STATEMENTS, max_size=10)
QUERIES = (
    *("SELECT * FROM a", "SELECT * FROM b", 'SELECT * FROM "C d"', "SELECT count(*) FROM LOG"),
    *("SELECT * FROM vab", "SELECT * FROM a WHERE n IN (SELECT n FROM va)"),
)


@settings(max_examples=100, deadline=None)
@given(calls=CALLS)
def test_no_row_changes_unheard(calls: list[str]) -> None:
    database = sqlite.DRIVER.open({"timeout": "0"})
    writer, reader = connected(database), connected(database)
    try:
        writer.execute(f'{SCHEMA}; INSERT INTO a VALUES (1, 1); INSERT INTO "C d" VALUES (1, 1)')
        writer.take_written()
        # In memory, nobody can look while somebody else has written and not committed.
        hold(writer, Onlooker(reader, QUERIES), calls, through=False)
    finally:
        writer.close()
        reader.close()
        database.close()
