"""The command line around a server that does as the test says.

What it is like as a process is in end_to_end/test_serve.py.
"""

from __future__ import annotations

import io
import logging
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import pytest
import trio
import trio.testing

from notebook_rpc import __version__, binding, cli, server
from notebook_rpc.errors import DatabaseUnavailable
from notebook_rpc.settings import ConfigError, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

Listening: TypeAlias = "Callable[[Sequence[str]], None]"
Serve: TypeAlias = "Callable[[Settings, Listening, server.Stop, object], Awaitable[None]]"


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of a notebook_rpc that the user may run; and what the command changes about
    the process is changed back."""
    for name in list(os.environ):
        if name.startswith("NOTEBOOK_RPC_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    package = logging.getLogger("notebook_rpc")
    log = package.handlers[:], package.level, package.propagate
    interval, files = sys.getswitchinterval(), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    package.handlers[:], package.level, package.propagate = log
    sys.setswitchinterval(interval)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Callable[[Serve], None]:
    """Put another server in the place of ours."""
    return lambda serve: monkeypatch.setattr(server, "serve", serve)


def test_flags_and_environment_reach_the_server(
    serving: Callable[[Serve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []

    async def serve(settings: Settings, _: Listening, __: server.Stop, ____: object) -> None:
        seen.append(settings)

    serving(serve)
    monkeypatch.setenv("NOTEBOOK_RPC_GRACE", "7")
    assert cli.main(["serve", "fake://", "--port", "0"]) == 0
    assert seen == [Settings(url="fake://", port=0, grace=7.0)]


def test_every_url_is_announced_on_a_line_of_its_own_and_at_once(
    serving: Callable[[Serve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.BytesIO()
    announced: list[bytes] = []

    async def serve(_: Settings, listening: Listening, __: server.Stop, ____: object) -> None:
        listening(["http://127.0.0.1:1/", "http://[::1]:1/"])
        announced.append(output.getvalue())

    serving(serve)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output))
    cli.main(["serve"])
    assert announced == [
        b"Awaiting connections on http://127.0.0.1:1/\nAwaiting connections on http://[::1]:1/\n"
    ]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ConfigError("the URL is malformed"), 2),
        (binding.Refused("add --insecure"), 2),
        (binding.CannotBind("the address is in use"), 3),
        (DatabaseUnavailable("no such file,\n\tsays  the database\n"), 4),
    ],
)
def test_a_failure_is_an_exit_code_and_one_line_on_standard_error(
    serving: Callable[[Serve], None],
    capsys: pytest.CaptureFixture[str],
    failure: Exception,
    code: int,
) -> None:
    async def serve(_: Settings, __: Listening, ___: server.Stop, ____: object) -> None:
        raise failure

    serving(serve)
    assert cli.main(["serve"]) == code
    reason = " ".join(str(failure).split())
    assert capsys.readouterr() == ("", f"notebook-rpc: {reason}\n")


def test_a_bug_is_not_dressed_up_as_an_expected_failure(serving: Callable[[Serve], None]) -> None:
    async def serve(_: Settings, __: Listening, ___: server.Stop, ____: object) -> None:
        raise ZeroDivisionError

    serving(serve)
    with pytest.raises(ExceptionGroup) as raised:
        cli.main(["serve"])
    assert raised.group_contains(ZeroDivisionError)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_server_to_stop(
    serving: Callable[[Serve], None], number: signal.Signals
) -> None:
    async def serve(_: Settings, __: Listening, stop: server.Stop, ____: object) -> None:
        before = signal.getsignal(number)
        await trio.testing.wait_all_tasks_blocked()  # the command listens for signals beside us
        assert signal.getsignal(number) is not before
        signal.raise_signal(number)
        with trio.fail_after(5):
            await stop.draining.wait()

    serving(serve)
    assert cli.main(["serve"]) == 0


def test_the_process_is_made_ready_for_many_threads_and_connections(
    serving: Callable[[Serve], None],
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, most), most))
    seen: list[object] = []

    async def serve(_: Settings, __: Listening, ___: server.Stop, ____: object) -> None:
        seen.extend((sys.getswitchinterval(), resource.getrlimit(resource.RLIMIT_NOFILE)))

    serving(serve)
    cli.main(["serve"])
    assert seen == [pytest.approx(0.0005), (most, most)]


@pytest.mark.skipif(os.name == "nt", reason="nobody else sees a command line there")
def test_tokens_are_taken_off_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["serve", "--bearer-token", "one", "--port", "0", "--bearer-token=two"]
    given += ["--auth-token", "three", "--auth-token=four"]
    begun: list[tuple[str, list[str], str]] = []

    def execve(path: str, command: list[str], environ: dict[str, str]) -> NoReturn:
        begun.append((path, command, environ["NOTEBOOK_RPC_BEARER_TOKEN"]))
        raise SystemExit

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(sys, "argv", ["notebook-rpc", *given])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "notebook_rpc", *given])
    with pytest.raises(SystemExit):
        cli.main()
    left = ["python", "-m", "notebook_rpc", "serve", "--port", "0"]
    assert begun == [(sys.executable, left, "one,two,three,four")]


@pytest.mark.parametrize(("level", "lines"), [("info", 1), ("error", 0)])
def test_the_log_is_configured_before_the_server_writes_to_it(
    serving: Callable[[Serve], None], capsys: pytest.CaptureFixture[str], level: str, lines: int
) -> None:
    async def serve(_: Settings, __: Listening, ___: server.Stop, ____: object) -> None:
        logging.getLogger("notebook_rpc.server").info("opened")

    serving(serve)
    cli.main(["serve", "--log-level", level, "--log-format", "json"])
    written = capsys.readouterr().err.splitlines()
    assert len(written) == lines
    assert all('"message":"opened"' in line for line in written)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "notebook-rpc: the following arguments are required: COMMAND"),
        (["serve", "--por", "1"], "unknown argument '--por'; did you mean '--port'?"),
        (["--vers"], "notebook-rpc: "),
        (["serve", "a", "b"], "one argument too many"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    serving: Callable[[Serve], None],
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    complaint: str,
) -> None:
    async def serve(_: Settings, __: Listening, ___: server.Stop, ____: object) -> None:
        pytest.fail("it was served all the same")

    serving(serve)
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert complaint in error
    assert error.count("\n") == 1


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"notebook-rpc {__version__}\n"


@pytest.mark.parametrize(
    "failure", [ValueError("current limit exceeds maximum limit"), OSError(1, "not permitted")]
)
def test_a_system_that_allows_no_more_files_is_served_with_what_there_is(
    serving: Callable[[Serve], None], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    async def serve(*_: object) -> None:
        return

    def refuse(*_: object) -> None:
        raise failure

    serving(serve)
    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuse)
        assert cli.main(["serve"]) == 0


def test_the_settings_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", "--port", "7", "--bearer-token", "s3cret"]) == 0
    shown = capsys.readouterr().out
    assert "port = 7  # --port\n" in shown
    assert "s3cret" not in shown


def test_the_settings_can_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check"]) == 0
    assert capsys.readouterr().out == "The settings can be used.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--port", "many"], "--port must be a whole number"),
        (["duckbd://"], "did you mean 'duckdb'?"),
        (["--connection", "a=duckdb://", "--connection", "a=sqlite://"], "two connections"),
        (["--tls-cert", "/nonexistent/a", "--tls-key", "/nonexistent/a"], "cannot read"),
        (["--bearer-token-file", "/nonexistent/a"], "cannot read"),
        (["--routes", "/nonexistent/a.py"], "cannot read /nonexistent/a.py: No such file"),
    ],
)
def test_what_is_wrong_with_the_settings_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["config", "check", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
