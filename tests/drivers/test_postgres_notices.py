"""Hearing NOTIFY: what was said, when, and that a lost connection is no silence."""

from __future__ import annotations

import re
import select
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from notebook_rpc.driver import SupportsNotices
from notebook_rpc.errors import DatabaseUnavailable
from notebook_rpc_drivers.postgres import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notebook_rpc.driver import Connection, Database, Listener
    from tests.servers import Postgres

PAGE = Path(__file__).parent.parent.parent / "docs" / "protocols" / "live.md"


@pytest.fixture
def database(postgres_server: Postgres) -> Iterator[Database]:
    database = DRIVER.open(postgres_server.properties)
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    connection.execute("drop schema public cascade; create schema public")
    yield connection
    connection.close()


@pytest.fixture
def listener(database: Database) -> Iterator[Listener]:
    assert isinstance(database, SupportsNotices)
    listener = database.listen("notebook_rpc")
    yield listener
    listener.close()


def heard(listener: Listener) -> list[str]:
    """What comes next, once its socket says that something has."""
    readable, _, _ = select.select([listener], [], [], 10)
    assert readable == [listener]
    return list(listener.take())


def silent(listener: Listener) -> bool:
    return select.select([listener], [], [], 0) == ([], [], []) and not listener.take()


def test_what_is_said_is_heard_once(connection: Connection, listener: Listener) -> None:
    assert silent(listener)
    connection.execute("notify notebook_rpc, 'public.t'; notify notebook_rpc")
    said = heard(listener)
    while len(said) < 2:
        said += heard(listener)
    assert said == ["public.t", ""]
    assert silent(listener)


def test_the_same_text_is_the_same_notice(connection: Connection, listener: Listener) -> None:
    connection.execute("begin; notify notebook_rpc, 'a'; notify notebook_rpc, 'b'")
    connection.execute("notify notebook_rpc, 'a'; commit")
    assert heard(listener) == ["a", "b"]


def test_nothing_is_said_before_it_is_committed(connection: Connection, listener: Listener) -> None:
    connection.execute("begin; notify notebook_rpc, 'a'; rollback")
    connection.execute("notify notebook_rpc, 'b'")
    assert heard(listener) == ["b"]


def test_what_is_said_elsewhere_is_not_heard(connection: Connection, listener: Listener) -> None:
    connection.execute("notify another, 'a'; notify notebook_rpc, 'b'")
    assert heard(listener) == ["b"]


def test_too_many_texts_are_as_good_as_any(listener: Listener) -> None:
    for number in range(1500):
        listener._note(f"{number}")  # type: ignore[attr-defined]  # noqa: SLF001
    assert listener.take() == [*map(str, range(1000)), ""]


def test_a_channel_is_a_name_and_no_sql(database: Database, connection: Connection) -> None:
    assert isinstance(database, SupportsNotices)
    listener = database.listen('a"b; c')
    try:
        connection.execute('notify "a""b; c", \'d\'')
        assert heard(listener) == ["d"]
    finally:
        listener.close()


def test_a_lost_connection_is_no_silence(connection: Connection, listener: Listener) -> None:
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%'"
    ).close()
    with pytest.raises(DatabaseUnavailable):
        heard(listener) or heard(listener)  # a last word comes before the end
    with pytest.raises(DatabaseUnavailable):
        listener.fileno()


def test_a_server_that_is_not_there(postgres_server: Postgres) -> None:
    database = DRIVER.open(postgres_server.properties)
    assert isinstance(database, SupportsNotices)
    postgres_server.stop()
    try:
        with pytest.raises(DatabaseUnavailable):
            database.listen("notebook_rpc")
    finally:
        postgres_server.start()


def test_the_trigger_of_the_page_announces_every_write(
    connection: Connection, listener: Listener
) -> None:
    (trigger,) = re.findall(r"(?s)```sql\n(CREATE FUNCTION .*?)```", PAGE.read_text("utf-8"))
    connection.execute("create table orders (id integer)")
    connection.execute(trigger)
    for write in (
        "insert into orders values (1)",
        "update orders set id = 2",
        "delete from orders",
        "truncate orders",
    ):
        connection.execute(write)
        assert heard(listener) == [""], write
