"""A live query hears of what others write to PostgreSQL, if a trigger announces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from notebook_rpc.backend import Backend
from notebook_rpc.services.connections import Connections
from notebook_rpc.services.workers import Workers
from notebook_rpc.settings import Settings
from notebook_rpc_drivers.postgres import DRIVER

if TYPE_CHECKING:
    from tests.servers import Postgres

ANNOUNCED = """
    drop schema public cascade; create schema public;
    create table orders (id integer);
    create function announce() returns trigger language plpgsql as $$ begin
        perform pg_notify('notebook_rpc', tg_table_schema || '.' || tg_table_name);
        return null;
    end $$;
    create trigger announce after insert on orders for each statement execute function announce();
    drop role if exists looker; create role looker login;
    grant usage on schema public to looker; grant select on orders to looker
"""
GONE = """
    drop owned by looker; drop role looker;
    drop schema public cascade; create schema public
"""


async def test_what_others_write_is_seen(postgres_server: Postgres) -> None:
    other = DRIVER.open(postgres_server.properties).connect()
    other.execute(ANNOUNCED)
    workers = Workers(limit=4, spare=2)
    looker = {**postgres_server.properties, "username": "looker"}  # live queries want no superuser
    openers = {"default": lambda: DRIVER.open(looker)}
    connections = Connections(openers, workers)
    backend = Backend(Settings(cache_size=0), connections, {"default": "postgres"}, workers)
    await backend.open()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run)
            await trio.testing.wait_all_tasks_blocked()
            sql = "select count(*) as n from orders"
            async with backend.watch.subscription("default", sql) as subscription:
                for number in range(3):
                    events = b"".join(await subscription.events())
                    assert f"[{number}]".encode() in events
                    await trio.to_thread.run_sync(other.execute, "insert into orders values (1)")
            nursery.cancel_scope.cancel()
    await backend.close()
    await connections.close()
    workers.close()
    other.execute(GONE)
    other.close()
