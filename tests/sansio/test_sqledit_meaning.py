"""A statement that is changed is written anew by sqlglot. What was not to be changed must mean the
same: databases are asked whether it does."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import duckdb
import pytest

from notebook_rpc.errors import NotSupported
from notebook_rpc.sansio import sqledit
from notebook_rpc.sansio.changes import Change, Condition, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = """7/2; 7%3; -7%3; 7.0/2; 'a'||'b'; 'abc' like 'A%'; substr('hello',2,3); 1e3; - -1; -(-1)
case when 1=1 then 2 end; coalesce(null,3); ifnull(null,1); nullif(1,1); 1 between 0 and 2; 5&3; 5|3
1<<3; ~1; 1 in (1,2); not 1=1; round(2.5); abs(-1); length('é'); replace('aa','a','b'); trim(' a ')
(1,2)=(1,2); exists(select 1); cast(1.5 as integer); row_number() over (); count(*); sum(1); ''''
'{"a":1}'->>'a'; json_extract('{"a":1}','$.a'); 1 is null; 1 is not null; max(z)
1=1 and 1=0; 1=1 or 1=0; instr('abc','b'); printf('%d',3); "z"; current_date is not null
1 is not distinct from null; strftime('%Y', date '2020-01-01'); group_concat('a')
'a' collate nocase = 'A'; hex('a')"""
SQLITE = """'abc' glob 'a*'; cast('1x' as int); '1' + 1; x'00ff'; typeof(1); '{"a":1}'->'a'
iif(1,2,3); 1 is not 2; 1 == 1; total(1); max(1,2); min(1,2); quote('a'); 0x1F
date('2020-01-01','+1 month')
unixepoch('1970-01-01'); 1 and 0; not 1; case 1 when 1 then 2 end; char(65); trim('xax','x'); [z]
`z`; zeroblob(2); julianday('2020-01-01'); cast('a' as blob)"""
DUCKDB = """7//2; [1,2,3][1]; [1,2,3][1:2]; {'a':1}.a; date '2020-01-31' + interval 1 month; 2**10
date_diff('day', date '2020-01-01', date '2020-03-01'); extract(year from date '2020-01-01')
'abc' ilike 'A%'; 'abc' ~ 'b'; regexp_matches('abc','b'); regexp_replace('aXbX','X','y','g')
1::decimal(10,2); '1'::int; try_cast('x' as int); 12345678901234567890123; 1_000; epoch_ms(1000)
to_json({'a':1}); '{"a":1}'::json->>'a'; log(100); ln(2); greatest(1,2); string_split('a,b',',')
E'\\n'; '\\n'; $$x$$; list_sort([3,1]); 1 is distinct from null; median(1); quantile_cont(1,0.5)
concat_ws(',','a','b'); xor(5,3); date_trunc('month',date '2020-01-31'); make_date(2020,1,2)
dayofweek(date '2020-01-05'); unicode('a'); format('{}',3); map{'a':1}['a']; struct_pack(a:=1).a
len([1,2]); array_agg(1); string_agg('a',','); bool_and(true); list_contains([1],1); if(true,1,2)
interval '1 day 2 hours'; time '01:02:03'; array_slice([1,2,3],1,2); unnest([1,2]); left('abc',2)
position('b' in 'abc'); strpos('abc','b'); age(date '2020-02-01', date '2020-01-01'); md5('a')
weekofyear(date '2020-02-01'); rank() over (order by 1); columns('z'); count(*) filter (z > 0)"""


def expressions(text: str) -> list[str]:
    return [each for line in text.splitlines() for each in line.split("; ")]


def changed(expression: str, dialect: str) -> tuple[str, str]:
    """A query, and the same with a condition that is true."""
    sql = f"select {expression} as v from (select 1 as z) s"
    if expression.startswith("columns"):
        sql = f"select {expression} from (select 1 as z) s"
    always = Change(Operation.ADD, "WHERE", [Condition("z", "=", "1")])
    return sql, sqledit.changed(sql, always, dialect, {})


@pytest.mark.parametrize("expression", expressions(BOTH) + expressions(SQLITE))
def test_sqlite_gives_the_same(expression: str) -> None:
    with closing(sqlite3.connect(":memory:")) as database, suppress(NotSupported):
        before, after = changed(expression, "sqlite")
        try:
            expected = database.execute(before).fetchall()
        except sqlite3.Error:
            return  # of the other database
        assert database.execute(after).fetchall() == expected, after


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(duckdb.connect()) as database:
        yield database


@pytest.mark.parametrize("expression", expressions(BOTH) + expressions(DUCKDB))
def test_duckdb_gives_the_same(expression: str, database: duckdb.DuckDBPyConnection) -> None:
    with suppress(NotSupported):
        before, after = changed(expression, "duckdb")
        try:
            expected = database.execute(before).fetchall()
        except duckdb.Error:
            return  # of the other database
        assert database.execute(after).fetchall() == expected, after
