"""The command line.

Exit codes: 0 done, 1 failure, 2 wrong usage or settings, 3 cannot bind, 4 cannot open the
database. Every failure is one line on standard error that says what to do.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc import __version__, binding, config, logs, server, systemd
from notebook_rpc.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

# Seconds. While a worker holds the interpreter, the event loop gets it back after at most
# this; the default of 5 ms, many times over, is what stalls the loop under load.
SWITCH_INTERVAL: Final = 0.0005

EXIT_CODES: Final[dict[type[Exception], int]] = {
    server.CannotClose: 1,
    config.ConfigError: 2,
    binding.CannotBind: 3,
    DatabaseError: 4,
}
EXPECTED: Final = tuple(EXIT_CODES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = config.Parser(
        prog="notebook-rpc", description="A notebook backend for any database.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"notebook-rpc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve a database",
        description="Serve a database. Settings come from flags, then NOTEBOOK_RPC_* "
        "environment variables, then a TOML file, under the same names.",
        allow_abbrev=False,
    )
    config.add_arguments(serve)
    arguments = parser.parse_args(argv)
    if argv is None and os.name != "nt":
        _hide_tokens(arguments.bearer_token or [])
    try:
        return _serve(config.load(arguments, os.environ))
    except EXPECTED as exc:
        print(f"notebook-rpc: {exc}", file=sys.stderr)  # noqa: T201  # the one line
        return next(code for kind, code in EXIT_CODES.items() if isinstance(exc, kind))


def _hide_tokens(tokens: Sequence[str]) -> None:
    """Begin again without the tokens of the command line, which everybody on the machine can
    read in the list of processes; they go into the environment, which nobody else can."""
    if not tokens:
        return
    command: list[str] = []
    given = iter(sys.orig_argv)
    for word in given:
        if word == "--bearer-token":
            next(given)
        elif not word.startswith("--bearer-token="):
            command.append(word)
    variable = f"{config.ENV_PREFIX}BEARER_TOKEN"
    os.execve(sys.executable, command, {**os.environ, variable: ",".join(tokens)})  # noqa: S606


def _serve(settings: config.Settings) -> int:
    with logs.to_stderr(settings.log_level, settings.log_format, access=settings.access_log):
        sys.setswitchinterval(SWITCH_INTERVAL)
        _raise_file_limit()
        trio.run(partial(_serve_until_signalled, settings))
    return 0


async def _serve_until_signalled(settings: config.Settings) -> None:
    stop = server.Stop.never()
    notifier, sockets = systemd.Notifier(os.environ), systemd.inherited(os.environ)
    failure: Exception | None = None

    def listening(urls: Sequence[str]) -> None:
        _announce(urls)
        notifier.tell(f"READY=1\nSTATUS=listening on {', '.join(urls)}")

    async def tell_of_the_end() -> None:
        await stop.draining.wait()
        notifier.tell("STOPPING=1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop.on_signals)
        nursery.start_soon(notifier.watchdog)
        nursery.start_soon(tell_of_the_end)
        try:
            await server.serve(settings, listening, stop, sockets)
        except EXPECTED as exc:
            failure = exc  # raised below: the nursery would wrap it in a group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _announce(urls: Sequence[str]) -> None:
    try:
        for url in urls:
            print(f"Awaiting connections on {url}", flush=True)  # noqa: T201  # clients wait for it
    except OSError as exc:  # closed, or a full disk: nobody may be waiting, and it serves as well
        logger.warning("cannot tell where it listens, which is %s: %s", ", ".join(urls), exc)


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: every connection is one."""
    try:
        import resource  # noqa: PLC0415  # POSIX only
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as exc:  # where "unlimited" is more than the system allows
        logger.debug("the limit of open files stays: %s", exc)
