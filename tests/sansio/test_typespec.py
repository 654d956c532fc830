"""Names of types, and what Scoot's clients hear of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebook_rpc.sansio.typespec import typespec


def integer(bits: int, *, signed: bool = True) -> dict[str, object]:
    return {"type": "INTEGER", "bits": bits, "signed": signed}


def decimal(precision: int | None, scale: int | None) -> dict[str, object]:
    return {"type": "DECIMAL", "precision": precision, "scale": scale}


def string(length: int | None) -> dict[str, object]:
    return {
        "type": "STRING",
        "max-len": length,
        "encoding": "utf-8",
        "collation": None,
        "lob": length is None,
    }


DATE = {"min": [-4712, 1, 1], "max": [9999, 12, 31], "calendar": "proleptic gregorian"}
ZONE = {"offset": "t", "zone": "t"}


def time(digits: int, zone: object = None) -> dict[str, object]:
    return {"clock": "24", "fsp": digits, "precision": None, "scale": None, "tz": zone}


def temporal(date: object, time: object) -> dict[str, object]:
    return {"type": "TEMPORAL", "date": date, "time": time}


@pytest.mark.parametrize(
    ("datatype", "expected"),
    [
        ("INTEGER", integer(32)),
        ("int(11)", integer(32)),
        ("int(10) unsigned zerofill", integer(32, signed=False)),
        ("bigint(20) unsigned", integer(64, signed=False)),
        ("tinyint", integer(8)),
        ("smallint", integer(16)),
        ("UBIGINT", integer(64, signed=False)),
        ("HUGEINT", integer(128)),
        ("NUMERIC(10, 2)", decimal(10, 2)),
        ("DECIMAL(18,3)", decimal(18, 3)),
        ("numeric(5)", decimal(5, 0)),
        ("numeric", decimal(None, None)),
        ("VARCHAR(40)", string(40)),
        ("character varying(20)", string(20)),
        ("character varying", string(None)),
        ("VARCHAR", string(None)),
        ("nvarchar(max)", string(None)),
        ("char(3) character set latin1 collate latin1_bin", string(3)),
        ("TEXT", string(None)),
        ("BLOB", {"type": "BINARY", "max-len": None}),
        ("varbinary(16)", {"type": "BINARY", "max-len": 16}),
        ("DATE", temporal(DATE, None)),
        ("TIME", temporal(None, time(6))),
        ("time(0) with time zone", temporal(None, time(0, ZONE))),
        ("TIMESTAMP", temporal(DATE, time(6))),
        ("timestamp(3) without time zone", temporal(DATE, time(3))),
        ("TIMESTAMP WITH TIME ZONE", temporal(DATE, time(6, ZONE))),
        ("timestamp(3)  with\ttime zone", temporal(DATE, time(3, ZONE))),
        ("TIMESTAMP_NS", temporal(DATE, time(9))),
        ("datetime2(3)", temporal(DATE, time(3))),
    ],
)
def test_a_type_has_its_spec(datatype: str, expected: object) -> None:
    assert typespec(datatype) == expected


def test_a_boolean_says_how_its_values_are_written() -> None:
    assert typespec("boolean") == {
        "type": "BOOLEAN",
        "notation": "literal",
        "true-literals": ["true"],
        "false-literals": ["false"],
    }


@pytest.mark.parametrize(
    "datatype",
    [
        *("", "JSONB", "UUID", "INTEGER[]", "INTEGER[3]", "STRUCT(a INTEGER)", "ENUM('a')"),
        *("DOUBLE", "REAL", "FLOAT(53)", "INTERVAL", "MAP(VARCHAR, INTEGER)", "point", "_int4"),
        *("VARCHAR(", "VARCHAR(x)", "VARCHAR(-1)", "VARCHAR(\u0661)", "INTEGER; DROP"),
        "integer" + " " * 300,
    ],
)
def test_others_have_none(datatype: str) -> None:
    assert typespec(datatype) is None


@pytest.mark.parametrize("datatype", ["INTEGER", "int", "UNSIGNED BIG INT", "tinyint(1)"])
def test_sqlite_has_integers_of_one_size(datatype: str) -> None:
    assert typespec(datatype, "sqlite") == integer(64)


def test_mysql_has_years_of_four_digits_and_whole_seconds() -> None:
    date = {**DATE, "min": [1000, 1, 1]}
    assert typespec("datetime", "mysql") == temporal(date, time(0))
    assert typespec("datetime(6)", "mariadb") == temporal(date, time(6))


WORDS = ["INT", "UNSIGNED", "DECIMAL", "VARCHAR", "TIMESTAMP", "WITH TIME ZONE", "COLLATE"]
PIECES = st.sampled_from([*WORDS, "(", ")", ",", " ", "1", "9" * 90, "MAX", "[]", "\0"])


@given(st.text() | st.lists(PIECES).map("".join), st.sampled_from(["", "sqlite", "mysql", "?"]))
def test_any_text_has_a_spec_of_a_known_kind_or_none(datatype: str, dialect: str) -> None:
    found = typespec(datatype, dialect)
    if found is not None:
        kinds = {"INTEGER", "DECIMAL", "STRING", "BINARY", "BOOLEAN", "TEMPORAL"}
        assert found["type"] in kinds
        json.dumps(found, allow_nan=False)
