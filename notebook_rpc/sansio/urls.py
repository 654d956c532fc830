"""Connection URLs, as SQLAlchemy has them: which driver they mean, and what they tell it.

``dialect://user:password@host:port/database?key=value``, or ``dialect+module://...`` to say
which module shall talk to the database. ``dbapi:module?key=value`` is our own, for modules that
SQLAlchemy does not know.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from notebook_rpc.errors import InvalidParams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from urllib.parse import SplitResult

# What SQLAlchemy calls dialects and modules, and the driver of ours that serves them. Any other
# scheme is the name of a driver itself.
DRIVERS: Final = {
    "postgresql": "postgres",
    "postgresql+psycopg": "postgres",
    "postgresql+psycopg2": "postgres",
    "sqlite+pysqlite": "sqlite",
    "mssql": "odbc",
}
MODULES: Final = {
    "clickhouse": "clickhouse_connect.dbapi",
    "clickhouse+connect": "clickhouse_connect.dbapi",
    "clickhouse+native": "clickhouse_driver.dbapi",
    "clickhousedb": "clickhouse_connect.dbapi",
    "databricks": "databricks.sql",
    "hive": "pyhive.hive",
    "impala": "impala.dbapi",
    "mariadb": "pymysql",
    "mariadb+mariadbconnector": "mariadb",
    "mariadb+pymysql": "pymysql",
    "mssql+pymssql": "pymssql",
    "mysql": "pymysql",
    "mysql+mysqlconnector": "mysql.connector",
    "mysql+mysqldb": "MySQLdb",
    "mysql+pymysql": "pymysql",
    "oracle": "oracledb",
    "oracle+oracledb": "oracledb",
    "postgresql+pg8000": "pg8000.dbapi",
    "presto": "pyhive.presto",
    "redshift+redshift_connector": "redshift_connector",
    "snowflake": "snowflake.connector",
    "trino": "trino.dbapi",
}
_ASIDE: Final = "reference-{}-of-this-url"  # what stands for one while the URL is taken apart
_REFERENCE = re.compile(r"\$\{(?:file:([^}]+)|([A-Za-z_]\w*))\}")


def is_url(text: str) -> bool:
    """Whether *text* is a URL, or else the name of a file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None or _names_a_module(text)


def is_doubtful(name: str) -> bool:
    """Whether what is no URL may have been meant to be one, and may hold a password."""
    if re.match(r":memory:|\.{0,2}/(?!/)|\.{0,2}\\|[A-Za-z]:[/\\]", name):
        return False
    return re.search(r"[:@?]", name) is not None


def read(url: str) -> tuple[str, dict[str, str]]:
    """The driver's name, and its properties.

    These are ``host``, ``port``, ``username``, ``password`` and ``database``, where the URL has
    them, its query arguments, and ``module`` for the driver "dbapi". ``sqlite:///a.db`` is
    a relative path, ``sqlite:////tmp/a.db`` an absolute one.

    Raises:
        InvalidParams: it is malformed. The message has nothing of it: it may hold a password.
    """
    references: list[str] = []

    def aside(match: re.Match[str]) -> str:
        references.append(match[0])
        return _ASIDE.format(len(references) - 1)

    try:
        # Slashes, colons and capitals in a reference would be the URL's own.
        parts = urlsplit(_REFERENCE.sub(aside, url))
        if _may_be_cut_in_a_password(parts) or (
            _names_a_module(url) and not re.fullmatch(r"[\w.]+", parts.path)
        ):
            raise ValueError
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        place = {
            "host": parts.hostname,
            "port": None if parts.port is None else str(parts.port),
            "username": parts.username,
            "password": parts.password,
            "module" if _names_a_module(url) else "database": parts.path.removeprefix("/"),
        }
    except ValueError:
        raise InvalidParams("the database URL is malformed") from None
    properties = {key: unquote(value) for key, value in place.items() if value}
    for key, value in pairs:
        if key in properties:
            raise InvalidParams("the database URL gives a property twice")
        properties[key] = value
    for number, reference in enumerate(references):
        for key, value in properties.items():
            properties[key] = value.replace(_ASIDE.format(number), reference)
    return _driver(parts.scheme, properties)


def _may_be_cut_in_a_password(parts: SplitResult) -> bool:
    """Whether a "/", "?" or "#" that should have been percent-encoded may have ended the place
    too early, so that a part of a password would become the name of something."""
    if parts.fragment or (parts.netloc and "@" in parts.path):
        return True
    # Behind what looks like a host and its port, it is the rest of a password all the same.
    rest = not parts.path or (":" in parts.netloc and "@" not in parts.netloc)
    return bool(parts.netloc) and rest and "@" in parts.query


def _names_a_module(url: str) -> bool:
    return re.match(r"dbapi:[A-Za-z_]", url) is not None


def _driver(scheme: str, given: dict[str, str]) -> tuple[str, dict[str, str]]:
    if scheme in MODULES:
        return "dbapi", {"module": MODULES[scheme], **given}
    if scheme.endswith("+pyodbc") or DRIVERS.get(scheme) == "odbc":
        if "host" in given and not given.keys() & {"driver", "Driver", "odbc_connect"}:
            given["DSN"] = given.pop("host")  # as in SQLAlchemy
        return "odbc", given
    return DRIVERS.get(scheme, scheme), given


def references(properties: Mapping[str, str]) -> list[str]:
    """What *properties* refer to: "NAME" for ``${NAME}``, "file:PATH" for ``${file:PATH}``."""
    matches = (match for value in properties.values() for match in _REFERENCE.finditer(value))
    return [match[0][2:-1] for match in matches]


def without_references(properties: Mapping[str, str]) -> dict[str, str]:
    """*properties* with a letter in the place of each of ``references``."""
    return {key: _REFERENCE.sub("x", value) for key, value in properties.items()}


def resolve(
    properties: Mapping[str, str], environ: Mapping[str, str], read_file: Callable[[str], str]
) -> dict[str, str]:
    """Put in what is referred to: ``${NAME}`` is an environment variable, ``${file:PATH}`` what
    a file contains, without its last line break.

    Raises:
        InvalidParams: a variable is not set, or a file cannot be read.
    """

    def found(match: re.Match[str]) -> str:
        path, name = match.groups()
        try:
            return environ[name] if path is None else read_file(path).removesuffix("\n")
        except KeyError:
            raise InvalidParams(f"the environment variable {name} is not set") from None
        except (OSError, ValueError) as exc:
            raise InvalidParams(f"cannot read {path}: {exc}") from exc

    return {key: _REFERENCE.sub(found, value) for key, value in properties.items()}
