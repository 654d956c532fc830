"""The guard rail around scripts: what it judges, and whom. The ways past the functions of ``os``
are tried on a server, in end_to_end/test_scripts.py."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextvars import copy_context
from pathlib import Path

import pytest

from notebook_rpc.audit import Guard, guarded, unguarded


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "file").write_text("text")
    (tmp_path / "inside2").mkdir()
    (tmp_path / "outside").write_text("text")
    return tmp_path / "inside"


def test_files_elsewhere_are_refused_in_the_block_and_not_behind_it(inside: Path) -> None:
    outside = inside.parent / "outside"
    with guarded(Guard([inside])):
        assert (inside / "file").read_text() == "text"
        with pytest.raises(PermissionError, match="outside of --allowed-paths") as refused:
            outside.read_text()
        assert refused.value.filename == str(outside)
        with unguarded():
            assert outside.read_text() == "text"
        with pytest.raises(PermissionError):
            outside.write_text("a")
    assert outside.read_text() == "text"


def test_a_folder_whose_name_only_begins_alike_is_elsewhere(inside: Path) -> None:
    with guarded(Guard([inside])), pytest.raises(PermissionError):
        (inside.parent / "inside2" / "file").touch()
    with guarded(Guard([Path("/")])):
        assert (inside.parent / "outside").read_text() == "text"


def test_links_are_followed_before_they_are_judged(inside: Path) -> None:
    (inside / "link").symlink_to(inside.parent / "outside")
    (inside.parent / "back").symlink_to(inside / "file")
    with guarded(Guard([inside])):
        with pytest.raises(PermissionError):
            (inside / "link").read_text()
        assert (inside.parent / "back").read_text() == "text"


def test_no_folder_means_no_files(inside: Path) -> None:
    with guarded(Guard([])):
        with pytest.raises(PermissionError):
            (inside / "file").read_text()
        assert Path(os.devnull).read_text() == ""
        with sqlite3.connect(":memory:") as database:
            assert database.execute("select 1").fetchall() == [(1,)]
        database.close()


def test_what_is_open_already_may_be_used(inside: Path) -> None:
    with (
        (inside.parent / "outside").open() as file,
        guarded(Guard([inside])),
        open(file.fileno(), closefd=False) as again,
    ):
        assert again.read() == "text"


def test_installed_modules_may_be_read_and_not_written(inside: Path) -> None:
    module = Path(threading.__file__)
    with guarded(Guard([inside])):
        assert module.read_bytes()
        with pytest.raises(PermissionError):
            module.with_suffix(".new").touch()


def test_programs_are_refused(inside: Path) -> None:
    with guarded(Guard([inside])), pytest.raises(PermissionError, match="start no programs"):
        subprocess.run([sys.executable, "--version"], check=False)


def test_folders_are_removed_from_wherever_one_is(inside: Path) -> None:
    outside = inside.parent / "outside"
    with guarded(Guard([inside])):
        with tempfile.TemporaryDirectory(dir=inside) as folder:
            Path(folder, "a", "b").mkdir(parents=True)
            Path(folder, "a", "b", "file").touch()
        assert not Path(folder).exists()
        (inside / "a" / "b").mkdir(parents=True)
        shutil.rmtree(inside / "a")  # which has no second way, as the one before has
        here = os.open(inside, os.O_RDONLY)
        try:
            os.rename("file", "again", src_dir_fd=here, dst_dir_fd=here)
            os.remove("again", dir_fd=here)
            with pytest.raises(PermissionError, match="outside of"):
                os.remove("../outside", dir_fd=here)
            with pytest.raises(PermissionError, match="not by way of"):
                os.open("../outside", os.O_RDONLY, dir_fd=here)
        finally:
            os.close(here)
        with pytest.raises(PermissionError):
            shutil.rmtree(inside.parent / "inside2")
    assert outside.exists()
    assert (inside.parent / "inside2").exists()


def test_a_uri_is_no_way_out(inside: Path) -> None:
    outside = inside.parent / "made.db"
    with guarded(Guard([inside])), pytest.raises(PermissionError, match="no URI"):
        sqlite3.connect(f"file:{outside}?mode=rwc", uri=True)
    assert not outside.exists()


def test_it_goes_with_the_context_and_not_with_the_thread(inside: Path) -> None:
    outside = inside.parent / "outside"
    with guarded(Guard([inside])):
        context = copy_context()
        refused: list[bool] = []

        def read() -> None:
            try:
                outside.read_text()
            except PermissionError:
                refused.append(True)
            else:
                refused.append(False)

        for target in (read, lambda: context.run(read)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert refused == [False, True]


def test_two_guards_do_not_notice_each_other(inside: Path) -> None:
    other = inside.parent / "inside2"
    with guarded(Guard([inside])):
        with guarded(Guard([other])), pytest.raises(PermissionError):
            (inside / "file").read_text()
        assert (inside / "file").read_text() == "text"
    with guarded(None):
        assert (inside / "file").read_text() == "text"
