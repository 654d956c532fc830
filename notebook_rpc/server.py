"""The composition root: the one place that knows how the parts are joined."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc import __version__, references, scripts
from notebook_rpc.backend import Backend
from notebook_rpc.binding import Binding, bind, check_safety, check_tls, removed_at_the_end
from notebook_rpc.errors import InvalidParams, NotebookError
from notebook_rpc.gate import Gate
from notebook_rpc.model import DEFAULT
from notebook_rpc.registrations import Kept
from notebook_rpc.sansio.auth import Access
from notebook_rpc.scripting import Scripting
from notebook_rpc.services.compression import Compression
from notebook_rpc.services.connections import Connections
from notebook_rpc.services.sqlreading import Statements
from notebook_rpc.services.workers import Workers
from notebook_rpc.settings import ConfigError
from notebook_rpc.surfaces import mosaic, sqlrooms, vibesql
from notebook_rpc.surfaces.dialogue import Dialogue, Options
from notebook_rpc.surfaces.encoding import Encoding
from notebook_rpc.surfaces.mosaic import Mosaic
from notebook_rpc.surfaces.ops import Ops, Status
from notebook_rpc.surfaces.rpc import Rpc
from notebook_rpc.surfaces.scoot import Scoot, Services
from notebook_rpc.surfaces.vibesql import VibeSQL
from notebook_rpc.surfaces.vibesql_live import Live
from notebook_rpc.transport.http11 import Limits
from notebook_rpc.transport.lines import LineConnection
from notebook_rpc.transport.listener import Listener

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from notebook_rpc.meters import Meters
    from notebook_rpc.sansio.tokens import Tokens, User
    from notebook_rpc.services.contexts import Contexts
    from notebook_rpc.services.sessions import Session
    from notebook_rpc.settings import Settings
    from notebook_rpc.web import Surface

logger = logging.getLogger(__name__)


LAST_WORDS: Final = 2.0
"""Seconds for the answers to calls that were interrupted because the server stops."""


class CannotClose(Exception):
    """The database did not close well; what was committed may not be in its main file yet."""


@dataclass
class Stop:
    """How a running server is asked to stop: the first request drains, the second interrupts."""

    draining: trio.Event
    now: trio.Event

    @classmethod
    def never(cls) -> Stop:
        return cls(trio.Event(), trio.Event())

    def request(self, by: str) -> None:
        """*by* is for the log: a signal's name."""
        if self.draining.is_set():
            logger.info("%s: interrupting", by)
            self.now.set()
        else:
            self.drain(by)

    def drain(self, by: str) -> None:
        """As a first request, however many there were: what ``quit`` means."""
        logger.info("%s: stopping", by)
        self.draining.set()

    async def on_signals(self) -> None:
        """Take SIGTERM and SIGINT as requests."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                self.request(signal.Signals(number).name)


async def serve(
    settings: Settings,
    listening: Callable[[Sequence[str]], None],
    stop: Stop,
    inherited: Sequence[socket.socket] = (),
) -> None:
    """Run a server until it is asked to stop, then close everything in order.

    *listening* is called with the URLs once connections are accepted. *inherited* are sockets
    to listen on instead of the address in *settings*.

    Raises:
        ConfigError: the settings are invalid or unsafe.
        CannotBind: the message says which address, and why.
        DatabaseUnavailable: the database cannot be opened.
        CannotClose: all went well, but for its very end.
    """
    tokens = references.tokens(settings)
    check_safety(settings, has_tokens=bool(tokens))
    check_tls(settings)  # before a database is opened, which may take long
    # As many threads stay as there may be calls of one kind: to start one takes longer than
    # most calls do.
    workers = Workers(settings.max_threads, spare=settings.max_pool, max_waiting=settings.max_queue)
    try:
        # Both look into files, and not later: who closes a file that DuckDB has open takes its
        # lock away (fcntl(2): a process has one, whoever opened the file).
        engines, openers = references.engines(settings), references.openers(settings)
        kept = Kept.load(settings, os.environ)
        engines, openers = {**engines, **kept.engines()}, {**openers, **kept.openers()}
        connections = Connections(openers, workers, read_only=settings.read_only)
        await connections.open(DEFAULT)
        try:
            reached = partial(bind, settings, inherited, has_tokens=bool(tokens))
            await _serve_databases(
                *(settings, tokens, connections, engines, kept, workers, reached, listening, stop)
            )
        finally:
            failures = await connections.close()
        for name, failure in failures.items():  # not before: it would hide why the server ended
            raise CannotClose(f"closing {name} failed: {failure}") from failure
    except InvalidParams as exc:
        raise ConfigError(str(exc)) from exc
    finally:
        workers.close()


def check(settings: Settings) -> None:
    """Find out whether *settings* can be used, as far as that can be told without opening and
    binding anything. Raises as ``serve`` does."""
    check_safety(settings, has_tokens=bool(references.tokens(settings)))
    check_tls(settings)
    references.openers(settings)
    for script in settings.routes:
        scripts.located(script)
    Kept.load(settings, os.environ)


async def _serve_databases(
    settings: Settings,
    tokens: Tokens,
    connections: Connections,
    engines: Mapping[str, str],
    kept: Kept,
    workers: Workers,
    reached: Callable[[], Awaitable[Binding]],
    listening: Callable[[Sequence[str]], None],
    stop: Stop,
) -> None:
    backend = Backend(settings, connections, engines, workers)
    closing = ExitStack()
    try:
        await backend.open()
        options = Options(
            *(settings.max_batch, settings.stack_traces),
            *(backend.meters.error, backend.budget.hold),
            max_depth=settings.max_depth,
        )
        if settings.stdio:
            if settings.routes:
                raise ConfigError("--stdio has no routes; leave --routes out")
            await _serve_stdio(settings, backend.default, options, stop)
            return
        access = Access(
            frozenset({*map(str.lower, settings.allowed_host), settings.host.lower()}),
            frozenset(settings.cors_origin),
        )
        contexts = kept.contexts(backend, workers)
        surfaces = _surfaces(settings, backend, contexts, options, tokens, stop)
        scripting = None
        if settings.routes:
            scripting = Scripting(settings, backend, surfaces)
            closing.callback(scripting.close)
            surfaces.append(scripting.surface)
            if not await _loaded(scripting, stop):
                return
        gate = Gate(surfaces, access, tokens, observe=backend.meters.request)
        binding = await reached()

        async def beside(task_status: trio.TaskStatus[None]) -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(backend.run)
                nursery.start_soon(binding.beside)
                if scripting is not None and settings.reload:
                    nursery.start_soon(scripting.reload, gate.refresh)
                task_status.started()

        meters, interrupt = backend.meters, backend.interrupt
        await _listen(settings, binding, gate, meters, beside, interrupt, listening, stop)
    finally:
        closing.close()
        await backend.close()


async def _loaded(scripting: Scripting, stop: Stop) -> bool:
    """Whether the scripts were loaded before somebody asked to stop."""
    failure: ConfigError | None = None
    loaded = False
    async with trio.open_nursery() as nursery:

        async def stopped() -> None:
            await stop.draining.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(stopped)
        try:
            await scripting.load()
            loaded = True
        except ConfigError as exc:
            failure = exc
        except NotebookError as exc:  # no thread for it, say
            failure = ConfigError(f"--routes: {exc}")
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return loaded


def _surfaces(
    settings: Settings,
    backend: Backend,
    contexts: Contexts,
    options: Options,
    tokens: Tokens,
    stop: Stop,
) -> list[Surface]:
    """Everything that is spoken on the port."""

    def status() -> Status:
        return Status(stop.draining.is_set(), len(backend.sessions), backend.workers.load())

    def authenticate(token: str) -> User | None:
        return tokens.user(token, time.time())

    on_error = backend.meters.error
    encoding = Encoding(Compression(backend.workers))
    sqlrooms_options = sqlrooms.Options(max_queries=settings.max_queries, on_error=on_error)
    return [
        Rpc(
            *(backend.default, backend.sessions, partial(stop.drain, "quit"), options),
            readers=backend.readers,
        ),
        sqlrooms.SQLRooms(
            *(backend.queries, authenticate, backend.channels, sqlrooms_options),
            sync=backend.sharing.rooms,
        ),
        Mosaic(backend.queries, mosaic.Options(on_error, max_depth=settings.max_depth)),
        Scoot(
            Services(
                *(contexts, backend.queries, backend.catalog, Statements(backend.workers)),
                *(on_error, encoding, settings.max_depth),
            )
        ),
        VibeSQL(
            *(backend.queries, backend.catalog),
            vibesql.Options(on_error, encoding, settings.max_depth),
        ),
        Live(backend.watch.subscription, on_error, settings.max_depth),
        Ops(__version__, status, backend.meters.exposition, backend.probe.complaint),
    ]


async def _serve_stdio(settings: Settings, default: Session, options: Options, stop: Stop) -> None:
    """One client, on standard input and output; its end of file is its leave."""
    if os.name == "nt":
        raise ConfigError("--stdio needs a POSIX system")
    from trio.lowlevel import FdStream  # noqa: PLC0415  # POSIX only

    async def quit_() -> None:
        stop.drain("quit")

    dialogue = Dialogue(default, quit_, options)
    lines = LineConnection(FdStream(os.dup(0)), FdStream(os.dup(1)), dialogue, settings.max_body)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            try:
                await lines.serve()
            except trio.BrokenResourceError:
                logger.info("standard output was closed")
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        await _drain(lines, nursery.cancel_scope, default.stop, settings.grace, stop)


async def _drain(
    front: Listener | LineConnection,
    scope: trio.CancelScope,
    interrupt: Callable[[], None],
    grace: float,
    stop: Stop,
) -> None:
    """Once asked to stop, drain *front*. When asked again, or after *grace* seconds, interrupt
    the calls that still run, and end *scope* when they have had time to be answered."""
    await stop.draining.wait()
    front.drain()
    with trio.move_on_after(grace):
        await stop.now.wait()
    interrupt()
    scope.deadline = trio.current_time() + LAST_WORDS
    await trio.sleep_forever()


async def _listen(
    settings: Settings,
    binding: Binding,
    gate: Gate,
    meters: Meters,
    beside: Callable[..., Awaitable[None]],
    interrupt: Callable[[], None],
    listening: Callable[[Sequence[str]], None],
    stop: Stop,
) -> None:
    """Serve connections, and run *beside* as long."""
    listener = Listener(gate, _limits(settings), tls=binding.tls)
    meters.gauge("connections", "Connections that are open.", lambda: listener.connections)
    meters.counter("sent_bytes", "Bytes sent to clients, heads included.", lambda: listener.sent)
    with removed_at_the_end(settings.uds):
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[None]) -> None:
                await listener.serve(binding.sockets, task_status=task_status)
                nursery.cancel_scope.cancel()  # all have ended; nobody is left to be stopped

            await nursery.start(beside)
            await nursery.start(run)
            listening(binding.urls)
            await _drain(listener, nursery.cancel_scope, interrupt, settings.grace, stop)


def _limits(settings: Settings) -> Limits:
    return Limits(
        header_bytes=settings.max_header,
        header_seconds=settings.header_timeout,
        idle_seconds=settings.idle_timeout,
        body_bytes=settings.max_body,
        body_seconds=settings.body_timeout,
        body_rate=settings.body_rate,
        send_seconds=settings.send_timeout,
        message_bytes=settings.max_message,
        backlog_bytes=settings.max_backlog,
        ping_seconds=settings.ping_interval,
        connections=settings.max_connections,
    )
