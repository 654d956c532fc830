"""The real servers, started for the first test that asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from tests.servers import MariaDB, Postgres, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with running(Postgres) as server:
        yield cast("Postgres", server)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    with running(MariaDB) as server:
        yield cast("MariaDB", server)
