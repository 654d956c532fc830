"""The wheel holds what the tree holds, and what pip needs to know."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_has_every_file_of_both_packages_and_no_other(wheel: zipfile.ZipFile) -> None:
    expected = {
        path.relative_to(source).as_posix()
        for source, package in [(ROOT, "notebook_rpc"), (ROOT / "drivers", "notebook_rpc_drivers")]
        for path in (source / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    built = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert built == expected
    assert {"notebook_rpc/py.typed", "notebook_rpc_drivers/py.typed"} <= built


def test_pip_learns_of_the_command_and_the_drivers(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entries = ConfigParser()
    entries.read_string(wheel.read(name).decode())
    assert entries["console_scripts"]["notebook-rpc"] == "notebook_rpc.cli:main"
    for driver, place in entries["notebook_rpc.drivers"].items():
        module, _, attribute = place.partition(":")
        assert module == f"notebook_rpc_drivers.{driver}"
        assert attribute == "DRIVER"
        assert f"{module.replace('.', '/')}.py" in wheel.namelist()


def test_the_licence_goes_along(wheel: zipfile.ZipFile) -> None:
    assert any(name.endswith("LICENSE") for name in wheel.namelist())
