"""Where files may be reached: inside of the allowed folders, and by no way outside of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb as engine
import pytest

from notebook_rpc.driver import SupportsFolders
from notebook_rpc.errors import InvalidParams, QueryError
from notebook_rpc_drivers import dbapi, duckdb, fake, odbc, postgres, sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from notebook_rpc.driver import Connection, Database


class Tree(NamedTuple):
    """``inside`` is allowed; ``outside`` has the same files. The database lies beside them."""

    inside: Path
    outside: Path
    database: Path


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside, tmp_path / "inside-out"):
        folder.mkdir()
        (folder / "a.csv").write_text("x\n1\n")
        with engine.connect(str(folder / "other.duckdb")) as made:
            made.execute("create table o as select 1 as x")
    (inside / "link.csv").symlink_to(outside / "a.csv")
    (outside / "back").symlink_to(inside)
    return Tree(inside, outside, tmp_path / "base" / "main")


def opened(driver: Any, tree: Tree, *folders: Path, **properties: str) -> Iterator[Any]:
    tree.database.parent.mkdir(exist_ok=True)
    database = driver.within(folders).open({"database": str(tree.database), **properties})
    connection = database.connect()
    yield connection
    connection.close()
    database.close()


def rows(connection: Connection, sql: str) -> list[Any]:
    result = connection.execute(sql)
    found = list(result.fetch(1000))
    result.close()
    return found


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()}


# --- DuckDB

# The names of an allowed file, or of one that may be made, and of others that look like them.
INSIDE = [
    "{inside}/{name}",
    "{inside}/./{name}",
    "{outside}/../inside/{name}",
    "{outside}/back/{name}",
]
OUTSIDE = [
    *("{outside}/{name}", "{inside}/../outside/{name}", "{inside}//..//outside/{name}"),
    *("{inside}/link/{name}", "{inside}-out/{name}", "{outside}/back/../outside/{name}"),
    *("file://{outside}/{name}", "file:{outside}/{name}", "{inside}/../{name}"),
]
READS = [
    *("select content from read_text('{path}')", "select content from read_blob('{path}')"),
    *("from read_csv('{path}')", "from '{path}'", "from read_csv(['{path}', '{path}'])"),
    *("from glob('{path}')", "from sniff_csv('{path}')", "copy t from '{path}'"),
]
WRITES = [
    *(
        "copy t to '{path}'",
        "copy (select 1) to '{path}' (format parquet)",
        "export database '{path}'",
    ),
    *("attach '{path}' as made", "copy t to '{path}' (format csv, use_tmp_file false)"),
]


@pytest.fixture
def duck(tree: Tree) -> Iterator[Connection]:
    for connection in opened(duckdb.DRIVER, tree, tree.inside, threads="2"):
        connection.execute("create table t as select 1 as x")
        (tree.inside / "link").symlink_to(tree.outside)  # it would have been refused before
        yield connection


@pytest.mark.parametrize("path", INSIDE)
def test_duckdb_reaches_what_is_allowed(duck: Connection, tree: Tree, path: str) -> None:
    folders = {"inside": tree.inside, "outside": tree.outside}
    for read in READS:
        rows(duck, read.format(path=path.format(name="a.csv", **folders)))
    for number, write in enumerate(WRITES):
        rows(duck, write.format(path=path.format(name=f"new{number}", **folders)))
    attach = path.format(name="other.duckdb", **folders)
    assert rows(duck, f"attach '{attach}' as other; from other.o") == [(1,)]


@pytest.mark.parametrize("path", OUTSIDE)
def test_duckdb_reaches_nothing_else(duck: Connection, tree: Tree, path: str) -> None:
    folders = {"inside": tree.inside, "outside": tree.outside}
    before = files(tree.inside, tree.outside)
    for read in READS:
        with pytest.raises(QueryError, match="Permission Error"):
            rows(duck, read.format(path=path.format(name="a.csv", **folders)))
    for write in [*WRITES, "attach '{path}' (read_only)"]:
        with pytest.raises(QueryError, match="Permission Error"):
            rows(duck, write.format(path=path.format(name="new", **folders)))
    with pytest.raises(QueryError, match="Permission Error"):
        rows(duck, f"attach '{path.format(name='other.duckdb', **folders)}' as other")
    assert files(tree.inside, tree.outside) == before


def test_a_link_to_a_file_outside_is_no_way_out(duck: Connection, tree: Tree) -> None:
    link = tree.inside / "link.csv"
    for sql in (f"from '{link}'", f"copy t to '{link}'", f"from '{tree.inside}/l*.csv'"):
        with pytest.raises(QueryError, match="Permission Error"):
            rows(duck, sql)
    assert (tree.outside / "a.csv").read_text() == "x\n1\n"


@pytest.mark.parametrize(
    ("link", "target", "is_way_out"),
    [
        ("inside/link", "outside", True),
        ("inside/link", "inside", True),  # inside/link/../a is above it
        ("inside/sub/link", "inside/other", True),  # inside/sub/link/../../a, too
        ("inside/link", ".", True),
        ("inside/link", "outside/sub", True),
        ("inside/link", "inside/sub", False),
        ("inside/sub/link", "inside/other/deep", False),
        ("inside/sub/link", "second/other/deep", False),
        ("inside/sub/link", "second/other", True),
        ("inside/link", "nowhere", False),
        ("outside/link", "/", False),
    ],
)
def test_a_link_that_the_engine_could_be_led_out_by_is_refused(
    tree: Tree, link: str, target: str, is_way_out: bool
) -> None:
    root = tree.inside.parent
    second = root / "second"
    for folder in ("inside/other/deep", "inside/sub", "outside/sub", "second/other/deep"):
        (root / folder).mkdir(parents=True)
    (root / link).symlink_to(root / target)
    driver = duckdb.DRIVER.within([tree.inside, second])
    if is_way_out:
        with pytest.raises(InvalidParams, match=f"its link {root / link} is a way out of it"):
            driver.open({})
        return
    database = driver.open({})
    connection = database.connect()
    for above in ("..", "../..", "../../.."):
        with pytest.raises(QueryError):
            rows(connection, f"from '{root}/{link}/{above}/outside/a.csv'")
    connection.close()
    database.close()


@pytest.mark.parametrize(
    "sql",
    [
        *("install httpfs", "install '{inside}/x'", "load httpfs", "load '{inside}/x'"),
        *("set enable_external_access = true", "set allowed_directories = ['/']", "reset all"),
        *("set allowed_paths = ['/etc/hostname']", "set lock_configuration = false"),
        *("reset lock_configuration", "set allowed_configs = ['threads']", "set threads = 1"),
        *("set temp_directory = '{outside}'", "set secret_directory = '{outside}'"),
        *(
            "set profiling_output = '{outside}/p'",
            "pragma enable_profiling",
            "set log_query_path = '{outside}/p'",
        ),
        *("call enable_logging(storage = 'file', storage_path = '{outside}/p')",),
        *("set extension_directory = '{outside}'", "set home_directory = '{outside}'"),
        *(
            "create persistent secret s (type duckdb)",
            "from read_text('https://example.invalid/x')",
        ),
        *("import database '{outside}'", "from '/etc/hostname'", "from glob('/*')"),
    ],
)
def test_duckdb_s_bounds_cannot_be_moved(duck: Connection, tree: Tree, sql: str) -> None:
    before = files(tree.inside, tree.outside)
    with pytest.raises(QueryError):
        rows(duck, sql.format(inside=tree.inside, outside=tree.outside))
    with pytest.raises(QueryError, match="Permission Error"):
        rows(duck, f"from '{tree.outside}/a.csv'")
    assert files(tree.inside, tree.outside) == before


def test_without_folders_duckdb_reaches_its_own_files_alone(tree: Tree) -> None:
    for connection in opened(duckdb.DRIVER, tree, memory_limit="100MB", threads="1"):
        rows(
            connection,
            "create table t as select i as x, md5(i::varchar) as y from range(1500000) r(i)",
        )
        # Three times as large as memory, and so it goes to disk.
        sql = "create table u as select x, y, md5(y) as z from t order by z"
        rows(connection, sql)
        assert rows(connection, "select count(*) from u") == [(1500000,)]
        rows(connection, "checkpoint")
        for path in (tree.inside / "a.csv", tree.outside / "a.csv"):
            with pytest.raises(QueryError, match="Permission Error"):
                rows(connection, f"from '{path}'")
    assert [path.name for path in tree.database.parent.iterdir()] == [tree.database.name]


def test_duckdb_opens_again_with_what_its_log_has(tree: Tree) -> None:
    """As after a crash: the log is read, and taken over."""
    tree.database.parent.mkdir()
    left = tree.database.with_name("left")
    with engine.connect(str(tree.database)) as made:
        made.execute("create table t as select 1 as x")
        made.execute("checkpoint")
        made.execute("insert into t values (2)")
        left.write_bytes(tree.database.read_bytes())
        left.with_name("left.wal").write_bytes(tree.database.with_name("main.wal").read_bytes())
    for connection in opened(duckdb.DRIVER, tree._replace(database=left)):
        assert rows(connection, "from t") == [(1,), (2,)]


def test_sessions_keep_their_progress_and_their_time_zone(duck: Connection) -> None:
    assert rows(duck, "set timezone = 'Asia/Tokyo'; select current_setting('timezone')") == [
        ("Asia/Tokyo",)
    ]
    assert duck._counts_progress is True  # type: ignore[attr-defined]  # noqa: SLF001


@pytest.mark.parametrize(
    "name",
    [
        *("enable_external_access", "allowed_directories", "allowed_paths", "lock_configuration"),
        *("allowed_configs", "Enable_External_Access"),
    ],
)
def test_properties_do_not_move_duckdb_s_bounds(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParams, match=f"^property {name}: the folders that are allowed"):
        duckdb.DRIVER.within([tmp_path]).open({name: "true"})


def test_what_is_read_only_reads_files_and_writes_none(tree: Tree) -> None:
    for connection in opened(duckdb.DRIVER, tree):
        rows(connection, "create table t as select 1 as x")
    properties = {"database": str(tree.database)}
    database = duckdb.DRIVER.within([tree.inside]).open(properties, read_only=True)
    connection = database.connect()
    assert rows(connection, f"select * from t, '{tree.inside}/a.csv'") == [(1, 1)]
    for sql in (f"copy t to '{tree.inside}/new'", f"attach '{tree.inside}/other.duckdb' as other"):
        with pytest.raises(QueryError, match="a read-only connection"):
            rows(connection, sql)
    with pytest.raises(QueryError, match="Permission Error"):
        rows(connection, f"from '{tree.outside}/a.csv'")
    connection.close()
    database.close()


def test_a_folder_s_name_is_quoted(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s, [a] "folder"'
    folder.mkdir()
    database = duckdb.DRIVER.within([folder]).open({})
    connection = database.connect()
    path = str(folder / "a.csv").replace("'", "''")
    rows(connection, f"copy (select 1 as x) to '{path}'")
    assert rows(connection, "select current_setting('allowed_directories')[1]")[0][0]
    assert (folder / "a.csv").read_text() == "x\n1\n"
    with pytest.raises(QueryError, match="Permission Error"):
        rows(connection, f"copy (select 1) to '{tmp_path}/b.csv'")
    connection.close()
    database.close()


# --- SQLite


@pytest.fixture
def lite(tree: Tree) -> Iterator[Connection]:
    for connection in opened(sqlite.DRIVER, tree, tree.inside):
        connection.execute("create table t (x); insert into t values (1)")
        (tree.inside / "link").symlink_to(tree.outside)
        yield connection


LITE_OUTSIDE = [path for path in OUTSIDE if not path.startswith("file:")]
LITE_OUTSIDE += ["{inside}/link/../outside/{name}", "{inside}/./link/../{name}"]
LITE_OUTSIDE += ["file:{outside}/{name}", "file:{inside}/{name}", "file:{inside}/{name}?vfs=unix"]


@pytest.mark.parametrize("path", INSIDE)
def test_sqlite_attaches_what_is_allowed(lite: Connection, tree: Tree, path: str) -> None:
    named = path.format(name="new.sqlite", inside=tree.inside, outside=tree.outside)
    rows(lite, f"attach '{named}' as other; create table other.o (x); insert into o values (5)")
    assert rows(lite, "select * from o; detach other") == []
    rows(lite, f"vacuum into '{named}-copy'")
    assert (tree.inside / "new.sqlite").stat().st_size > 0
    assert (tree.inside / "new.sqlite-copy").stat().st_size > 0


@pytest.mark.parametrize("path", LITE_OUTSIDE)
def test_sqlite_attaches_nothing_else(lite: Connection, tree: Tree, path: str) -> None:
    named = path.format(name="new.sqlite", inside=tree.inside, outside=tree.outside)
    before = files(tree.inside, tree.outside)
    for sql in (
        f"attach '{named}' as other",
        f"vacuum into '{named}'",
        f"explain attach '{named}' as o",
    ):
        with pytest.raises(QueryError, match="authoriz"):
            rows(lite, sql)
    for sql in (f"attach '{named}' || '' as other", f"vacuum into '{named}' || ''"):
        with pytest.raises(QueryError, match="authoriz"):
            rows(lite, sql)
    with pytest.raises(QueryError, match="authoriz"):
        lite.execute("attach ? as other", [named])
    assert files(tree.inside, tree.outside) == before


def test_sqlite_s_names_are_taken_from_where_the_server_runs(
    lite: Connection, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.inside)
    rows(lite, "attach 'new.sqlite' as other; create table other.o (x); detach other")
    with pytest.raises(QueryError, match="authoriz"):
        rows(lite, "attach '../outside/new.sqlite' as other")
    with pytest.raises(QueryError, match="authoriz"):  # not a name of a file in here
        rows(lite, f"attach 'file:{tree.outside}/new.sqlite' as other")
    monkeypatch.chdir(tree.outside)
    with pytest.raises(QueryError, match="authoriz"):
        rows(lite, "attach 'new.sqlite' as other")


def test_sqlite_s_other_ways_to_files_are_shut(lite: Connection, tree: Tree) -> None:
    for sql in (
        f"pragma temp_store_directory = '{tree.outside}'",
        f"pragma data_store_directory = '{tree.outside}'",
        f"select load_extension('{tree.inside}/x')",
        f"select readfile('{tree.outside}/a.csv')",
    ):
        with pytest.raises(QueryError):
            rows(lite, sql)
    rows(lite, "vacuum; attach ':memory:' as m; attach '' as n; pragma cache_size = 100")


def test_a_file_may_be_linked_to_from_inside_and_is_judged_by_where_it_lies(
    lite: Connection, tree: Tree
) -> None:
    (tree.inside / "link.sqlite").symlink_to(tree.outside / "new.sqlite")
    with pytest.raises(QueryError, match="authoriz"):
        rows(lite, f"attach '{tree.inside}/link.sqlite' as other")
    assert not os.path.lexists(tree.outside / "new.sqlite")


# --- Others


def test_a_driver_that_cannot_bound_files_does_not_say_it_could() -> None:
    able = [sqlite.DRIVER, duckdb.DRIVER, fake.DRIVER]
    assert all(isinstance(driver, SupportsFolders) for driver in able)
    others: list[object] = [postgres.DRIVER, odbc.DRIVER, dbapi.DRIVER]
    assert not any(isinstance(driver, SupportsFolders) for driver in others)


def test_a_driver_within_folders_leaves_the_one_it_came_from_alone(tree: Tree) -> None:
    for driver in (duckdb.DRIVER, sqlite.DRIVER):
        assert driver.within([tree.inside]) is not driver
    database: Database = duckdb.DRIVER.open({})
    connection = database.connect()
    assert rows(connection, f"from '{tree.outside}/a.csv'") == [(1,)]
    connection.close()
    database.close()
