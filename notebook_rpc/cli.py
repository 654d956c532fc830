"""The command line.

Exit codes: 0 done, 1 failure, 2 wrong usage or settings, 3 cannot bind, 4 cannot open the
database. Every failure is one line on standard error that says what to do.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from notebook_rpc import __version__, binding, config, logs, server, systemd
from notebook_rpc.errors import DatabaseError, InvalidParams
from notebook_rpc.sansio import urls
from notebook_rpc.sansio.discretion import discreet
from notebook_rpc.sansio.tokens import ANYBODY, Token
from notebook_rpc.settings import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from notebook_rpc.settings import Settings

logger = logging.getLogger(__name__)

# Seconds. While a worker holds the interpreter, the event loop gets it back after at most
# this; the default of 5 ms, many times over, is what stalls the loop under load.
SWITCH_INTERVAL: Final = 0.0005

EXIT_CODES: Final[dict[type[Exception], int]] = {
    server.CannotClose: 1,
    ConfigError: 2,
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
    settings = commands.add_parser(
        "config",
        help="look at the settings",
        description="With the arguments of `serve`: `show` prints every setting as a file would "
        "have it, with where it comes from and without secrets; `check` says whether they can be "
        "used, and opens nothing.",
        allow_abbrev=False,
    )
    settings.add_argument("action", choices=("show", "check"))
    config.add_arguments(settings)
    check = commands.add_parser(
        "check-driver",
        help="check that a driver does what it must",
        description="Run the checks of notebook_rpc.driver's promises on a database. It may be "
        "in use: they make only tables of their own, and drop them.",
        allow_abbrev=False,
    )
    _add_check_arguments(check)
    arguments = parser.parse_args(argv)
    try:
        match arguments.command:
            case "serve":
                if argv is None and os.name != "nt":
                    _hide_tokens(arguments.bearer_token or [])
                return _serve(config.load(arguments, os.environ))
            case "config":
                return _config(arguments)
            case _:
                return _check_driver(arguments)
    except EXPECTED as exc:
        reason = " ".join(str(exc).split())  # databases like to say it in several lines
        print(f"notebook-rpc: {reason}", file=sys.stderr)  # noqa: T201  # the one line
        return next(code for kind, code in EXIT_CODES.items() if isinstance(exc, kind))


def _config(arguments: argparse.Namespace) -> int:
    if arguments.action == "show":
        print(config.show(arguments, os.environ))  # noqa: T201  # what was asked for
        return 0
    try:
        server.check(config.load(arguments, os.environ))
    except InvalidParams as exc:
        raise ConfigError(str(exc)) from exc
    print("The settings can be used.")  # noqa: T201  # as above
    return 0


def _hide_tokens(tokens: Sequence[str]) -> None:
    """Begin again without the tokens of the command line, which everybody on the machine can
    read in the list of processes; they go into the environment, which nobody else can."""
    if not tokens:
        return
    for token in tokens:  # before they are joined: an empty one would mean that none is needed
        try:
            Token.of(token, ANYBODY)
        except ValueError as exc:
            raise ConfigError(f"--bearer-token: {exc}") from None
    command: list[str] = []
    flags = config.flags_of("bearer-token")
    given = iter(sys.orig_argv)
    for word in given:
        if word in flags:
            next(given)
        elif not word.startswith(tuple(f"{flag}=" for flag in flags)):
            command.append(word)
    variable = f"{config.ENV_PREFIX}BEARER_TOKEN"
    os.execve(sys.executable, command, {**os.environ, variable: ",".join(tokens)})  # noqa: S606


def _add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url",
        nargs="?",
        default="duckdb://",
        metavar="URL",
        help="the database: a file or a URL (default: duckdb://)",
    )
    parser.add_argument(
        "-P",
        dest="properties",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="set a property of the connection; may be repeated",
    )
    parser.add_argument(
        "--dialect", metavar="NAME", help="name of a dialect, or a TOML file; guessed if not given"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CHECK",
        help="run this check; may be repeated (default: all)",
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="time for one check")
    parser.add_argument(
        "--json", action="store_true", help="report in JSON; progress goes to standard error"
    )
    parser.add_argument("--list", action="store_true", help="list the checks, and run none")


def _check_driver(arguments: argparse.Namespace) -> int:
    from notebook_rpc.conformance import command  # noqa: PLC0415  # 25 ms that `serve` can save

    driver, properties = config.read_url(arguments.url)
    try:
        given = properties | dict(arguments.properties)
        properties = urls.resolve(given, os.environ, lambda path: Path(path).read_text())
        with discreet(properties):
            return command.check_driver(arguments, driver, properties)
    except InvalidParams as exc:
        raise ConfigError(str(exc)) from exc


def _serve(settings: Settings) -> int:
    with logs.to_stderr(settings.log_level, settings.log_format, access=settings.access_log):
        sys.setswitchinterval(SWITCH_INTERVAL)
        _raise_file_limit()
        trio.run(partial(_serve_until_signalled, settings))
    return 0


async def _serve_until_signalled(settings: Settings) -> None:
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
