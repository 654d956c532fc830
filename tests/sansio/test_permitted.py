"""What a URL of a client may tell a driver."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from notebook_rpc.errors import Forbidden
from notebook_rpc.sansio import urls
from notebook_rpc.sansio.permitted import check

MSSQL = "mssql+pyodbc://u:p@h:1433/d?driver=ODBC+Driver+17+for+SQL+Server"


def check_url(url: str) -> None:
    check(*urls.read(url))


def string(text: str) -> str:
    return f"odbc:///?odbc_connect={quote(text)}"


@pytest.mark.parametrize(
    "url",
    ["duckdb://", "duckdb:///a.db?access_mode=read_only&threads=4&memory_limit=1GB",
     "sqlite:///a.db?mode=ro&timeout=1", "postgresql://u:p@h:5/d?sslmode=require&connect_timeout=3",
     "postgresql:///d?host=/run/postgresql&user=u&application_name=el", MSSQL,
     f"{MSSQL}&Encrypt=yes&TrustServerCertificate=no", "odbc:///a.db?driver=SQLite3",
     string("Driver=SQLite3;Database=:memory:"), "odbc://u:p@h/d?driver=MariaDB+ODBC+3.1+Driver",
     string("DRIVER={PostgreSQL Unicode};Servername=h;Port=5;Uid=u;Pwd={p=q};SSLmode=require;")],
)  # fmt: skip
def test_where_it_is_and_who_wants_in(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "name"),
    [(f"duckdb:///a?{name}=x", name) for name in (
        "enable_external_access", "Enable_External_Access", "lock_configuration",
        "allow_unsigned_extensions", "attach.w", "extensions", "temp_directory", "Threads")]
    + [(f"postgresql://u:p@h/d?{name}=x", name) for name in (
        "passfile", "service", "servicefile", "sslkey", "sslcert", "sslrootcert", "sslkeylogfile",
        "hostaddr", "options", "replication")]
    + [(string(f"Driver=x;UID=u;PWD=p;{name}=x"), name) for name in (
        "LoadExt", "PLUGIN_DIR", "INITSTMT", "Logdir", "DSN", "FILEDSN", "SaveFile", "pqopt",
        "Trusted_Connection", " PWD", "PWD ", "\x1cPWD")]
    + [(f"odbc://u:p@h/d?driver=x&{name}=x", name) for name in ("LoadExt", "dsn", "ODBC_CONNECT")]
    + [("sqlite://h/a.db", "host"), ("mssql+pyodbc://u:p@dsn", "DSN")],
)  # fmt: skip
def test_anything_else_is_refused_by_its_name(url: str, name: str) -> None:
    with pytest.raises(Forbidden, match=re.escape(f"property {name!r}: not in a URL of a client")):
        check_url(url)


@pytest.mark.parametrize(
    "driver",
    ["/home/evil.so", "{/home/evil.so}", "\\\\host\\evil.dll", "evil.so", "libevil.so.1",
     "{evil.DLL}", "../evil", ""],
)  # fmt: skip
def test_an_odbc_driver_is_a_name_and_no_library(driver: str) -> None:
    for url in (string(f"PWD=p;Driver={driver}"), f"odbc://u:p@h/?Driver={quote(driver)}"):
        with pytest.raises(Forbidden, match="by its name"):
            check_url(url)


@pytest.mark.parametrize(
    "url",
    ["odbc:///%7Bx;LoadExt=y%7D?driver=SQLite3", "odbc:///x;LoadExt=y?driver=SQLite3",
     string("Driver=SQLite3;Database={x;LoadExt=y}"), string("Driver=SQLite3;Database=x}y"),
     string("Driver={SQLite3}x;Database=y"), string("Driver"), string("{Driver=x"),
     string("Driver=SQLite3;Database=x\nLoadExt=y")],
)  # fmt: skip
def test_no_value_is_more_than_that_to_some_driver(url: str) -> None:
    with pytest.raises(Forbidden, match=r"property (odbc_connect|database|Database|Driver): "):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    ["odbc://u@h/d?driver=PostgreSQL+Unicode", "odbc:///d?driver=PostgreSQL+Unicode",
     "odbc://h/d?driver=x&pwd=", string("Driver=x;Server=h;PWD={ }"),
     string("Driver=x;PWD=;Password=p"), string("Driver=x;Driver=SQLite3"),
     string("Driver=SQLite3;Driver=x")],
)  # fmt: skip
def test_an_odbc_driver_is_given_a_password_before_it_finds_one(url: str) -> None:
    with pytest.raises(Forbidden, match="needs a password of its own"):
        check_url(url)


@pytest.mark.parametrize("password", ["%00", "a%20b"])
def test_nor_one_that_it_decodes_to_none(password: str) -> None:
    with pytest.raises(Forbidden, match="has none of"):
        check_url(string(f"Driver=x;PWD={password}"))


def test_drivers_that_only_the_operator_can_allow_are_not_bounded() -> None:
    check("dbapi", {"module": "m", "anything": "x"})
