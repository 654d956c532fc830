"""The composition root: the one place that knows how the parts are joined."""

from __future__ import annotations

import errno
import logging
import math
import os
import secrets
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc import __version__, config, plugins
from notebook_rpc.binding import Binding, bind, check_safety, check_tls, removed_at_the_end
from notebook_rpc.errors import InvalidParams
from notebook_rpc.gate import Gate
from notebook_rpc.meters import Meters
from notebook_rpc.sansio import urls
from notebook_rpc.sansio.auth import Access
from notebook_rpc.sansio.budget import Budget
from notebook_rpc.sansio.tokens import Token, Tokens, User
from notebook_rpc.sansio.tokens import parse as parse_tokens
from notebook_rpc.services.connections import Connections
from notebook_rpc.services.registry import Sessions
from notebook_rpc.services.sessions import Session
from notebook_rpc.services.workers import Workers
from notebook_rpc.surfaces.ops import Ops, Status
from notebook_rpc.surfaces.rpc import DEFAULT, Dialogue, Options, Rpc
from notebook_rpc.transport.http11 import Limits
from notebook_rpc.transport.lines import LineConnection
from notebook_rpc.transport.listener import Listener

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from notebook_rpc.config import Settings
    from notebook_rpc.driver import Database

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
    tokens = _tokens(settings)
    check_safety(settings, has_tokens=bool(tokens))
    workers = Workers(settings.max_threads, spare=2 * (os.cpu_count() or 1))
    try:
        connections = Connections(_openers(settings), workers)
        await connections.open(DEFAULT)
        try:
            reached = partial(bind, settings, inherited, has_tokens=bool(tokens))
            await _serve_databases(settings, tokens, connections, workers, reached, listening, stop)
        finally:
            failures = await connections.close()
        for name, failure in failures.items():  # not before: it would hide why the server ended
            raise CannotClose(f"closing {name} failed: {failure}") from failure
    except InvalidParams as exc:
        raise config.ConfigError(str(exc)) from exc
    finally:
        workers.close()


def check(settings: Settings) -> None:
    """Find out whether *settings* can be used, as far as that can be told without opening and
    binding anything. Raises as ``serve`` does."""
    check_safety(settings, has_tokens=bool(_tokens(settings)))
    check_tls(settings)
    _openers(settings)


def _tokens(settings: Settings) -> Tokens:
    """The tokens that were given as they are, and those of the file.

    Raises:
        ConfigError: the file cannot be read or understood; the message has no token.
    """
    numbered = enumerate(settings.bearer_token, 1)
    found = [Token.of(text, User(f"bearer token {number}")) for number, text in numbered]
    if settings.bearer_token_file:
        path = Path(settings.bearer_token_file)
        try:
            found += parse_tokens(_read_text(str(path)))
            if path.stat().st_mode & 0o077:
                logger.warning("others can read the tokens in %s; chmod 600 it", path)
        except OSError as exc:
            raise config.ConfigError(f"cannot read {path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise config.ConfigError(f"{path}: {exc}") from None
        if not found:
            raise config.ConfigError(f"there is no token in {path}")
    return Tokens(found)


def _openers(settings: Settings) -> dict[str, Callable[[], Database]]:
    """What opens each database, by its name. Whatever can be wrong without asking a database,
    is found out here; what is referred to is read with each try, as it may change.

    Raises:
        ConfigError: a URL, a reference or a driver's name is wrong.
        DatabaseUnavailable: what a driver needs is not installed.
    """
    named = {DEFAULT: (settings.url, settings.properties)}
    for each in settings.connection:
        name, _, url = each.partition("=")
        if name in named:
            raise config.ConfigError(f"there are two connections called {name!r}")
        named[name] = (url, {})
    return {name: _opener(*about, settings.read_only) for name, about in named.items()}


def _opener(url: str, more: Mapping[str, str], read_only: bool) -> Callable[[], Database]:
    scheme, properties = config.read_url(url)
    driver = plugins.load_driver(scheme)

    def opened() -> Database:
        found = urls.resolve(
            properties | dict(more), os.environ, lambda path: Path(path).read_text()
        )
        return driver.open(found, read_only=read_only)

    return opened


def _read_text(path: str) -> str:
    """Of a file. A pipe would keep us waiting for somebody to write into it."""
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(errno.EINVAL, "not a file")
    return Path(path).read_text("utf-8")


async def _serve_databases(
    settings: Settings,
    tokens: Tokens,
    connections: Connections,
    workers: Workers,
    reached: Callable[[], Awaitable[Binding]],
    listening: Callable[[Sequence[str]], None],
    stop: Stop,
) -> None:
    meters, budget = Meters(), Budget(settings.max_unsent)

    def make(connection: str) -> Session:
        connect = partial(connections.connect, connection)
        seconds = settings.query_timeout or math.inf
        return Session(connect, workers, settings.max_page, seconds, meters, budget)

    default = make(DEFAULT)
    await default.open()
    sessions = Sessions(
        make,
        partial(secrets.token_hex, 16),  # 128 bits are beyond guessing
        limit=settings.max_sessions,
        idle_seconds=settings.session_timeout,
    )
    try:
        options = Options(settings.max_batch, settings.stack_traces, meters.error, budget.hold)
        if settings.stdio:
            await _serve_stdio(settings, default, options, stop)
            return
        rpc = Rpc(default, sessions, partial(stop.drain, "quit"), options)

        def status() -> Status:
            return Status(stop.draining.is_set(), len(sessions), workers.load())

        _measure(meters, status)
        ops = Ops(__version__, status, meters.exposition)
        access = Access(
            frozenset({*map(str.lower, settings.allowed_host), settings.host.lower()}),
            frozenset(settings.cors_origin),
        )

        def interrupt() -> None:
            default.stop()
            sessions.stop()

        gate = Gate([rpc, ops], access, tokens, observe=meters.request)
        binding = await reached()
        await _listen(settings, binding, gate, sessions.expire, interrupt, listening, stop)
    finally:
        await sessions.close()
        await default.close()


def _measure(meters: Meters, status: Callable[[], Status]) -> None:
    meters.gauge("sessions", "Sessions besides the default one.", lambda: status().sessions)
    meters.gauge(
        "calls_running", "Calls that a thread is at work on.", lambda: status().load.running
    )
    meters.gauge("calls_waiting", "Calls that wait for a thread.", lambda: status().load.waiting)
    meters.gauge("threads", "Threads that there are.", lambda: status().load.threads)


async def _serve_stdio(settings: Settings, default: Session, options: Options, stop: Stop) -> None:
    """One client, on standard input and output; its end of file is its leave."""
    if os.name == "nt":
        raise config.ConfigError("--stdio needs a POSIX system")
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
    beside: Callable[[], Awaitable[None]],
    interrupt: Callable[[], None],
    listening: Callable[[Sequence[str]], None],
    stop: Stop,
) -> None:
    """Serve connections, and run *beside* as long."""
    listener = Listener(gate, _limits(settings), tls=binding.tls)
    with removed_at_the_end(settings.uds):
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[None]) -> None:
                await listener.serve(binding.sockets, task_status=task_status)
                nursery.cancel_scope.cancel()  # all have ended; nobody is left to be stopped

            nursery.start_soon(beside)
            await nursery.start(run)
            listening(binding.urls)
            await _drain(listener, nursery.cancel_scope, interrupt, settings.grace, stop)


def _limits(settings: Settings) -> Limits:
    return Limits(
        header_bytes=settings.max_header,
        header_seconds=settings.header_timeout,
        idle_seconds=settings.idle_timeout,
        body_bytes=settings.max_body,
        send_seconds=settings.send_timeout,
        connections=settings.max_connections,
    )
