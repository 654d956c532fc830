"""Every fuzz target, as a property test: its seeds, the kept corpus, and what grows from both."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).parent.parent.parent / "fuzz"
TARGETS = sorted(path.stem for path in (FUZZ / "targets").glob("[!_]*.py"))


def load(name: str) -> Any:
    return importlib.import_module(f"fuzz.targets.{name}")


def inputs(name: str) -> list[bytes]:
    kept = sorted((FUZZ / "corpus" / name).glob("*"))
    return [*load(name).SEEDS, *(path.read_bytes() for path in kept)]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_says_what_must_hold_and_where_to_begin(name: str) -> None:
    module = load(name)
    assert module.__doc__
    assert module.SEEDS
    assert all(isinstance(seed, bytes) for seed in module.SEEDS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_corpus(name: str) -> None:
    for data in inputs(name):
        load(name).target(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None)  # the machine may be busy with something else
@given(data=st.binary(max_size=300))
def test_any_bytes(name: str, data: bytes) -> None:
    load(name).target(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None)
@given(entropy=st.integers(0, 2**64))
def test_mutated_seeds(name: str, entropy: int) -> None:
    chance = random.Random(entropy)  # noqa: S311  # nothing secret
    load(name).target(mutated(inputs(name), chance))


def mutated(seeds: list[bytes], chance: random.Random) -> bytes:
    """A seed with a few bytes changed, cut out, repeated, or taken from another seed."""
    data = chance.choice(seeds)
    for _ in range(chance.randint(1, 4)):
        start, end = sorted(chance.choices(range(len(data) + 1), k=2))
        other = chance.choice(seeds)
        begin = chance.randint(0, len(other))
        replacement = chance.choice(
            [b"", bytes([chance.randrange(256)]), data[start:end] * 2, other[begin : begin + 20]]
        )
        data = data[:start] + replacement + data[end:]
    return data


def test_an_input_is_replayed_and_a_broken_invariant_shows(tmp_path: Path) -> None:
    fine = tmp_path / "fine"
    fine.write_bytes(load("session").SEEDS[0])
    command = [sys.executable, str(FUZZ / "run"), "session", str(fine)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{fine}: ok\n"
