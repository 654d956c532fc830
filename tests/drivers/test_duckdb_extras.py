"""Extensions and other files of a DuckDB database, with and without bounds on its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams, NotebookError
from notebook_rpc_drivers import _duckdb_extras
from notebook_rpc_drivers.duckdb import DRIVER

if TYPE_CHECKING:
    from pathlib import Path

    from notebook_rpc_drivers.duckdb import Database


def ask(database: Database, sql: str) -> list[object]:
    connection = database.connect()
    try:
        result = connection.execute(sql)
        return list(result.fetch(10)) if result.columns else []
    finally:
        connection.close()


class FakeRoot:
    """Of an engine that has some extensions at hand, and can install others."""

    def __init__(self, installed: set[str], available: set[str]) -> None:
        self.installed = installed
        self.available = available
        self.calls: list[str] = []

    def load_extension(self, name: str) -> None:
        self.calls.append(f"load {name}")
        if name not in self.installed:
            raise duckdb.IOException(f"{name} is\nnot there")

    def install_extension(self, name: str, repository: str = "core") -> None:
        self.calls.append(f"install {name} from {repository}")
        if name not in self.available:
            raise duckdb.HTTPException("no network")
        self.installed.add(name)

    def execute(self, sql: str) -> None:
        self.calls.append(sql)


def test_an_extension_is_installed_only_if_it_is_not_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = FakeRoot({"json"}, {"h3"})
    extras, rest = _duckdb_extras.extras_of(
        {"extensions": "json, h3@community,none", "threads": "2"}
    )
    extras.add(root)  # type: ignore[arg-type]
    assert root.calls == [
        "load json",
        "load h3",
        "install h3 from community",
        "load h3",
        "load none",
        "install none from core",
    ]
    assert rest == {"threads": "2"}
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["cannot load the extension none: no network"]


def test_what_bounds_the_engine_comes_last() -> None:
    root = FakeRoot({"json"}, set())
    extras, rest = _duckdb_extras.extras_of(
        {
            "Lock_Configuration": "true",
            "enable_external_access": "false",
            "extensions": "json",
            "attach.it": "a'b",
        }
    )
    extras.add(root)  # type: ignore[arg-type]
    assert root.calls == [
        "load json",
        "ATTACH 'a''b' AS \"it\"",
        "SET GLOBAL enable_external_access = 'false'",
        "SET GLOBAL lock_configuration = 'true'",
    ]
    assert rest == {}


def test_without_extras_the_engine_gets_all_its_settings_at_once() -> None:
    config = {"enable_external_access": "false", "extensions": ""}
    extras, rest = _duckdb_extras.extras_of(config)
    assert rest == {"enable_external_access": "false"}
    assert extras.last == {}


@pytest.mark.parametrize("extensions", ["../x", "a b", "x@", "a;b", "/x.duckdb_extension"])
def test_an_extension_has_a_name_and_is_no_file(extensions: str) -> None:
    with pytest.raises(InvalidParams, match="is not NAME or NAME@REPOSITORY"):
        DRIVER.open({"extensions": extensions})


def test_an_extension_that_cannot_be_had_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    properties = {"extensions": "nosuchextension", "enable_external_access": "false"}
    database = DRIVER.open(properties | {"extension_directory": "/dev/null/extensions"})
    assert ask(database, "SELECT 1") == [(1,)]
    database.close()
    assert "cannot load the extension nosuchextension: " in caplog.text


@pytest.mark.parametrize("bounded", [False, True])
def test_an_attached_file_is_there_for_all_whatever_bounds_the_others(
    tmp_path: Path, bounded: bool
) -> None:
    other, folder = tmp_path / "it's.duckdb", tmp_path / "allowed"
    folder.mkdir()
    properties = {"database": str(tmp_path / "main.duckdb"), 'attach.na"me': str(other)}
    if not bounded:
        properties |= {"enable_external_access": "false", "lock_configuration": "true"}
    driver = DRIVER.within([folder]) if bounded else DRIVER
    for number in range(2):
        database = driver.open(properties)
        if number == 0:
            ask(database, 'CREATE TABLE "na""me".t (x INTEGER)')
        ask(database, f'INSERT INTO "na""me".t VALUES ({number})')
        ask(database, 'CHECKPOINT "na""me"')
        ask(database, f'INSERT INTO "na""me".t VALUES ({number})')  # into a new log
        with pytest.raises(NotebookError):
            ask(database, f"SELECT * FROM read_blob('{tmp_path}/*.csv')")
        database.close()
    with duckdb.connect(other) as connection:
        assert connection.execute("SELECT x FROM t ORDER BY x").fetchall() == [
            *((0,), (0,), (1,), (1,)),
        ]


def test_a_file_that_cannot_be_attached_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"none.there"):
        DRIVER.open({"attach.meta": str(tmp_path / "none" / "there")})


def test_a_name_that_a_database_has_already_is_an_error(tmp_path: Path) -> None:
    properties = {"database": str(tmp_path / "a.duckdb"), "attach.a": str(tmp_path / "b.duckdb")}
    with pytest.raises(DatabaseUnavailable, match="already exists"):
        DRIVER.open(properties)
