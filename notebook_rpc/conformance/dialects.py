"""The dialects we know: data, and the two ways to choose one.

``dialect.py`` explains every field. An entry says only what differs from the defaults there.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final

from notebook_rpc.conformance.dialect import Dialect, Lacks, Values
from notebook_rpc.errors import InvalidParams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SQLITE: Final = Dialect(
    driver="sqlite",
    fails_late="with recursive r(n) as (select 1 union all select n + 1 from r limit 50000)"
    " select case when n < 50000 then 1 else abs(-9223372036854775807 - 1) end as n from r",
    decimals=Lacks("SQLite has no decimals: it keeps numbers with a point as floats"),
    shown=("INTEGER", "varchar(20)"),
    special_floats=Values("real", (("9e999", "Infinity"), ("-9e999", "-Infinity"))),
    booleans=Lacks("SQLite has no booleans: TRUE is the number 1"),
)
_MEMORY: Final = (
    "While one session has changed a database in memory and not committed, SQLite lets no other"
    " read: they wait for the lock"
)

_PASSED_ON: Final = "all keywords are passed on, and ODBC drivers ignore those they do not know"
_MARIADB_WHOLE: Final = "MariaDB's ODBC driver 3.1 reads a result whole before its first row"
_MARIADB_DDL: Final = "MariaDB commits with each CREATE and DROP"
_MARIADB_TEMPORARY: Final = "MariaDB before 11.2 lists no temporary tables"

_DBAPI_POSTGRES: Final = Dialect(
    driver="dbapi",
    strings={r"E'it\';s'": "it';s", "$$;'$$": ";'", "$a$;$$;$1$a$": ";$$;$1"},
    rows="select generate_series(1, {n}) as n",
    fails_late="select 1 / (50000 - n) as n from (select generate_series(1, 50000)) as s(n)",
    shown=("integer", "character varying(20)"),
    bytes=Values("bytea", ((r"'\x00ff61'", r"\x00ff61"), ("''", r"\x"))),
)
_READS_WHOLE: Final = "the module reads a result whole before its first row"
_ONE_AT_A_TIME: Final = (
    "while rows are to come, ADBC's PostgreSQL connection can do nothing else, and the catalog is"
    " asked for over another one"
)

DIALECTS: Final[Mapping[str, Dialect]] = {
    "duckdb": Dialect(
        driver="duckdb",
        strings={"$$;'$$": ";'", "$a$;$$;$a$": ";$$;"},
        named="$x",
        rows="select range as n from range(1, {n} + 1)",
        fails_late="select case when range < 2999999 then 1 else error('late') end as n"
        " from range(3000000)",
        endless="select count(*) from range(1000000000000) where hash(range) % 7 = 9",
        stalls="select range as n from range(1, 50001) union all"
        " select range from range(1000000000000) where hash(range) % 7 = 9",
        shown=("INTEGER", "VARCHAR"),
        bytes=Values("blob", ((r"'\x00\xFFa'", r"\x00ff61"), ("''", r"\x"))),
    ),
    "sqlite": _SQLITE,
    "sqlite-memory": dataclasses.replace(
        _SQLITE,
        means=("database", r"(:memory:)?\Z"),
        quirks={
            "a-transaction-is-hidden-until-commit": _MEMORY,
            "ddl-is-rolled-back": _MEMORY,
        },
    ),
    "postgres": Dialect(
        driver="postgres",
        strings={
            r"E'it\';s'": "it';s",
            "$$;'$$": ";'",
            "$a$;$$;$1$a$": ";$$;$1",
            "U&'\\0041;'": "A;",
        },
        parameter="$1",
        rows="select generate_series(1, {n}) as n",
        fails_late="select 1 / (50000 - n) as n from (select generate_series(1, 50000)) as s(n)",
        shown=("integer", "character varying(20)"),
        bytes=Values("bytea", ((r"'\x00ff61'", r"\x00ff61"), ("''", r"\x"))),
    ),
    "odbc-postgres": Dialect(
        driver="odbc",
        means=("driver", r"postgres|psqlodbc"),
        strings={r"E'it\';s'": "it';s", "$$;'$$": ";'", "$a$;$$;$1$a$": ";$$;$1"},
        rows="select generate_series(1, {n}) as n",
        fails_late="select 1 / (50000 - n) as n from (select generate_series(1, 50000)) as s(n)",
        shown=("integer", "character varying(20)"),
        bytes=Values("bytea", ((r"'\x00ff61'", r"\x00ff61"), ("''", r"\x"))),
        quirks={"unknown-properties-are-named": _PASSED_ON},
    ),
    "odbc-mariadb": Dialect(
        driver="odbc",
        means=("driver", r"mariadb|maodbc"),
        quote="`",
        strings={r"'it\';s'": "it';s", '"it\'s;"': "it's;"},
        rows="select seq as n from seq_1_to_{n}",
        fails_late="select case when seq < 50000 then 1 else (select 1 union select 2) end as n"
        " from seq_1_to_50000",
        endless="select count(*) from seq_1_to_1000000000000 where seq % 7 = 9",
        stalls="select seq as n from seq_1_to_50000 union all"
        " select seq from seq_1_to_1000000000000 where seq % 7 = 9",
        echo="select cast({p} as char(200)) as v",
        shown=("int(11)", "varchar(20)"),
        special_floats=Lacks("MariaDB's floats are all finite"),
        booleans=Lacks("MariaDB has no booleans: TRUE is the number 1"),
        texts=Values(
            "longtext",
            (
                ("'it''s \"quoted\"'", 'it\'s "quoted"'),
                ("'\u00e9 \u8868 \U0001f986'", "\u00e9 \u8868 \U0001f986"),
            ),
        ),
        bytes=Values("longblob", (("x'00ff61'", r"\x00ff61"), ("x''", r"\x"))),
        timestamps=Values(
            "datetime(6)", (("'2026-02-28 01:02:03.000004'", "2026-02-28T01:02:03.000004"),)
        ),
        quirks={
            "unknown-properties-are-named": _PASSED_ON,
            "first-rows-do-not-wait-for-the-last": _MARIADB_WHOLE,
            "closing-early-does-not-wait": _MARIADB_WHOLE,
            "ddl-is-rolled-back": _MARIADB_DDL,
            "uncommitted-tables-are-in-the-catalog": _MARIADB_DDL,
            "temporary-tables-are-private": _MARIADB_TEMPORARY,
            "temporary-tables-are-seen-beside-a-result": _MARIADB_TEMPORARY,
            "temporary-tables-are-described": _MARIADB_TEMPORARY,
        },
    ),
    "odbc-sqlite": dataclasses.replace(
        _SQLITE,
        driver="odbc",
        means=("driver", r"sqlite"),
        quirks={
            "unknown-properties-are-named": _PASSED_ON,
            "returning-gives-rows": "SQLite's ODBC driver drops its rows, so it is refused",
            "semicolons-are-seen-through": "SQLite's ODBC driver takes a semicolon in some quotes"
            " or comments for the end",
            "marks-in-strings-are-no-parameters": "SQLite's ODBC driver counts question marks"
            " in comments and quoted names",
        },
    ),
    "dbapi-sqlite3": dataclasses.replace(_SQLITE, driver="dbapi", means=("module", r"sqlite3")),
    "dbapi-pymysql": Dialect(
        driver="dbapi",
        means=("module", r"pymysql|MySQLdb|mariadb|mysql\.connector"),
        quote="`",
        strings={r"'it\';s'": "it';s", '"it\'s;"': "it's;"},
        rows="select seq as n from seq_1_to_{n}",
        fails_late="select case when seq < 50000 then 1 else (select 1 union select 2) end as n"
        " from seq_1_to_50000",
        endless="select count(*) from seq_1_to_1000000000000 where seq % 7 = 9",
        stalls="select seq as n from seq_1_to_50000 union all"
        " select seq from seq_1_to_1000000000000 where seq % 7 = 9",
        echo="select cast({p} as char(200)) as v",
        shown=("int(11)", "varchar(20)"),
        special_floats=Lacks("MariaDB's floats are all finite"),
        booleans=Lacks("MariaDB has no booleans: TRUE is the number 1"),
        texts=Values("longtext", (("'it''s \"quoted\"'", 'it\'s "quoted"'),)),
        bytes=Values("longblob", (("x'00ff61'", r"\x00ff61"), ("x''", r"\x"))),
        timestamps=Values(
            "datetime(6)", (("'2026-02-28 01:02:03.000004'", "2026-02-28T01:02:03.000004"),)
        ),
        quirks={
            "ddl-is-rolled-back": _MARIADB_DDL,
            "uncommitted-tables-are-in-the-catalog": _MARIADB_DDL,
            "temporary-tables-are-private": _MARIADB_TEMPORARY,
            "temporary-tables-are-seen-beside-a-result": _MARIADB_TEMPORARY,
            "temporary-tables-are-described": _MARIADB_TEMPORARY,
        },
    ),
    "dbapi-psycopg": dataclasses.replace(
        _DBAPI_POSTGRES,
        means=("module", r"psycopg2?\Z"),
        quirks={
            "first-rows-do-not-wait-for-the-last": _READS_WHOLE,
            "closing-early-does-not-wait": _READS_WHOLE,
        },
    ),
    "dbapi-pg8000": dataclasses.replace(
        _DBAPI_POSTGRES,
        means=("module", r"pg8000"),
        quirks={
            "first-rows-do-not-wait-for-the-last": _READS_WHOLE,
            "closing-early-does-not-wait": _READS_WHOLE,
        },
    ),
    "dbapi-adbc-sqlite": dataclasses.replace(
        _SQLITE, driver="dbapi", means=("module", r"adbc_driver_sqlite")
    ),
    "dbapi-adbc-postgres": dataclasses.replace(
        _DBAPI_POSTGRES,
        means=("module", r"adbc_driver_postgresql"),
        quirks={
            "uncommitted-tables-are-in-the-catalog": _ONE_AT_A_TIME,
            "temporary-tables-are-seen-beside-a-result": _ONE_AT_A_TIME,
            "descriptions-are-of-the-own-transaction": _ONE_AT_A_TIME,
            "temporary-tables-are-described": _ONE_AT_A_TIME,
        },
    ),
    "fake": Dialect(
        driver="fake",
        sql=False,
        quote="",
        rows="rows {n}",
        twins="rows 1 a a",
        fails="error nowhere",
        fails_late="error after 9999 rows late",
        endless="wait",
        stalls="wait after 50000 rows",
        echo="echo",
        echo_number="echo",
        temporary="create temp table {table} ({columns})",
        view=Lacks("the fake's views are fixed"),
        drop=None,
        declared=("integer", "varchar"),
        shown=("INTEGER", "VARCHAR"),
        touch="count 3",
        returning=Lacks("the fake has no INSERT"),
    ),
}


def guess(driver: str, properties: Mapping[str, str]) -> str:
    """The name of the dialect that *driver* speaks when opened with *properties*.

    Raises:
        InvalidParams: there is none, or not one that fits.
    """
    own = {name: each for name, each in DIALECTS.items() if each.driver == driver}
    for name, dialect in own.items():
        if dialect.means is not None:
            key, pattern = dialect.means
            if re.match(pattern, properties.get(key, ""), re.IGNORECASE):
                return name
    for name, dialect in own.items():
        if dialect.means is None:
            return name
    raise InvalidParams(
        f"no dialect for the driver {driver!r} and these properties;"
        f" name one, {', '.join(DIALECTS)}, or give a TOML file with its fields"
    )


def read(path: Path) -> Dialect:
    """The dialect of a TOML file: the fields of ``Dialect`` under their own names.

    ``like = "sqlite"`` takes another one as defaults. ``{ lacks = "reason" }`` stands for
    ``Lacks``, and ``{ type = "blob", samples = [["x'00'", '\\x00']] }`` for ``Values``.

    Raises:
        InvalidParams: it cannot be read, or a field is unknown or of the wrong kind.
    """
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise InvalidParams(f"{path}: {exc}") from exc
    like = given.pop("like", None)
    if like is not None and like not in DIALECTS:
        raise InvalidParams(f"{path}: like: there are {', '.join(DIALECTS)}")
    basis = DIALECTS[like] if like else Dialect(driver="")
    known = {each.name: each for each in dataclasses.fields(Dialect)}
    changes = {}
    for name, value in given.items():
        if name not in known:
            raise InvalidParams(f"{path}: there is no field {name!r}")
        changes[name] = _field(value, str(known[name].type), f"{path}: {name}")
    return dataclasses.replace(basis, **changes)


def _field(value: Any, kind: str, where: str) -> Any:
    """*value*, from TOML, as a field annotated as *kind* wants it."""
    match value:
        case {"lacks": str(reason)} if len(value) == 1 and "Lacks" in kind:
            return Lacks(reason)
        case {"type": str(type_), "samples": list(samples)} if "Values" in kind:
            if all(isinstance(pair, list) and len(pair) == 2 for pair in samples):
                return Values(type_, tuple((str(a), str(b)) for a, b in samples))
        case dict() if kind.startswith("Mapping") and all(
            isinstance(v, str) for v in value.values()
        ):
            return value
        case [str(first), str(second)] if kind.startswith("tuple"):
            return (first, second)
        case str() if kind.startswith("str"):
            return value
        case bool() if kind == "bool":
            return value
    raise InvalidParams(f"{where} must be of the kind {kind}, as `read` describes it")
