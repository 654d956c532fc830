"""Every driver is held to every check, and docs/drivers.md to what came of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from notebook_rpc import plugins
from notebook_rpc.conformance import report
from notebook_rpc.conformance.dialects import DIALECTS
from notebook_rpc.conformance.drivers import CHECKS, Finding, Verdict, run
from notebook_rpc.errors import DatabaseUnavailable
from tests.support import missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_rpc.conformance.drivers import Check
    from tests.servers import MariaDB, Postgres

# The fake is no database that anybody would choose.
SHOWN = [name for name in DIALECTS if name != "fake"]
PAGE = Path(__file__).parent.parent.parent / "docs" / "drivers.md"


class Run:
    """The findings, each made when it is first asked for."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self._found: dict[tuple[str, str], Finding] = {}
        self._properties: dict[str, dict[str, str]] = {}

    def finding(self, name: str, check: Check) -> Finding:
        """Skips the test where the database is not at hand."""
        if (name, check.name) not in self._found:
            dialect = DIALECTS[name]
            try:
                driver = plugins.load_driver(dialect.driver)
            except DatabaseUnavailable as exc:
                missing(str(exc))
            if name not in self._properties:
                self._properties[name] = OPENED_BY[name](self)
            self._found[name, check.name] = run(check, driver, self._properties[name], dialect)
        return self._found[name, check.name]

    def file(self, name: str) -> str:
        return str(self._folder / name)

    @property
    def postgres(self) -> dict[str, str]:
        return cast("Postgres", self._request.getfixturevalue("postgres_server")).properties

    @property
    def postgres_of_a_user(self) -> dict[str, str]:
        """A database whose owner is no superuser."""
        database = plugins.load_driver("postgres").open(self.postgres)
        connection = database.connect()
        connection.execute("create role ordinary login; create database theirs owner ordinary")
        connection.close()
        database.close()
        return {**self.postgres, "username": "ordinary", "database": "theirs"}

    @property
    def mariadb(self) -> dict[str, str]:
        return cast("MariaDB", self._request.getfixturevalue("mariadb_server")).properties


# The properties that open a database for each dialect.
OPENED_BY: dict[str, Callable[[Run], dict[str, str]]] = {
    "duckdb": lambda run: {"database": run.file("duckdb")},
    "sqlite": lambda run: {"database": run.file("sqlite")},
    "sqlite-memory": lambda _: {"timeout": "0.1"},
    "fake": lambda _: {},
    "postgres": lambda run: run.postgres_of_a_user,
    "odbc-postgres": lambda run: {"driver": "PostgreSQL Unicode", **run.postgres},
    "odbc-mariadb": lambda run: {"driver": "MariaDB Unicode", **run.mariadb},
    "odbc-sqlite": lambda run: {"driver": "SQLite3", "database": run.file("odbc")},
    "dbapi-sqlite3": lambda run: {"module": "sqlite3", "database": run.file("sqlite3")},
    "dbapi-pymysql": lambda run: {"module": "pymysql", **run.mariadb},
    "dbapi-psycopg": lambda run: {"module": "psycopg", **run.postgres},
    "dbapi-pg8000": lambda run: {"module": "pg8000.dbapi", **run.postgres},
    "dbapi-adbc-sqlite": lambda run: {
        "module": "adbc_driver_sqlite.dbapi",
        "database": run.file("adbc"),
    },
    "dbapi-adbc-postgres": lambda run: {"module": "adbc_driver_postgresql.dbapi", **run.postgres},
}


@pytest.fixture(scope="session")
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(request, tmp_path_factory.mktemp("databases"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("name", DIALECTS)
def test_a_driver_keeps_its_promises(findings: Run, name: str, check: Check) -> None:
    finding = findings.finding(name, check)
    assert finding.verdict is not Verdict.FAILED, f"{check.sentence}\n{finding.message}"


def test_quirks_are_those_of_checks_that_exist() -> None:
    names = {check.name for check in CHECKS}
    for dialect in DIALECTS.values():
        assert set(dialect.quirks) <= names


def test_the_page_says_what_each_database_can_do(findings: Run) -> None:
    """Columns of databases that are not at hand stay as they are."""
    text = PAGE.read_text("utf-8")
    found = re.search(r"(?m)^\| \| `.*(?:\n.*)*?\n\n(?:\d+\. .*\n)*", text)
    assert found is not None, "the matrix is gone"
    shown = found[0].rstrip().split("\n")
    columns = parsed(shown)
    for name in SHOWN:
        try:
            columns[name] = report.cells(findings.finding(name, check) for check in CHECKS)
        except pytest.skip.Exception:
            assert name in columns, f"no column for {name}, and no database to find it out"
    expected = report.matrix({name: columns[name] for name in SHOWN})
    assert shown == expected, "\n".join(["the matrix should be", *expected])


def parsed(lines: list[str]) -> dict[str, dict[str, report.Cell]]:
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    reasons = dict(line.split(". ", 1) for line in lines if re.match(r"\d+\. ", line))
    names = [name.strip("`") for name in rows[0]]
    columns: dict[str, dict[str, report.Cell]] = {name: {} for name in names}
    for capability, *cells in rows[2:]:
        for name, cell in zip(names, cells, strict=True):
            why = tuple(reasons[number] for number in re.findall(r"\[(\d+)\]", cell))
            columns[name][capability] = report.Cell(cell.partition(" [")[0], why)
    return columns
