"""What tables are called."""

from __future__ import annotations

from notebook_rpc.model import Table
from notebook_rpc.sansio.names import distinct


def test_a_name_alone_where_sql_looks_by_itself() -> None:
    schemas = ("", "main", "public", "dbo")
    tables = [Table("db", schema, f"t{at}") for at, schema in enumerate(schemas)]
    assert distinct(tables) == ["t0", "t1", "t2", "t3"]


def test_elsewhere_with_the_schema() -> None:
    assert distinct([Table("db", "sales", "users")]) == ["sales.users"]


def test_all_that_there_is_where_two_would_be_called_the_same() -> None:
    tables = [Table("a", "main", "users"), Table("b", "main", "users"), Table("b", "main", "t")]
    assert distinct(tables) == ["a.main.users", "b.main.users", "t"]
    assert distinct([Table("", "", "t"), Table("", "main", "t")]) == ["t", "main.t"]
