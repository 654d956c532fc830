"""Versions: what a write through the server makes old."""

from __future__ import annotations

from notebook_rpc.services.versions import Versions


def test_a_version_stays_until_a_write() -> None:
    versions = Versions()
    before = versions.of("main")
    assert versions.of("main") == before
    versions.wrote("main")
    after = versions.of("main")
    assert after != before
    versions.wrote("main")
    assert versions.of("main") not in (before, after)


def test_a_write_counts_for_all_that_may_be_the_same_file() -> None:
    engines = {"here": "duckdb", "there": "duckdb", "elsewhere": "postgres"}
    versions = Versions(engines.__getitem__)
    before = {name: versions.of(name) for name in engines}
    versions.wrote("here")
    after = {name: versions.of(name) for name in engines}
    assert {name for name in engines if after[name] != before[name]} == {"here", "there"}


def test_without_knowing_the_engines_every_write_counts_for_all() -> None:
    versions = Versions()
    before = versions.of("there")
    versions.wrote("here")
    assert versions.of("there") != before


def test_no_two_servers_have_a_version_in_common() -> None:
    seen = set()
    for _ in range(20):
        versions = Versions()
        for _ in range(20):
            seen.add(versions.of("main"))
            versions.wrote("main")
    assert len(seen) == 400
