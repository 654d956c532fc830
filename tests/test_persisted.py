"""The file of kept connections: private, replaced as a whole, and never written over in doubt."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from typing import TYPE_CHECKING

import pytest

from notebook_rpc import persisted
from notebook_rpc.errors import NotKept
from notebook_rpc.persisted import Persisted

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql://ada:${PASSWORD}@db/sales"


@pytest.fixture
def file(tmp_path: Path) -> Persisted:
    return Persisted.of("mine", {"XDG_CONFIG_HOME": str(tmp_path)})


def write(file: Persisted, text: str) -> None:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    file.path.write_text(text)
    file.path.chmod(0o600)


def test_it_lies_beside_the_settings(
    tmp_path: Path, file: Persisted, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file.path == tmp_path / "notebook-rpc" / "connections" / "mine.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Persisted.of("x", {}).path.is_relative_to(tmp_path / ".config")


def test_without_a_file_nothing_is_kept_and_nothing_is_made(file: Persisted) -> None:
    assert file.load() == {}
    assert not file.path.parent.exists()
    assert Persisted.of("x", {"XDG_CONFIG_HOME": os.devnull}).load() == {}


def test_what_is_added_is_there_as_it_was_given(file: Persisted) -> None:
    file.add("default", "sales", URL)
    file.add("__session__", "el", "sqlite:///a.db")
    file.add("default", "other", "sqlite://")
    file.add("default", "other", "duckdb://")
    expected = {"sales": URL, "other": "duckdb://", "__session__/el": "sqlite:///a.db"}
    assert file.load() == expected
    contexts = json.loads(file.path.read_text())["contexts"]
    assert contexts["default"]["sales"] == {"url": URL}


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_only_this_user_can_read_it(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    file = Persisted.of("mine", {"XDG_CONFIG_HOME": str(home)})
    before = os.umask(0)
    try:
        file.add("default", "sales", URL)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    for folder in (file.path.parent, home / "notebook-rpc", home, home.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_file_that_others_can_read_is_warned_of(
    file: Persisted, caplog: pytest.LogCaptureFixture
) -> None:
    file.add("default", "sales", URL)
    file.path.chmod(0o640)
    file.load()
    (message,) = caplog.messages
    assert "chmod 600" in message
    file.add("default", "other", URL)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 2}', '{"version": "1"}', '{"contexts": {"a": {"b": "s3cret"}}}',
     '{"contexts": {"a": {"b": {"url": 5}}}}', '{"contexts": {"a": {"b": {}}}}',
     '{"contexts": {"a": {"b": {"url": "s3cret"}}}}', '{"contexts": {"a": {"b/c": {"url": "x://"}}}}',
     '{"contexts": {"a": {"b": {"url": "sqlite://", "more": 1}}}}', '{"more": 1}', "[" * 100_000,
     '{"contexts": {"": {"b": {"url": "x://"}}}}',
     '{"contexts": {"a": {"b": {"url": "postgresql://u:p/s3cret@h/d"}}}}'],
)  # fmt: skip
def test_a_damaged_file_is_an_error_and_is_never_written_over(file: Persisted, text: str) -> None:
    write(file, text)
    for touch in (file.load, lambda: file.add("default", "sales", URL)):
        with pytest.raises(NotKept, match=r"mine\.json is (damaged|of version 2)") as caught:
            touch()
        assert "s3cret" not in str(caught.value)
    assert file.path.read_text() == text
    assert [each.name for each in file.path.parent.iterdir() if each.suffix == ".part"] == []


def test_bytes_that_are_no_text_are_damage(file: Persisted) -> None:
    write(file, "")
    file.path.write_bytes(b'{"contexts": {"\xff": {}}}')
    with pytest.raises(NotKept, match="damaged"):
        file.load()


def test_what_cannot_be_written_changes_nothing(
    file: Persisted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full."""
    file.add("default", "sales", URL)
    before = file.path.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotKept, match=r"cannot write .*mine\.json: No space left"):
        file.add("default", "other", URL)
    assert file.path.read_text() == before
    assert sorted(each.name for each in file.path.parent.iterdir()) == ["mine.json", "mine.lock"]


LEFT = "mine.abc_1234.part"  # as tempfile calls them


@pytest.mark.parametrize("touch", ["load", "add"])
def test_what_a_killed_server_was_writing_is_removed(file: Persisted, touch: str) -> None:
    others = ["mine.more.abc_1234.part", "mine.part", "notes.abc_1234.part"]
    write(file, "{}")
    for name in (LEFT, *others):
        file.path.with_name(name).write_text(URL)
    file.load() if touch == "load" else file.add("default", "sales", URL)
    left = {each.name for each in file.path.parent.iterdir()}
    assert left == {"mine.json", "mine.lock", *others}


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
def test_what_another_server_is_writing_is_not(
    file: Persisted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    monkeypatch.setattr(persisted, "PAUSE", 0.0)
    file.add("default", "sales", URL)
    part = file.path.with_name(LEFT)
    part.write_text(URL)
    with file.path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert file.load() == {"sales": URL}
        assert part.exists()
    assert "cannot remove" in caplog.text
    file.load()
    assert not part.exists()


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    tmp_path.joinpath("notebook-rpc").write_text("")
    with pytest.raises(NotKept, match="cannot write"):
        Persisted.of("x", {"XDG_CONFIG_HOME": str(tmp_path)}).add("default", "a", URL)


def add_many(folder: str, name: str) -> None:
    file = Persisted.of("mine", {"XDG_CONFIG_HOME": folder})
    for number in range(10):
        file.add("default", f"{name}{number}", URL)


def test_two_servers_lose_nothing_of_each_other(file: Persisted, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=add_many, args=(str(tmp_path), name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert set(file.load()) == {f"{name}{number}" for name in "ab" for number in range(10)}


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
def test_a_lock_that_somebody_keeps_is_not_waited_for_for_ever(
    file: Persisted, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(persisted, "PAUSE", 0.0)
    file.add("default", "sales", URL)
    with file.path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NotKept, match="cannot write"):
            file.add("default", "other", URL)
    file.add("default", "other", URL)
