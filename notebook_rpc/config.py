"""What the server can be told: one table of settings, read from four places.

A setting is a flag, an environment variable and a TOML key under one name: ``--log-level``,
``NOTEBOOK_RPC_LOG_LEVEL``, ``log-level``. The first that is given counts, in this order;
then the default. A name that is not in the table is an error which tells the nearest one.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from notebook_rpc.errors import InvalidParams
from notebook_rpc.sansio import tokens, urls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from dataclasses import Field

ENV_PREFIX: Final = "NOTEBOOK_RPC_"
HIDDEN: Final = '"..."'
LEAST_DEPTH: Final = 4  # a batch of calls with parameters has three levels
MOST_DEPTH: Final = 500  # any Python's recursion limit is farther
_UNITS: Final = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "": 1}


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


def _size(value: str) -> int:
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
    flag's name in sqlrooms-server."""
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
    port: int = _setting(1995, _port, "PORT", "port to listen on; 0 for any")
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
    read_only: bool = _setting(
        False, _boolean, "", "let nobody change a database; the engine sees to it"
    )
    allowed_paths: tuple[str, ...] = _setting(
        (),
        _text,
        "FOLDER",
        "a folder in which SQL may reach files, and nowhere else; '' for no files",
        commas=True,
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
    max_pool: int = _setting(
        32, _positive, "N", "connections to each database for requests without a session"
    )
    max_queries: int = _setting(
        256, _positive, "N", "queries of one WebSocket that may be under way"
    )
    max_queue: int = _setting(
        1000, _positive, "N", "calls that may wait for one session, or for a thread"
    )
    max_connections: int = _setting(4096, _positive, "N", "connections at a time")
    max_header: int = _setting(64 * 1024, _size, "SIZE", "size of a request's head")
    max_body: int = _setting(64 * 1024 * 1024, _size, "SIZE", "size of a request's body")
    max_page: int = _setting(64 * 1024 * 1024, _size, "SIZE", "size of a page of rows")
    max_unsent: int = _setting(
        256 * 1024 * 1024, _size, "SIZE", "size of all pages together that wait for slow readers"
    )
    max_batch: int = _setting(1000, _positive, "N", "requests in a JSON-RPC batch")
    max_depth: int = _setting(
        128, _depth, "N", "arrays and objects inside each other in a JSON-RPC message"
    )
    max_message: int = _setting(
        64 * 1024 * 1024, _size, "SIZE", "size of a message that comes in on a WebSocket"
    )
    max_backlog: int = _setting(
        4 * 1024 * 1024, _size, "SIZE", "size of unasked-for messages that wait for a WebSocket"
    )
    session_timeout: float = _setting(
        1800.0, _seconds, "SECONDS", "time until a session that nobody uses ends"
    )
    query_timeout: float = _setting(
        0.0, _seconds_or_0, "SECONDS", "time a call may take in the database; 0 for any"
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
        _size,
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


def _name(setting: Field[Any]) -> str:
    return setting.name.replace("_", "-")


_SETTINGS: Final = {_name(each): each for each in fields(Settings) if each.name != "properties"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting. Values stay text here, so that one place judges them."""
    url = _SETTINGS["url"]
    parser.add_argument("url", nargs="?", help=_help(url), metavar="URL")
    parser.add_argument(
        url.metadata["alias"], dest="url_alias", help="another way to say URL", metavar="URL"
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
    parser.add_argument("--config", metavar="FILE", help="TOML file to read settings from")
    for name, setting in _SETTINGS.items():
        if name == "url":
            continue
        options: dict[str, Any] = {"dest": setting.name, "help": _help(setting)}
        if isinstance(setting.default, bool):
            options |= {"action": "store_const", "const": "true"}
        elif isinstance(setting.default, tuple):
            options |= {"action": "append", "metavar": setting.metadata["metavar"]}
        else:
            options |= {"metavar": setting.metadata["metavar"]}
        parser.add_argument(*flags_of(name), **options)


def flags_of(name: str) -> list[str]:
    """What a setting may be called on the command line."""
    alias = _SETTINGS[name].metadata["alias"]
    return [f"--{name}", *([alias] if alias else [])]


def _help(setting: Field[Any]) -> str:
    explanation: str = setting.metadata["help"]
    if isinstance(setting.default, tuple):
        return f"{explanation}; may be repeated"
    if isinstance(setting.default, bool) or setting.default == "":
        return explanation
    return f"{explanation} (default: {shown_default(setting)})"


def shown_default(setting: Field[Any]) -> str:
    """A setting's default as a user would write it."""
    default: Any = setting.default
    if setting.metadata["parse"] is _size:
        unit, size = next(pair for pair in _UNITS.items() if default % pair[1] == 0)
        return f"{default // size}{unit}"
    return f"{default:g}" if isinstance(default, float) else str(default)


def load(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Join flags, environment and file.

    Raises:
        ConfigError: a value is invalid, a name unknown, or the file unreadable.
    """
    given, properties = _given(arguments, environ)
    values = {_SETTINGS[name].name: value for name, (value, _) in given.items()}
    return Settings(**values, properties=properties)


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """All settings as a TOML file would have them, each with where it comes from; what may hold
    a secret is not shown. Raises as ``load`` does."""
    given, properties = _given(arguments, environ)
    lines = []
    for name, setting in _SETTINGS.items():
        value, place = given.get(name, (setting.default, "default"))
        hidden = setting.metadata["secret"] and place != "default"
        lines.append(f"{name} = {HIDDEN if hidden else _as_toml(value)}  # {place}")
    if properties:
        lines += ["", "[properties]", *(f"{_as_toml(key)} = {HIDDEN}" for key in properties)]
    return "\n".join(lines)


def _given(
    arguments: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[dict[str, tuple[Any, str]], dict[str, str]]:
    """What is set, by its name, with where; and the properties."""
    given: dict[str, tuple[Any, str]] = {}
    properties: dict[str, str] = {}
    path = arguments.config or environ.get(f"{ENV_PREFIX}CONFIG") or _default_file(environ)
    if path is not None:
        table = _read_toml(Path(path))
        properties |= _properties(table.pop("properties", {}), path)
        for key, value in table.items():
            setting = _known(key, _SETTINGS, f"{path}: there is no setting")
            given[key] = (_parsed(setting, _as_text(value, f"{path}: {key}"), key), path)
    variables = {ENV_PREFIX + each.name.upper(): each for each in _SETTINGS.values()}
    for variable, value in environ.items():
        if variable.startswith(ENV_PREFIX) and variable != f"{ENV_PREFIX}CONFIG":
            setting = _known(variable, variables, "there is no setting")
            texts: str | list[str] = value
            if isinstance(setting.default, tuple) and not setting.metadata["commas"]:
                texts = [text.strip() for text in value.split(",") if text.strip()]
                if not texts and setting.metadata["secret"]:  # a variable that was not filled in
                    raise ConfigError(f"{variable} is empty; unset it if none is meant")
            given[_name(setting)] = (_parsed(setting, texts, variable), variable)
    for name, setting in _SETTINGS.items():
        value = getattr(arguments, setting.name)
        if name == "url" and arguments.url_alias is not None:
            if value is not None:
                raise ConfigError(f"there is one URL, which {setting.metadata['alias']} gives too")
            value = arguments.url_alias
        if value is not None:
            flag = name.upper() if name == "url" else f"--{name}"
            given[name] = (_parsed(setting, value, name if name == "url" else flag), flag)
    return given, properties | dict(arguments.properties)


def _as_toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case tuple():
            return f"[{', '.join(map(_as_toml, value))}]"
    # TOML's basic strings escape as JSON's do.
    return json.dumps(str(value), ensure_ascii=False)


def _default_file(environ: Mapping[str, str]) -> str | None:
    """The user's file, if there is one (XDG Base Directory Specification)."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    path = Path(home, "notebook-rpc", "config.toml")
    return str(path) if path.is_file() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"cannot read {path}: not a file")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc


def _properties(table: object, path: str) -> dict[str, str]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: properties must be a table")
    return {key: str(_as_text(value, f"{path}: properties.{key}")) for key, value in table.items()}


def _as_text(value: object, where: str) -> str | list[str]:
    """TOML has types, flags and the environment have not; one parser serves all."""
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
        case list() if all(isinstance(each, str) for each in value):
            return value
    raise ConfigError(f"{where} must be a string, a number, a boolean or a list of strings")


def _parsed(setting: Field[Any], value: str | list[str], where: str) -> object:
    parse: Callable[[str], object] = setting.metadata["parse"]
    many = isinstance(setting.default, tuple)
    if isinstance(value, list) and not many:
        raise ConfigError(f"{where} must be one value, not a list")
    texts = value if isinstance(value, list) else [value]
    if setting.metadata["commas"] and texts:
        texts = [part.strip() for part in ",".join(texts).split(",")]
    try:
        values = [parse(text) for text in texts]
    except ValueError as exc:
        shown = "" if setting.metadata["secret"] else f", not {', '.join(map(repr, texts))}"
        raise ConfigError(f"{where} {exc}{shown}") from exc
    return tuple(values) if many else values[0]


def _known(name: str, valid: Mapping[str, Field[Any]], complaint: str) -> Field[Any]:
    if name in valid:
        return valid[name]
    raise ConfigError(f"{complaint} {name!r}{_nearest(name, valid)}")


def _nearest(name: str, valid: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(valid), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, with the nearest valid flag, and exits with 2."""

    def parse_args(  # type: ignore[override]  # the base's overloads are about its namespace
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for name in _SETTINGS for flag in flags_of(name) if flag != "--url"]
            if not unknown[0].startswith("-"):  # it may be a URL with a password
                self.error("one argument too many: there is one URL, and --connection for others")
            flag = unknown[0].partition("=")[0]
            self.error(f"unknown argument {flag!r}{_nearest(flag, flags)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        # A URL in the place of a command may have a password.
        message = re.sub(r"invalid choice: .* \(", "invalid choice (", message, flags=re.DOTALL)
        self.exit(2, f"{self.prog}: {message}\n")


def read_url(url: str) -> tuple[str, dict[str, str]]:
    """Split a connection URL, or the name of a file, into a driver's name and properties.

    A file that exists tells by its first bytes what it is; one that does not by its suffix,
    DuckDB else.

    Raises:
        ConfigError: it is malformed. The message never has the URL: it may hold a password.
    """
    if not url:
        raise ConfigError("the database URL is empty; leave it out for a database in memory")
    if not urls.is_url(url):
        if urls.is_doubtful(url) and not os.path.exists(url):  # noqa: PTH110  # of any name
            raise ConfigError(
                "the database is neither a URL, which has a ://, nor a file that is there; if a "
                "new file is meant, put ./ before its name"
            )
        return _file_kind(Path(url)), {"database": url}
    try:
        return urls.read(url)
    except InvalidParams as exc:
        raise ConfigError(str(exc)) from None


def _file_kind(path: Path) -> str:
    """Not to be asked of a database that is open: see ``server.serve``."""
    head = b""
    with suppress(OSError):  # also of a name that is too long
        if path.is_file():  # and not a pipe, which would keep us waiting
            with path.open("rb") as file:
                head = file.read(16)
    if head.startswith(b"SQLite format 3\0"):
        return "sqlite"
    if not head and path.suffix in (".sqlite", ".sqlite3"):
        return "sqlite"
    return "duckdb"
