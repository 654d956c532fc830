"""The table of settings: each one's default, what it may be, and what it is for.

It reads nothing; ``config`` fills it from flags, the environment and files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from notebook_rpc.sansio import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LEAST_DEPTH: Final = 4  # a batch of calls with parameters has three levels
MOST_DEPTH: Final = 500  # any Python's recursion limit is farther


class ConfigError(Exception):
    """The settings cannot be used; the message says which and what would be valid."""


def _text(value: str) -> str:
    return value


def _number(value: str) -> int:
    if not re.fullmatch(r"[0-9]+", value):
        raise ValueError("must be a whole number")
    return int(value)


def _positive(value: str) -> int:
    number = _number(value)
    if number == 0:
        raise ValueError("must be at least 1")
    return number


def _depth(value: str) -> int:
    number = _positive(value)
    if not LEAST_DEPTH <= number <= MOST_DEPTH:
        raise ValueError(f"must be from {LEAST_DEPTH} to {MOST_DEPTH}")
    return number


def _port(value: str) -> int:
    number = _number(value)
    if number > 65535:
        raise ValueError("must be at most 65535")
    return number


def size(value: str) -> int:
    match = re.fullmatch(r"([0-9]+) ?(|[KMG]i?B?|B)", value)
    if not match:
        raise ValueError("must be a number of bytes, as 1000, 64KiB or 16MB")
    unit = match[2].rstrip("B")
    base = 1024 if unit.endswith("i") else 1000
    power = " KMG".index(unit[:1] or " ")
    return int(match[1]) * int(base**power)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ValueError("must be a number of seconds above 0")
    return seconds


def _seconds_or_0(value: str) -> float:
    return 0.0 if value in ("0", "0.0") else _seconds(value)


def _boolean(value: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() not in words:
        raise ValueError("must be true or false")
    return words[value.lower()]


def _named_url(value: str) -> str:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?=.+", value, re.DOTALL):
        raise ValueError("must be NAME=URL or CONTEXT/NAME=URL")
    return value


def _file_stem(value: str) -> str:
    if not re.fullmatch(r"\w[\w.-]{0,99}", value):
        raise ValueError("must be letters, digits, _ . and -")
    return value


def _reference(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*|file:[^}]+", value):
        raise ValueError("must be NAME or file:PATH")
    return value


def _token(value: str) -> str:
    tokens.Token.of(value, tokens.ANYBODY)
    return value


def _namespace(value: str) -> str:
    if not value.strip():
        raise ValueError("must be a name")
    return value.strip()


def _extension(value: str) -> str:
    if not re.fullmatch(r"\w+(@\S+)?", value, re.ASCII):
        raise ValueError("must be NAME or NAME@REPOSITORY")
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return parse


def _setting(
    default: object,
    parse: Callable[[str], object],
    metavar: str,
    explanation: str,
    *,
    secret: bool = False,
    commas: bool = False,
    alias: str = "",
) -> Any:  # as dataclasses.field itself, so that the fields below keep their own types
    """*commas*: a value may be several, with commas between them, or an empty one. *alias*: the
    flag's name in sqlrooms-server, or in scoot-server."""
    metadata = {"parse": parse, "metavar": metavar, "help": explanation, "secret": secret}
    metadata |= {"commas": commas, "alias": alias}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything ``serve`` can be told. Sizes are bytes, times are seconds."""

    url: str = _setting(
        "duckdb://",
        _text,
        "URL",
        "the database: a file or a URL such as duckdb:///sales.duckdb",
        secret=True,
        alias="--db-path",
    )
    host: str = _setting("127.0.0.1", _text, "HOST", "address to listen on")
    port: int = _setting(1995, _port, "PORT", "port to listen on; 0 for any", alias="-p")
    uds: str = _setting(
        "", _text, "PATH", "listen on a Unix socket, which only this user can reach, instead"
    )
    tls_cert: str = _setting("", _text, "FILE", "certificate to serve HTTPS with, in PEM")
    tls_key: str = _setting("", _text, "FILE", "its private key, in PEM")
    tls_generate: bool = _setting(
        False, _boolean, "", "serve HTTPS with a certificate made for this run"
    )
    stdio: bool = _setting(
        False, _boolean, "", "serve one client on standard input and output instead"
    )
    connection: tuple[str, ...] = _setting(
        (),
        _named_url,
        "NAME=URL",
        "another database, for sessions that ask for it by name",
        secret=True,
    )
    config_name: str = _setting(
        "scoot_default",
        _file_stem,
        "NAME",
        "which file of kept connections to use, for what clients register",
        alias="-c",
    )
    register: tuple[str, ...] = _setting(
        (),
        _text,
        "DRIVER",
        "a driver of databases that clients may register; '' for none"
        " (default: duckdb, sqlite, postgres)",
        commas=True,
    )
    allowed_reference: tuple[str, ...] = _setting(
        (),
        _reference,
        "NAME",
        "what URLs that clients register may refer to: NAME of the environment, or file:PATH",
    )
    read_only: bool = _setting(
        False, _boolean, "", "let nobody change a database; the engine sees to it"
    )
    allowed_paths: tuple[str, ...] = _setting(
        (),
        _text,
        "FOLDER",
        "a folder in which SQL and scripts may reach files, and nowhere else; '' for no files",
        commas=True,
    )
    routes: tuple[str, ...] = _setting(
        (), _text, "SCRIPT", "a script in Python that adds routes of its own"
    )
    reload: bool = _setting(
        False, _boolean, "", "load these scripts again when they change, for development"
    )
    insecure: bool = _setting(
        False, _boolean, "", "listen on other than loopback without tokens or without TLS"
    )
    bearer_token: tuple[str, ...] = _setting(
        (), _token, "TOKEN", "a token that requests must have", secret=True, alias="--auth-token"
    )
    bearer_token_file: str = _setting(
        "", _text, "FILE", "file of tokens that requests must have, a line each"
    )
    allowed_host: tuple[str, ...] = _setting(
        (), _text, "NAME", "a name the server may be addressed by, besides loopback names"
    )
    cors_origin: tuple[str, ...] = _setting(
        (), _text, "ORIGIN", "a web origin whose pages may use the server, besides loopback ones"
    )
    extensions: tuple[str, ...] = _setting(
        (),
        _extension,
        "NAME",
        "an extension for DuckDB to load, as httpfs or h3@community; installed if it is not yet",
        commas=True,
    )
    sync: bool = _setting(
        False, _boolean, "", "share documents on WebSockets, and keep them in the database"
    )
    meta_db: str = _setting(
        "", _text, "FILE", "a DuckDB file to keep them in instead; it is attached"
    )
    meta_namespace: str = _setting(
        "__sqlrooms", _namespace, "NAME", "the schema they are kept in, or the name of that file"
    )
    stack_traces: bool = _setting(False, _boolean, "", "put stack traces into errors")
    log_level: str = _setting(
        "info", _one_of("debug", "info", "warning", "error"), "LEVEL", "least level to log"
    )
    log_format: str = _setting("text", _one_of("text", "json"), "FORMAT", "text or json (lines)")
    access_log: bool = _setting(False, _boolean, "", "log a line for each request")
    grace: float = _setting(30.0, _seconds, "SECONDS", "time for running calls when stopping")
    max_threads: int = _setting(64, _positive, "N", "database calls that may run at a time")
    max_sessions: int = _setting(100, _positive, "N", "sessions besides the default one")
    max_registered: int = _setting(
        100, _number, "N", "databases that clients may register, kept ones included"
    )
    max_pool: int = _setting(
        32, _positive, "N", "connections to each database for requests without a session"
    )
    max_queries: int = _setting(
        256, _positive, "N", "queries of one WebSocket that are carried out at a time"
    )
    max_subscriptions: int = _setting(
        2000, _positive, "N", "subscriptions to live queries at a time"
    )
    max_live: int = _setting(8 * 1024 * 1024, size, "SIZE", "size of a live query's result")
    max_handlers: int = _setting(
        256, _positive, "N", "handlers of scripts that may run at a time, each on a thread"
    )
    max_queue: int = _setting(
        1000, _positive, "N", "calls that may wait for one session, or for a thread"
    )
    max_connections: int = _setting(4096, _positive, "N", "connections at a time")
    max_header: int = _setting(64 * 1024, size, "SIZE", "size of a request's head")
    max_body: int = _setting(64 * 1024 * 1024, size, "SIZE", "size of a request's body")
    max_page: int = _setting(64 * 1024 * 1024, size, "SIZE", "size of a page of rows")
    max_unsent: int = _setting(
        256 * 1024 * 1024, size, "SIZE", "size of all pages together that wait for slow readers"
    )
    max_batch: int = _setting(1000, _positive, "N", "requests in a JSON-RPC batch")
    max_depth: int = _setting(
        128, _depth, "N", "arrays and objects inside each other in JSON that is sent"
    )
    max_sql: int = _setting(1024 * 1024, size, "SIZE", "size of a SQL text, in characters")
    max_message: int = _setting(
        64 * 1024 * 1024, size, "SIZE", "size of a message that comes in on a WebSocket"
    )
    max_backlog: int = _setting(
        4 * 1024 * 1024, size, "SIZE", "size of unasked-for messages that wait for a WebSocket"
    )
    session_timeout: float = _setting(
        1800.0, _seconds, "SECONDS", "time until a session that nobody uses ends"
    )
    query_timeout: float = _setting(
        0.0, _seconds_or_0, "SECONDS", "time a call may take in the database; 0 for any"
    )
    handler_timeout: float = _setting(
        30.0, _seconds, "SECONDS", "time a handler of a script may take"
    )
    header_timeout: float = _setting(30.0, _seconds, "SECONDS", "time for a request's head")
    body_timeout: float = _setting(
        20.0, _seconds, "SECONDS", "time for a request's body, and more for what has come"
    )
    body_rate: int = _setting(500, _positive, "N", "bytes of a body that give it a second more")
    idle_timeout: float = _setting(300.0, _seconds, "SECONDS", "time without a request")
    send_timeout: float = _setting(60.0, _seconds, "SECONDS", "time without progress in sending")
    ping_interval: float = _setting(
        30.0,
        _seconds,
        "SECONDS",
        "time between two pings on a WebSocket; after two in vain it ends",
    )
    cache_size: int = _setting(
        256 * 1024 * 1024,
        size,
        "SIZE",
        "disk for results that clients ask to keep; 0 for none",
    )
    cache_dir: str = _setting(
        "", _text, "FOLDER", "where they are kept, instead of the user's cache folder"
    )
    cache_ttl: float = _setting(
        0.0,
        _seconds_or_0,
        "SECONDS",
        "time for which to keep what others may change; 0 for not at all",
    )
    properties: Mapping[str, str] = field(default_factory=dict)
    """Connection properties (``-P KEY VALUE``, the table ``[properties]``)."""
