"""What the settings refer to: tokens, databases, secrets, folders, and what is wrong with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from notebook_rpc import plugins, references
from notebook_rpc.errors import DatabaseUnavailable, InvalidParams
from notebook_rpc.sansio.tokens import User
from notebook_rpc.settings import ConfigError, Settings
from notebook_rpc_drivers.fake import FakeDatabase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Opens:
    """A driver that remembers what it was to open; it knows nothing of folders."""

    def __init__(self) -> None:
        self.opened: list[tuple[dict[str, str], bool]] = []
        self.fails = False

    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> FakeDatabase:
        self.opened.append((dict(properties), read_only))
        if self.fails:
            raise DatabaseUnavailable(f"cannot open {dict(properties)}")
        return FakeDatabase()


class OpensWithin(Opens):
    def __init__(self) -> None:
        super().__init__()
        self.folders: Sequence[Path] | None = None

    def within(self, folders: Sequence[Path], /) -> Opens:
        self.folders = folders
        return self


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> OpensWithin:
    driver = OpensWithin()
    monkeypatch.setattr(plugins, "load_driver", lambda _: driver)
    return driver


def name_of(token: str, settings: Settings) -> str | None:
    user = references.tokens(settings).user(token, 0)
    return None if user is None else user.name


class TestTokens:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "tokens"
        file.write_text("s3cret-of-ada name=ada read-only\n")
        file.chmod(0o600)
        return file

    def test_without_any_everybody_may_come_in(self) -> None:
        assert not references.tokens(Settings())

    def test_those_given_and_those_of_the_file_count_alike(
        self, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = Settings(bearer_token=("first", "second"), bearer_token_file=str(file))
        named = [name_of(token, settings) for token in ("first", "second", "s3cret-of-ada", "no")]
        assert named == ["bearer token 1", "bearer token 2", "ada", None]
        assert references.tokens(settings).user("s3cret-of-ada", 0) == User("ada", read_only=True)
        assert caplog.messages == []

    @pytest.mark.parametrize("mode", [0o640, 0o604])
    def test_a_file_that_others_can_read_is_warned_of(
        self, file: Path, mode: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        file.chmod(mode)
        references.tokens(Settings(bearer_token_file=str(file)))
        assert caplog.messages == [f"others can read the tokens in {file}; chmod 600 it"]

    @pytest.mark.parametrize("text", ["", "# nobody\n"])
    def test_a_file_of_no_tokens_does_not_let_everybody_in(self, file: Path, text: str) -> None:
        file.write_text(text)
        with pytest.raises(ConfigError, match="there is no token in"):
            references.tokens(Settings(bearer_token_file=str(file)))

    def test_what_is_wrong_in_the_file_is_told_without_its_tokens(self, file: Path) -> None:
        file.write_text("s3cret name=ada\ns3cret nonsense\n")
        with pytest.raises(ConfigError, match=r"tokens: line 2: behind a token") as caught:
            references.tokens(Settings(bearer_token_file=str(file)))
        assert "s3cret" not in str(caught.value)
        assert caught.value.__suppress_context__  # which has the words

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot read .*none: No such file"):
            references.tokens(Settings(bearer_token_file=str(tmp_path / "none")))

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(ConfigError, match=r"cannot read .*pipe"):
            references.tokens(Settings(bearer_token_file=str(pipe)))


class TestDatabases:
    def test_each_has_its_own_properties(self, driver: OpensWithin) -> None:
        settings = Settings(
            url="fake://?a=of-url&b=of-url",
            properties={"b": "of-settings"},
            connection=("sales=fake://?a=x=y",),
        )
        openers = references.openers(settings)
        assert list(openers) == ["default", "sales"]
        assert driver.opened == []  # nothing is opened before it is asked for
        for opener in openers.values():
            opener()
        assert driver.opened == [
            ({"a": "of-url", "b": "of-settings"}, False),
            ({"a": "x=y"}, False),
        ]

    def test_read_only_is_for_all(self, driver: OpensWithin) -> None:
        settings = Settings(url="fake://", connection=("sales=fake://",), read_only=True)
        for opener in references.openers(settings).values():
            opener()
        assert driver.opened == [({}, True), ({}, True)]

    @pytest.mark.parametrize("name", ["default", "sales"])
    def test_no_two_have_the_same_name(self, name: str) -> None:
        settings = Settings(connection=("sales=a.duckdb", f"{name}=b.duckdb"))
        for read in (references.openers, references.engines):
            with pytest.raises(ConfigError, match=f"two connections called '{name}'"):
                read(settings)

    def test_they_go_by_the_driver_that_reaches_them(self) -> None:
        settings = Settings(url="a.duckdb", connection=("b=b.duckdb", "c=postgresql://host/c"))
        engines = {"default": "duckdb", "b": "duckdb", "c": "postgres"}
        assert references.engines(settings) == engines

    def test_what_shared_documents_ask_for_comes_with_the_default_one(
        self, driver: OpensWithin
    ) -> None:
        settings = Settings(
            url="a.duckdb",
            connection=("b=b.duckdb",),
            extensions=("httpfs",),
            properties={"extensions": "none"},
        )
        for opener in references.openers(settings).values():
            opener()
        assert [opened.get("extensions") for opened, _ in driver.opened] == ["httpfs", None]

    def test_a_secret_is_looked_up_with_each_try_and_never_told(
        self, driver: OpensWithin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "password"
        settings = Settings(
            url="fake://", properties={"a": "${NOTEBOOK_A}", "b": f"${{file:{file}}}"}
        )
        opener = references.openers(settings)["default"]
        monkeypatch.delenv("NOTEBOOK_A", raising=False)
        with pytest.raises(InvalidParams, match="NOTEBOOK_A is not set"):
            opener()
        monkeypatch.setenv("NOTEBOOK_A", "s3cret-one")
        file.write_text("s3cret-two\n")
        driver.fails = True
        with pytest.raises(DatabaseUnavailable, match="cannot open") as caught:
            opener()
        assert driver.opened == [({"a": "s3cret-one", "b": "s3cret-two"}, False)]
        assert "s3cret" not in str(caught.value)


class TestFolders:
    def test_without_any_said_sql_may_reach_what_it_likes(self, driver: OpensWithin) -> None:
        references.openers(Settings(url="fake://"))
        assert driver.folders is None

    def test_they_are_handed_on_without_links(
        self, driver: OpensWithin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        references.openers(Settings(url="fake://", allowed_paths=("link", "", "~/real")))
        assert driver.folders == [tmp_path.resolve() / "real"] * 2

    def test_none_at_all_is_a_bound_too(self, driver: OpensWithin) -> None:
        references.openers(Settings(url="fake://", allowed_paths=("",)))
        assert driver.folders == []

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("nowhere", "cannot use nowhere: "),
            ("loop", "cannot use loop: "),
            ("file", "file is no folder"),
            ("~no-such-user/a", "cannot use ~no-such-user/a: "),
        ],
    )
    def test_what_is_no_folder_is_refused(
        self, name: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "file").write_text("")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match=f"^--allowed-paths: {complaint}"):
            references.openers(Settings(url="fake://", allowed_paths=(name,)))

    @pytest.mark.parametrize("allowed", [("",), ("/",)])
    def test_who_cannot_keep_to_them_is_refused(
        self, allowed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plugins, "load_driver", lambda _: Opens())
        with pytest.raises(ConfigError, match="nothing would bound what fake reaches"):
            references.openers(Settings(url="fake://", allowed_paths=allowed))
