"""From properties, which are text, to a module and the arguments of its connect().

It imports the module that it is told, which runs that module: who may name one may run any code
that is installed. Today that is the operator, on the command line. Whoever lets a name come
from somewhere else has to hold it against a list of allowed ones before it gets here. Nothing
is ever imported or evaluated but the module itself; values become texts, numbers and booleans.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from notebook_rpc.errors import DatabaseUnavailable, InvalidParams, NotSupported
from notebook_rpc_drivers._dbapi_facts import FACTS, Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True}
_BOOLEANS |= {"false": False, "no": False, "off": False, "0": False}

# What modules call what a URL has, the most usual word first.
_WORDS = {
    "username": ("user", "username", "uid"),
    "password": ("password", "passwd", "pwd"),
    "host": ("host", "hostname", "server"),
    "port": ("port",),
    "database": ("database", "dbname", "db", "catalog"),
}


# Whose database may be "catalog/schema" in a URL, as SQLAlchemy has it; what they call the first.
_SCHEMA_BEHIND = {
    "trino.dbapi": "catalog",
    "databricks.sql": "catalog",
    "snowflake.connector": "database",
}


def load(name: str) -> Any:
    """The module of that name, if it is one of PEP 249."""
    if not _NAME.fullmatch(name):
        raise InvalidParams(f"property module: {name!r} is no name of a module")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        package = FACTS.get(name, Facts()).package
        if f"{name}.".startswith(f"{exc.name}."):
            get = f"pip install '{package}'" if package else "install the package that has it"
            raise DatabaseUnavailable(f"there is no module {name}: {get}") from exc
        raise DatabaseUnavailable(f"the module {name} needs another one: {exc}") from exc
    except Exception as exc:  # importing runs a stranger's code, which may raise anything
        raise DatabaseUnavailable(f"the module {name} cannot be imported: {exc}") from exc
    for attribute in ("connect", "apilevel", "paramstyle"):
        if not hasattr(module, attribute):
            raise InvalidParams(
                f"property module: {name} is no database module of PEP 249, it has no {attribute}"
            )
    return module


def arguments(
    module: Any, name: str, facts: Facts, properties: Mapping[str, str], *, read_only: bool
) -> dict[str, object]:
    """What connect() is called with.

    ``port`` is a number; others are what the signature of connect() says by annotation or
    default, and text where it says nothing. ``timeout:int=5`` says it aloud: int, float, bool,
    str, or json for anything else, also for None.

    Raises:
        InvalidParams: a property is malformed, or connect() does not know it.
        NotSupported: nothing would enforce *read_only*.
    """
    known, takes_any = _signature(module.connect)
    if facts.adbc:
        takes_any = False  # what it says of more, it does not mean
    if name == "adbc_driver_postgresql.dbapi" and "uri" not in properties:
        properties = {"uri": _postgres_uri(properties)}
    found: dict[str, object] = {}
    for key, value in properties.items():
        word, colon, kind = key.partition(":")
        argument = _argument(word, facts, known)
        if argument in properties:
            argument = word  # given under its own name too: Snowflake has a host and an account
        if not (takes_any or argument in known or argument in facts.arguments):
            raise InvalidParams(f"property {word}: connect() of {name} has no such argument")
        kind = kind if colon else _kind(argument, known, facts)
        found[argument] = _value(word, kind, value)
    if name == "trino.dbapi" and "password" in found:
        basic = importlib.import_module("trino.auth").BasicAuthentication
        found["auth"] = basic(found.get("user"), found.pop("password"))
    _split_schema(found, _SCHEMA_BEHIND.get(name, ""))
    found = {**facts.arguments, **found}
    if read_only:
        _only_read(name, found)
    return found


def _signature(connect: Callable[..., object]) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """The parameters of *connect*, and whether it takes any others (or does not tell)."""
    try:
        parameters = inspect.signature(connect).parameters
    except (TypeError, ValueError):
        return {}, True
    kinds = {parameter.kind for parameter in parameters.values()}
    return parameters, inspect.Parameter.VAR_KEYWORD in kinds


def _argument(word: str, facts: Facts, known: Mapping[str, object]) -> str:
    if word in facts.renamed:
        return facts.renamed[word]
    words = _WORDS.get(word, (word,))
    return next((each for each in words if each in known), words[0])


def _kind(argument: str, known: Mapping[str, inspect.Parameter], facts: Facts) -> str:
    if argument == "port":
        return "int"
    if argument in facts.arguments and facts.arguments[argument] is not None:
        return type(facts.arguments[argument]).__name__
    parameter = known.get(argument)
    if parameter is None:
        return "str"
    annotation = parameter.annotation
    said = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    for kind in ("bool", "int", "float"):
        if re.fullmatch(rf"(Optional\[)?{kind}(\]| *\| *None)?", said):
            return kind
    default = type(parameter.default).__name__
    return default if default in ("bool", "int", "float") else "str"


def _value(word: str, kind: str, value: str) -> object:
    try:
        match kind:
            case "str":
                return value
            case "int" if re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII):
                return int(value)
            case "float":
                return float(value)
            case "bool" if value.lower() in _BOOLEANS:
                return _BOOLEANS[value.lower()]
            case "json":
                return json.loads(value)
    except ValueError:
        pass  # said below
    raise InvalidParams(f"property {word}: the value is no {kind}")


def _postgres_uri(properties: Mapping[str, str]) -> str:
    """ADBC takes libpq's URI and nothing else."""
    given = dict(properties)
    user, password = (quote(given.pop(key, ""), safe="") for key in ("username", "password"))
    host = given.pop("host", "")
    host = f"[{host}]" if ":" in host else quote(host, safe="")
    port, database = given.pop("port", ""), quote(given.pop("database", ""), safe="")
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    rest = f"?{urlencode(given, quote_via=quote)}" if given else ""
    return f"postgresql://{login}{host}{f':{port}' if port else ''}/{database}{rest}"


def _split_schema(found: dict[str, object], key: str) -> None:
    database = found.get(key)
    if isinstance(database, str) and "/" in database:
        found[key], found["schema"] = database.split("/", 1)


def _only_read(name: str, found: dict[str, object]) -> None:
    path = found.get("database")
    if name == "sqlite3" and isinstance(path, str) and not found.get("uri"):
        found["database"], found["uri"] = f"file:{quote(path)}?mode=ro", True
    elif name == "adbc_driver_sqlite.dbapi" and isinstance(found.get("uri"), str):
        found["uri"] = f"file:{quote(str(found['uri']))}?mode=ro"
    elif name == "duckdb" and path not in (None, "", ":memory:"):
        found["read_only"] = True
    else:
        raise NotSupported(f"nothing in {name} would keep the database from being written to")


# Python's own words, sqlite3's, and libpq's two.
_UNKNOWN = re.compile(
    r"""unexpected\ keyword argument\ '(\w+)'|'(\w+)'\ is\ an\ invalid\ keyword\ argument
    |invalid\ (?:connection\ option|URI\ query\ parameter:)\ "(\w+)\"""",
    re.VERBOSE,
)


def opened(module: Any, name: str, given: Mapping[str, object], secrets: set[str]) -> Any:
    """A connection of the module's. *secrets* are kept out of what its errors say."""
    try:
        return module.connect(**given)
    except Exception as exc:  # noqa: BLE001  # a stranger's code, which may raise anything
        said = str(exc) or type(exc).__name__
        for secret in sorted(secrets, key=len, reverse=True):
            said = said.replace(secret, "***")
        if unknown := _UNKNOWN.search(said):
            what = f"property {unknown[unknown.lastindex or 0]}: {name} has no such argument"
            raise InvalidParams(what) from _hidden(exc, secrets)
        if isinstance(exc, TypeError):
            raise InvalidParams(f"{name} does not connect: {said}") from _hidden(exc, secrets)
        raise DatabaseUnavailable(f"{name} cannot connect: {said}") from _hidden(exc, secrets)


def _hidden(exc: Exception, secrets: set[str]) -> Exception | None:
    """The cause, unless a stack trace would show a secret with it."""
    return None if any(secret in str(exc) for secret in secrets) else exc


def secrets_of(properties: Mapping[str, str]) -> set[str]:
    """Values not to be shown, also as they stand in a URI."""
    words = re.compile("pass|pwd|token|secret|key|uri|dsn|conninfo", re.IGNORECASE)
    found = {value for key, value in properties.items() if value and words.search(key)}
    return found | {quote(value, safe="") for value in found}
