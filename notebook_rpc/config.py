"""What the server is told: the table of settings, read from four places.

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
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from notebook_rpc.errors import InvalidParams
from notebook_rpc.sansio import urls
from notebook_rpc.settings import ConfigError, Settings, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from dataclasses import Field

ENV_PREFIX: Final = "NOTEBOOK_RPC_"
HIDDEN: Final = '"..."'
_UNITS: Final = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "": 1}


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
    if setting.metadata["parse"] is size:
        unit, base = next(pair for pair in _UNITS.items() if default % pair[1] == 0)
        return f"{default // base}{unit}"
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
