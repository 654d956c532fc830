"""Settings: one name each, four places, and errors that help."""

from __future__ import annotations

import argparse
import os
import traceback
from typing import TYPE_CHECKING

import pytest

from notebook_rpc import config
from notebook_rpc.settings import ConfigError, Settings

if TYPE_CHECKING:
    from pathlib import Path

NO_FILE = {"XDG_CONFIG_HOME": "/nonexistent"}


def load(*argv: str, **environ: str) -> Settings:
    parser = config.Parser(prog="notebook-rpc")
    config.add_arguments(parser)
    return config.load(parser.parse_args(argv), NO_FILE | environ)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_nothing_needs_to_be_configured() -> None:
    assert load() == Settings()
    assert (Settings().host, Settings().port, Settings().url) == ("127.0.0.1", 1995, "duckdb://")


def test_a_flag_beats_the_environment_which_beats_the_file(file: Path) -> None:
    file.write_text('port = 1\nhost = "localhost"\nlog-level = "debug"')
    settings = load(
        *("--config", str(file), "--port", "3"),
        NOTEBOOK_RPC_PORT="2",
        NOTEBOOK_RPC_HOST="::1",
    )
    assert (settings.port, settings.host, settings.log_level) == (3, "::1", "debug")


def test_the_file_may_be_named_by_the_environment_or_lie_in_the_usual_place(
    file: Path, tmp_path: Path
) -> None:
    file.write_text("port = 7")
    assert load(NOTEBOOK_RPC_CONFIG=str(file)).port == 7
    usual = tmp_path / "notebook-rpc" / "config.toml"
    usual.parent.mkdir()
    usual.write_text("port = 8")
    assert load(XDG_CONFIG_HOME=str(tmp_path)).port == 8
    assert load(XDG_CONFIG_HOME=str(tmp_path), NOTEBOOK_RPC_CONFIG=str(file)).port == 7
    assert load("--config", str(usual), NOTEBOOK_RPC_CONFIG=str(file)).port == 8


def test_without_a_word_from_xdg_the_usual_place_is_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / ".config" / "notebook-rpc" / "config.toml"
    usual.parent.mkdir(parents=True)
    usual.write_text("port = 9")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(XDG_CONFIG_HOME="").port == 9


def test_every_setting_can_be_given_in_every_place(file: Path) -> None:
    values: dict[str, str] = {
        "url": "sqlite://",
        "host": "localhost",
        "log-level": "error",
        "log-format": "json",
        "allowed-host": "a.example",
        "cors-origin": "https://a.example",
        "connection": "sales=sqlite://",
        "allowed-reference": "PGPASSWORD",
    }
    for name, setting in config._SETTINGS.items():  # noqa: SLF001  # the table itself
        default = setting.default
        text = values.get(name) or ("true" if isinstance(default, bool) else "77")
        flag = [f"--{name}"] if isinstance(default, bool) else [f"--{name}", text]
        by_flag = load(text) if name == "url" else load(*flag)
        by_environment = load(**{f"NOTEBOOK_RPC_{setting.name.upper()}": text})
        file.write_text(f'{name} = "{text}"')
        by_file = load("--config", str(file))
        assert by_flag == by_environment == by_file != Settings()


def test_toml_values_have_their_own_types(file: Path) -> None:
    file.write_text(
        "port = 0\ninsecure = true\ngrace = 1.5\nallowed-host = ['a', 'b']\n"
        "[properties]\nthreads = 2\nread = true\n"
    )
    settings = load("--config", str(file), "-P", "threads", "4", "-P", "x", "y")
    assert (settings.port, settings.insecure, settings.grace) == (0, True, 1.5)
    assert settings.allowed_host == ("a", "b")
    assert settings.properties == {"threads": "4", "read": "true", "x": "y"}


def test_a_setting_with_several_values_repeats_its_flag_and_splits_its_variable() -> None:
    assert load("--allowed-host", "a", "--allowed-host", "b").allowed_host == ("a", "b")
    assert load(NOTEBOOK_RPC_ALLOWED_HOST="a, b").allowed_host == ("a", "b")
    assert load(NOTEBOOK_RPC_ALLOWED_HOST="").allowed_host == ()


def test_folders_may_stand_in_one_value_and_none_at_all_is_not_the_same_as_nothing_said(
    file: Path,
) -> None:
    assert load().allowed_paths == ()
    assert load("--allowed-paths", "a, b", "--allowed-paths", "c").allowed_paths == ("a", "b", "c")
    assert load(NOTEBOOK_RPC_ALLOWED_PATHS="a,b").allowed_paths == ("a", "b")
    assert load("--allowed-paths", "").allowed_paths == ("",)
    assert load(NOTEBOOK_RPC_ALLOWED_PATHS="").allowed_paths == ("",)
    file.write_text('allowed-paths = ["a,b", ""]')
    assert load("--config", str(file)).allowed_paths == ("a", "b", "")


@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "a/"])
def test_a_connection_without_a_good_name_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be NAME=URL or CONTEXT/NAME=URL$") as caught:
        load("--connection", f"{name}=mine://u:secret@h")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "YES"])
def test_words_for_yes(text: str) -> None:
    assert load(NOTEBOOK_RPC_INSECURE=text).insecure is True


@pytest.mark.parametrize("text", ["false", "FALSE", "0", "no", "No"])
def test_words_for_no(text: str, file: Path) -> None:
    file.write_text("insecure = true")
    assert load("--config", str(file), NOTEBOOK_RPC_INSECURE=text).insecure is False


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1000), ("64KiB", 65536), ("1MB", 10**6), ("2 GiB", 2 << 30), ("5B", 5)],
)
def test_sizes_may_have_units(text: str, size: int) -> None:
    assert load("--max-page", text).max_page == size


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--port", "66000"], "--port must be at most 65535, not '66000'"),
        (["--port", "65536"], "--port must be at most 65535"),
        (["--port", "x"], "--port must be a whole number"),
        (["--port", "-1"], "--port must be a whole number"),
        (["--log-level", "loud"], "must be one of debug, info, warning, error"),
        (["--max-page", "1 parsec"], "--max-page must be a number of bytes"),
        (["--grace", "0"], "--grace must be a number of seconds above 0"),
        (["--grace", "inf"], "--grace must be a number of seconds above 0"),
        (["--grace", "nan"], "--grace must be a number of seconds above 0"),
        (["--max-threads", "0"], "--max-threads must be at least 1"),
        (["--config", "/nonexistent/x.toml"], "cannot read /nonexistent/x.toml: No such file"),
    ],
)
def test_a_wrong_value_says_which_and_what_would_be_right(argv: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(*argv)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 1", "there is no setting 'prot'; did you mean 'port'?"),
        ("zzz = 1", "there is no setting 'zzz'"),
        ("port = ", "is not TOML"),
        ("port = [1]", "port must be a string, a number"),
        ("port = ['1', '2']", "port must be one value, not a list"),
        ("properties = 1", "properties must be a table"),
        ("insecure = 'maybe'", "insecure must be true or false"),
    ],
)
def test_a_wrong_file_says_where(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load("--config", str(file))
    assert complaint in str(raised.value)


def test_a_file_that_is_no_text_is_not_toml(file: Path) -> None:
    file.write_bytes(b"port = \xff")
    with pytest.raises(ConfigError, match="is not TOML"):
        load("--config", str(file))


def test_an_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'NOTEBOOK_RPC_LOG_LEVEL'"):
        load(NOTEBOOK_RPC_LOGLEVEL="debug")


def test_an_unknown_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load("--prot", "1")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error == "notebook-rpc: unknown argument '--prot'; did you mean '--port'?\n"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("duckdb://", ("duckdb", {})),
        ("duckdb:///a.db", ("duckdb", {"database": "a.db"})),
        ("duckdb:////tmp/a.db", ("duckdb", {"database": "/tmp/a.db"})),  # noqa: S108
        ("DUCKDB:///:memory:", ("duckdb", {"database": ":memory:"})),
        ("sqlite:///a%20b.db?timeout=3", ("sqlite", {"database": "a b.db", "timeout": "3"})),
        (
            "postgresql+psycopg://me:s%40crt@db.example:5433/sales?sslmode=require",
            (
                "postgres",
                {
                    "host": "db.example",
                    "port": "5433",
                    "username": "me",
                    "password": "s@crt",
                    "database": "sales",
                    "sslmode": "require",
                },
            ),
        ),
        ("new.duckdb", ("duckdb", {"database": "new.duckdb"})),
        ("new.db", ("duckdb", {"database": "new.db"})),
        ("new.sqlite", ("sqlite", {"database": "new.sqlite"})),
        ("new.sqlite3", ("sqlite", {"database": "new.sqlite3"})),
        ("sqlite:///a?mode=", ("sqlite", {"database": "a", "mode": ""})),
    ],
)
def test_a_url_is_split_into_driver_and_properties(
    url: str, expected: tuple[str, dict[str, str]]
) -> None:
    assert config.read_url(url) == expected


def test_a_file_tells_by_its_first_bytes_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    path.write_bytes(b"SQLite format 3\0" + bytes(84))
    assert config.read_url(str(path))[0] == "sqlite"
    path.write_bytes(bytes(8) + b"DUCK")
    assert config.read_url(str(path))[0] == "duckdb"
    misnamed = path.rename(tmp_path / "data.sqlite")
    assert config.read_url(str(misnamed))[0] == "duckdb"


@pytest.mark.parametrize(
    "url",
    [
        "duckdb://[::1",
        "postgresql://me:hunter2@h:port/",
        "postgresql://me:hunter2",  # where the port would be
        "sqlite:///a?password=hunter2&b",
    ],
)
def test_a_malformed_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config.read_url(url)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("url", ["sqlite:///a?database=b", "sqlite:///a?mode=ro&mode=rw"])
def test_a_url_gives_each_property_once(url: str) -> None:
    with pytest.raises(ConfigError, match="twice"):
        config.read_url(url)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert config.read_url(str(tmp_path / "pipe"))[0] == "duckdb"
    with pytest.raises(ConfigError, match="not a file"):
        load("--config", str(tmp_path / "pipe"))


def test_an_empty_url_is_no_database() -> None:
    with pytest.raises(ConfigError, match="is empty"):
        config.read_url("")


def test_help_explains_every_flag() -> None:
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    for name, setting in config._SETTINGS.items():  # noqa: SLF001
        assert name == "url" or f"--{name}" in parser.format_help()
        assert setting.metadata["help"]
    shown = " ".join(parser.format_help().split())
    assert "port to listen on; 0 for any (default: 1995)" in shown
    assert "size of a page of rows (default: 64MiB)" in shown
    assert "besides loopback names; may be repeated" in shown


def shown(*arguments: str, **environ: str) -> str:
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    return config.show(parser.parse_args(arguments), {"XDG_CONFIG_HOME": "/nonexistent", **environ})


def test_what_is_set_is_shown_with_its_place_and_without_secrets(file: Path) -> None:
    file.write_text('grace = 1.5\nallowed-host = ["a", "b\\u00e4"]\n[properties]\npw = "s3cret"\n')
    text = shown(
        *("mine://me:s3cret@h", "--config", str(file), "--port", "0", "--bearer-token", "s3cret"),
        NOTEBOOK_RPC_STACK_TRACES="yes",
    )
    assert "s3cret" not in text
    lines = text.splitlines()
    for line in (
        'url = "..."  # URL',
        'host = "127.0.0.1"  # default',
        "port = 0  # --port",
        f"grace = 1.5  # {file}",
        f'allowed-host = ["a", "b\u00e4"]  # {file}',
        "stack-traces = true  # NOTEBOOK_RPC_STACK_TRACES",
        'bearer-token = "..."  # --bearer-token',
        "cors-origin = []  # default",
        '"pw" = "..."',
    ):
        assert line in lines


def test_what_is_shown_is_a_file_that_means_the_same(file: Path) -> None:
    file.write_text(shown("--port", "7", "--cors-origin", "https://a", "--query-timeout", "0.5"))
    given = load("--config", str(file))
    assert given == load("--port", "7", "--cors-origin", "https://a", "--query-timeout", "0.5")


def test_a_variable_for_tokens_that_was_not_filled_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="NOTEBOOK_RPC_BEARER_TOKEN is empty"):
        load(NOTEBOOK_RPC_BEARER_TOKEN="")


def test_flags_of_sqlrooms_server_mean_what_they_mean_there() -> None:
    settings = load("--db-path", "a.duckdb", "--auth-token", "s3cret", "--bearer-token", "other")
    assert (settings.url, settings.bearer_token) == ("a.duckdb", ("s3cret", "other"))
    assert load("--extensions", "httpfs,spatial, h3@community").extensions == (
        *("httpfs", "spatial", "h3@community"),
    )
    settings = load("--sync", "--meta-db", "m.duckdb", "--meta-namespace", " meta ")
    assert (settings.sync, settings.meta_db, settings.meta_namespace) == (True, "m.duckdb", "meta")
    assert load().meta_namespace == "__sqlrooms"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["a.duckdb", "--db-path", "b.duckdb"], "there is one URL, which --db-path gives too"),
        (["--extensions", "../x"], "--extensions must be NAME or NAME@REPOSITORY"),
        (["--extensions", ""], "--extensions must be NAME or NAME@REPOSITORY"),
        (["--meta-namespace", " "], "--meta-namespace must be a name"),
    ],
)
def test_they_are_judged_like_all_others(argv: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(*argv)


def test_they_are_shown_beside_the_names_they_have_here(capsys: pytest.CaptureFixture[str]) -> None:
    parser = config.Parser(prog="notebook-rpc")
    config.add_arguments(parser)
    assert "--bearer-token TOKEN, --auth-token TOKEN" in parser.format_help()
    with pytest.raises(SystemExit):
        parser.parse_args(["--db-psth", "x"])
    assert "did you mean '--db-path'?" in capsys.readouterr().err
