"""What clients may have opened: by which drivers, in which folders, and with whose secrets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from notebook_rpc import plugins
from notebook_rpc.errors import DatabaseUnavailable, Forbidden, InvalidParams, MissingDriver
from notebook_rpc.model import DEFAULT
from notebook_rpc.persisted import Persisted
from notebook_rpc.registrations import Kept, prepare
from notebook_rpc.settings import ConfigError, Settings
from notebook_rpc_drivers.fake import FakeDatabase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


ODBC = "mssql+pyodbc://u:p@h:1433/d?driver=ODBC+Driver+17+for+SQL+Server"


class Opens:
    """A driver that remembers what it was to open, and can be bounded."""

    def __init__(self) -> None:
        self.opened: list[tuple[dict[str, str], bool]] = []
        self.folders: Sequence[Path] | None = None

    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> FakeDatabase:
        self.opened.append((dict(properties), read_only))
        return FakeDatabase()

    def within(self, folders: Sequence[Path], /) -> Opens:
        self.folders = folders
        return self


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Opens:
    driver = Opens()
    monkeypatch.setattr(plugins, "load_driver", lambda _: driver)
    return driver


def opened(driver: Opens, url: str, settings: Settings | None = None) -> dict[str, str]:
    prepare(settings or Settings(), url).open()
    return driver.opened[-1][0]


@pytest.mark.parametrize(
    "url",
    ["duckdb:///a.db", "sqlite://", "postgresql+psycopg://u@h/d"],
)
def test_databases_of_these_drivers_may_be_registered(driver: Opens, url: str) -> None:
    opened(driver, url)
    assert driver.opened[-1][1] is False


def test_it_is_told_where_it_is_and_by_what_means(driver: Opens) -> None:
    del driver
    prepared = prepare(Settings(), "postgresql+psycopg://u:s3cret@h:5/d")
    assert (prepared.engine, prepared.address.dialect) == ("postgres", "postgresql")
    assert prepared.address.driver == "postgresql+psycopg"
    assert "s3cret" not in repr(prepared.address)


@pytest.mark.parametrize("url", ["dbapi:sqlite3", "mysql://h/d", "fake://", "xx://", ODBC])
def test_others_only_if_the_operator_says_so(driver: Opens, url: str) -> None:
    with pytest.raises(Forbidden, match="only of: duckdb, sqlite, postgres "):
        prepare(Settings(), url)
    prepare(Settings(register=("dbapi", "fake", "xx", "odbc")), url)
    for registered in (("",), ("sqlite",)):
        with pytest.raises(Forbidden, match="--register"):
            prepare(Settings(register=registered), url)
    assert driver.opened == []


@pytest.mark.parametrize("url", ["a.db", "", "/etc/passwd", ":memory:", "sqlite"])
def test_a_name_of_a_file_is_no_url(driver: Opens, url: str) -> None:
    del driver
    with pytest.raises(InvalidParams, match="needs a URL"):
        prepare(Settings(), url)


def test_a_database_is_read_only_where_the_server_is(driver: Opens) -> None:
    opened(driver, "sqlite:///a.db", Settings(read_only=True))
    assert driver.opened[-1][1] is True


class TestReferences:
    URLS = ("postgresql://u:x@evil.example/${TOKEN}", "postgresql://u:x@evil.example/%24%7BTOKEN%7D",
            "postgresql://u:x@h/d?application_name=%24%7BTOKEN%7D", "postgresql://${TOKEN}@h/d",
            "postgresql://u:x@$%7BTOKEN}/d")  # fmt: skip

    @pytest.fixture(autouse=True)
    def _secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOKEN", "s3cret")

    @pytest.mark.parametrize("url", URLS)
    def test_no_secret_leaves_by_the_url_of_a_client(self, driver: Opens, url: str) -> None:
        try:
            found = opened(driver, url)
        except (Forbidden, InvalidParams):
            return
        assert "s3cret" not in repr(found).lower()

    @pytest.mark.parametrize("url", URLS[:4])
    def test_what_is_allowed_by_name_is_read(self, driver: Opens, url: str) -> None:
        with pytest.raises(Forbidden, match="--allowed-reference"):
            prepare(Settings(), url)
        found = opened(driver, url, Settings(allowed_reference=("OTHER", "TOKEN")))
        assert "s3cret" in found.values()

    def test_a_file_is_allowed_by_its_path(self, driver: Opens, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("s3cret\n")
        url = f"postgresql://u:${{file:{secret}}}@h/d"
        with pytest.raises(Forbidden, match="--allowed-reference"):
            prepare(Settings(allowed_reference=(f"file:{tmp_path}",)), url)
        found = opened(driver, url, Settings(allowed_reference=(f"file:{secret}",)))
        assert found["password"] == "s3cret"

    def test_libpq_finds_no_password_of_the_user_who_runs_the_server(self, driver: Opens) -> None:
        found = opened(driver, "postgresql://u@evil.example/d")
        assert (found["password"], found["passfile"]) == ("", os.devnull)
        given = opened(driver, "postgresql://u:own@h/d")
        assert (given["password"], given["passfile"]) == ("own", os.devnull)


@pytest.mark.parametrize(
    ("url", "name"),
    [("duckdb:///a?enable_external_access=true", "enable_external_access"),
     ("postgresql://u@h/d?hostaddr=127.0.0.1", "hostaddr"),
     ("odbc:///:memory:?driver=SQLite3&LoadExt=/tmp/x.so", "LoadExt")],
)  # fmt: skip
def test_no_property_but_these_few_is_for_clients(driver: Opens, url: str, name: str) -> None:
    with pytest.raises(Forbidden, match=f"property '{name}': not in a URL of a client"):
        prepare(Settings(register=("duckdb", "postgres", "odbc")), url)
    assert driver.opened == []


def test_a_reference_that_is_allowed_is_judged_as_a_value(
    driver: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "a;b}")
    settings = Settings(register=("odbc",), allowed_reference=("TOKEN",))
    given = opened(driver, "odbc://u:${TOKEN}@h/d?driver=x", settings)
    assert given["password"] == "a;b}"


FEW = {"threads": "2", "async_threads": "1"}


class TestThreads:
    def test_each_duckdb_has_few(self, driver: Opens) -> None:
        assert opened(driver, "duckdb://") == FEW
        assert opened(driver, "duckdb:///a.db?threads=3")["threads"] == "3"
        assert opened(driver, "duckdb:///a.db")["threads"] == "2"
        assert opened(driver, "sqlite:///a.db") == {"database": "a.db"}

    def test_but_one_of_the_server_is_opened_as_the_server_has_it(
        self, driver: Opens, tmp_path: Path
    ) -> None:
        """Or DuckDB would say that it has been opened with a different configuration."""
        settings = Settings(url=f"duckdb:///{tmp_path}/a.db")
        url = f"duckdb:///{tmp_path}/x/../a.db"
        assert opened(driver, url, settings) == {"database": f"{tmp_path}/x/../a.db"}
        assert opened(driver, "duckdb://", Settings(url=":memory:")) == FEW


class TestAllowedPaths:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "in"
        folder.mkdir()
        return folder

    def test_a_file_in_the_folder_is_opened_within_it(self, driver: Opens, folder: Path) -> None:
        settings = Settings(allowed_paths=(str(folder),))
        assert opened(driver, f"sqlite:///{folder}/a.db", settings)["database"] == f"{folder}/a.db"
        assert driver.folders == [folder]
        opened(driver, "duckdb://", settings)

    @pytest.mark.parametrize(
        "name", ["../a.db", "x/../../a.db", "link/a.db", "/etc/a.db", "a.db?mode=ro"]
    )
    def test_any_other_is_not(self, driver: Opens, folder: Path, name: str) -> None:
        folder.joinpath("link").symlink_to(folder.parent)
        url = f"sqlite:///{name}" if name.startswith("/") else f"sqlite:///{folder}/{name}"
        with pytest.raises(Forbidden, match="--allowed-paths"):
            prepare(Settings(allowed_paths=(str(folder),)), url)
        assert driver.opened == []

    @pytest.mark.parametrize(
        "name", ["file:a.db", "https://evil.example/a.db", "md:x", "postgres:x"]
    )
    def test_what_only_looks_like_a_file_is_not(
        self, driver: Opens, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)
        with pytest.raises(Forbidden, match="must be a file"):
            prepare(Settings(allowed_paths=(str(folder),)), f"duckdb:///{name}")
        assert driver.opened == []

    @pytest.mark.parametrize("name", [":memory:/../../a.db", ":memory:evil", ":memory:/a.db"])
    def test_what_only_begins_like_a_database_in_memory_is_not(
        self, driver: Opens, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder.parent)
        settings = Settings(allowed_paths=(str(folder),))
        with pytest.raises(Forbidden, match="in none of the folders"):
            prepare(settings, f"sqlite:///{name}")
        assert driver.opened == []
        assert opened(driver, "sqlite:///:memory:", settings) == {"database": ":memory:"}

    def test_no_files_at_all_leaves_those_in_memory(self, driver: Opens, folder: Path) -> None:
        settings = Settings(allowed_paths=("",))
        opened(driver, "duckdb://", settings)
        with pytest.raises(Forbidden):
            prepare(settings, f"duckdb:///{folder}/a.db")

    def test_a_database_that_nothing_bounds_is_refused(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Unbounded:
            def open(self, *_: object, **__: object) -> FakeDatabase:
                return FakeDatabase()

        monkeypatch.setattr(plugins, "load_driver", lambda _: Unbounded())
        monkeypatch.chdir(folder)  # so that it passes for a file's name
        with pytest.raises(Forbidden):
            prepare(Settings(allowed_paths=(str(folder),)), "postgresql://h/d")
        with pytest.raises(Forbidden, match="nothing would bound"):
            prepare(Settings(allowed_paths=(str(folder),)), "postgresql:///d")


def test_a_driver_that_lacks_something_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        exc = MissingDriver("cannot be loaded")
        exc.module = "psycopg"
        raise exc

    monkeypatch.setattr(plugins, "load_driver", missing)
    with pytest.raises(MissingDriver) as caught:
        prepare(Settings(), "postgresql://h/d")
    assert caught.value.module == "psycopg"


class TestKept:
    @pytest.fixture
    def environ(self, tmp_path: Path) -> dict[str, str]:
        return {"XDG_CONFIG_HOME": str(tmp_path)}

    @pytest.fixture
    def file(self, environ: dict[str, str]) -> Persisted:
        return Persisted.of("scoot_default", environ)

    def test_what_was_kept_is_there_at_the_next_start(
        self, file: Persisted, environ: dict[str, str], driver: Opens
    ) -> None:
        file.add("__session__", "el", "sqlite:///a.db")
        kept = Kept.load(Settings(), environ)
        assert kept.engines() == {"__session__/el": "sqlite"}
        assert driver.opened == []
        kept.openers()["__session__/el"]()
        assert driver.opened == [({"database": "a.db"}, False)]
        assert Kept.load(Settings(config_name="other"), environ).urls == {}

    def test_the_servers_own_hide_those_of_their_names(
        self, file: Persisted, environ: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        file.add("default", DEFAULT, "sqlite:///a.db")
        file.add("default", "sales", "sqlite:///a.db")
        settings = Settings(connection=("default/sales=duckdb://",))
        assert Kept.load(settings, environ).urls == {}
        assert len(caplog.messages) == 2

    def test_it_may_refer_to_anything_but_is_bounded_as_others_are(
        self,
        file: Persisted,
        environ: dict[str, str],
        driver: Opens,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("TOKEN", "s3cret")
        file.add("default", "a", "postgresql://u:${TOKEN}@h/d")
        file.add("default", "b", "sqlite:////etc/a.db")
        Kept.load(Settings(), environ).openers()["a"]()
        assert driver.opened[-1][0]["password"] == "s3cret"
        kept = Kept.load(Settings(allowed_paths=("",)), environ)
        with pytest.raises(Forbidden):
            kept.openers()["b"]()
        with pytest.raises(Forbidden):
            Kept.load(Settings(register=("duckdb",)), environ).openers()["b"]()

    def test_one_that_cannot_be_opened_keeps_no_server_from_starting(
        self, file: Persisted, environ: dict[str, str]
    ) -> None:
        file.add("default", "a", "sqlite:////nonexistent/a.db")
        opener = Kept.load(Settings(), environ).openers()["a"]
        with pytest.raises(DatabaseUnavailable):
            opener()

    def test_a_damaged_file_does(self, file: Persisted, environ: dict[str, str]) -> None:
        file.path.parent.mkdir(parents=True)
        file.path.write_text("{")
        with pytest.raises(ConfigError, match=r"scoot_default\.json is damaged"):
            Kept.load(Settings(), environ)
